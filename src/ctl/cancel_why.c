/* Why nothing comes: asked of the daemon when no answer came for a while, and told once. */
#include <stdio.h>

#include "base/clock.h"
#include "ctl/cancel_private.h"
#include "ctl/stats.h"

#define QUIET_MS 5000
/* No slot of the window has it. */
#define WHY_ID INT64_MAX

void cancel_why_reset(struct cancel *c)
{
    c->quiet_since_ms = clock_mono_ms();
    c->why_asked = false;
}

int cancel_why_timeout(const struct cancel *c)
{
    if (!c->wait || c->why_asked || c->window.n_used == 0)
        return -1;
    int64_t left_ms = c->quiet_since_ms + QUIET_MS - clock_mono_ms();
    return left_ms > 0 ? (int) left_ms : 0;
}

int cancel_why_ask(struct cancel *c)
{
    if (cancel_why_timeout(c) != 0)
        return 0;
    struct buf b;
    buf_init(&b, 256);
    int r = call_append(&b, WHY_ID, "stats", NULL);
    if (r == 0)
        r = connection_send(&c->connection, b.data, b.len);
    buf_finish(&b);
    c->why_asked = true;
    return r;
}

bool cancel_why_answered(struct cancel *c, const struct answer *a)
{
    if (a->id != WHY_ID)
        return false;
    char text[STATS_NOTICE_MAX];
    size_t n = 0;
    progress_clear(&c->progress);
    for (; stats_notice(a->result, n, text); n++)
        output_complain("still waiting: %s", text);
    if (n == 0)
        output_complain(
            "still waiting: requests are tried until they have an outcome; the daemon's "
            "log and 'pulse-cancelctl stats' tell what the API answers");
    return true;
}
