/* What goes to people: colours, texts of strangers made harmless, times, tables. */
#ifndef PULSE_CTL_OUTPUT_H
#define PULSE_CTL_OUTPUT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

#include "base/buf.h"

struct output {
    bool colour;
    bool terminal; /* standard output is one */
};

enum style { STYLE_PLAIN, STYLE_STRONG, STYLE_DIM, STYLE_GOOD, STYLE_WARN, STYLE_BAD };

/* Looks at standard output, NO_COLOR, TERM and the locale. */
void output_init(struct output *out);

/* `pulse-cancelctl: MESSAGE` on standard error. */
void output_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void output_vcomplain(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));

/* Columns of the terminal that `fd` is, or 0. */
int output_columns(int fd);

/* Appends at most `max_width` columns of `s` (0 = all), with control characters, what is not UTF-8,
 * and what the locale can't show replaced by '?'; what is cut ends in "~". Returns the columns. */
size_t output_append_text(struct buf *b, const char *s, size_t max_width);

/* The text in its style, padded with blanks to `width` columns; longer ones are not cut. */
void output_put(const struct output *out, FILE *file, enum style style, const char *text,
                size_t width);

/* How an outcome or a state looks. */
enum style output_style_of(const char *name);

/* 1234567 as 1,234,567. */
#define OUTPUT_COUNT_MAX 32
const char *output_count(int64_t n, char text[static OUTPUT_COUNT_MAX]);

/* 93784 s as "1d 02:03:04". */
#define OUTPUT_SPAN_MAX 32
const char *output_span(int64_t seconds, char text[static OUTPUT_SPAN_MAX]);

/* A time of the daemon's (RFC 3339, UTC) in the local zone, as "2026-11-24 18:49:17", or as it is
 * when it is none. */
#define OUTPUT_TIME_MAX 40
const char *output_time(const char *utc, char text[static OUTPUT_TIME_MAX]);

/* One line for a result, in columns: [time] outcome, job, what there is to say. */
void output_result(const struct output *out, struct json_object *result, bool with_time);

/* --- Tables --- */

#define TABLE_COLUMNS_MAX 8

/* Rows are kept until table_print(), so that columns are as wide as they have to be; for pages of a
 * thousand rows, not for streams. */
struct table {
    const char *titles[TABLE_COLUMNS_MAX];
    size_t n_columns;
    bool right[TABLE_COLUMNS_MAX]; /* aligned */
    char **cells;
    enum style *styles;
    size_t n_cells;
    size_t size;
};

void table_init(struct table *t, size_t n_columns, const char *const *titles);
void table_finish(struct table *t);

/* The next cell, row by row. 0 or -ENOMEM. */
int table_add(struct table *t, enum style style, const char *text);
int table_addf(struct table *t, enum style style, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* On a terminal, the last column is cut at its edge. */
void table_print(const struct table *t, const struct output *out);

#endif
