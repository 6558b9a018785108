/* Requests that were read and are not through yet: at most so many, whatever is still to be read.
 *
 * Each keeps its text until its answer is there. When the connection is lost, all are sent again in
 * the same order on the next one, with the same request_id: for the daemon that is no second
 * request, and one that is done meanwhile is answered with its result. */
#ifndef PULSE_CTL_WINDOW_H
#define PULSE_CTL_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "ctl/connection.h"
#include "ctl/input.h"

struct slot {
    uint64_t number; /* of the line */
    char *params;    /* of the call, JSON text */
    char job_id[JOB_ID_MAX + 1];
    TAILQ_ENTRY(slot) link;
    struct slot_list *list; /* where it is; NULL = free */
};
TAILQ_HEAD(slot_list, slot);

struct window {
    struct slot *slots;
    size_t size;
    size_t n_used;
    bool wait;
    struct slot_list free;
    struct slot_list unsent;
    struct slot_list sent;
    struct slot_list again; /* answered, but not with what was asked for: once more, later */
};

/* `wait`: calls are to be answered with results. 0 or -ENOMEM. */
int window_init(struct window *w, size_t size, bool wait);
void window_finish(struct window *w);

bool window_full(const struct window *w);

/* A good line with its request_id; not while the window is full. 0 or -ENOMEM. */
int window_add(struct window *w, const struct input_line *line);

/* Hands what is unsent to the connection, as long as that has not too much waiting. 0 or -errno. */
int window_send(struct window *w, struct connection *c);

/* The slot that a call of ours with this id is about, or NULL. */
struct slot *window_find(struct window *w, int64_t id);

/* The slot is through. */
void window_done(struct window *w, struct slot *slot);

/* Not yet: it is sent again by window_repeat(). */
void window_postpone(struct window *w, struct slot *slot);

/* Postponed ones are unsent from now on; after a lost connection (`all`), all others, too. */
void window_repeat(struct window *w, bool all);

/* How many the daemon was sent and has not answered; `unsent_lines` are still in our own buffer. */
size_t window_count_sent(const struct window *w, size_t unsent_lines);

#endif
