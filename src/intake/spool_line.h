/* A line of a spool file to the request that is made of it. Pure but for allocation. */
#ifndef PULSE_INTAKE_SPOOL_LINE_H
#define PULSE_INTAKE_SPOOL_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/request.h"

/* The claimed file that the lines are of. */
struct spool_line_file {
    const char *uuid;
    const char *name;
    int64_t now_ms;     /* steady UTC */
    int64_t deadline_s; /* for lines that give none */
};

/* The line without its newline. *ret is NULL for a blank line or a comment. A bad line makes a
 * request that is done, OUTCOME_INVALID, with *ret_bad. 0 or -ENOMEM. */
int spool_line_request(const struct spool_line_file *file, uint64_t number, const char *text,
                       size_t len, struct request **ret, bool *ret_bad);

/* The name of an empty file, which is its only line. */
int spool_line_name(const struct spool_line_file *file, struct request **ret, bool *ret_bad);

/* A request that is done: the line is bad for the reason given. */
int spool_line_invalid(const struct spool_line_file *file, uint64_t number, const char *text,
                       size_t len, const char *what, struct request **ret);

#endif
