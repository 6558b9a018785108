/* One attempt to cancel a job: the exchange itself, the same on the other route when the first may be
 * gone, and the question for the job's status when the answer leaves it open. Then the request ends,
 * or goes back to the queue to wait. All that takes one of the slots. Loop thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "dispatch/dispatch_private.h"
#include "policy/deprecation.h"
#include "policy/verify.h"

#define DAY_MS 86400000

enum step {
    STEP_CANCEL,
    STEP_OTHER_ROUTE, /* the same, after `first` was answered */
    STEP_STATUS,
};

struct attempt {
    struct request *req;
    enum step step;
    enum endpoint endpoint;
    unsigned key_epoch;
    unsigned base_epoch;

    struct judgement first; /* STEP_OTHER_ROUTE */

    /* What comes of it when the job's status decides nothing. */
    enum verdict verdict;
    enum outcome outcome;
    int64_t retry_after_ms;
    TAILQ_ENTRY(attempt) link;
};

/* --- Its end --- */

static struct request *finish(struct dispatch *d, struct attempt *a)
{
    struct request *req = a->req;
    TAILQ_REMOVE(&d->in_flight, a, link);
    d->stats.in_flight--;
    judgement_finish(&a->first);
    free(a);
    return req;
}

static int64_t draw_delay_ms(const struct dispatch *d, unsigned attempt, int64_t retry_after_ms)
{
    uint64_t random;
    arc4random_buf(&random, sizeof(random));
    return retry_delay_ms(&d->retry, attempt, random, retry_after_ms);
}

static void wait_until(struct dispatch *d, struct attempt *a, int64_t due_at_ms)
{
    struct request *req = finish(d, a);
    req->due_at_ms = due_at_ms;
    if (clock_steady_ms() >= req->deadline_at_ms) {
        dispatch_expire(d, req);
        return;
    }
    window_hand_over(d->window, req, WINDOW_RETURNING);
    queue_retry(d->queue, req);
}

/* The question for the job's status has to wait: it is asked as soon as sending goes on. */
static void ask_later(struct dispatch *d, struct attempt *a)
{
    a->req->trail.ask = true;
    a->req->trail.final = a->verdict == VERDICT_DONE;
    wait_until(d, a, clock_steady_ms());
}

/* Goes on where it was as soon as sending does. */
static void wait_for_release(struct dispatch *d, struct attempt *a)
{
    wait_until(d, a, clock_steady_ms());
}

static void try_again(struct dispatch *d, struct attempt *a)
{
    struct request *req = a->req;
    unsigned failures = req->connect_failures > 0 ? req->connect_failures : req->attempts;
    int64_t due_at_ms = clock_steady_ms() + draw_delay_ms(d, failures, a->retry_after_ms);
    if (req->attempts >= d->max_attempts && !req->trail.believed) {
        /* It ends alone: the next in the chain goes on when this would have been due. */
        req->due_at_ms = due_at_ms;
        dispatch_settle(d, finish(d, a), OUTCOME_FAILED, false);
        return;
    }
    wait_until(d, a, due_at_ms);
}

static void conclude(struct dispatch *d, struct attempt *a)
{
    enum outcome outcome = a->outcome;
    switch (a->verdict) {
    case VERDICT_DONE:
        dispatch_settle(d, finish(d, a), outcome, true);
        break;
    case VERDICT_RETRY:
        try_again(d, a);
        break;
    }
}

/* --- Exchanges --- */

static enum http_method method_of(const struct attempt *a)
{
    if (a->step == STEP_STATUS)
        return HTTP_GET;
    return a->endpoint == ENDPOINT_JOB ? HTTP_DELETE : HTTP_POST;
}

static void answered(struct dispatch *d, struct attempt *a, const struct reply *reply);

static void send_exchange(struct dispatch *d, struct attempt *a)
{
    char path[ENDPOINT_PATH_MAX];
    endpoint_path(a->step == STEP_STATUS ? ENDPOINT_JOB : a->endpoint, a->req->job_id, path);
    a->key_epoch = d->key.epoch;
    a->base_epoch = d->base_epoch;
    if (http_send(d->http, method_of(a), path, a) == 0)
        return;
    static const struct reply failed = {
        .transport = TRANSPORT_FAILED,
        .trouble = "out of memory for the request",
        .body = "",
        .api_key = "",
    };
    answered(d, a, &failed);
}

static void ask_status(struct dispatch *d, struct attempt *a)
{
    a->step = STEP_STATUS;
    d->stats.verifications++;
    send_exchange(d, a);
}

/* What an earlier attempt left open, under the settings of now. */
static void take_up_question(struct dispatch *d, struct attempt *a)
{
    struct request *req = a->req;
    bool wanted = d->verify != API_VERIFY_NEVER;
    a->verdict = VERDICT_RETRY;
    if (req->trail.believed && d->verify != API_VERIFY_ALWAYS) {
        a->verdict = VERDICT_DONE;
        a->outcome = OUTCOME_CANCELLED;
        wanted = false;
    } else if (!req->trail.believed && req->trail.final) {
        a->verdict = verdict_of_status(req->http_status, &a->outcome);
    }
    if (wanted) {
        ask_status(d, a);
    } else {
        req->trail.ask = false;
        conclude(d, a);
    }
}

void attempt_start(struct dispatch *d, struct request *req)
{
    struct attempt *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        log_error("dispatch: out of memory");
        abort();
    }
    a->req = req;
    a->endpoint = dispatch_endpoint(d);
    TAILQ_INSERT_TAIL(&d->in_flight, a, link);
    d->stats.in_flight++;

    if (req->chain <= d->unclean_seq)
        req->trail.doubtful = true;
    if (req->trail.believed || req->trail.ask) {
        take_up_question(d, a);
        return;
    }
    if (req->chain_attempts > 0 || req->connect_failures > 0)
        d->stats.retries++;
    send_exchange(d, a);
}

/* --- The answer to a cancel request --- */

static void count_reply(struct dispatch *d, const struct reply *reply)
{
    if (reply->transport != TRANSPORT_OK)
        d->stats.transport_failures++;
    else if (reply->status > 0 && reply->status < DISPATCH_STATUS_MAX)
        d->stats.replies[reply->status]++;
}

static void watch_health(struct dispatch *d, const struct reply *reply, const struct judgement *j)
{
    if (!health_note(&d->health, reply))
        return;
    switch (d->health.state) {
    case HEALTH_GOOD:
        log_info("dispatch: the API answers again");
        break;
    case HEALTH_UNREACHABLE:
        log_warning("dispatch: the API can't be reached, requests are tried again: %s: %s",
                    j->error_code != NULL ? j->error_code : "?",
                    j->error_message != NULL ? j->error_message : "?");
        break;
    case HEALTH_FAILING:
        log_warning("dispatch: the API answers every request with an error of its own, they are "
                    "tried again: HTTP status %d: %s",
                    reply->status, j->error_message != NULL ? j->error_message : "no message");
        break;
    }
}

static void tell_deprecation(struct dispatch *d, const struct attempt *a, const struct reply *reply)
{
    int64_t now_ms = clock_steady_ms();
    if ((reply->deprecation == NULL && reply->sunset == NULL) ||
        (d->deprecation_told_ms != 0 && now_ms - d->deprecation_told_ms < DAY_MS))
        return;
    d->deprecation_told_ms = now_ms;
    char text[DEPRECATION_TEXT_MAX];
    deprecation_describe(reply->deprecation, reply->sunset, reply->api_key, text);
    log_warning("dispatch: the API says that %s is deprecated%s",
                a->endpoint == ENDPOINT_JOB ? "DELETE /job" : "POST /cancel", text);
}

/* The route is gone for good: remembered for this base URL. */
static void switch_route(struct dispatch *d, const struct attempt *a)
{
    if (d->route_gone)
        return;
    d->route_gone = true;
    char name[QUEUE_NOTE_MAX];
    dispatch_route_note(d, name);
    queue_set_note(d->queue, name, 1, NULL, NULL);
    log_warning("dispatch: POST /cancel is gone at %s (HTTP status %d); DELETE /job is used from "
                "now on",
                d->base_url, a->first.http_status);
}

static void keep_judgement(struct dispatch *d, struct attempt *a, struct judgement *j)
{
    struct request *req = a->req;
    if (j->http_status != 0)
        req->http_status = j->http_status;
    if (j->counts) {
        req->attempts++;
        req->chain_attempts++;
        req->endpoint = a->endpoint;
        req->connect_failures = 0;
        d->stats.attempts++;
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
    log_debug("dispatch: %s: %s: %s", req->job_id, req->error_code,
              req->error_message != NULL ? req->error_message : "");
}

/* The base URL was changed since it was sent: the old one's key or routes are no matter any more. */
static bool is_stale(const struct dispatch *d, const struct attempt *a, const struct judgement *j)
{
    bool about_server =
        j->kind == REPLY_REFUSED &&
        (j->http_status == 401 || (d->endpoint == API_ENDPOINT_AUTO && endpoint_may_be_gone(j)));
    return a->base_epoch != d->base_epoch && about_server;
}

/* True when it goes on. */
static bool decide_route(struct dispatch *d, struct attempt *a, struct judgement *j)
{
    if (a->step == STEP_CANCEL) {
        bool other = d->endpoint == API_ENDPOINT_AUTO && a->endpoint == ENDPOINT_CANCEL &&
                     endpoint_may_be_gone(j);
        if (!other)
            return false;
        a->first = *j;
        *j = (struct judgement){ .verdict = VERDICT_RETRY };
        a->step = STEP_OTHER_ROUTE;
        a->endpoint = ENDPOINT_JOB;
        send_exchange(d, a);
        return true;
    }
    switch (endpoint_second_answer(j)) {
    case ENDPOINT_GONE:
        if (a->base_epoch == d->base_epoch)
            switch_route(d, a);
        break;
    case ENDPOINT_FAILED:
        j->counts = true; /* the first exchange went out */
        if (j->http_status == 0)
            j->http_status = a->first.http_status;
        break;
    case ENDPOINT_STANDS:
        judgement_finish(j);
        *j = a->first;
        a->first = (struct judgement){ .verdict = VERDICT_RETRY };
        a->endpoint = ENDPOINT_CANCEL;
        break;
    }
    return false;
}

static void cancel_answered(struct dispatch *d, struct attempt *a, const struct reply *reply)
{
    struct request *req = a->req;
    struct judgement j = { .verdict = VERDICT_RETRY };
    if (verdict_judge(reply, req->job_id, &j) < 0)
        log_warning("dispatch: out of memory for a reply; it does not count");
    if (reply->resent)
        req->trail.doubtful = true; /* the first one may have taken effect */
    count_reply(d, reply);
    watch_health(d, reply, &j);
    tell_deprecation(d, a, reply);
    bool stale = is_stale(d, a, &j);
    if (!stale && decide_route(d, a, &j))
        return;

    bool unauthorized = j.kind == REPLY_REFUSED && j.http_status == 401;
    if (unauthorized && !stale)
        key_refused(d, a->key_epoch, j.error_code, j.error_message);
    else if (reply->transport == TRANSPORT_OK && !unauthorized)
        key_gate_answered(&d->key, a->key_epoch, true);
    bool stays = stale || (unauthorized && d->on_unauthorized == API_UNAUTHORIZED_HOLD);
    j.counts = j.counts && !stays;
    if (!j.counts && !stays)
        req->connect_failures++;
    keep_judgement(d, a, &j);
    a->verdict = j.verdict;
    a->outcome = j.outcome;
    a->retry_after_ms = reply->retry_after_ms;

    bool last = req->attempts >= d->max_attempts;
    bool wanted = !stays && verify_wanted(d->verify, &req->trail, &j, last);
    if (!stays)
        verify_note(&req->trail, &j);
    judgement_finish(&j);

    /* A believed 200 is kept before anything else is asked. */
    if (stays || (wanted && req->trail.believed)) {
        wait_for_release(d, a);
    } else if (!wanted) {
        conclude(d, a);
    } else if (dispatch_may_send(d)) {
        ask_status(d, a);
    } else {
        ask_later(d, a);
    }
}

/* --- The answer to the question for the job's status --- */

static void settle_by_status(struct dispatch *d, struct attempt *a, enum outcome outcome)
{
    struct request *req = a->req;
    char text[128];
    (void) snprintf(text, sizeof(text), "the job's status is %s",
                    req->job_status != NULL ? req->job_status : "unknown");
    if (outcome == OUTCOME_TOO_LATE || !req->trail.believed)
        dispatch_set_text(&req->message, text);
    dispatch_settle(d, finish(d, a), outcome, true);
}

/* Of the answer to such a question only trouble is judged. */
static void watch_key(struct dispatch *d, const struct attempt *a, const struct reply *reply,
                      bool unauthorized)
{
    struct judgement j = { .verdict = VERDICT_RETRY };
    bool trouble = reply->transport != TRANSPORT_OK && !reply->truncated;
    if (trouble || unauthorized)
        (void) verdict_judge(reply, a->req->job_id, &j);
    if (!reply->truncated)
        watch_health(d, reply, &j);
    if (unauthorized && a->base_epoch == d->base_epoch)
        key_refused(d, a->key_epoch, j.error_code, j.error_message);
    else if (!trouble && !unauthorized)
        key_gate_answered(&d->key, a->key_epoch, false);
    judgement_finish(&j);
}

static void status_answered(struct dispatch *d, struct attempt *a, const struct reply *reply)
{
    struct request *req = a->req;
    bool unauthorized = reply->transport == TRANSPORT_OK && reply->status == 401;
    watch_key(d, a, reply, unauthorized);
    struct finding f = { .decided = false };
    if (verify_read(reply, req->job_id, req->trail.believed, &f) < 0)
        log_warning("dispatch: out of memory for a job's status");
    if (f.job_status != NULL)
        dispatch_set_text(&req->job_status, f.job_status);
    free(f.job_status);

    if (f.decided) {
        settle_by_status(d, a, f.outcome);
    } else if (unauthorized && (req->trail.believed || a->verdict == VERDICT_DONE)) {
        ask_later(d, a); /* nothing else would tell any more */
    } else if (req->trail.believed) {
        req->connect_failures++; /* stands for the number of times that it was asked */
        a->retry_after_ms = reply->retry_after_ms;
        try_again(d, a);
    } else {
        req->trail.ask = false;
        conclude(d, a);
    }
}

static void answered(struct dispatch *d, struct attempt *a, const struct reply *reply)
{
    switch (a->step) {
    case STEP_CANCEL:
    case STEP_OTHER_ROUTE:
        cancel_answered(d, a, reply);
        break;
    case STEP_STATUS:
        status_answered(d, a, reply);
        break;
    }
}

void attempt_answered(void *userdata, void *context, const struct reply *reply)
{
    struct dispatch *d = userdata;
    if (context == NULL)
        key_checked(d, reply);
    else
        answered(d, context, reply);
    dispatch_pump(d);
}

void attempt_drop_all(struct dispatch *d)
{
    struct attempt *a = TAILQ_FIRST(&d->in_flight);
    while (a != NULL) {
        struct attempt *next = TAILQ_NEXT(a, link);
        request_destroy(finish(d, a));
        a = next;
    }
}
