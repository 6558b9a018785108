/* What is written, inside the writer's transactions. Runs on the writer thread. */
#include "queue/sqlite_private.h"

#include <errno.h>

/* 0 stands for NULL. */
static void bind_id(sqlite3_stmt *stmt, int i, int64_t value)
{
    if (value != 0)
        (void) sqlite3_bind_int64(stmt, i, value);
    else
        (void) sqlite3_bind_null(stmt, i);
}

/* http_status, endpoint, job_status, message, error_code, error_message from parameter `i` on. */
static void bind_failure(sqlite3_stmt *stmt, int i, const struct request *req)
{
    (void) sqlite3_bind_int(stmt, i, req->http_status);
    (void) sqlite3_bind_int(stmt, i + 1, (int) req->endpoint);
    store_bind_text(stmt, i + 2, req->job_status);
    store_bind_text(stmt, i + 3, req->message);
    store_bind_text(stmt, i + 4, req->error_code);
    store_bind_text(stmt, i + 5, req->error_message);
}

int store_insert(struct store *st, const struct request *req)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_INSERT, &r);
    if (stmt == NULL)
        return r;

    bool done = req->state == REQUEST_DONE;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    store_bind_text(stmt, 2, req->request_id);
    store_bind_text(stmt, 3, req->job_id);
    (void) sqlite3_bind_int(stmt, 4, (int) req->source);
    store_bind_text(stmt, 5, req->origin);
    (void) sqlite3_bind_int64(stmt, 6, req->accepted_at_ms);
    (void) sqlite3_bind_int64(stmt, 7, req->deadline_at_ms);
    bind_id(stmt, 8, req->chain != req->seq ? req->chain : 0);
    (void) sqlite3_bind_int(stmt, 9, !req->follows);
    (void) sqlite3_bind_int64(stmt, 10, request_base(req));
    (void) sqlite3_bind_int64(stmt, 11, req->chain_attempts);
    (void) sqlite3_bind_int64(stmt, 12, req->due_at_ms);
    bind_failure(stmt, 13, req);
    bind_id(stmt, 19, req->n);
    bind_id(stmt, 20, done ? req->done_at_ms : 0);
    if (done)
        (void) sqlite3_bind_int(stmt, 21, (int) req->outcome);
    else
        (void) sqlite3_bind_null(stmt, 21);
    store_bind_text(stmt, 22, req->coalesced_with);

    r = store_run(stmt);
    if (r == 0 && sqlite3_changes(st->db) == 0)
        r = -EEXIST;
    return r;
}

static int write_progress(struct store *st, enum statement which, const struct request *req)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, which, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    (void) sqlite3_bind_int64(stmt, 2, req->chain_attempts);
    (void) sqlite3_bind_int64(stmt, 3, req->due_at_ms);
    (void) sqlite3_bind_int64(stmt, 4, store_pack_trail(req->trail));
    bind_failure(stmt, 5, req);
    return store_run(stmt);
}

int store_update(struct store *st, const struct request *req)
{
    return write_progress(st, ST_UPDATE, req);
}

int store_promote(struct store *st, const struct request *req)
{
    return write_progress(st, ST_PROMOTE, req);
}

int store_settle(struct store *st, const struct request *req, bool *ret_changed)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_SETTLE, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    (void) sqlite3_bind_int64(stmt, 2, req->chain_attempts);
    bind_failure(stmt, 3, req);
    (void) sqlite3_bind_int64(stmt, 9, req->n);
    (void) sqlite3_bind_int64(stmt, 10, req->done_at_ms);
    (void) sqlite3_bind_int(stmt, 11, (int) req->outcome);
    store_bind_text(stmt, 12, req->coalesced_with);
    r = store_run(stmt);
    if (r == 0)
        *ret_changed = sqlite3_changes(st->db) > 0;
    return r;
}

int store_prune(struct store *st, int64_t before_ms, int64_t max_n, size_t limit,
                size_t *ret_removed)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_PRUNE, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, before_ms);
    (void) sqlite3_bind_int64(stmt, 2, max_n);
    (void) sqlite3_bind_int64(stmt, 3, (int64_t) limit);
    r = store_run(stmt);
    if (r == 0)
        *ret_removed = (size_t) sqlite3_changes(st->db);
    return r;
}

int store_set_meta(struct store *st, const char *key, int64_t value)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_SET_META, &r);
    if (stmt == NULL)
        return r;
    store_bind_text(stmt, 1, key);
    (void) sqlite3_bind_int64(stmt, 2, value);
    return store_run(stmt);
}

int store_drop_meta(struct store *st, const char *key)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_DROP_META, &r);
    if (stmt == NULL)
        return r;
    store_bind_text(stmt, 1, key);
    return store_run(stmt);
}

int store_flush(struct store *st, int64_t due_at_ms, int64_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_FLUSH, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, due_at_ms);
    r = store_run(stmt);
    if (r == 0)
        *ret_n = sqlite3_changes(st->db);
    return r;
}

int store_mark_retried(struct store *st, int64_t seq)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_MARK_RETRIED, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, seq);
    r = store_run(stmt);
    if (r == 0 && sqlite3_changes(st->db) == 0)
        r = -EEXIST;
    return r;
}
