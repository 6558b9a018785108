/* stats for people. */
#include "ctl/stats.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "ctl/call.h"

#define LABEL_WIDTH 14

int64_t stats_number(struct json_object *stats, const char *group, const char *member)
{
    struct json_object *object = group != NULL ? json_object_object_get(stats, group) : stats;
    return json_object_get_int64(json_object_object_get(object, member));
}

int64_t stats_sum(struct json_object *stats, const char *group)
{
    struct json_object *object = json_object_object_get(stats, group);
    int64_t sum = 0;
    if (!json_object_is_type(object, json_type_object))
        return 0;
    json_object_object_foreach(object, name, value)
    {
        (void) name;
        sum += json_object_get_int64(value);
    }
    return sum;
}

/* --- Notices --- */

static bool held_notice(struct json_object *stats, char *text)
{
    const char *held = json_get_string(stats, "held");
    if (held == NULL)
        return false;
    if (strcmp(held, "key") == 0)
        (void) snprintf(text, STATS_NOTICE_MAX,
                        "Held: the API rejects the key. Put the right one in place and restart the "
                        "daemon; its log has the API's answer.");
    else
        (void) snprintf(text, STATS_NOTICE_MAX,
                        "Held by the %s: nothing is sent. 'pulse-cancelctl release' resumes.",
                        held);
    return true;
}

static bool paused_notice(struct json_object *stats, char *text)
{
    char time[OUTPUT_TIME_MAX];
    const char *until = json_get_string(stats, "paused_until");
    if (until == NULL)
        return false;
    (void) snprintf(text, STATS_NOTICE_MAX,
                    "Paused until %s, as the server asked. 'pulse-cancelctl flush' ends it.",
                    output_time(until, time));
    return true;
}

static bool breaker_notice(struct json_object *stats, char *text)
{
    const char *breaker = json_get_string(stats, "breaker");
    if (breaker == NULL || strcmp(breaker, "closed") == 0)
        return false;
    (void) snprintf(text, STATS_NOTICE_MAX,
                    "The API is in trouble (breaker %s): one request at a time is tried until one "
                    "gets through.",
                    breaker);
    return true;
}

static bool storage_notice(struct json_object *stats, char *text)
{
    const char *storage = json_get_string(stats, "storage");
    if (storage == NULL || strcmp(storage, "ok") == 0)
        return false;
    (void) snprintf(text, STATS_NOTICE_MAX,
                    "Storage in trouble: %.120s. Free space or repair it; the daemon goes on by "
                    "itself.",
                    storage);
    return true;
}

static bool nats_notice(struct json_object *stats, char *text)
{
    const char *nats = json_get_string(stats, "nats");
    if (nats == NULL || strcmp(nats, "connected") == 0)
        return false;
    (void) snprintf(text, STATS_NOTICE_MAX, "NATS: %.200s", nats);
    return true;
}

bool stats_notice(struct json_object *stats, size_t i, char ret_text[static STATS_NOTICE_MAX])
{
    static bool (*const notices[])(struct json_object *, char *) = {
        storage_notice, held_notice, paused_notice, breaker_notice, nats_notice,
    };
    for (size_t n = 0; n < sizeof(notices) / sizeof(notices[0]); n++)
        if (notices[n](stats, ret_text) && i-- == 0)
            return true;
    return false;
}

/* --- stats --- */

static void show_label(const struct invocation *inv, const char *label)
{
    output_put(inv->out, stdout, STYLE_STRONG, label, LABEL_WIDTH);
}

/* NAME N, NAME N, … of a group's members; with `all` the zeros as well. */
static void show_group(const struct invocation *inv, struct json_object *stats, const char *label,
                       const char *group, bool all)
{
    struct json_object *object = json_object_object_get(stats, group);
    char count[OUTPUT_COUNT_MAX];
    bool first = true;
    show_label(inv, label);
    if (json_object_is_type(object, json_type_object)) {
        json_object_object_foreach(object, name, value)
        {
            int64_t n = json_object_get_int64(value);
            if (n == 0 && !all)
                continue;
            (void) fputs(first ? "" : ", ", stdout);
            output_put(inv->out, stdout, output_style_of(name), name, 0);
            (void) printf(" %s", output_count(n, count));
            first = false;
        }
    }
    (void) puts(first ? "none" : "");
}

static void show_number(struct json_object *stats, const char *group, const char *member,
                        const char *text, const char *end)
{
    char count[OUTPUT_COUNT_MAX];
    (void) printf("%s %s%s", text, output_count(stats_number(stats, group, member), count), end);
}

static void show_stats(const struct invocation *inv, struct json_object *stats)
{
    char text[STATS_NOTICE_MAX];
    char span[OUTPUT_SPAN_MAX];
    const char *version = json_get_string(stats, "version");
    const char *endpoint = json_get_string(stats, "endpoint");

    show_label(inv, "Daemon");
    output_put(inv->out, stdout, STYLE_PLAIN, version != NULL ? version : "?", 0);
    (void) printf(", pid %" PRId64 ", up %s\n", stats_number(stats, NULL, "pid"),
                  output_span(stats_number(stats, NULL, "uptime_s"), span));
    for (size_t i = 0; stats_notice(stats, i, text); i++) {
        show_label(inv, "Attention");
        output_put(inv->out, stdout, STYLE_BAD, text, 0);
        (void) fputc('\n', stdout);
    }
    show_group(inv, stats, "Pending", "pending", true);
    show_group(inv, stats, "Accepted", "accepted", true);
    show_group(inv, stats, "Results", "results", false);
    show_group(inv, stats, "Replies", "replies", false);
    show_label(inv, "Attempts");
    show_number(stats, NULL, "attempts", "counted", ",");
    show_number(stats, NULL, "retries", " retries", ",");
    show_number(stats, NULL, "verifications", " verifications", ",");
    show_number(stats, NULL, "coalesced", " coalesced requests", "\n");
    show_group(inv, stats, "Spool", "spool", true);
    show_group(inv, stats, "Socket", "socket", true);
    show_label(inv, "Limits");
    show_number(stats, NULL, "in_flight_limit", "in flight", ",");
    if (json_object_object_get(stats, "rate_per_s") != NULL)
        show_number(stats, NULL, "rate_per_s", " requests a second", "\n");
    else
        (void) puts(" no limit of the rate");
    show_label(inv, "Endpoint");
    output_put(inv->out, stdout, STYLE_PLAIN, endpoint != NULL ? endpoint : "?", 0);
    (void) fputc('\n', stdout);
}

enum ctl_exit stats_run(const struct invocation *inv)
{
    return call_once(inv, "stats", NULL, CALL_QUICK_MS, show_stats);
}
