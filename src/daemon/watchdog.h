/* The service manager's watchdog (WatchdogSec=): fed at half its interval, as long as the loop turns
 * and work moves. Loop thread. */
#ifndef PULSE_DAEMON_WATCHDOG_H
#define PULSE_DAEMON_WATCHDOG_H

#include <stdbool.h>

#include <uv.h>

struct watchdog {
    uv_timer_t timer;
    bool (*moves)(void *userdata);
    void *userdata;
    bool starving;
};

/* Does nothing when the service manager has no watchdog. `moves` is asked each time; while it says
 * false, nothing is fed. */
void watchdog_init(struct watchdog *w, uv_loop_t *loop, bool (*moves)(void *userdata),
                   void *userdata);

/* Closes the handle; the structure has to stay until the loop has ended. */
void watchdog_close(struct watchdog *w);

#endif
