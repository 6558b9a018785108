/* The queue as the loop sees it: operations go into the writer's inbox and come back through its
 * outbox. Runs on the loop thread. */
#include "queue/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "queue/reader.h"
#include "queue/writer.h"

struct note {
    char *name;
    int64_t value;
};

struct queue {
    struct writer writer;
    struct queue_handler handler;
    int lock_fd;
    char *trouble;
    size_t n_handed;    /* over to the writer, and not back */
    int64_t moved_ms;   /* monotonic; when one of them came back last, or the first went over */
    struct note *notes; /* what is committed, or will be */
    size_t n_notes;
    bool async_open;

    struct reader reader;

    bool stopping, writer_ended;
    void (*stop_done)(void *userdata);
    void *stop_userdata;
};

/* --- To the writer --- */

/* Puts of more requests than this wait for each other, not others for them. */
#define BULK_MIN 64

static void hand_over(struct queue *q, struct op *op, bool urgent)
{
    struct writer *w = &q->writer;
    if (q->n_handed++ == 0)
        q->moved_ms = clock_mono_ms();
    uv_mutex_lock(&w->mutex);
    bool was_empty = TAILQ_EMPTY(&w->inbox);
    if (was_empty)
        w->lazy_at_ms = (int64_t) (uv_hrtime() / 1000000);
    bool bulky = op->kind == OP_PUT && op->put->n_requests >= BULK_MIN;
    bool watched = w->watch_all || w->n_watched > 0;
    urgent = urgent || (op->kind == OP_SETTLE && watched);
    TAILQ_INSERT_TAIL(bulky ? &w->bulk : &w->inbox, op, link);
    bool wake = was_empty || (urgent && !w->urgent);
    w->urgent = w->urgent || urgent;
    if (wake)
        uv_cond_signal(&w->cond);
    uv_mutex_unlock(&w->mutex);
}

/* An outcome must not be lost for want of a hundred bytes: there is nothing to go on with. */
static struct op *op_create_or_abort(enum op_kind kind)
{
    struct op *op = op_create(kind);
    if (op == NULL) {
        log_error("queue: out of memory");
        abort();
    }
    return op;
}

int queue_put(struct queue *q, struct queue_put *put)
{
    if (q->stopping)
        return -ESHUTDOWN;
    if (q->trouble != NULL)
        return -EIO;
    struct op *op = op_create(OP_PUT);
    if (op == NULL)
        return -ENOMEM;
    op->put = put;
    hand_over(q, op, true);
    return 0;
}

void queue_retry(struct queue *q, struct request *req)
{
    struct op *op = op_create_or_abort(OP_RETRY);
    op->request = req;
    hand_over(q, op, false);
}

void queue_settle(struct queue *q, struct request *req, bool whole_chain)
{
    struct op *op = op_create_or_abort(OP_SETTLE);
    op->request = req;
    op->whole_chain = whole_chain;
    hand_over(q, op, false);
}

void queue_fetch(struct queue *q, enum queue_order order, struct queue_position after,
                 int64_t until_ms, size_t limit)
{
    struct op *op = op_create_or_abort(OP_FETCH);
    op->order = order;
    op->after = after;
    op->until_ms = until_ms;
    op->limit = limit;
    hand_over(q, op, true);
}

void queue_reopen_log(struct queue *q)
{
    hand_over(q, op_create_or_abort(OP_REOPEN_LOG), true);
}

/* --- Administration --- */

static void administer(struct queue *q, struct op *op, queue_done_fn done, void *userdata)
{
    if (q->stopping) {
        op_destroy(op);
        if (done != NULL)
            done(userdata, -ESHUTDOWN, 0);
        return;
    }
    op->done = done;
    op->done_userdata = userdata;
    hand_over(q, op, true);
}

static struct note *find_note(const struct queue *q, const char *name)
{
    for (size_t i = 0; i < q->n_notes; i++)
        if (strncmp(q->notes[i].name, name, QUEUE_NOTE_MAX) == 0)
            return &q->notes[i];
    return NULL;
}

static int keep_note(void *userdata, const char *name, int64_t value)
{
    struct queue *q = userdata;
    struct note *note = find_note(q, name);
    if (note == NULL) {
        struct note *grown = realloc(q->notes, (q->n_notes + 1) * sizeof(*grown));
        if (grown == NULL)
            return -ENOMEM;
        q->notes = grown;
        note = &grown[q->n_notes];
        *note = (struct note){ .name = strndup(name, QUEUE_NOTE_MAX) };
        if (note->name == NULL)
            return -ENOMEM;
        q->n_notes++;
    }
    note->value = value;
    return 0;
}

int64_t queue_note(const struct queue *q, const char *name)
{
    const struct note *note = find_note(q, name);
    return note != NULL ? note->value : 0;
}

void queue_set_note(struct queue *q, const char *name, int64_t value, queue_done_fn done,
                    void *userdata)
{
    struct op *op = op_create_or_abort(OP_SET_NOTE);
    op->name = strndup(name, QUEUE_NOTE_MAX);
    op->value = value;
    if (op->name == NULL || keep_note(q, name, value) < 0) {
        log_error("queue: out of memory");
        abort();
    }
    administer(q, op, done, userdata);
}

int64_t queue_unclean_seq(const struct queue *q)
{
    return q->writer.unclean_seq;
}

void queue_flush(struct queue *q, int64_t due_at_ms, queue_done_fn done, void *userdata)
{
    struct op *op = op_create_or_abort(OP_FLUSH);
    op->due_at_ms = due_at_ms;
    administer(q, op, done, userdata);
}

void queue_barrier(struct queue *q, queue_done_fn done, void *userdata)
{
    administer(q, op_create_or_abort(OP_BARRIER), done, userdata);
}

void queue_watch_all(struct queue *q, bool on)
{
    uv_mutex_lock(&q->writer.mutex);
    q->writer.watch_all = on;
    uv_mutex_unlock(&q->writer.mutex);
}

void queue_set_limits(struct queue *q, int64_t max_pending, int64_t history_days)
{
    uv_mutex_lock(&q->writer.mutex);
    q->writer.max_pending = max_pending;
    q->writer.history_ms = history_days * 86400000;
    uv_mutex_unlock(&q->writer.mutex);
}

/* --- From the writer --- */

static void tell_settled(struct queue *q, const struct op *op)
{
    for (size_t i = 0; i < op->n_settled; i++) {
        const struct op_settled *s = &op->settled[i];
        struct queue_settled settled = {
            .seq = s->seq,
            .n = s->n,
            .request_id = s->request_id,
            .job_id = s->job_id,
            .outcome = s->outcome,
            .line = s->line,
            .line_len = s->line_len,
        };
        q->handler.settled(q->handler.userdata, &settled);
    }
}

static void put_returned(struct queue *q, struct op *op)
{
    struct queue_put *put = op->put;
    op->put = NULL;
    put->done(put, op->status, put->userdata);
    for (size_t i = 0; i < put->n_requests; i++) {
        struct request *req = put->requests[i];
        bool accepted = op->status == 0 && put->results[i].outcome == PUT_ACCEPTED;
        if (!accepted || req->state == REQUEST_DONE)
            continue;
        put->requests[i] = NULL;
        q->handler.accepted(q->handler.userdata, req);
    }
    tell_settled(q, op);
    queue_put_destroy(put);
}

static void fetch_returned(struct queue *q, struct op *op)
{
    size_t n = op->n_requests;
    op->n_requests = 0; /* the requests move */
    q->handler.fetched(q->handler.userdata, op->order, op->status, op->requests, n, op->next_at_ms);
}

static void settle_returned(struct queue *q, struct op *op)
{
    bool anew = false;
    for (size_t i = 0; i < op->n_settled && op->request != NULL; i++)
        anew = anew || op->settled[i].seq == op->request->seq;
    tell_settled(q, op);
    if (!anew && op->request != NULL)
        q->handler.ended_before(q->handler.userdata, op->request->seq);
    struct request *promoted = op->promoted;
    op->promoted = NULL;
    if (promoted != NULL)
        q->handler.promoted(q->handler.userdata, promoted);
}

static void trouble_returned(struct queue *q, struct op *op)
{
    free(q->trouble);
    q->trouble = op->text;
    op->text = NULL;
    reader_set_closed(&q->reader, q->trouble != NULL);
    struct queue_trouble trouble = {
        .text = q->trouble,
        .database = op->database,
        .fatal = op->fatal,
    };
    q->handler.storage(q->handler.userdata, &trouble);
}

static void returned(struct queue *q, struct op *op)
{
    struct request *req;
    switch (op->kind) {
    case OP_PUT:
        put_returned(q, op);
        break;
    case OP_RETRY:
        req = op->request;
        op->request = NULL;
        q->handler.retried(q->handler.userdata, req);
        break;
    case OP_SETTLE:
        settle_returned(q, op);
        break;
    case OP_FETCH:
        fetch_returned(q, op);
        break;
    case OP_REOPEN_LOG:
        break;
    case OP_SET_NOTE:
    case OP_FLUSH:
    case OP_BARRIER:
        if (op->done != NULL)
            op->done(op->done_userdata, op->status, op->n);
        break;
    case OP_STORAGE:
        trouble_returned(q, op);
        break;
    case OP_STOPPED:
        q->writer_ended = true;
        break;
    }
}

static void maybe_stopped(struct queue *q);

static void on_read(void *userdata)
{
    maybe_stopped(userdata);
}

static void on_async(uv_async_t *async)
{
    struct queue *q = async->data;
    struct op_list done = TAILQ_HEAD_INITIALIZER(done);
    uv_mutex_lock(&q->writer.mutex);
    TAILQ_CONCAT(&done, &q->writer.outbox, link);
    uv_mutex_unlock(&q->writer.mutex);

    struct op *op;
    while ((op = TAILQ_FIRST(&done)) != NULL) {
        TAILQ_REMOVE(&done, op, link);
        q->moved_ms = clock_mono_ms();
        bool goes_on = op->kind == OP_SETTLE && op->request == NULL;
        if (op->kind != OP_STORAGE && op->kind != OP_STOPPED && !goes_on)
            q->n_handed--;
        returned(q, op);
        op_destroy(op);
    }
    maybe_stopped(q);
}

void queue_read(struct queue *q, struct queue_query *query)
{
    reader_read(&q->reader, query);
}

/* --- Life --- */

/* A lock file of its own: locking the database exclusively would shut out our own reads. It is held
 * for life, and so goes with the process, however that ends. */
static int lock_database(struct queue *q, const char *database, struct buf *reterr)
{
    char *path = NULL;
    if (asprintf(&path, "%s.lock", database) < 0)
        return -ENOMEM;
    int r = 0;
    q->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (q->lock_fd < 0) {
        r = -errno;
        (void) buf_printf(reterr, "lock file '%s' can't be opened: %s", path, strerror(-r));
    } else if (flock(q->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        r = -errno;
        if (r == -EWOULDBLOCK)
            (void) buf_printf(reterr, "database '%s' is held by another pulse-canceld that runs",
                              database);
        else
            (void) buf_printf(reterr, "lock file '%s' can't be locked: %s", path, strerror(-r));
    }
    free(path);
    return r;
}

int queue_open(struct queue **ret, uv_loop_t *loop, const struct queue_options *options,
               const struct queue_log *log, struct buf *reterr)
{
    struct queue *q = calloc(1, sizeof(*q));
    if (q == NULL)
        return -ENOMEM;
    q->lock_fd = -1;
    reader_init(&q->reader, loop, on_read, q);

    int r = lock_database(q, options->database, reterr);
    if (r == 0) {
        r = uv_async_init(loop, &q->writer.async, on_async);
        q->writer.async.data = q;
        q->async_open = r == 0;
    }
    if (r == 0)
        r = writer_start(&q->writer, options, log, keep_note, q, reterr);
    if (r < 0) {
        if (q->async_open) {
            uv_close((uv_handle_t *) &q->writer.async, NULL);
            (void) uv_run(loop, UV_RUN_NOWAIT);
            q->async_open = false;
        }
        queue_destroy(q);
        return r;
    }
    reader_start(&q->reader, q->writer.database);
    *ret = q;
    return 0;
}

void queue_set_handler(struct queue *q, const struct queue_handler *handler)
{
    q->handler = *handler;
}

void queue_get_counts(const struct queue *q, struct queue_counts *ret)
{
    struct writer *w = (struct writer *) &q->writer;
    uv_mutex_lock(&w->mutex);
    *ret = (struct queue_counts){ .pending = w->pending, .waiting = w->waiting_at_start };
    uv_mutex_unlock(&w->mutex);
}

int64_t queue_stalled_ms(const struct queue *q)
{
    return q->n_handed > 0 && q->trouble == NULL ? clock_mono_ms() - q->moved_ms : 0;
}

const char *queue_storage_trouble(const struct queue *q)
{
    return q->trouble;
}

int64_t queue_first_seq(const struct queue *q)
{
    return q->writer.floor_at_start;
}

static void on_async_closed(uv_handle_t *handle)
{
    struct queue *q = handle->data;
    q->async_open = false;
    q->stop_done(q->stop_userdata);
}

static void maybe_stopped(struct queue *q)
{
    if (!q->writer_ended || reader_is_busy(&q->reader))
        return;
    if (q->async_open && !uv_is_closing((uv_handle_t *) &q->writer.async)) {
        (void) uv_thread_join(&q->writer.thread);
        uv_close((uv_handle_t *) &q->writer.async, on_async_closed);
    }
}

void queue_stop(struct queue *q, bool clean, void (*done)(void *userdata), void *userdata)
{
    q->stopping = true;
    q->stop_done = done;
    q->stop_userdata = userdata;
    /* One read may take a second with a long history; a queue of them must not hold up the end. */
    reader_stop(&q->reader);
    uv_mutex_lock(&q->writer.mutex);
    q->writer.stopping = true;
    q->writer.clean = clean;
    uv_cond_signal(&q->writer.cond);
    uv_mutex_unlock(&q->writer.mutex);
}

void queue_destroy(struct queue *q)
{
    if (q == NULL)
        return;
    writer_finish(&q->writer);
    reader_finish(&q->reader);
    if (q->lock_fd >= 0)
        (void) close(q->lock_fd);
    for (size_t i = 0; i < q->n_notes; i++)
        free(q->notes[i].name);
    free(q->notes);
    free(q->trouble);
    free(q);
}
