/* hold, release, flush, retry, withdraw, reload and ping. */
#ifndef PULSE_CTL_ADMIN_H
#define PULSE_CTL_ADMIN_H

#include "ctl/command.h"

enum ctl_exit admin_hold(const struct invocation *inv);
enum ctl_exit admin_release(const struct invocation *inv);
enum ctl_exit admin_flush(const struct invocation *inv);
enum ctl_exit admin_retry(const struct invocation *inv);
enum ctl_exit admin_withdraw(const struct invocation *inv);
enum ctl_exit admin_reload(const struct invocation *inv);
enum ctl_exit admin_ping(const struct invocation *inv);

#endif
