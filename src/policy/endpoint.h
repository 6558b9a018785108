/* Which request cancels a job, and what shows that the old one is gone. Pure. */
#ifndef PULSE_POLICY_ENDPOINT_H
#define PULSE_POLICY_ENDPOINT_H

#include <stdbool.h>

#include "model/request.h"
#include "policy/verdict.h"

/* "/cancel/" and a job ID whose every byte is percent-encoded, with its NUL. */
#define ENDPOINT_PATH_MAX (8 + 3 * JOB_ID_MAX + 1)

/* The path below the base URL: every byte of the job ID but A-Z a-z 0-9 - . _ ~ (RFC 3986's
 * unreserved ones) is percent-encoded. */
void endpoint_path(enum endpoint endpoint, const char *job_id,
                   char ret_path[static ENDPOINT_PATH_MAX]);

/* Whether the answer to POST /cancel/{job_id} may mean that there is no such route any more: then the
 * same request is tried at once as DELETE /job/{job_id}. */
bool endpoint_may_be_gone(const struct judgement *first);

/* What the answer to that says. */
enum endpoint_proof {
    ENDPOINT_GONE,   /* the old route is gone for good; this answer counts */
    ENDPOINT_FAILED, /* nothing about the old route; this answer counts */
    ENDPOINT_STANDS, /* nothing; the first answer counts */
};
enum endpoint_proof endpoint_second_answer(const struct judgement *second);

#endif
