/* The queue on a real database: what is accepted, joined, settled and passed on, and what a new
 * start finds. The results log is one in memory. */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "queue/queue.h"

#define EVENTS_MAX 20000

enum call { CALL_NONE, CALL_APPEND, CALL_SYNC, CALL_REOPEN };

struct fixture {
    char directory[64];
    char database[96];
    uv_loop_t loop;
    struct queue *queue;
    struct buf lines; /* of the log */
    int64_t last_n;
    _Atomic(enum call) removed; /* the call of the log's that finds its file removed */

    struct request *held[EVENTS_MAX]; /* accepted, promoted or fetched, in their order */
    size_t n_held;
    struct queue_settled settled[EVENTS_MAX];
    size_t n_settled;
    size_t n_watched;
    size_t n_returned; /* answers of any kind */
    int put_status;
    enum put_outcome put_outcome[16];
    bool put_coalesced[16];
    int64_t next_at_ms;
    size_t n_ended_before;
    size_t n_refused;
    size_t n_troubles;
    size_t n_barriers;
    size_t n_settled_at_barrier;
    int64_t ended_before;
    bool stopped;
};

/* --- A database that fails on demand --- */

struct sqlite3_stmt;
const char *sqlite3_sql(struct sqlite3_stmt *stmt);
int sqlite3_step(struct sqlite3_stmt *stmt);

#define IO_ERROR 10 /* SQLITE_IOERR */
static int (*real_step)(struct sqlite3_stmt *stmt);
static _Atomic int results_failures; /* that many times, what the log lacks can't be read */

/* Instead of SQLite's. */
int sqlite3_step(struct sqlite3_stmt *stmt)
{
    if (results_failures > 0 && strstr(sqlite3_sql(stmt), "WHERE n > ?1 ORDER BY n") != NULL) {
        results_failures--;
        return IO_ERROR;
    }
    return real_step(stmt);
}

/* --- The log --- */

/* None of its lines is ever kept for sure. */
static int log_recover(void *userdata, const struct queue_cursor *cursor, int64_t max_n,
                       const struct queue_log_check *check, int64_t *ret_last_n, struct buf *reterr)
{
    struct fixture *f = userdata;
    (void) check;
    (void) cursor;
    (void) max_n;
    (void) reterr;
    *ret_last_n = f->last_n;
    return 0;
}

static int find_removed(struct fixture *f, enum call call)
{
    if (f->removed != call)
        return 0;
    f->removed = CALL_NONE;
    f->last_n = 0;
    buf_clear(&f->lines);
    return -ESTALE;
}

static int log_append(void *userdata, const char *lines, size_t len, int64_t last_n)
{
    struct fixture *f = userdata;
    if (find_removed(f, CALL_APPEND) < 0)
        return -ESTALE;
    f->last_n = last_n;
    return buf_append(&f->lines, lines, len);
}

static int log_sync(void *userdata, struct queue_cursor *ret_cursor)
{
    struct fixture *f = userdata;
    *ret_cursor = (struct queue_cursor){ .inode = 1 };
    return find_removed(f, CALL_SYNC);
}

static int log_reopen(void *userdata)
{
    return find_removed(userdata, CALL_REOPEN);
}

/* --- The handler --- */

static void hold(struct fixture *f, struct request *req)
{
    assert_true(f->n_held < EVENTS_MAX);
    f->held[f->n_held++] = req;
}

static void on_request(void *userdata, struct request *req)
{
    struct fixture *f = userdata;
    f->n_returned++;
    if (req->follows)
        request_destroy(req);
    else
        hold(f, req);
}

static void on_settled(void *userdata, const struct queue_settled *settled)
{
    struct fixture *f = userdata;
    assert_true(f->n_settled < EVENTS_MAX);
    f->n_watched += settled->line != NULL;
    f->settled[f->n_settled++] = *settled;
}

static void on_ended_before(void *userdata, int64_t seq)
{
    struct fixture *f = userdata;
    f->n_ended_before++;
    f->ended_before = seq;
}

static void on_fetched(void *userdata, enum queue_order order, int status,
                       struct request **requests, size_t n, int64_t next_at_ms)
{
    struct fixture *f = userdata;
    (void) order;
    assert_int_equal(status, 0);
    f->n_returned++;
    f->next_at_ms = next_at_ms;
    for (size_t i = 0; i < n; i++)
        hold(f, requests[i]);
}

static void on_storage(void *userdata, const struct queue_trouble *trouble)
{
    struct fixture *f = userdata;
    (void) trouble;
    f->n_troubles++;
}

/* --- Life --- */

static void start(struct fixture *f)
{
    struct queue_options options = {
        .database = f->database,
        .max_pending = 8,
        .history_days = 30,
    };
    struct queue_log log = {
        .recover = log_recover,
        .append = log_append,
        .sync = log_sync,
        .reopen = log_reopen,
        .userdata = f,
    };
    struct queue_handler handler = {
        .accepted = on_request,
        .retried = on_request,
        .promoted = on_request,
        .settled = on_settled,
        .ended_before = on_ended_before,
        .fetched = on_fetched,
        .storage = on_storage,
        .userdata = f,
    };
    struct buf err;
    buf_init(&err, 1024);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(queue_open(&f->queue, &f->loop, &options, &log, &err), 0);
    buf_finish(&err);
    queue_set_handler(f->queue, &handler);
}

static void forget_held(struct fixture *f)
{
    for (size_t i = 0; i < f->n_held; i++)
        request_destroy(f->held[i]);
    f->n_held = 0;
}

static void on_stopped(void *userdata)
{
    struct fixture *f = userdata;
    f->stopped = true;
}

static void stop(struct fixture *f)
{
    f->stopped = false;
    queue_stop(f->queue, true, on_stopped, f);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_true(f->stopped);
    queue_destroy(f->queue);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    forget_held(f);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    (void) snprintf(f->directory, sizeof(f->directory), "/tmp/pulse-queue.XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    (void) snprintf(f->database, sizeof(f->database), "%s/q.db", f->directory);
    buf_init(&f->lines, 64 << 20);
    start(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    stop(f);
    static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };
    for (size_t i = 0; i < 4; i++) {
        char path[128];
        (void) snprintf(path, sizeof(path), "%s%s", f->database, suffixes[i]);
        (void) unlink(path);
    }
    assert_int_equal(rmdir(f->directory), 0);
    buf_finish(&f->lines);
    free(f);
    return 0;
}

/* Runs the loop until `*counter` reaches `value`. */
static void run_until(struct fixture *f, const size_t *counter, size_t value)
{
    while (*counter < value)
        (void) uv_run(&f->loop, UV_RUN_ONCE);
}

/* --- Steps --- */

static void on_put(struct queue_put *put, int status, void *userdata)
{
    struct fixture *f = userdata;
    f->put_status = status;
    for (size_t i = 0; i < put->n_requests && i < 16; i++) {
        f->put_outcome[i] = put->results[i].outcome;
        f->put_coalesced[i] = put->results[i].coalesced;
    }
    f->n_returned++;
}

static struct request *make(const char *request_id, const char *job_id, int64_t deadline_in_ms)
{
    int64_t now_ms = clock_steady_ms();
    struct request *req = request_create(SOURCE_SOCKET, request_id, job_id, strlen(job_id), "o",
                                         now_ms, now_ms + deadline_in_ms);
    assert_non_null(req);
    return req;
}

/* Puts a list of "request_id job_id" pairs and waits for its answer. */
static void put(struct fixture *f, bool atomic, size_t n, const char *const (*pairs)[2])
{
    struct queue_put *p = queue_put_create(n);
    for (size_t i = 0; i < n; i++)
        p->requests[i] = make(pairs[i][0], pairs[i][1], 60000);
    p->atomic = atomic;
    p->done = on_put;
    p->userdata = f;
    size_t returned = f->n_returned;
    assert_int_equal(queue_put(f->queue, p), 0);
    run_until(f, &f->n_returned, returned + 1);
}

static void put_one(struct fixture *f, const char *request_id, const char *job_id)
{
    const char *const pairs[1][2] = { { request_id, job_id } };
    put(f, true, 1, pairs);
}

/* The last one held goes to the queue with an outcome; waits for `n` outcomes. */
static void settle(struct fixture *f, size_t held, enum outcome outcome, bool whole_chain, size_t n)
{
    struct request *req = f->held[held];
    f->held[held] = NULL;
    req->outcome = outcome;
    req->done_at_ms = clock_steady_ms();
    request_set_state(req, REQUEST_DONE);
    size_t settled = f->n_settled;
    queue_settle(f->queue, req, whole_chain);
    run_until(f, &f->n_settled, settled + n);
}

static void count_attempt(struct fixture *f, size_t held, int64_t due_in_ms)
{
    struct request *req = f->held[held];
    f->held[held] = NULL;
    req->attempts++;
    req->chain_attempts++;
    req->due_at_ms = clock_steady_ms() + due_in_ms;
    assert_int_equal(request_set_text(&req->error_code, "http_500"), 0);
    request_set_state(req, REQUEST_WAITING);
    size_t returned = f->n_returned;
    queue_retry(f->queue, req);
    run_until(f, &f->n_returned, returned + 1);
}

static int64_t pending(const struct fixture *f)
{
    struct queue_counts counts;
    queue_get_counts(f->queue, &counts);
    return counts.pending;
}

/* From the beginning, up to ten; waits for the answer. */
static void fetch(struct fixture *f, enum queue_order order, int64_t until_ms)
{
    struct queue_position after = { .seq = order == QUEUE_FRESH ? queue_first_seq(f->queue) : 0 };
    size_t returned = f->n_returned;
    queue_fetch(f->queue, order, after, until_ms, 10);
    run_until(f, &f->n_returned, returned + 1);
}

static void on_barrier(void *userdata, int status, int64_t n)
{
    struct fixture *f = userdata;
    (void) n;
    assert_int_equal(status, 0);
    f->n_barriers++;
    f->n_settled_at_barrier = f->n_settled;
}

/* What is posted is settled, and its line may still be on its way. */
static const char *log_text(struct fixture *f)
{
    queue_barrier(f->queue, on_barrier, f);
    run_until(f, &f->n_barriers, f->n_barriers + 1);
    return buf_cstr(&f->lines);
}

/* --- Tests --- */

static void test_put_is_idempotent_by_request_id(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    assert_int_equal(f->put_status, 0);
    assert_int_equal(f->put_outcome[0], PUT_ACCEPTED);
    put_one(f, "r1", "a");
    assert_int_equal(f->put_outcome[0], PUT_KNOWN);
    put_one(f, "r1", "b");
    assert_int_equal(f->put_outcome[0], PUT_OTHER_JOB);
    assert_int_equal(f->n_held, 1);
    assert_int_equal(pending(f), 1);

    settle(f, 0, OUTCOME_CANCELLED, true, 1);
    put_one(f, "r1", "a");
    assert_int_equal(f->put_outcome[0], PUT_KNOWN);
    assert_int_equal(pending(f), 0);
    stop(f);
    start(f);
    put_one(f, "r1", "a");
    assert_int_equal(f->put_outcome[0], PUT_KNOWN);
    (void) log_text(f);
    assert_int_equal(f->last_n, 1);
}

static void test_the_whole_chain_is_settled(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    assert_false(f->put_coalesced[0]);
    put_one(f, "r2", "a");
    assert_true(f->put_coalesced[0]);
    count_attempt(f, 0, 0);
    put_one(f, "r3", "a");
    assert_true(f->put_coalesced[0]);
    put_one(f, "r4", "b");
    assert_false(f->put_coalesced[0]);

    /* Held: r1 (given), r1 (back from its retry), r4. */
    f->held[1]->attempts++;
    f->held[1]->chain_attempts++;
    settle(f, 1, OUTCOME_NOT_FOUND, true, 3);
    assert_int_equal(pending(f), 1);
    const char *lines = log_text(f);
    /* Attempts since each was accepted: two, two, one. */
    assert_non_null(strstr(lines, "\"n\":1,"));
    assert_non_null(strstr(lines,
                           "\"request_id\":\"r1\",\"job_id\":\"a\",\"outcome\":\"not_found\","
                           "\"http_status\":null,\"attempts\":2,"));
    assert_non_null(strstr(lines,
                           "\"request_id\":\"r2\",\"job_id\":\"a\",\"outcome\":\"not_found\","
                           "\"http_status\":null,\"attempts\":2,"));
    assert_non_null(strstr(lines,
                           "\"request_id\":\"r3\",\"job_id\":\"a\",\"outcome\":\"not_found\","
                           "\"http_status\":null,\"attempts\":1,"));
    assert_non_null(strstr(lines, "\"coalesced_with\":\"r1\""));

    /* The chain has ended: the next one begins another. */
    put_one(f, "r5", "a");
    assert_false(f->put_coalesced[0]);
}

static void test_the_next_one_goes_on(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    put_one(f, "r2", "a");
    put_one(f, "r3", "a");
    count_attempt(f, 0, 0);
    size_t returned = f->n_returned;
    settle(f, 1, OUTCOME_FAILED, false, 1);
    run_until(f, &f->n_returned, returned + 1);
    assert_int_equal(f->n_held, 3);
    assert_string_equal(f->held[2]->request_id, "r2");
    assert_int_equal(f->held[2]->attempts, 1);
    assert_false(f->held[2]->follows);

    /* Another start finds the same: r2 leads and r3 follows it. */
    stop(f);
    start(f);
    fetch(f, QUEUE_BY_DEADLINE, INT64_MAX - 1);
    assert_int_equal(f->n_held, 2);
    size_t leader = f->held[0]->follows ? 1 : 0;
    assert_string_equal(f->held[leader]->request_id, "r2");
    assert_int_equal(f->held[leader]->attempts, 1);
    assert_true(f->held[1 - leader]->follows);
    put_one(f, "r4", "a");
    assert_true(f->put_coalesced[0]);
    settle(f, leader, OUTCOME_CANCELLED, true, 3);
    assert_int_equal(pending(f), 0);
    assert_int_equal(f->last_n, 4);
}

/* A follower expires while the outcome of its chain is on its way. */
static void test_settled_twice(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    put_one(f, "r2", "a");
    fetch(f, QUEUE_BY_DEADLINE, INT64_MAX - 1);
    size_t follower = f->held[1]->follows ? 1 : 2;
    int64_t seq = f->held[follower]->seq;
    settle(f, 0, OUTCOME_CANCELLED, true, 2);
    struct request *late = f->held[follower];
    f->held[follower] = NULL;
    late->outcome = OUTCOME_EXPIRED;
    request_set_state(late, REQUEST_DONE);
    queue_settle(f->queue, late, false);
    run_until(f, &f->n_ended_before, 1);
    assert_int_equal(f->ended_before, seq);
    assert_int_equal(f->n_settled, 2);
    assert_int_equal(pending(f), 0);
}

static void test_room(void **state)
{
    struct fixture *f = *state;
    static const char *const many[9][2] = {
        { "m1", "1" }, { "m2", "2" }, { "m3", "3" }, { "m4", "4" }, { "m5", "5" },
        { "m6", "6" }, { "m7", "7" }, { "m8", "8" }, { "m9", "9" },
    };
    put(f, true, 9, many);
    assert_int_equal(f->put_status, -EXFULL);
    assert_int_equal(pending(f), 0);
    put(f, false, 9, many);
    assert_int_equal(f->put_status, 0);
    assert_int_equal(f->put_outcome[7], PUT_ACCEPTED);
    assert_int_equal(f->put_outcome[8], PUT_LEFT);
    assert_int_equal(pending(f), 8);
    put_one(f, "m10", "10");
    assert_int_equal(f->put_status, -EXFULL);
    put_one(f, "m1", "1"); /* known, whatever room there is */
    assert_int_equal(f->put_status, 0);
    assert_int_equal(f->put_outcome[0], PUT_KNOWN);
}

static void put_many_with_note(struct fixture *f, const char *prefix, size_t n, int64_t value)
{
    struct queue_put *p = queue_put_create(n);
    for (size_t i = 0; i < n; i++) {
        char id[32];
        (void) snprintf(id, sizeof(id), "%s%zu", prefix, i);
        p->requests[i] = make(id, id, 60000);
    }
    p->n_notes = 1;
    p->notes[0] = (struct queue_put_note){ .name = "how far", .value = value };
    p->done = on_put;
    p->userdata = f;
    size_t returned = f->n_returned;
    assert_int_equal(queue_put(f->queue, p), 0);
    run_until(f, &f->n_returned, returned + 1);
}

static void test_a_note_with_a_put(void **state)
{
    struct fixture *f = *state;
    put_many_with_note(f, "a", 2, 7);
    stop(f);
    start(f);
    assert_int_equal(queue_note(f->queue, "how far"), 7);
    /* Of ten there is room for six: it is not as far as they would be. */
    put_many_with_note(f, "b", 10, 8);
    assert_int_equal(f->put_outcome[9], PUT_LEFT);
    stop(f);
    start(f);
    assert_int_equal(queue_note(f->queue, "how far"), 7);
    put_many_with_note(f, "a", 2, 0);
    stop(f);
    start(f);
    assert_int_equal(queue_note(f->queue, "how far"), 0);
}

static void test_an_invalid_line_is_an_outcome(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        struct queue_put *p = queue_put_create(1);
        p->requests[0] = make("u.1", "no id", 0);
        p->requests[0]->outcome = OUTCOME_INVALID;
        p->requests[0]->done_at_ms = clock_steady_ms();
        request_set_state(p->requests[0], REQUEST_DONE);
        p->done = on_put;
        p->userdata = f;
        size_t returned = f->n_returned;
        assert_int_equal(queue_put(f->queue, p), 0);
        run_until(f, &f->n_returned, returned + 1);
        assert_int_equal(f->put_outcome[0], i == 0 ? PUT_ACCEPTED : PUT_KNOWN);
    }
    assert_int_equal(f->n_settled, 1);
    assert_int_equal(f->n_held, 0);
    stop(f);
    start(f);
    assert_int_equal(f->last_n, 1);
}

static void test_a_new_start_fetches_in_order(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    put_one(f, "r2", "b");
    put_one(f, "r3", "c");
    put_one(f, "r4", "b");
    settle(f, 0, OUTCOME_CANCELLED, true, 1);
    count_attempt(f, 2, 5000);
    stop(f);
    start(f);

    fetch(f, QUEUE_FRESH, 0);
    assert_int_equal(f->n_held, 1);
    assert_string_equal(f->held[0]->request_id, "r2");

    int64_t now_ms = clock_steady_ms();
    fetch(f, QUEUE_BY_DUE, now_ms);
    assert_int_equal(f->n_held, 1);
    assert_true(f->next_at_ms > now_ms && f->next_at_ms <= now_ms + 5000);
    fetch(f, QUEUE_BY_DEADLINE, now_ms);
    assert_int_equal(f->n_held, 1);
    assert_true(f->next_at_ms > now_ms + 5000 && f->next_at_ms <= now_ms + 60000);
    fetch(f, QUEUE_BY_DUE, now_ms + 5000);
    assert_int_equal(f->n_held, 2);
    assert_string_equal(f->held[1]->request_id, "r3");
    struct queue_counts counts;
    queue_get_counts(f->queue, &counts);
    assert_int_equal(counts.pending, 3);
    assert_int_equal(counts.waiting, 1);
}

/* More followers than one transaction settles. */
static void test_a_very_long_chain(void **state)
{
    struct fixture *f = *state;
    enum { N = 12000 };
    queue_set_limits(f->queue, N + 1, 30);
    struct queue_put *p = queue_put_create(N);
    for (size_t i = 0; i < N; i++) {
        char id[16];
        (void) snprintf(id, sizeof(id), "r%05zu", i);
        p->requests[i] = make(id, "a", 60000);
    }
    p->atomic = true;
    p->done = on_put;
    p->userdata = f;
    size_t returned = f->n_returned;
    assert_int_equal(queue_put(f->queue, p), 0);
    run_until(f, &f->n_returned, returned + 1);
    assert_int_equal(f->n_held, 1);
    settle(f, 0, OUTCOME_CANCELLED, true, N);
    assert_int_equal(f->n_settled, N);
    assert_int_equal(pending(f), 0);
    assert_int_equal(f->settled[N - 1].n, N);
    assert_int_equal(queue_stalled_ms(f->queue), 0); /* the parts count as one */
    stop(f);
    start(f);
    size_t lines = 0;
    for (size_t i = 0; i < f->lines.len; i++)
        lines += f->lines.data[i] == '\n';
    assert_int_equal(lines, N);
}

static void on_query(struct queue_query *query, int status, void *userdata)
{
    struct fixture *f = userdata;
    assert_int_equal(status, 0);
    assert_int_equal(query->n_rows, 2);
    assert_string_equal(query->rows[0].request->request_id, "r2");
    assert_int_equal(query->rows[0].leader_seq, query->rows[1].request->seq);
    assert_int_equal(query->rows[0].request->attempts, 0);
    assert_int_equal(query->rows[1].request->attempts, 1);
    f->n_returned++;
}

static void test_reading_by_job(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    count_attempt(f, 0, 5000);
    put_one(f, "r2", "a");
    put_one(f, "r3", "b");
    struct queue_query *query = queue_query_create(QUERY_JOB_ID);
    (void) strcpy(query->text, "a");
    query->limit = 1000;
    query->done = on_query;
    query->userdata = f;
    size_t returned = f->n_returned;
    queue_read(f->queue, query);
    run_until(f, &f->n_returned, returned + 1);
}

static void on_refused(void *userdata, int status, int64_t n)
{
    struct fixture *f = userdata;
    (void) n;
    assert_int_equal(status, -ESHUTDOWN);
    f->n_refused++;
}

static void on_query_refused(struct queue_query *query, int status, void *userdata)
{
    (void) query;
    on_refused(userdata, status, 0);
}

/* What comes too late is told so, and at once: nobody would answer it later. */
static void test_nothing_is_taken_after_the_stop(void **state)
{
    struct fixture *f = *state;
    f->stopped = false;
    queue_stop(f->queue, true, on_stopped, f);
    queue_set_note(f->queue, "held", 1, on_refused, f);
    queue_flush(f->queue, 0, on_refused, f);
    queue_barrier(f->queue, on_refused, f);
    struct queue_query *query = queue_query_create(QUERY_LIST);
    query->done = on_query_refused;
    query->userdata = f;
    queue_read(f->queue, query);
    assert_int_equal(f->n_refused, 4);
    struct queue_put *p = queue_put_create(1);
    p->requests[0] = make("r1", "a", 60000);
    p->done = on_put;
    assert_int_equal(queue_put(f->queue, p), -ESHUTDOWN);
    queue_put_destroy(p);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_true(f->stopped);
    queue_destroy(f->queue);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    start(f);
}

/* Its answer comes after those of all that was handed over before it. */
static void test_a_barrier(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    put_one(f, "r2", "b");
    for (size_t i = 0; i < 2; i++) {
        f->held[i]->done_at_ms = clock_steady_ms();
        request_set_state(f->held[i], REQUEST_DONE);
        queue_settle(f->queue, f->held[i], true);
        f->held[i] = NULL;
    }
    queue_barrier(f->queue, on_barrier, f);
    run_until(f, &f->n_barriers, 1);
    assert_int_equal(f->n_settled_at_barrier, 2);
}

/* For the watchdog: a put that waits for the writer, and then does not. */
static void test_how_long_it_stands_still(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(queue_stalled_ms(f->queue), 0);
    struct queue_put *p = queue_put_create(1);
    p->requests[0] = make("r1", "a", 60000);
    p->done = on_put;
    p->userdata = f;
    assert_int_equal(queue_put(f->queue, p), 0);
    while (queue_stalled_ms(f->queue) == 0) /* nobody takes the answer */
        continue;
    run_until(f, &f->n_returned, 2);
    assert_int_equal(queue_stalled_ms(f->queue), 0);
}

/* Whichever call notices it, the new file has every line that was not kept for sure in the old one. */
static void test_the_log_is_removed(void **state)
{
    struct fixture *f = *state;
    static const enum call calls[] = { CALL_APPEND, CALL_SYNC, CALL_REOPEN };
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        char first[8], second[8];
        (void) snprintf(first, sizeof(first), "r%zu", 2 * i + 1);
        (void) snprintf(second, sizeof(second), "r%zu", 2 * i + 2);
        put_one(f, first, "a");
        put_one(f, second, "b");
        settle(f, 0, OUTCOME_CANCELLED, true, 1);
        (void) log_text(f);
        f->removed = calls[i];
        settle(f, 1, OUTCOME_CANCELLED, true, 1);
        if (calls[i] == CALL_REOPEN)
            queue_reopen_log(f->queue);
        stop(f);
        assert_int_equal(f->removed, CALL_NONE);
        assert_int_equal(f->n_troubles, 0);
        const char *lines = buf_cstr(&f->lines);
        char n[16];
        for (int64_t line = 1; line <= (int64_t) (2 * i + 2); line++) {
            (void) snprintf(n, sizeof(n), "{\"n\":%lld,", (long long) line);
            assert_non_null(strstr(lines, n));
            lines = strstr(lines, n) + 1;
        }
        assert_null(strstr(lines, "{\"n\":"));
        start(f);
    }
}

/* Amid a rotation, and what the log lacks can't be read: all of it waits until it can. */
static void test_the_database_fails_under_the_log(void **state)
{
    struct fixture *f = *state;
    put_one(f, "r1", "a");
    put_one(f, "r2", "b");
    settle(f, 0, OUTCOME_CANCELLED, true, 1);
    (void) log_text(f);
    f->removed = CALL_APPEND;
    results_failures = 1;
    f->held[1]->outcome = OUTCOME_CANCELLED;
    f->held[1]->done_at_ms = clock_steady_ms();
    request_set_state(f->held[1], REQUEST_DONE);
    queue_settle(f->queue, f->held[1], true);
    f->held[1] = NULL;
    queue_reopen_log(f->queue);
    run_until(f, &f->n_troubles, 2); /* into it, and out of it */
    stop(f);
    assert_int_equal(results_failures, 0);
    const char *lines = buf_cstr(&f->lines);
    assert_ptr_equal(strstr(lines, "{\"n\":1,"), lines);
    lines = strstr(lines, "{\"n\":2,");
    assert_non_null(lines);
    assert_null(strstr(lines + 1, "{\"n\":"));
    start(f);
}

static void test_a_second_daemon_is_refused(void **state)
{
    struct fixture *f = *state;
    struct queue_options options = { .database = f->database, .max_pending = 1, .history_days = 1 };
    struct queue_log log = { .recover = log_recover, .userdata = f };
    struct queue *second = NULL;
    struct buf err;
    buf_init(&err, 1024);
    assert_int_equal(queue_open(&second, &f->loop, &options, &log, &err), -EWOULDBLOCK);
    assert_non_null(strstr(buf_cstr(&err), "held by another"));
    buf_finish(&err);
}

int main(void)
{
    *(void **) &real_step = dlsym(RTLD_NEXT, "sqlite3_step");
    assert_non_null(real_step);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_put_is_idempotent_by_request_id),
        TEST(test_the_whole_chain_is_settled),
        TEST(test_the_next_one_goes_on),
        TEST(test_settled_twice),
        TEST(test_room),
        TEST(test_a_note_with_a_put),
        TEST(test_an_invalid_line_is_an_outcome),
        TEST(test_a_new_start_fetches_in_order),
        TEST(test_a_very_long_chain),
        TEST(test_reading_by_job),
        TEST(test_nothing_is_taken_after_the_stop),
        TEST(test_a_barrier),
        TEST(test_how_long_it_stands_still),
        TEST(test_the_log_is_removed),
        TEST(test_the_database_fails_under_the_log),
        TEST(test_a_second_daemon_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
