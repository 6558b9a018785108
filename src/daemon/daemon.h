/* The daemon put together: it builds the parts, wires them, and runs until it is told to stop. */
#ifndef PULSE_DAEMON_DAEMON_H
#define PULSE_DAEMON_DAEMON_H

#include "model/config.h"

/* To be called first: from here on, what stops or reloads the daemon waits until daemon_run() is
 * ready for it, however early it comes. */
void daemon_block_signals(void);

/* Takes the configuration. Returns the exit status: 0 stopped as asked, 1 can't start or go on
 * (the reason is logged). `config_file` is read again on SIGHUP. */
int daemon_run(const char *config_file, struct config *config);

#endif
