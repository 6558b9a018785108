/* What dispatch does when a request can't even be handed to http: http and queue are stand-ins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dispatch/dispatch.h"

#define REQUESTS 2000

struct http {
    void *userdata;
};

/* The stand-ins have nothing else to find it by. */
static struct {
    struct request *retried[REQUESTS];
    size_t n_sent, n_retried;
    uintptr_t lowest, highest; /* of the stack in http_send() */
} fake;

/* --- http --- */

int http_create(struct http **ret, uv_loop_t *loop, http_done_fn done, void *userdata)
{
    (void) loop;
    (void) done;
    *ret = calloc(1, sizeof(**ret));
    (*ret)->userdata = userdata;
    return 0;
}

int http_configure(struct http *h, const struct http_options *options)
{
    (void) h;
    (void) options;
    return 0;
}

int http_send(struct http *h, enum http_method method, const char *path, void *context)
{
    uintptr_t stack = (uintptr_t) __builtin_frame_address(0);
    (void) h;
    (void) method;
    (void) path;
    (void) context;
    if (fake.n_sent++ == 0)
        fake.lowest = fake.highest = stack;
    fake.lowest = stack < fake.lowest ? stack : fake.lowest;
    fake.highest = stack > fake.highest ? stack : fake.highest;
    return -ENOMEM;
}

void http_stop(struct http *h, void (*stopped)(void *userdata), void *userdata)
{
    (void) h;
    stopped(userdata);
}

void http_destroy(struct http *h)
{
    free(h);
}

/* --- queue --- */

void queue_get_counts(const struct queue *q, struct queue_counts *ret)
{
    (void) q;
    *ret = (struct queue_counts){ 0 };
}

int64_t queue_first_seq(const struct queue *q)
{
    (void) q;
    return 0;
}

int64_t queue_note(const struct queue *q, const char *name)
{
    (void) q;
    return strcmp(name, "held") == 0;
}

void queue_set_note(struct queue *q, const char *name, int64_t value, queue_done_fn done,
                    void *userdata)
{
    (void) q;
    (void) name;
    (void) value;
    (void) done;
    (void) userdata;
}

int64_t queue_unclean_seq(const struct queue *q)
{
    (void) q;
    return 0;
}

void queue_fetch(struct queue *q, enum queue_order order, struct queue_position after,
                 int64_t until_ms, size_t limit)
{
    (void) q;
    (void) order;
    (void) after;
    (void) until_ms;
    (void) limit;
}

void queue_settle(struct queue *q, struct request *req, bool whole_chain)
{
    (void) q;
    (void) req;
    (void) whole_chain;
    fail_msg("nothing is to be settled");
}

void queue_retry(struct queue *q, struct request *req)
{
    (void) q;
    fake.retried[fake.n_retried++] = req;
}

/* --- The test --- */

static void on_stopped(void *userdata)
{
    *(bool *) userdata = true;
}

static void test_requests_that_http_does_not_take(void **state)
{
    uv_loop_t loop;
    struct dispatch *d;
    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(dispatch_create(&d, &loop, NULL, &(struct dispatch_host){ 0 }), 0);
    const struct dispatch_options options = {
        .http = { .base_url = "http://localhost" },
        .endpoint = API_ENDPOINT_CANCEL,
        .max_in_flight = 4,
        .max_attempts = 1,
        .retry = { .base_delay_ms = 60000, .max_delay_ms = 60000 },
    };
    assert_int_equal(dispatch_configure(d, &options), 0);
    dispatch_start(d);
    int64_t now_ms = clock_steady_ms();
    for (int i = 0; i < REQUESTS; i++) {
        char id[16];
        (void) snprintf(id, sizeof(id), "r%d", i);
        struct request *req = request_create(SOURCE_SOCKET, id, id, strlen(id), "uid=0 pid=1",
                                             now_ms, now_ms + 3600000);
        assert_non_null(req);
        req->seq = req->chain = i + 1;
        dispatch_accepted(d, req);
    }
    assert_int_equal(fake.n_sent, 0);

    dispatch_hold(d, false);
    assert_int_equal(fake.n_sent, REQUESTS);
    assert_int_equal(fake.n_retried, REQUESTS);
    /* One after the other, not one within the other. */
    assert_true(fake.highest - fake.lowest < 4096);
    assert_int_equal(dispatch_get_stats(d)->in_flight, 0);
    assert_int_equal(dispatch_get_stats(d)->attempts, 0);
    assert_int_equal(dispatch_get_stats(d)->transport_failures, REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        struct request *req = fake.retried[i];
        assert_int_equal(req->seq, i + 1);
        assert_int_equal(req->state, REQUEST_WAITING);
        assert_int_equal(req->attempts, 0);
        assert_int_equal(req->connect_failures, 1);
        assert_string_equal(req->error_message, "out of memory for the request");
        request_destroy(req);
    }

    bool stopped = false;
    dispatch_stop(d, on_stopped, &stopped);
    (void) uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(stopped);
    dispatch_destroy(d);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_that_http_does_not_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
