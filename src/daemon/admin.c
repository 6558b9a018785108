/* What operators ask of several parts at once: hold, flush, withdraw. Loop thread. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/daemon_private.h"

/* An answer to a client that waits for steps of ours. */
struct admin {
    struct daemon *daemon;
    bool held;    /* hold */
    int64_t n;    /* withdraw */
    bool settled; /* withdraw: what came back from its retry is settled too */
    queue_done_fn done;
    void *userdata;
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
    admin_end(a, status, n);
}

void daemon_hold(void *userdata, bool held, queue_done_fn done, void *done_userdata)
{
    struct daemon *d = userdata;
    struct admin *a = admin_create(d, done, done_userdata);
    if (a == NULL)
        return;
    a->held = held;
    queue_set_held(d->queue, held, on_held, a);
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

/* Some were on their way back from a retry and are settled only now: once more. */
static void on_withdrawn(void *userdata, int status, int64_t n)
{
    struct admin *a = userdata;
    (void) n;
    if (a->settled) {
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
    for (int followers = 1; followers >= 0; followers--) {
        for (size_t i = 0; i < n_rows; i++) {
            struct request *req = rows[i].request;
            if (req == NULL || req->state == REQUEST_DONE || req->follows != followers ||
                dispatch_leader_state(d->dispatch, rows[i].leader_seq) == REQUEST_IN_FLIGHT)
                continue;
            rows[i].request = NULL;
            a->n += dispatch_withdraw(d->dispatch, req);
        }
    }
    queue_barrier(d->queue, on_withdrawn, a);
}
