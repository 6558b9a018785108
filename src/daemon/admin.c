/* What operators ask of several parts at once: hold, flush, withdraw. Loop thread. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/u64map.h"
#include "daemon/daemon_private.h"

/* An answer to a client that waits for steps of ours. */
struct admin {
    struct daemon *daemon;
    bool held; /* hold */
    queue_done_fn done;
    void *userdata;

    /* withdraw */
    struct u64map *seqs; /* what was handed over to end as withdrawn, and has not */
    int64_t n;           /* what has ended so */
    bool settled;        /* what came back from its retry is settled too */
    TAILQ_ENTRY(admin) link;
};

static struct admin *admin_create(struct daemon *d, queue_done_fn done, void *userdata)
{
    struct admin *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        done(userdata, -ENOMEM, 0);
        return NULL;
    }
    *a = (struct admin){ .daemon = d, .done = done, .userdata = userdata };
    return a;
}

static void admin_end(struct admin *a, int status, int64_t n)
{
    a->done(a->userdata, status, n);
    free(a);
}

static void on_held(void *userdata, int status, int64_t n)
{
    struct admin *a = userdata;
    struct daemon *d = a->daemon;
    if (status == 0 && d->held != a->held) {
        d->held = a->held;
        log_info("daemon: sending is %s", a->held ? "held by the operator" : "released");
        dispatch_hold(d->dispatch, a->held);
        daemon_tell_status(d);
    }
    if (status == 0 && !a->held)
        dispatch_resume(d->dispatch);
    admin_end(a, status, n);
}

void daemon_hold(void *userdata, bool held, queue_done_fn done, void *done_userdata)
{
    struct daemon *d = userdata;
    struct admin *a = admin_create(d, done, done_userdata);
    if (a == NULL)
        return;
    a->held = held;
    queue_set_note(d->queue, "held", held, on_held, a);
}

static void on_flushed(void *userdata, int status, int64_t n)
{
    struct admin *a = userdata;
    if (status == 0)
        dispatch_flush(a->daemon->dispatch);
    admin_end(a, status, n);
}

void daemon_flush(void *userdata, queue_done_fn done, void *done_userdata)
{
    struct daemon *d = userdata;
    struct admin *a = admin_create(d, done, done_userdata);
    if (a != NULL)
        queue_flush(d->queue, clock_steady_ms(), on_flushed, a);
}

/* --- Withdrawing --- */

void daemon_withdrawn(struct daemon *d, int64_t seq)
{
    struct admin *a;
    TAILQ_FOREACH(a, &d->withdrawals, link) {
        uint64_t key = u64map_mix((uint64_t) seq);
        if (!u64map_get(a->seqs, key, NULL))
            continue;
        u64map_remove(a->seqs, key);
        a->n++;
    }
}

/* Some were on their way back from a retry and are settled only now: once more. */
static void on_withdrawn(void *userdata, int status, int64_t n)
{
    struct admin *a = userdata;
    (void) n;
    if (a->settled || status < 0) {
        TAILQ_REMOVE(&a->daemon->withdrawals, a, link);
        u64map_destroy(a->seqs);
        admin_end(a, status, a->n);
        return;
    }
    a->settled = true;
    queue_barrier(a->daemon->queue, on_withdrawn, a);
}

/* Followers first: while one is there it would go on in its leader's place. */
void daemon_withdraw(void *userdata, struct queue_row *rows, size_t n_rows, queue_done_fn done,
                     void *done_userdata)
{
    struct daemon *d = userdata;
    struct admin *a = admin_create(d, done, done_userdata);
    if (a == NULL)
        return;
    a->seqs = u64map_create();
    if (a->seqs == NULL) {
        admin_end(a, -ENOMEM, 0);
        return;
    }
    TAILQ_INSERT_TAIL(&d->withdrawals, a, link);
    for (int followers = 1; followers >= 0; followers--) {
        for (size_t i = 0; i < n_rows; i++) {
            struct request *req = rows[i].request;
            if (req == NULL || req->state == REQUEST_DONE || req->follows != followers ||
                dispatch_leader_state(d->dispatch, rows[i].leader_seq) == REQUEST_IN_FLIGHT)
                continue;
            int64_t seq = req->seq;
            rows[i].request = NULL;
            /* It may have ended since it was read: what counts is what comes back. */
            if (dispatch_withdraw(d->dispatch, req) &&
                u64map_put(a->seqs, u64map_mix((uint64_t) seq), 1) < 0)
                log_warning("daemon: out of memory; a withdrawal is not counted");
        }
    }
    queue_barrier(d->queue, on_withdrawn, a);
}
