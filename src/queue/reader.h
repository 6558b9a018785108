/* Reads beside the writer: on a connection of their own, in libuv's thread pool, one at a time. Loop
 * thread. */
#ifndef PULSE_QUEUE_READER_H
#define PULSE_QUEUE_READER_H

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

#include "queue/queue.h"
#include "queue/sqlite.h"

struct read;
TAILQ_HEAD(read_list, read);

struct reader {
    uv_loop_t *loop;
    const char *database;
    /* Of the one read that is under way. NULL until the first, and between two while `closed`. */
    struct store *store;
    struct read_list waiting;
    bool reading, closed, stopping;
    uv_work_t first_work;
    void (*done)(void *userdata);
    void *userdata;
};

/* Before there is another thread: the environment is set. `done` is called after each read. */
void reader_init(struct reader *r, uv_loop_t *loop, void (*done)(void *userdata), void *userdata);
/* `database` is borrowed. libuv aborts when it can't make the threads of its pool, at the first work
 * that it is given: that must be now, not when a client asks for something. */
void reader_start(struct reader *r, const char *database);

/* query->done is called in any case, and the query destroyed. */
void reader_read(struct reader *r, struct queue_query *query);

/* While storage is in trouble, the connection is closed between two reads. Within a process SQLite's
 * connections share their table of locks, and one whose release failed is in it until all of them
 * are closed: as long as this one is open, the writer opens anew in vain. */
void reader_set_closed(struct reader *r, bool closed);

/* What waits ends with -ESHUTDOWN, as do later ones; the one that is under way goes on. */
void reader_stop(struct reader *r);
bool reader_is_busy(const struct reader *r);
/* Not while it is busy. */
void reader_finish(struct reader *r);

#endif
