/* What is sent when. Runs on the loop thread. Which requests are in memory, and which of them is next,
 * is the window's (window.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "dispatch/dispatch_private.h"

/* --- Outcomes --- */

void dispatch_set_text(char **field, const char *text)
{
    if (request_set_text(field, text) < 0)
        log_warning("dispatch: out of memory for a message");
}

void dispatch_settle(struct dispatch *d, struct request *req, enum outcome outcome,
                     bool whole_chain)
{
    req->outcome = outcome;
    req->done_at_ms = clock_steady_ms();
    if (outcome == OUTCOME_CANCELLED) {
        dispatch_set_text(&req->error_code, NULL);
        dispatch_set_text(&req->error_message, NULL);
    }
    window_hand_over(d->window, req, WINDOW_ENDING);
    queue_settle(d->queue, req, whole_chain);
}

void dispatch_expire(struct dispatch *d, struct request *req)
{
    if (req->trail.believed) {
        /* The API said yes; only its word for the job's end has not come. */
        if (req->message == NULL)
            dispatch_set_text(&req->message, "the API had accepted that the job be cancelled");
        dispatch_settle(d, req, OUTCOME_CANCELLED, false);
        return;
    }
    if (req->attempts == 0 && req->error_code == NULL) {
        static const char text[] = "the deadline passed before it could be tried";
        dispatch_set_text(&req->error_code, "expired");
        dispatch_set_text(&req->error_message, text);
        dispatch_set_text(&req->message, text);
    }
    dispatch_settle(d, req, OUTCOME_EXPIRED, false);
}

static void on_expired(void *userdata, struct request *req)
{
    dispatch_expire(userdata, req);
}

static void withdraw(struct dispatch *d, struct request *req)
{
    if (req->message == NULL)
        dispatch_set_text(&req->message, "taken back before it was sent");
    dispatch_settle(d, req, OUTCOME_WITHDRAWN, false);
}

/* --- What comes next --- */

enum endpoint dispatch_endpoint(const struct dispatch *d)
{
    switch (d->endpoint) {
    case API_ENDPOINT_JOB:
        return ENDPOINT_JOB;
    case API_ENDPOINT_AUTO:
        return d->route_gone ? ENDPOINT_JOB : ENDPOINT_CANCEL;
    case API_ENDPOINT_CANCEL:
        break;
    }
    return ENDPOINT_CANCEL;
}

void dispatch_route_note(const struct dispatch *d, char ret_name[static QUEUE_NOTE_MAX])
{
    (void) snprintf(ret_name, QUEUE_NOTE_MAX, "cancel route gone: %s", d->base_url);
}

bool dispatch_may_send(const struct dispatch *d)
{
    return !d->held && !d->key.rejected;
}

static bool has_slot(const struct dispatch *d)
{
    return dispatch_may_send(d) && d->stats.in_flight < (d->key.proving ? 1 : d->max_in_flight);
}

static void send_ready(struct dispatch *d)
{
    while (has_slot(d)) {
        struct request *req = window_next(d->window);
        if (req == NULL)
            return;
        bool status_wanted = req->trail.believed || req->trail.ask;
        if (clock_steady_ms() >= req->deadline_at_ms)
            dispatch_expire(d, req);
        else if (req->attempts >= d->max_attempts && !status_wanted)
            dispatch_settle(d, req, OUTCOME_FAILED, false); /* it was lowered */
        else
            attempt_start(d, req);
    }
}

static void on_timer(uv_timer_t *timer);

static int64_t next_turn_ms(const struct dispatch *d)
{
    int64_t window_ms = window_next_ms(d->window);
    int64_t key_ms = key_next_ms(d);
    return key_ms < window_ms ? key_ms : window_ms;
}

static void arm_timer(struct dispatch *d, int64_t now_ms)
{
    int64_t at_ms = next_turn_ms(d);
    if (at_ms == INT64_MAX) {
        (void) uv_timer_stop(&d->timer);
        return;
    }
    uint64_t delay_ms = at_ms > now_ms ? (uint64_t) (at_ms - now_ms) : 0;
    /* The loop's own notion of now is older than ours. */
    uv_update_time(d->loop);
    (void) uv_timer_start(&d->timer, on_timer, delay_ms, 0);
}

void dispatch_pump(struct dispatch *d)
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
    key_turn(d, now_ms);
    arm_timer(d, now_ms);
}

static void on_timer(uv_timer_t *timer)
{
    dispatch_pump(timer->data);
}

/* The machine has slept, and what came due in its sleep is not waited for any longer. */
static void on_clock_moved(void *userdata)
{
    dispatch_pump(userdata);
}

/* --- The queue's news --- */

void dispatch_accepted(struct dispatch *d, struct request *req)
{
    window_accepted(d->window, req);
    dispatch_pump(d);
}

void dispatch_retried(struct dispatch *d, struct request *req)
{
    if (window_place(d->window, req->seq) == WINDOW_RECALLED)
        withdraw(d, req);
    else
        window_returned(d->window, req);
    dispatch_pump(d);
}

void dispatch_promoted(struct dispatch *d, struct request *req)
{
    window_promoted(d->window, req);
    dispatch_pump(d);
}

void dispatch_ended(struct dispatch *d, int64_t seq)
{
    window_ended(d->window, seq);
    dispatch_pump(d);
}

void dispatch_fetched(struct dispatch *d, enum queue_order order, int status,
                      struct request **requests, size_t n, int64_t next_at_ms)
{
    window_fetched(d->window, order, status, requests, n, next_at_ms);
    dispatch_pump(d);
}

void dispatch_storage(struct dispatch *d, bool usable)
{
    window_storage(d->window, usable);
    dispatch_pump(d);
}

/* --- Administration --- */

void dispatch_hold(struct dispatch *d, bool held)
{
    d->held = held;
    dispatch_pump(d);
}

void dispatch_resume(struct dispatch *d)
{
    key_resume(d, false);
    dispatch_pump(d);
}

void dispatch_flush(struct dispatch *d)
{
    window_flush(d->window);
    dispatch_pump(d);
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

bool dispatch_is_stuck(const struct dispatch *d, int64_t late_ms)
{
    if (!d->started || d->draining || d->stopping)
        return false;
    return (has_slot(d) && window_has_next(d->window)) ||
           next_turn_ms(d) < clock_steady_ms() - late_ms;
}

const struct dispatch_stats *dispatch_get_stats(struct dispatch *d)
{
    d->stats.waiting = window_waiting(d->window);
    d->stats.endpoint = dispatch_endpoint(d);
    d->stats.key_rejected = d->key.rejected;
    d->stats.health = d->health.state;
    return &d->stats;
}

/* --- Life --- */

int dispatch_create(struct dispatch **ret, uv_loop_t *loop, struct queue *queue,
                    const struct dispatch_host *host)
{
    struct dispatch *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    d->loop = loop;
    d->queue = queue;
    d->host = *host;
    TAILQ_INIT(&d->in_flight);
    int r = window_create(&d->window, queue, on_expired, d);
    if (r == 0)
        r = http_create(&d->http, loop, attempt_answered, d);
    if (r < 0) {
        window_destroy(d->window);
        free(d);
        return r;
    }
    (void) uv_timer_init(loop, &d->timer);
    d->timer.data = d;
    clock_watch_init(&d->clock_watch, loop, on_clock_moved, d);
    *ret = d;
    return 0;
}

int dispatch_configure(struct dispatch *d, const struct dispatch_options *options)
{
    char *base_url = strdup(options->http.base_url);
    if (base_url == NULL)
        return -ENOMEM;
    struct http_options http = options->http;
    http.max_connections = (int64_t) options->max_in_flight;
    int r = http_configure(d->http, &http);
    if (r < 0) {
        free(base_url);
        return r;
    }
    if (d->base_url != NULL && strcmp(d->base_url, base_url) != 0)
        d->base_epoch++;
    free(d->base_url);
    d->base_url = base_url;
    char name[QUEUE_NOTE_MAX];
    dispatch_route_note(d, name);
    d->route_gone = queue_note(d->queue, name) != 0;
    d->endpoint = options->endpoint;
    d->verify = options->verify;
    d->on_unauthorized = options->on_unauthorized;
    d->max_in_flight = options->max_in_flight;
    d->max_attempts = options->max_attempts;
    d->retry = options->retry;
    dispatch_pump(d);
    return 0;
}

void dispatch_start(struct dispatch *d)
{
    window_start(d->window);
    d->unclean_seq = queue_unclean_seq(d->queue);
    d->held = queue_note(d->queue, "held") != 0;
    d->started = true;
    dispatch_pump(d);
}

void dispatch_drain(struct dispatch *d, void (*drained)(void *userdata), void *userdata)
{
    d->draining = true;
    d->drained = drained;
    d->drained_userdata = userdata;
    (void) uv_timer_stop(&d->timer);
    dispatch_pump(d);
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
    d->closing = 3;
    http_stop(d->http, one_closed, d);
    clock_watch_close(&d->clock_watch, one_closed, d);
    uv_close((uv_handle_t *) &d->timer, on_timer_closed);
}

void dispatch_destroy(struct dispatch *d)
{
    if (d == NULL)
        return;
    http_destroy(d->http);
    clock_watch_finish(&d->clock_watch);
    attempt_drop_all(d);
    free(d->base_url);
    window_destroy(d->window);
    free(d);
}
