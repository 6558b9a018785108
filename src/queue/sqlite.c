/* The queue's statements, prepared once each. Runs on the thread that owns the store: the writer
 * thread for the one that writes, a thread of the pool for the one that only reads. */
#include "queue/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/fs.h"
#include "base/log.h"

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x50434e44 /* "PCND" */
/* A database up to this size is checked whole at start; it takes some 100 ms. */
/* Rows that one query for a list looks at. */
#define LIST_STEP 20000
#define QUICK_CHECK_MAX_BYTES (32LL << 20)

/* No index on random text but the one that makes request_id unique: the daemon's own sort by time.
 * Partial indexes keep finished rows out of what is walked while sending. */
static const char schema[] =
    "CREATE TABLE request ("
    " seq INTEGER PRIMARY KEY,"
    " request_id TEXT NOT NULL UNIQUE,"
    " job_id TEXT NOT NULL,"
    " source INTEGER NOT NULL,"
    " origin TEXT NOT NULL,"
    " accepted_at INTEGER NOT NULL,"
    " deadline_at INTEGER NOT NULL,"
    " chain INTEGER,"
    " leads INTEGER NOT NULL,"
    " base INTEGER NOT NULL,"
    " total INTEGER NOT NULL,"
    " due_at INTEGER NOT NULL,"
    " wake_at INTEGER NOT NULL,"
    " http_status INTEGER NOT NULL,"
    " endpoint INTEGER NOT NULL,"
    " job_status TEXT,"
    " message TEXT,"
    " error_code TEXT,"
    " error_message TEXT,"
    " n INTEGER,"
    " done_at INTEGER,"
    " outcome INTEGER,"
    " coalesced_with TEXT,"
    " retried INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX request_wake ON request(wake_at) WHERE n IS NULL;"
    "CREATE INDEX request_chain ON request(chain) WHERE chain IS NOT NULL AND n IS NULL;"
    "CREATE INDEX request_waiting ON request(seq) WHERE due_at <> 0 AND n IS NULL;"
    "CREATE UNIQUE INDEX request_n ON request(n) WHERE n IS NOT NULL;"
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA application_id = 1346588228;" /* APPLICATION_ID */
    "PRAGMA user_version = 1;";

#define COLUMNS                                                                                    \
    "seq, request_id, job_id, source, origin, accepted_at, deadline_at, chain, leads, base, "      \
    "total, due_at, http_status, endpoint, job_status, message, error_code, error_message, n, "    \
    "done_at, outcome, coalesced_with"

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
    ST_GET_META,
    ST_FIND,
    ST_FIND_FOUNDER,
    ST_FIND_PROMOTED,
    ST_FOLLOWERS,
    ST_FRESH,
    ST_DUE,
    ST_RESULTS,
    ST_NEXT_WAKE,
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

static const char *const statement_sql[STATEMENT_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_INSERT] = "INSERT INTO request (seq, request_id, job_id, source, origin, accepted_at, "
                  "deadline_at, chain, leads, base, total, due_at, wake_at, http_status, endpoint, "
                  "job_status, message, error_code, error_message, n, done_at, outcome, "
                  "coalesced_with) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, "
                  "?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23) "
                  "ON CONFLICT (request_id) DO NOTHING",
    [ST_UPDATE] = "UPDATE request SET total = ?2, due_at = ?3, wake_at = ?4, http_status = ?5, "
                  "endpoint = ?6, job_status = ?7, message = ?8, error_code = ?9, "
                  "error_message = ?10 WHERE seq = ?1 AND n IS NULL",
    [ST_SETTLE] = "UPDATE request SET total = ?2, http_status = ?3, endpoint = ?4, "
                  "job_status = ?5, message = ?6, error_code = ?7, error_message = ?8, n = ?9, "
                  "done_at = ?10, outcome = ?11, coalesced_with = ?12 "
                  "WHERE seq = ?1 AND n IS NULL",
    [ST_PROMOTE] = "UPDATE request SET leads = 1, total = ?2, due_at = ?3, wake_at = ?4, "
                   "http_status = ?5, endpoint = ?6, job_status = ?7, message = ?8, "
                   "error_code = ?9, error_message = ?10 WHERE seq = ?1 AND n IS NULL",
    /* Only the oldest are looked at: they end in the order of n, but for a clock that is stepped
     * back between two starts. */
    [ST_PRUNE] = "DELETE FROM request WHERE seq IN (SELECT seq FROM (SELECT seq, done_at FROM "
                 "request INDEXED BY request_n WHERE n IS NOT NULL AND n <= ?2 ORDER BY n "
                 "LIMIT ?3) WHERE done_at < ?1)",
    [ST_SET_META] = "INSERT INTO meta (key, value) VALUES (?1, ?2) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [ST_GET_META] = "SELECT value FROM meta WHERE key = ?1",
    [ST_FIND] = "SELECT " COLUMNS " FROM request WHERE request_id = ?1",
    [ST_FIND_FOUNDER] =
        "SELECT " COLUMNS " FROM request WHERE seq = ?1 AND n IS NULL AND leads = 1",
    [ST_FIND_PROMOTED] = "SELECT " COLUMNS " FROM request INDEXED BY request_chain "
                         "WHERE chain = ?1 AND n IS NULL AND leads = 1",
    [ST_FOLLOWERS] = "SELECT " COLUMNS " FROM request INDEXED BY request_chain "
                     "WHERE chain = ?1 AND n IS NULL AND leads = 0 ORDER BY seq LIMIT ?2",
    [ST_FRESH] = "SELECT " COLUMNS " FROM request "
                 "WHERE seq > ?1 AND n IS NULL AND due_at = 0 AND leads = 1 ORDER BY seq LIMIT ?2",
    [ST_DUE] = "SELECT " COLUMNS " FROM request INDEXED BY request_wake "
               "WHERE n IS NULL AND (wake_at, seq) > (?1, ?2) AND wake_at <= ?3 "
               "ORDER BY wake_at, seq LIMIT ?4",
    [ST_RESULTS] = "SELECT " COLUMNS " FROM request INDEXED BY request_n "
                   "WHERE n > ?1 ORDER BY n LIMIT ?2",
    [ST_NEXT_WAKE] = "SELECT min(wake_at) FROM request INDEXED BY request_wake "
                     "WHERE n IS NULL AND wake_at > ?1",
    [ST_FLOOR] = "SELECT seq FROM request "
                 "WHERE seq > ?1 AND n IS NULL AND due_at = 0 AND leads = 1 ORDER BY seq LIMIT 1",
    [ST_WALK] = "SELECT seq, wake_at, job_id, coalesce(chain, seq), leads FROM request "
                "INDEXED BY request_wake WHERE n IS NULL AND (wake_at, seq) > (?1, ?2) "
                "ORDER BY wake_at, seq LIMIT ?3",
    [ST_LAST] = "SELECT coalesce((SELECT max(seq) FROM request), 0), coalesce((SELECT n FROM "
                "request INDEXED BY request_n WHERE n > 0 ORDER BY n DESC LIMIT 1), 0)",
    [ST_COUNT] = "SELECT count(*) FROM request INDEXED BY request_wake WHERE n IS NULL",
    [ST_COUNT_WAITING] = "SELECT count(*) FROM request INDEXED BY request_waiting "
                         "WHERE due_at <> 0 AND n IS NULL",
    [ST_FLUSH] = "UPDATE request SET due_at = ?1, wake_at = min(?1, deadline_at) "
                 "WHERE seq IN (SELECT seq FROM request INDEXED BY request_waiting "
                 "WHERE due_at <> 0 AND n IS NULL AND due_at > ?1)",
    [ST_MARK_RETRIED] =
        "UPDATE request SET retried = 1 WHERE seq = ?1 AND retried = 0 AND n IS NOT NULL",
    /* The newest finished request of a job stands for it; SQLite takes the other columns of a
     * max() from the row that has it. */
    [ST_RETRY_ONE] = "SELECT " COLUMNS " FROM request WHERE request_id = ?1 AND n IS NOT NULL "
                     "AND retried = 0 AND outcome NOT IN (?2, ?3, ?4) AND NOT EXISTS (SELECT 1 "
                     "FROM request newer WHERE newer.job_id = request.job_id AND newer.n "
                     "IS NOT NULL AND newer.seq > request.seq)",
    [ST_RETRY_JOB] = "SELECT * FROM (SELECT " COLUMNS " FROM request "
                     "WHERE seq = (SELECT max(seq) FROM request WHERE job_id = ?1 "
                     "AND n IS NOT NULL) AND retried = 0) WHERE outcome NOT IN (?2, ?3, ?4)",
    [ST_RETRY_OUTCOME] = "SELECT " COLUMNS " FROM request WHERE seq IN (SELECT max(seq) "
                         "FROM request WHERE n IS NOT NULL AND job_id IN (SELECT job_id FROM "
                         "request WHERE outcome = ?1 AND retried = 0) GROUP BY job_id) "
                         "AND outcome = ?1 AND retried = 0 AND outcome NOT IN (?2, ?3, ?4) "
                         "ORDER BY seq LIMIT ?5",
    [ST_BY_JOB] = "SELECT " COLUMNS " FROM request WHERE job_id = ?1 ORDER BY seq DESC LIMIT ?2",
    /* All pending ones are looked at, by an index that finished ones are not in. */
    [ST_PENDING_JOB] = "SELECT " COLUMNS " FROM request INDEXED BY request_wake "
                       "WHERE n IS NULL AND job_id = ?1 ORDER BY leads, seq LIMIT ?2",
    /* Looks at no more than LIST_STEP rows, so that a rare outcome among millions keeps nobody
     * else waiting; the caller goes on from where it ended. */
    [ST_LIST] = "SELECT " COLUMNS " FROM (SELECT * FROM request WHERE seq > ?1 ORDER BY seq "
                "LIMIT ?5) WHERE (?2 = 0 OR (?2 = 1 AND n IS NULL) OR (?2 = 2 AND n IS NOT NULL)) "
                "AND (?3 < 0 OR outcome = ?3) ORDER BY seq LIMIT ?4",
    [ST_LIST_END] = "SELECT max(seq), count(*) FROM (SELECT seq FROM request WHERE seq > ?1 "
                    "ORDER BY seq LIMIT ?2)",
    /* Pending ones are few among millions of finished ones, and all in one index. */
    [ST_LIST_PENDING] = "SELECT " COLUMNS " FROM request WHERE seq IN (SELECT seq FROM request "
                        "INDEXED BY request_wake WHERE n IS NULL AND seq > ?1 ORDER BY seq "
                        "LIMIT ?2) ORDER BY seq",
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
};

/* --- SQLite's results --- */

static int to_errno(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EBADMSG;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return -EACCES;
    default:
        return -EIO;
    }
}

const char *store_message(const struct store *st)
{
    return st->db != NULL ? sqlite3_errmsg(st->db) : "not open";
}

/* NULL with *ret_error set when it can't be prepared. */
static sqlite3_stmt *statement(struct store *st, enum statement which, int *ret_error)
{
    if (st->statements[which] == NULL) {
        int rc = sqlite3_prepare_v3(st->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &st->statements[which], NULL);
        if (rc != SQLITE_OK) {
            *ret_error = to_errno(rc);
            return NULL;
        }
    }
    return st->statements[which];
}

/* Steps a statement that gives no rows, and resets it. */
static int run(sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);
    (void) sqlite3_reset(stmt);
    return to_errno(rc);
}

static int run_plain(struct store *st, enum statement which)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, which, &r);
    return stmt != NULL ? run(stmt) : r;
}

static void bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
    if (text != NULL)
        (void) sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC);
    else
        (void) sqlite3_bind_null(stmt, i);
}

/* 0 stands for NULL. */
static void bind_id(sqlite3_stmt *stmt, int i, int64_t value)
{
    if (value != 0)
        (void) sqlite3_bind_int64(stmt, i, value);
    else
        (void) sqlite3_bind_null(stmt, i);
}

/* --- Opening --- */

static int pragma_int(struct store *st, const char *sql, int64_t *ret)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(st->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret = sqlite3_column_int64(stmt, 0);
    (void) sqlite3_finalize(stmt);
    return to_errno(rc);
}

static int quick_check(struct store *st, const char *path)
{
    struct stat sb;
    if (stat(path, &sb) < 0 || sb.st_size > QUICK_CHECK_MAX_BYTES)
        return 0;

    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(st->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    int r = to_errno(rc);
    if (rc == SQLITE_ROW && strcmp((const char *) sqlite3_column_text(stmt, 0), "ok") != 0)
        r = -EBADMSG;
    (void) sqlite3_finalize(stmt);
    return r;
}

static int exec(struct store *st, const char *sql)
{
    return to_errno(sqlite3_exec(st->db, sql, NULL, NULL, NULL));
}

/* Makes the schema in an empty database; later versions migrate here, one step a version. */
static int prepare_schema(struct store *st, bool read_only, int64_t version)
{
    if (version == SCHEMA_VERSION || read_only)
        return 0;

    int r = exec(st, "BEGIN IMMEDIATE");
    if (r < 0)
        return r;
    r = exec(st, schema);
    if (r < 0) {
        (void) exec(st, "ROLLBACK");
        return r;
    }
    return exec(st, "COMMIT");
}

static int open_database(struct store *st, const char *path, bool read_only)
{
    int flags = read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int rc = sqlite3_open_v2(path, &st->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return to_errno(rc);
    (void) sqlite3_extended_result_codes(st->db, 1);
    (void) sqlite3_busy_timeout(st->db, 2000);

    int64_t version = 0, application = 0, tables = 0;
    int r = pragma_int(st, "PRAGMA user_version", &version);
    if (r == 0)
        r = pragma_int(st, "PRAGMA application_id", &application);
    if (r == 0)
        r = pragma_int(st, "SELECT count(*) FROM sqlite_schema", &tables);
    if (r < 0)
        return r;
    if (tables > 0 && version <= SCHEMA_VERSION && application != APPLICATION_ID)
        return -EBADMSG;
    if (version > SCHEMA_VERSION)
        return -EPROTO;

    r = exec(st, "PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY;");
    if (r == 0 && !read_only) {
        r = quick_check(st, path);
        /* FULL syncs the WAL on each commit; the mode itself is kept in the file. */
        if (r == 0)
            r = exec(st, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
                         "PRAGMA journal_size_limit = 67108864;");
    }
    return r == 0 ? prepare_schema(st, read_only, version) : r;
}

int store_open(struct store **ret, const char *path, bool read_only, struct buf *reterr)
{
    struct store *st = calloc(1, sizeof(*st));
    if (st == NULL)
        return -ENOMEM;

    int r = open_database(st, path, read_only);
    if (r < 0) {
        const char *advice =
            r == -EBADMSG  ? "it is corrupt or not a queue database; restore it, or move it away "
                             "together with the results log to begin anew"
            : r == -EPROTO ? "it was written by a newer pulse-canceld; install that version"
                           : store_message(st);
        (void) buf_printf(reterr, "database '%s' can't be opened: %s", path, advice);
        store_close(st);
        return r;
    }
    *ret = st;
    return 0;
}

/* Opening anew is not enough: SQLite would take from the WAL what was written but not synced, and
 * sync it in vain. (No lock of SQLite's is on the WAL, so that closing it here loses none.) */
int store_rewrite_wal(const char *path)
{
    char *wal = NULL;
    if (asprintf(&wal, "%s-wal", path) < 0)
        return -ENOMEM;
    int fd = open(wal, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int r = fd < 0 ? -errno : 0;
    free(wal);
    if (fd < 0)
        return r == -ENOENT ? 0 : r;
    struct stat sb;
    if (fstat(fd, &sb) < 0)
        r = -errno;
    if (r == 0)
        r = fs_write_again(fd, 0, sb.st_size);
    if (r == 0 && fdatasync(fd) < 0)
        r = -errno;
    (void) close(fd);
    return r;
}

void store_close(struct store *st)
{
    if (st == NULL)
        return;
    for (int i = 0; i < STATEMENT_COUNT; i++)
        (void) sqlite3_finalize(st->statements[i]);
    (void) sqlite3_close(st->db);
    free(st);
}

int store_begin(struct store *st)
{
    return run_plain(st, ST_BEGIN);
}

int store_commit(struct store *st)
{
    return run_plain(st, ST_COMMIT);
}

void store_rollback(struct store *st)
{
    /* After some errors SQLite has rolled back by itself. */
    if (!sqlite3_get_autocommit(st->db))
        (void) run_plain(st, ST_ROLLBACK);
}

/* --- Rows to requests --- */

static char *column_string(sqlite3_stmt *stmt, int column)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);
    return text != NULL ? strdup((const char *) text) : NULL;
}

static struct request *read_request(sqlite3_stmt *stmt)
{
    struct request *req = request_create((enum source) sqlite3_column_int(stmt, COL_SOURCE),
                                         (const char *) sqlite3_column_text(stmt, COL_REQUEST_ID),
                                         (const char *) sqlite3_column_text(stmt, COL_JOB_ID),
                                         (size_t) sqlite3_column_bytes(stmt, COL_JOB_ID),
                                         (const char *) sqlite3_column_text(stmt, COL_ORIGIN),
                                         sqlite3_column_int64(stmt, COL_ACCEPTED_AT),
                                         sqlite3_column_int64(stmt, COL_DEADLINE_AT));
    if (req == NULL)
        return NULL;

    req->seq = sqlite3_column_int64(stmt, COL_SEQ);
    bool joined = sqlite3_column_type(stmt, COL_CHAIN) != SQLITE_NULL;
    req->chain = joined ? sqlite3_column_int64(stmt, COL_CHAIN) : req->seq;
    req->follows = sqlite3_column_int(stmt, COL_LEADS) == 0;
    req->chain_attempts = (unsigned) sqlite3_column_int64(stmt, COL_TOTAL);
    req->attempts = req->chain_attempts - (unsigned) sqlite3_column_int64(stmt, COL_BASE);
    req->due_at_ms = sqlite3_column_int64(stmt, COL_DUE_AT);
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

/* Reads all rows; on an error none. */
static int read_requests(sqlite3_stmt *stmt, size_t limit, struct request **ret, size_t *ret_n)
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
    int r = to_errno(rc);
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
    int r = read_requests(stmt, 1, &req, &n);
    if (r < 0)
        return r;
    if (n == 0)
        return -ENOENT;
    *ret = req;
    return 0;
}

/* A follower's attempts are its leader's: what has become of it is read there. `with_state` is for
 * showing it: it waits for what its leader waits for. */
static int follow_leader(struct store *st, struct request *req, bool with_state,
                         int64_t *ret_leader_seq)
{
    struct request *leader = NULL;
    int r = store_find_leader(st, req->chain, &leader);
    if (r == -ENOENT)
        return 0;
    if (r < 0 || leader == NULL)
        return r;

    unsigned base = req->chain_attempts - req->attempts;
    req->chain_attempts = leader->chain_attempts;
    req->attempts = leader->chain_attempts - base;
    if (req->attempts > 0) {
        req->http_status = leader->http_status;
        req->endpoint = leader->endpoint;
        r = request_set_text(&req->job_status, leader->job_status);
        if (r == 0)
            r = request_set_text(&req->message, leader->message);
        if (r == 0)
            r = request_set_text(&req->error_code, leader->error_code);
        if (r == 0)
            r = request_set_text(&req->error_message, leader->error_message);
    }
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

static int complete(struct store *st, struct request *req, bool with_state, int64_t *ret_leader_seq)
{
    int64_t leader_seq = req->state == REQUEST_DONE ? 0 : req->seq;
    int r = 0;
    if (req->state != REQUEST_DONE && req->follows)
        r = follow_leader(st, req, with_state, &leader_seq);
    if (ret_leader_seq != NULL)
        *ret_leader_seq = leader_seq;
    return r;
}

static int complete_all(struct store *st, struct request **requests, size_t n)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = complete(st, requests[i], false, NULL);
    for (size_t i = 0; i < n && r < 0; i++)
        request_destroy(requests[i]);
    return r;
}

/* --- Writing --- */

static unsigned base_of(const struct request *req)
{
    return req->chain_attempts - req->attempts;
}

/* http_status, endpoint, job_status, message, error_code, error_message from parameter `i` on. */
static void bind_failure(sqlite3_stmt *stmt, int i, const struct request *req)
{
    (void) sqlite3_bind_int(stmt, i, req->http_status);
    (void) sqlite3_bind_int(stmt, i + 1, (int) req->endpoint);
    bind_text(stmt, i + 2, req->job_status);
    bind_text(stmt, i + 3, req->message);
    bind_text(stmt, i + 4, req->error_code);
    bind_text(stmt, i + 5, req->error_message);
}

int store_insert(struct store *st, const struct request *req)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_INSERT, &r);
    if (stmt == NULL)
        return r;

    bool done = req->state == REQUEST_DONE;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    bind_text(stmt, 2, req->request_id);
    bind_text(stmt, 3, req->job_id);
    (void) sqlite3_bind_int(stmt, 4, (int) req->source);
    bind_text(stmt, 5, req->origin);
    (void) sqlite3_bind_int64(stmt, 6, req->accepted_at_ms);
    (void) sqlite3_bind_int64(stmt, 7, req->deadline_at_ms);
    bind_id(stmt, 8, req->chain != req->seq ? req->chain : 0);
    (void) sqlite3_bind_int(stmt, 9, !req->follows);
    (void) sqlite3_bind_int64(stmt, 10, base_of(req));
    (void) sqlite3_bind_int64(stmt, 11, req->chain_attempts);
    (void) sqlite3_bind_int64(stmt, 12, req->due_at_ms);
    (void) sqlite3_bind_int64(stmt, 13, queue_wake_at_ms(req));
    bind_failure(stmt, 14, req);
    bind_id(stmt, 20, req->n);
    bind_id(stmt, 21, done ? req->done_at_ms : 0);
    if (done)
        (void) sqlite3_bind_int(stmt, 22, (int) req->outcome);
    else
        (void) sqlite3_bind_null(stmt, 22);
    bind_text(stmt, 23, req->coalesced_with);

    r = run(stmt);
    if (r == 0 && sqlite3_changes(st->db) == 0)
        r = -EEXIST;
    return r;
}

static int write_progress(struct store *st, enum statement which, const struct request *req)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, which, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    (void) sqlite3_bind_int64(stmt, 2, req->chain_attempts);
    (void) sqlite3_bind_int64(stmt, 3, req->due_at_ms);
    (void) sqlite3_bind_int64(stmt, 4, queue_wake_at_ms(req));
    bind_failure(stmt, 5, req);
    return run(stmt);
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
    sqlite3_stmt *stmt = statement(st, ST_SETTLE, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, req->seq);
    (void) sqlite3_bind_int64(stmt, 2, req->chain_attempts);
    bind_failure(stmt, 3, req);
    (void) sqlite3_bind_int64(stmt, 9, req->n);
    (void) sqlite3_bind_int64(stmt, 10, req->done_at_ms);
    (void) sqlite3_bind_int(stmt, 11, (int) req->outcome);
    bind_text(stmt, 12, req->coalesced_with);
    r = run(stmt);
    if (r == 0)
        *ret_changed = sqlite3_changes(st->db) > 0;
    return r;
}

int store_prune(struct store *st, int64_t before_ms, int64_t max_n, size_t limit,
                size_t *ret_removed)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_PRUNE, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, before_ms);
    (void) sqlite3_bind_int64(stmt, 2, max_n);
    (void) sqlite3_bind_int64(stmt, 3, (int64_t) limit);
    r = run(stmt);
    if (r == 0)
        *ret_removed = (size_t) sqlite3_changes(st->db);
    return r;
}

int store_set_meta(struct store *st, const char *key, int64_t value)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_SET_META, &r);
    if (stmt == NULL)
        return r;
    bind_text(stmt, 1, key);
    (void) sqlite3_bind_int64(stmt, 2, value);
    return run(stmt);
}

int store_flush(struct store *st, int64_t due_at_ms, int64_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_FLUSH, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, due_at_ms);
    r = run(stmt);
    if (r == 0)
        *ret_n = sqlite3_changes(st->db);
    return r;
}

int store_mark_retried(struct store *st, int64_t seq)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_MARK_RETRIED, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, seq);
    r = run(stmt);
    if (r == 0 && sqlite3_changes(st->db) == 0)
        r = -EEXIST;
    return r;
}

/* --- Reading --- */

/* The first column of the only row; -ENOENT when there is no row or it is NULL. */
static int read_int(sqlite3_stmt *stmt, int64_t *ret)
{
    int rc = sqlite3_step(stmt);
    int r = to_errno(rc);
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
    sqlite3_stmt *stmt = statement(st, ST_GET_META, &r);
    if (stmt == NULL)
        return r;
    bind_text(stmt, 1, key);
    return read_int(stmt, ret);
}

int store_find(struct store *st, const char *request_id, struct request **ret,
               int64_t *ret_leader_seq)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_FIND, &r);
    if (stmt == NULL)
        return r;
    bind_text(stmt, 1, request_id);
    struct request *req = NULL;
    r = read_one(stmt, &req);
    if (r < 0)
        return r;
    r = complete(st, req, true, ret_leader_seq);
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
        sqlite3_stmt *stmt = statement(st, places[i], &r);
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
    sqlite3_stmt *stmt = statement(st, ST_FOLLOWERS, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, chain);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return read_requests(stmt, limit, ret, ret_n);
}

int store_fetch_fresh(struct store *st, int64_t after_seq, size_t limit, struct request **ret,
                      size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_FRESH, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_seq);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return read_requests(stmt, limit, ret, ret_n);
}

int store_fetch_due(struct store *st, int64_t after_ms, int64_t after_seq, int64_t until_ms,
                    size_t limit, struct request **ret, size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_DUE, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_ms);
    (void) sqlite3_bind_int64(stmt, 2, after_seq);
    (void) sqlite3_bind_int64(stmt, 3, until_ms);
    (void) sqlite3_bind_int64(stmt, 4, (int64_t) limit);
    size_t n = 0;
    r = read_requests(stmt, limit, ret, &n);
    if (r == 0)
        r = complete_all(st, ret, n);
    if (r == 0)
        *ret_n = n;
    return r;
}

int store_fetch_results(struct store *st, int64_t after_n, size_t limit, struct request **ret,
                        size_t *ret_n)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_RESULTS, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, after_n);
    (void) sqlite3_bind_int64(stmt, 2, (int64_t) limit);
    return read_requests(stmt, limit, ret, ret_n);
}

int store_next_wake(struct store *st, int64_t after_ms, int64_t *ret)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_NEXT_WAKE, &r);
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

int store_fresh_floor(struct store *st, int64_t from_seq, int64_t *ret)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_FLOOR, &r);
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
    sqlite3_stmt *last = statement(st, ST_LAST, &r);
    sqlite3_stmt *count = last != NULL ? statement(st, ST_COUNT, &r) : NULL;
    sqlite3_stmt *waiting = count != NULL ? statement(st, ST_COUNT_WAITING, &r) : NULL;
    if (waiting == NULL)
        return r;

    struct store_counts counts = { .pending = 0 };
    int rc = sqlite3_step(last);
    if (rc == SQLITE_ROW) {
        counts.last_seq = sqlite3_column_int64(last, 0);
        counts.last_n = sqlite3_column_int64(last, 1);
    }
    (void) sqlite3_reset(last);
    r = to_errno(rc);
    if (r == 0)
        r = read_int(count, &counts.pending);
    if (r == 0)
        r = read_int(waiting, &counts.waiting);
    if (r == 0)
        *ret = counts;
    return r;
}

int store_walk_pending(struct store *st, struct store_position *position, size_t limit,
                       store_walk_fn fn, void *userdata, bool *ret_end)
{
    int r = 0;
    sqlite3_stmt *stmt = statement(st, ST_WALK, &r);
    if (stmt == NULL)
        return r;
    (void) sqlite3_bind_int64(stmt, 1, position->wake_at_ms);
    (void) sqlite3_bind_int64(stmt, 2, position->seq);
    (void) sqlite3_bind_int64(stmt, 3, (int64_t) limit);

    size_t n = 0;
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && r == 0) {
        position->seq = sqlite3_column_int64(stmt, 0);
        position->wake_at_ms = sqlite3_column_int64(stmt, 1);
        r = fn(userdata, (const char *) sqlite3_column_text(stmt, 2),
               (size_t) sqlite3_column_bytes(stmt, 2), sqlite3_column_int64(stmt, 3),
               sqlite3_column_int(stmt, 4) == 0);
        n++;
    }
    (void) sqlite3_reset(stmt);
    if (r == 0)
        r = to_errno(rc);
    if (r == 0)
        *ret_end = n < limit;
    return r;
}

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
    sqlite3_stmt *stmt = statement(st, which, ret_error);
    if (stmt != NULL)
        bind_text(stmt, 1, text);
    return stmt;
}

static sqlite3_stmt *bind_list(struct store *st, const struct queue_query *query, size_t limit,
                               int *ret_error)
{
    bool pending = query->state >= 0 && query->state != REQUEST_DONE;
    sqlite3_stmt *stmt = statement(st, pending ? ST_LIST_PENDING : ST_LIST, ret_error);
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
        stmt = statement(st, ST_RETRY_OUTCOME, ret_error);
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
    sqlite3_stmt *stmt = statement(st, ST_LIST_END, &r);
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
    return to_errno(rc);
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
    r = read_requests(stmt, limit, requests, &query->n_rows);
    for (size_t i = 0; i < query->n_rows; i++)
        query->rows[i].request = requests[i];
    for (size_t i = 0; i < query->n_rows && r == 0; i++)
        r = complete(st, requests[i], true, &query->rows[i].leader_seq);
    free(requests);
    if (r == 0 && query->kind == QUERY_LIST)
        r = find_list_end(st, query, limit);
    return r;
}
