/* Which request cancels a job. Pure. */
#ifndef PULSE_POLICY_ENDPOINT_H
#define PULSE_POLICY_ENDPOINT_H

#include "model/request.h"

/* "/cancel/" and a job ID whose every byte is percent-encoded, with its NUL. */
#define ENDPOINT_PATH_MAX (8 + 3 * JOB_ID_MAX + 1)

/* The path below the base URL: every byte of the job ID but A-Z a-z 0-9 - . _ ~ (RFC 3986's
 * unreserved ones) is percent-encoded. */
void endpoint_path(enum endpoint endpoint, const char *job_id,
                   char ret_path[static ENDPOINT_PATH_MAX]);

#endif
