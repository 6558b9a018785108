/* The params by which several methods name requests. Private to the socket's files; see
 * control_core.h. */
#ifndef PULSE_INTAKE_TARGET_H
#define PULSE_INTAKE_TARGET_H

#include <stdbool.h>

#include <json-c/json.h>

#include "model/request.h"

enum target_kind { TARGET_JOB_ID, TARGET_REQUEST_ID, TARGET_OUTCOME };

struct target {
    enum target_kind kind;
    char text[JOB_ID_MAX + 1]; /* job_id or request_id */
    enum outcome outcome;
};

/* Exactly one of job_id, request_id and, where it is allowed, outcome. What is wrong, or NULL. */
const char *target_read(struct json_object *params, bool outcome_allowed, struct target *ret);

#endif
