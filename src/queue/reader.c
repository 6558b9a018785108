/* Runs on the loop thread, but for read_work(). */
#include "queue/reader.h"

#include <errno.h>
#include <stdlib.h>

struct read {
    struct reader *reader;
    struct queue_query *query;
    uv_work_t work;
    int status;
    TAILQ_ENTRY(read) link;
};

static void close_store(struct reader *r)
{
    store_close(r->store);
    r->store = NULL;
}

/* On a thread of the pool. */
static void read_work(uv_work_t *work)
{
    struct read *read = work->data;
    struct reader *r = read->reader;
    read->status = 0;
    if (r->store == NULL) {
        struct buf err;
        buf_init(&err, 1024);
        read->status = store_open(&r->store, r->database, true, &err);
        buf_finish(&err);
    }
    if (read->status == 0)
        read->status = store_query(r->store, read->query);
    if (read->status == -ENOENT)
        read->status = 0;
    if (read->status < 0)
        close_store(r);
}

static void end(struct queue_query *query, int status)
{
    query->done(query, status, query->userdata);
    queue_query_destroy(query);
}

static void start_read(struct reader *r);

static void on_read(uv_work_t *work, int uv_status)
{
    (void) uv_status; /* never cancelled */
    struct read *read = work->data;
    struct reader *r = read->reader;
    r->reading = false;
    if (r->closed)
        close_store(r);
    end(read->query, read->status < 0 ? -EIO : 0);
    free(read);
    start_read(r);
    r->done(r->userdata);
}

static void start_read(struct reader *r)
{
    struct read *read = TAILQ_FIRST(&r->waiting);
    if (r->reading || read == NULL)
        return;
    TAILQ_REMOVE(&r->waiting, read, link);
    r->reading = true;
    (void) uv_queue_work(r->loop, &read->work, read_work, on_read);
}

void reader_read(struct reader *r, struct queue_query *query)
{
    struct read *read = r->stopping ? NULL : calloc(1, sizeof(*read));
    if (read == NULL) {
        end(query, r->stopping ? -ESHUTDOWN : -EIO);
        return;
    }
    read->reader = r;
    read->query = query;
    read->work.data = read;
    TAILQ_INSERT_TAIL(&r->waiting, read, link);
    start_read(r);
}

void reader_set_closed(struct reader *r, bool closed)
{
    r->closed = closed;
    if (closed && !r->reading)
        close_store(r);
}

/* --- Life --- */

void reader_init(struct reader *r, uv_loop_t *loop, void (*done)(void *userdata), void *userdata)
{
    *r = (struct reader){ .loop = loop, .done = done, .userdata = userdata };
    TAILQ_INIT(&r->waiting);
    (void) setenv("UV_THREADPOOL_SIZE", "1", 1); /* one read at a time */
}

static void no_work(uv_work_t *work)
{
    (void) work;
}

static void no_work_done(uv_work_t *work, int uv_status)
{
    (void) work;
    (void) uv_status;
}

void reader_start(struct reader *r, const char *database)
{
    r->database = database;
    (void) uv_queue_work(r->loop, &r->first_work, no_work, no_work_done);
}

void reader_stop(struct reader *r)
{
    r->stopping = true;
    struct read *read;
    while ((read = TAILQ_FIRST(&r->waiting)) != NULL) {
        TAILQ_REMOVE(&r->waiting, read, link);
        end(read->query, -ESHUTDOWN);
        free(read);
    }
}

bool reader_is_busy(const struct reader *r)
{
    return r->reading || !TAILQ_EMPTY(&r->waiting);
}

void reader_finish(struct reader *r)
{
    close_store(r);
}
