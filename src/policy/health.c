/* When to tell the operator that the API is in trouble. Pure. Any thread. */
#include "policy/health.h"

#define FAILURES_MIN 3
#define REFUSALS_MIN 10

static enum health_state next_state(const struct health *health, const struct reply *reply)
{
    switch (reply->transport) {
    case TRANSPORT_OK:
        return health->refusals >= REFUSALS_MIN ? HEALTH_FAILING : HEALTH_GOOD;
    case TRANSPORT_TLS:
        return HEALTH_UNREACHABLE;
    case TRANSPORT_FAILED:
    case TRANSPORT_TIMEOUT:
        break;
    }
    return health->failures >= FAILURES_MIN ? HEALTH_UNREACHABLE : health->state;
}

bool health_note(struct health *health, const struct reply *reply)
{
    if (reply->transport == TRANSPORT_OK) {
        health->failures = 0;
        health->refusals = reply->status >= 500 ? health->refusals + 1 : 0;
    } else {
        health->failures++;
    }
    enum health_state state = next_state(health, reply);
    bool changed = state != health->state;
    health->state = state;
    return changed;
}
