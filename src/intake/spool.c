/* The spool directory: the module's life, its claims, and when there is work to do. Runs on the loop
 * thread.
 *
 * Work is done in slices, so that a million files never hold the loop up: the idle handle runs while
 * there is some, and nothing runs but the rescan timer when there is none. */
#include "intake/spool_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 10000
#define REOPEN_FIRST_MS 250
/* While it is not known whether the queue has room. */
#define PROBE_LINES 64
/* What a step costs at least, in bytes of the budget, so that each slice ends. */
#define STEP_COST 512

static void update(struct spool *s);

/* --- Claims --- */

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
static void retry(struct spool *s)
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

static void run(struct spool *s, struct claim *c, struct spool_slice *slice)
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
    run(s, c, slice);
}

static void woken(struct claim *c, bool was_refused, void *userdata)
{
    struct spool *s = userdata;
    if (s->stopping) {
        drop(s, c);
        update(s);
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
    update(s);
}

static bool can_step(const struct spool *s)
{
    return !TAILQ_EMPTY(&s->ready) && s->flow != SPOOL_HALTED &&
           s->shared.open_requests < SPOOL_REQUESTS_MAX;
}

static bool has_budget(const struct spool_slice *slice)
{
    return slice->budget.bytes > 0 && slice->budget.files > 0 && slice->looks > 0;
}

static void look_at_waiting(struct spool *s)
{
    int64_t now_ms = clock_mono_ms();
    struct claim *c;
    while ((c = TAILQ_FIRST(&s->waiting)) != NULL && c->due_ms <= now_ms)
        put_in(s, c, &s->ready);
}

/* What was planned for this time or before. */
static void look_at_clock(struct spool *s)
{
    int64_t now_ms = clock_mono_ms();
    look_at_waiting(s);
    if (s->retry_at_ms <= now_ms)
        retry(s);
    if (s->scan_at_ms <= now_ms) {
        s->scan_at_ms = INT64_MAX;
        s->scan.wanted = true;
    }
    if (s->reopen_at_ms <= now_ms) {
        s->reopen_at_ms = INT64_MAX;
        spool_check_directory(s);
    }
}

/* One slice. True when there is more to do at once. */
static bool work(struct spool *s)
{
    struct spool_slice slice = {
        .budget = { .bytes = SPOOL_SLICE_BYTES, .files = SPOOL_SLICE_FILES },
        .looks = SPOOL_SLICE_LOOKS,
    };
    bool found = true;
    look_at_clock(s);
    while (has_budget(&slice)) {
        if (can_step(s))
            run(s, TAILQ_FIRST(&s->ready), &slice);
        else if (spool_has_room(s) && found)
            found = spool_find_next(s, &slice);
        else
            break;
    }
    if (s->dir != NULL)
        (void) spool_dir_sync_rejected(s->dir);
    return can_step(s) || (spool_has_room(s) && found);
}

/* --- The loop --- */

static int64_t next_wake_ms(const struct spool *s)
{
    int64_t at_ms = s->retry_at_ms < s->scan_at_ms ? s->retry_at_ms : s->scan_at_ms;
    if (s->reopen_at_ms < at_ms)
        at_ms = s->reopen_at_ms;
    const struct claim *c = TAILQ_FIRST(&s->waiting);
    if (c != NULL && c->due_ms < at_ms)
        at_ms = c->due_ms;
    int64_t candidate_ms = spool_has_room(s) ? candidates_next_ms(&s->candidates) : INT64_MAX;
    return candidate_ms < at_ms ? candidate_ms : at_ms;
}

static void idle_cb(uv_idle_t *handle);
static void wake_cb(uv_timer_t *handle);

static void start_idle(struct spool *s)
{
    (void) uv_idle_start(&s->idle, idle_cb);
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

static void tell_trouble(struct spool *s)
{
    int trouble = spool_trouble(s);
    if (trouble == s->told_trouble)
        return;
    s->told_trouble = trouble;
    if (s->trouble_changed != NULL)
        s->trouble_changed(s->userdata);
}

static void slice_done(struct spool *s, bool more)
{
    if (s->stopping)
        return;
    tell_trouble(s);
    if (more)
        start_idle(s);
    else
        (void) uv_idle_stop(&s->idle);
    if (s->watch != NULL)
        watch_enable(s->watch, !more && spool_has_room(s));

    int64_t at_ms = next_wake_ms(s);
    if (more || at_ms == INT64_MAX) {
        (void) uv_timer_stop(&s->wake);
        return;
    }
    int64_t in_ms = at_ms - clock_mono_ms();
    /* The loop's time may be behind ours. */
    uv_update_time(s->loop);
    (void) uv_timer_start(&s->wake, wake_cb, in_ms > 0 ? (uint64_t) in_ms : 0, 0);
}

static void slice(struct spool *s)
{
    if (!s->stopping)
        slice_done(s, work(s));
}

static void idle_cb(uv_idle_t *handle)
{
    slice(handle->data);
}

static void wake_cb(uv_timer_t *handle)
{
    slice(handle->data);
}

static void readable(void *userdata)
{
    slice(userdata);
}

static void rescan_cb(uv_timer_t *handle)
{
    struct spool *s = handle->data;
    spool_check_directory(s);
    if (s->scan.dir == NULL)
        s->scan.wanted = true;
    if (s->claimed_scan.dir == NULL)
        s->claimed_scan.wanted = true;
    slice(s);
}

/* --- Life --- */

static void finish_stop(struct spool *s)
{
    if (s->handles == 0 && s->n_claims == 0 && s->stopped != NULL) {
        void (*stopped)(void *userdata) = s->stopped;
        s->stopped = NULL;
        stopped(s->stopped_userdata);
    }
}

/* Something changed from outside: work soon, not inside the caller. */
static void update(struct spool *s)
{
    if (s->stopping)
        finish_stop(s);
    else
        start_idle(s);
}

static int split_path(struct spool *s, const char *directory)
{
    s->path = strdup(directory);
    if (s->path == NULL)
        return -ENOMEM;
    size_t len = strlen(s->path);
    while (len > 1 && s->path[len - 1] == '/')
        s->path[--len] = '\0';

    const char *slash = strrchr(s->path, '/');
    s->base = strdup(slash != NULL ? slash + 1 : s->path);
    if (slash == NULL)
        s->parent = strdup(".");
    else
        s->parent = strndup(s->path, slash == s->path ? 1 : (size_t) (slash - s->path));
    return s->base != NULL && s->parent != NULL ? 0 : -ENOMEM;
}

static int init_handles(struct spool *s)
{
    int r = uv_idle_init(s->loop, &s->idle);
    if (r == 0)
        r = uv_timer_init(s->loop, &s->wake);
    if (r == 0)
        r = uv_timer_init(s->loop, &s->rescan);
    s->idle.data = s->wake.data = s->rescan.data = s;
    s->handles = 3;
    return r;
}

int spool_create(struct spool **ret, uv_loop_t *loop, struct queue *queue,
                 const struct spool_options *options)
{
    struct spool *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->loop = loop;
    s->rescan_interval_ms = options->rescan_interval_s * 1000;
    s->trouble_changed = options->trouble_changed;
    s->userdata = options->userdata;
    s->shared = (struct claim_shared){
        .queue = queue,
        .max_file_bytes = options->max_file_bytes,
        .settle_ms = options->settle_ms,
        .deadline_s = options->deadline_s,
        .part_lines = CLAIM_PART_LINES,
        .woken = woken,
        .userdata = s,
        .window = malloc(CLAIM_WINDOW),
    };
    s->retry_at_ms = s->scan_at_ms = s->reopen_at_ms = INT64_MAX;
    s->retry_wait_ms = RETRY_FIRST_MS;
    s->reopen_wait_ms = REOPEN_FIRST_MS;
    s->scan_wait_ms = claim_wait_ms(&s->shared);
    candidates_init(&s->candidates);
    TAILQ_INIT(&s->ready);
    TAILQ_INIT(&s->putting);
    TAILQ_INIT(&s->waiting);
    TAILQ_INIT(&s->stuck);

    int r = s->shared.window != NULL ? split_path(s, options->directory) : -ENOMEM;
    if (r == 0)
        r = init_handles(s); /* these can't fail: none would be left to close */
    if (r < 0) {
        spool_destroy(s);
        return r;
    }
    *ret = s;
    return 0;
}

int spool_start(struct spool *s)
{
    int r = watch_create(&s->watch, s->loop, readable, s);
    if (r == 0)
        s->handles++;
    else
        log_warning("spool: no inotify: %s%s; files are found by a scan every %jd s only",
                    strerror(-r),
                    r == -EMFILE ? " (see the sysctl fs.inotify.max_user_instances)" : "",
                    (intmax_t) s->rescan_interval_ms / 1000);

    uint64_t interval_ms = (uint64_t) s->rescan_interval_ms;
    r = uv_timer_start(&s->rescan, rescan_cb, interval_ms, interval_ms);
    if (r < 0)
        return r;
    spool_open_directory(s);
    update(s);
    return 0;
}

void spool_set_deadline(struct spool *s, int64_t deadline_s)
{
    s->shared.deadline_s = deadline_s;
}

void spool_resume(struct spool *s)
{
    if (s->stopping || s->retry_at_ms == INT64_MAX)
        return;
    s->retry_at_ms = clock_mono_ms();
    update(s);
}

static void handle_closed(struct spool *s)
{
    s->handles--;
    finish_stop(s);
}

static void handle_closed_cb(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void watch_closed(void *userdata)
{
    handle_closed(userdata);
}

void spool_stop(struct spool *s, void (*done)(void *userdata), void *userdata)
{
    s->stopping = true;
    s->stopped = done;
    s->stopped_userdata = userdata;

    struct claim_list *lists[] = { &s->ready, &s->waiting, &s->stuck };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        while (!TAILQ_EMPTY(lists[i]))
            drop(s, TAILQ_FIRST(lists[i]));
    spool_drop_directory(s);
    if (s->watch != NULL)
        watch_destroy(s->watch, watch_closed);
    s->watch = NULL;
    uv_close((uv_handle_t *) &s->idle, handle_closed_cb);
    uv_close((uv_handle_t *) &s->wake, handle_closed_cb);
    uv_close((uv_handle_t *) &s->rescan, handle_closed_cb);
}

void spool_destroy(struct spool *s)
{
    if (s == NULL)
        return;
    free(s->shared.window);
    free(s->path);
    free(s->parent);
    free(s->base);
    free(s);
}

void spool_get_stats(const struct spool *s, struct spool_stats *ret)
{
    *ret = s->shared.stats;
}
