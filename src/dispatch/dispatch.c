/* What is sent when. Runs on the loop thread.
 *
 * How pending requests are found, so that none is ever forgotten:
 * - never tried ones by seq: every one up to `cursor` is or was in memory, later ones are fetched
 *   when the window runs low (`backlog` says that there are some);
 * - all others by the time at which they wake (due time or deadline): every pending request that
 *   wakes up to `scanned` is in memory or with the queue, later ones are fetched when their time
 *   comes. A request may leave memory only while it wakes after that.
 *
 * `live` has every request that is in memory or handed over to the queue, so that a fetched copy of
 * one is recognised. */
#include "dispatch/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/u64map.h"
#include "policy/endpoint.h"
#include "policy/health.h"

#define WINDOW_MAX 4096 /* never tried ones in memory */
#define WINDOW_LOW 1024
#define FETCH_LIMIT 2048
#define WAITING_MAX 16384 /* retries in memory */
#define DUE_MAX 1024      /* due ones in memory before more are fetched */
/* Retries in memory are on disk as well, so that something wakes there all the time: looking is
 * worth its price only this often. */
#define SCAN_INTERVAL_MS 100
/* In `live`: it is with the queue and not ours to touch; to be settled, or to come back and wait, or
 * to come back and be withdrawn. */
#define HANDED_OVER ((uint64_t) 1)
#define HANDED_TO_WAIT ((uint64_t) 2)
#define HANDED_TO_WITHDRAW ((uint64_t) 3)
#define HANDED_MAX HANDED_TO_WITHDRAW

struct dispatch {
    uv_loop_t *loop;
    struct queue *queue;
    struct http *http;
    uv_timer_t timer; /* the one timer: whatever wakes next */

    enum endpoint endpoint;
    size_t max_in_flight;
    unsigned max_attempts;
    struct retry_policy retry;

    struct u64map *live; /* mixed seq → struct request * or HANDED_OVER */
    struct request_list fresh, due, in_flight;
    size_t n_fresh, n_due;
    bool due_turn; /* fresh and due ones take turns */
    struct heap waiting;

    int64_t cursor; /* seq */
    bool backlog, fetching;

    struct {
        int64_t ms, seq;
    } scanned;
    bool scanning;
    bool rescan; /* what is being scanned has changed */
    int64_t scan_until_ms;
    int64_t next_wake_ms; /* on disk; INT64_MAX = nothing */

    bool started, usable, held, draining, stopping;
    void (*drained)(void *userdata);
    void *drained_userdata;
    void (*stopped)(void *userdata);
    void *stopped_userdata;
    unsigned closing;

    struct health health;
    struct dispatch_stats stats;
};

static void pump(struct dispatch *d);

/* --- The requests in memory --- */

static uint64_t live_get(const struct dispatch *d, int64_t seq)
{
    uint64_t value = 0;
    (void) u64map_get(d->live, u64map_mix((uint64_t) seq), &value);
    return value;
}

static void live_put(struct dispatch *d, int64_t seq, uint64_t value)
{
    if (u64map_put(d->live, u64map_mix((uint64_t) seq), value) < 0) {
        log_error("dispatch: out of memory");
        abort();
    }
}

static void live_remove(struct dispatch *d, int64_t seq)
{
    u64map_remove(d->live, u64map_mix((uint64_t) seq));
}

static void become(struct dispatch *d, struct request *req, enum request_state state)
{
    if (req->state == REQUEST_WAITING)
        d->stats.waiting--;
    request_set_state(req, state);
    if (state == REQUEST_WAITING)
        d->stats.waiting++;
}

static void add_fresh(struct dispatch *d, struct request *req)
{
    live_put(d, req->seq, (uint64_t) (uintptr_t) req);
    TAILQ_INSERT_TAIL(&d->fresh, req, link);
    d->n_fresh++;
}

/* A retry whose time has come. */
static void add_due(struct dispatch *d, struct request *req)
{
    if (req->state == REQUEST_WAITING)
        become(d, req, REQUEST_QUEUED);
    live_put(d, req->seq, (uint64_t) (uintptr_t) req);
    TAILQ_INSERT_TAIL(&d->due, req, link);
    d->n_due++;
}

static void add_waiting(struct dispatch *d, struct request *req)
{
    live_put(d, req->seq, (uint64_t) (uintptr_t) req);
    if (heap_push(&d->waiting, &req->wake, queue_wake_at_ms(req)) < 0) {
        log_error("dispatch: out of memory");
        abort();
    }
}

static void note_wake(struct dispatch *d, int64_t at_ms)
{
    if (at_ms < d->next_wake_ms)
        d->next_wake_ms = at_ms;
}

/* Takes it out of whatever list it is in. Not for one that is in flight. */
static void unlist(struct dispatch *d, struct request *req)
{
    if (req->state == REQUEST_WAITING) {
        heap_remove(&d->waiting, &req->wake);
    } else if (req->due_at_ms != 0) {
        TAILQ_REMOVE(&d->due, req, link);
        d->n_due--;
    } else {
        TAILQ_REMOVE(&d->fresh, req, link);
        d->n_fresh--;
    }
}

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
    become(d, req, REQUEST_DONE);
    live_put(d, req->seq, HANDED_OVER);
    queue_settle(d->queue, req, whole_chain);
}

static void expire(struct dispatch *d, struct request *req)
{
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
    become(d, req, REQUEST_WAITING);
    live_put(d, req->seq, HANDED_TO_WAIT);
    queue_retry(d->queue, req);
}

static void keep_judgement(struct dispatch *d, struct request *req, struct judgement *j)
{
    if (j->http_status != 0)
        req->http_status = j->http_status;
    if (j->counts) {
        req->attempts++;
        req->chain_attempts++;
        req->endpoint = req->trying;
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

    become(d, req, REQUEST_IN_FLIGHT);
    req->trying = d->endpoint;
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

static struct request *take_next(struct dispatch *d)
{
    bool from_due = d->n_due > 0 && (d->due_turn || d->n_fresh == 0);
    d->due_turn = !d->due_turn;
    struct request *req = from_due ? TAILQ_FIRST(&d->due) : TAILQ_FIRST(&d->fresh);
    if (req != NULL)
        unlist(d, req);
    return req;
}

static void send_ready(struct dispatch *d)
{
    while (!d->held && d->stats.in_flight < d->max_in_flight) {
        struct request *req = take_next(d);
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

static void wake_waiting(struct dispatch *d, int64_t now_ms)
{
    struct heap_node *node;
    while ((node = heap_min(&d->waiting)) != NULL && node->key <= now_ms) {
        struct request *req = (struct request *) ((char *) node - offsetof(struct request, wake));
        heap_remove(&d->waiting, node);
        if (now_ms >= req->deadline_at_ms)
            expire(d, req);
        else
            add_due(d, req);
    }
}

static int64_t next_scan_ms(const struct dispatch *d)
{
    if (!d->usable || d->scanning || d->n_due >= DUE_MAX)
        return INT64_MAX;
    int64_t soonest_ms = d->scan_until_ms + SCAN_INTERVAL_MS;
    return d->next_wake_ms > soonest_ms ? d->next_wake_ms : soonest_ms;
}

static void fetch_more(struct dispatch *d, int64_t now_ms)
{
    if (d->usable && d->backlog && !d->fetching && d->n_fresh < WINDOW_LOW) {
        d->fetching = true;
        queue_fetch(d->queue, d->cursor, FETCH_LIMIT);
    }
    if (d->next_wake_ms != INT64_MAX && next_scan_ms(d) <= now_ms) {
        d->scanning = true;
        d->scan_until_ms = now_ms;
        queue_fetch_due(d->queue, d->scanned.ms, d->scanned.seq, now_ms, DUE_MAX);
    }
}

static void on_timer(uv_timer_t *timer);

static void arm_timer(struct dispatch *d, int64_t now_ms)
{
    int64_t at_ms = INT64_MAX;
    const struct heap_node *node = heap_min(&d->waiting);
    if (node != NULL)
        at_ms = node->key;
    if (d->next_wake_ms != INT64_MAX && next_scan_ms(d) < at_ms)
        at_ms = next_scan_ms(d);
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
    wake_waiting(d, now_ms);
    send_ready(d);
    fetch_more(d, now_ms);
    arm_timer(d, now_ms);
}

static void on_timer(uv_timer_t *timer)
{
    pump(timer->data);
}

/* --- The queue's news --- */

void dispatch_accepted(struct dispatch *d, struct request *req)
{
    bool fits = !d->backlog && !d->fetching && d->n_fresh < WINDOW_MAX;
    note_wake(d, queue_wake_at_ms(req));
    if (req->follows && clock_steady_ms() >= req->deadline_at_ms) {
        expire(d, req); /* its time may have been looked at already */
    } else if (req->follows) {
        request_destroy(req);
    } else if (fits) {
        d->cursor = req->seq;
        add_fresh(d, req);
    } else {
        d->backlog = true;
        request_destroy(req);
    }
    pump(d);
}

void dispatch_retried(struct dispatch *d, struct request *req)
{
    if (live_get(d, req->seq) == HANDED_TO_WITHDRAW) {
        withdraw(d, req);
        return;
    }
    int64_t wake_at_ms = queue_wake_at_ms(req);
    int64_t scanned_ms = d->scanning ? d->scan_until_ms : d->scanned.ms;
    if (d->waiting.len >= WAITING_MAX && wake_at_ms > scanned_ms) {
        note_wake(d, wake_at_ms);
        live_remove(d, req->seq);
        request_destroy(req);
    } else {
        add_waiting(d, req);
    }
    pump(d);
}

void dispatch_promoted(struct dispatch *d, struct request *req)
{
    /* It was found to be past its deadline already. */
    if (live_get(d, req->seq) != 0) {
        request_destroy(req);
        return;
    }
    if (req->state == REQUEST_WAITING) {
        d->stats.waiting++;
        add_waiting(d, req);
    } else {
        add_fresh(d, req);
    }
    pump(d);
}

void dispatch_settled(struct dispatch *d, int64_t seq)
{
    if (live_get(d, seq) == HANDED_OVER)
        live_remove(d, seq);
    struct queue_counts counts;
    queue_get_counts(d->queue, &counts);
    /* Nothing is pending: no deadline is worth waking up for. */
    if (counts.pending == 0 && u64map_count(d->live) == 0 && !d->scanning &&
        d->next_wake_ms != INT64_MAX) {
        d->next_wake_ms = INT64_MAX;
        pump(d);
    }
}

void dispatch_fetched(struct dispatch *d, int status, struct request **requests, size_t n)
{
    d->fetching = false;
    if (status < 0) {
        d->backlog = true;
        d->usable = false; /* until dispatch_storage() says otherwise */
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct request *req = requests[i];
        d->cursor = req->seq;
        if (live_get(d, req->seq) != 0)
            request_destroy(req);
        else
            add_fresh(d, req);
    }
    d->backlog = n == FETCH_LIMIT;
    pump(d);
}

static void scan_anew(struct dispatch *d)
{
    d->rescan = false;
    d->scanned.ms = 0;
    d->scanned.seq = 0;
    d->scan_until_ms = 0;
    d->next_wake_ms = 0;
}

/* One that wakes now, and that nobody has in memory. */
static void wake_fetched(struct dispatch *d, struct request *req, int64_t now_ms)
{
    /* A follower wakes by its deadline only. */
    if (now_ms >= req->deadline_at_ms)
        expire(d, req);
    else
        add_due(d, req);
}

void dispatch_fetched_due(struct dispatch *d, int status, struct request **requests, size_t n,
                          int64_t next_wake_at_ms)
{
    d->scanning = false;
    if (status < 0) {
        d->usable = false;
        return;
    }
    int64_t now_ms = clock_steady_ms();
    for (size_t i = 0; i < n; i++) {
        struct request *req = requests[i];
        d->scanned.ms = queue_wake_at_ms(req);
        d->scanned.seq = req->seq;
        uint64_t live = live_get(d, req->seq);
        if (live == 0) {
            wake_fetched(d, req, now_ms);
            continue;
        }
        request_destroy(req);
        struct request *ours = live > HANDED_MAX ? (struct request *) (uintptr_t) live : NULL;
        if (ours != NULL && ours->state != REQUEST_IN_FLIGHT && now_ms >= ours->deadline_at_ms) {
            unlist(d, ours);
            expire(d, ours);
        }
    }
    if (d->rescan) {
        scan_anew(d);
    } else if (n == DUE_MAX) {
        d->next_wake_ms = d->scanned.ms; /* go on from there, at once */
        d->scan_until_ms = 0;
    } else {
        d->scanned.ms = d->scan_until_ms;
        d->scanned.seq = INT64_MAX;
        d->next_wake_ms = next_wake_at_ms;
    }
    pump(d);
}

void dispatch_storage(struct dispatch *d, bool usable)
{
    d->usable = usable;
    if (!usable) {
        d->backlog = true; /* what is accepted from now on does not overtake it */
        return;
    }
    /* A commit that was reported as failed may have become durable. */
    d->backlog = true;
    note_wake(d, clock_steady_ms());
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
    struct heap_node *node;
    while ((node = heap_min(&d->waiting)) != NULL) {
        heap_remove(&d->waiting, node);
        add_due(d, (struct request *) ((char *) node - offsetof(struct request, wake)));
    }
    /* On disk they wake at a time that may have been looked at already. */
    d->rescan = true;
    if (!d->scanning)
        scan_anew(d);
    pump(d);
}

bool dispatch_withdraw(struct dispatch *d, struct request *req)
{
    uint64_t live = live_get(d, req->seq);
    if (live == 0) {
        /* A follower shows its leader's state, which counts once. */
        if (req->state == REQUEST_WAITING && req->follows)
            request_set_state(req, REQUEST_QUEUED);
        withdraw(d, req);
        return true;
    }
    bool withdrawn = live == HANDED_TO_WAIT;
    if (withdrawn)
        live_put(d, req->seq, HANDED_TO_WITHDRAW);
    struct request *ours = live > HANDED_MAX ? (struct request *) (uintptr_t) live : NULL;
    if (ours != NULL && ours->state != REQUEST_IN_FLIGHT) {
        unlist(d, ours);
        withdraw(d, ours);
        withdrawn = true;
    }
    request_destroy(req);
    return withdrawn;
}

int dispatch_leader_state(const struct dispatch *d, int64_t seq)
{
    uint64_t live = live_get(d, seq);
    if (live <= HANDED_MAX)
        return -1;
    return (int) ((struct request *) (uintptr_t) live)->state;
}

const struct dispatch_stats *dispatch_get_stats(const struct dispatch *d)
{
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
    d->usable = true;
    TAILQ_INIT(&d->fresh);
    TAILQ_INIT(&d->due);
    TAILQ_INIT(&d->in_flight);
    heap_init(&d->waiting);
    d->live = u64map_create();
    int r = d->live != NULL ? http_create(&d->http, loop, on_reply, d) : -ENOMEM;
    if (r < 0) {
        u64map_destroy(d->live);
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
    struct queue_counts counts;
    queue_get_counts(d->queue, &counts);
    d->stats.waiting = (size_t) counts.waiting;
    d->cursor = queue_first_seq(d->queue);
    d->backlog = counts.pending > 0;
    d->next_wake_ms = counts.pending > 0 ? 0 : INT64_MAX;
    d->held = queue_held_at_start(d->queue);
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
    while ((req = take_next(d)) != NULL)
        request_destroy(req);
    while ((req = TAILQ_FIRST(&d->in_flight)) != NULL) {
        TAILQ_REMOVE(&d->in_flight, req, link);
        request_destroy(req);
    }
    struct heap_node *node;
    while ((node = heap_min(&d->waiting)) != NULL) {
        heap_remove(&d->waiting, node);
        request_destroy((struct request *) ((char *) node - offsetof(struct request, wake)));
    }
    heap_finish(&d->waiting);
    u64map_destroy(d->live);
    free(d);
}
