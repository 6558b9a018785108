/* The daemon's own log: one line a message on stderr, from any thread.
 *
 * With `<N>` priorities when stderr is the journal. Control characters and bytes that are not UTF-8
 * are written as \xNN: file names and server texts come from strangers. Lines that find no room, in a
 * pipe that nobody reads, are dropped, and their number is told when there is room again. */
#ifndef PULSE_BASE_LOG_H
#define PULSE_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Looks at stderr and $JOURNAL_STREAM. */
void log_init(void);
/* Whether log_init() found the journal there. */
bool log_is_journal(void);
void log_set_level(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
