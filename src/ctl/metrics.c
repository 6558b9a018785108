/* metrics: the daemon's numbers in Prometheus' text format.
 *
 *   # HELP NAME what it is
 *   # TYPE NAME counter
 *   NAME{LABEL="VALUE"} N */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/call.h"
#include "ctl/stats.h"
#include "ctl/when.h"

#define PREFIX "pulse_canceld_"
#define METRICS_MAX ((size_t) 1024 * 1024)

static int head(struct buf *b, const char *name, const char *type, const char *help)
{
    return buf_printf(b, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name,
                      type);
}

/* A label's value, with what would end it escaped. */
static int append_label(struct buf *b, const char *name, const char *value)
{
    int r = buf_printf(b, "%s=\"", name);
    for (; *value != '\0' && r == 0; value++) {
        if (*value == '\n')
            r = buf_append_str(b, "\\n");
        else if (*value == '"' || *value == '\\')
            r = buf_printf(b, "\\%c", *value);
        else
            r = buf_append_char(b, *value);
    }
    return r == 0 ? buf_append_char(b, '"') : r;
}

/* One with a label. */
static int labelled(struct buf *b, const char *name, const char *label, const char *value,
                    int64_t n)
{
    int r = buf_printf(b, PREFIX "%s{", name);
    if (r == 0)
        r = append_label(b, label, value);
    return r == 0 ? buf_printf(b, "} %" PRId64 "\n", n) : r;
}

struct plain {
    const char *name;
    const char *type;
    const char *help;
    const char *group; /* NULL = at the top */
    const char *member;
};

static const struct plain plains[] = {
    { "uptime_seconds", "gauge", "Time since the daemon's start.", NULL, "uptime_s" },
    { "attempts_total", "counter", "Cancel attempts that counted.", NULL, "attempts" },
    { "retries_total", "counter", "Attempts that were not the first for their job.", NULL,
      "retries" },
    { "verifications_total", "counter", "Questions for a job's status.", NULL, "verifications" },
    { "coalesced_total", "counter", "Requests that joined another for the same job.", NULL,
      "coalesced" },
    { "spool_files_total", "counter", "Spool files taken.", "spool", "files" },
    { "spool_rejected_total", "counter", "Spool files rejected.", "spool", "rejected" },
    { "socket_clients", "gauge", "Clients connected to the socket.", "socket", "clients" },
    { "in_flight_limit", "gauge", "How many requests may be under way at a time.", NULL,
      "in_flight_limit" },
};

struct family {
    const char *name;
    const char *type;
    const char *help;
    const char *group;
    const char *label;
};

static const struct family families[] = {
    { "pending_requests", "gauge", "Requests that have no outcome yet, by state.", "pending",
      "state" },
    { "accepted_total", "counter", "Requests accepted, by where they came from.", "accepted",
      "source" },
    { "results_total", "counter", "Requests finished, by outcome.", "results", "outcome" },
    { "replies_total", "counter", "Replies of the API, by HTTP status; transport: no reply.",
      "replies", "status" },
};

static int append_plains(struct buf *b, struct json_object *stats)
{
    int r = 0;
    for (size_t i = 0; i < sizeof(plains) / sizeof(plains[0]) && r == 0; i++) {
        const struct plain *p = &plains[i];
        r = head(b, p->name, p->type, p->help);
        if (r == 0)
            r = buf_printf(b, PREFIX "%s %" PRId64 "\n", p->name,
                           stats_number(stats, p->group, p->member));
    }
    return r;
}

static int append_families(struct buf *b, struct json_object *stats)
{
    int r = 0;
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]) && r == 0; i++) {
        const struct family *f = &families[i];
        struct json_object *group = json_object_object_get(stats, f->group);
        if (!json_object_is_type(group, json_type_object) || json_object_object_length(group) == 0)
            continue;
        r = head(b, f->name, f->type, f->help);
        json_object_object_foreach(group, name, value)
        {
            if (r == 0)
                r = labelled(b, f->name, f->label, name, json_object_get_int64(value));
        }
    }
    return r;
}

/* One that is 1 for the state that is, and 0 for the others. */
static int append_states(struct buf *b, const char *name, const char *help, const char *label,
                         const char *const *states, const char *now)
{
    int r = head(b, name, "gauge", help);
    for (size_t i = 0; states[i] != NULL && r == 0; i++)
        r = labelled(b, name, label, states[i], now != NULL && strcmp(states[i], now) == 0);
    return r;
}

static int append_flag(struct buf *b, const char *name, const char *help, int64_t value)
{
    int r = head(b, name, "gauge", help);
    return r == 0 ? buf_printf(b, PREFIX "%s %" PRId64 "\n", name, value) : r;
}

static int64_t pause_seconds(struct json_object *stats)
{
    int64_t until_ms;
    int64_t now_ms = clock_wall_ms();
    const char *until = json_get_string(stats, "paused_until");
    if (until == NULL || when_parse(until, now_ms, &until_ms) < 0 || until_ms <= now_ms)
        return 0;
    return (until_ms - now_ms + 999) / 1000;
}

static int append_conditions(struct buf *b, struct json_object *stats)
{
    static const char *const holders[] = { "operator", "key", NULL };
    static const char *const breakers[] = { "closed", "open", "half_open", NULL };
    const char *storage = json_get_string(stats, "storage");
    const char *nats = json_get_string(stats, "nats");
    struct json_object *rate = json_object_object_get(stats, "rate_per_s");

    int r = append_states(b, "held", "1: sending is held, by whom.", "by", holders,
                          json_get_string(stats, "held"));
    if (r == 0)
        r = append_states(b, "breaker", "1: the state of the breaker.", "state", breakers,
                          json_get_string(stats, "breaker"));
    if (r == 0)
        r = append_flag(b, "pause_remaining_seconds", "How long nothing is sent, as the API asked.",
                        pause_seconds(stats));
    if (r == 0)
        r = append_flag(b, "storage_ok", "0: storage is in trouble, nothing new is accepted.",
                        storage != NULL && strcmp(storage, "ok") == 0);
    if (r == 0 && nats != NULL)
        r = append_flag(b, "nats_connected", "1: connected to NATS.",
                        strcmp(nats, "connected") == 0);
    if (r == 0 && rate != NULL)
        r = append_flag(b, "rate_limit_requests_per_second", "Requests a second, at most.",
                        json_object_get_int64(rate));
    return r;
}

static int append_up(struct buf *b, bool up)
{
    return append_flag(b, "up", "1: the daemon answers.", up);
}

int metrics_append(struct buf *b, struct json_object *stats)
{
    const char *version = json_get_string(stats, "version");
    const char *endpoint = json_get_string(stats, "endpoint");
    int r = append_up(b, true);
    if (r == 0)
        r = head(b, "info", "gauge", "The daemon's version, and the endpoint it uses.");
    if (r == 0)
        r = buf_append_str(b, PREFIX "info{");
    if (r == 0)
        r = append_label(b, "version", version != NULL ? version : "");
    if (r == 0)
        r = buf_append_char(b, ',');
    if (r == 0)
        r = append_label(b, "endpoint", endpoint != NULL ? endpoint : "");
    if (r == 0)
        r = buf_append_str(b, "} 1\n");
    if (r == 0)
        r = append_plains(b, stats);
    if (r == 0)
        r = append_families(b, stats);
    return r == 0 ? append_conditions(b, stats) : r;
}

static void print(struct buf *b, int r)
{
    if (r == 0)
        (void) fwrite(b->data, 1, b->len, stdout);
    else
        output_complain("%s", strerror(-r));
}

static void show_metrics(const struct invocation *inv, struct json_object *stats)
{
    struct buf b;
    (void) inv;
    buf_init(&b, METRICS_MAX);
    print(&b, metrics_append(&b, stats));
    buf_finish(&b);
}

enum ctl_exit metrics_run(const struct invocation *inv)
{
    enum ctl_exit status = call_once(inv, "stats", NULL, CALL_QUICK_MS, show_metrics);
    /* A file that is merely left as it was says nothing of this. But whoever may not ask does not
     * know. */
    if (status == CTL_UNREACHABLE && !invocation_has(inv, OPTION_JSON) &&
        (access(inv->values[OPTION_SOCKET], W_OK) == 0 || errno != EACCES)) {
        struct buf b;
        buf_init(&b, METRICS_MAX);
        print(&b, append_up(&b, false));
        buf_finish(&b);
    }
    return status;
}
