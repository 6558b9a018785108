/* The numbers that `stats` and the status line show, gathered from where they are counted. */
#ifndef PULSE_DAEMON_STATS_H
#define PULSE_DAEMON_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "dispatch/dispatch.h"
#include "intake/control.h"
#include "intake/spool.h"
#include "model/request.h"

struct stats {
    int64_t uptime_s;
    int64_t pending;
    uint64_t results[OUTCOME_COUNT];
    int64_t in_flight_limit;
    const char *storage; /* NULL = ok */
    int spool_trouble;   /* -errno, 0 = ok */
    bool held;           /* by the operator */
    struct spool_stats spool;
    struct control_stats control;
    const struct dispatch_stats *dispatch;
};

/* The JSON object of the `stats` method. 0 or -ENOBUFS, -ENOMEM. */
int stats_append(struct buf *b, const struct stats *stats);

/* One line for people: what is pending, and what is wrong. */
int stats_append_status(struct buf *b, const struct stats *stats);

#endif
