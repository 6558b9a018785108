/* Bytes to request. Pure: no clock, no I/O, any thread. */
#include "model/line.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"

/* Of a member's name that is shown to its sender. */
#define SHOWN_MAX 40

static int refuse(struct buf *reterr, const char *what)
{
    (void) buf_append_str(reterr, what);
    return -EINVAL;
}

static int refuse_member(struct buf *reterr, const char *member)
{
    char shown[SHOWN_MAX + 1];
    size_t len = 0;
    for (; len < SHOWN_MAX && member[len] != '\0'; len++)
        shown[len] = member[len] > ' ' && member[len] <= '~' ? member[len] : '?';
    shown[len] = '\0';
    (void) buf_printf(reterr, "unknown member '%s%s'", shown, member[len] != '\0' ? "..." : "");
    return -EINVAL;
}

static int read_job_id(struct json_object *value, struct line *line, struct buf *reterr)
{
    if (!json_object_is_type(value, json_type_string))
        return refuse(reterr, "job_id is not a string");
    const char *text = json_object_get_string(value);
    size_t len = (size_t) json_object_get_string_len(value);
    if (!job_id_valid(text, len))
        return refuse(reterr, "job_id is not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)");
    memcpy(line->job_id, text, len + 1);
    return 0;
}

static int read_request_id(struct json_object *value, struct line *line, struct buf *reterr)
{
    if (!json_object_is_type(value, json_type_string))
        return refuse(reterr, "request_id is not a string");
    const char *text = json_object_get_string(value);
    size_t len = (size_t) json_object_get_string_len(value);
    if (!request_id_valid(text, len))
        return refuse(reterr, "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -");
    memcpy(line->request_id, text, len + 1);
    return 0;
}

static int read_deadline(struct json_object *value, struct line *line, struct buf *reterr)
{
    /* 60.0 and 1e3 are doubles to json-c, and too large a number stays out of range: it saturates. */
    if (json_object_is_type(value, json_type_int)) {
        int64_t deadline_s = json_object_get_int64(value);
        if (deadline_s >= 1 && deadline_s <= DEADLINE_S_MAX) {
            line->deadline_s = deadline_s;
            return 0;
        }
    }
    (void) buf_printf(reterr, "deadline_s is not an integer from 1 to %d", DEADLINE_S_MAX);
    return -EINVAL;
}

int line_from_object(struct json_object *object, struct line *ret, bool *ret_wait,
                     struct buf *reterr)
{
    struct line line = { 0 };
    bool wait = false;

    if (!json_object_is_type(object, json_type_object))
        return refuse(reterr, "not an object");

    json_object_object_foreach(object, member, value)
    {
        int r = 0;
        if (strcmp(member, "job_id") == 0)
            r = read_job_id(value, &line, reterr);
        else if (strcmp(member, "request_id") == 0)
            r = read_request_id(value, &line, reterr);
        else if (strcmp(member, "deadline_s") == 0)
            r = read_deadline(value, &line, reterr);
        else if (ret_wait != NULL && strcmp(member, "wait") == 0)
            if (json_object_is_type(value, json_type_boolean))
                wait = json_object_get_boolean(value);
            else
                r = refuse(reterr, "wait is not true or false");
        else
            r = refuse_member(reterr, member);
        if (r < 0)
            return r;
    }
    if (line.job_id[0] == '\0')
        return refuse(reterr, "job_id is missing");

    *ret = line;
    if (ret_wait != NULL)
        *ret_wait = wait;
    return 0;
}

static int parse_json(const char *text, size_t len, struct line *ret, struct buf *reterr)
{
    struct json_object *root = NULL;
    struct json_fault fault;
    int r = json_parse(text, len, &root, &fault);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        (void) buf_printf(reterr, "bad JSON at byte %zu: %s", fault.offset + 1, fault.what);
        return r;
    }
    r = line_from_object(root, ret, NULL, reterr);
    json_object_put(root);
    return r;
}

int line_parse(const char *text, size_t len, struct line *ret, struct buf *reterr)
{
    /* No job ID starts with any of these, so that a typing error is reported as bad JSON. */
    if (len > 0 && memchr("{[\"", text[0], 3) != NULL)
        return parse_json(text, len, ret, reterr);

    if (!job_id_valid(text, len))
        return refuse(reterr, "not a job ID");
    struct line line = { 0 };
    memcpy(line.job_id, text, len);
    *ret = line;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

void line_trim(const char **text, size_t *len)
{
    while (*len > 0 && is_blank((*text)[*len - 1]))
        (*len)--;
    while (*len > 0 && is_blank((*text)[0])) {
        (*text)++;
        (*len)--;
    }
}
