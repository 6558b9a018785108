/* The results log: an append-only projection of committed outcomes into a JSON Lines file.
 *
 * The database has every outcome with its number `n` before its line is written, so the file can
 * always be repaired from it: cut what is torn, find the last line, append what is missing.
 * Everything but create and destroy runs on the queue's writer thread. */
#ifndef PULSE_RESULTS_RESULTS_H
#define PULSE_RESULTS_RESULTS_H

#include "queue/queue.h"

struct results;

/* Opens nothing yet. `path` is copied. 0 or -ENOMEM. */
int results_create(struct results **ret, const char *path);

/* Closes the file; after the writer has ended. Accepts NULL. */
void results_destroy(struct results *r);

/* The functions that the queue calls; valid as long as `r`. */
void results_get_log(struct results *r, struct queue_log *ret_log);

#endif
