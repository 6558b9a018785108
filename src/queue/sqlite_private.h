/* What the files of the store share: the prepared statements and how a row becomes a request.
 * Private to queue/sqlite*.c. */
#ifndef PULSE_QUEUE_SQLITE_PRIVATE_H
#define PULSE_QUEUE_SQLITE_PRIVATE_H

#include <sqlite3.h>

#include "queue/sqlite.h"

/* Rows that one query for a list looks at. */
#define LIST_STEP 20000

/* The columns of every statement that reads requests, in the order of STORE_COLUMNS. */
enum column {
    COL_SEQ,
    COL_REQUEST_ID,
    COL_JOB_ID,
    COL_SOURCE,
    COL_ORIGIN,
    COL_ACCEPTED_AT,
    COL_DEADLINE_AT,
    COL_CHAIN,
    COL_LEADS,
    COL_BASE,
    COL_TOTAL,
    COL_DUE_AT,
    COL_TRAIL,
    COL_HTTP_STATUS,
    COL_ENDPOINT,
    COL_JOB_STATUS,
    COL_MESSAGE,
    COL_ERROR_CODE,
    COL_ERROR_MESSAGE,
    COL_N,
    COL_DONE_AT,
    COL_OUTCOME,
    COL_COALESCED_WITH,
};

enum statement {
    ST_BEGIN,
    ST_COMMIT,
    ST_ROLLBACK,
    ST_INSERT,
    ST_UPDATE,
    ST_SETTLE,
    ST_PROMOTE,
    ST_PRUNE,
    ST_SET_META,
    ST_DROP_META,
    ST_GET_META,
    ST_ALL_META,
    ST_FIND,
    ST_FIND_FOUNDER,
    ST_FIND_PROMOTED,
    ST_FOLLOWERS,
    ST_FRESH,
    ST_DUE,
    ST_EXPIRED,
    ST_RESULTS,
    ST_NEXT_DUE,
    ST_NEXT_DEADLINE,
    ST_FLOOR,
    ST_WALK,
    ST_LAST,
    ST_COUNT,
    ST_COUNT_WAITING,
    ST_FLUSH,
    ST_MARK_RETRIED,
    ST_RETRY_ONE,
    ST_RETRY_JOB,
    ST_RETRY_OUTCOME,
    ST_BY_JOB,
    ST_PENDING_JOB,
    ST_LIST,
    ST_LIST_END,
    ST_LIST_PENDING,
};
#define STATEMENT_COUNT (ST_LIST_PENDING + 1)

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    char text[256];
};

/* -errno for one of SQLite's results, the last on `db`; 0 for SQLITE_OK, ROW and DONE. */
int store_errno(sqlite3 *db, int rc);

/* Prepared at its first use. NULL, with *ret_error set, when it can't be. */
sqlite3_stmt *store_statement(struct store *st, enum statement which, int *ret_error);

/* Steps a statement that gives no rows, and resets it. */
int store_run(sqlite3_stmt *stmt);

/* NULL becomes SQL's; the text is borrowed until the statement is reset. */
void store_bind_text(sqlite3_stmt *stmt, int i, const char *text);

/* Reads all rows of a bound statement, up to `limit`, and resets it; on an error none. */
int store_read_requests(sqlite3_stmt *stmt, size_t limit, struct request **ret, size_t *ret_n);

/* One column for it. */
int64_t store_pack_trail(struct trail trail);

/* Gives a follower what its leader has come to. `with_state` is for showing it: it waits for what
 * its leader waits for. `ret_leader_seq`, which may be NULL, is 0 when it is done. */
int store_complete(struct store *st, struct request *req, bool with_state, int64_t *ret_leader_seq);

#endif
