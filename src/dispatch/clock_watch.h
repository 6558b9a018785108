/* Tells when the clocks have moved against each other: the machine has slept, or its clock was set.
 *
 * Timers of the loop count CLOCK_MONOTONIC, which stands still while the machine sleeps; due times
 * and deadlines go on (base/clock.h). Nothing but such a move wakes it. Loop thread. */
#ifndef PULSE_DISPATCH_CLOCK_WATCH_H
#define PULSE_DISPATCH_CLOCK_WATCH_H

#include <uv.h>

struct clock_watch {
    int fd; /* -1 = there is none */
    uv_poll_t poll;
    void (*moved)(void *userdata);
    void *userdata;
    void (*closed)(void *userdata);
    void *closed_userdata;
};

/* Without it timers are late after a sleep, and that is all: a failure is logged. */
void clock_watch_init(struct clock_watch *w, uv_loop_t *loop, void (*moved)(void *userdata),
                      void *userdata);

/* Calls `closed` when its handle is closed, at once when there is none. */
void clock_watch_close(struct clock_watch *w, void (*closed)(void *userdata), void *userdata);

void clock_watch_finish(struct clock_watch *w);

#endif
