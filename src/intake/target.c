/* The params by which several methods name requests. Any thread. */
#include "intake/target.h"

#include <string.h>

static const char *read_text(struct json_object *value, struct target *target)
{
    bool by_job = target->kind == TARGET_JOB_ID;
    if (!json_object_is_type(value, json_type_string))
        return by_job ? "job_id is not a string" : "request_id is not a string";
    const char *text = json_object_get_string(value);
    size_t len = (size_t) json_object_get_string_len(value);
    if (by_job && !job_id_valid(text, len))
        return "job_id is not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)";
    if (!by_job && !request_id_valid(text, len))
        return "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -";
    memcpy(target->text, text, len + 1);
    return NULL;
}

static const char *read_outcome(struct json_object *value, struct target *target)
{
    if (!json_object_is_type(value, json_type_string))
        return "outcome is not a string";
    int outcome = outcome_from_name(json_object_get_string(value));
    if (outcome < 0)
        return "there is no such outcome";
    target->outcome = (enum outcome) outcome;
    return NULL;
}

const char *target_read(struct json_object *params, bool outcome_allowed, struct target *ret)
{
    struct target target = { .kind = TARGET_JOB_ID };
    struct json_object *value = NULL;
    const char *wrong = outcome_allowed
                            ? "it takes one of job_id, request_id and outcome, and nothing else"
                            : "it takes either job_id or request_id, and nothing else";

    if (params == NULL || json_object_object_length(params) != 1)
        return wrong;
    if (json_object_object_get_ex(params, "job_id", &value))
        target.kind = TARGET_JOB_ID;
    else if (json_object_object_get_ex(params, "request_id", &value))
        target.kind = TARGET_REQUEST_ID;
    else if (outcome_allowed && json_object_object_get_ex(params, "outcome", &value))
        target.kind = TARGET_OUTCOME;
    else
        return wrong;

    wrong =
        target.kind == TARGET_OUTCOME ? read_outcome(value, &target) : read_text(value, &target);
    if (wrong == NULL)
        *ret = target;
    return wrong;
}
