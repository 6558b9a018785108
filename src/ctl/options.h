/* The command line: from arguments to an invocation, and from the table of commands to help. */
#ifndef PULSE_CTL_OPTIONS_H
#define PULSE_CTL_OPTIONS_H

#include <stdint.h>

#include "ctl/command.h"

/* -1 to run ret->command, else the exit status: help or version was asked for and printed, or
 * something is wrong and was said. Strings are borrowed from `argv`, whose order may change. */
int options_parse(int argc, char **argv, struct output *out, struct invocation *ret);

/* An integer of an option within min..max. False, and it is told, when it is none. */
bool options_number(const struct invocation *inv, enum option_id id, int64_t min, int64_t max,
                    int64_t *ret);

/* What is wrong with how a command was called, and where to read on. Always CTL_USAGE. */
enum ctl_exit options_misused(const struct invocation *inv, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
