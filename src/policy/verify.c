/* When to ask for a job's status, and what it says. Pure. Any thread. */
#include "policy/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_peek.h"

/* A reply 500 may be the job's own, so one is no reason to ask; it is to doubt a later 404. */
void verify_note(struct trail *trail, const struct judgement *j)
{
    trail->server_errors =
        j->kind == REPLY_REFUSED && j->http_status == 500 ? trail->server_errors + 1 : 0;
    switch (j->kind) {
    case REPLY_BELIEVED:
        trail->believed = true;
        break;
    case REPLY_UNBELIEVED:
    case REPLY_LOST:
        trail->doubtful = true;
        break;
    case REPLY_REFUSED:
        trail->doubtful = trail->doubtful || j->http_status >= 500;
        break;
    case REPLY_NONE:
        break;
    }
}

static bool is_final_refusal(const struct judgement *j)
{
    return j->kind == REPLY_REFUSED && j->verdict == VERDICT_DONE &&
           j->outcome != OUTCOME_UNAUTHORIZED;
}

bool verify_wanted(enum api_verify mode, const struct trail *trail, const struct judgement *j,
                   bool last)
{
    if (mode == API_VERIFY_NEVER)
        return false;
    bool always = mode == API_VERIFY_ALWAYS;
    switch (j->kind) {
    case REPLY_BELIEVED:
        return always;
    case REPLY_UNBELIEVED:
    case REPLY_LOST:
        return true;
    case REPLY_NONE:
        return false;
    case REPLY_REFUSED:
        break;
    }
    if (is_final_refusal(j))
        return always || (j->http_status == 404 && trail->doubtful);
    if (j->http_status < 500)
        return false; /* it was turned away */
    return always || last || (j->http_status == 500 && trail->server_errors > 0);
}

static const struct {
    const char *status;
    enum outcome outcome;
} terminal[] = {
    { "canceled", OUTCOME_CANCELLED },
    { "completed", OUTCOME_TOO_LATE },
    { "failed", OUTCOME_TOO_LATE },
};

static int read_status(const struct reply *reply, const char *job_id, struct finding *f)
{
    char *named = NULL;
    int r = json_peek_string(reply->body, reply->body_len, "job_id", &named);
    bool ours = r == 0 && strcmp(named, job_id) == 0;
    free(named);
    if (ours)
        r = json_peek_string(reply->body, reply->body_len, "status", &f->job_status);
    if (r < 0 || !ours)
        return r == -ENOMEM ? r : 0;
    for (size_t i = 0; i < sizeof(terminal) / sizeof(terminal[0]); i++) {
        if (strcmp(f->job_status, terminal[i].status) != 0)
            continue;
        f->decided = true;
        f->outcome = terminal[i].outcome;
    }
    verdict_mask(f->job_status, reply->api_key);
    return 0;
}

int verify_read(const struct reply *reply, const char *job_id, bool believed, struct finding *ret)
{
    struct finding f = { .decided = false };
    int r = 0;
    bool whole = reply->transport == TRANSPORT_OK || reply->truncated;
    if (whole && reply->status == 200) {
        r = read_status(reply, job_id, &f);
    } else if (whole && reply->status == 404 && believed && verdict_has_envelope(reply)) {
        f.decided = true;
        f.outcome = OUTCOME_CANCELLED;
    }
    if (r == 0)
        *ret = f;
    return r;
}
