/* When the API's answer leaves open whether the job was cancelled, and what GET /job/{job_id} says
 * about it. Pure. */
#ifndef PULSE_POLICY_VERIFY_H
#define PULSE_POLICY_VERIFY_H

#include <stdbool.h>

#include "model/config.h"
#include "model/request.h"
#include "policy/verdict.h"

/* Takes note of a counted attempt. Call it after verify_wanted(). */
void verify_note(struct trail *trail, const struct judgement *j);

/* Whether the job's status is to be asked after an attempt that was judged as `j`. `trail` is what was
 * known before it; `last`: no other attempt would follow. */
bool verify_wanted(enum api_verify mode, const struct trail *trail, const struct judgement *j,
                   bool last);

struct finding {
    bool decided;
    enum outcome outcome;
    char *job_status; /* as the API spells it, the key masked; NULL when it did not say. The caller
                         frees it. */
};

/* What the reply to GET /job/{job_id} says. Only a job that is canceled, completed or failed decides
 * anything; `believed`: after a 200 that is believed, so does a 404 with the envelope. 0 or -ENOMEM. */
int verify_read(const struct reply *reply, const char *job_id, bool believed, struct finding *ret);

#endif
