/* The log's rotated neighbours: files in its directory whose names begin with its name. Private to
 * results/. */
#ifndef PULSE_RESULTS_ROTATED_H
#define PULSE_RESULTS_ROTATED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "queue/queue.h"

/* Looks for the cursor's file among the neighbours of `path` (itself, by `own_inode`, left out),
 * repairs and syncs it, and goes on with those that continue it, when the log was rotated more than
 * once. *ret_last_n: the last line there, at least the cursor's. *ret_found: whether the cursor's
 * file is still there. 0, -EEXIST when it belongs to another database, or -errno. */
int rotated_recover(const char *path, uint64_t own_inode, const struct queue_cursor *cursor,
                    int64_t max_n, int64_t *ret_last_n, bool *ret_found, struct buf *reterr);

#endif
