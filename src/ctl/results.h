/* results: the results log and its rotations, filtered. */
#ifndef PULSE_CTL_RESULTS_H
#define PULSE_CTL_RESULTS_H

#include "ctl/command.h"

enum ctl_exit results_show(const struct invocation *inv);

#endif
