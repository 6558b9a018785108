/* When to try again. Pure. Any thread. */
#include "policy/retry.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t retry_delay_ms(const struct retry_policy *policy, unsigned attempt, uint64_t random,
                       int64_t retry_after_ms)
{
    /* 2^32 ms is beyond every allowed max_delay already. */
    unsigned doublings = attempt > 1 ? attempt - 1 : 0;
    int64_t ceiling = policy->max_delay_ms;
    if (doublings < 32)
        ceiling = min64(ceiling, policy->base_delay_ms << doublings);

    int64_t delay_ms = (int64_t) (random % ((uint64_t) ceiling + 1));
    int64_t floor_ms = min64(retry_after_ms, policy->max_delay_ms);
    if (delay_ms < floor_ms)
        delay_ms = floor_ms;
    return delay_ms > 0 ? delay_ms : 1;
}
