/* The results log with its rotated neighbours, compressed ones too, as one stream of lines in the
 * order of their numbers. */
#ifndef PULSE_CTL_LOG_READER_H
#define PULSE_CTL_LOG_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_reader;

/* Opens `path` and the files in its directory whose names begin with its name. What can't be read
 * is told and left out. 0, -ENOENT when there is no file at all, or -errno. */
int log_reader_open(struct log_reader **ret, const char *path);
void log_reader_close(struct log_reader *r);

/* The next line without its newline, valid until the next call; a line that two files have is given
 * once. 1, 0 at the end, -ENOMEM. */
int log_reader_next(struct log_reader *r, const char **ret_line, size_t *ret_len, int64_t *ret_n);

/* Something was left out. */
bool log_reader_incomplete(const struct log_reader *r);

/* The number that a result line begins with, or 0; pure. */
int64_t log_line_number(const char *line, size_t len);

#endif
