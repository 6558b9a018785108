/* The requests in memory, and finding the others. Runs on the loop thread. */
#include "dispatch/window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/u64map.h"

#define FRESH_MAX 4096 /* never tried ones in memory */
#define FRESH_LOW 1024
#define FETCH_LIMIT 2048
#define WAITING_MAX 16384 /* in memory */
#define DUE_MAX 1024      /* in memory before more are fetched */
/* What is in memory is on disk as well, so that something wakes there all the time: looking is worth
 * its price only this often. */
#define SCAN_INTERVAL_MS 100

/* A walk over pending rows by one of their times. */
struct scan {
    enum queue_order order;
    struct queue_position position; /* each one up to here is in memory or with the queue */
    bool busy;
    bool anew; /* what is being scanned has changed */
    int64_t until_ms;
    int64_t next_ms; /* on disk; INT64_MAX = nothing */
};

struct window {
    struct queue *queue;
    void (*expired)(void *userdata, struct request *req);
    void *userdata;
    bool usable; /* the database */

    struct u64map *live; /* mixed seq → struct request *, or an enum window_place of the queue's */
    struct request_list fresh, due;
    size_t n_fresh, n_due;
    bool due_turn; /* fresh and due ones take turns */
    struct heap waiting;
    size_t n_waiting; /* on disk too */

    int64_t cursor; /* seq */
    bool backlog, fetching;
    struct scan by_due, by_deadline;
};

/* --- Who is where --- */

static uint64_t live_get(const struct window *w, int64_t seq)
{
    uint64_t value = WINDOW_NOWHERE;
    (void) u64map_get(w->live, u64map_mix((uint64_t) seq), &value);
    return value;
}

static void live_put(struct window *w, int64_t seq, uint64_t value)
{
    if (u64map_put(w->live, u64map_mix((uint64_t) seq), value) < 0) {
        log_error("dispatch: out of memory");
        abort();
    }
}

static void live_remove(struct window *w, int64_t seq)
{
    u64map_remove(w->live, u64map_mix((uint64_t) seq));
}

enum window_place window_place(const struct window *w, int64_t seq)
{
    uint64_t value = live_get(w, seq);
    return value > WINDOW_RECALLED ? WINDOW_HERE : (enum window_place) value;
}

struct request *window_get(const struct window *w, int64_t seq)
{
    return (struct request *) (uintptr_t) live_get(w, seq);
}

size_t window_waiting(const struct window *w)
{
    return w->n_waiting;
}

static void become(struct window *w, struct request *req, enum request_state state)
{
    if (req->state == REQUEST_WAITING)
        w->n_waiting--;
    request_set_state(req, state);
    if (state == REQUEST_WAITING)
        w->n_waiting++;
}

/* --- The lists --- */

static int64_t wake_at_ms(const struct request *req)
{
    return req->due_at_ms < req->deadline_at_ms ? req->due_at_ms : req->deadline_at_ms;
}

static struct request *request_of(struct heap_node *node)
{
    return (struct request *) ((char *) node - offsetof(struct request, wake));
}

static void add_fresh(struct window *w, struct request *req)
{
    live_put(w, req->seq, (uint64_t) (uintptr_t) req);
    TAILQ_INSERT_TAIL(&w->fresh, req, link);
    w->n_fresh++;
}

static void add_due(struct window *w, struct request *req)
{
    if (req->state == REQUEST_WAITING)
        become(w, req, REQUEST_QUEUED);
    live_put(w, req->seq, (uint64_t) (uintptr_t) req);
    TAILQ_INSERT_TAIL(&w->due, req, link);
    w->n_due++;
}

static void add_waiting(struct window *w, struct request *req)
{
    live_put(w, req->seq, (uint64_t) (uintptr_t) req);
    if (heap_push(&w->waiting, &req->wake, wake_at_ms(req)) < 0) {
        log_error("dispatch: out of memory");
        abort();
    }
}

static void unlist(struct window *w, struct request *req)
{
    if (req->state == REQUEST_WAITING) {
        heap_remove(&w->waiting, &req->wake);
    } else if (req->due_at_ms != 0) {
        TAILQ_REMOVE(&w->due, req, link);
        w->n_due--;
    } else {
        TAILQ_REMOVE(&w->fresh, req, link);
        w->n_fresh--;
    }
}

/* --- Handing out --- */

static struct request *first(struct window *w)
{
    bool from_due = w->n_due > 0 && (w->due_turn || w->n_fresh == 0);
    w->due_turn = !w->due_turn;
    struct request *req = from_due ? TAILQ_FIRST(&w->due) : TAILQ_FIRST(&w->fresh);
    if (req != NULL)
        unlist(w, req);
    return req;
}

struct request *window_next(struct window *w)
{
    struct request *req = first(w);
    if (req != NULL)
        become(w, req, REQUEST_IN_FLIGHT);
    return req;
}

bool window_has_next(const struct window *w)
{
    return w->n_fresh > 0 || w->n_due > 0;
}

void window_hand_over(struct window *w, struct request *req, enum window_place place)
{
    become(w, req, place == WINDOW_ENDING ? REQUEST_DONE : REQUEST_WAITING);
    live_put(w, req->seq, place);
}

struct request *window_take(struct window *w, int64_t seq)
{
    struct request *req = window_get(w, seq);
    unlist(w, req);
    return req;
}

void window_recall(struct window *w, int64_t seq)
{
    live_put(w, seq, WINDOW_RECALLED);
}

const char *window_peek(const struct window *w)
{
    const struct request *req = TAILQ_FIRST(&w->fresh);
    if (req == NULL)
        req = TAILQ_FIRST(&w->due);
    struct heap_node *node = heap_min(&w->waiting);
    if (req == NULL && node != NULL)
        req = request_of(node);
    return req != NULL ? req->job_id : NULL;
}

/* --- Finding the others --- */

static void scan_note(struct scan *s, int64_t at_ms)
{
    if (at_ms < s->next_ms)
        s->next_ms = at_ms;
}

static void scan_anew(struct scan *s)
{
    s->anew = s->busy; /* what is under way does not count */
    s->position = (struct queue_position){ .at_ms = 0 };
    s->until_ms = 0;
    s->next_ms = 0;
}

static int64_t scan_at_ms(const struct window *w, const struct scan *s)
{
    bool full = s->order == QUEUE_BY_DUE && w->n_due >= DUE_MAX;
    if (!w->usable || s->busy || s->next_ms == INT64_MAX || full)
        return INT64_MAX;
    int64_t soonest_ms = s->until_ms + SCAN_INTERVAL_MS;
    return s->next_ms > soonest_ms ? s->next_ms : soonest_ms;
}

static void scan_on(struct window *w, struct scan *s, int64_t now_ms)
{
    if (scan_at_ms(w, s) > now_ms)
        return;
    s->busy = true;
    s->until_ms = now_ms;
    queue_fetch(w->queue, s->order, s->position, now_ms, DUE_MAX);
}

/* The last place that was read, or NULL when there was none. */
static void scan_returned(struct scan *s, const struct queue_position *last, bool more,
                          int64_t next_at_ms)
{
    s->busy = false;
    if (s->anew) {
        s->anew = false;
        return;
    }
    if (more) {
        s->position = *last;
        s->next_ms = last->at_ms; /* go on from there, at once */
        s->until_ms = 0;
    } else {
        s->position = (struct queue_position){ .at_ms = s->until_ms, .seq = INT64_MAX };
        s->next_ms = next_at_ms;
    }
}

static void fetched_fresh(struct window *w, struct request *req)
{
    w->cursor = req->seq;
    if (live_get(w, req->seq) == WINDOW_NOWHERE)
        add_fresh(w, req);
    else
        request_destroy(req);
}

/* It waits on disk. */
static void fetched_due(struct window *w, struct request *req)
{
    if (live_get(w, req->seq) == WINDOW_NOWHERE)
        add_due(w, req);
    else
        request_destroy(req);
}

static void fetched_expired(struct window *w, struct request *req)
{
    enum window_place place = window_place(w, req->seq);
    if (place == WINDOW_NOWHERE) {
        w->expired(w->userdata, req);
        return;
    }
    struct request *ours = place == WINDOW_HERE ? window_get(w, req->seq) : NULL;
    request_destroy(req);
    if (ours == NULL || ours->state == REQUEST_IN_FLIGHT)
        return;
    unlist(w, ours);
    w->expired(w->userdata, ours);
}

void window_fetched(struct window *w, enum queue_order order, int status, struct request **requests,
                    size_t n, int64_t next_at_ms)
{
    struct scan *s = order == QUEUE_BY_DUE ? &w->by_due : &w->by_deadline;
    if (status < 0) {
        w->usable = false; /* until window_storage() says otherwise, and has all fetched anew */
        if (order == QUEUE_FRESH)
            w->fetching = false;
        else
            s->busy = s->anew = false;
        return;
    }
    struct queue_position last = { .at_ms = 0 };
    for (size_t i = 0; i < n; i++) {
        struct request *req = requests[i];
        last = (struct queue_position){ .seq = req->seq };
        last.at_ms = order == QUEUE_BY_DUE ? req->due_at_ms : req->deadline_at_ms;
        switch (order) {
        case QUEUE_FRESH:
            fetched_fresh(w, req);
            break;
        case QUEUE_BY_DUE:
            fetched_due(w, req);
            break;
        case QUEUE_BY_DEADLINE:
            fetched_expired(w, req);
            break;
        }
    }
    if (order == QUEUE_FRESH) {
        w->fetching = false;
        w->backlog = n == FETCH_LIMIT;
    } else {
        scan_returned(s, &last, n == DUE_MAX, next_at_ms);
    }
}

/* --- The queue's news --- */

void window_accepted(struct window *w, struct request *req)
{
    bool fits = !w->backlog && !w->fetching && w->n_fresh < FRESH_MAX;
    /* Its deadline may have been looked for already. */
    if (clock_steady_ms() >= req->deadline_at_ms) {
        w->expired(w->userdata, req);
        return;
    }
    scan_note(&w->by_deadline, req->deadline_at_ms);
    if (req->follows) {
        request_destroy(req);
    } else if (fits) {
        w->cursor = req->seq;
        add_fresh(w, req);
    } else {
        w->backlog = true;
        request_destroy(req);
    }
}

void window_returned(struct window *w, struct request *req)
{
    if (clock_steady_ms() >= req->deadline_at_ms) {
        w->expired(w->userdata, req);
        return;
    }
    int64_t scanned_ms = w->by_due.busy ? w->by_due.until_ms : w->by_due.position.at_ms;
    if (w->waiting.len >= WAITING_MAX && req->due_at_ms > scanned_ms) {
        scan_note(&w->by_due, req->due_at_ms);
        live_remove(w, req->seq);
        request_destroy(req);
    } else {
        add_waiting(w, req);
    }
}

void window_promoted(struct window *w, struct request *req)
{
    /* It was found to be past its deadline already. */
    if (live_get(w, req->seq) != WINDOW_NOWHERE) {
        request_destroy(req);
    } else if (req->state == REQUEST_WAITING) {
        w->n_waiting++;
        add_waiting(w, req);
    } else {
        add_fresh(w, req);
    }
}

void window_ended(struct window *w, int64_t seq)
{
    if (live_get(w, seq) == WINDOW_ENDING)
        live_remove(w, seq);
    if (w->by_deadline.next_ms == INT64_MAX || w->by_deadline.busy || u64map_count(w->live) > 0)
        return;
    struct queue_counts counts;
    queue_get_counts(w->queue, &counts);
    if (counts.pending == 0) /* no deadline is worth waking up for */
        w->by_deadline.next_ms = INT64_MAX;
}

void window_storage(struct window *w, bool usable)
{
    bool again = usable && !w->usable;
    w->usable = usable;
    if (!usable)
        w->backlog = true; /* what is accepted from now on does not overtake what is on disk */
    if (!again)
        return;
    /* A commit that was reported as failed may have become durable. */
    w->backlog = true;
    scan_anew(&w->by_due);
    scan_anew(&w->by_deadline);
}

/* --- Time --- */

void window_flush(struct window *w)
{
    struct heap_node *node;
    while ((node = heap_min(&w->waiting)) != NULL) {
        heap_remove(&w->waiting, node);
        add_due(w, request_of(node));
    }
    /* On disk they are due at a time that may have been looked at already. */
    scan_anew(&w->by_due);
}

void window_turn(struct window *w, int64_t now_ms)
{
    struct heap_node *node;
    while ((node = heap_min(&w->waiting)) != NULL && node->key <= now_ms) {
        struct request *req = request_of(node);
        heap_remove(&w->waiting, node);
        if (now_ms >= req->deadline_at_ms)
            w->expired(w->userdata, req);
        else
            add_due(w, req);
    }
    if (w->usable && w->backlog && !w->fetching && w->n_fresh < FRESH_LOW) {
        w->fetching = true;
        struct queue_position after = { .seq = w->cursor };
        queue_fetch(w->queue, QUEUE_FRESH, after, INT64_MAX, FETCH_LIMIT);
    }
    scan_on(w, &w->by_due, now_ms);
    scan_on(w, &w->by_deadline, now_ms);
}

int64_t window_next_ms(const struct window *w)
{
    const struct heap_node *node = heap_min(&w->waiting);
    int64_t at_ms = node != NULL ? node->key : INT64_MAX;
    int64_t due_ms = scan_at_ms(w, &w->by_due);
    int64_t deadline_ms = scan_at_ms(w, &w->by_deadline);
    if (due_ms < at_ms)
        at_ms = due_ms;
    return deadline_ms < at_ms ? deadline_ms : at_ms;
}

/* --- Life --- */

int window_create(struct window **ret, struct queue *queue,
                  void (*expired)(void *userdata, struct request *req), void *userdata)
{
    struct window *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return -ENOMEM;
    *w = (struct window){
        .queue = queue,
        .expired = expired,
        .userdata = userdata,
        .usable = true,
        .live = u64map_create(),
        .by_due = { .order = QUEUE_BY_DUE, .next_ms = INT64_MAX },
        .by_deadline = { .order = QUEUE_BY_DEADLINE, .next_ms = INT64_MAX },
    };
    TAILQ_INIT(&w->fresh);
    TAILQ_INIT(&w->due);
    heap_init(&w->waiting);
    if (w->live == NULL) {
        free(w);
        return -ENOMEM;
    }
    *ret = w;
    return 0;
}

void window_start(struct window *w)
{
    struct queue_counts counts;
    queue_get_counts(w->queue, &counts);
    w->n_waiting = (size_t) counts.waiting;
    w->cursor = queue_first_seq(w->queue);
    w->backlog = counts.pending > 0;
    if (counts.pending > 0) {
        scan_anew(&w->by_due);
        scan_anew(&w->by_deadline);
    }
}

void window_destroy(struct window *w)
{
    if (w == NULL)
        return;
    struct request *req;
    while ((req = first(w)) != NULL)
        request_destroy(req);
    struct heap_node *node;
    while ((node = heap_min(&w->waiting)) != NULL) {
        heap_remove(&w->waiting, node);
        request_destroy(request_of(node));
    }
    heap_finish(&w->waiting);
    u64map_destroy(w->live);
    free(w);
}
