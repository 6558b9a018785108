/* retry: finished requests are queued anew. Private to the socket's files; see control_core.h. */
#ifndef PULSE_INTAKE_RETRY_H
#define PULSE_INTAKE_RETRY_H

#include <json-c/json.h>

#include "intake/call.h"

void retry_run(struct call *call, struct json_object *params);

#endif
