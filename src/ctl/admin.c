/* The commands that make one call each, or one for each job they are given. */
#include "ctl/admin.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/json.h"
#include "ctl/call.h"
#include "ctl/target.h"

#define PARAMS_MAX 4096

/* --- hold, release, flush, reload, ping --- */

static void show_held(const struct invocation *inv, struct json_object *result)
{
    (void) inv;
    if (json_object_get_boolean(json_object_object_get(result, "held")))
        (void) puts(
            "Held: nothing new is sent, requests are still accepted, and their deadlines go "
            "on counting.\n'pulse-cancelctl release' resumes.");
    else
        (void) puts("Released: requests are sent.");
}

enum ctl_exit admin_hold(const struct invocation *inv)
{
    return call_once(inv, "hold", NULL, CALL_QUICK_MS, show_held);
}

enum ctl_exit admin_release(const struct invocation *inv)
{
    return call_once(inv, "release", NULL, CALL_QUICK_MS, show_held);
}

static void show_flushed(const struct invocation *inv, struct json_object *result)
{
    char count[OUTPUT_COUNT_MAX];
    (void) inv;
    int64_t n = json_object_get_int64(json_object_object_get(result, "flushed"));
    (void) printf("%s waiting %s due now.\n", output_count(n, count),
                  n == 1 ? "retry is" : "retries are");
}

enum ctl_exit admin_flush(const struct invocation *inv)
{
    return call_once(inv, "flush", NULL, CALL_SLOW_MS, show_flushed);
}

static void show_reloaded(const struct invocation *inv, struct json_object *result)
{
    struct json_object *settings = json_object_object_get(result, "restart_needed");
    size_t n =
        json_object_is_type(settings, json_type_array) ? json_object_array_length(settings) : 0;
    (void) puts(
        "The configuration is read anew, and the key unless systemd passed it at the start.");
    for (size_t i = 0; i < n; i++) {
        (void) fputs(i == 0 ? "These settings take effect after a restart: " : ", ", stdout);
        output_put(inv->out, stdout, STYLE_STRONG,
                   json_object_get_string(json_object_array_get_idx(settings, i)), 0);
    }
    if (n > 0)
        (void) puts("\nIt loses nothing: sudo systemctl restart pulse-canceld");
}

enum ctl_exit admin_reload(const struct invocation *inv)
{
    return call_once(inv, "reload", NULL, CALL_SLOW_MS, show_reloaded);
}

static void show_ping(const struct invocation *inv, struct json_object *result)
{
    const char *version = json_get_string(result, "version");
    (void) fputs("pulse-canceld ", stdout);
    output_put(inv->out, stdout, STYLE_PLAIN, version != NULL ? version : "?", 0);
    (void) printf(" answers, pid %" PRId64 "\n",
                  json_object_get_int64(json_object_object_get(result, "pid")));
}

enum ctl_exit admin_ping(const struct invocation *inv)
{
    return call_once(inv, "ping", NULL, CALL_QUICK_MS, show_ping);
}

/* --- withdraw --- */

static enum ctl_exit withdraw_one(const struct invocation *inv, struct connection *c,
                                  const struct target *target, void *userdata)
{
    int64_t *n = userdata;
    struct answer a;
    enum ctl_exit status = call_run(inv, c, "withdraw", target->params, CALL_SLOW_MS, &a);
    if (status != CTL_OK)
        return status;
    int64_t withdrawn = json_object_get_int64(json_object_object_get(a.result, "withdrawn"));
    if (invocation_has(inv, OPTION_JSON))
        call_print_json(&a);
    else if (withdrawn == 0)
        output_complain("%s: nothing to withdraw; it is in flight, done, or was never asked for\n"
                        "See 'pulse-cancelctl status %s%s'.",
                        target->name, target->is_request ? "--request-id " : "", target->name);
    *n += withdrawn;
    answer_finish(&a);
    return CTL_OK;
}

enum ctl_exit admin_withdraw(const struct invocation *inv)
{
    char count[OUTPUT_COUNT_MAX];
    int64_t n = 0;
    enum ctl_exit status = target_each(inv, withdraw_one, &n);
    if (status == CTL_OK && !invocation_has(inv, OPTION_JSON))
        (void) printf("%s withdrawn.\n", output_count(n, count));
    return status;
}

/* --- retry --- */

static enum ctl_exit retry_one(const struct invocation *inv, struct connection *c,
                               const struct target *target, void *userdata)
{
    int64_t *n = userdata;
    int64_t before = *n;
    bool more = true;
    while (more) {
        struct answer a;
        enum ctl_exit status = call_run(inv, c, "retry", target->params, CALL_SLOW_MS, &a);
        if (status != CTL_OK)
            return status;
        struct json_object *requests = json_object_object_get(a.result, "requests");
        size_t len =
            json_object_is_type(requests, json_type_array) ? json_object_array_length(requests) : 0;
        /* A page on which others were faster is empty and yet not the last, but ends us. */
        more = len > 0 && json_object_get_boolean(json_object_object_get(a.result, "more"));
        if (invocation_has(inv, OPTION_JSON))
            call_print_json(&a);
        *n += (int64_t) len;
        answer_finish(&a);
    }
    if (*n == before && !invocation_has(inv, OPTION_JSON))
        output_complain("%s: nothing to retry; requests that are pending, were cancelled, came too "
                        "late or were retried before are left alone\n"
                        "See 'pulse-cancelctl %s'.",
                        target->name,
                        target->is_outcome   ? "list --state done"
                        : target->is_request ? "status --request-id ID"
                                             : "status JOB");
    return CTL_OK;
}

enum ctl_exit admin_retry(const struct invocation *inv)
{
    char count[OUTPUT_COUNT_MAX];
    int64_t n = 0;
    enum ctl_exit status = target_each(inv, retry_one, &n);
    if (!invocation_has(inv, OPTION_JSON) && (status == CTL_OK || n > 0))
        (void) printf("%s queued anew.\n", output_count(n, count));
    return status;
}
