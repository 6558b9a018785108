/* The writer thread's data and the operations that cross over to it. Private to queue/.
 *
 * An operation is made by the loop, put into the inbox, applied by the writer, put into the outbox
 * and freed by the loop: it has one owner at a time and needs no lock of its own. */
#ifndef PULSE_QUEUE_WRITER_H
#define PULSE_QUEUE_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

#include "base/buf.h"
#include "base/u64map.h"
#include "queue/queue.h"
#include "queue/sqlite.h"

/* Lines of one batch in memory, bytes. */
#define LINES_MAX ((size_t) 8 << 20)

enum op_kind {
    OP_PUT,
    OP_RETRY,
    OP_SETTLE,
    OP_FETCH,
    OP_REOPEN_LOG,
    OP_SET_NOTE,
    OP_FLUSH,
    OP_BARRIER,
    OP_STORAGE, /* writer to loop only */
    OP_STOPPED, /* writer to loop only */
};

struct op_settled {
    int64_t seq;
    int64_t n;
    char *request_id;
    char *job_id;
    enum outcome outcome;
    char *line;
    size_t line_len;
};

struct op {
    enum op_kind kind;
    int status;
    TAILQ_ENTRY(op) link;

    struct queue_put *put;

    struct request *request; /* RETRY, SETTLE */
    bool whole_chain;
    bool continues; /* SETTLE: more followers are left, and the leader */
    struct request *promoted;

    enum queue_order order; /* FETCH */
    struct queue_position after;
    int64_t until_ms, next_at_ms;
    size_t limit;
    struct request **requests;
    size_t n_requests;

    struct op_settled *settled;
    size_t n_settled;

    char *name; /* SET_NOTE */
    int64_t value;
    int64_t due_at_ms; /* FLUSH */
    int64_t n;         /* FLUSH: how many */
    queue_done_fn done;
    void *done_userdata;

    char *text; /* STORAGE: NULL = all is well again */
    bool database, fatal;
};
TAILQ_HEAD(op_list, op);

struct op *op_create(enum op_kind kind);
/* Frees everything it still owns. */
void op_destroy(struct op *op);
/* Forgets what an application that was rolled back has left in it. Until then it tells whether the
 * commit became durable all the same. */
void op_reset(struct op *op);

struct writer {
    char *database;
    struct queue_log log;
    uv_thread_t thread;
    bool started;
    int64_t waiting_at_start;
    int64_t floor_at_start;
    int64_t unclean_seq; /* as at the start */
    uv_async_t async;    /* wakes the loop for the outbox */

    /* Shared with the loop, under the mutex. */
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct op_list inbox;
    struct op_list bulk; /* puts of many requests: one of them a commit */
    bool urgent;         /* something in the inbox doesn't wait for company */
    int64_t lazy_at_ms;  /* monotonic; when the first thing came into the empty inbox */
    bool stopping;
    bool clean; /* `stopping`: and nothing was cut off */
    bool watch_all;
    int64_t max_pending;
    int64_t history_ms;
    struct op_list outbox;
    int64_t pending;  /* published with each outbox, as is this: */
    size_t n_watched; /* `watched`'s */

    /* The writer thread's own. */
    bool ending;            /* `stopping`, as last looked at */
    bool ended;             /* and all is done: the next start need not doubt anything */
    struct store *store;    /* NULL while in trouble */
    struct u64map *chains;  /* job ID hash → chain << 1 | whether anyone has joined it */
    struct u64map *watched; /* mixed seq → 1: its line is wanted */
    bool all_watched;       /* every line is, for this batch */
    uint8_t hash_key[16];
    bool filling; /* `chains` is being read from the database; puts are deferred */
    struct queue_position fill_position;
    struct op_list deferred; /* puts */
    struct op_list held;     /* retries and settlements that no commit has taken yet */
    int64_t last_seq, last_n, count;
    int64_t fresh_floor;

    /* The lines of the batch being applied, from number lines_first on; given up when it grows
     * too long, and then read from the database. */
    struct buf lines;
    int64_t lines_first;
    bool lines_broken;

    int64_t written_n; /* last line in the log */
    int64_t synced_n;
    int64_t sync_at_ms; /* monotonic; 0 = nothing to sync */
    bool reopen_log;
    int64_t prune_at_ms; /* monotonic */
    int64_t pruned_history_ms;

    char *trouble; /* what was last told to the loop; NULL = all is well */
    int store_error, log_error;
    int64_t retry_at_ms; /* monotonic */
    int64_t backoff_ms;
};

/* Opens the database, recovers the log and starts the thread; `async` is initialised by then. `note`
 * is given each note. */
int writer_start(struct writer *w, const struct queue_options *options, const struct queue_log *log,
                 store_meta_fn note, void *userdata, struct buf *reterr);
/* After the thread has ended, or was never started. */
void writer_finish(struct writer *w);

/* writer_log.c: the results log, which trails the database. All but writer_recover_log() handle what
 * fails themselves: it is tried again later. */
/* As at a start. 0 or -errno, with a text for the operator in `reterr`. */
int writer_recover_log(struct writer *w, struct buf *reterr);
/* Appends what is committed and not yet in the log. */
void writer_append_lines(struct writer *w);
/* Syncs the log, and only then says in the database how far it is synced; prunes behind that. */
void writer_checkpoint(struct writer *w);
/* A rotation. What was committed before it belongs into the old file. */
void writer_reopen_log(struct writer *w);

/* writer.c: the database, or the log, can't be used until it is tried again. */
void writer_store_failed(struct writer *w, int error);
void writer_log_failed(struct writer *w, int error);
void writer_log_recovered(struct writer *w);

/* apply.c: what an operation does to the store and the chains, inside a transaction. 0 or -errno of
 * the store: then the whole transaction is rolled back. */
int apply_op(struct writer *w, struct op *op);
/* Reads the next part of the chains from the database. */
int apply_fill_step(struct writer *w);

#endif
