/* UUIDv7 (RFC 9562): sorts by time of making, also within a millisecond in one process. */
#ifndef PULSE_BASE_UUID_H
#define PULSE_BASE_UUID_H

#include <stdint.h>

#define UUID_TEXT_MAX 37

/* Loop thread only. `utc_ms` may step back: order within the process is kept all the same. */
void uuid7_make(int64_t utc_ms, char ret_text[static UUID_TEXT_MAX]);

#endif
