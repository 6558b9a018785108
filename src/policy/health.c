/* When to tell the operator that the API is in trouble. Pure. Any thread. */
#include "policy/health.h"

#define FAILURES_MIN 3

static enum health_state next_state(const struct health *health, const struct reply *reply)
{
    switch (reply->transport) {
    case TRANSPORT_OK:
        return HEALTH_GOOD;
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
    health->failures = reply->transport == TRANSPORT_OK ? 0 : health->failures + 1;
    enum health_state state = next_state(health, reply);
    bool changed = state != health->state;
    health->state = state;
    return changed;
}
