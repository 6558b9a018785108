/* When to tell the operator that the API is in trouble, and that it is back: once each. Pure. */
#ifndef PULSE_POLICY_HEALTH_H
#define PULSE_POLICY_HEALTH_H

#include <stdbool.h>

#include "policy/verdict.h"

enum health_state {
    HEALTH_GOOD,
    HEALTH_UNREACHABLE, /* no exchange gets through */
    HEALTH_FAILING,     /* the server answers, and only that it can't do it (5xx) */
};

struct health {
    enum health_state state;
    unsigned failures; /* exchanges in a row that did not get through */
    unsigned refusals; /* replies in a row that were 5xx */
};

/* Zero-initialised is HEALTH_GOOD. Takes note of an exchange; whether the state has changed. One
 * reset or timeout is no news, three in a row are, and so is any certificate that does not
 * verify; a 5xx is worth a retry, ten of them and nothing else between are news. */
bool health_note(struct health *health, const struct reply *reply);

#endif
