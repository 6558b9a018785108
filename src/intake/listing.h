/* list: requests page by page. Private to the socket's files; see control_core.h. */
#ifndef PULSE_INTAKE_LISTING_H
#define PULSE_INTAKE_LISTING_H

#include <json-c/json.h>

#include "intake/call.h"

void listing_run(struct call *call, struct json_object *params);

#endif
