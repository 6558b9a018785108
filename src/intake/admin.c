/* hold, release, flush, withdraw and reload: params in, answers out; what they do is the host's.
 * Loop thread. */
#include "intake/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "intake/control_core.h"
#include "intake/methods.h"
#include "intake/target.h"

#define RESULT_MAX ((size_t) 64 * 1024)
/* Of a job's requests, so many are withdrawn at a time. */
#define WITHDRAW_STEP 5000

/* {"MEMBER":N} */
static void answer_number(struct call *call, const char *member, int status, int64_t n)
{
    char text[64];
    int len = snprintf(text, sizeof(text), "{\"%s\":%" PRId64 "}", member, n);
    if (status < 0)
        methods_refuse(call, status);
    else
        call_result(call, text, (size_t) len);
}

static bool refuse(struct call *call, struct json_object *params)
{
    return methods_refuse_params(call, params) || methods_refuse_in_trouble(call);
}

/* --- hold and release --- */

static void answer_held(struct call *call, int status, bool held)
{
    static const char yes[] = "{\"held\":true}";
    static const char no[] = "{\"held\":false}";
    if (status < 0)
        methods_refuse(call, status);
    else
        call_result(call, held ? yes : no, held ? sizeof(yes) - 1 : sizeof(no) - 1);
}

static void on_held(void *userdata, int status, int64_t n)
{
    (void) n;
    answer_held(userdata, status, true);
}

static void on_released(void *userdata, int status, int64_t n)
{
    (void) n;
    answer_held(userdata, status, false);
}

void admin_run_hold(struct call *call, struct json_object *params)
{
    const struct control_host *host = &call->control->host;
    if (!refuse(call, params))
        host->hold(host->userdata, true, on_held, call);
}

void admin_run_release(struct call *call, struct json_object *params)
{
    const struct control_host *host = &call->control->host;
    if (!refuse(call, params))
        host->hold(host->userdata, false, on_released, call);
}

/* --- flush --- */

static void on_flushed(void *userdata, int status, int64_t n)
{
    answer_number(userdata, "flushed", status, n);
}

void admin_run_flush(struct call *call, struct json_object *params)
{
    const struct control_host *host = &call->control->host;
    if (!refuse(call, params))
        host->flush(host->userdata, on_flushed, call);
}

/* --- withdraw --- */

struct withdrawal {
    struct call *call;
    struct target target;
    bool more; /* the last step may not have been all */
    int64_t n;
};

static void finish(struct withdrawal *w, int status)
{
    answer_number(w->call, "withdrawn", status, w->n);
    free(w);
}

static void read_pending(struct withdrawal *w);

static void on_withdrawn(void *userdata, int status, int64_t n)
{
    struct withdrawal *w = userdata;
    w->n += n;
    /* A step that finds only what is in flight is the last, too. */
    if (status == 0 && w->more && n > 0)
        read_pending(w);
    else
        finish(w, status);
}

static void on_pending(struct queue_query *query, int status, void *userdata)
{
    struct withdrawal *w = userdata;
    struct control *c = w->call->control;
    if (status == 0 && c->shut)
        status = -ESHUTDOWN;
    if (status < 0 || query->n_rows == 0) {
        finish(w, status);
        return;
    }
    w->more = query->n_rows == query->limit && w->target.kind == TARGET_JOB_ID;
    c->host.withdraw(c->host.userdata, query->rows, query->n_rows, on_withdrawn, w);
}

static void read_pending(struct withdrawal *w)
{
    bool by_job = w->target.kind == TARGET_JOB_ID;
    struct queue_query *query =
        queue_query_create(by_job ? QUERY_PENDING_JOB_ID : QUERY_REQUEST_ID);
    if (query == NULL) {
        finish(w, -ENOMEM);
        return;
    }
    (void) snprintf(query->text, sizeof(query->text), "%s", w->target.text);
    query->limit = by_job ? WITHDRAW_STEP : 1;
    query->done = on_pending;
    query->userdata = w;
    queue_read(w->call->control->queue, query);
}

void admin_run_withdraw(struct call *call, struct json_object *params)
{
    struct target target;
    const char *wrong = target_read(params, false, &target);
    if (wrong != NULL) {
        call_error(call, RPC_PARAMS, wrong);
        return;
    }
    if (methods_refuse_in_trouble(call))
        return;
    struct withdrawal *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        methods_refuse(call, -ENOMEM);
        return;
    }
    *w = (struct withdrawal){ .call = call, .target = target };
    call_set_load(call, (struct call_load){ .weight = METHODS_READ_WEIGHT });
    read_pending(w);
}

/* --- reload --- */

/* "a, b" to "a","b" */
static int append_names(struct buf *b, const char *names)
{
    int r = 0;
    for (bool first = true; *names != '\0' && r == 0; first = false) {
        size_t len = strcspn(names, ",");
        if (!first)
            r = buf_append_char(b, ',');
        if (r == 0)
            r = json_append_string(b, names, len);
        names += len;
        names += strspn(names, ", ");
    }
    return r;
}

static void answer_reload(struct call *call, struct buf *names)
{
    struct buf result;
    buf_init(&result, RESULT_MAX);
    int r = buf_append_str(&result, "{\"reloaded\":true,\"restart_needed\":[");
    if (r == 0 && names->len > 0)
        r = append_names(&result, buf_cstr(names));
    if (r == 0)
        r = buf_append_str(&result, "]}");
    if (r < 0)
        methods_refuse(call, r);
    else
        call_result(call, result.data, result.len);
    buf_finish(&result);
}

void admin_run_reload(struct call *call, struct json_object *params)
{
    if (methods_refuse_params(call, params))
        return;
    const struct control_host *host = &call->control->host;
    struct buf names, error;
    buf_init(&names, RESULT_MAX / 2);
    buf_init(&error, 4096);
    int r = host->reload(host->userdata, &names, &error);
    if (r == 0)
        answer_reload(call, &names);
    else
        call_error(call, RPC_BAD_CONFIGURATION, error.len > 0 ? buf_cstr(&error) : strerror(-r));
    buf_finish(&names);
    buf_finish(&error);
}
