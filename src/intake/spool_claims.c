/* The claims in memory: in which list each of them is, what becomes of it after a step and by the
 * queue's answer, and when it is tried again. Runs on the loop thread. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "intake/spool_private.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 10000
/* While it is not known whether the queue has room. */
#define PROBE_LINES 64
/* What a step costs at least, in bytes of the budget, so that each slice ends. */
#define STEP_COST 512

/* --- The lists --- */

static void put_in(struct spool *s, struct claim *c, struct claim_list *list)
{
    if (c->list != NULL)
        TAILQ_REMOVE(c->list, c, link);
    else
        s->n_claims++;
    s->n_waiting -= c->list == &s->waiting;
    s->n_waiting += list == &s->waiting;
    s->n_stuck -= c->list == &s->stuck;
    s->n_stuck += list == &s->stuck;
    c->list = list;
    TAILQ_INSERT_TAIL(list, c, link);
}

/* What is left of it in .claimed/ is found there again. */
static void drop(struct spool *s, struct claim *c)
{
    if (c->list != NULL) {
        TAILQ_REMOVE(c->list, c, link);
        s->n_claims--;
        s->n_waiting -= c->list == &s->waiting;
        s->n_stuck -= c->list == &s->stuck;
    }
    claim_destroy(c);
}

/* Its error is over, if it had one: then others' may be, too. */
static void mended(struct spool *s, struct claim *c)
{
    if (c->logged_error != 0 && s->stuck_left) {
        s->stuck_left = false;
        s->claimed_scan.wanted = true;
    }
    c->logged_error = 0;
}

bool spool_has_claim(const struct spool *s, const char *uuid)
{
    const struct claim_list *lists[] = { &s->ready, &s->putting, &s->waiting, &s->stuck };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const struct claim *c;
        TAILQ_FOREACH(c, lists[i], link)
            if (strcmp(c->uuid, uuid) == 0)
                return true;
    }
    return false;
}

bool spool_has_room(const struct spool *s)
{
    return !s->stopping && s->flow == SPOOL_FLOWS &&
           s->n_claims - s->n_waiting < SPOOL_ACTIVE_MAX &&
           s->shared.open_requests < SPOOL_REQUESTS_MAX;
}

/* --- Trouble --- */

static void plan_retry(struct spool *s)
{
    if (s->retry_at_ms != INT64_MAX)
        return;
    s->retry_at_ms = clock_mono_ms() + s->retry_wait_ms;
    s->retry_wait_ms = s->retry_wait_ms * 2 < RETRY_MAX_MS ? s->retry_wait_ms * 2 : RETRY_MAX_MS;
}

void spool_halt(struct spool *s)
{
    s->flow = SPOOL_HALTED;
    s->shared.part_lines = PROBE_LINES;
    plan_retry(s);
}

static void refused(struct spool *s)
{
    if (!s->full_logged)
        log_warning("spool: the queue takes nothing more now: files wait");
    s->full_logged = true;
    spool_halt(s);
    /* Room comes and goes quickly; storage in trouble is announced by spool_resume(). */
    s->retry_at_ms = clock_mono_ms() + RETRY_FIRST_MS;
}

static void flow(struct spool *s)
{
    s->flow = SPOOL_FLOWS;
    s->shared.part_lines = CLAIM_PART_LINES;
    if (s->full_logged)
        log_info("spool: the queue takes requests again");
    s->full_logged = false;
    TAILQ_CONCAT(&s->ready, &s->stuck, link);
    struct claim *c;
    TAILQ_FOREACH(c, &s->ready, link)
        c->list = &s->ready;
    s->n_stuck = 0;
}

/* While the queue refuses, one claim tries it for all. */
void spool_retry(struct spool *s)
{
    s->retry_at_ms = INT64_MAX;
    struct claim *c = TAILQ_FIRST(&s->stuck);
    if (s->flow == SPOOL_PROBING) {
        plan_retry(s);
    } else if (s->flow == SPOOL_HALTED && c != NULL) {
        s->flow = SPOOL_PROBING;
        put_in(s, c, &s->ready);
    } else {
        flow(s);
    }
}

static bool is_storage_error(int r)
{
    return r == -ENOSPC || r == -EDQUOT || r == -EIO || r == -EROFS;
}

int spool_trouble(const struct spool *s)
{
    if (is_storage_error(s->dir_error))
        return s->dir_error;
    if (is_storage_error(s->take_error))
        return s->take_error;
    /* Those that wait for their next try, or are at it. */
    const struct claim_list *lists[] = { &s->stuck, &s->ready, &s->putting };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const struct claim *c;
        TAILQ_FOREACH(c, lists[i], link)
            if (is_storage_error(c->logged_error))
                return c->logged_error;
    }
    return 0;
}

/* --- Steps --- */

/* The outcome of a step, or of a put. */
static void arrange(struct spool *s, struct claim *c, enum claim_next next)
{
    bool probed = s->flow == SPOOL_PROBING;
    switch (next) {
    case CLAIM_MORE:
        put_in(s, c, &s->ready);
        return;
    case CLAIM_PUT:
        put_in(s, c, &s->putting);
        return;
    case CLAIM_REFUSED:
        put_in(s, c, &s->stuck);
        refused(s);
        return;
    case CLAIM_STUCK:
        if (s->n_stuck < SPOOL_STUCK_MAX) {
            put_in(s, c, &s->stuck);
        } else {
            s->stuck_left = true;
            drop(s, c);
        }
        plan_retry(s);
        break;
    case CLAIM_WRITER:
        mended(s, c);
        c->due_ms = clock_mono_ms() + claim_wait_ms(&s->shared);
        if (s->n_waiting < SPOOL_WAITING_MAX)
            put_in(s, c, &s->waiting);
        else
            drop(s, c); /* a rescan finds it in .claimed/ */
        break;
    case CLAIM_OVER:
        mended(s, c);
        drop(s, c);
        s->retry_wait_ms = RETRY_FIRST_MS;
        break;
    }
    if (probed)
        flow(s);
}

void spool_run_claim(struct spool *s, struct claim *c, struct spool_slice *slice)
{
    enum claim_next next;
    do {
        next = claim_step(c, &slice->budget);
        slice->budget.bytes -= STEP_COST;
    } while (next == CLAIM_MORE && slice->budget.bytes > 0);
    arrange(s, c, next);
}

void spool_begin_claim(struct spool *s, struct claim *c, struct spool_slice *slice)
{
    put_in(s, c, &s->ready);
    spool_run_claim(s, c, slice);
}

static void woken(struct claim *c, bool was_refused, void *userdata)
{
    struct spool *s = userdata;
    if (s->stopping) {
        drop(s, c);
        spool_update(s);
        return;
    }
    if (was_refused) {
        arrange(s, c, CLAIM_REFUSED);
    } else {
        if (s->flow == SPOOL_PROBING)
            flow(s);
        mended(s, c);
        put_in(s, c, &s->ready);
    }
    spool_update(s);
}

void spool_wake_claims(struct spool *s)
{
    int64_t now_ms = clock_mono_ms();
    struct claim *c;
    while ((c = TAILQ_FIRST(&s->waiting)) != NULL && c->due_ms <= now_ms)
        put_in(s, c, &s->ready);
}

/* --- Life --- */

void spool_init_claims(struct spool *s)
{
    s->shared.part_lines = CLAIM_PART_LINES;
    s->shared.woken = woken;
    s->shared.userdata = s;
    s->retry_at_ms = INT64_MAX;
    s->retry_wait_ms = RETRY_FIRST_MS;
    TAILQ_INIT(&s->ready);
    TAILQ_INIT(&s->putting);
    TAILQ_INIT(&s->waiting);
    TAILQ_INIT(&s->stuck);
}

void spool_drop_claims(struct spool *s)
{
    struct claim_list *lists[] = { &s->ready, &s->waiting, &s->stuck };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        while (!TAILQ_EMPTY(lists[i]))
            drop(s, TAILQ_FIRST(lists[i]));
}
