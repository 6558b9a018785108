/* The queue's statements. Only sqlite*.c know SQL.
 *
 * One row a request, pending or done, in one table. A pending row has n IS NULL; due_at is when it is
 * tried again, 0 when it was never tried. Requests for one job form a chain: the first one
 * (chain IS NULL) and those that joined it (chain = its seq); `leads` marks the one whose attempts
 * are made. `total` counts the attempts of the chain and is kept by the leader; `base` is what it
 * was when the request joined, so that a request's own attempts are total - base and an attempt
 * updates one row however many wait for it.
 *
 * No function here is called by two threads at once on one store. All return 0 or -errno: -ENOSPC,
 * -EIO, -EROFS, -EBADMSG (corrupt), -EPROTO (newer than this program), -ENOMEM. */
#ifndef PULSE_QUEUE_SQLITE_H
#define PULSE_QUEUE_SQLITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/request.h"
#include "queue/queue.h"

struct store;

/* Opens, and makes or migrates when it may write. `reterr` gets a sentence for the operator. */
int store_open(struct store **ret, const char *path, bool read_only, struct buf *reterr);
/* After a failed sync, before the database is opened again: commits that are in the WAL only as far
 * as the kernel remembers are written to disk once more. While a store is open, only its reading
 * may go on. */
int store_rewrite_wal(const char *path);
/* Accepts NULL. Rolls back what is open. */
void store_close(struct store *st);
/* What SQLite said last, for the log. */
const char *store_message(const struct store *st);
/* The same with the error that one of these functions returned; borrowed until the next one. */
const char *store_explain(struct store *st, int r);

/* -ESTALE when the path does not name the file any more: what was committed there would be lost. */
int store_begin(struct store *st);
int store_commit(struct store *st);
void store_rollback(struct store *st);

/* --- Writing, inside a transaction --- */

/* req->seq, chain, follows and the counts are set by the caller. -EEXIST: the request_id is there. */
int store_insert(struct store *st, const struct request *req);

/* Attempts, due time and last failure of a pending leader. */
int store_update(struct store *st, const struct request *req);

/* The outcome. *ret_changed is false when it was done already (a commit that failed and yet became
 * durable). */
int store_settle(struct store *st, const struct request *req, bool *ret_changed);

/* Makes a follower the leader, with its counts and due time as in `req`. */
int store_promote(struct store *st, const struct request *req);

/* Removes done rows with done_at < before_ms and n <= max_n; at most `limit`. */
int store_prune(struct store *st, int64_t before_ms, int64_t max_n, size_t limit,
                size_t *ret_removed);

/* Every waiting request with a later due time is due at `due_at_ms`. */
int store_flush(struct store *st, int64_t due_at_ms, int64_t *ret_n);

/* A finished request is queued anew. -EEXIST: it was already. */
int store_mark_retried(struct store *st, int64_t seq);

int store_set_meta(struct store *st, const char *key, int64_t value);
int store_drop_meta(struct store *st, const char *key);

/* --- Reading --- */

/* -ENOENT when it was never set. */
int store_get_meta(struct store *st, const char *key, int64_t *ret);

/* All of them. A callback's error ends the walk and is returned. */
typedef int (*store_meta_fn)(void *userdata, const char *key, int64_t value);
int store_walk_meta(struct store *st, store_meta_fn fn, void *userdata);

/* -ENOENT when there is none; the caller destroys *ret. Followers carry their leader's counts and
 * failure. `ret_leader_seq` may be NULL. */
int store_find(struct store *st, const char *request_id, struct request **ret,
               int64_t *ret_leader_seq);

/* The pending request that leads the chain; -ENOENT. */
int store_find_leader(struct store *st, int64_t chain, struct request **ret);

/* Up to `limit` requests in *ret_requests (an array of `limit` given by the caller). */
int store_fetch_followers(struct store *st, int64_t chain, size_t limit, struct request **ret,
                          size_t *ret_n);
int store_fetch_fresh(struct store *st, int64_t after_seq, size_t limit, struct request **ret,
                      size_t *ret_n);
/* Leaders whose due time lies in (after, until], by it. */
int store_fetch_due(struct store *st, struct queue_position after, int64_t until_ms, size_t limit,
                    struct request **ret, size_t *ret_n);
/* All whose deadline lies in (after, until], by it; followers with what their leader has come to. */
int store_fetch_expired(struct store *st, struct queue_position after, int64_t until_ms,
                        size_t limit, struct request **ret, size_t *ret_n);
int store_fetch_results(struct store *st, int64_t after_n, size_t limit, struct request **ret,
                        size_t *ret_n);

/* The first due time, or deadline, beyond `after_ms`; INT64_MAX when there is none. */
int store_next_due(struct store *st, int64_t after_ms, int64_t *ret);
int store_next_deadline(struct store *st, int64_t after_ms, int64_t *ret);

/* The seq before the first leader that was never tried, looking on from `from_seq`. */
int store_fresh_floor(struct store *st, int64_t from_seq, int64_t *ret);

struct store_counts {
    int64_t last_seq;
    int64_t last_n; /* 0 when no done row is left */
    int64_t pending;
    int64_t waiting;
};
int store_count(struct store *st, struct store_counts *ret);

/* Walks over pending rows by their deadline, from *position on, for at most `limit` rows; *position
 * starts at {INT64_MIN, 0}. *ret_end says that there are no more. */
typedef int (*store_walk_fn)(void *userdata, const char *job_id, size_t len, int64_t chain,
                             bool follows);
int store_walk_pending(struct store *st, struct queue_position *position, size_t limit,
                       store_walk_fn fn, void *userdata, bool *ret_end);

/* Fills the query's rows. */
int store_query(struct store *st, struct queue_query *query);

#endif
