/* Times as people and the results log write them. Pure but for the local time zone. */
#ifndef PULSE_CTL_WHEN_H
#define PULSE_CTL_WHEN_H

#include <stdint.h>

/* Understood are:
 *   2026-11-24T18:49:17.042Z, also with an offset (+01:00), without milliseconds, a blank for T
 *   2026-11-24, 2026-11-24 18:49, 2026-11-24 18:49:17   in the local zone
 *   now, today, yesterday                               (midnight, local)
 *   90s, 15m, 2h, 7d, 1w                                so long before `now_ms`
 * *ret_ms: UTC. 0 or -EINVAL. */
int when_parse(const char *text, int64_t now_ms, int64_t *ret_ms);

#endif
