/* Files that can't be taken go to rejected/, each with a NAME.reason that says what to do.
 *
 * The reason is written first, so that no file is there without one. Nobody's file is replaced: a
 * name that is taken gets a suffix. Runs on the loop thread. */
#ifndef PULSE_INTAKE_REJECT_H
#define PULSE_INTAKE_REJECT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "intake/spool_dir.h"

enum reject_cause {
    REJECT_SYMLINK,
    REJECT_FIFO,
    REJECT_DEVICE,
    REJECT_SOCKET,
    REJECT_DIRECTORY,
    REJECT_TOO_LARGE, /* detail: its size */
    REJECT_UNREADABLE,
    REJECT_LINKED,    /* a file of others, as far as can be told */
    REJECT_NUL,       /* detail: offset of the NUL byte */
    REJECT_BAD_LINES, /* detail: number of the last line that was looked at */
    REJECT_FOREIGN,   /* in .claimed/, but not as a claim */
    REJECT_EMPTIED,   /* had content when it was claimed */
    REJECT_REWRITTEN, /* detail: lines that were taken before */
    REJECT_LATE,      /* was empty when it was taken */
};

struct reject {
    const char *name; /* what it was called in the spool directory */
    const char *uuid; /* of its claim */
    enum reject_cause cause;
    int64_t detail;
};

/* What a file that is not a regular one is. */
enum reject_cause reject_cause_of_type(mode_t mode);

/* Moves the file and logs it. 0, or -errno and the file is where it was. */
int reject_move(struct spool_dir *d, int from_fd, const char *from_name, const struct reject *why);

/* --- The rest of a file, after too many bad lines --- */

/* A copy in the making: `.UUID.rest` in rejected/. */
struct reject_rest {
    int fd; /* -1 = not begun */
    off_t copied;
};

/* Copies up to `max` bytes of what lies in [from, to). 1 when there is more, 0 when all is copied
 * and synced, -errno with the copy given up. */
int reject_rest_copy(struct spool_dir *d, const char *uuid, int from_fd, off_t from, off_t to,
                     size_t max, struct reject_rest *rest);

/* Gives the copy its name and reason. Sync rejected/ before the claim is removed. 0, or -errno with
 * the copy given up. */
int reject_rest_place(struct spool_dir *d, const struct reject *why, struct reject_rest *rest);

/* A run before this one got so far. */
bool reject_rest_placed(struct spool_dir *d, const struct reject *why);

/* Gives the copy up. */
void reject_rest_finish(struct spool_dir *d, const char *uuid, struct reject_rest *rest);

#endif
