/* The durable queue: every accepted request and every outcome, in an SQLite database.
 *
 * The loop hands operations to one writer thread, which commits them in groups and hands them back;
 * a second, read-only connection answers `status` and `list` in the thread pool. Nothing is
 * acknowledged before its commit is on disk (synchronous=FULL).
 *
 * All functions and callbacks here run on the loop thread unless they say otherwise. Operations are
 * applied in the order in which they were handed over, and their callbacks come in that order; but
 * puts of many requests let others pass, and puts wait while the map of chains is being read.
 *
 * While storage is in trouble, puts fail with -EIO and leave nothing to acknowledge; retries and
 * settlements stay with the queue and are committed when the fault ends. */
#ifndef PULSE_QUEUE_QUEUE_H
#define PULSE_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/buf.h"
#include "model/request.h"

struct queue;

struct queue_options {
    const char *database;
    int64_t max_pending;
    int64_t history_days;
};

/* Whether the outcome number `n` is that of `request_id`: 1 yes, 0 no (another database wrote the
 * line), -ENOENT when it has been pruned, other -errno. */
struct queue_log_check;
int queue_log_check(const struct queue_log_check *check, int64_t n, const char *request_id);

/* The results log as the writer thread uses it; implemented by results/. All return 0 or -errno and
 * run on the writer thread, `recover` before queue_open() returns on the loop's. `append`, `sync` and
 * `reopen` return -ESTALE when the file was removed: `recover` then begins a new one. */
struct queue_cursor {
    uint64_t device, inode; /* 0 = no log yet */
    int64_t offset;         /* synced bytes */
    int64_t n;              /* of the last synced line */
};
struct queue_log {
    /* Repairs the log after whatever happened and says which line is its last. `max_n` is the
     * database's last. `reterr` gets a text. -EEXIST when the log belongs to another database: the
     * numbers tell, or queue_log_check(), which is to be asked about a line of the log before
     * anything in it is changed (`check` NULL: it can't be asked). */
    int (*recover)(void *userdata, const struct queue_cursor *cursor, int64_t max_n,
                   const struct queue_log_check *check, int64_t *ret_last_n, struct buf *reterr);
    /* Appends whole lines, the last of which is number `last_n`. On an error none of them counts;
     * the log is as before or repaired by the next append. */
    int (*append)(void *userdata, const char *lines, size_t len, int64_t last_n);
    /* fdatasync, then where the log ends now. */
    int (*sync)(void *userdata, struct queue_cursor *ret_cursor);
    /* Opens the path anew after a rotation; syncs the old file first. */
    int (*reopen)(void *userdata);
    void *userdata;
};

/* An outcome that has been committed. */
struct queue_settled {
    int64_t seq;
    int64_t n;
    const char *request_id;
    const char *job_id; /* for OUTCOME_INVALID the offending line */
    enum outcome outcome;
    const char *line; /* the result line without newline; NULL when nobody watches */
    size_t line_len;
};

/* In which order pending requests are fetched. */
enum queue_order {
    QUEUE_FRESH,       /* leaders that were never tried, by seq */
    QUEUE_BY_DUE,      /* leaders that wait for a retry, by its time */
    QUEUE_BY_DEADLINE, /* all, followers too */
};
#define QUEUE_ORDER_COUNT (QUEUE_BY_DEADLINE + 1)

/* How far a fetch has come. */
struct queue_position {
    int64_t at_ms; /* steady UTC; not for QUEUE_FRESH */
    int64_t seq;
};

struct queue_trouble {
    const char *text; /* NULL = all is well */
    bool database;    /* it is not only the results log */
    bool fatal;       /* there is no getting out of it: the database is corrupt */
};

/* What dispatch and the daemon are told. */
struct queue_handler {
    /* A request was committed (after its put's `done`). Ownership moves. One that follows is only
     * told of, since its chain has a leader. */
    void (*accepted)(void *userdata, struct request *req);
    /* queue_retry() was committed. Ownership moves back. */
    void (*retried)(void *userdata, struct request *req);
    /* The leader of a chain was settled alone: this one goes on in its place. Ownership moves. */
    void (*promoted)(void *userdata, struct request *req);
    void (*settled)(void *userdata, const struct queue_settled *settled);
    /* queue_settle() came too late: the request had ended with its chain. */
    void (*ended_before)(void *userdata, int64_t seq);
    /* The answer to queue_fetch(). The requests (not the array) move. `next_at_ms` is the first time
     * of that order beyond what was asked for, INT64_MAX when there is none. A status other than 0
     * means that nothing was read: ask again. */
    void (*fetched)(void *userdata, enum queue_order order, int status, struct request **requests,
                    size_t n, int64_t next_at_ms);
    /* Storage got into trouble, or out of it. After it, rows that nobody was told of may be in the
     * database: fetch anew from what was fetched last. */
    void (*storage)(void *userdata, const struct queue_trouble *trouble);
    void *userdata;
};

/* Opens or makes the database, recovers the results log, starts the writer. 0; -EWOULDBLOCK when a
 * live daemon holds it; -EBADMSG corrupt; -EPROTO newer than this program; other -errno. `reterr`
 * gets a sentence for the operator. */
int queue_open(struct queue **ret, uv_loop_t *loop, const struct queue_options *options,
               const struct queue_log *log, struct buf *reterr);

/* Before the loop runs. */
void queue_set_handler(struct queue *q, const struct queue_handler *handler);

/* Reload of what may change. */
void queue_set_limits(struct queue *q, int64_t max_pending, int64_t history_days);

/* `clean`: nothing was cut off that may have been sent. Commits what was handed over, syncs the log,
 * ends the writer, then calls `done`; no retry and no settlement may be handed over after it. In
 * storage trouble it tries once more and gives up. */
void queue_stop(struct queue *q, bool clean, void (*done)(void *userdata), void *userdata);

/* Frees; only after queue_stop()'s `done` or when the loop never ran. Accepts NULL. The handles
 * are closed by queue_stop(). */
void queue_destroy(struct queue *q);

/* --- Intake --- */

enum put_outcome {
    PUT_ACCEPTED,  /* committed now */
    PUT_KNOWN,     /* its request_id was accepted before, for the same job; see `known` */
    PUT_OTHER_JOB, /* its request_id belongs to another job; not accepted */
    PUT_LEFT,      /* not looked at: queue full */
    PUT_RETRIED,   /* what it retries has been retried already; not accepted */
};

struct queue_put_result {
    enum put_outcome outcome;
    bool coalesced;        /* ACCEPTED: it joined a chain */
    struct request *known; /* KNOWN: as it stands in the database; owned by the put */
};

/* A note (see queue_note()) that is kept with a put. */
#define QUEUE_PUT_NOTES_MAX 2
struct queue_put_note {
    char name[64];
    int64_t value;
};

/* Requests that are accepted in one transaction, in their order. A request whose state is
 * REQUEST_DONE (an invalid line) goes straight to its outcome, whose `n` the queue gives. */
struct queue_put {
    struct request **requests;
    struct queue_put_result *results;
    size_t n_requests;
    /* All or nothing: a full queue, or an OTHER_JOB, refuses the whole put. Of several requests
     * none may have a request_id of its sender's. Otherwise an OTHER_JOB is left out, and a full
     * queue takes what fits and leaves the rest (PUT_LEFT). */
    bool atomic;
    /* The result lines of these requests are wanted in `settled`. */
    bool watch;
    /* NULL, or for each request the seq of the finished one that it retries (malloc'ed; freed with
     * the put). */
    int64_t *retry_of;
    /* Kept in the same transaction, unless something is left. queue_note() finds them after the
     * next start only. */
    struct queue_put_note notes[QUEUE_PUT_NOTES_MAX];
    size_t n_notes;
    /* Directories to fsync before the commit, so that the names of claimed files last; -1 = none.
     * They are borrowed until `done`. */
    int sync_fds[2];
    int sync_error; /* -errno when that failed: then `status` is -EIO */
    /* status: 0, -EXFULL queue full (atomic, or nothing fitted), -EEXIST (atomic), -EIO trouble. The put is
     * freed after `done`, and with it the requests that were not accepted. */
    void (*done)(struct queue_put *put, int status, void *userdata);
    void *userdata;
};

struct queue_put *queue_put_create(size_t n_requests);
void queue_put_destroy(struct queue_put *put);

/* Takes the put. 0, or without having taken it -EIO (storage trouble), -ESHUTDOWN. */
int queue_put(struct queue *q, struct queue_put *put);

/* All result lines are wanted, for subscribers. */
void queue_watch_all(struct queue *q, bool on);

/* --- Dispatch --- */

/* A counted attempt or a new due time: keeps attempts, due_at_ms and the last failure. Ownership
 * moves, and comes back in `retried`. */
void queue_retry(struct queue *q, struct request *req);

/* The outcome of a request (outcome, done_at_ms and the failure are filled in, `n` is given here);
 * of everyone in its chain, or of it alone. Ownership moves. */
void queue_settle(struct queue *q, struct request *req, bool whole_chain);

/* Up to `limit` pending requests beyond `after`, those with a time only up to `until_ms`. `after` is
 * the place of the last one that was fetched. */
void queue_fetch(struct queue *q, enum queue_order order, struct queue_position after,
                 int64_t until_ms, size_t limit);

/* --- Administration --- */

/* status: 0, -EIO in storage trouble, -ESHUTDOWN (at once) after queue_stop(). */
typedef void (*queue_done_fn)(void *userdata, int status, int64_t n);

/* Small facts that outlive the process, by name. */
#define QUEUE_NOTE_MAX 2200
/* 0 when it was never set; otherwise as handed over last. One that is set to 0 takes no space on
 * disk. */
int64_t queue_note(const struct queue *q, const char *name);
/* `done`, which may be NULL, once it is committed; n = 0. Without a `done` it is kept until it can
 * be. The name is cut at QUEUE_NOTE_MAX bytes. */
void queue_set_note(struct queue *q, const char *name, int64_t value, queue_done_fn done,
                    void *userdata);

/* The last seq that was given when the daemon ended without queue_stop(), or not clean: what was
 * accepted up to then may have been sent. 0 = that never happened. */
int64_t queue_unclean_seq(const struct queue *q);

/* Makes each waiting request due at `due_at_ms` (steady UTC) unless it is sooner; n = how many.
 * They have to be fetched anew. */
void queue_flush(struct queue *q, int64_t due_at_ms, queue_done_fn done, void *userdata);

/* `done` once all that was handed over before is committed; n = 0. */
void queue_barrier(struct queue *q, queue_done_fn done, void *userdata);

/* --- Results log --- */

/* Rotation: what is committed goes into the old file, then the path is opened anew. */
void queue_reopen_log(struct queue *q);

/* --- What there is --- */

struct queue_counts {
    int64_t pending; /* all that are not done */
    int64_t waiting; /* of these, those that waited for a retry when the queue was opened */
};
void queue_get_counts(const struct queue *q, struct queue_counts *ret);

/* Where the first queue_fetch() may begin: no request up to this one was never tried. */
int64_t queue_first_seq(const struct queue *q);

/* For how long operations have waited for the writer, none of them coming back; 0 in storage trouble,
 * which is a matter of its own. */
int64_t queue_stalled_ms(const struct queue *q);

/* NULL when all is well. */
const char *queue_storage_trouble(const struct queue *q);

/* The RETRY ones find the newest finished request of each job in question that did not end as
 * cancelled, too_late or invalid and was not retried yet. */
enum queue_query_kind {
    QUERY_REQUEST_ID,
    QUERY_JOB_ID,
    QUERY_PENDING_JOB_ID, /* who leads comes last */
    QUERY_LIST,
    QUERY_RETRY_REQUEST_ID,
    QUERY_RETRY_JOB_ID,
    QUERY_RETRY_OUTCOME,
};

/* A read of the database, on a thread of the pool. `state` of a leader that is in flight reads as
 * queued or waiting: overlay what dispatch knows by `leader_seq`. */
struct queue_row {
    struct request *request; /* owned by the query */
    int64_t leader_seq;      /* whose attempts serve it; itself, or another; 0 when done */
};
struct queue_query {
    enum queue_query_kind kind;
    char text[JOB_ID_MAX + 1]; /* request_id or job_id */
    int state;                 /* LIST: enum request_state, -1 = any */
    int outcome;               /* LIST, RETRY_OUTCOME: enum outcome, -1 = any */
    int64_t after_seq;         /* LIST: only later ones */
    size_t limit;              /* JOB_ID newest first, the others oldest first; >= 1 */
    struct queue_row *rows;
    size_t n_rows;
    /* LIST: there may be more after next_seq. A query looks at a bounded number of rows, and can't
     * tell queued from in flight or waiting: it may end with fewer rows than the limit, or none,
     * and yet have more. */
    bool more;
    int64_t next_seq;
    /* status 0, -EIO, or -ESHUTDOWN. The query is freed after it. */
    void (*done)(struct queue_query *query, int status, void *userdata);
    void *userdata;
};
struct queue_query *queue_query_create(enum queue_query_kind kind);
void queue_query_destroy(struct queue_query *query);
/* Takes the query. */
void queue_read(struct queue *q, struct queue_query *query);

#endif
