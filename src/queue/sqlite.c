/* The database: its schema, all its SQL, opening and transactions. Runs on the thread that owns the
 * store: the writer thread for the one that writes, a thread of the pool for the one that only
 * reads. */
#include "queue/sqlite_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x50434e44 /* "PCND" */
/* A database up to this size is checked whole at start; it takes some 100 ms. */
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
    " trail INTEGER NOT NULL DEFAULT 0,"
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
    "CREATE INDEX request_deadline ON request(deadline_at) WHERE n IS NULL;"
    "CREATE INDEX request_due ON request(due_at) WHERE due_at <> 0 AND n IS NULL;"
    "CREATE INDEX request_chain ON request(chain) WHERE chain IS NOT NULL AND n IS NULL;"
    "CREATE UNIQUE INDEX request_n ON request(n) WHERE n IS NOT NULL;"
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA application_id = 1346588228;" /* APPLICATION_ID */
    "PRAGMA user_version = 1;";

#define COLUMNS                                                                                    \
    "seq, request_id, job_id, source, origin, accepted_at, deadline_at, chain, leads, base, "      \
    "total, due_at, trail, http_status, endpoint, job_status, message, error_code, "               \
    "error_message, n, done_at, outcome, coalesced_with"

static const char *const statement_sql[STATEMENT_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_INSERT] = "INSERT INTO request (seq, request_id, job_id, source, origin, accepted_at, "
                  "deadline_at, chain, leads, base, total, due_at, http_status, endpoint, "
                  "job_status, message, error_code, error_message, n, done_at, outcome, "
                  "coalesced_with) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, "
                  "?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22) "
                  "ON CONFLICT (request_id) DO NOTHING",
    [ST_UPDATE] = "UPDATE request SET total = ?2, due_at = ?3, trail = ?4, http_status = ?5, "
                  "endpoint = ?6, job_status = ?7, message = ?8, error_code = ?9, "
                  "error_message = ?10 WHERE seq = ?1 AND n IS NULL",
    [ST_SETTLE] = "UPDATE request SET total = ?2, http_status = ?3, endpoint = ?4, "
                  "job_status = ?5, message = ?6, error_code = ?7, error_message = ?8, n = ?9, "
                  "done_at = ?10, outcome = ?11, coalesced_with = ?12 "
                  "WHERE seq = ?1 AND n IS NULL",
    [ST_PROMOTE] = "UPDATE request SET leads = 1, total = ?2, due_at = ?3, trail = ?4, "
                   "http_status = ?5, endpoint = ?6, job_status = ?7, message = ?8, "
                   "error_code = ?9, error_message = ?10 WHERE seq = ?1 AND n IS NULL",
    /* Only the oldest are looked at: they end in the order of n, but for a clock that is stepped
     * back between two starts. */
    [ST_PRUNE] = "DELETE FROM request WHERE seq IN (SELECT seq FROM (SELECT seq, done_at FROM "
                 "request INDEXED BY request_n WHERE n IS NOT NULL AND n <= ?2 ORDER BY n "
                 "LIMIT ?3) WHERE done_at < ?1)",
    [ST_SET_META] = "INSERT INTO meta (key, value) VALUES (?1, ?2) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [ST_DROP_META] = "DELETE FROM meta WHERE key = ?1",
    [ST_GET_META] = "SELECT value FROM meta WHERE key = ?1",
    [ST_ALL_META] = "SELECT key, value FROM meta",
    [ST_FIND] = "SELECT " COLUMNS " FROM request WHERE request_id = ?1",
    [ST_FIND_FOUNDER] =
        "SELECT " COLUMNS " FROM request WHERE seq = ?1 AND n IS NULL AND leads = 1",
    [ST_FIND_PROMOTED] = "SELECT " COLUMNS " FROM request INDEXED BY request_chain "
                         "WHERE chain = ?1 AND n IS NULL AND leads = 1",
    [ST_FOLLOWERS] = "SELECT " COLUMNS " FROM request INDEXED BY request_chain "
                     "WHERE chain = ?1 AND n IS NULL AND leads = 0 ORDER BY seq LIMIT ?2",
    [ST_FRESH] = "SELECT " COLUMNS " FROM request "
                 "WHERE seq > ?1 AND n IS NULL AND due_at = 0 AND leads = 1 ORDER BY seq LIMIT ?2",
    [ST_DUE] = "SELECT " COLUMNS " FROM request INDEXED BY request_due "
               "WHERE due_at <> 0 AND n IS NULL AND leads = 1 AND (due_at, seq) > (?1, ?2) "
               "AND due_at <= ?3 ORDER BY due_at, seq LIMIT ?4",
    [ST_EXPIRED] = "SELECT " COLUMNS " FROM request INDEXED BY request_deadline "
                   "WHERE n IS NULL AND (deadline_at, seq) > (?1, ?2) AND deadline_at <= ?3 "
                   "ORDER BY deadline_at, seq LIMIT ?4",
    [ST_RESULTS] = "SELECT " COLUMNS " FROM request INDEXED BY request_n "
                   "WHERE n > ?1 ORDER BY n LIMIT ?2",
    [ST_NEXT_DUE] = "SELECT min(due_at) FROM request INDEXED BY request_due "
                    "WHERE due_at <> 0 AND n IS NULL AND due_at > ?1",
    [ST_NEXT_DEADLINE] = "SELECT min(deadline_at) FROM request INDEXED BY request_deadline "
                         "WHERE n IS NULL AND deadline_at > ?1",
    [ST_FLOOR] = "SELECT seq FROM request "
                 "WHERE seq > ?1 AND n IS NULL AND due_at = 0 AND leads = 1 ORDER BY seq LIMIT 1",
    /* In an order that nothing changes while they wait. */
    [ST_WALK] = "SELECT seq, deadline_at, job_id, coalesce(chain, seq), leads FROM request "
                "INDEXED BY request_deadline WHERE n IS NULL AND (deadline_at, seq) > (?1, ?2) "
                "ORDER BY deadline_at, seq LIMIT ?3",
    [ST_LAST] = "SELECT coalesce((SELECT max(seq) FROM request), 0), coalesce((SELECT n FROM "
                "request INDEXED BY request_n WHERE n > 0 ORDER BY n DESC LIMIT 1), 0)",
    [ST_COUNT] = "SELECT count(*) FROM request INDEXED BY request_deadline WHERE n IS NULL",
    [ST_COUNT_WAITING] = "SELECT count(*) FROM request INDEXED BY request_due "
                         "WHERE due_at <> 0 AND n IS NULL",
    [ST_FLUSH] = "UPDATE request SET due_at = ?1 "
                 "WHERE seq IN (SELECT seq FROM request INDEXED BY request_due "
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
    [ST_PENDING_JOB] = "SELECT " COLUMNS " FROM request INDEXED BY request_deadline "
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
                        "INDEXED BY request_deadline WHERE n IS NULL AND seq > ?1 ORDER BY seq "
                        "LIMIT ?2) ORDER BY seq",
};

/* --- SQLite's results --- */

/* What the system last said to a read or write of the database's own file, or of its WAL; 0 for no
 * error. */
static int file_error(sqlite3 *db, int pointer)
{
    sqlite3_file *file = NULL;
    int error = 0;
    (void) sqlite3_file_control(db, "main", pointer, &file);
    if (file != NULL && file->pMethods != NULL)
        (void) file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &error);
    return error;
}

/* SQLite takes what it can't read (EIO) for corrupt. But that may be read next time, and nobody should
 * be told to move it away. */
static int corrupt(sqlite3 *db)
{
    bool read = file_error(db, SQLITE_FCNTL_FILE_POINTER) == 0 &&
                file_error(db, SQLITE_FCNTL_JOURNAL_POINTER) == 0;
    return read ? -EBADMSG : -EIO;
}

/* What the system said, if an operator can do something about it. Other numbers have a meaning of
 * their own here, or are of old. A failed commit leaves it nowhere but in errno. */
static int system_errno(sqlite3 *db, int otherwise)
{
    int error = sqlite3_system_errno(db);
    if (error == 0)
        error = errno;
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOLCK:
    case EIO:
        return -error;
    default:
        return otherwise;
    }
}

int store_errno(sqlite3 *db, int rc)
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
        return corrupt(db);
    case SQLITE_NOTADB:
        return -EBADMSG;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_PROTOCOL: /* it could not get a lock for ten seconds */
        return -ENOLCK;
    case SQLITE_PERM:
        return -EACCES;
    case SQLITE_CANTOPEN:
        return system_errno(db, -EACCES);
    case SQLITE_IOERR:
        return system_errno(db, -EIO);
    default:
        return -EIO;
    }
}

const char *store_message(const struct store *st)
{
    return st->db != NULL ? sqlite3_errmsg(st->db) : "not open";
}

const char *store_explain(struct store *st, int r)
{
    if (r == -ENOMEM)
        return "out of memory"; /* SQLite doesn't know of ours that ran out */
    if (r == -ESTALE)           /* SQLite does not tell these apart */
        return "it was moved or removed, or can't be looked at";
    bool misled = (sqlite3_errcode(st->db) & 0xff) == SQLITE_CORRUPT && r != -EBADMSG;
    if (misled)
        return strerror(-r);
    if ((sqlite3_errcode(st->db) & 0xff) == SQLITE_READONLY) /* why, is not to be had any more */
        return "it, or its WAL, can be opened for reading only: permissions, a read-only file system, "
               "or no space or descriptors left";
    (void) snprintf(st->text, sizeof(st->text), "%s (%s)", strerror(-r), store_message(st));
    return st->text;
}

sqlite3_stmt *store_statement(struct store *st, enum statement which, int *ret_error)
{
    if (st->statements[which] == NULL) {
        int rc = sqlite3_prepare_v3(st->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &st->statements[which], NULL);
        if (rc != SQLITE_OK) {
            *ret_error = store_errno(st->db, rc);
            return NULL;
        }
    }
    return st->statements[which];
}

int store_run(sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);
    int r = store_errno(sqlite3_db_handle(stmt), rc);
    (void) sqlite3_reset(stmt);
    return r;
}

static int run_plain(struct store *st, enum statement which)
{
    int r = 0;
    sqlite3_stmt *stmt = store_statement(st, which, &r);
    return stmt != NULL ? store_run(stmt) : r;
}

void store_bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
    if (text != NULL)
        (void) sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC);
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
    int r = store_errno(st->db, rc);
    (void) sqlite3_finalize(stmt);
    return r;
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
    int r = store_errno(st->db, rc);
    if (rc == SQLITE_ROW && strcmp((const char *) sqlite3_column_text(stmt, 0), "ok") != 0)
        r = corrupt(st->db);
    (void) sqlite3_finalize(stmt);
    return r;
}

static int exec(struct store *st, const char *sql)
{
    return store_errno(st->db, sqlite3_exec(st->db, sql, NULL, NULL, NULL));
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
        return store_errno(st->db, rc);
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
                           : store_explain(st, r);
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
    int moved = 0;
    (void) sqlite3_file_control(st->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
    return moved != 0 ? -ESTALE : run_plain(st, ST_BEGIN);
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
