/* Feeds the service manager's watchdog. A process that turns its loop and sends nothing of what is
 * due is as dead as one that stands still, and a restart loses nothing. Loop thread. */
#include "daemon/watchdog.h"

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "daemon/notify.h"

static void on_timer(uv_timer_t *timer)
{
    struct watchdog *w = timer->data;
    bool moves = w->moves(w->userdata);
    if (moves)
        notify_watchdog();
    else if (!w->starving)
        log_error("daemon: work is due and not being sent, though nothing holds it back; unless "
                  "that ends, the service manager's watchdog will");
    w->starving = !moves;
}

void watchdog_init(struct watchdog *w, uv_loop_t *loop, bool (*moves)(void *userdata),
                   void *userdata)
{
    *w = (struct watchdog){ .moves = moves, .userdata = userdata };
    (void) uv_timer_init(loop, &w->timer);
    w->timer.data = w;
    uint64_t interval_ms = notify_watchdog_ms() / 2;
    if (interval_ms > 0)
        (void) uv_timer_start(&w->timer, on_timer, interval_ms, interval_ms);
}

void watchdog_close(struct watchdog *w)
{
    uv_close((uv_handle_t *) &w->timer, NULL);
}
