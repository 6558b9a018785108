/* The table of methods, and the ones that only read. Loop thread. */
#include "intake/methods.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "intake/admin.h"
#include "intake/cancel.h"
#include "intake/client.h"
#include "intake/listing.h"
#include "intake/retry.h"
#include "intake/subscribe.h"
#include "intake/target.h"

#define RESULT_MAX ((size_t) 128 * 1024 * 1024)
#define STATUS_ROWS_MAX 1000

enum request_state methods_state(const struct control *c, const struct request *req,
                                 int64_t leader_seq)
{
    if (req->state == REQUEST_DONE || leader_seq == 0)
        return req->state;
    int state = c->host.leader_state(c->host.userdata, leader_seq);
    /* The row may have been read before it was told to wait: then it has no due time to show. */
    if (state < 0 || state == REQUEST_WAITING)
        return req->state;
    return (enum request_state) state;
}

int methods_append_accepted(struct buf *b, const struct request *req)
{
    int r = buf_append_str(b, "{\"request_id\":");
    if (r == 0)
        r = json_append_cstr(b, req->request_id);
    if (r == 0)
        r = buf_append_str(b, ",\"job_id\":");
    return r == 0 ? json_append_cstr(b, req->job_id) : r;
}

/* Ends the call with the text, or with an error if making it failed. */
static void finish(struct call *call, struct buf *result, int r)
{
    if (r < 0)
        call_error(call, RPC_INTERNAL, strerror(-r));
    else
        call_result(call, result->data, result->len);
    buf_finish(result);
}

bool methods_refuse_params(struct call *call, struct json_object *params)
{
    if (params == NULL || json_object_object_length(params) == 0)
        return false;
    call_error(call, RPC_PARAMS, "this method takes none");
    return true;
}

bool methods_refuse_in_trouble(struct call *call)
{
    if (queue_storage_trouble(call->control->queue) == NULL)
        return false;
    methods_refuse(call, -EIO);
    return true;
}

void methods_refuse(struct call *call, int r)
{
    const char *trouble;
    switch (-r) {
    case EXFULL:
        call_error(call, RPC_QUEUE_FULL,
                   "as many requests are pending as queue.max_pending allows");
        break;
    case EEXIST:
        call_error(call, RPC_PARAMS, "request_id belongs to another job");
        break;
    case ESHUTDOWN:
        call_error(call, RPC_SHUTTING_DOWN, NULL);
        break;
    case EIO:
        trouble = queue_storage_trouble(call->control->queue);
        /* A commit that failed is told before the trouble that it shows. */
        call_error(call, RPC_STORAGE_UNAVAILABLE,
                   trouble != NULL ? trouble : "the database can't be written");
        break;
    default:
        call_error(call, RPC_INTERNAL, strerror(-r));
        break;
    }
}

/* --- ping --- */

static void run_ping(struct call *call, struct json_object *params)
{
    if (methods_refuse_params(call, params))
        return;
    struct buf result;
    buf_init(&result, RESULT_MAX);
    int r = buf_append_str(&result, "{\"version\":");
    if (r == 0)
        r = json_append_cstr(&result, PULSE_VERSION);
    if (r == 0)
        r = buf_printf(&result, ",\"pid\":%d}", getpid());
    finish(call, &result, r);
}

/* --- stats --- */

static void run_stats(struct call *call, struct json_object *params)
{
    if (methods_refuse_params(call, params))
        return;
    const struct control_host *host = &call->control->host;
    struct buf result;
    buf_init(&result, RESULT_MAX);
    finish(call, &result, host->append_stats(host->userdata, &result));
}

/* --- status --- */

static int append_rows(struct buf *b, const struct control *c, const struct queue_query *query)
{
    int r = buf_append_char(b, '[');
    for (size_t i = 0; i < query->n_rows && r == 0; i++) {
        const struct queue_row *row = &query->rows[i];
        if (i > 0)
            r = buf_append_char(b, ',');
        if (r == 0)
            r = request_append_item(b, row->request,
                                    methods_state(c, row->request, row->leader_seq));
    }
    return r == 0 ? buf_append_char(b, ']') : r;
}

static void on_status_read(struct queue_query *query, int status, void *userdata)
{
    struct call *call = userdata;
    if (status == -ESHUTDOWN) {
        call_error(call, RPC_SHUTTING_DOWN, NULL);
        return;
    }
    if (status < 0) {
        call_error(call, RPC_STORAGE_UNAVAILABLE, "the database can't be read");
        return;
    }
    struct buf result;
    buf_init(&result, RESULT_MAX);
    finish(call, &result, append_rows(&result, call->control, query));
}

static void run_status(struct call *call, struct json_object *params)
{
    struct target target;
    const char *wrong = target_read(params, false, &target);
    if (wrong != NULL) {
        call_error(call, RPC_PARAMS, wrong);
        return;
    }
    struct queue_query *query =
        queue_query_create(target.kind == TARGET_JOB_ID ? QUERY_JOB_ID : QUERY_REQUEST_ID);
    if (query == NULL) {
        call_error(call, RPC_INTERNAL, strerror(ENOMEM));
        return;
    }
    (void) snprintf(query->text, sizeof(query->text), "%s", target.text);
    query->limit = STATUS_ROWS_MAX;
    query->done = on_status_read;
    query->userdata = call;
    call_set_load(call, (struct call_load){ .weight = METHODS_READ_WEIGHT });
    queue_read(call->control->queue, query);
}

/* --- The table --- */

static const struct method {
    const char *name;
    bool when_shut;   /* answers while the daemon shuts down */
    bool needs_admin; /* see permission.h */
    void (*run)(struct call *call, struct json_object *params);
} methods[] = {
    { .name = "cancel", .run = cancel_run },
    { .name = "status", .run = run_status, .when_shut = true },
    { .name = "stats", .run = run_stats, .when_shut = true },
    { .name = "ping", .run = run_ping, .when_shut = true },
    { .name = "list", .run = listing_run, .when_shut = true },
    { .name = "subscribe", .run = subscribe_run },
    { .name = "hold", .run = admin_run_hold, .needs_admin = true },
    { .name = "release", .run = admin_run_release, .needs_admin = true },
    { .name = "flush", .run = admin_run_flush, .needs_admin = true },
    { .name = "retry", .run = retry_run, .needs_admin = true },
    { .name = "withdraw", .run = admin_run_withdraw, .needs_admin = true },
    { .name = "reload", .run = admin_run_reload, .needs_admin = true },
};

static const struct method *find_method(const char *name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

/* Who steers the daemon is in its log. */
static bool may_administer(const struct call *call, const char *name)
{
    bool may = client_is_admin(call->client);
    if (may)
        log_info("control: %s, by %s", name, call->client->origin);
    else
        log_debug("control: %s refused, to %s", name, call->client->origin);
    return may;
}

void methods_run(struct call *call, const char *name, struct json_object *params)
{
    const struct method *method = find_method(name);
    if (method == NULL)
        call_error(call, RPC_METHOD, NULL);
    else if (method->needs_admin && !may_administer(call, name))
        call_error(call, RPC_PERMISSION_DENIED,
                   "only root, the daemon's user and socket.admin_group may do this");
    else if (call->control->shut && !method->when_shut)
        call_error(call, RPC_SHUTTING_DOWN, NULL);
    else
        method->run(call, params);
}

void methods_run_line(struct call *call, const struct line *line)
{
    if (call->control->shut)
        call_error(call, RPC_SHUTTING_DOWN, NULL);
    else
        cancel_run_line(call, line);
}
