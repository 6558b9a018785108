/* top: a full-screen live view. */
#ifndef PULSE_CTL_TOP_H
#define PULSE_CTL_TOP_H

#include "ctl/command.h"

enum ctl_exit top_run(const struct invocation *inv);

#endif
