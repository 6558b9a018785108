/* The three clocks. Any thread. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static int64_t read_ms(clockid_t id)
{
    struct timespec ts;
    (void) clock_gettime(id, &ts);
    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_mono_ms(void)
{
    return read_ms(CLOCK_MONOTONIC);
}

int64_t clock_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME);
}

/* Boot time is monotonic time that goes on while the machine sleeps: a deadline of an hour does not
 * become longer by a suspend. */
int64_t clock_steady_ms(void)
{
    static _Atomic int64_t offset_ms;

    int64_t boot_ms = read_ms(CLOCK_BOOTTIME);
    int64_t offset = atomic_load_explicit(&offset_ms, memory_order_relaxed);
    if (offset == 0) {
        int64_t first = clock_wall_ms() - boot_ms;
        if (first == 0)
            first = 1;
        /* When two threads come first together, both take the one that was stored. */
        if (atomic_compare_exchange_strong(&offset_ms, &offset, first))
            offset = first;
    }
    return boot_ms + offset;
}

void clock_format(int64_t utc_ms, char ret_text[static CLOCK_TEXT_MAX])
{
    int64_t s = utc_ms / 1000;
    int ms = (int) (utc_ms % 1000);
    if (ms < 0) {
        ms += 1000;
        s--;
    }

    time_t t = (time_t) s;
    struct tm tm;
    /* RFC 3339 has years of four digits; beyond them there is only a damaged number. */
    if (gmtime_r(&t, &tm) == NULL || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900) {
        (void) snprintf(ret_text, CLOCK_TEXT_MAX, "0000-01-01T00:00:00.000Z");
        return;
    }
    (void) snprintf(ret_text, CLOCK_TEXT_MAX, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
                    (unsigned) (tm.tm_year + 1900) % 10000U, (unsigned) (tm.tm_mon + 1) % 100U,
                    (unsigned) tm.tm_mday % 100U, (unsigned) tm.tm_hour % 100U,
                    (unsigned) tm.tm_min % 100U, (unsigned) tm.tm_sec % 100U,
                    (unsigned) ms % 1000U);
}
