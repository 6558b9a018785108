/* Rows to requests, and what the writer and the loop's fetches read. Runs on the thread that owns the
 * store. */
#include "queue/sqlite_private.h"

#include <errno.h>
#include <string.h>

/* --- Rows to requests --- */

static char *column_string(sqlite3_stmt *stmt, int column)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);
    return text != NULL ? strdup((const char *) text) : NULL;
}

/* The kinds of doubt as bits, above them the number of replies 500. */
#define TRAIL_DOUBTFUL 1
#define TRAIL_BELIEVED 2
#define TRAIL_ASK 4
#define TRAIL_FINAL 8
#define TRAIL_ERRORS 16

int64_t store_pack_trail(struct trail trail)
{
    return (trail.doubtful ? TRAIL_DOUBTFUL : 0) | (trail.believed ? TRAIL_BELIEVED : 0) |
           (trail.ask ? TRAIL_ASK : 0) | (trail.final ? TRAIL_FINAL : 0) |
           (int64_t) trail.server_errors * TRAIL_ERRORS;
}

static struct trail unpack_trail(int64_t packed)
{
    return (struct trail){
        .doubtful = packed & TRAIL_DOUBTFUL,
        .believed = packed & TRAIL_BELIEVED,
        .ask = packed & TRAIL_ASK,
        .final = packed & TRAIL_FINAL,
        .server_errors = (unsigned) (packed / TRAIL_ERRORS),
    };
}

/* NULL when out of memory, SQLite's too. */
static struct request *read_request(sqlite3_stmt *stmt)
{
    const char *request_id = (const char *) sqlite3_column_text(stmt, COL_REQUEST_ID);
    const char *job_id = (const char *) sqlite3_column_text(stmt, COL_JOB_ID);
    const char *origin = (const char *) sqlite3_column_text(stmt, COL_ORIGIN);
    if (request_id == NULL || job_id == NULL || origin == NULL)
        return NULL;
    struct request *req = request_create(
        (enum source) sqlite3_column_int(stmt, COL_SOURCE), request_id, job_id,
        (size_t) sqlite3_column_bytes(stmt, COL_JOB_ID), origin,
        sqlite3_column_int64(stmt, COL_ACCEPTED_AT), sqlite3_column_int64(stmt, COL_DEADLINE_AT));
    if (req == NULL)
        return NULL;

    req->seq = sqlite3_column_int64(stmt, COL_SEQ);
    bool joined = sqlite3_column_type(stmt, COL_CHAIN) != SQLITE_NULL;
    req->chain = joined ? sqlite3_column_int64(stmt, COL_CHAIN) : req->seq;
    req->follows = sqlite3_column_int(stmt, COL_LEADS) == 0;
    req->chain_attempts = (unsigned) sqlite3_column_int64(stmt, COL_TOTAL);
    req->attempts = req->chain_attempts - (unsigned) sqlite3_column_int64(stmt, COL_BASE);
    req->due_at_ms = sqlite3_column_int64(stmt, COL_DUE_AT);
    req->trail = unpack_trail(sqlite3_column_int64(stmt, COL_TRAIL));
    req->http_status = sqlite3_column_int(stmt, COL_HTTP_STATUS);
    req->endpoint = (enum endpoint) sqlite3_column_int(stmt, COL_ENDPOINT);
    req->job_status = column_string(stmt, COL_JOB_STATUS);
    req->message = column_string(stmt, COL_MESSAGE);
    req->error_code = column_string(stmt, COL_ERROR_CODE);
    req->error_message = column_string(stmt, COL_ERROR_MESSAGE);
    if (sqlite3_column_type(stmt, COL_N) != SQLITE_NULL) {
        req->n = sqlite3_column_int64(stmt, COL_N);
        req->done_at_ms = sqlite3_column_int64(stmt, COL_DONE_AT);
        req->outcome = (enum outcome) sqlite3_column_int(stmt, COL_OUTCOME);
        req->coalesced_with = column_string(stmt, COL_COALESCED_WITH);
        request_set_state(req, REQUEST_DONE);
    } else if (req->due_at_ms != 0) {
        request_set_state(req, REQUEST_WAITING);
    }
    return req;
}

int store_read_requests(sqlite3_stmt *stmt, size_t limit, struct request **ret, size_t *ret_n)
{
    size_t n = 0;
    int rc = SQLITE_DONE;
    while (n < limit && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        ret[n] = read_request(stmt);
        if (ret[n] == NULL) {
            rc = SQLITE_NOMEM;
            break;
        }
        n++;
    }
    (void) sqlite3_reset(stmt);
    int r = store_errno(sqlite3_db_handle(stmt), rc);
    if (r < 0) {
        while (n > 0)
            request_destroy(ret[--n]);
        return r;
    }
    *ret_n = n;
    return 0;
}

static int read_one(sqlite3_stmt *stmt, struct request **ret)
{
    struct request *req = NULL;
    size_t n = 0;
    int r = store_read_requests(stmt, 1, &req, &n);
    if (r < 0)
        return r;
    if (n == 0)
        return -ENOENT;
    *ret = req;
    return 0;
}

static int follow_leader(struct store *st, struct request *req, bool with_state,
                         int64_t *ret_leader_seq)
{
    struct request *leader = NULL;
    int r = store_find_leader(st, req->chain, &leader);
    if (r < 0 || leader == NULL)
        return r == -ENOENT ? 0 : r;

    r = request_inherit(req, leader, false);
    if (r == 0)
        r = request_set_text(&req->coalesced_with, leader->request_id);
    if (r == 0 && with_state && leader->state == REQUEST_WAITING) {
        req->due_at_ms = leader->due_at_ms;
        request_set_state(req, REQUEST_WAITING);
    }
    *ret_leader_seq = leader->seq;
    request_destroy(leader);
    return r;
}

int store_complete(struct store *st, struct request *req, bool with_state, int64_t *ret_leader_seq)
{
    int64_t leader_seq = req->state == REQUEST_DONE ? 0 : req->seq;
    int r = 0;
    if (req->state != REQUEST_DONE && req->follows)
        r = follow_leader(st, req, with_state, &leader_seq);
    if (ret_leader_seq != NULL)
        *ret_leader_seq = leader_seq;
    return r;
}

/* --- Reading --- */

/* The first column of the only row; -ENOENT when there is no row or it is NULL. */
static int read_int(sqlite3_stmt *stmt, int64_t *ret)
{
    int rc = sqlite3_step(stmt);
    int r = store_errno(sqlite3_db_handle(stmt), rc);
    if (r == 0 && (rc != SQLITE_ROW || sqlite3_column_type(stmt, 0) == SQLITE_NULL))
        r = -ENOENT;
    if (r == 0)
        *ret = sqlite3_column_int64(stmt, 0);
    (void) sqlite3_reset(stmt);
    return r;
}

int store_get_meta(struct store *st, const char *key, int64_t *ret)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_GET_META, &r);
    if (stmt == NULL)
        return r;
    store_bind_text(stmt, 1, key);
    return read_int(stmt, ret);
}

int store_walk_meta(struct store *st, store_meta_fn fn, void *userdata)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_ALL_META, &r);
    if (stmt == NULL)
        return r;
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && r == 0)
        r = fn(userdata, (const char *) sqlite3_column_text(stmt, 0),
               sqlite3_column_int64(stmt, 1));
    (void) sqlite3_reset(stmt);
    return r < 0 ? r : store_errno(st->db, rc);
}

int store_find(struct store *st, const char *request_id, struct request **ret,
               int64_t *ret_leader_seq)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_FIND, &r);
    if (stmt == NULL)
        return r;
    store_bind_text(stmt, 1, request_id);
    struct request *req = NULL;
    r = read_one(stmt, &req);
    if (r < 0)
        return r;
    r = store_complete(st, req, true, ret_leader_seq);
    if (r < 0) {
        request_destroy(req);
        return r;
    }
    *ret = req;
    return 0;
}

int store_find_leader(struct store *st, int64_t chain, struct request **ret)
{
    static const enum statement places[] = { ST_FIND_FOUNDER, ST_FIND_PROMOTED };
    for (size_t i = 0; i < 2; i++) {
        int r = 0;
        sqlite3_stmt *stmt = store_statement(st, places[i], &r);
        if (stmt == NULL)
            return r;
        (void) sqlite3_bind_int64(stmt, 1, chain);
        r = read_one(stmt, ret);
        if (r != -ENOENT)
            return r;
    }
    return -ENOENT;
}

int store_fetch_followers(struct store *st, int64_t chain, size_t limit, struct request **ret,
                          size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_FOLLOWERS, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, chain);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return store_read_requests(stmt, limit, ret, ret_n);
}

int store_fetch_fresh(struct store *st, int64_t after_seq, size_t limit, struct request **ret,
                      size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_FRESH, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_seq);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return store_read_requests(stmt, limit, ret, ret_n);
}

static int fetch_until(struct store *st, enum statement which, struct queue_position after,
                       int64_t until_ms, size_t limit, struct request **ret, size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, which, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after.at_ms);
    (void) sqlite3_bind_int64(stmt, 2, after.seq);
    (void) sqlite3_bind_int64(stmt, 3, until_ms);
    (void) sqlite3_bind_int64(stmt, 4, (int64_t) limit);
    return store_read_requests(stmt, limit, ret, ret_n);
}

int store_fetch_due(struct store *st, struct queue_position after, int64_t until_ms, size_t limit,
                    struct request **ret, size_t *ret_n)
{
    return fetch_until(st, ST_DUE, after, until_ms, limit, ret, ret_n);
}

int store_fetch_expired(struct store *st, struct queue_position after, int64_t until_ms,
                        size_t limit, struct request **ret, size_t *ret_n)
{
    size_t n = 0;
    int r = fetch_until(st, ST_EXPIRED, after, until_ms, limit, ret, &n);
    for (size_t i = 0; i < n && r == 0; i++)
        r = store_complete(st, ret[i], false, NULL);
    for (size_t i = 0; i < n && r < 0; i++)
        request_destroy(ret[i]);
    if (r == 0)
        *ret_n = n;
    return r;
}

int store_fetch_results(struct store *st, int64_t after_n, size_t limit, struct request **ret,
                        size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_RESULTS, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_n);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return store_read_requests(stmt, limit, ret, ret_n);
}

/* INT64_MAX when there is none. */
static int next_time(struct store *st, enum statement which, int64_t after_ms, int64_t *ret)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, which, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_ms);
    r = read_int(stmt, ret);
    if (r == -ENOENT) {
        *ret = INT64_MAX;
        r = 0;
    }
    return r;
}

int store_next_due(struct store *st, int64_t after_ms, int64_t *ret)
{
    return next_time(st, ST_NEXT_DUE, after_ms, ret);
}

int store_next_deadline(struct store *st, int64_t after_ms, int64_t *ret)
{
    return next_time(st, ST_NEXT_DEADLINE, after_ms, ret);
}

int store_fresh_floor(struct store *st, int64_t from_seq, int64_t *ret)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_FLOOR, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, from_seq);
    int64_t first = 0;
    r = read_int(stmt, &first);
    if (r == 0)
        *ret = first - 1;
    return r;
}

int store_count(struct store *st, struct store_counts *ret)
{
    int r = 0;
    sqlite3_stmt *last = store_statement(st, ST_LAST, &r);
    sqlite3_stmt *count = last != NULL ? store_statement(st, ST_COUNT, &r) : NULL;
    sqlite3_stmt *waiting = count != NULL ? store_statement(st, ST_COUNT_WAITING, &r) : NULL;
    if (waiting == NULL)
        return r;

    struct store_counts counts = { .pending = 0 };
    int rc = sqlite3_step(last);
    if (rc == SQLITE_ROW) {
        counts.last_seq = sqlite3_column_int64(last, 0);
        counts.last_n = sqlite3_column_int64(last, 1);
    }
    (void) sqlite3_reset(last);
    r = store_errno(st->db, rc);
    if (r == 0)
        r = read_int(count, &counts.pending);
    if (r == 0)
        r = read_int(waiting, &counts.waiting);
    if (r == 0)
        *ret = counts;
    return r;
}

int store_walk_pending(struct store *st, struct queue_position *position, size_t limit,
                       store_walk_fn fn, void *userdata, bool *ret_end)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_WALK, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, position->at_ms);
    (void) sqlite3_bind_int64(stmt, 2, position->seq);
    (void) sqlite3_bind_int64(stmt, 3, (int64_t) limit);

    size_t n = 0;
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && r == 0) {
        position->seq = sqlite3_column_int64(stmt, 0);
        position->at_ms = sqlite3_column_int64(stmt, 1);
        r = fn(userdata, (const char *) sqlite3_column_text(stmt, 2),
               (size_t) sqlite3_column_bytes(stmt, 2), sqlite3_column_int64(stmt, 3),
               sqlite3_column_int(stmt, 4) == 0);
        n++;
    }
    (void) sqlite3_reset(stmt);
    if (r == 0)
        r = store_errno(st->db, rc);
    if (r == 0)
        *ret_end = n < limit;
    return r;
}
