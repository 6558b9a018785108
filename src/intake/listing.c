/* list: a page is read in steps, each of a bounded number of rows, until it is full. Loop thread.
 *
 * The database can't tell queued, waiting and in flight apart; what dispatch knows is laid over each
 * step, and the rows of other states are left out. */
#include "intake/listing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "intake/client.h"
#include "intake/methods.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000
/* Rows of a step when many of them may be of another state. */
#define STEP_ROWS 2000
#define RESULT_MAX ((size_t) 128 * 1024 * 1024)

struct listing {
    struct call *call;
    int state;   /* enum request_state, -1 = any */
    int outcome; /* enum outcome, -1 = any */
    size_t limit;
    int64_t after_seq;
    bool stepped; /* the first step did not fill the page */

    size_t n;
    int64_t last_seq; /* of what is on the page */
    struct buf text;  /* the page so far */
};

/* --- The answer --- */

static void listing_free(struct listing *l)
{
    buf_finish(&l->text);
    free(l);
}

/* Ends the call. `next_seq` is where the next page begins, 0 when there is none. */
static void finish(struct listing *l, int r, int64_t next_seq)
{
    if (r == 0)
        r = buf_append_str(&l->text, "],\"next\":");
    if (r == 0)
        r = next_seq > 0 ? buf_printf(&l->text, "\"%" PRId64 "\"}", next_seq)
                         : buf_append_str(&l->text, "null}");
    if (r == 0)
        call_result(l->call, l->text.data, l->text.len);
    else
        methods_refuse(l->call, r);
    listing_free(l);
}

static int add_row(struct listing *l, const struct request *req, enum request_state state)
{
    size_t before = l->text.len;
    int r = l->n > 0 ? buf_append_char(&l->text, ',') : 0;
    if (r == 0)
        r = request_append_item(&l->text, req, state);
    if (r < 0)
        return r;
    call_hold(l->call, l->text.len - before);
    l->n++;
    l->last_seq = req->seq;
    return 0;
}

/* --- Steps --- */

static void read_step(struct listing *l);

/* *ret_full: there is more than fits onto the page. */
static int add_rows(struct listing *l, const struct queue_query *query, bool *ret_full)
{
    *ret_full = false;
    for (size_t i = 0; i < query->n_rows; i++) {
        const struct queue_row *row = &query->rows[i];
        enum request_state state = methods_state(l->call->control, row->request, row->leader_seq);
        if (l->state >= 0 && state != (enum request_state) l->state)
            continue;
        if (l->n == l->limit) {
            *ret_full = true;
            return 0;
        }
        int r = add_row(l, row->request, state);
        if (r < 0)
            return r;
    }
    return 0;
}

static void on_read(struct queue_query *query, int status, void *userdata)
{
    struct listing *l = userdata;
    bool full = false;
    /* Who gets no answer needs no page. */
    bool wanted = l->call->form != CALL_SILENT;
    int r = status;
    if (r == 0 && wanted)
        r = add_rows(l, query, &full);
    if (r < 0 || !wanted) {
        finish(l, r, 0);
    } else if (full) {
        finish(l, 0, l->last_seq);
    } else if (!query->more) {
        finish(l, 0, 0);
    } else if (l->call->control->shut) {
        finish(l, 0, query->next_seq); /* a long search must not hold up the end */
    } else {
        l->after_seq = query->next_seq;
        l->stepped = true;
        read_step(l);
    }
}

static void read_step(struct listing *l)
{
    struct queue_query *query = queue_query_create(QUERY_LIST);
    if (query == NULL) {
        finish(l, -ENOMEM, 0);
        return;
    }
    query->state = l->state;
    query->outcome = l->outcome;
    query->after_seq = l->after_seq;
    /* One more than is needed tells whether there is a next page. */
    query->limit = l->limit - l->n + 1;
    if (l->stepped && query->limit < STEP_ROWS)
        query->limit = STEP_ROWS;
    query->done = on_read;
    query->userdata = l;
    queue_read(l->call->control->queue, query);
}

/* --- Params --- */

static const char *read_name(struct json_object *value, int (*from_name)(const char *), int *ret,
                             const char *wrong)
{
    int found = json_object_is_type(value, json_type_string)
                    ? from_name(json_object_get_string(value))
                    : -EINVAL;
    if (found < 0)
        return wrong;
    *ret = found;
    return NULL;
}

static const char *read_limit(struct json_object *value, size_t *ret)
{
    int64_t limit = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : 0;
    if (limit < 1 || limit > LIMIT_MAX)
        return "limit is not an integer from 1 to 1000";
    *ret = (size_t) limit;
    return NULL;
}

/* As we write it in `next`, and no other way. */
static const char *read_after(struct json_object *value, int64_t *ret)
{
    static const char wrong[] = "after is not what an answer had as next";
    if (!json_object_is_type(value, json_type_string))
        return wrong;
    const char *text = json_object_get_string(value);
    size_t len = strlen(text);
    if (len < 1 || len > 19 || strspn(text, "0123456789") != len || text[0] == '0')
        return wrong;
    errno = 0;
    int64_t seq = strtoll(text, NULL, 10);
    if (errno != 0)
        return wrong;
    *ret = seq;
    return NULL;
}

static const char *read_params(struct json_object *params, struct listing *l)
{
    if (params == NULL)
        return NULL;
    json_object_object_foreach(params, member, value)
    {
        const char *wrong = "it takes state, outcome, limit and after, and nothing else";
        if (strcmp(member, "state") == 0)
            wrong = read_name(value, request_state_from_name, &l->state, "there is no such state");
        else if (strcmp(member, "outcome") == 0)
            wrong = read_name(value, outcome_from_name, &l->outcome, "there is no such outcome");
        else if (strcmp(member, "limit") == 0)
            wrong = read_limit(value, &l->limit);
        else if (strcmp(member, "after") == 0)
            wrong = read_after(value, &l->after_seq);
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

void listing_run(struct call *call, struct json_object *params)
{
    struct listing *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        methods_refuse(call, -ENOMEM);
        return;
    }
    *l = (struct listing){ .call = call, .state = -1, .outcome = -1, .limit = LIMIT_DEFAULT };
    buf_init(&l->text, RESULT_MAX);

    const char *wrong = read_params(params, l);
    if (wrong != NULL) {
        call_error(call, RPC_PARAMS, wrong);
        listing_free(l);
        return;
    }
    int r = buf_append_str(&l->text, "{\"requests\":[");
    /* Only what is done has an outcome. */
    bool none = l->outcome >= 0 && l->state >= 0 && l->state != REQUEST_DONE;
    if (r < 0 || none) {
        finish(l, r, 0);
        return;
    }
    call_set_load(call, (struct call_load){ .weight = METHODS_READ_WEIGHT });
    read_step(l);
}
