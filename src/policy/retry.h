/* When to try again. Pure: randomness and time are arguments. */
#ifndef PULSE_POLICY_RETRY_H
#define PULSE_POLICY_RETRY_H

#include <stdint.h>

struct retry_policy {
    int64_t base_delay_ms;
    int64_t max_delay_ms;
};

/* Full jitter: uniform in [0, min(max_delay, base_delay * 2^(attempt-1))], at least 1 ms, and never
 * sooner than Retry-After, which is itself capped at max_delay. `attempt` is 1 after the first
 * one; `random` is uniform over 64 bits; `retry_after_ms` is 0 when there is none.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ */
int64_t retry_delay_ms(const struct retry_policy *policy, unsigned attempt, uint64_t random,
                       int64_t retry_after_ms);

#endif
