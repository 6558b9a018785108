/* The service manager: readiness, one-line status, sockets passed to us. Loop thread. */
#ifndef PULSE_DAEMON_NOTIFY_H
#define PULSE_DAEMON_NOTIFY_H

#include <stdint.h>

#include "base/buf.h"

/* The listening socket that $LISTEN_FDS passes; -1 when there is none. -errno below -1 with a
 * sentence when what is passed can't be used. Clears the variables. */
int notify_listen_fd(struct buf *reterr);

/* All do nothing without $NOTIFY_SOCKET. */
void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);
void notify_status(const char *text);
void notify_watchdog(void);

/* How often the service manager wants to hear notify_watchdog(); 0 = it does not. */
uint64_t notify_watchdog_ms(void);

#endif
