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
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

/* --- Trouble --- */

static const char *text_of(int error)
{
    switch (-error) {
    case EBADMSG:
        return "corrupt";
    case ESTALE:
        return "moved or removed";
    default:
        return strerror(-error);
    }
}

static void post(struct writer *w, struct op_list *done)
{
    if (TAILQ_EMPTY(done))
        return;
    uv_mutex_lock(&w->mutex);
    TAILQ_CONCAT(&w->outbox, done, link);
    w->pending = w->count;
    w->n_watched = u64map_count(w->watched);
    uv_mutex_unlock(&w->mutex);
    (void) uv_async_send(&w->async);
}

/* Tells the loop when what is wrong has changed. */
static void tell_trouble(struct writer *w)
{
    char *text = NULL;
    int error = w->store_error != 0 ? w->store_error : w->log_error;
    if (error != 0 && asprintf(&text, "%s: %s", w->store_error != 0 ? "database" : "results log",
                               text_of(error)) < 0)
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
    op->database = w->store_error != 0;
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

void writer_store_failed(struct writer *w, int error)
{
    if (w->store_error == 0)
        log_error("queue: the database can't be written: %s (%s); nothing new is accepted until "
                  "it can",
                  text_of(error), w->store != NULL ? store_message(w->store) : "can't be opened");
    w->store_error = error;
    store_close(w->store);
    w->store = NULL;
    back_off(w);
}

void writer_log_failed(struct writer *w, int error)
{
    if (w->log_error == 0)
        log_error("results: the log can't be written: %s; lines wait in the database",
                  text_of(error));
    w->log_error = error;
    back_off(w);
}

void writer_log_recovered(struct writer *w)
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
    w->fill_position = (struct queue_position){ .at_ms = INT64_MIN };
    u64map_clear(w->chains);
    *ret = counts;
    return 0;
}

/* Back from trouble: a new connection, and a write that proves it. */
static int reopen_store(struct writer *w)
{
    struct buf err;
    buf_init(&err, 1024);
    /* It has been there: a new one in its place would be without what was accepted. */
    int r = access(w->database, F_OK) < 0 ? -ESTALE : store_rewrite_wal(w->database);
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
        r = store_set_meta(w->store, "running", 1);
    if (r == 0)
        r = store_commit(w->store);
    if (r < 0) {
        writer_store_failed(w, r);
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

/* Applies and commits. On failure nothing of the batch has happened, as far as we know; what is
 * applied again then finds out. */
static int commit_batch(struct writer *w, struct op_list *batch)
{
    buf_clear(&w->lines);
    w->lines_first = 0;
    w->lines_broken = false;

    sync_directories(batch);
    int64_t last_n = w->last_n, count = w->count;
    int r = store_begin(w->store);
    struct op *op;
    TAILQ_FOREACH(op, batch, link) {
        if (r < 0)
            break;
        r = apply_op(w, op);
    }
    if (r == 0)
        r = store_commit(w->store);
    if (r == 0)
        return 0;

    store_rollback(w->store);
    w->last_n = last_n;
    w->count = count;
    w->lines_broken = true;
    writer_store_failed(w, r);
    return r;
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
        bool fails = op->kind == OP_PUT || op->kind == OP_FETCH ||
                     (op->kind == OP_SET_NOTE && op->done != NULL) || op->kind == OP_FLUSH ||
                     op->kind == OP_BARRIER;
        if (fails) {
            op_reset(op);
            op->status = -EIO;
        }
        TAILQ_INSERT_TAIL(fails ? &failed : &w->held, op, link);
    }
    tell_trouble(w); /* first: whoever is refused finds `stats` saying why */
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

/* A settlement that goes on: what is settled so far is handed back, the request stays with us. */
static void keep_continuing(struct writer *w, struct op_list *done)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(done); op != NULL; op = next) {
        next = TAILQ_NEXT(op, link);
        if (!op->continues)
            continue;
        struct op *rest = op_create(OP_SETTLE);
        if (rest == NULL) {
            log_error("queue: out of memory");
            abort(); /* nobody would settle the rest before the next start */
        }
        rest->request = op->request;
        rest->whole_chain = true;
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
            writer_store_failed(w, r);
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
    writer_append_lines(w);
    if (w->reopen_log && log_due)
        writer_reopen_log(w);
    if (w->sync_at_ms != 0 && clock_mono_ms() >= w->sync_at_ms)
        writer_checkpoint(w);
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
        w->ended = w->clean;
        writer_append_lines(w);
        writer_checkpoint(w);
    }

    struct op_list list = TAILQ_HEAD_INITIALIZER(list);
    struct op *op = op_create(OP_STOPPED);
    if (op == NULL) {
        log_error("queue: out of memory");
        abort();
    }
    TAILQ_INSERT_TAIL(&list, op, link);
    post(w, &list);
}

/* --- From the loop's thread --- */

/* Whether the last daemon came to its end, and that this one has not, yet: on disk before anything is
 * sent. */
static int begin_run(struct writer *w)
{
    int64_t running = 0;
    int r = store_get_meta(w->store, "running", &running);
    if (r == -ENOENT || r == 0)
        r = store_get_meta(w->store, "unclean_seq", &w->unclean_seq);
    if (r < 0 && r != -ENOENT)
        return r;
    if (running != 0)
        w->unclean_seq = w->last_seq;
    r = store_begin(w->store);
    if (r == 0)
        r = store_set_meta(w->store, "unclean_seq", w->unclean_seq);
    if (r == 0)
        r = store_set_meta(w->store, "running", 1);
    return r == 0 ? store_commit(w->store) : r;
}

int writer_start(struct writer *w, const struct queue_options *options, const struct queue_log *log,
                 store_meta_fn note, void *userdata, struct buf *reterr)
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
                          store_explain(w->store, r));
        return r;
    }
    w->pending = counts.pending;
    w->waiting_at_start = counts.waiting;
    w->floor_at_start = w->fresh_floor;
    r = begin_run(w);
    if (r == 0)
        r = store_walk_meta(w->store, note, userdata);
    if (r < 0) {
        (void) buf_printf(reterr, "database '%s' can't be written: %s", w->database,
                          store_explain(w->store, r));
        return r;
    }
    r = writer_recover_log(w, reterr);
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
        (void) buf_printf(reterr, "its thread can't be made: %s", strerror(-r));
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
