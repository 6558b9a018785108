/* status and list: what the daemon knows of its requests. */
#ifndef PULSE_CTL_REQUESTS_H
#define PULSE_CTL_REQUESTS_H

#include "ctl/command.h"

enum ctl_exit requests_status(const struct invocation *inv);
enum ctl_exit requests_list(const struct invocation *inv);

#endif
