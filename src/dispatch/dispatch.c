/* What is sent when. Runs on the loop thread. Which requests are in memory, and which of them is next,
 * is the window's (window.h). */
#include "dispatch/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "dispatch/window.h"
#include "policy/endpoint.h"
#include "policy/health.h"

struct dispatch {
    uv_loop_t *loop;
    struct queue *queue;
    struct http *http;
    uv_timer_t timer; /* the one timer: whatever wakes next */

    enum endpoint endpoint;
    size_t max_in_flight;
    unsigned max_attempts;
    struct retry_policy retry;

    struct window *window;
    struct request_list in_flight;

    bool started, held, draining, stopping;
    void (*drained)(void *userdata);
    void *drained_userdata;
    void (*stopped)(void *userdata);
    void *stopped_userdata;
    unsigned closing;

    struct health health;
    struct dispatch_stats stats;
};

static void pump(struct dispatch *d);

/* --- Outcomes --- */

static void set_text(char **field, const char *text)
{
    if (request_set_text(field, text) < 0)
        log_warning("dispatch: out of memory for a message");
}

static void settle(struct dispatch *d, struct request *req, enum outcome outcome, bool whole_chain)
{
    req->outcome = outcome;
    req->done_at_ms = clock_steady_ms();
    if (outcome == OUTCOME_CANCELLED) {
        set_text(&req->error_code, NULL);
        set_text(&req->error_message, NULL);
    }
    window_hand_over(d->window, req, WINDOW_ENDING);
    queue_settle(d->queue, req, whole_chain);
}

static void expire(void *userdata, struct request *req)
{
    struct dispatch *d = userdata;
    if (req->attempts == 0 && req->error_code == NULL) {
        static const char text[] = "the deadline passed before it could be tried";
        set_text(&req->error_code, "expired");
        set_text(&req->error_message, text);
        set_text(&req->message, text);
    }
    settle(d, req, OUTCOME_EXPIRED, false);
}

static void withdraw(struct dispatch *d, struct request *req)
{
    if (req->message == NULL)
        set_text(&req->message, "taken back before it was sent");
    settle(d, req, OUTCOME_WITHDRAWN, false);
}

/* --- Attempts --- */

static int64_t draw_delay_ms(const struct dispatch *d, unsigned attempt, int64_t retry_after_ms)
{
    uint64_t random;
    arc4random_buf(&random, sizeof(random));
    return retry_delay_ms(&d->retry, attempt, random, retry_after_ms);
}

static void try_again(struct dispatch *d, struct request *req, const struct reply *reply)
{
    unsigned failures = req->connect_failures > 0 ? req->connect_failures : req->attempts;
    int64_t now_ms = clock_steady_ms();
    req->due_at_ms = now_ms + draw_delay_ms(d, failures, reply->retry_after_ms);

    /* What ends the leader alone: the next in the chain goes on when this would have been due. */
    if (req->attempts >= d->max_attempts) {
        settle(d, req, OUTCOME_FAILED, false);
        return;
    }
    if (now_ms >= req->deadline_at_ms) {
        expire(d, req);
        return;
    }
    window_hand_over(d->window, req, WINDOW_RETURNING);
    queue_retry(d->queue, req);
}

static void keep_judgement(struct dispatch *d, struct request *req, struct judgement *j)
{
    if (j->http_status != 0)
        req->http_status = j->http_status;
    if (j->counts) {
        req->attempts++;
        req->chain_attempts++;
        req->endpoint = d->endpoint;
        req->connect_failures = 0;
        d->stats.attempts++;
    } else {
        req->connect_failures++;
    }
    /* The texts move. */
    free(req->message);
    req->message = j->message;
    j->message = NULL;
    if (j->error_code == NULL)
        return;
    free(req->error_code);
    free(req->error_message);
    req->error_code = j->error_code;
    req->error_message = j->error_message;
    j->error_code = j->error_message = NULL;
}

static void count_reply(struct dispatch *d, const struct reply *reply)
{
    if (reply->transport != TRANSPORT_OK)
        d->stats.transport_failures++;
    else if (reply->status > 0 && reply->status < DISPATCH_STATUS_MAX)
        d->stats.replies[reply->status]++;
}

static void watch_health(struct dispatch *d, const struct reply *reply, const struct judgement *j)
{
    enum health_state before = d->health.state;
    if (!health_note(&d->health, reply))
        return;
    const char *code = j->error_code != NULL ? j->error_code : "?";
    const char *message = j->error_message != NULL ? j->error_message : "?";
    switch (d->health.state) {
    case HEALTH_GOOD:
        log_info("dispatch: the API %s again",
                 before == HEALTH_REFUSED ? "accepts the key" : "answers");
        break;
    case HEALTH_UNREACHABLE:
        log_warning("dispatch: the API can't be reached, requests are tried again: %s: %s", code,
                    message);
        break;
    case HEALTH_REFUSED:
        log_warning("dispatch: the API rejects the key: %s: %s; see api.key_file, and whether the "
                    "key is of this api.base_url's environment",
                    code, message);
        break;
    }
}

static void end_attempt(struct dispatch *d, struct request *req, const struct reply *reply)
{
    TAILQ_REMOVE(&d->in_flight, req, link);
    d->stats.in_flight--;
    count_reply(d, reply);

    struct judgement j = { .verdict = VERDICT_RETRY };
    if (verdict_judge(reply, req->job_id, &j) < 0)
        log_warning("dispatch: out of memory for a reply; it does not count");
    watch_health(d, reply, &j);
    keep_judgement(d, req, &j);
    judgement_finish(&j);
    if (req->error_code != NULL)
        log_debug("dispatch: %s: %s: %s", req->job_id, req->error_code,
                  req->error_message != NULL ? req->error_message : "");

    if (j.verdict == VERDICT_DONE)
        settle(d, req, j.outcome, true);
    else
        try_again(d, req, reply);
}

static void on_reply(void *userdata, void *context, const struct reply *reply)
{
    struct dispatch *d = userdata;
    end_attempt(d, context, reply);
    pump(d);
}

static enum http_method method_of(enum endpoint endpoint)
{
    return endpoint == ENDPOINT_JOB ? HTTP_DELETE : HTTP_POST;
}

static void start_attempt(struct dispatch *d, struct request *req)
{
    char path[ENDPOINT_PATH_MAX];
    endpoint_path(d->endpoint, req->job_id, path);

    TAILQ_INSERT_TAIL(&d->in_flight, req, link);
    d->stats.in_flight++;
    if (req->chain_attempts > 0 || req->connect_failures > 0)
        d->stats.retries++;
    if (http_send(d->http, method_of(d->endpoint), path, req) < 0) {
        static const struct reply failed = {
            .transport = TRANSPORT_FAILED,
            .trouble = "out of memory for the request",
            .body = "",
            .api_key = "",
        };
        end_attempt(d, req, &failed); /* we are within pump() */
    }
}

/* --- What comes next --- */

static void send_ready(struct dispatch *d)
{
    while (!d->held && d->stats.in_flight < d->max_in_flight) {
        struct request *req = window_next(d->window);
        if (req == NULL)
            return;
        if (clock_steady_ms() >= req->deadline_at_ms)
            expire(d, req);
        else if (req->attempts >= d->max_attempts)
            settle(d, req, OUTCOME_FAILED, false); /* it was lowered */
        else
            start_attempt(d, req);
    }
}

static void on_timer(uv_timer_t *timer);

static void arm_timer(struct dispatch *d, int64_t now_ms)
{
    int64_t at_ms = window_next_ms(d->window);
    if (at_ms == INT64_MAX) {
        (void) uv_timer_stop(&d->timer);
        return;
    }
    uint64_t delay_ms = at_ms > now_ms ? (uint64_t) (at_ms - now_ms) : 0;
    /* The loop's own notion of now is older than ours. */
    uv_update_time(d->loop);
    (void) uv_timer_start(&d->timer, on_timer, delay_ms, 0);
}

/* Everything that can be done now. Cheap when there is nothing. */
static void pump(struct dispatch *d)
{
    if (!d->started || d->stopping)
        return;
    if (d->draining) {
        if (d->stats.in_flight == 0 && d->drained != NULL) {
            void (*drained)(void *) = d->drained;
            d->drained = NULL;
            drained(d->drained_userdata);
        }
        return;
    }
    int64_t now_ms = clock_steady_ms();
    window_turn(d->window, now_ms);
    send_ready(d);
    window_turn(d->window, now_ms);
    arm_timer(d, now_ms);
}

static void on_timer(uv_timer_t *timer)
{
    pump(timer->data);
}

/* --- The queue's news --- */

void dispatch_accepted(struct dispatch *d, struct request *req)
{
    window_accepted(d->window, req);
    pump(d);
}

void dispatch_retried(struct dispatch *d, struct request *req)
{
    if (window_place(d->window, req->seq) == WINDOW_RECALLED)
        withdraw(d, req);
    else
        window_returned(d->window, req);
    pump(d);
}

void dispatch_promoted(struct dispatch *d, struct request *req)
{
    window_promoted(d->window, req);
    pump(d);
}

void dispatch_ended(struct dispatch *d, int64_t seq)
{
    window_ended(d->window, seq);
    pump(d);
}

void dispatch_fetched(struct dispatch *d, enum queue_order order, int status,
                      struct request **requests, size_t n, int64_t next_at_ms)
{
    window_fetched(d->window, order, status, requests, n, next_at_ms);
    pump(d);
}

void dispatch_storage(struct dispatch *d, bool usable)
{
    window_storage(d->window, usable);
    pump(d);
}

/* --- Administration --- */

void dispatch_hold(struct dispatch *d, bool held)
{
    d->held = held;
    pump(d);
}

void dispatch_flush(struct dispatch *d)
{
    window_flush(d->window);
    pump(d);
}

bool dispatch_withdraw(struct dispatch *d, struct request *req)
{
    switch (window_place(d->window, req->seq)) {
    case WINDOW_NOWHERE:
        /* A follower shows its leader's state, which counts once. */
        if (req->state == REQUEST_WAITING && req->follows)
            request_set_state(req, REQUEST_QUEUED);
        withdraw(d, req);
        return true;
    case WINDOW_HERE:
        if (window_get(d->window, req->seq)->state == REQUEST_IN_FLIGHT)
            break;
        withdraw(d, window_take(d->window, req->seq));
        request_destroy(req);
        return true;
    case WINDOW_RETURNING:
        window_recall(d->window, req->seq);
        request_destroy(req);
        return true;
    case WINDOW_ENDING:
    case WINDOW_RECALLED:
        break;
    }
    request_destroy(req);
    return false;
}

int dispatch_leader_state(const struct dispatch *d, int64_t seq)
{
    if (window_place(d->window, seq) != WINDOW_HERE)
        return -1;
    return (int) window_get(d->window, seq)->state;
}

const struct dispatch_stats *dispatch_get_stats(struct dispatch *d)
{
    d->stats.waiting = window_waiting(d->window);
    return &d->stats;
}

/* --- Life --- */

int dispatch_create(struct dispatch **ret, uv_loop_t *loop, struct queue *queue)
{
    struct dispatch *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->loop = loop;
    d->queue = queue;
    TAILQ_INIT(&d->in_flight);
    int r = window_create(&d->window, queue, expire, d);
    if (r == 0)
        r = http_create(&d->http, loop, on_reply, d);
    if (r < 0) {
        window_destroy(d->window);
        free(d);
        return r;
    }
    (void) uv_timer_init(loop, &d->timer);
    d->timer.data = d;
    *ret = d;
    return 0;
}

int dispatch_configure(struct dispatch *d, const struct dispatch_options *options)
{
    struct http_options http = options->http;
    http.max_connections = (int64_t) options->max_in_flight;
    int r = http_configure(d->http, &http);
    if (r < 0)
        return r;
    d->endpoint = options->endpoint;
    d->max_in_flight = options->max_in_flight;
    d->max_attempts = options->max_attempts;
    d->retry = options->retry;
    pump(d);
    return 0;
}

void dispatch_start(struct dispatch *d)
{
    window_start(d->window);
    d->held = queue_note(d->queue, "held") != 0;
    d->started = true;
    pump(d);
}

void dispatch_drain(struct dispatch *d, void (*drained)(void *userdata), void *userdata)
{
    d->draining = true;
    d->drained = drained;
    d->drained_userdata = userdata;
    (void) uv_timer_stop(&d->timer);
    pump(d);
}

static void one_closed(void *userdata)
{
    struct dispatch *d = userdata;
    if (--d->closing == 0)
        d->stopped(d->stopped_userdata);
}

static void on_timer_closed(uv_handle_t *handle)
{
    one_closed(handle->data);
}

void dispatch_stop(struct dispatch *d, void (*stopped)(void *userdata), void *userdata)
{
    d->stopping = true;
    d->stopped = stopped;
    d->stopped_userdata = userdata;
    d->closing = 2;
    http_stop(d->http, one_closed, d);
    uv_close((uv_handle_t *) &d->timer, on_timer_closed);
}

void dispatch_destroy(struct dispatch *d)
{
    if (d == NULL)
        return;
    http_destroy(d->http);
    struct request *req;
    while ((req = TAILQ_FIRST(&d->in_flight)) != NULL) {
        TAILQ_REMOVE(&d->in_flight, req, link);
        request_destroy(req);
    }
    window_destroy(d->window);
    free(d);
}
