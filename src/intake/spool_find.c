/* Where files come from: what .claimed/ holds from before, what inotify tells, what has settled, and
 * what a scan finds, in this order. Runs on the loop thread.
 *
 * No list of names grows with the number of files: what can't be taken now stays in the kernel's
 * event queue or is found by a later scan. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "intake/spool_name.h"
#include "intake/spool_private.h"

#define SCAN_WAIT_MIN_MS 50
#define TEXT_MAX 1024

/* --- The directory --- */

static void scan_close(struct spool_scan *scan)
{
    if (scan->dir != NULL)
        (void) closedir(scan->dir);
    *scan = (struct spool_scan){ 0 };
}

void spool_drop_directory(struct spool *s)
{
    if (s->watch != NULL)
        watch_drop_directory(s->watch);
    scan_close(&s->claimed_scan);
    scan_close(&s->scan);
    candidates_clear(&s->candidates);
    s->scan_at_ms = INT64_MAX;
    s->n_noted = 0;
    spool_dir_unref(s->dir);
    s->dir = NULL;
}

static void watch(struct spool *s)
{
    if (s->watch == NULL)
        return;
    int r = watch_directory(s->watch, s->dir->fd, s->path);
    if (r < 0 && r != s->watch_error)
        log_warning("spool: %s can't be watched: %s%s; files are found by a scan every %jd s only",
                    s->path, strerror(-r),
                    r == -ENOSPC ? " (see the sysctl fs.inotify.max_user_watches)" : "",
                    (intmax_t) s->rescan_interval_ms / 1000);
    s->watch_error = r;
}

static void not_opened(struct spool *s, int r, const char *text)
{
    if (r != s->dir_error) {
        if (r == -ENOENT)
            log_warning("spool: %s does not exist; waiting for it", s->path);
        else
            log_error("spool: %s can't be used: %s", s->path, text);
    }
    s->dir_error = r;
    /* What is missing is announced by its parent; what is there may still be in the making. */
    s->reopen_at_ms = INT64_MAX;
    if (r == -ENOENT)
        return;
    s->reopen_at_ms = clock_mono_ms() + s->reopen_wait_ms;
    if (s->reopen_wait_ms * 2 < s->rescan_interval_ms)
        s->reopen_wait_ms *= 2;
}

void spool_open_directory(struct spool *s)
{
    /* Before the look, so that what is made after it is announced. */
    if (s->watch != NULL)
        (void) watch_parent(s->watch, s->parent, s->base);

    struct buf text;
    buf_init(&text, TEXT_MAX);
    int r = spool_dir_open(s->path, &s->dir, &text);
    if (r < 0) {
        const char *what = text.len > 0 ? buf_cstr(&text) : NULL;
        not_opened(s, r, what != NULL ? what : strerror(-r));
        buf_finish(&text);
        return;
    }
    buf_finish(&text);
    if (s->dir_error != 0)
        log_info("spool: %s is in use", s->path);
    s->dir_error = 0;
    s->reopen_at_ms = INT64_MAX;
    s->reopen_wait_ms = SPOOL_REOPEN_FIRST_MS;
    watch(s);
    s->claimed_scan.wanted = true;
    s->scan.wanted = true;
}

void spool_check_directory(struct spool *s)
{
    if (s->dir != NULL && spool_dir_is_current(s->dir, s->path)) {
        if (s->watch != NULL) {
            (void) watch_parent(s->watch, s->parent, s->base);
            if (!watch_has_directory(s->watch))
                watch(s);
        }
        return;
    }
    if (s->dir != NULL) {
        log_info("spool: %s was removed or replaced", s->path);
        spool_drop_directory(s);
    }
    spool_open_directory(s);
}

/* --- Taking --- */

/* True the first time, as far as memory goes. */
static bool note(struct spool *s, const char *name)
{
    uint64_t hash = spool_name_hash(name);
    for (size_t i = 0; i < s->n_noted; i++)
        if (s->noted[i] == hash)
            return false;
    if (s->n_noted == SPOOL_NOTED_MAX)
        return false;
    s->noted[s->n_noted++] = hash;
    if (s->n_noted == SPOOL_NOTED_MAX)
        log_warning("spool: more like this in %s is not logged any more", s->path);
    return true;
}

static void note_directory(struct spool *s, const char *name)
{
    if (note(s, name))
        log_warning(
            "spool: '%s' is a directory and is left alone: only files in %s itself are taken", name,
            s->path);
}

static void not_taken(struct spool *s, const char *name, int r)
{
    if (r == -ENOENT) {
        struct stat st;
        /* Either the file is gone, or .claimed/ is. */
        if (fstatat(s->dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            spool_check_directory(s);
        return;
    }
    if (r == -EACCES || r == -EPERM) {
        if (note(s, name))
            log_error("spool: '%s' can't be claimed: %s; %s must belong to the daemon's user, or "
                      "be writable for it and not sticky",
                      name, strerror(-r), s->path);
        return;
    }
    if (r == -EBUSY || r == -EXDEV) { /* something is mounted on it */
        if (note(s, name))
            log_error("spool: '%s' can't be claimed: %s; it is left where it is", name,
                      strerror(-r));
        return;
    }
    if (r != s->take_error)
        log_error("spool: files can't be claimed: %s; they wait", strerror(-r));
    s->take_error = r;
    /* The event that told its name is gone. */
    s->scan.wanted = s->scan_failed = true;
    spool_halt(s);
}

static void take(struct spool *s, const char *name, const struct stat *st,
                 struct spool_slice *slice)
{
    struct claim *c;
    int r = claim_take(&c, &s->shared, s->dir, name, st);
    slice->budget.files--;
    if (r < 0) {
        not_taken(s, name, r);
        return;
    }
    s->take_error = 0;
    s->scan_took = true;
    spool_begin_claim(s, c, slice);
}

/* --- Events --- */

static void take_written(struct spool *s, const char *name, struct spool_slice *slice)
{
    candidates_remove(&s->candidates, name);
    struct stat st;
    if (fstatat(s->dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (S_ISDIR(st.st_mode))
        note_directory(s, name);
    else
        take(s, name, &st, slice);
}

static void plan_scan(struct spool *s)
{
    int64_t at_ms = clock_mono_ms() + s->scan_wait_ms;
    if (at_ms < s->scan_at_ms)
        s->scan_at_ms = at_ms;
}

static void add_candidate(struct spool *s, const char *name, const struct candidate_look *look,
                          int64_t wait_ms)
{
    if (candidates_add(&s->candidates, name, look, clock_mono_ms() + wait_ms) < 0)
        s->scan_overflowed = true;
}

static void created(struct spool *s, const char *name)
{
    struct candidate_look look = { 0 };
    candidates_remove(&s->candidates, name); /* that was another file */
    add_candidate(s, name, &look, s->shared.settle_ms);
    if (s->scan_overflowed && s->scan.dir == NULL)
        plan_scan(s);
}

static bool next_event(struct spool *s, struct spool_slice *slice)
{
    struct watch_event e;
    if (s->watch == NULL || watch_next(s->watch, &e) == 0)
        return false;
    slice->looks--;
    switch (e.kind) {
    case WATCH_WRITTEN:
    case WATCH_CREATED:
        if (spool_name_ignored(e.name))
            break;
        if (e.directory)
            note_directory(s, e.name);
        else if (e.kind == WATCH_WRITTEN)
            take_written(s, e.name, slice);
        else
            created(s, e.name);
        break;
    case WATCH_OPENED:
        candidates_opened(&s->candidates, e.name, clock_mono_ms());
        break;
    case WATCH_OVERFLOW:
        candidates_forget_opened(&s->candidates);
        log_info("spool: the kernel's event queue ran over; scanning");
        s->scan.wanted = true;
        break;
    case WATCH_GONE:
        spool_drop_directory(s);
        spool_open_directory(s);
        break;
    case WATCH_PARENT:
        spool_check_directory(s);
        break;
    }
    return true;
}

/* --- Candidates --- */

static bool next_candidate(struct spool *s, struct spool_slice *slice)
{
    struct candidate *c = candidates_take_due(&s->candidates, clock_mono_ms());
    if (c == NULL)
        return false;
    slice->looks--;
    struct stat st;
    switch (candidate_look(s->dir->fd, c->name, s->shared.settle_ms, &c->look, &st)) {
    case CANDIDATE_RIPE:
        take(s, c->name, &st, slice);
        break;
    case CANDIDATE_LATER:
        candidates_put_back(&s->candidates, c, clock_mono_ms() + c->look.wait_ms);
        return true;
    case CANDIDATE_DIRECTORY:
        note_directory(s, c->name);
        break;
    case CANDIDATE_GONE:
        break;
    }
    free(c);
    return true;
}

/* --- Scans --- */

/* True when a scan is going on. */
static bool scan_open(struct spool_scan *scan, int dir_fd)
{
    if (scan->dir != NULL || !scan->wanted)
        return scan->dir != NULL;
    scan->wanted = false;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    scan->dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (scan->dir == NULL) {
        log_error("spool: can't scan: %s", strerror(errno));
        if (fd >= 0)
            (void) close(fd);
    }
    return scan->dir != NULL;
}

/* NULL at the end, and the scan is closed. */
static const char *scan_next(struct spool_scan *scan)
{
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(scan->dir);
        if (e == NULL) {
            if (errno != 0)
                log_error("spool: can't scan on: %s", strerror(errno));
            (void) closedir(scan->dir);
            scan->dir = NULL;
            return NULL;
        }
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return e->d_name;
    }
}

static void scan_ended(struct spool *s)
{
    if (!s->scan_failed)
        s->take_error = 0;
    if (s->scan_took)
        s->scan_wait_ms =
            s->shared.settle_ms > SCAN_WAIT_MIN_MS ? s->shared.settle_ms : SCAN_WAIT_MIN_MS;
    if (!s->scan_overflowed)
        return;
    plan_scan(s);
    if (s->scan_wait_ms * 2 < s->rescan_interval_ms)
        s->scan_wait_ms *= 2;
}

static bool next_scanned(struct spool *s, struct spool_slice *slice)
{
    bool was_open = s->scan.dir != NULL;
    if (!scan_open(&s->scan, s->dir->fd))
        return false;
    if (!was_open)
        s->scan_overflowed = s->scan_took = s->scan_failed = false;
    slice->looks--;
    const char *name = scan_next(&s->scan);
    if (name == NULL) {
        scan_ended(s);
        return true;
    }
    if (spool_name_ignored(name))
        return true;

    struct candidate_look look = { 0 };
    struct stat st;
    switch (candidate_look(s->dir->fd, name, s->shared.settle_ms, &look, &st)) {
    case CANDIDATE_RIPE:
        /* Only the list knows of that. */
        if (candidates_has_opened(&s->candidates, name))
            break;
        candidates_remove(&s->candidates, name);
        take(s, name, &st, slice);
        break;
    case CANDIDATE_LATER:
        add_candidate(s, name, &look, look.wait_ms);
        break;
    case CANDIDATE_DIRECTORY:
        note_directory(s, name);
        break;
    case CANDIDATE_GONE:
        break;
    }
    return true;
}

/* Something in .claimed/ that is no claim of ours. */
static void reject_foreign(struct spool *s, const char *entry)
{
    char uuid[UUID_TEXT_MAX];
    uuid7_make(clock_wall_ms(), uuid);
    struct reject why = { .name = entry, .uuid = uuid, .cause = REJECT_FOREIGN };
    int r = reject_move(s->dir, s->dir->claimed_fd, entry, &why);
    if (r == 0)
        s->shared.stats.rejected++;
    else if (note(s, entry))
        log_error("spool: " CLAIMED_DIRECTORY "/%s can't be moved to " REJECTED_DIRECTORY ": %s",
                  entry, strerror(-r));
}

static bool next_claimed(struct spool *s, struct spool_slice *slice)
{
    if (!scan_open(&s->claimed_scan, s->dir->claimed_fd))
        return false;
    slice->looks--;
    const char *entry = scan_next(&s->claimed_scan);
    if (entry == NULL)
        return true;
    struct claim_name name;
    if (claim_name_parse(entry, &name) == 0 && spool_has_claim(s, name.uuid))
        return true;

    slice->budget.files--;
    struct claim *c;
    int r = claim_recover(&c, &s->shared, s->dir, entry);
    if (r == 0)
        spool_begin_claim(s, c, slice);
    else if (r == -EINVAL)
        reject_foreign(s, entry);
    else if (r != -ENOENT && note(s, entry))
        log_error("spool: " CLAIMED_DIRECTORY "/%s can't be opened: %s; it will be tried again",
                  entry, strerror(-r));
    return true;
}

bool spool_find_next(struct spool *s, struct spool_slice *slice)
{
    if (s->dir == NULL)
        return next_event(s, slice);
    /* What was begun comes first. */
    if (next_claimed(s, slice))
        return true;
    /* A scan has a share even if events never end. */
    if (++s->turn % 4 == 0 && next_scanned(s, slice))
        return true;
    return next_event(s, slice) || (s->dir != NULL && next_candidate(s, slice)) ||
           (s->dir != NULL && next_scanned(s, slice));
}
