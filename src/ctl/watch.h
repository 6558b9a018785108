/* watch: outcomes as they come. */
#ifndef PULSE_CTL_WATCH_H
#define PULSE_CTL_WATCH_H

#include "ctl/command.h"

enum ctl_exit watch_run(const struct invocation *inv);

#endif
