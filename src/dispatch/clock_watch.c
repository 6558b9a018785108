/* A timer far in the future, which the kernel cancels when the wall clock moves against the monotonic
 * one. Loop thread. */
#include "dispatch/clock_watch.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"

/* Beyond what the kernel counts, which it takes for as far as it can. */
#define NEVER_S INT64_MAX

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct clock_watch *w = poll->data;
    (void) status, (void) events;
    uint64_t n;
    /* ECANCELED; it is armed for the next time by having been read. */
    (void) !read(w->fd, &n, sizeof(n));
    w->moved(w->userdata);
}

static int start(struct clock_watch *w, uv_loop_t *loop)
{
    w->fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (w->fd < 0)
        return -errno;
    const struct itimerspec never = { .it_value.tv_sec = NEVER_S };
    int r = 0;
    if (timerfd_settime(w->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0)
        r = -errno;
    if (r == 0)
        r = uv_poll_init(loop, &w->poll, w->fd);
    if (r < 0) {
        clock_watch_finish(w);
        return r;
    }
    w->poll.data = w;
    (void) uv_poll_start(&w->poll, UV_READABLE, on_poll);
    return 0;
}

void clock_watch_init(struct clock_watch *w, uv_loop_t *loop, void (*moved)(void *userdata),
                      void *userdata)
{
    *w = (struct clock_watch){ .moved = moved, .userdata = userdata };
    int r = start(w, loop);
    if (r < 0)
        log_warning("dispatch: no news of clock changes: %s; after a sleep of the machine, retries "
                    "may be late",
                    strerror(-r));
}

static void on_closed(uv_handle_t *handle)
{
    struct clock_watch *w = handle->data;
    w->closed(w->closed_userdata);
}

void clock_watch_close(struct clock_watch *w, void (*closed)(void *userdata), void *userdata)
{
    if (w->fd < 0) {
        closed(userdata);
        return;
    }
    w->closed = closed;
    w->closed_userdata = userdata;
    uv_close((uv_handle_t *) &w->poll, on_closed);
}

void clock_watch_finish(struct clock_watch *w)
{
    if (w->fd >= 0)
        (void) close(w->fd);
    w->fd = -1;
}
