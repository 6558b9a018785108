/* A claimed file: claiming, opening, checking, the end. Runs on the loop thread. */
#include "intake/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "intake/claim_private.h"
#include "intake/spool_name.h"

#define WAIT_MIN_MS 50
/* How much is looked at or copied in a step. */
#define CHECK_WINDOWS 4

/* --- Its making --- */

static struct claim *claim_create(struct claim_shared *shared, struct spool_dir *dir)
{
    struct claim *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->shared = shared;
    c->dir = spool_dir_ref(dir);
    c->holder_fd = dir->claimed_fd;
    c->fd = -1;
    c->rest.fd = -1;
    return c;
}

void claim_destroy(struct claim *c)
{
    if (c == NULL)
        return;
    reject_rest_finish(c->dir, c->uuid, &c->rest);
    if (c->fd >= 0)
        (void) close(c->fd);
    if (c->holder_fd >= 0 && c->holder_fd != c->dir->claimed_fd)
        (void) close(c->holder_fd);
    spool_dir_unref(c->dir);
    free(c->items);
    free(c->holder);
    free(c->entry);
    free(c);
}

/* After its file is gone. */
static void remove_holder(struct claim *c)
{
    if (c->holder != NULL)
        (void) unlinkat(c->dir->claimed_fd, c->holder, AT_REMOVEDIR);
}

static int open_holder(struct claim *c)
{
    c->holder_fd =
        openat(c->dir->claimed_fd, c->holder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return c->holder_fd < 0 ? -errno : 0;
}

static int make_holder(struct claim *c)
{
    if (mkdirat(c->dir->claimed_fd, c->holder, 0700) < 0)
        return -errno;
    int r = open_holder(c);
    if (r < 0)
        remove_holder(c);
    return r;
}

/* Decides how the claim is called. */
static int choose_entry(struct claim *c, const char *name)
{
    char text[NAME_MAX + 1];
    if (claim_name_format(text, c->uuid, c->was_empty, name)) {
        c->entry = strdup(text);
        if (c->entry == NULL)
            return -ENOMEM;
        c->name = c->entry + strlen(c->entry) - strlen(name);
        return 0;
    }
    c->holder = strdup(text);
    c->entry = strdup(name);
    c->name = c->entry;
    return c->holder != NULL && c->entry != NULL ? make_holder(c) : -ENOMEM;
}

int claim_take(struct claim **ret, struct claim_shared *shared, struct spool_dir *dir,
               const char *name, const struct stat *st)
{
    struct claim *c = claim_create(shared, dir);
    if (c == NULL)
        return -ENOMEM;
    uuid7_make(clock_wall_ms(), c->uuid);
    c->mode = st->st_mode;
    c->was_empty = S_ISREG(st->st_mode) && st->st_size == 0;

    int r = choose_entry(c, name);
    if (r == 0 && renameat(dir->fd, name, c->holder_fd, c->entry) < 0) {
        r = -errno;
        remove_holder(c);
    }
    if (r < 0) {
        claim_destroy(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* The only file in the claim's own directory. */
static int find_entry(struct claim *c)
{
    int fd = openat(c->holder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) {
        int error = errno;
        if (fd >= 0)
            (void) close(fd);
        return error > 0 ? -error : -EIO;
    }
    int r = -ENOENT;
    struct dirent *e;
    while (r == -ENOENT && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        c->entry = strdup(e->d_name);
        c->name = c->entry;
        r = c->entry != NULL ? 0 : -ENOMEM;
    }
    (void) closedir(d);
    if (r == -ENOENT)
        remove_holder(c); /* a crash came between mkdir and rename, or between unlink and rmdir */
    return r;
}

static int recover(struct claim *c, const char *entry, const struct claim_name *name)
{
    memcpy(c->uuid, name->uuid, sizeof(c->uuid));
    c->was_empty = name->was_empty;

    int r;
    if (name->name != NULL) {
        c->entry = strdup(entry);
        if (c->entry == NULL)
            return -ENOMEM;
        c->name = c->entry + (name->name - entry);
    } else {
        c->holder = strdup(entry);
        if (c->holder == NULL)
            return -ENOMEM;
        r = open_holder(c);
        if (r == 0)
            r = find_entry(c);
        if (c->entry == NULL) /* r says why */
            return r == -ENOTDIR || r == -ELOOP ? -EINVAL : r;
    }
    struct stat st;
    if (fstatat(c->holder_fd, c->entry, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    c->mode = st.st_mode;
    claim_resume_restore(c);
    return 0;
}

int claim_recover(struct claim **ret, struct claim_shared *shared, struct spool_dir *dir,
                  const char *entry)
{
    struct claim_name name;
    int r = claim_name_parse(entry, &name);
    if (r < 0)
        return r;
    struct claim *c = claim_create(shared, dir);
    if (c == NULL)
        return -ENOMEM;
    r = recover(c, entry, &name);
    if (r < 0) {
        claim_destroy(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* --- Common to the phases --- */

int64_t claim_wait_ms(const struct claim_shared *shared)
{
    return shared->settle_ms > WAIT_MIN_MS ? shared->settle_ms : WAIT_MIN_MS;
}

enum claim_next claim_stuck(struct claim *c, const char *doing, int r)
{
    if (c->logged_error != r)
        log_error("spool: '%s': %s: %s; it stays in " CLAIMED_DIRECTORY
                  "/%s, and will be tried again",
                  c->name, doing, strerror(-r), c->holder != NULL ? c->holder : c->entry);
    c->logged_error = r;
    return CLAIM_STUCK;
}

enum claim_next claim_reject(struct claim *c, enum reject_cause cause, int64_t detail)
{
    struct reject why = { .name = c->name, .uuid = c->uuid, .cause = cause, .detail = detail };
    int r = reject_move(c->dir, c->holder_fd, c->entry, &why);
    if (r < 0)
        return claim_stuck(c, "can't be moved to " REJECTED_DIRECTORY, r);
    remove_holder(c);
    claim_resume_forget(c);
    c->shared->stats.rejected++;
    return CLAIM_OVER;
}

ssize_t claim_read_at(const struct claim *c, char *data, size_t len, off_t offset)
{
    return fs_read_at(c->fd, data, len, offset);
}

/* Without a lease: it has not changed for settle_ms, by its own time or by our watching it. The
 * change time is of no use, for the claiming changed it. */
static bool is_settled(struct claim *c, const struct stat *st)
{
    int64_t age_ms =
        clock_wall_ms() - (int64_t) st->st_mtim.tv_sec * 1000 - st->st_mtim.tv_nsec / 1000000;
    if (age_ms >= c->shared->settle_ms)
        return true;

    int64_t now_ms = clock_mono_ms();
    bool same = c->seen_at_ms != 0 && c->seen_size == st->st_size &&
                c->seen_mtime.tv_sec == st->st_mtim.tv_sec &&
                c->seen_mtime.tv_nsec == st->st_mtim.tv_nsec;
    if (!same) {
        c->seen_at_ms = now_ms;
        c->seen_size = st->st_size;
        c->seen_mtime = st->st_mtim;
    }
    return now_ms - c->seen_at_ms >= c->shared->settle_ms;
}

int claim_is_quiet(struct claim *c, struct stat *ret)
{
    /* In this order: what a writer wrote before it closed the file is in the size then. */
    int lease = c->fd >= 0 ? fs_no_writer(c->fd) : -EACCES;
    int r =
        c->fd >= 0 ? fstat(c->fd, ret) : fstatat(c->holder_fd, c->entry, ret, AT_SYMLINK_NOFOLLOW);
    if (r < 0)
        return -errno;
    if (lease >= 0)
        return lease;
    /* An empty file that may not be read is settled by its claiming: only its name counts. */
    return c->fd < 0 || is_settled(c, ret);
}

/* --- Phases --- */

static enum claim_next not_opened(struct claim *c, int r)
{
    struct stat st;
    if (fstatat(c->holder_fd, c->entry, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return claim_stuck(c, "can't be looked at", -errno);
        log_warning("spool: '%s' was removed from " CLAIMED_DIRECTORY " by somebody else", c->name);
        remove_holder(c);
        return CLAIM_OVER;
    }
    c->mode = st.st_mode;
    if (!S_ISREG(st.st_mode))
        return CLAIM_MORE; /* it was replaced before it was claimed; what was claimed counts */
    if (r != -EACCES && r != -EPERM)
        return claim_stuck(c, "can't be opened", r);
    if (st.st_size > 0)
        return claim_reject(c, REJECT_UNREADABLE, 0);
    c->phase = CLAIM_NAMED;
    return CLAIM_MORE;
}

/* A directory can only get here by replacing a file in the moment of its claiming. */
static enum claim_next put_back(struct claim *c)
{
    if (renameat2(c->holder_fd, c->entry, c->dir->fd, c->name, RENAME_NOREPLACE) < 0)
        return claim_reject(c, REJECT_DIRECTORY, 0);
    remove_holder(c);
    return CLAIM_OVER;
}

static enum claim_next withhold(struct claim *c, int r)
{
    return r < 0 ? claim_stuck(c, "can't be looked at", r) : claim_reject(c, REJECT_LINKED, 0);
}

static void close_file(struct claim *c)
{
    if (c->fd >= 0)
        (void) close(c->fd);
    c->fd = -1;
}

/* Once more, too, after it could be opened and something else failed. */
static enum claim_next step_open(struct claim *c)
{
    close_file(c);
    if (S_ISDIR(c->mode))
        return put_back(c);
    if (!S_ISREG(c->mode)) /* not even opened: a device may take that for an order */
        return claim_reject(c, reject_cause_of_type(c->mode), 0);

    struct stat st;
    int withheld = fstatat(c->holder_fd, c->entry, &st, AT_SYMLINK_NOFOLLOW) == 0
                       ? spool_dir_withholds(c->dir->fd, &st)
                       : 0; /* opening it tells */
    if (withheld != 0)
        return withhold(c, withheld);
    c->fd =
        openat(c->holder_fd, c->entry, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (c->fd < 0)
        return not_opened(c, -errno);
    if (fstat(c->fd, &st) < 0)
        return claim_stuck(c, "can't be looked at", -errno);
    withheld = S_ISREG(st.st_mode) ? spool_dir_withholds(c->dir->fd, &st) : 0;
    if (withheld != 0)
        return withhold(c, withheld);
    c->mode = st.st_mode;
    if (!S_ISREG(st.st_mode)) {
        close_file(c);
        return CLAIM_MORE;
    }
    if (st.st_size > c->shared->max_file_bytes)
        return claim_reject(c, REJECT_TOO_LARGE, st.st_size);
    /* What fits into the window is checked when it is read. */
    if (st.st_size == 0)
        c->phase = CLAIM_NAMED;
    else
        c->phase = st.st_size < CLAIM_WINDOW ? CLAIM_READING : CLAIM_CHECKING;
    return CLAIM_MORE;
}

static enum claim_next step_check(struct claim *c, struct claim_budget *budget)
{
    for (int i = 0; i < CHECK_WINDOWS; i++) {
        ssize_t n = claim_read_at(c, c->shared->window, CLAIM_WINDOW, c->look_offset);
        if (n < 0)
            return claim_stuck(c, "can't be read", (int) n);
        const char *nul = memchr(c->shared->window, '\0', (size_t) n);
        if (nul != NULL)
            return claim_reject(c, REJECT_NUL, c->look_offset + (nul - c->shared->window) + 1);
        budget->bytes -= n;
        c->look_offset += n;
        if (c->look_offset > c->shared->max_file_bytes) /* it still grows */
            return claim_reject(c, REJECT_TOO_LARGE, c->look_offset);
        if (n < CLAIM_WINDOW) {
            c->checked = true;
            c->phase = CLAIM_READING;
            break;
        }
    }
    return CLAIM_MORE;
}

static enum claim_next finish(struct claim *c)
{
    if (unlinkat(c->holder_fd, c->entry, 0) < 0 && errno != ENOENT)
        return claim_stuck(c, "can't be removed", -errno);
    remove_holder(c);
    claim_resume_forget(c);
    return CLAIM_OVER;
}

static enum claim_next step_end(struct claim *c, struct claim_budget *budget)
{
    struct stat st;
    int r = claim_is_quiet(c, &st);
    if (r < 0 && r != -ENOENT)
        return claim_stuck(c, "can't be looked at", r);
    if (r == -ENOENT)
        return finish(c);
    if (st.st_size > c->offset) {
        if (c->named)
            return r == 1 ? claim_reject(c, REJECT_LATE, 0) : CLAIM_WRITER;
        c->phase = CLAIM_READING;
        return CLAIM_MORE;
    }
    if (r == 0)
        return CLAIM_WRITER;
    if (st.st_size < c->offset)
        return claim_reject(c, REJECT_REWRITTEN, (int64_t) c->number);

    budget->files--;
    enum claim_next next = finish(c);
    if (next == CLAIM_OVER) {
        c->shared->stats.files++;
        log_debug("spool: '%s' is taken, %ju lines", c->name, (uintmax_t) c->number);
    }
    return next;
}

static enum claim_next step_cut(struct claim *c, struct claim_budget *budget)
{
    struct reject why = {
        .name = c->name,
        .uuid = c->uuid,
        .cause = REJECT_BAD_LINES,
        .detail = (int64_t) c->number,
    };
    if (!reject_rest_placed(c->dir, &why)) {
        struct stat st;
        int r = claim_is_quiet(c, &st);
        if (r < 0)
            return claim_stuck(c, "can't be looked at", r);
        if (r == 0)
            return CLAIM_WRITER;
        if (st.st_size <= c->offset) {
            c->phase = CLAIM_ENDING;
            return CLAIM_MORE;
        }
        size_t max = CHECK_WINDOWS * CLAIM_WINDOW;
        budget->bytes -= (int64_t) max;
        r = reject_rest_copy(c->dir, c->uuid, c->fd, c->offset, st.st_size, max, &c->rest);
        if (r == 1)
            return CLAIM_MORE;
        if (r == 0)
            r = reject_rest_place(c->dir, &why, &c->rest);
        if (r < 0)
            return claim_stuck(c, "its rest can't be moved to " REJECTED_DIRECTORY, r);
        c->shared->stats.rejected++;
    }
    c->dir->rejected_dirty = true;
    int r = spool_dir_sync_rejected(c->dir);
    if (r < 0)
        return claim_stuck(c, REJECTED_DIRECTORY " can't be synced", r);
    return finish(c);
}

enum claim_next claim_step(struct claim *c, struct claim_budget *budget)
{
    switch (c->phase) {
    case CLAIM_OPENING:
        return step_open(c);
    case CLAIM_CHECKING:
        return step_check(c, budget);
    case CLAIM_NAMED:
        return claim_part_name(c);
    case CLAIM_READING:
        return claim_part_read(c, budget);
    case CLAIM_SKIPPING:
        return claim_part_skip(c, budget);
    case CLAIM_DISOWNED:
        return claim_part_disown(c);
    case CLAIM_CUTTING:
        return step_cut(c, budget);
    case CLAIM_ENDING:
        return step_end(c, budget);
    }
    abort();
}
