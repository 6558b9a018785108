/* A temporary spool directory, a queue in memory that answers on the loop, and a spool between them.
 *
 * The queue's functions are defined here, so that the linker does not take the real ones. */
#ifndef PULSE_TESTS_SPOOL_PLACE_H
#define PULSE_TESTS_SPOOL_PLACE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "base/log.h"
#include "intake/spool.h"
#include "queue/queue.h"

#define PATIENCE_MS (60000 * PULSE_TEST_PATIENCE)

/* --- The queue --- */

struct queue {
    uv_timer_t turn;
    struct queue_put *open[1024];
    size_t n_open;
    struct request **kept; /* in the order of their acceptance */
    size_t n_kept, kept_size;
    size_t n_pending;   /* kept ones that are not done */
    size_t max_pending; /* beyond it: full */
    int refusal;        /* queue_put() answers with it; 0 = takes */
    int failure;        /* puts end with it */
    bool held;          /* puts stay open */
    size_t most_lines, most_open, unsynced;
    size_t n_lines;                 /* in all puts */
    struct queue_put_note notes[8]; /* as after the next start; with value 0: free */
};

struct queue_put *queue_put_create(size_t n_requests)
{
    struct queue_put *put = calloc(1, sizeof(*put));
    assert_non_null(put);
    put->requests = calloc(n_requests, sizeof(*put->requests));
    put->results = calloc(n_requests, sizeof(*put->results));
    put->n_requests = n_requests;
    put->sync_fds[0] = put->sync_fds[1] = -1;
    for (size_t i = 0; i < n_requests; i++)
        put->results[i].outcome = PUT_LEFT;
    return put;
}

void queue_put_destroy(struct queue_put *put)
{
    if (put == NULL)
        return;
    for (size_t i = 0; i < put->n_requests; i++)
        request_destroy(put->requests[i]);
    free(put->requests);
    free(put->results);
    free(put);
}

static inline struct request *find_kept(const struct queue *q, const char *request_id)
{
    for (size_t i = q->n_kept; i-- > 0;)
        if (strcmp(q->kept[i]->request_id, request_id) == 0)
            return q->kept[i];
    return NULL;
}

static inline enum put_outcome keep(struct queue *q, struct queue_put *put, size_t i)
{
    struct request *req = put->requests[i];
    const struct request *known = find_kept(q, req->request_id);
    if (known != NULL)
        return strcmp(known->job_id, req->job_id) == 0 ? PUT_KNOWN : PUT_OTHER_JOB;
    if (req->state != REQUEST_DONE && q->n_pending >= q->max_pending)
        return PUT_LEFT;
    if (q->n_kept == q->kept_size) {
        q->kept_size = q->kept_size * 2 + 64;
        q->kept = realloc(q->kept, q->kept_size * sizeof(*q->kept));
        assert_non_null(q->kept);
    }
    q->kept[q->n_kept++] = req;
    q->n_pending += req->state != REQUEST_DONE;
    return PUT_ACCEPTED;
}

int64_t queue_note(const struct queue *q, const char *name)
{
    for (size_t i = 0; i < 8; i++)
        if (q->notes[i].value != 0 && strcmp(q->notes[i].name, name) == 0)
            return q->notes[i].value;
    return 0;
}

static inline void set_note(struct queue *q, const struct queue_put_note *note)
{
    size_t at = 8;
    for (size_t i = 0; i < 8; i++) {
        if (q->notes[i].value != 0 && strcmp(q->notes[i].name, note->name) == 0)
            q->notes[i].value = 0;
        if (q->notes[i].value == 0)
            at = i;
    }
    assert_true(at < 8);
    q->notes[at] = *note;
}

void queue_set_note(struct queue *q, const char *name, int64_t value, queue_done_fn done,
                    void *userdata)
{
    assert_null(done);
    assert_null(userdata);
    struct queue_put_note note = { .value = value };
    (void) snprintf(note.name, sizeof(note.name), "%s", name);
    set_note(q, &note);
}

static inline size_t count_notes(const struct queue *q)
{
    size_t n = 0;
    for (size_t i = 0; i < 8; i++)
        n += q->notes[i].value != 0;
    return n;
}

static inline void commit(struct queue *q, struct queue_put *put)
{
    int status = q->failure;
    bool full = false;
    for (size_t i = 0; status == 0 && i < put->n_requests && !full; i++) {
        put->results[i].outcome = keep(q, put, i);
        full = put->results[i].outcome == PUT_LEFT;
        if (full && i == 0)
            status = -EXFULL;
    }
    for (size_t i = 0; status == 0 && i < put->n_notes && !full; i++)
        set_note(q, &put->notes[i]);
    put->done(put, status, put->userdata);
    for (size_t i = 0; i < put->n_requests; i++)
        if (put->results[i].outcome == PUT_ACCEPTED)
            put->requests[i] = NULL;
    queue_put_destroy(put);
}

static inline void queue_turn(uv_timer_t *timer)
{
    struct queue *q = timer->data;
    if (q->held)
        return;
    size_t n = q->n_open;
    for (size_t i = 0; i < n; i++)
        commit(q, q->open[i]);
    q->n_open -= n;
    memmove(q->open, q->open + n, q->n_open * sizeof(q->open[0]));
    if (q->n_open > 0)
        (void) uv_timer_start(&q->turn, queue_turn, 0, 0);
}

int queue_put(struct queue *q, struct queue_put *put)
{
    if (q->refusal < 0)
        return q->refusal;
    assert_true(q->n_open < sizeof(q->open) / sizeof(q->open[0]));
    assert_false(put->atomic);
    q->unsynced += put->sync_fds[0] < 0 || put->sync_fds[1] < 0;
    q->n_lines += put->n_requests;
    if (put->n_requests > q->most_lines)
        q->most_lines = put->n_requests;
    q->open[q->n_open++] = put;
    if (q->n_open > q->most_open)
        q->most_open = q->n_open;
    if (q->n_open == 1)
        (void) uv_timer_start(&q->turn, queue_turn, 0, 0);
    return 0;
}

/* --- The place --- */

struct place {
    char home[32];
    char dir[64];
    uv_loop_t loop;
    uv_timer_t patience;
    struct queue queue;
    struct spool *spool;
    struct spool_options options;
    bool stopped, impatient;
};

static inline void path_of(const struct place *p, const char *name, char ret_path[static 512])
{
    (void) snprintf(ret_path, 512, "%s/%s", p->dir, name);
}

static inline int write_file(const char *path, const void *data, size_t len, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    return fd;
}

/* Written and closed under its name. */
static inline void drop_file(const struct place *p, const char *name, const char *text)
{
    char path[512];
    path_of(p, name, path);
    (void) close(write_file(path, text, strlen(text), 0));
}

static inline bool there_is(const struct place *p, const char *name)
{
    char path[512];
    struct stat st;
    path_of(p, name, path);
    return lstat(path, &st) == 0;
}

/* The number of names in a directory under the spool. */
static inline size_t count_names(const struct place *p, const char *name)
{
    char path[512];
    uv_fs_t req;
    path_of(p, name, path);
    int n = uv_fs_scandir(NULL, &req, path, 0, NULL);
    uv_fs_req_cleanup(&req);
    return n > 0 ? (size_t) n : 0;
}

static inline void impatient(uv_timer_t *timer)
{
    struct place *p = timer->data;
    p->impatient = true;
}

/* Turns the loop until the condition holds. */
#define run_until(p, condition)                                                                    \
    do {                                                                                           \
        (p)->impatient = false;                                                                    \
        (void) uv_timer_start(&(p)->patience, impatient, PATIENCE_MS, 0);                          \
        while (!(condition) && !(p)->impatient)                                                    \
            (void) uv_run(&(p)->loop, UV_RUN_ONCE);                                                \
        assert_true(condition);                                                                    \
        (void) uv_timer_stop(&(p)->patience);                                                      \
    } while (0)

static inline void start_spool(struct place *p)
{
    assert_int_equal(spool_create(&p->spool, &p->loop, &p->queue, &p->options), 0);
    assert_int_equal(spool_start(p->spool), 0);
}

static inline void on_stopped(void *userdata)
{
    struct place *p = userdata;
    p->stopped = true;
}

static inline void release(struct queue *q)
{
    q->held = false;
    (void) uv_timer_start(&q->turn, queue_turn, 0, 0);
}

static inline void stop_spool(struct place *p)
{
    p->stopped = false;
    spool_stop(p->spool, on_stopped, p);
    release(&p->queue);
    run_until(p, p->stopped);
    spool_destroy(p->spool);
    p->spool = NULL;
}

static inline int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    (void) snprintf(p->home, sizeof(p->home), "/tmp/spool-XXXXXX");
    assert_non_null(mkdtemp(p->home));
    (void) snprintf(p->dir, sizeof(p->dir), "%s/spool", p->home);
    assert_int_equal(mkdir(p->dir, 0755), 0);
    p->options = (struct spool_options){
        .directory = p->dir,
        .max_file_bytes = 4 << 20,
        .settle_ms = 60,
        .rescan_interval_s = 3600,
        .deadline_s = 60,
    };
    p->queue.max_pending = SIZE_MAX;
    assert_int_equal(uv_loop_init(&p->loop), 0);
    (void) uv_timer_init(&p->loop, &p->patience);
    (void) uv_timer_init(&p->loop, &p->queue.turn);
    p->patience.data = p;
    p->queue.turn.data = &p->queue;
    /* Bad lines by the hundred are warned of here. */
    log_set_level(LOG_LEVEL_ERROR);
    *state = p;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline int teardown(void **state)
{
    struct place *p = *state;
    if (p->spool != NULL)
        stop_spool(p);
    uv_close((uv_handle_t *) &p->patience, NULL);
    uv_close((uv_handle_t *) &p->queue.turn, NULL);
    (void) uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->loop), 0);
    for (size_t i = 0; i < p->queue.n_kept; i++)
        request_destroy(p->queue.kept[i]);
    free(p->queue.kept);

    remove_tree(p->home);
    free(p);
    return 0;
}

/* The kept request of a job, and only one. */
static inline const struct request *kept_job(const struct place *p, const char *job_id)
{
    const struct request *found = NULL;
    for (size_t i = 0; i < p->queue.n_kept; i++) {
        if (strcmp(p->queue.kept[i]->job_id, job_id) != 0)
            continue;
        assert_null(found);
        found = p->queue.kept[i];
    }
    assert_non_null(found);
    return found;
}

static inline struct spool_stats stats_of(const struct place *p)
{
    struct spool_stats stats;
    spool_get_stats(p->spool, &stats);
    return stats;
}

#endif
