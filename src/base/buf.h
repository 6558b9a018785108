/* A growing byte buffer that is born with its maximum. */
#ifndef PULSE_BASE_BUF_H
#define PULSE_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

/* `data` is never NUL-terminated by itself; use buf_cstr() where C wants a string. */
struct buf {
    char *data;
    size_t len;
    size_t size;
    size_t max;
};

/* Allocates nothing. `max` is the most bytes the buffer may ever hold. */
void buf_init(struct buf *b, size_t max);

/* Frees the memory and leaves an empty buffer with the same maximum. */
void buf_finish(struct buf *b);

void buf_clear(struct buf *b);

/* All return 0, -ENOBUFS past the maximum, or -ENOMEM; on error nothing was added. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_append_str(struct buf *b, const char *s);
int buf_append_char(struct buf *b, char c);
int buf_append_int(struct buf *b, long long value);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Room for `len` more bytes at data + len; add to `len` yourself after writing there. */
int buf_reserve(struct buf *b, size_t len);

/* Drops the first `len` bytes. */
void buf_consume(struct buf *b, size_t len);

/* The content as a C string (owned by the buffer, valid until it changes), or NULL. */
const char *buf_cstr(struct buf *b);

/* Moves the memory out; the caller frees it. NULL when empty. */
char *buf_steal(struct buf *b, size_t *ret_len);

#endif
