/* The results log as a projection of the database: what is committed is appended, synced, and only
 * then pruned. Runs on the writer thread, but for the recovery at a start. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "queue/writer.h"

/* How long lines may be in the log before it is synced; the database can repeat them until then. */
#define LOG_SYNC_MS 1000
#define PRUNE_STEP 1000
#define PRUNE_INTERVAL_MS 60000
#define LINES_STEP 256

/* --- Recovery --- */

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

int writer_recover_log(struct writer *w, struct buf *reterr)
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
                              store_explain(w->store, r));
            return r;
        }
    }
    cursor.device = (uint64_t) device;
    cursor.inode = (uint64_t) inode;
    w->synced_n = cursor.n;
    struct queue_log_check check = { .store = w->store };
    return w->log.recover(w->log.userdata, &cursor, w->last_n, &check, &w->written_n, reterr);
}

/* After an error what is in the file is not known for sure: it is repaired as at a start. */
static int repair_log(struct writer *w)
{
    struct buf err;
    buf_init(&err, 4096);
    int64_t written_n = w->written_n;
    int r = writer_recover_log(w, &err);
    if (r < 0) {
        w->written_n = written_n;
        log_debug("results: %s", err.len > 0 ? buf_cstr(&err) : strerror(-r));
    }
    buf_finish(&err);
    return r;
}

/* --- Appending --- */

static int append_from_database(struct writer *w)
{
    struct request *requests[LINES_STEP];
    size_t n = 0;
    struct buf lines;
    buf_init(&lines, LINES_MAX);
    int r = store_fetch_results(w->store, w->written_n, LINES_STEP, requests, &n);
    if (r < 0)
        writer_store_failed(w, r);
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

/* What the log has not got, from the database. */
static int append_missing(struct writer *w)
{
    int r = 0;
    while (r == 0 && w->written_n < w->last_n)
        r = append_from_database(w);
    return r;
}

static void log_failed(struct writer *w, int error)
{
    if (w->store != NULL) /* else it was the database that failed */
        writer_log_failed(w, error);
}

void writer_append_lines(struct writer *w)
{
    if (w->store == NULL || w->written_n >= w->last_n)
        return;
    if (w->log_error != 0 && clock_mono_ms() < w->retry_at_ms)
        return;

    int r = w->log_error != 0 ? repair_log(w) : 0;
    if (r == 0 && !w->lines_broken && w->lines_first == w->written_n + 1) {
        r = w->log.append(w->log.userdata, w->lines.data, w->lines.len, w->last_n);
        if (r == 0)
            w->written_n = w->last_n;
    }
    if (r == -ESTALE)
        r = repair_log(w);
    buf_clear(&w->lines);
    w->lines_first = 0;
    if (r == 0)
        r = append_missing(w);
    if (r < 0) {
        log_failed(w, r);
        return;
    }
    writer_log_recovered(w);
    if (w->sync_at_ms == 0)
        w->sync_at_ms = clock_mono_ms() + LOG_SYNC_MS;
}

/* --- Syncing --- */

static int write_cursor(struct writer *w, const struct queue_cursor *cursor)
{
    const struct {
        const char *key;
        int64_t value;
    } values[] = {
        { "log_device", (int64_t) cursor->device }, { "log_inode", (int64_t) cursor->inode },
        { "log_offset", cursor->offset },           { "log_n", cursor->n },
        { "fresh_floor", w->fresh_floor },          { "running", w->ended ? 0 : 1 },
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

static int sync_log(struct writer *w, struct queue_cursor *ret)
{
    int r = w->log.sync(w->log.userdata, ret);
    if (r != -ESTALE)
        return r;
    r = repair_log(w);
    if (r == 0)
        r = append_missing(w);
    return r == 0 ? w->log.sync(w->log.userdata, ret) : r;
}

void writer_checkpoint(struct writer *w)
{
    struct queue_cursor cursor;
    if (w->store == NULL)
        return;
    w->sync_at_ms = 0;
    int r = sync_log(w, &cursor);
    if (r < 0) {
        log_failed(w, r);
        w->sync_at_ms = w->retry_at_ms;
        return;
    }
    w->synced_n = cursor.n;
    /* A failed sync may have been all that was wrong, with no line left to write. */
    if (!w->reopen_log && w->written_n >= w->last_n)
        writer_log_recovered(w);
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
        writer_store_failed(w, r);
    }
}

void writer_reopen_log(struct writer *w)
{
    writer_append_lines(w);
    if (w->store == NULL)
        return;
    int r = w->log.reopen(w->log.userdata);
    if (r == -ESTALE)
        r = repair_log(w); /* opens it anew, too */
    if (r < 0) {
        writer_log_failed(w, r);
        return;
    }
    w->reopen_log = false;
    writer_log_recovered(w);
    writer_append_lines(w);
    writer_checkpoint(w);
}
