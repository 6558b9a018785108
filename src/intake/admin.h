/* The methods by which an operator steers the daemon. Private to the socket's files; see
 * control_core.h. */
#ifndef PULSE_INTAKE_ADMIN_H
#define PULSE_INTAKE_ADMIN_H

#include <json-c/json.h>

#include "intake/call.h"

void admin_run_hold(struct call *call, struct json_object *params);
void admin_run_release(struct call *call, struct json_object *params);
void admin_run_flush(struct call *call, struct json_object *params);
void admin_run_withdraw(struct call *call, struct json_object *params);
void admin_run_reload(struct call *call, struct json_object *params);

#endif
