/* Stopping. Loop thread.
 *
 * It goes in steps, each of which begins when the one before is through: intake is shut and
 * requests in flight finish (for a while); what is left of them is cut off and the queue commits
 * everything; sockets and handles are closed; the loop ends by itself. Signals are taken until then. */
#include "base/log.h"
#include "daemon/daemon_private.h"
#include "daemon/notify.h"

static void close_handles(struct daemon *d)
{
    uv_close((uv_handle_t *) &d->status_timer, NULL);
    uv_close((uv_handle_t *) &d->grace_timer, NULL);
    uv_close((uv_handle_t *) &d->step, NULL);
    watchdog_close(&d->watchdog);
}

static void on_part_stopped(void *userdata)
{
    (void) userdata; /* the loop ends when its last handle is closed */
}

static void on_queue_stopped(void *userdata)
{
    struct daemon *d = userdata;
    control_stop(d->control, on_part_stopped, d);
    close_handles(d);
}

static void on_step(uv_prepare_t *step)
{
    struct daemon *d = step->data;
    if (!d->drained || !d->spool_stopped || d->queue_stopping)
        return;
    d->queue_stopping = true;
    (void) uv_prepare_stop(&d->step);
    (void) uv_timer_stop(&d->grace_timer);
    bool clean = dispatch_get_stats(d->dispatch)->in_flight == 0;
    /* Before the queue: a late reply would have nowhere to go. */
    dispatch_stop(d->dispatch, on_part_stopped, d);
    queue_stop(d->queue, clean, on_queue_stopped, d);
}

static void on_drained(void *userdata)
{
    struct daemon *d = userdata;
    d->drained = true;
}

static void on_spool_stopped(void *userdata)
{
    struct daemon *d = userdata;
    d->spool_stopped = true;
}

static void on_grace_over(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    if (!d->drained)
        log_warning("daemon: %zu requests are still in flight; they are tried again at the next "
                    "start",
                    dispatch_get_stats(d->dispatch)->in_flight);
    d->drained = true;
}

void daemon_stop(struct daemon *d, const char *why)
{
    log_info("daemon: stopping (%s)", why);
    d->stopping = true;
    notify_stopping();
    (void) uv_timer_stop(&d->status_timer);
    (void) uv_prepare_start(&d->step, on_step);
    (void) uv_timer_start(&d->grace_timer, on_grace_over,
                          (uint64_t) d->config->dispatch.shutdown_grace_s * 1000, 0);
    control_shut(d->control);
    spool_stop(d->spool, on_spool_stopped, d);
    dispatch_drain(d->dispatch, on_drained, d);
}

void daemon_take_down(struct daemon *d)
{
    d->stopping = true;
    if (d->control != NULL)
        control_stop(d->control, on_part_stopped, d);
    if (d->spool != NULL)
        spool_stop(d->spool, on_part_stopped, d);
    if (d->dispatch != NULL)
        dispatch_stop(d->dispatch, on_part_stopped, d);
    if (d->queue != NULL)
        queue_stop(d->queue, true, on_part_stopped, d);
    close_handles(d);
}
