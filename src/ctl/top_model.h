/* What top shows: the last minutes of some numbers, and the latest failures. Pure. */
#ifndef PULSE_CTL_TOP_MODEL_H
#define PULSE_CTL_TOP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "base/buf.h"

/* Seconds; also the widest sparkline. */
#define TOP_SAMPLES 600
#define TOP_FAILURES 200

enum top_series {
    TOP_ACCEPTED, /* per second, as are those up to TOP_RETRIES */
    TOP_ATTEMPTS,
    TOP_CANCELLED,
    TOP_OTHERS,
    TOP_RETRIES,
    TOP_BACKLOG,
    TOP_IN_FLIGHT,
};
#define TOP_SERIES_COUNT (TOP_IN_FLIGHT + 1)

struct top_model {
    struct json_object *stats; /* the last ones; NULL = none yet */
    int64_t stats_at_ms;       /* monotonic */
    int64_t counters[TOP_SERIES_COUNT];
    double samples[TOP_SERIES_COUNT]
                  [TOP_SAMPLES]; /* rings: the newest is at (n - 1) % TOP_SAMPLES */
    size_t n_samples;
    struct json_object *failures[TOP_FAILURES]; /* a ring as well */
    size_t n_failures;
    int64_t missed; /* outcomes that the daemon could not send us */
};

void top_model_init(struct top_model *m);
void top_model_finish(struct top_model *m);

/* Takes over the references. `stats` that don't continue the last ones (another daemon) give no
 * rates. */
void top_model_take_stats(struct top_model *m, struct json_object *stats, int64_t now_ms);
void top_model_take_result(struct top_model *m, struct json_object *result);

/* The newest sample, and since the daemon's start. */
double top_model_now(const struct top_model *m, enum top_series series);
double top_model_average(const struct top_model *m, enum top_series series);

/* The last `width` samples as a curve of one line, the newest at the right, as high as the highest
 * of them (1 at least). In blocks of Unicode or in ASCII. */
void top_model_append_spark(struct buf *b, const struct top_model *m, enum top_series series,
                            size_t width, bool unicode);

#endif
