/* UUIDv7 with a counter in the 12 bits behind the time (RFC 9562, section 6.2, method 1). Runs on
 * the loop thread. */
#include "base/uuid.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"

/* Randomness is fetched for many at once: a system call for each would be most of the cost. */
#define POOL_SIZE 1024

static void fill(uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(data, len, 0);
        if (n > 0) {
            data += n;
            len -= (size_t) n;
        } else if (errno != EINTR) {
            /* No kernel that this runs on says so; without it, IDs would collide. */
            log_error("no randomness from the kernel: %s", strerror(errno));
            abort();
        }
    }
}

static void take_random(uint8_t *ret, size_t len)
{
    static uint8_t pool[POOL_SIZE];
    static size_t used = POOL_SIZE;

    if (len > POOL_SIZE - used) {
        fill(pool, POOL_SIZE);
        used = 0;
    }
    memcpy(ret, pool + used, len);
    used += len;
}

void uuid7_make(int64_t utc_ms, char ret_text[static UUID_TEXT_MAX])
{
    /* The last one made: never goes back, whatever the clock does. */
    static uint64_t last_ms;
    static uint32_t counter;

    uint8_t random[10];
    take_random(random, sizeof(random));

    uint64_t ms = utc_ms > 0 ? (uint64_t) utc_ms & UINT64_C(0xffffffffffff) : 0;
    if (ms > last_ms) {
        last_ms = ms;
        /* The top bit stays free as room to count. */
        counter = ((uint32_t) random[8] << 8 | random[9]) & 0x7ff;
    } else if (++counter > 0xfff) {
        last_ms++;
        counter = 0;
    }

    uint8_t u[16];
    for (int i = 0; i < 6; i++)
        u[i] = (uint8_t) (last_ms >> (40 - 8 * i));
    u[6] = (uint8_t) (0x70 | counter >> 8);
    u[7] = (uint8_t) counter;
    memcpy(u + 8, random, 8);
    u[8] = (uint8_t) ((u[8] & 0x3f) | 0x80);

    static const char hex[] = "0123456789abcdef";
    char *out = ret_text;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[u[i] >> 4];
        *out++ = hex[u[i] & 15];
    }
    *out = '\0';
}
