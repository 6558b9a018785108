/* Request lines from a file or a pipe, as a spool file has them, in bounded memory.
 *
 * A line is a job ID or {"job_id": …, "request_id": …, "deadline_s": …}. Blank lines and lines that
 * start with # are skipped; CRLF, blanks around, a byte-order mark and a missing last newline are
 * tolerated. */
#ifndef PULSE_CTL_INPUT_H
#define PULSE_CTL_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/line.h"

/* Longer lines are bad ones. */
#define INPUT_LINE_MAX ((size_t) 16 * 1024)
#define INPUT_PROBLEM_MAX 160

struct input {
    int fd; /* not owned */
    struct buf data;
    size_t start;    /* of the next line */
    uint64_t number; /* of the line before it */
    bool ended;      /* nothing more can be read */
    bool too_long;   /* what comes belongs to a line that was given up */
};

struct input_line {
    uint64_t number;
    struct line line;
    char problem[INPUT_PROBLEM_MAX]; /* "" = the line is good */
};

void input_init(struct input *in, int fd);
void input_finish(struct input *in);

/* One read(2), which may block. 0 or -errno. */
int input_read(struct input *in);

/* The next line that says something. False: none yet, or none at all once `ended`. */
bool input_next(struct input *in, struct input_line *ret);

/* What one line, trimmed, says. */
void input_line_read(const char *text, size_t len, uint64_t number, struct input_line *ret);

/* How many lines input_next() would give from here on; reads to the end. -errno. */
int64_t input_count(struct input *in);

#endif
