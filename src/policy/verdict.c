/* What a reply to a cancel request means. Pure: no I/O, no clock. Any thread. */
#include "policy/verdict.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

void verdict_mask(char *text, const char *key)
{
    size_t len = strlen(key);
    if (len == 0)
        return;
    for (char *at = text; (at = strstr(at, key)) != NULL; at += len)
        memset(at, '*', len);
}

/* Masks first, then cuts: a key across the cut would lose its end and not be found. */
static int keep_text(char **field, const char *text, const char *api_key)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    verdict_mask(copy, api_key);
    int r = request_set_text(field, copy);
    free(copy);
    return r;
}

static int keep_failure(struct judgement *j, const char *code, const char *message,
                        const char *api_key)
{
    int r = keep_text(&j->error_code, code, api_key);
    if (r == 0)
        r = keep_text(&j->error_message, message, api_key);
    if (r == 0 && j->message == NULL)
        r = keep_text(&j->message, message, api_key);
    return r;
}

static bool is_retryable(int status)
{
    if (status >= 500)
        return status != 501;
    return status == 408 || status == 425 || status == 429;
}

static enum outcome outcome_of(int status)
{
    switch (status) {
    case 401:
        return OUTCOME_UNAUTHORIZED;
    case 403:
        return OUTCOME_FORBIDDEN;
    case 404:
        return OUTCOME_NOT_FOUND;
    default:
        return OUTCOME_REJECTED;
    }
}

enum verdict verdict_of_status(int status, enum outcome *ret_outcome)
{
    *ret_outcome = outcome_of(status);
    return is_retryable(status) ? VERDICT_RETRY : VERDICT_DONE;
}

/* NULL when the body is none; the caller puts it. */
static struct json_object *parse_object(const struct reply *reply)
{
    struct json_object *root = NULL;
    struct json_fault fault;
    if (json_parse(reply->body, reply->body_len, &root, &fault) < 0)
        return NULL;
    if (!json_object_is_type(root, json_type_object)) {
        json_object_put(root);
        return NULL;
    }
    return root;
}

/* A 2xx is believed only as a 200 whose body is whole, valid, and names our job. */
static int judge_success(const struct reply *reply, const char *job_id, struct judgement *j)
{
    const char *api_key = reply->api_key;
    struct json_object *root = parse_object(reply);
    const char *named = root != NULL ? json_get_string(root, "job_id") : NULL;
    j->names_job = named != NULL && strcmp(named, job_id) == 0;
    j->kind = reply->status == 200 && j->names_job ? REPLY_BELIEVED : REPLY_UNBELIEVED;
    j->verdict = j->kind == REPLY_BELIEVED ? VERDICT_DONE : VERDICT_RETRY;
    j->outcome = OUTCOME_CANCELLED;

    int r = 0;
    if (j->kind == REPLY_BELIEVED) {
        const char *message = json_get_string(root, "message");
        if (message != NULL)
            r = keep_text(&j->message, message, api_key);
    } else if (reply->status != 200) {
        char text[64];
        (void) snprintf(text, sizeof(text), "HTTP status %d instead of 200", reply->status);
        r = keep_failure(j, "bad_reply", text, api_key);
    } else if (named != NULL) {
        r = keep_failure(j, "job_id_mismatch", "the 200 is about another job", api_key);
    } else {
        r = keep_failure(j, "bad_reply",
                         root == NULL ? "the body of the 200 is no JSON object"
                                      : "the body of the 200 has no job_id",
                         api_key);
    }
    json_object_put(root);
    return r;
}

/* The strings are the tree's. */
static bool find_envelope(struct json_object *root, const char **ret_code, const char **ret_message)
{
    struct json_object *error = NULL;
    if (root == NULL || !json_object_object_get_ex(root, "error", &error) ||
        !json_object_is_type(error, json_type_object))
        return false;
    *ret_code = json_get_string(error, "code");
    *ret_message = json_get_string(error, "message");
    return *ret_code != NULL && *ret_message != NULL;
}

bool verdict_has_envelope(const struct reply *reply)
{
    const char *code, *message;
    struct json_object *root = parse_object(reply);
    bool found = find_envelope(root, &code, &message);
    json_object_put(root);
    return found;
}

/* The error is the server's, or ours. */
static int judge_refusal(const struct reply *reply, struct judgement *j)
{
    j->kind = REPLY_REFUSED;
    j->verdict = verdict_of_status(reply->status, &j->outcome);

    struct json_object *root = parse_object(reply);
    const char *code, *message;
    j->envelope = find_envelope(root, &code, &message);
    char ours[16], text[64];
    if (!j->envelope) {
        (void) snprintf(ours, sizeof(ours), "http_%03d", reply->status);
        (void) snprintf(text, sizeof(text), "HTTP status %d", reply->status);
        code = ours;
        message = text;
    }
    int r = keep_failure(j, code, message, reply->api_key);
    json_object_put(root);
    return r;
}

static const char *transport_code(enum transport transport)
{
    switch (transport) {
    case TRANSPORT_TIMEOUT:
        return "timeout";
    case TRANSPORT_TLS:
        return "tls";
    case TRANSPORT_OK:
    case TRANSPORT_FAILED:
        break;
    }
    return "transport";
}

int verdict_judge(const struct reply *reply, const char *job_id, struct judgement *ret)
{
    struct judgement j = { .http_status = reply->status };
    int r;
    if (reply->transport != TRANSPORT_OK) {
        j.verdict = VERDICT_RETRY;
        j.kind = reply->sent ? REPLY_LOST : REPLY_NONE;
        j.counts = reply->sent;
        r = keep_failure(&j, transport_code(reply->transport), reply->trouble, reply->api_key);
    } else {
        j.counts = true;
        r = reply->status >= 200 && reply->status < 300 ? judge_success(reply, job_id, &j)
                                                        : judge_refusal(reply, &j);
    }
    if (r < 0) {
        judgement_finish(&j);
        return r;
    }
    *ret = j;
    return 0;
}

void judgement_finish(struct judgement *j)
{
    free(j->message);
    free(j->error_code);
    free(j->error_message);
    j->message = j->error_code = j->error_message = NULL;
}
