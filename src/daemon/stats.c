/* The numbers that `stats` and the status line show. Loop thread. */
#include "daemon/stats.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

/* Requests that join others wait with them: they are neither in flight nor waiting themselves. */
static int64_t queued_of(const struct stats *s)
{
    int64_t others = (int64_t) (s->dispatch->in_flight + s->dispatch->waiting);
    return s->pending > others ? s->pending - others : 0;
}

static int append_results(struct buf *b, const struct stats *s)
{
    int r = buf_append_str(b, ",\"results\":{");
    for (int i = 0; i < OUTCOME_COUNT && r == 0; i++)
        r = buf_printf(b, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", outcome_name((enum outcome) i),
                       s->results[i]);
    return r == 0 ? buf_append_char(b, '}') : r;
}

static int append_replies(struct buf *b, const struct dispatch_stats *d)
{
    int r = buf_append_str(b, ",\"replies\":{");
    for (int status = 0; status < DISPATCH_STATUS_MAX && r == 0; status++)
        if (d->replies[status] > 0)
            r = buf_printf(b, "\"%d\":%" PRIu64 ",", status, d->replies[status]);
    return r == 0 ? buf_printf(b, "\"transport\":%" PRIu64 "}", d->transport_failures) : r;
}

static int append_storage(struct buf *b, const struct stats *s)
{
    if (s->storage != NULL || s->spool_trouble == 0)
        return json_append_cstr(b, s->storage != NULL ? s->storage : "ok");
    return buf_printf(b, "\"spool: %s\"", strerror(-s->spool_trouble));
}

static const char *held_by(const struct stats *s)
{
    if (s->held)
        return "\"operator\"";
    return s->dispatch->key_rejected ? "\"key\"" : "null";
}

int stats_append(struct buf *b, const struct stats *s)
{
    const struct dispatch_stats *d = s->dispatch;
    int r = buf_printf(b,
                       "{\"version\":\"" PULSE_VERSION "\",\"pid\":%ld,\"uptime_s\":%" PRId64
                       ",\"pending\":{\"queued\":%" PRId64 ",\"in_flight\":%zu,\"waiting\":%zu}"
                       ",\"accepted\":{\"spool\":%" PRIu64 ",\"socket\":%" PRIu64 ",\"nats\":0}",
                       (long) getpid(), s->uptime_s, queued_of(s), d->in_flight, d->waiting,
                       s->spool.accepted, s->control.accepted);
    if (r == 0)
        r = append_results(b, s);
    if (r == 0)
        r = append_replies(b, d);
    if (r == 0)
        r = buf_printf(b,
                       ",\"attempts\":%" PRIu64 ",\"retries\":%" PRIu64
                       ",\"verifications\":%" PRIu64 ",\"coalesced\":%" PRIu64
                       ",\"spool\":{\"files\":%" PRIu64 ",\"rejected\":%" PRIu64
                       "},\"socket\":{\"clients\":%zu},\"endpoint\":\"%s\""
                       ",\"held\":%s,\"paused_until\":null,\"breaker\":\"closed\",\"storage\":",
                       d->attempts, d->retries, d->verifications,
                       s->spool.coalesced + s->control.coalesced, s->spool.files, s->spool.rejected,
                       s->control.clients, endpoint_name(d->endpoint), held_by(s));
    if (r == 0)
        r = append_storage(b, s);
    if (r == 0)
        r = buf_printf(b, ",\"nats\":null,\"rate_per_s\":null,\"in_flight_limit\":%" PRId64 "}",
                       s->in_flight_limit);
    return r;
}

int stats_append_status(struct buf *b, const struct stats *s)
{
    const struct dispatch_stats *d = s->dispatch;
    int r = 0;
    if (s->storage != NULL)
        r = buf_printf(b, "Storage in trouble (%s), nothing new is accepted; ", s->storage);
    else if (s->spool_trouble != 0)
        r = buf_printf(b, "Storage in trouble (spool: %s), files wait; ",
                       strerror(-s->spool_trouble));
    if (r == 0 && s->held)
        r = buf_append_str(b, "Held by the operator (release resumes sending); ");
    if (r == 0 && d->health == HEALTH_UNREACHABLE)
        r = buf_append_str(b, "The API can't be reached (the log says why); ");
    else if (r == 0 && d->health == HEALTH_FAILING)
        r = buf_append_str(b, "The API answers with errors only (the log says which); ");
    if (r == 0 && s->pending == 0)
        r = buf_append_str(b, "Idle");
    else if (r == 0)
        r = buf_printf(b, "%" PRId64 " pending: %" PRId64 " queued, %zu in flight, %zu waiting",
                       s->pending, queued_of(s), d->in_flight, d->waiting);
    return r;
}
