/* The requests that dispatch has in memory, found in the database so that none is ever forgotten:
 *
 * - never tried leaders by seq: each one up to `cursor` is or was in memory, later ones are fetched
 *   when the window runs low;
 * - those that wait for a retry by its time, and all by their deadline: each pending one up to where
 *   the scan has come is in memory or with the queue, later ones are fetched when their time comes.
 *   One that waits may leave memory only while its time lies beyond.
 *
 * It knows every request that is in memory or handed over to the queue, so that a fetched copy of one
 * is recognised. Runs on the loop thread. */
#ifndef PULSE_DISPATCH_WINDOW_H
#define PULSE_DISPATCH_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/request.h"
#include "queue/queue.h"

struct window;

enum window_place {
    WINDOW_NOWHERE,   /* on disk only, or done */
    WINDOW_HERE,      /* in memory, perhaps in flight */
    WINDOW_ENDING,    /* handed over to be settled */
    WINDOW_RETURNING, /* handed over to come back and wait */
    WINDOW_RECALLED,  /* as RETURNING, but wanted for something else */
};

/* `expired` is given each request whose deadline has passed while it was not in flight: ownership
 * moves; it is out of the window and has to be handed over. 0 or -ENOMEM. */
int window_create(struct window **ret, struct queue *queue,
                  void (*expired)(void *userdata, struct request *req), void *userdata);
void window_destroy(struct window *w);

/* Begins with what the queue has. */
void window_start(struct window *w);

/* --- The queue's news; ownership of the requests moves --- */

void window_accepted(struct window *w, struct request *req);
void window_returned(struct window *w, struct request *req);
void window_promoted(struct window *w, struct request *req);
void window_fetched(struct window *w, enum queue_order order, int status, struct request **requests,
                    size_t n, int64_t next_at_ms);
/* Settled. */
void window_ended(struct window *w, int64_t seq);
/* The database can be used, or not. What was fetched is fetched anew. */
void window_storage(struct window *w, bool usable);

/* --- Handing out --- */

/* The next one to be sent, NULL when there is none. It is in flight from now on, and owned by the
 * caller; the window still knows it. */
struct request *window_next(struct window *w);
bool window_has_next(const struct window *w);
/* In flight no more, and handed over to the queue: to be settled, or to come back and wait. */
void window_hand_over(struct window *w, struct request *req, enum window_place place);

/* --- Looking up --- */

/* The job of one that is not in flight, for something to ask the API about; NULL when none is in
 * memory. */
const char *window_peek(const struct window *w);

enum window_place window_place(const struct window *w, int64_t seq);
/* WINDOW_HERE: the request, still the window's, or in flight. */
struct request *window_get(const struct window *w, int64_t seq);
/* WINDOW_HERE and not in flight: takes it out; ownership moves. */
struct request *window_take(struct window *w, int64_t seq);
/* WINDOW_RETURNING becomes RECALLED: window_returned() is not for it then. */
void window_recall(struct window *w, int64_t seq);
/* How many wait for a retry, on disk too. */
size_t window_waiting(const struct window *w);

/* --- Time --- */

/* Each one that waits is due now; for after queue_flush(). */
void window_flush(struct window *w);
/* Moves what has become due, hands out what has expired, and fetches what is wanted. */
void window_turn(struct window *w, int64_t now_ms);
/* When the next turn is due; INT64_MAX when nothing is planned. */
int64_t window_next_ms(const struct window *w);

#endif
