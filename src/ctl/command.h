/* A command of pulse-cancelctl: what it is called with, and what it ends with. */
#ifndef PULSE_CTL_COMMAND_H
#define PULSE_CTL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "ctl/output.h"

#define CTL_DEFAULT_SOCKET "/run/pulse-canceld/socket"
#define CTL_DEFAULT_LOG "/var/log/pulse-canceld/results.log"

enum ctl_exit {
    CTL_OK = 0,
    CTL_NOT_CANCELLED = 1, /* some were not, or what was asked for can't be read or written */
    CTL_USAGE = 2,
    CTL_UNREACHABLE = 3,
    CTL_REFUSED = 4,
    CTL_SIGNALLED = 128, /* plus the signal's number */
};

/* In the order in which help shows them. */
enum option_id {
    OPTION_FILE,
    OPTION_NO_WAIT,
    OPTION_DEADLINE,
    OPTION_REQUEST_ID,
    OPTION_RECONNECT,
    OPTION_STATE,
    OPTION_OUTCOME,
    OPTION_SINCE,
    OPTION_UNTIL,
    OPTION_LINES,
    OPTION_LIMIT,
    OPTION_AFTER,
    OPTION_SOCKET,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_COUNT,
};

struct option_spec {
    enum option_id id;
    char letter; /* 0 = none */
    const char *name;
    const char *argument; /* NULL = takes none */
    const char *help;
};

struct invocation {
    const struct command *command;
    const char *values[OPTION_COUNT]; /* NULL = not given; "" for an option without argument */
    char **arguments;
    size_t n_arguments;
    struct output *out;
};

#define COMMAND_OPTIONS_MAX 8

struct command {
    const char *name;
    const char *arguments; /* for its usage line */
    const char *summary;   /* one line */
    const char *description;
    struct option_spec options[COMMAND_OPTIONS_MAX]; /* its own; ends with a name that is NULL */
    size_t min_arguments;
    size_t max_arguments;
    enum ctl_exit (*run)(const struct invocation *inv);
};

/* Ends with a name that is NULL. */
extern const struct command ctl_commands[];

/* Those that every command takes. Ends with a name that is NULL. */
extern const struct option_spec ctl_options[];

/* NULL when there is none. */
const struct command *command_find(const char *name);

static inline bool invocation_has(const struct invocation *inv, enum option_id id)
{
    return inv->values[id] != NULL;
}

#endif
