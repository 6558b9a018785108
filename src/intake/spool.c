/* The spool directory: the module's life, and when there is work to do. Runs on the loop thread.
 *
 * Work is done in slices, so that a million files never hold the loop up: the idle handle runs while
 * there is some, and nothing runs but the rescan timer when there is none. */
#include "intake/spool_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* --- A slice --- */

static bool can_step(const struct spool *s)
{
    return !TAILQ_EMPTY(&s->ready) && s->flow != SPOOL_HALTED &&
           s->shared.open_requests < SPOOL_REQUESTS_MAX;
}

static bool has_budget(const struct spool_slice *slice)
{
    return slice->budget.bytes > 0 && slice->budget.files > 0 && slice->looks > 0;
}

/* What was planned for this time or before. */
static void look_at_clock(struct spool *s)
{
    int64_t now_ms = clock_mono_ms();
    spool_wake_claims(s);
    if (s->retry_at_ms <= now_ms)
        spool_retry(s);
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
            spool_run_claim(s, TAILQ_FIRST(&s->ready), &slice);
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

void spool_update(struct spool *s)
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
        .window = malloc(CLAIM_WINDOW),
    };
    s->scan_at_ms = s->reopen_at_ms = INT64_MAX;
    s->reopen_wait_ms = SPOOL_REOPEN_FIRST_MS;
    s->scan_wait_ms = claim_wait_ms(&s->shared);
    candidates_init(&s->candidates);
    spool_init_claims(s);

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
    spool_update(s);
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
    spool_update(s);
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

    spool_drop_claims(s);
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
