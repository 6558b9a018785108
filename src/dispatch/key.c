/* A rejected key is nobody's job's fault: nothing is sent until the API accepts it again. Loop thread.
 *
 * It is checked by asking for the status of a job that waits, with the key file read anew; any answer
 * but 401 has sending go on, with one request first. */
#include "base/clock.h"
#include "dispatch/dispatch_private.h"

/* How soon a new key is noticed. */
#define REREAD_MS 5000

void key_refused(struct dispatch *d, unsigned epoch, const char *code, const char *message)
{
    int64_t now_ms = clock_steady_ms();
    if (!key_gate_refused(&d->key, epoch, now_ms))
        return;
    d->key_reread_ms = now_ms + REREAD_MS;
    d->host.key_changed(d->host.userdata, code, message);
}

void key_resume(struct dispatch *d, bool checked)
{
    if (!d->key.rejected)
        return;
    key_gate_resume(&d->key, checked);
    d->host.key_changed(d->host.userdata, NULL, NULL);
}

static bool can_check(const struct dispatch *d)
{
    return d->key.rejected && !d->held && !d->draining && window_peek(d->window) != NULL;
}

static void start_check(struct dispatch *d)
{
    (void) d->host.renew_key(d->host.userdata);
    char path[ENDPOINT_PATH_MAX];
    endpoint_path(ENDPOINT_JOB, window_peek(d->window), path);
    if (http_send(d->http, HTTP_GET, path, NULL) == 0)
        d->key_checks++;
    else if (d->key_checks == 0)
        key_gate_check_failed(&d->key, clock_steady_ms());
}

void key_turn(struct dispatch *d, int64_t now_ms)
{
    if (!can_check(d))
        return;
    bool renewed = false;
    if (now_ms >= d->key_reread_ms) {
        d->key_reread_ms = now_ms + REREAD_MS;
        renewed = d->host.renew_key(d->host.userdata);
    }
    /* A check of the old key that hangs must not hold up the new one's. */
    if (renewed || (d->key_checks == 0 && now_ms >= d->key.check_at_ms))
        start_check(d);
}

int64_t key_next_ms(const struct dispatch *d)
{
    if (!can_check(d))
        return INT64_MAX;
    bool waits = d->key_checks == 0 && d->key.check_at_ms < d->key_reread_ms;
    return waits ? d->key.check_at_ms : d->key_reread_ms;
}

void key_checked(struct dispatch *d, const struct reply *reply)
{
    d->key_checks--;
    if (!d->key.rejected)
        return; /* resumed meanwhile */
    /* Of a job with a large result only the beginning is read, and that is an answer, too. */
    bool answered = reply->transport == TRANSPORT_OK || reply->truncated;
    if (answered && reply->status != 401)
        key_resume(d, true);
    else
        key_gate_check_failed(&d->key, clock_steady_ms());
}
