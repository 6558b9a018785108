/* cancel: answered when its requests are committed, or with `wait` when all are final. Loop thread. */
#include "intake/cancel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/uuid.h"
#include "intake/client.h"
#include "intake/control_core.h"
#include "intake/methods.h"
#include "intake/waits.h"

#define JOB_IDS_MAX 10000
/* So many requests of one call weigh as much as a call. */
#define REQUESTS_PER_WEIGHT 100
#define RESULT_MAX ((size_t) 128 * 1024 * 1024)
#define ERROR_TEXT_MAX 512

struct cancel;

/* One request of a call that waits. */
struct member {
    struct wait wait; /* first: see member_of() */
    struct cancel *cancel;
    char *text; /* its answer as far as is known: as it was queued, in the end the result line */
    size_t text_len;
};

struct cancel {
    struct call *call;
    bool array; /* job_ids: the answer is an array */
    bool wait;
    size_t n;
    size_t n_open;           /* members that are waited for */
    struct member members[]; /* n when it waits, else none */
};

static void cancel_free(struct cancel *cancel)
{
    for (size_t i = 0; cancel->wait && i < cancel->n; i++) {
        waits_remove(&cancel->call->control->waits, &cancel->members[i].wait);
        free(cancel->members[i].text);
    }
    free(cancel);
}

static void cancel_abandon(void *owner)
{
    cancel_free(owner);
}

/* --- Answers --- */

static int append_accepted(struct buf *b, const struct request *req, bool coalesced)
{
    int r = methods_append_accepted(b, req);
    if (r == 0)
        r = buf_append_str(b, ",\"state\":\"queued\",\"coalesced\":");
    if (r == 0)
        r = buf_append_str(b, coalesced ? "true}" : "false}");
    return r;
}

/* The answer to one request of the put, as it stands. With *ret_final it is the result line. */
static int append_member(struct buf *b, const struct cancel *cancel, const struct queue_put *put,
                         size_t i, bool *ret_final)
{
    const struct queue_put_result *result = &put->results[i];
    *ret_final = false;
    switch (result->outcome) {
    case PUT_ACCEPTED:
        return append_accepted(b, put->requests[i], result->coalesced);
    case PUT_KNOWN:
        if (cancel->wait && result->known->state == REQUEST_DONE) {
            *ret_final = true;
            return request_append_result(b, result->known);
        }
        /* Of a follower, only the chain's first is known here; while that leads, it is right. */
        return request_append_item(
            b, result->known,
            methods_state(cancel->call->control, result->known,
                          result->known->follows ? result->known->chain : result->known->seq));
    case PUT_OTHER_JOB:
    case PUT_RETRIED:
    case PUT_LEFT: /* all or nothing: such a put fails as a whole */
        break;
    }
    return -EPROTO;
}

static int append_separator(struct buf *b, const struct cancel *cancel, size_t i)
{
    return cancel->array ? buf_append_char(b, i == 0 ? '[' : ',') : 0;
}

/* Ends the call and the cancel. */
static void finish(struct cancel *cancel, struct buf *result, int r)
{
    struct call *call = cancel->call;
    if (r == 0 && cancel->array)
        r = buf_append_char(result, ']');
    call->abandon = NULL;
    cancel_free(cancel);
    /* The requests are committed: an error would say that they are not. */
    if (r < 0 && call->form != CALL_SILENT)
        client_close(call->client);
    call_result(call, result->data, result->len);
    buf_finish(result);
}

static void answer_now(struct cancel *cancel, const struct queue_put *put)
{
    struct buf result;
    buf_init(&result, RESULT_MAX);
    int r = 0;
    bool final;
    for (size_t i = 0; i < put->n_requests && r == 0 && cancel->call->form != CALL_SILENT; i++) {
        r = append_separator(&result, cancel, i);
        if (r == 0)
            r = append_member(&result, cancel, put, i, &final);
    }
    finish(cancel, &result, r);
}

static void answer_members(struct cancel *cancel)
{
    struct buf result;
    buf_init(&result, RESULT_MAX);
    int r = 0;
    for (size_t i = 0; i < cancel->n && r == 0; i++) {
        r = append_separator(&result, cancel, i);
        if (r == 0)
            r = buf_append(&result, cancel->members[i].text, cancel->members[i].text_len);
    }
    finish(cancel, &result, r);
}

/* --- Waiting --- */

static void on_settled(struct wait *wait, const char *line, size_t len)
{
    struct member *member = (struct member *) wait;
    struct cancel *cancel = member->cancel;

    cancel->n_open--;
    if (line == NULL) {
        answer_members(cancel);
        return;
    }
    char *text = malloc(len);
    if (text == NULL) {
        /* The plain answer would be taken for the state of things. */
        client_close(cancel->call->client);
        return;
    }
    memcpy(text, line, len);
    free(member->text);
    member->text = text;
    member->text_len = len;
    if (cancel->array)
        call_hold(cancel->call, len);
    if (cancel->n_open == 0)
        answer_members(cancel);
}

static int wait_for_member(struct cancel *cancel, const struct queue_put *put, size_t i)
{
    struct member *member = &cancel->members[i];
    struct buf text;
    bool final = false;
    buf_init(&text, RESULT_MAX);
    int r = append_member(&text, cancel, put, i, &final);
    if (r == 0)
        member->text = buf_steal(&text, &member->text_len);
    buf_finish(&text);
    if (r < 0 || final)
        return r;

    member->cancel = cancel;
    member->wait.notify = on_settled;
    r = waits_add(&cancel->call->control->waits, &member->wait, put->requests[i]->request_id);
    if (r == 0)
        cancel->n_open++;
    return r;
}

static void wait_for_all(struct cancel *cancel, const struct queue_put *put)
{
    struct call *call = cancel->call;
    int r = 0;
    for (size_t i = 0; i < cancel->n && r == 0; i++)
        r = wait_for_member(cancel, put, i);
    if (r < 0) {
        answer_now(cancel, put);
        return;
    }
    if (cancel->n_open == 0) {
        answer_members(cancel);
        return;
    }
    call_set_load(call, (struct call_load){ .n_waits = cancel->n_open });
    call->abandon = cancel_abandon;
    call->owner = cancel;
    client_update(call->client);
    control_call_ended(call->control);
}

/* --- The put --- */

static void on_put(struct queue_put *put, int status, void *userdata)
{
    struct cancel *cancel = userdata;
    struct call *call = cancel->call;
    struct control *c = call->control;

    call_set_load(call, (struct call_load){ .weight = call->load.weight });
    if (status < 0) {
        cancel_free(cancel);
        methods_refuse(call, status);
        return;
    }
    for (size_t i = 0; i < put->n_requests; i++) {
        c->accepted += put->results[i].outcome == PUT_ACCEPTED;
        c->coalesced += put->results[i].outcome == PUT_ACCEPTED && put->results[i].coalesced;
    }
    if (cancel->wait && !c->shut && call->form != CALL_SILENT)
        wait_for_all(cancel, put);
    else
        answer_now(cancel, put);
}

static struct cancel *cancel_create(struct call *call, size_t n, bool array, bool wait)
{
    /* Who gets no answer waits for none. */
    wait = wait && call->form != CALL_SILENT;
    struct cancel *cancel =
        calloc(1, sizeof(*cancel) + (wait ? n * sizeof(cancel->members[0]) : 0));
    if (cancel != NULL)
        *cancel = (struct cancel){ .call = call, .array = array, .wait = wait, .n = n };
    return cancel;
}

/* Hands the put over, whatever it takes with it. */
static void put_requests(struct call *call, struct queue_put *put, bool array, bool wait)
{
    struct cancel *cancel = cancel_create(call, put->n_requests, array, wait);
    if (cancel == NULL) {
        queue_put_destroy(put);
        methods_refuse(call, -ENOMEM);
        return;
    }
    put->atomic = true;
    put->watch = cancel->wait;
    put->sync_fds[0] = -1;
    put->sync_fds[1] = -1;
    put->done = on_put;
    put->userdata = cancel;
    call_set_load(call, (struct call_load){
                            .weight = 1 + (unsigned) (put->n_requests / REQUESTS_PER_WEIGHT),
                            .n_requests = put->n_requests,
                        });
    int r = queue_put(call->control->queue, put);
    if (r < 0) {
        queue_put_destroy(put);
        cancel_free(cancel);
        methods_refuse(call, r);
    }
}

static struct request *make_request(const struct call *call, const char *job_id, size_t job_id_len,
                                    const char *request_id, int64_t deadline_s, int64_t now_ms)
{
    char made[UUID_TEXT_MAX];
    if (request_id[0] == '\0') {
        uuid7_make(now_ms, made);
        request_id = made;
    }
    if (deadline_s == 0)
        deadline_s = call->control->deadline_s;
    return request_create(SOURCE_SOCKET, request_id, job_id, job_id_len, call->client->origin,
                          now_ms, now_ms + deadline_s * 1000);
}

static void cancel_one(struct call *call, const struct line *line, bool wait)
{
    struct queue_put *put = queue_put_create(1);
    if (put != NULL)
        put->requests[0] = make_request(call, line->job_id, strlen(line->job_id), line->request_id,
                                        line->deadline_s, clock_steady_ms());
    if (put == NULL || put->requests[0] == NULL) {
        queue_put_destroy(put);
        methods_refuse(call, -ENOMEM);
        return;
    }
    put_requests(call, put, false, wait);
}

void cancel_run_line(struct call *call, const struct line *line)
{
    cancel_one(call, line, false);
}

/* --- job_ids --- */

struct many {
    struct json_object *job_ids;
    int64_t deadline_s; /* 0 = none was given */
    bool wait;
};

static int check_job_ids(struct json_object *job_ids, struct buf *reterr)
{
    if (!json_object_is_type(job_ids, json_type_array))
        return buf_append_str(reterr, "job_ids is not an array"), -EINVAL;
    size_t n = json_object_array_length(job_ids);
    if (n < 1 || n > JOB_IDS_MAX)
        return buf_printf(reterr, "job_ids has %zu members, not 1 to %d", n, JOB_IDS_MAX), -EINVAL;
    for (size_t i = 0; i < n; i++) {
        struct json_object *job_id = json_object_array_get_idx(job_ids, i);
        if (!json_object_is_type(job_id, json_type_string))
            return buf_printf(reterr, "job_ids[%zu] is not a string", i), -EINVAL;
        if (!job_id_valid(json_object_get_string(job_id),
                          (size_t) json_object_get_string_len(job_id)))
            return buf_printf(reterr, "job_ids[%zu] is not a job ID", i), -EINVAL;
    }
    return 0;
}

/* Everything but job_ids goes the way of a single cancel, so that both mean the same; the first job
 * stands in for the missing job_id. */
static int read_many(struct json_object *params, struct many *ret, struct buf *reterr)
{
    struct many many = { .job_ids = json_object_object_get(params, "job_ids") };
    int r = check_job_ids(many.job_ids, reterr);
    if (r < 0)
        return r;

    struct json_object *single = json_object_new_object();
    if (single == NULL)
        return -ENOMEM;
    json_object_object_foreach(params, member, value)
    {
        if (strcmp(member, "job_id") == 0 || strcmp(member, "request_id") == 0) {
            (void) buf_printf(reterr, "%s can't be given together with job_ids", member);
            r = -EINVAL;
        } else if (strcmp(member, "job_ids") == 0) {
            if (json_object_object_add(
                    single, "job_id", json_object_get(json_object_array_get_idx(many.job_ids, 0))) <
                0)
                r = -ENOMEM;
        } else if (json_object_object_add(single, member, json_object_get(value)) < 0) {
            r = -ENOMEM;
        }
        if (r < 0)
            goto out;
    }

    struct line line;
    r = line_from_object(single, &line, &many.wait, reterr);
    if (r == 0) {
        many.deadline_s = line.deadline_s;
        *ret = many;
    }
out:
    json_object_put(single);
    return r;
}

static void cancel_many(struct call *call, const struct many *many)
{
    size_t n = json_object_array_length(many->job_ids);
    int64_t now_ms = clock_steady_ms();
    struct queue_put *put = queue_put_create(n);
    for (size_t i = 0; put != NULL && i < n; i++) {
        struct json_object *job_id = json_object_array_get_idx(many->job_ids, i);
        put->requests[i] =
            make_request(call, json_object_get_string(job_id),
                         (size_t) json_object_get_string_len(job_id), "", many->deadline_s, now_ms);
        if (put->requests[i] == NULL) {
            queue_put_destroy(put);
            put = NULL;
        }
    }
    if (put == NULL)
        methods_refuse(call, -ENOMEM);
    else
        put_requests(call, put, true, many->wait);
}

void cancel_run(struct call *call, struct json_object *params)
{
    struct buf error;
    buf_init(&error, ERROR_TEXT_MAX);
    struct line line;
    struct many many;
    bool wait = false;
    int r;

    if (params == NULL) {
        call_error(call, RPC_PARAMS, "job_id or job_ids is missing");
    } else if (json_object_object_get_ex(params, "job_ids", NULL)) {
        r = read_many(params, &many, &error);
        if (r != 0)
            call_error(call, r == -ENOMEM ? RPC_INTERNAL : RPC_PARAMS, buf_cstr(&error));
        else
            cancel_many(call, &many);
    } else {
        r = line_from_object(params, &line, &wait, &error);
        if (r != 0)
            call_error(call, RPC_PARAMS, buf_cstr(&error));
        else
            cancel_one(call, &line, wait);
    }
    buf_finish(&error);
}
