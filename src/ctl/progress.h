/* The bar that cancel draws while it waits. */
#ifndef PULSE_CTL_PROGRESS_H
#define PULSE_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct progress {
    bool on;    /* there is a terminal to draw on */
    bool shown; /* the bar is in the terminal's current line */
    int64_t started_at_ms;
    int64_t drawn_at_ms;
    int64_t total; /* -1 = not known */
    int64_t done;
    int64_t bad; /* of them, not as was wished */
    const char *bad_name;
};

/* Looks at standard error. */
void progress_init(struct progress *p, int64_t total, int64_t now_ms);

/* The bar in at most `columns`; pure. */
void progress_append(struct buf *b, const struct progress *p, int columns, int64_t now_ms);

/* Draws it, if it is time; and takes it away, before something else is printed. */
void progress_draw(struct progress *p, int64_t now_ms);
void progress_clear(struct progress *p);

#endif
