/* The requests that a command is about: jobs, a request, or an outcome. */
#ifndef PULSE_CTL_TARGET_H
#define PULSE_CTL_TARGET_H

#include <stdbool.h>

#include "ctl/command.h"
#include "ctl/connection.h"

struct target {
    const char *params; /* JSON text */
    const char *name;   /* for people */
    bool is_request;
    bool is_outcome;
};

/* Checks the command's JOBs, --request-id and --outcome (one of the three), connects, and calls
 * `run` for each until one fails, whose status it returns. */
enum ctl_exit target_each(const struct invocation *inv,
                          enum ctl_exit (*run)(const struct invocation *inv, struct connection *c,
                                               const struct target *target, void *userdata),
                          void *userdata);

#endif
