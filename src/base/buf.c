/* A growing byte buffer that is born with its maximum. Any thread, one at a time. */
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 64

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_finish(struct buf *b)
{
    if (b == NULL)
        return;
    free(b->data);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
}

/* `size` never counts the byte that is kept for buf_cstr()'s NUL. */
static int grow(struct buf *b, size_t needed)
{
    size_t size = b->size < FIRST_SIZE ? FIRST_SIZE : b->size;
    while (size < needed)
        size = size > b->max / 2 ? b->max : size * 2;
    if (size > b->max)
        size = b->max;

    char *data = realloc(b->data, size + 1);
    if (data == NULL)
        return -ENOMEM;
    b->data = data;
    b->size = size;
    return 0;
}

int buf_reserve(struct buf *b, size_t len)
{
    if (len > b->max - b->len)
        return -ENOBUFS;
    if (b->data != NULL && len <= b->size - b->len)
        return 0;
    return grow(b, b->len + len);
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0)
        return 0;
    int r = buf_reserve(b, len);
    if (r < 0)
        return r;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_append_char(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

int buf_append_int(struct buf *b, long long value)
{
    char digits[24];
    size_t at = sizeof(digits);
    /* Negative is the wider side: LLONG_MIN has no positive counterpart. */
    long long rest = value < 0 ? value : -value;
    do {
        digits[--at] = (char) ('0' - rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0)
        digits[--at] = '-';
    return buf_append(b, digits + at, sizeof(digits) - at);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0)
        return -EINVAL;

    int r = buf_reserve(b, (size_t) n);
    if (r < 0)
        return r;
    va_start(args, fmt);
    (void) vsnprintf(b->data + b->len, (size_t) n + 1, fmt, args);
    va_end(args);
    b->len += (size_t) n;
    return 0;
}

void buf_consume(struct buf *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

const char *buf_cstr(struct buf *b)
{
    if (b->data == NULL && grow(b, 0) < 0)
        return NULL;
    b->data[b->len] = '\0';
    return b->data;
}

char *buf_steal(struct buf *b, size_t *ret_len)
{
    if (b->len == 0)
        return NULL;
    char *data = b->data;
    data[b->len] = '\0';
    if (ret_len != NULL)
        *ret_len = b->len;
    buf_init(b, b->max);
    return data;
}
