/* cancel: sends requests and waits for what becomes of them. */
#ifndef PULSE_CTL_CANCEL_H
#define PULSE_CTL_CANCEL_H

#include "ctl/command.h"

enum ctl_exit cancel_run(const struct invocation *inv);

#endif
