/* retry: finds what can be tried again, and puts it into the queue, all or nothing. Loop thread.
 *
 * Both are under way when the client may vanish: it is done all the same, as with a cancel. */
#include "intake/retry.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/uuid.h"
#include "intake/client.h"
#include "intake/methods.h"
#include "intake/target.h"

#define REQUESTS_MAX 1000
#define RESULT_MAX ((size_t) 16 * 1024 * 1024)

struct retry {
    struct call *call;
    char origin[sizeof(((struct client *) NULL)->origin)];
    bool more;
    size_t n;
    char **retry_of; /* n request_ids */
};

static void retry_free(struct retry *retry)
{
    for (size_t i = 0; i < retry->n; i++)
        free(retry->retry_of[i]);
    free(retry->retry_of);
    free(retry);
}

static void refuse(struct retry *retry, int r)
{
    methods_refuse(retry->call, r);
    retry_free(retry);
}

/* --- The answer --- */

static int append_retried(struct buf *b, const struct request *req, const char *retry_of)
{
    int r = methods_append_accepted(b, req);
    if (r == 0)
        r = buf_append_str(b, ",\"retry_of\":");
    if (r == 0)
        r = json_append_cstr(b, retry_of);
    return r == 0 ? buf_append_char(b, '}') : r;
}

/* `put` is NULL when there was nothing to put. */
static void answer(struct retry *retry, const struct queue_put *put)
{
    struct control *c = retry->call->control;
    struct buf result;
    bool first = true;
    buf_init(&result, RESULT_MAX);
    int r = buf_append_str(&result, "{\"requests\":[");
    for (size_t i = 0; put != NULL && i < put->n_requests; i++) {
        /* Others may have been faster (PUT_RETRIED). */
        if (put->results[i].outcome != PUT_ACCEPTED)
            continue;
        c->accepted++;
        c->coalesced += put->results[i].coalesced;
        if (r == 0 && !first)
            r = buf_append_char(&result, ',');
        if (r == 0)
            r = append_retried(&result, put->requests[i], retry->retry_of[i]);
        first = false;
    }
    if (r == 0)
        r = buf_append_str(&result, retry->more ? "],\"more\":true}" : "],\"more\":false}");

    /* The requests are committed: an error would say that they are not. */
    if (r < 0 && retry->call->form != CALL_SILENT)
        client_close(retry->call->client);
    call_result(retry->call, result.data, result.len);
    buf_finish(&result);
    retry_free(retry);
}

/* --- The put --- */

static void on_put(struct queue_put *put, int status, void *userdata)
{
    struct retry *retry = userdata;
    call_set_load(retry->call, (struct call_load){ .weight = retry->call->load.weight });
    if (status < 0)
        refuse(retry, status);
    else
        answer(retry, put);
}

static struct request *make_request(const struct retry *retry, const struct request *old,
                                    int64_t now_ms)
{
    char request_id[UUID_TEXT_MAX];
    uuid7_make(now_ms, request_id);
    return request_create(SOURCE_SOCKET, request_id, old->job_id, strlen(old->job_id),
                          retry->origin, now_ms, now_ms + retry->call->control->deadline_s * 1000);
}

/* The put that retries these rows. NULL when out of memory. */
static struct queue_put *make_put(struct retry *retry, const struct queue_row *rows, size_t n)
{
    struct queue_put *put = queue_put_create(n);
    retry->retry_of = calloc(n, sizeof(retry->retry_of[0]));
    if (put == NULL || retry->retry_of == NULL)
        goto fail;
    put->retry_of = calloc(n, sizeof(put->retry_of[0]));
    if (put->retry_of == NULL)
        goto fail;
    int64_t now_ms = clock_steady_ms();
    for (size_t i = 0; i < n; i++) {
        retry->retry_of[i] = strdup(rows[i].request->request_id);
        retry->n = i + 1;
        put->retry_of[i] = rows[i].request->seq;
        put->requests[i] = make_request(retry, rows[i].request, now_ms);
        if (retry->retry_of[i] == NULL || put->requests[i] == NULL)
            goto fail;
    }
    put->atomic = true;
    put->done = on_put;
    put->userdata = retry;
    return put;
fail:
    queue_put_destroy(put);
    return NULL;
}

static void on_read(struct queue_query *query, int status, void *userdata)
{
    struct retry *retry = userdata;
    if (status == 0 && retry->call->control->shut)
        status = -ESHUTDOWN;
    if (status < 0) {
        refuse(retry, status);
        return;
    }
    size_t n = query->n_rows;
    if (n > REQUESTS_MAX) {
        n = REQUESTS_MAX;
        retry->more = true;
    }
    if (n == 0) {
        answer(retry, NULL);
        return;
    }
    struct queue_put *put = make_put(retry, query->rows, n);
    if (put == NULL) {
        refuse(retry, -ENOMEM);
        return;
    }
    call_set_load(retry->call, (struct call_load){
                                   .weight = retry->call->load.weight,
                                   .n_requests = n,
                               });
    int r = queue_put(retry->call->control->queue, put);
    if (r < 0) {
        queue_put_destroy(put);
        call_set_load(retry->call, (struct call_load){ .weight = retry->call->load.weight });
        refuse(retry, r);
    }
}

/* --- The call --- */

static struct queue_query *make_query(const struct target *target)
{
    static const enum queue_query_kind kinds[] = {
        [TARGET_JOB_ID] = QUERY_RETRY_JOB_ID,
        [TARGET_REQUEST_ID] = QUERY_RETRY_REQUEST_ID,
        [TARGET_OUTCOME] = QUERY_RETRY_OUTCOME,
    };
    struct queue_query *query = queue_query_create(kinds[target->kind]);
    if (query == NULL)
        return NULL;
    (void) snprintf(query->text, sizeof(query->text), "%s", target->text);
    if (target->kind == TARGET_OUTCOME)
        query->outcome = (int) target->outcome;
    query->limit = REQUESTS_MAX + 1;
    return query;
}

static bool retryable(enum outcome outcome)
{
    return outcome != OUTCOME_CANCELLED && outcome != OUTCOME_TOO_LATE &&
           outcome != OUTCOME_INVALID;
}

void retry_run(struct call *call, struct json_object *params)
{
    struct target target;
    const char *wrong = target_read(params, true, &target);
    if (wrong == NULL && target.kind == TARGET_OUTCOME && !retryable(target.outcome))
        wrong = "what ended as cancelled, too_late or invalid can't be retried";
    if (wrong != NULL) {
        call_error(call, RPC_PARAMS, wrong);
        return;
    }
    if (methods_refuse_in_trouble(call))
        return;

    struct queue_query *query = make_query(&target);
    struct retry *retry = calloc(1, sizeof(*retry));
    if (query == NULL || retry == NULL) {
        queue_query_destroy(query);
        free(retry);
        methods_refuse(call, -ENOMEM);
        return;
    }
    retry->call = call;
    (void) snprintf(retry->origin, sizeof(retry->origin), "%s", call->client->origin);
    query->done = on_read;
    query->userdata = retry;
    call_set_load(call, (struct call_load){ .weight = METHODS_READ_WEIGHT });
    queue_read(call->control->queue, query);
}
