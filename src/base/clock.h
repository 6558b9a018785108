/* Three clocks, all in milliseconds.
 *
 * Waiting is done by the monotonic one, what people read comes from the wall clock. Due times and
 * deadlines must outlive the process and yet not jump when an administrator or NTP steps the wall
 * clock: they are kept in "steady UTC", the wall clock as it was at start plus monotonic time. */
#ifndef PULSE_BASE_CLOCK_H
#define PULSE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_TEXT_MAX 32

int64_t clock_mono_ms(void);
int64_t clock_wall_ms(void);
int64_t clock_steady_ms(void);

/* RFC 3339 in UTC with milliseconds and Z: "2026-11-24T18:49:17.042Z". */
void clock_format(int64_t utc_ms, char ret_text[static CLOCK_TEXT_MAX]);

#endif
