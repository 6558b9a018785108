/* The request's data and state machine; the result line and the item made of it. Any thread. */
#include "model/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

/* U+FFFD, which stands for what is no text. */
static const char replacement[] = "\xef\xbf\xbd";

/* A copy of at most `max` bytes that is valid UTF-8 without NUL. */
static char *copy_text(const char *text, size_t len, size_t max)
{
    char *copy = malloc((len < max ? len * 3 : max) + 1);
    if (copy == NULL)
        return NULL;

    size_t out = 0;
    for (size_t i = 0; i < len;) {
        size_t n = text[i] == '\0' ? 0 : json_utf8_length(text + i, len - i);
        const char *from = n > 0 ? text + i : replacement;
        size_t from_len = n > 0 ? n : sizeof(replacement) - 1;
        if (out + from_len > max)
            break;
        memcpy(copy + out, from, from_len);
        out += from_len;
        i += n > 0 ? n : 1;
    }
    copy[out] = '\0';
    return copy;
}

struct request *request_create(enum source source, const char *request_id, const char *job_id,
                               size_t job_id_len, const char *origin, int64_t accepted_at_ms,
                               int64_t deadline_at_ms)
{
    struct request *req = calloc(1, sizeof(*req));
    if (req == NULL)
        return NULL;
    *req = (struct request){
        .request_id = strdup(request_id),
        .job_id = copy_text(job_id, job_id_len, JOB_ID_MAX),
        .origin = strdup(origin),
        .source = source,
        .accepted_at_ms = accepted_at_ms,
        .deadline_at_ms = deadline_at_ms,
        .state = REQUEST_QUEUED,
        .wake.place = HEAP_NOWHERE,
    };
    if (req->request_id == NULL || req->job_id == NULL || req->origin == NULL) {
        request_destroy(req);
        return NULL;
    }
    return req;
}

void request_destroy(struct request *req)
{
    if (req == NULL)
        return;
    free(req->request_id);
    free(req->job_id);
    free(req->origin);
    free(req->job_status);
    free(req->message);
    free(req->error_code);
    free(req->error_message);
    free(req->coalesced_with);
    free(req);
}

int request_set_text(char **field, const char *text)
{
    char *copy = NULL;
    if (text != NULL) {
        copy = copy_text(text, strlen(text), REQUEST_TEXT_MAX);
        if (copy == NULL)
            return -ENOMEM;
    }
    free(*field);
    *field = copy;
    return 0;
}

/* --- Chains --- */

unsigned request_base(const struct request *req)
{
    return req->chain_attempts - req->attempts;
}

int request_inherit(struct request *req, const struct request *leader, bool whole)
{
    unsigned base = request_base(req);
    req->chain_attempts = leader->chain_attempts;
    req->attempts = leader->chain_attempts - base;
    req->trail = leader->trail;
    if (req->attempts == 0 && !whole) {
        /* What is left open is about an attempt that was none of its own. */
        req->trail.ask = req->trail.final = false;
        return 0;
    }

    req->http_status = leader->http_status;
    /* It may have come when the last attempt was over, and only the question for the job open. */
    req->endpoint = req->attempts > 0 ? leader->endpoint : ENDPOINT_NONE;
    int r = request_set_text(&req->job_status, leader->job_status);
    if (r == 0)
        r = request_set_text(&req->message, leader->message);
    if (r == 0)
        r = request_set_text(&req->error_code, leader->error_code);
    if (r == 0)
        r = request_set_text(&req->error_message, leader->error_message);
    return r;
}

/* --- States --- */

/* On disk there are only "not done" and "done": a crash turns IN_FLIGHT back into what it was. */
static const bool transitions[REQUEST_STATE_COUNT][REQUEST_STATE_COUNT] = {
    [REQUEST_QUEUED] = { [REQUEST_IN_FLIGHT] = true,
                         [REQUEST_WAITING] = true,
                         [REQUEST_DONE] = true },
    /* Back to QUEUED when the attempt does not count: cut off by shutdown. */
    [REQUEST_IN_FLIGHT] = { [REQUEST_QUEUED] = true,
                            [REQUEST_WAITING] = true,
                            [REQUEST_DONE] = true },
    [REQUEST_WAITING] = { [REQUEST_QUEUED] = true, [REQUEST_DONE] = true },
};

bool request_may_become(enum request_state from, enum request_state to)
{
    return transitions[from][to];
}

void request_set_state(struct request *req, enum request_state state)
{
    if (!request_may_become(req->state, state)) {
        log_error("request %s: no way from %s to %s", req->request_id,
                  request_state_name(req->state), request_state_name(state));
        abort();
    }
    req->state = state;
}

/* --- Identifiers --- */

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all_of(const char *s, size_t len, const char *others)
{
    for (size_t i = 0; i < len; i++)
        if (!is_alnum(s[i]) && (s[i] == '\0' || strchr(others, s[i]) == NULL))
            return false;
    return true;
}

bool job_id_valid(const char *s, size_t len)
{
    if (len < 1 || len > JOB_ID_MAX || !all_of(s, len, "._~:-"))
        return false;
    bool dots = s[0] == '.' && (len == 1 || (len == 2 && s[1] == '.'));
    return !dots;
}

bool request_id_valid(const char *s, size_t len)
{
    return len >= 1 && len <= REQUEST_ID_MAX && all_of(s, len, "._:-");
}

/* --- Texts --- */

/* Errors of the buffer are kept until the end, so that a long line of appends stays readable. */
struct writer {
    struct buf *b;
    int r;
};

static void put_raw(struct writer *w, const char *text)
{
    if (w->r == 0)
        w->r = buf_append_str(w->b, text);
}

static void put_string(struct writer *w, const char *member, const char *value)
{
    put_raw(w, member);
    if (w->r == 0)
        w->r = json_append_cstr(w->b, value);
}

static void put_int(struct writer *w, const char *member, long long value)
{
    put_raw(w, member);
    if (w->r == 0)
        w->r = buf_append_int(w->b, value);
}

/* 0 is written as null. */
static void put_time(struct writer *w, const char *member, int64_t utc_ms)
{
    if (utc_ms == 0) {
        put_string(w, member, NULL);
        return;
    }
    char text[CLOCK_TEXT_MAX];
    clock_format(utc_ms, text);
    put_string(w, member, text);
}

static void put_error(struct writer *w, const char *member, const struct request *req)
{
    put_raw(w, member);
    if (req->error_code == NULL) {
        put_raw(w, "null");
        return;
    }
    put_string(w, "{\"code\":", req->error_code);
    put_string(w, ",\"message\":", req->error_message != NULL ? req->error_message : "");
    put_raw(w, "}");
}

static void put_result_members(struct writer *w, const struct request *req)
{
    int64_t elapsed_ms = req->done_at_ms - req->accepted_at_ms;

    put_int(w, "\"n\":", req->n);
    put_time(w, ",\"time\":", req->done_at_ms);
    put_string(w, ",\"request_id\":", req->request_id);
    put_string(w, ",\"job_id\":", req->job_id);
    put_string(w, ",\"outcome\":", outcome_name(req->outcome));
    if (req->http_status != 0)
        put_int(w, ",\"http_status\":", req->http_status);
    else
        put_raw(w, ",\"http_status\":null");
    put_int(w, ",\"attempts\":", req->attempts);
    put_string(w, ",\"endpoint\":", endpoint_name(req->endpoint));
    put_string(w, ",\"job_status\":", req->job_status);
    put_string(w, ",\"source\":", source_name(req->source));
    put_string(w, ",\"origin\":", req->origin);
    put_time(w, ",\"accepted_at\":", req->accepted_at_ms);
    put_int(w, ",\"elapsed_ms\":", elapsed_ms > 0 ? elapsed_ms : 0);
    put_string(w, ",\"coalesced_with\":", req->coalesced_with);
    put_string(w, ",\"message\":", req->message);
    put_error(w, ",\"error\":", req);
}

int request_append_result(struct buf *b, const struct request *req)
{
    struct writer w = { .b = b };
    put_raw(&w, "{");
    put_result_members(&w, req);
    put_raw(&w, "}");
    return w.r;
}

int request_append_item(struct buf *b, const struct request *req, enum request_state state)
{
    struct writer w = { .b = b };

    put_raw(&w, "{");
    if (state == REQUEST_DONE) {
        put_result_members(&w, req);
        put_raw(&w, ",\"state\":\"done\"}");
        return w.r;
    }
    put_string(&w, "\"request_id\":", req->request_id);
    put_string(&w, ",\"job_id\":", req->job_id);
    put_string(&w, ",\"state\":", request_state_name(state));
    put_int(&w, ",\"attempts\":", req->attempts);
    put_time(&w, ",\"accepted_at\":", req->accepted_at_ms);
    put_time(&w, ",\"deadline_at\":", req->deadline_at_ms);
    put_time(&w, ",\"next_attempt_at\":", state == REQUEST_WAITING ? req->due_at_ms : 0);
    put_error(&w, ",\"last_error\":", req);
    put_string(&w, ",\"source\":", source_name(req->source));
    put_string(&w, ",\"origin\":", req->origin);
    put_raw(&w, "}");
    return w.r;
}

/* --- Names --- */

const char *source_name(enum source source)
{
    switch (source) {
    case SOURCE_SPOOL:
        return "spool";
    case SOURCE_SOCKET:
        return "socket";
    case SOURCE_NATS:
        return "nats";
    }
    return "?";
}

static const char *const outcome_names[OUTCOME_COUNT] = {
    [OUTCOME_CANCELLED] = "cancelled", [OUTCOME_TOO_LATE] = "too_late",
    [OUTCOME_NOT_FOUND] = "not_found", [OUTCOME_UNAUTHORIZED] = "unauthorized",
    [OUTCOME_FORBIDDEN] = "forbidden", [OUTCOME_REJECTED] = "rejected",
    [OUTCOME_FAILED] = "failed",       [OUTCOME_EXPIRED] = "expired",
    [OUTCOME_INVALID] = "invalid",     [OUTCOME_WITHDRAWN] = "withdrawn",
};

static const char *const state_names[REQUEST_STATE_COUNT] = {
    [REQUEST_QUEUED] = "queued",
    [REQUEST_IN_FLIGHT] = "in_flight",
    [REQUEST_WAITING] = "waiting",
    [REQUEST_DONE] = "done",
};

static int index_of(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -EINVAL;
}

const char *outcome_name(enum outcome outcome)
{
    return outcome_names[outcome];
}

int outcome_from_name(const char *name)
{
    return index_of(outcome_names, OUTCOME_COUNT, name);
}

const char *request_state_name(enum request_state state)
{
    return state_names[state];
}

int request_state_from_name(const char *name)
{
    return index_of(state_names, REQUEST_STATE_COUNT, name);
}

const char *endpoint_name(enum endpoint endpoint)
{
    switch (endpoint) {
    case ENDPOINT_NONE:
        return NULL;
    case ENDPOINT_CANCEL:
        return "cancel";
    case ENDPOINT_JOB:
        return "job";
    }
    return NULL;
}
