/* What clients ask for: status, list, and what a retry would queue anew. Runs on the thread that owns
 * the store. */
#include "queue/sqlite_private.h"

#include <errno.h>
#include <stdlib.h>

static void bind_not_retryable(sqlite3_stmt *stmt)
{
    (void) sqlite3_bind_int(stmt, 2, OUTCOME_CANCELLED);
    (void) sqlite3_bind_int(stmt, 3, OUTCOME_TOO_LATE);
    (void) sqlite3_bind_int(stmt, 4, OUTCOME_INVALID);
}

/* A query by one text: request_id or job_id. */
static sqlite3_stmt *bind_by_text(struct store *st, enum statement which, const char *text,
                                  int *ret_error)
{
    sqlite3_stmt *stmt = store_statement(st, which, ret_error);
    if (stmt != NULL)
        store_bind_text(stmt, 1, text);
    return stmt;
}

static sqlite3_stmt *bind_list(struct store *st, const struct queue_query *query, size_t limit,
                               int *ret_error)
{
    bool pending = query->state >= 0 && query->state != REQUEST_DONE;
    sqlite3_stmt *stmt = store_statement(st, pending ? ST_LIST_PENDING : ST_LIST, ret_error);
    if (stmt == NULL)
        return NULL;
    (void) sqlite3_bind_int64(stmt, 1, query->after_seq);
    if (pending) {
        (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
        return stmt;
    }
    (void) sqlite3_bind_int(stmt, 2, query->state == REQUEST_DONE ? 2 : 0);
    (void) sqlite3_bind_int(stmt, 3, query->outcome);
    (void) sqlite3_bind_int64(stmt, 4, (int64_t) limit);
    (void) sqlite3_bind_int64(stmt, 5, LIST_STEP);
    return stmt;
}

static sqlite3_stmt *bind_query(struct store *st, const struct queue_query *query, size_t limit,
                                int *ret_error)
{
    sqlite3_stmt *stmt = NULL;
    switch (query->kind) {
    case QUERY_REQUEST_ID:
        return bind_by_text(st, ST_FIND, query->text, ret_error);
    case QUERY_JOB_ID:
    case QUERY_PENDING_JOB_ID:
        stmt = bind_by_text(st, query->kind == QUERY_JOB_ID ? ST_BY_JOB : ST_PENDING_JOB,
                            query->text, ret_error);
        if (stmt != NULL)
            (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
        return stmt;
    case QUERY_LIST:
        return bind_list(st, query, limit, ret_error);
    case QUERY_RETRY_REQUEST_ID:
        stmt = bind_by_text(st, ST_RETRY_ONE, query->text, ret_error);
        break;
    case QUERY_RETRY_JOB_ID:
        stmt = bind_by_text(st, ST_RETRY_JOB, query->text, ret_error);
        break;
    case QUERY_RETRY_OUTCOME:
        stmt = store_statement(st, ST_RETRY_OUTCOME, ret_error);
        if (stmt != NULL) {
            (void) sqlite3_bind_int(stmt, 1, query->outcome);
            (void) sqlite3_bind_int64(stmt, 5, (int64_t) limit);
        }
        break;
    }
    if (stmt != NULL)
        bind_not_retryable(stmt);
    return stmt;
}

/* How far a list has looked: to the last row it gives, or to the end of its step. */
static int find_list_end(struct store *st, struct queue_query *query, size_t limit)
{
    const struct request *last = query->n_rows > 0 ? query->rows[query->n_rows - 1].request : NULL;
    if (query->n_rows == limit && last != NULL) {
        query->next_seq = last->seq;
        query->more = true;
        return 0;
    }
    if (query->state >= 0 && query->state != REQUEST_DONE)
        return 0; /* these are all there are */
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, ST_LIST_END, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, query->after_seq);
    (void) sqlite3_bind_int64(stmt, 2, LIST_STEP);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        query->next_seq = sqlite3_column_int64(stmt, 0);
        query->more = sqlite3_column_int64(stmt, 1) == LIST_STEP;
    }
    (void) sqlite3_reset(stmt);
    return store_errno(sqlite3_db_handle(stmt), rc);
}

int store_query(struct store *st, struct queue_query *query)
{
    int r = 0;
    size_t limit = query->limit;
    sqlite3_stmt *stmt = bind_query(st, query, limit, &r);
    if (stmt == NULL)
        return r;

    struct request **requests = calloc(limit + 1, sizeof(struct request *));
    query->rows = calloc(limit + 1, sizeof(struct queue_row));
    if (requests == NULL || query->rows == NULL) {
        free(requests);
        return -ENOMEM;
    }
    /* The query owns the rows from here on, whatever fails. */
    r = store_read_requests(stmt, limit, requests, &query->n_rows);
    for (size_t i = 0; i < query->n_rows; i++)
        query->rows[i].request = requests[i];
    for (size_t i = 0; i < query->n_rows && r == 0; i++)
        r = store_complete(st, requests[i], true, &query->rows[i].leader_seq);
    free(requests);
    if (r == 0 && query->kind == QUERY_LIST)
        r = find_list_end(st, query, limit);
    return r;
}
