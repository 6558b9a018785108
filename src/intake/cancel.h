/* The method `cancel`: params to requests, their commit, and waiting for their outcomes. Private to
 * the socket's files; see control_core.h. */
#ifndef PULSE_INTAKE_CANCEL_H
#define PULSE_INTAKE_CANCEL_H

#include <json-c/json.h>

#include "intake/call.h"
#include "model/line.h"

/* Takes the call. */
void cancel_run(struct call *call, struct json_object *params);
void cancel_run_line(struct call *call, const struct line *line);

#endif
