/* Whether the API accepts the key, and when to check that: sending stops at the first 401, and a
 * rejected key is checked at once, then ever less often. Pure: time is an argument. */
#ifndef PULSE_POLICY_KEY_GATE_H
#define PULSE_POLICY_KEY_GATE_H

#include <stdbool.h>
#include <stdint.h>

#define KEY_GATE_DELAY_MIN_MS 1000
#define KEY_GATE_DELAY_MAX_MS 300000

/* Zero-initialised: accepted. */
struct key_gate {
    bool rejected;
    bool proving;        /* sending was resumed, and nothing was answered yet */
    bool unproved;       /* nor was a cancel request, after a check that was accepted */
    int64_t check_at_ms; /* rejected: when to check */
    int64_t delay_ms;    /* the backoff; 0 = at once */
    unsigned epoch;      /* resumptions so far */
};

/* A 401 to something that was sent in `epoch`. Whether that is news. A resumption that meets one
 * keeps the delay that it had come to. */
bool key_gate_refused(struct key_gate *g, unsigned epoch, int64_t now_ms);

/* Any other answer to something that was sent in `epoch`; only one to a cancel request ends the
 * backoff. */
void key_gate_answered(struct key_gate *g, unsigned epoch, bool to_cancel);

/* The check was rejected, or not answered. */
void key_gate_check_failed(struct key_gate *g, int64_t now_ms);

/* The check was accepted, or (not `checked`) the operator says so. */
void key_gate_resume(struct key_gate *g, bool checked);

#endif
