/* Names in the spool directory: which are left alone, what a claimed file is called, and what a
 * rejected one. Pure.
 *
 * A claim is `UUID-NAME`. Of a file that was empty when it was claimed, so that its name is its
 * content, it is `UUID+NAME`: a power failure can empty a file whose writer never synced it, and its
 * name must not be taken for a job ID then. Where that is too long for a name, a directory `UUID` or
 * `UUID+` holds the file under its own name. */
#ifndef PULSE_INTAKE_SPOOL_NAME_H
#define PULSE_INTAKE_SPOOL_NAME_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"

#define CLAIMED_DIRECTORY ".claimed"
#define REJECTED_DIRECTORY "rejected"
#define REASON_SUFFIX ".reason"

/* Writers may use such names and rename; the daemon's own directories are among them. */
bool spool_name_ignored(const char *name);

/* A cheap hash for finding a name again in a small list; never 0. */
uint64_t spool_name_hash(const char *name);

struct claim_name {
    char uuid[UUID_TEXT_MAX];
    bool was_empty;
    const char *name; /* into the parsed text; NULL: a directory that holds the file */
};

/* True when all of it fits; false when `ret` is the name of a directory to hold the file. */
bool claim_name_format(char ret[static NAME_MAX + 1], const char *uuid, bool was_empty,
                       const char *name);

/* 0, or -EINVAL for a name that is not of this form. */
int claim_name_parse(const char *text, struct claim_name *ret);

/* The name to try at a given attempt: NAME, NAME.1 to NAME.9, then one with the UUID, which nobody
 * has. NAME is cut so that the suffix and `.reason` always fit. */
#define REJECT_NAME_ATTEMPTS 11
void reject_name_format(char ret[static NAME_MAX + 1], const char *name, const char *uuid,
                        unsigned attempt);

#endif
