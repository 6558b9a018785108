/* The table of methods, and the ones that only read. Loop thread. */
#include "intake/methods.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "intake/cancel.h"

#define RESULT_MAX ((size_t) 128 * 1024 * 1024)
#define STATUS_ROWS_MAX 1000
/* A status may read a thousand rows on a thread of the pool: a client gets few at a time. */
#define STATUS_WEIGHT 32

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

/* Ends the call with the text, or with an error if making it failed. */
static void finish(struct call *call, struct buf *result, int r)
{
    if (r < 0)
        call_error(call, RPC_INTERNAL, strerror(-r));
    else
        call_result(call, result->data, result->len);
    buf_finish(result);
}

static bool refuse_params(struct call *call, struct json_object *params)
{
    if (params == NULL || json_object_object_length(params) == 0)
        return false;
    call_error(call, RPC_PARAMS, "this method takes none");
    return true;
}

/* --- ping --- */

static void run_ping(struct call *call, struct json_object *params)
{
    if (refuse_params(call, params))
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
    if (refuse_params(call, params))
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
        call_error(call, RPC_STORAGE_UNAVAILABLE, "the queue can't be read");
        return;
    }
    struct buf result;
    buf_init(&result, RESULT_MAX);
    finish(call, &result, append_rows(&result, call->control, query));
}

/* What is wrong with the params, or NULL. */
static const char *read_status_params(struct json_object *params, const char **ret_text,
                                      bool *ret_by_job)
{
    struct json_object *job_id = NULL;
    struct json_object *request_id = NULL;
    bool by_job = json_object_object_get_ex(params, "job_id", &job_id);
    bool by_request = json_object_object_get_ex(params, "request_id", &request_id);
    if (by_job == by_request || json_object_object_length(params) != 1)
        return "status takes either job_id or request_id, and nothing else";

    struct json_object *value = by_job ? job_id : request_id;
    if (!json_object_is_type(value, json_type_string))
        return by_job ? "job_id is not a string" : "request_id is not a string";
    const char *text = json_object_get_string(value);
    size_t len = (size_t) json_object_get_string_len(value);
    if (by_job && !job_id_valid(text, len))
        return "job_id is not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)";
    if (!by_job && !request_id_valid(text, len))
        return "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -";
    *ret_text = text;
    *ret_by_job = by_job;
    return NULL;
}

static void run_status(struct call *call, struct json_object *params)
{
    const char *text;
    bool by_job;
    const char *wrong = read_status_params(params, &text, &by_job);
    if (wrong != NULL) {
        call_error(call, RPC_PARAMS, wrong);
        return;
    }
    struct queue_query *query = queue_query_create(by_job ? QUERY_JOB_ID : QUERY_REQUEST_ID);
    if (query == NULL) {
        call_error(call, RPC_INTERNAL, strerror(ENOMEM));
        return;
    }
    (void) snprintf(query->text, sizeof(query->text), "%s", text);
    query->limit = STATUS_ROWS_MAX;
    query->done = on_status_read;
    query->userdata = call;
    call_set_load(call, (struct call_load){ .weight = STATUS_WEIGHT });
    queue_read(call->control->queue, query);
}

/* --- The table --- */

static const struct method {
    const char *name;
    bool when_shut; /* answers while the daemon shuts down */
    void (*run)(struct call *call, struct json_object *params);
} methods[] = {
    { .name = "cancel", .run = cancel_run },
    { .name = "status", .run = run_status, .when_shut = true },
    { .name = "stats", .run = run_stats, .when_shut = true },
    { .name = "ping", .run = run_ping, .when_shut = true },
};

static const struct method *find_method(const char *name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

void methods_run(struct call *call, const char *name, struct json_object *params)
{
    const struct method *method = find_method(name);
    if (method == NULL)
        call_error(call, RPC_METHOD, NULL);
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
