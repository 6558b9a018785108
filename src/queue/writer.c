/* The writer thread: takes operations in groups, commits each group, appends the outcomes to the
 * results log, and hands the operations back. Everything here but writer_start() and
 * writer_finish() runs on that thread.
 *
 * Two things can be in trouble apart from each other. Without the database, puts and fetches fail
 * and retries and settlements are held; after a failed commit the database is opened anew before
 * anything in it is trusted, for the commit may have become durable all the same. Without the log,
 * outcomes are committed and their lines wait in the database. */
#include "queue/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Settlements that nobody waits for wait this long for company: on a fast disk a commit for every
 * few costs more than the HTTP request. */
#define COMPANY_MS 5
/* How long lines may be in the log before it is synced; the database can repeat them until then. */
#define LOG_SYNC_MS 1000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define PRUNE_STEP 1000
#define PRUNE_INTERVAL_MS 60000
#define LINES_MAX ((size_t) 8 << 20)
#define LINES_STEP 256

/* --- Trouble --- */

static void post(struct writer *w, struct op_list *done)
{
    if (TAILQ_EMPTY(done))
        return;
    uv_mutex_lock(&w->mutex);
    TAILQ_CONCAT(&w->outbox, done, link);
    w->pending = w->count;
    uv_mutex_unlock(&w->mutex);
    (void) uv_async_send(&w->async);
}

/* Tells the loop when what is wrong has changed. */
static void tell_trouble(struct writer *w)
{
    char *text = NULL;
    int error = w->store_error != 0 ? w->store_error : w->log_error;
    if (error != 0 && asprintf(&text, "%s: %s", w->store_error != 0 ? "database" : "results log",
                               error == -EBADMSG ? "corrupt" : strerror(-error)) < 0)
        text = NULL;

    bool same =
        text != NULL && w->trouble != NULL ? strcmp(text, w->trouble) == 0 : text == w->trouble;
    struct op *op = same ? NULL : op_create(OP_STORAGE);
    if (op == NULL) {
        free(text);
        return;
    }
    free(w->trouble);
    w->trouble = text;
    op->text = text != NULL ? strdup(text) : NULL;
    op->fatal = w->store_error == -EBADMSG;
    struct op_list list = TAILQ_HEAD_INITIALIZER(list);
    TAILQ_INSERT_TAIL(&list, op, link);
    post(w, &list);
}

static void back_off(struct writer *w)
{
    w->backoff_ms = w->backoff_ms == 0 ? BACKOFF_MIN_MS : w->backoff_ms * 2;
    if (w->backoff_ms > BACKOFF_MAX_MS)
        w->backoff_ms = BACKOFF_MAX_MS;
    w->retry_at_ms = clock_mono_ms() + w->backoff_ms;
}

static void store_failed(struct writer *w, int error)
{
    if (w->store_error == 0)
        log_error("queue: the database can't be written: %s (%s); nothing new is accepted until "
                  "it can",
                  strerror(-error), w->store != NULL ? store_message(w->store) : "can't be opened");
    w->store_error = error;
    store_close(w->store);
    w->store = NULL;
    back_off(w);
}

static void log_failed(struct writer *w, int error)
{
    if (w->log_error == 0)
        log_error("results: the log can't be written: %s; lines wait in the database",
                  strerror(-error));
    w->log_error = error;
    back_off(w);
}

static int recover_log(struct writer *w, struct buf *reterr);

/* After an error what is in the file is not known for sure: it is repaired as at a start. */
static int repair_log(struct writer *w)
{
    struct buf err;
    buf_init(&err, 4096);
    int64_t written_n = w->written_n;
    int r = recover_log(w, &err);
    if (r < 0) {
        w->written_n = written_n;
        log_debug("results: %s", err.len > 0 ? buf_cstr(&err) : strerror(-r));
    }
    buf_finish(&err);
    return r;
}

static void log_recovered(struct writer *w)
{
    if (w->log_error == 0)
        return;
    log_info("results: the log can be written again");
    w->log_error = 0;
    w->backoff_ms = 0;
}

/* --- The database --- */

/* What is counted in memory, and the chains from the beginning. */
static int load_counts(struct writer *w, struct store_counts *ret)
{
    struct store_counts counts;
    int r = store_count(w->store, &counts);
    if (r < 0)
        return r;
    int64_t synced_n = 0, floor = 0;
    r = store_get_meta(w->store, "log_n", &synced_n);
    if (r < 0 && r != -ENOENT)
        return r;
    r = store_get_meta(w->store, "fresh_floor", &floor);
    if (r < 0 && r != -ENOENT)
        return r;

    /* Rows are pruned only behind the synced line, so that this is the last number for sure. */
    w->last_n = counts.last_n > synced_n ? counts.last_n : synced_n;
    /* Numbers of rows that have been pruned are not given out again. */
    w->last_seq = counts.last_seq > w->last_seq ? counts.last_seq : w->last_seq;
    w->last_seq = floor > w->last_seq ? floor : w->last_seq;
    w->count = counts.pending;
    w->fresh_floor = floor;
    w->filling = true;
    w->fill_position = (struct store_position){ .wake_at_ms = INT64_MIN };
    u64map_clear(w->chains);
    *ret = counts;
    return 0;
}

/* Back from trouble: a new connection, and a write that proves it. */
static int reopen_store(struct writer *w)
{
    struct buf err;
    buf_init(&err, 1024);
    int r = store_rewrite_wal(w->database);
    if (r == 0)
        r = store_open(&w->store, w->database, false, &err);
    buf_finish(&err);
    struct store_counts counts;
    if (r == 0)
        r = load_counts(w, &counts);
    /* Another database in its place, as when its file system has gone: outcomes are missing. */
    if (r == 0 && w->last_n < w->written_n)
        r = -ESTALE;
    if (r == 0)
        r = store_begin(w->store);
    if (r == 0)
        r = store_set_meta(w->store, "reopened_at", clock_wall_ms());
    if (r == 0)
        r = store_commit(w->store);
    if (r < 0) {
        store_failed(w, r);
        return r;
    }
    log_info("queue: the database can be written again");
    w->store_error = 0;
    w->backoff_ms = 0;
    return 0;
}

/* The names of claimed files must last before their requests do. */
static void sync_directories(struct op_list *batch)
{
    int synced[2] = { -1, -1 };
    struct op *op;
    TAILQ_FOREACH(op, batch, link) {
        for (int i = 0; op->kind == OP_PUT && i < 2; i++) {
            int fd = op->put->sync_fds[i];
            if (fd < 0 || fd == synced[i])
                continue;
            if (fsync(fd) < 0) {
                op->put->sync_error = -errno;
                op->status = -EIO;
            } else {
                synced[i] = fd;
            }
        }
    }
}

/* Applies and commits. On failure nothing of the batch has happened, as far as we know. */
static int commit_batch(struct writer *w, struct op_list *batch)
{
    buf_clear(&w->lines);
    w->lines_first = 0;
    w->lines_broken = false;

    sync_directories(batch);
    int r = store_begin(w->store);
    struct op *op;
    TAILQ_FOREACH(op, batch, link) {
        if (r < 0)
            break;
        op->continued = op->continues;
        r = apply_op(w, op);
    }
    if (r == 0)
        r = store_commit(w->store);
    if (r == 0)
        return 0;

    store_rollback(w->store);
    TAILQ_FOREACH(op, batch, link)
        op_reset(op);
    w->lines_broken = true;
    store_failed(w, r);
    return r;
}

/* --- The results log --- */

static int append_from_database(struct writer *w)
{
    struct request *requests[LINES_STEP];
    size_t n = 0;
    struct buf lines;
    buf_init(&lines, LINES_MAX);
    int r = store_fetch_results(w->store, w->written_n, LINES_STEP, requests, &n);
    if (r < 0)
        store_failed(w, r);
    int64_t last_n = w->written_n;
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = request_append_result(&lines, requests[i]);
        if (r == 0)
            r = buf_append_char(&lines, '\n');
        last_n = requests[i]->n;
    }
    for (size_t i = 0; i < n; i++)
        request_destroy(requests[i]);
    if (r == 0 && n > 0)
        r = w->log.append(w->log.userdata, lines.data, lines.len, last_n);
    buf_finish(&lines);
    if (r == 0)
        w->written_n = n > 0 ? last_n : w->last_n;
    return r;
}

/* Appends what is committed and not yet in the log. */
static void write_lines(struct writer *w)
{
    if (w->written_n >= w->last_n)
        return;
    if (w->log_error != 0 && clock_mono_ms() < w->retry_at_ms)
        return;

    int r = w->log_error != 0 ? repair_log(w) : 0;
    if (r == 0 && !w->lines_broken && w->lines_first == w->written_n + 1) {
        r = w->log.append(w->log.userdata, w->lines.data, w->lines.len, w->last_n);
        if (r == 0)
            w->written_n = w->last_n;
    }
    buf_clear(&w->lines);
    w->lines_first = 0;
    while (r == 0 && w->written_n < w->last_n && w->store != NULL)
        r = append_from_database(w);
    if (r < 0) {
        if (w->store != NULL) /* else it was the database that failed */
            log_failed(w, r);
        return;
    }
    log_recovered(w);
    if (w->sync_at_ms == 0)
        w->sync_at_ms = clock_mono_ms() + LOG_SYNC_MS;
}

static int write_cursor(struct writer *w, const struct queue_cursor *cursor)
{
    const struct {
        const char *key;
        int64_t value;
    } values[] = {
        { "log_device", (int64_t) cursor->device }, { "log_inode", (int64_t) cursor->inode },
        { "log_offset", cursor->offset },           { "log_n", cursor->n },
        { "fresh_floor", w->fresh_floor },
    };
    int r = 0;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]) && r == 0; i++)
        r = store_set_meta(w->store, values[i].key, values[i].value);
    return r;
}

static int prune(struct writer *w)
{
    int64_t now_ms = clock_mono_ms();
    uv_mutex_lock(&w->mutex);
    int64_t history_ms = w->history_ms;
    uv_mutex_unlock(&w->mutex);
    /* A reload that shortens the history takes effect at once. */
    if (now_ms < w->prune_at_ms && history_ms >= w->pruned_history_ms)
        return 0;
    w->pruned_history_ms = history_ms;

    size_t removed = 0;
    int r =
        store_prune(w->store, clock_steady_ms() - history_ms, w->synced_n, PRUNE_STEP, &removed);
    if (r < 0)
        return r;
    if (removed < PRUNE_STEP)
        w->prune_at_ms = now_ms + PRUNE_INTERVAL_MS;
    else
        w->sync_at_ms = now_ms + LOG_SYNC_MS / 10; /* go on soon */
    return 0;
}

/* Syncs the log, and only then says in the database how far it is synced. */
static void checkpoint(struct writer *w)
{
    struct queue_cursor cursor;
    w->sync_at_ms = 0;
    int r = w->log.sync(w->log.userdata, &cursor);
    if (r < 0) {
        log_failed(w, r);
        w->sync_at_ms = w->retry_at_ms;
        return;
    }
    w->synced_n = cursor.n;
    /* A failed sync may have been all that was wrong, with no line left to write. */
    if (!w->reopen_log && w->written_n >= w->last_n)
        log_recovered(w);
    r = store_fresh_floor(w->store, w->fresh_floor, &w->fresh_floor);
    if (r == -ENOENT) {
        w->fresh_floor = w->last_seq;
        r = 0;
    }
    if (r == 0)
        r = store_begin(w->store);
    if (r == 0)
        r = write_cursor(w, &cursor);
    if (r == 0)
        r = prune(w);
    if (r == 0)
        r = store_commit(w->store);
    if (r < 0) {
        store_rollback(w->store);
        store_failed(w, r);
    }
}

/* A rotation. What was committed before it belongs into the old file. */
static void reopen_log(struct writer *w)
{
    write_lines(w);
    int r = w->log.reopen(w->log.userdata);
    if (r < 0) {
        log_failed(w, r);
        return;
    }
    w->reopen_log = false;
    log_recovered(w);
    write_lines(w);
    checkpoint(w);
}

/* --- The thread --- */

/* With the mutex held. */
static void wait_for_work(struct writer *w)
{
    for (;;) {
        bool usable = w->store != NULL;
        if (w->urgent || w->stopping || (usable && w->filling) ||
            (usable && !TAILQ_EMPTY(&w->held)))
            return;

        int64_t until_ms = INT64_MAX;
        if (!TAILQ_EMPTY(&w->inbox))
            until_ms = w->lazy_at_ms + COMPANY_MS;
        if (w->sync_at_ms != 0 && usable && w->sync_at_ms < until_ms)
            until_ms = w->sync_at_ms;
        if ((w->store_error != 0 || w->log_error != 0) && w->retry_at_ms < until_ms)
            until_ms = w->retry_at_ms;
        if (until_ms == INT64_MAX) {
            uv_cond_wait(&w->cond, &w->mutex);
            continue;
        }
        int64_t now_ms = clock_mono_ms();
        if (until_ms <= now_ms)
            return;
        (void) uv_cond_timedwait(&w->cond, &w->mutex, (uint64_t) (until_ms - now_ms) * 1000000);
    }
}

/* Without the database: retries, settlements and the rotation wait, the rest fails. */
static void fail_or_hold(struct writer *w, struct op_list *work)
{
    struct op_list failed = TAILQ_HEAD_INITIALIZER(failed);
    TAILQ_CONCAT(work, &w->deferred, link);
    struct op *op;
    while ((op = TAILQ_FIRST(work)) != NULL) {
        TAILQ_REMOVE(work, op, link);
        bool fails = op->kind == OP_PUT || op->kind == OP_FETCH || op->kind == OP_FETCH_DUE ||
                     op->kind == OP_SET_HELD || op->kind == OP_FLUSH || op->kind == OP_BARRIER;
        if (fails)
            op->status = -EIO;
        TAILQ_INSERT_TAIL(fails ? &failed : &w->held, op, link);
    }
    post(w, &failed);
}

/* Puts need the whole map of chains. */
static void defer_puts(struct writer *w, struct op_list *work)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(work); op != NULL; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->kind != OP_PUT)
            continue;
        TAILQ_REMOVE(work, op, link);
        TAILQ_INSERT_TAIL(&w->deferred, op, link);
    }
}

/* What is settled with followers left stays with us. */
static void keep_continuing(struct writer *w, struct op_list *done)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(done); op != NULL; op = next) {
        next = TAILQ_NEXT(op, link);
        if (!op->continues)
            continue;
        /* Hand back what is settled so far, and keep the request that the rest is settled by. */
        struct op *rest = op_create(OP_SETTLE);
        if (rest == NULL)
            continue; /* the rest becomes a chain of its own at the next start */
        rest->request = op->request;
        rest->whole_chain = true;
        rest->continues = true;
        op->request = NULL;
        TAILQ_INSERT_TAIL(&w->held, rest, link);
    }
}

static void forget_watched(struct writer *w, const struct op_list *done)
{
    struct op *op;
    TAILQ_FOREACH(op, done, link)
        for (size_t i = 0; i < op->n_settled; i++)
            if (op->settled[i].line != NULL)
                u64map_remove(w->watched, u64map_mix((uint64_t) op->settled[i].seq));
}

static void work_on(struct writer *w, struct op_list *work)
{
    if (w->store == NULL && (clock_mono_ms() >= w->retry_at_ms || w->ending))
        (void) reopen_store(w);
    if (w->store == NULL) {
        fail_or_hold(w, work);
        return;
    }

    if (w->filling) {
        int r = apply_fill_step(w);
        if (r < 0) {
            store_failed(w, r);
            fail_or_hold(w, work);
            return;
        }
    }
    /* Held ones are older than all others, deferred puts older than new ones. */
    struct op_list batch = TAILQ_HEAD_INITIALIZER(batch);
    TAILQ_CONCAT(&batch, &w->held, link);
    if (w->filling)
        defer_puts(w, work);
    else
        TAILQ_CONCAT(&batch, &w->deferred, link);
    TAILQ_CONCAT(&batch, work, link);

    if (!TAILQ_EMPTY(&batch) && commit_batch(w, &batch) < 0) {
        fail_or_hold(w, &batch);
        return;
    }
    forget_watched(w, &batch);
    keep_continuing(w, &batch);
    /* Those who wait are answered before the log is written. */
    post(w, &batch);
    /* Asked before the lines are tried, which may put off the next try: reopening is the remedy for
     * a file that can't be written any more. */
    bool log_due = w->log_error == 0 || clock_mono_ms() >= w->retry_at_ms;
    write_lines(w);
    if (w->reopen_log && log_due)
        reopen_log(w);
    if (w->store != NULL && w->sync_at_ms != 0 && clock_mono_ms() >= w->sync_at_ms)
        checkpoint(w);
}

static bool finished(const struct writer *w)
{
    if (w->store == NULL)
        return true; /* in trouble: the next start repeats what is held */
    return TAILQ_EMPTY(&w->held) && TAILQ_EMPTY(&w->deferred) && !w->filling;
}

/* With the mutex held. One bulky put a commit, so that a single request that comes after many of
 * them is acknowledged after one. */
static void take_work(struct writer *w, struct op_list *work)
{
    TAILQ_CONCAT(work, &w->inbox, link);
    struct op *op = TAILQ_FIRST(&w->bulk);
    if (op != NULL) {
        TAILQ_REMOVE(&w->bulk, op, link);
        TAILQ_INSERT_TAIL(work, op, link);
    }
    w->urgent = !TAILQ_EMPTY(&w->bulk);
    w->all_watched = w->watch_all;
}

static void writer_main(void *arg)
{
    struct writer *w = arg;
    bool tried = false; /* once more, in trouble, before we end */
    for (;;) {
        struct op_list work = TAILQ_HEAD_INITIALIZER(work);
        uv_mutex_lock(&w->mutex);
        wait_for_work(w);
        take_work(w, &work);
        w->ending = w->stopping;
        uv_mutex_unlock(&w->mutex);

        if (w->ending && TAILQ_EMPTY(&work) && finished(w)) {
            if (tried || w->store != NULL || TAILQ_EMPTY(&w->held))
                break;
            tried = true;
        }
        work_on(w, &work);
        tell_trouble(w);
    }
    if (w->store != NULL) {
        w->log_error = 0; /* once more, whatever was wrong */
        write_lines(w);
        checkpoint(w);
    }

    struct op_list list = TAILQ_HEAD_INITIALIZER(list);
    struct op *op = op_create(OP_STOPPED);
    if (op == NULL)
        abort();
    TAILQ_INSERT_TAIL(&list, op, link);
    post(w, &list);
}

/* --- From the loop's thread --- */

struct queue_log_check {
    struct store *store;
};

int queue_log_check(const struct queue_log_check *check, int64_t n, const char *request_id)
{
    struct request *req = NULL;
    size_t found = 0;
    int r = store_fetch_results(check->store, n - 1, 1, &req, &found);
    if (r < 0)
        return r;
    if (found == 0 || req->n != n)
        r = -ENOENT;
    else
        r = strcmp(req->request_id, request_id) == 0 ? 1 : 0;
    if (found > 0)
        request_destroy(req);
    return r;
}

static int recover_log(struct writer *w, struct buf *reterr)
{
    struct queue_cursor cursor = { .n = 0 };
    int64_t device = 0, inode = 0;
    struct {
        const char *key;
        int64_t *value;
    } values[] = {
        { "log_device", &device },
        { "log_inode", &inode },
        { "log_offset", &cursor.offset },
        { "log_n", &cursor.n },
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        int r = store_get_meta(w->store, values[i].key, values[i].value);
        if (r < 0 && r != -ENOENT) {
            (void) buf_printf(reterr, "database '%s' can't be read: %s", w->database,
                              store_message(w->store));
            return r;
        }
    }
    cursor.device = (uint64_t) device;
    cursor.inode = (uint64_t) inode;
    w->synced_n = cursor.n;
    struct queue_log_check check = { .store = w->store };
    return w->log.recover(w->log.userdata, &cursor, w->last_n, &check, &w->written_n, reterr);
}

int writer_start(struct writer *w, const struct queue_options *options, const struct queue_log *log,
                 struct buf *reterr)
{
    w->log = *log;
    w->max_pending = options->max_pending;
    w->history_ms = options->history_days * 86400000;
    TAILQ_INIT(&w->inbox);
    TAILQ_INIT(&w->bulk);
    TAILQ_INIT(&w->outbox);
    TAILQ_INIT(&w->deferred);
    TAILQ_INIT(&w->held);
    buf_init(&w->lines, LINES_MAX);
    w->database = strdup(options->database);
    w->chains = u64map_create();
    w->watched = u64map_create();
    if (w->database == NULL || w->chains == NULL || w->watched == NULL)
        return -ENOMEM;
    if (getrandom(w->hash_key, sizeof(w->hash_key), 0) != sizeof(w->hash_key))
        return -EIO;

    int r = store_open(&w->store, w->database, false, reterr);
    if (r < 0)
        return r;
    struct store_counts counts;
    r = load_counts(w, &counts);
    if (r < 0) {
        (void) buf_printf(reterr, "database '%s' can't be read: %s", w->database,
                          store_message(w->store));
        return r;
    }
    w->pending = counts.pending;
    w->waiting_at_start = counts.waiting;
    w->floor_at_start = w->fresh_floor;
    int64_t held = 0;
    r = store_get_meta(w->store, "held", &held);
    w->held_at_start = r == 0 && held != 0;
    r = recover_log(w, reterr);
    if (r < 0)
        return r;
    w->sync_at_ms = clock_mono_ms();

    if (uv_mutex_init(&w->mutex) < 0)
        return -ENOMEM;
    if (uv_cond_init(&w->cond) < 0) {
        uv_mutex_destroy(&w->mutex);
        return -ENOMEM;
    }
    r = uv_thread_create(&w->thread, writer_main, w);
    w->started = r == 0;
    if (r < 0) {
        uv_cond_destroy(&w->cond);
        uv_mutex_destroy(&w->mutex);
    }
    return r;
}

static void destroy_list(struct op_list *list)
{
    struct op *op;
    while ((op = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, op, link);
        op_destroy(op);
    }
}

void writer_finish(struct writer *w)
{
    if (w->started) {
        uv_cond_destroy(&w->cond);
        uv_mutex_destroy(&w->mutex);
    }
    destroy_list(&w->inbox);
    destroy_list(&w->bulk);
    destroy_list(&w->outbox);
    destroy_list(&w->deferred);
    destroy_list(&w->held);
    store_close(w->store);
    u64map_destroy(w->chains);
    u64map_destroy(w->watched);
    buf_finish(&w->lines);
    free(w->trouble);
    free(w->database);
}
