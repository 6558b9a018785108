/* Bytes to lines to requests. */
#include "ctl/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE ((size_t) 64 * 1024)
#define PROBLEM_SIZE 4096

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
        line_trim(ret_text, ret_len);
        if (*ret_len > 0 && (*ret_text)[0] != '#')
            return true;
    }
    return false;
}

void input_line_read(const char *text, size_t len, uint64_t number, struct input_line *ret)
{
    *ret = (struct input_line){ .number = number };
    struct buf problem;
    buf_init(&problem, PROBLEM_SIZE);
    if (line_parse(text, len, &ret->line, &problem) < 0)
        (void) snprintf(ret->problem, sizeof(ret->problem), "%s",
                        problem.len > 0 ? buf_cstr(&problem) : "not a request line");
    buf_finish(&problem);
}

bool input_next(struct input *in, struct input_line *ret)
{
    const char *text;
    size_t len;
    bool too_long;
    if (!next_meaning(in, &text, &len, &too_long))
        return false;
    if (!too_long) {
        input_line_read(text, len, in->number, ret);
        return true;
    }
    *ret = (struct input_line){ .number = in->number };
    (void) snprintf(ret->problem, sizeof(ret->problem), "longer than %zu bytes", INPUT_LINE_MAX);
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
