/* SIGINT and SIGTERM for commands that have something to say when they are told to end: blocked but
 * while they wait. */
#ifndef PULSE_CTL_SIGNALS_H
#define PULSE_CTL_SIGNALS_H

#include <signal.h>

/* *ret_unblocked: the mask to wait with, so that a signal ends the wait. */
void signals_catch(sigset_t *ret_unblocked);

/* The signal that came, or 0. */
int signals_caught(void);

#endif
