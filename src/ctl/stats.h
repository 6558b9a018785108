/* stats and metrics: the daemon's numbers, for people and for Prometheus. */
#ifndef PULSE_CTL_STATS_H
#define PULSE_CTL_STATS_H

#include "ctl/command.h"

enum ctl_exit stats_run(const struct invocation *inv);
enum ctl_exit metrics_run(const struct invocation *inv);

/* The text of `metrics` for an answer of `stats`; pure. 0 or -errno. */
int metrics_append(struct buf *b, struct json_object *stats);

/* Numbers of an answer: objects within objects by their names; 0 for what is not there. */
int64_t stats_number(struct json_object *stats, const char *group, const char *member);
/* The sum of a group's members. */
int64_t stats_sum(struct json_object *stats, const char *group);

/* A sentence about what keeps requests from being sent or accepted, and what to do: of
 * `held`, `paused_until`, `breaker`, `storage` and `nats`. False for `i` beyond the last. */
#define STATS_NOTICE_MAX 256
bool stats_notice(struct json_object *stats, size_t i, char ret_text[static STATS_NOTICE_MAX]);

#endif
