/* From answers of stats to rates and curves. */
#include "ctl/top_model.h"

#include <string.h>

#include "base/json.h"
#include "ctl/stats.h"

void top_model_init(struct top_model *m)
{
    *m = (struct top_model){ .stats = NULL };
}

void top_model_finish(struct top_model *m)
{
    json_object_put(m->stats);
    for (size_t i = 0; i < TOP_FAILURES; i++)
        json_object_put(m->failures[i]);
    top_model_init(m);
}

static bool is_rate(enum top_series series)
{
    return series <= TOP_RETRIES;
}

static int64_t counter_of(struct json_object *stats, enum top_series series)
{
    switch (series) {
    case TOP_ACCEPTED:
        return stats_sum(stats, "accepted");
    case TOP_ATTEMPTS:
        return stats_number(stats, NULL, "attempts");
    case TOP_CANCELLED:
        return stats_number(stats, "results", "cancelled");
    case TOP_OTHERS:
        return stats_sum(stats, "results") - stats_number(stats, "results", "cancelled");
    case TOP_RETRIES:
        return stats_number(stats, NULL, "retries");
    case TOP_BACKLOG:
        return stats_number(stats, "pending", "queued") + stats_number(stats, "pending", "waiting");
    case TOP_IN_FLIGHT:
        return stats_number(stats, "pending", "in_flight");
    }
    return 0;
}

static bool continues(const struct top_model *m, struct json_object *stats)
{
    return m->stats != NULL &&
           stats_number(m->stats, NULL, "pid") == stats_number(stats, NULL, "pid") &&
           stats_number(m->stats, NULL, "uptime_s") <= stats_number(stats, NULL, "uptime_s");
}

void top_model_take_stats(struct top_model *m, struct json_object *stats, int64_t now_ms)
{
    bool same = continues(m, stats);
    int64_t elapsed_ms = now_ms > m->stats_at_ms ? now_ms - m->stats_at_ms : 1;
    for (size_t i = 0; i < TOP_SERIES_COUNT; i++) {
        enum top_series series = (enum top_series) i;
        int64_t counter = counter_of(stats, series);
        double sample = (double) counter;
        if (is_rate(series))
            sample = same ? (double) (counter - m->counters[i]) * 1000 / (double) elapsed_ms : 0;
        m->samples[i][m->n_samples % TOP_SAMPLES] = sample;
        m->counters[i] = counter;
    }
    m->n_samples++;
    json_object_put(m->stats);
    m->stats = stats;
    m->stats_at_ms = now_ms;
}

void top_model_take_result(struct top_model *m, struct json_object *result)
{
    const char *outcome = json_get_string(result, "outcome");
    if (outcome == NULL || strcmp(outcome, "cancelled") == 0) {
        json_object_put(result);
        return;
    }
    struct json_object **place = &m->failures[m->n_failures++ % TOP_FAILURES];
    json_object_put(*place);
    *place = result;
}

double top_model_now(const struct top_model *m, enum top_series series)
{
    return m->n_samples > 0 ? m->samples[series][(m->n_samples - 1) % TOP_SAMPLES] : 0;
}

double top_model_average(const struct top_model *m, enum top_series series)
{
    int64_t uptime_s = m->stats != NULL ? stats_number(m->stats, NULL, "uptime_s") : 0;
    return uptime_s > 0 ? (double) m->counters[series] / (double) uptime_s : 0;
}

void top_model_append_spark(struct buf *b, const struct top_model *m, enum top_series series,
                            size_t width, bool unicode)
{
    static const char *const blocks[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    static const char *const letters[] = { " ", ".", ":", "-", "=", "+", "*", "#", "@" };
    const char *const *steps = unicode ? blocks : letters;
    const int highest = 8;

    if (width > TOP_SAMPLES)
        width = TOP_SAMPLES;
    size_t kept = m->n_samples < TOP_SAMPLES ? m->n_samples : TOP_SAMPLES;
    size_t n = kept < width ? kept : width;
    double max = 1;
    for (size_t i = m->n_samples - n; i < m->n_samples; i++)
        if (m->samples[series][i % TOP_SAMPLES] > max)
            max = m->samples[series][i % TOP_SAMPLES];
    for (size_t i = n; i < width; i++)
        (void) buf_append_char(b, ' ');
    for (size_t i = m->n_samples - n; i < m->n_samples; i++) {
        double value = m->samples[series][i % TOP_SAMPLES];
        int step = (int) (value / max * highest + 0.5);
        /* Anything at all is seen. */
        if (value > 0 && step == 0)
            step = 1;
        (void) buf_append_str(b, steps[step < 0 ? 0 : step]);
    }
}
