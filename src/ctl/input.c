/* Bytes to lines to requests. */
#include "ctl/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define READ_SIZE ((size_t) 64 * 1024)
/* Of an unknown member's name that is shown. */
#define SHOWN_MAX 40

void input_init(struct input *in, int fd)
{
    *in = (struct input){ .fd = fd };
    buf_init(&in->data, INPUT_LINE_MAX + READ_SIZE + 1);
}

void input_finish(struct input *in)
{
    buf_finish(&in->data);
}

int input_read(struct input *in)
{
    buf_consume(&in->data, in->start);
    in->start = 0;
    int r = buf_reserve(&in->data, READ_SIZE);
    if (r < 0)
        return r;
    ssize_t n = read(in->fd, in->data.data + in->data.len, READ_SIZE);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    in->data.len += (size_t) n;
    in->ended = n == 0;
    return 0;
}

/* --- Lines --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && is_blank((*text)[*len - 1]))
        (*len)--;
    while (*len > 0 && is_blank((*text)[0])) {
        (*text)++;
        (*len)--;
    }
}

/* The next line, whatever it says. A line that does not fit is given once, as far as it goes. */
static bool next_text(struct input *in, const char **ret_text, size_t *ret_len, bool *ret_too_long)
{
    for (;;) {
        const char *text = in->data.data + in->start;
        size_t left = in->data.len - in->start;
        const char *newline = left > 0 ? memchr(text, '\n', left) : NULL;
        size_t len = newline != NULL ? (size_t) (newline - text) : left;
        bool whole = newline != NULL || (in->ended && left > 0);
        if (!whole && left <= INPUT_LINE_MAX)
            return false;

        in->start += len + (newline != NULL);
        bool rest = in->too_long;
        in->too_long = !whole;
        if (rest)
            continue;
        in->number++;
        if (in->number == 1 && len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
            text += 3;
            len -= 3;
        }
        *ret_text = text;
        *ret_len = len;
        *ret_too_long = !whole || len > INPUT_LINE_MAX;
        return true;
    }
}

/* The same, for lines that say something. */
static bool next_meaning(struct input *in, const char **ret_text, size_t *ret_len,
                         bool *ret_too_long)
{
    while (next_text(in, ret_text, ret_len, ret_too_long)) {
        trim(ret_text, ret_len);
        if (*ret_len > 0 && (*ret_text)[0] != '#')
            return true;
    }
    return false;
}

bool input_next(struct input *in, struct request_line *ret)
{
    const char *text;
    size_t len;
    bool too_long;
    if (!next_meaning(in, &text, &len, &too_long))
        return false;
    if (too_long) {
        *ret = (struct request_line){ .job_id = "" };
        (void) snprintf(ret->problem, sizeof(ret->problem), "longer than %zu bytes",
                        INPUT_LINE_MAX);
    } else {
        request_line_parse(text, len, ret);
    }
    ret->number = in->number;
    return true;
}

int64_t input_count(struct input *in)
{
    int64_t n = 0;
    const char *text;
    size_t len;
    bool too_long;
    for (;;) {
        while (next_meaning(in, &text, &len, &too_long))
            n++;
        if (in->ended)
            return n;
        int r = input_read(in);
        if (r < 0)
            return r;
    }
}

/* --- What a line means --- */

static void problem(struct request_line *line, const char *what)
{
    (void) snprintf(line->problem, sizeof(line->problem), "%s", what);
}

static void read_deadline(struct json_object *value, struct request_line *line)
{
    int64_t deadline_s =
        json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : 0;
    if (deadline_s >= 1 && deadline_s <= DEADLINE_S_MAX)
        line->deadline_s = deadline_s;
    else
        (void) snprintf(line->problem, sizeof(line->problem),
                        "deadline_s is not an integer from 1 to %d", DEADLINE_S_MAX);
}

static void read_member(const char *member, struct json_object *value, struct request_line *line)
{
    const char *text =
        json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
    size_t len = strlen(text);
    if (strcmp(member, "job_id") == 0) {
        if (job_id_valid(text, len))
            memcpy(line->job_id, text, len + 1);
        else
            problem(line, "job_id is not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)");
    } else if (strcmp(member, "request_id") == 0) {
        if (request_id_valid(text, len))
            memcpy(line->request_id, text, len + 1);
        else
            problem(line, "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -");
    } else if (strcmp(member, "deadline_s") == 0) {
        read_deadline(value, line);
    } else {
        (void) snprintf(line->problem, sizeof(line->problem), "unknown member '%.*s'", SHOWN_MAX,
                        member);
    }
}

static void parse_object(const char *text, size_t len, struct request_line *line)
{
    struct json_object *root = NULL;
    struct json_fault fault = { .what = "out of memory" };
    if (json_parse(text, len, &root, &fault) < 0) {
        (void) snprintf(line->problem, sizeof(line->problem), "bad JSON at byte %zu: %s",
                        fault.offset + 1, fault.what);
        return;
    }
    if (json_object_is_type(root, json_type_object)) {
        json_object_object_foreach(root, member, value)
        {
            if (line->problem[0] == '\0')
                read_member(member, value, line);
        }
        if (line->problem[0] == '\0' && line->job_id[0] == '\0')
            problem(line, "job_id is missing");
    } else {
        problem(line, "neither a job ID nor an object");
    }
    json_object_put(root);
}

void request_line_parse(const char *text, size_t len, struct request_line *ret)
{
    *ret = (struct request_line){ .number = 0 };
    if (len > 0 && memchr("{[\"", text[0], 3) != NULL) {
        parse_object(text, len, ret);
    } else if (job_id_valid(text, len)) {
        memcpy(ret->job_id, text, len);
    } else {
        problem(ret, "not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)");
    }
}
