/* One line on standard error, drawn over and over. */
#include "ctl/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/output.h"

#define DRAW_INTERVAL_MS 100
#define LINE_MAX_BYTES 1024
/* A shorter bar says nothing. */
#define BAR_MIN 10
#define BAR_MAX 60

void progress_init(struct progress *p, int64_t total, int64_t now_ms)
{
    const char *term = getenv("TERM");
    *p = (struct progress){
        .on = isatty(STDERR_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0,
        .started_at_ms = now_ms,
        .total = total,
        .bad_name = "not cancelled",
    };
}

static void append_numbers(struct buf *b, const struct progress *p, int64_t now_ms)
{
    char text[OUTPUT_COUNT_MAX];
    int64_t elapsed_ms = now_ms > p->started_at_ms ? now_ms - p->started_at_ms : 1;
    (void) buf_append_str(b, output_count(p->done, text));
    if (p->total >= 0)
        (void) buf_printf(b, " of %s", output_count(p->total, text));
    if (p->bad > 0)
        (void) buf_printf(b, ", %s %s", output_count(p->bad, text), p->bad_name);
    if (p->done > 0)
        (void) buf_printf(b, ", %s/s", output_count(p->done * 1000 / elapsed_ms, text));
    if (p->total > p->done && p->done > 0) {
        int64_t left_s =
            (int64_t) ((double) elapsed_ms / (double) p->done * (double) (p->total - p->done)) /
            1000;
        char span[OUTPUT_SPAN_MAX];
        (void) buf_printf(b, ", %s left", output_span(left_s, span));
    }
}

void progress_append(struct buf *b, const struct progress *p, int columns, int64_t now_ms)
{
    struct buf numbers;
    buf_init(&numbers, LINE_MAX_BYTES);
    append_numbers(&numbers, p, now_ms);

    int64_t percent = p->total > 0 ? p->done * 100 / p->total : 0;
    /* "[", "] 100% " and the numbers. */
    int room = columns - 8 - (int) numbers.len;
    int width = room < BAR_MAX ? room : BAR_MAX;
    if (p->total > 0 && width >= BAR_MIN) {
        int full = (int) (width * p->done / p->total);
        (void) buf_append_char(b, '[');
        for (int i = 0; i < width; i++)
            (void) buf_append_char(b, i < full ? '#' : i == full ? '>' : ' ');
        (void) buf_printf(b, "] %3" PRId64 "%% ", percent);
    }
    size_t fits = columns > 0 ? (size_t) columns : 0;
    (void) buf_append(b, numbers.data, numbers.len < fits ? numbers.len : fits);
    buf_finish(&numbers);
}

void progress_draw(struct progress *p, int64_t now_ms)
{
    if (!p->on || now_ms - p->drawn_at_ms < DRAW_INTERVAL_MS)
        return;
    struct buf b;
    buf_init(&b, LINE_MAX_BYTES * 2);
    int columns = output_columns(STDERR_FILENO);
    /* The last column stays free: terminals differ in what a full line does. */
    progress_append(&b, p, columns > 0 ? columns - 1 : 79, now_ms);
    (void) fflush(stdout);
    (void) fprintf(stderr, "\r%.*s\033[K", (int) b.len, b.data);
    (void) fflush(stderr);
    buf_finish(&b);
    p->drawn_at_ms = now_ms;
    p->shown = true;
}

void progress_clear(struct progress *p)
{
    if (!p->shown)
        return;
    (void) fputs("\r\033[K", stderr);
    (void) fflush(stderr);
    p->shown = false;
}
