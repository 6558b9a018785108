/* Files that are not known to be finished. Runs on the loop thread. */
#include "intake/candidate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "intake/spool_dir.h"
#include "intake/spool_name.h"

#define WAIT_MIN_MS 50
#define WRITER_WAIT_FACTOR_MAX 16
/* One who opens a file to read it, and makes it thereby, closes it without an event for us. */
#define OPENED_WAIT_MAX_MS ((int64_t) 3600 * 1000)

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static int64_t to_ms(const struct timespec *t)
{
    return (int64_t) t->tv_sec * 1000 + t->tv_nsec / 1000000;
}

/* By its own times, or, when these lie in the future, by our watching it. How long it still takes. */
static int64_t unsettled_ms(const struct stat *st, int64_t settle_ms, struct candidate_look *look)
{
    int64_t now_ms = clock_mono_ms();
    if (look->changed_at_ms == 0 || look->size != st->st_size ||
        !same_time(&look->mtime, &st->st_mtim) || !same_time(&look->ctime, &st->st_ctim)) {
        *look = (struct candidate_look){
            .changed_at_ms = now_ms,
            .opened_at_ms = look->opened_at_ms,
            .mtime = st->st_mtim,
            .ctime = st->st_ctim,
            .size = st->st_size,
        };
    }
    int64_t mtime_ms = to_ms(&st->st_mtim);
    int64_t ctime_ms = to_ms(&st->st_ctim);
    int64_t age_ms = clock_wall_ms() - (mtime_ms > ctime_ms ? mtime_ms : ctime_ms);
    int64_t watched_ms = now_ms - look->changed_at_ms;
    return settle_ms - (age_ms > watched_ms ? age_ms : watched_ms);
}

/* A close is announced, but not for a name elsewhere of the same file: so look again, less and less
 * often. */
static enum candidate_verdict wait_for_writer(int64_t settle_ms, struct candidate_look *look)
{
    int64_t first_ms = settle_ms > WAIT_MIN_MS ? settle_ms : WAIT_MIN_MS;
    int64_t next_ms = look->writer_wait_ms > 0 ? look->writer_wait_ms * 2 : first_ms;
    if (next_ms > first_ms * WRITER_WAIT_FACTOR_MAX)
        next_ms = first_ms * WRITER_WAIT_FACTOR_MAX;
    look->writer_wait_ms = look->wait_ms = next_ms;
    return CANDIDATE_LATER;
}

/* Where leases can't tell. */
static enum candidate_verdict without_lease(int64_t settle_ms, struct candidate_look *look)
{
    if (look->opened_at_ms != 0 && clock_mono_ms() - look->opened_at_ms < OPENED_WAIT_MAX_MS)
        return wait_for_writer(settle_ms, look);
    return CANDIDATE_RIPE;
}

enum candidate_verdict candidate_look(int dir_fd, const char *name, int64_t settle_ms,
                                      struct candidate_look *look, struct stat *ret_stat)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return CANDIDATE_GONE;
    if (S_ISDIR(st.st_mode))
        return CANDIDATE_DIRECTORY;
    look->wait_ms = unsettled_ms(&st, settle_ms, look);
    if (look->wait_ms > 0)
        return CANDIDATE_LATER;

    *ret_stat = st;
    /* Not opened: a device may take that for an order. */
    if (!S_ISREG(st.st_mode))
        return CANDIDATE_RIPE;
    int withheld = spool_dir_withholds(dir_fd, &st);
    if (withheld != 0)
        return withheld < 0 ? wait_for_writer(settle_ms, look) : CANDIDATE_RIPE;
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        /* Not readable: an empty file needs not be, and others are rejected. */
        if (errno == EACCES || errno == EPERM)
            return without_lease(settle_ms, look);
        return errno == ENOENT ? CANDIDATE_GONE : wait_for_writer(settle_ms, look);
    }
    int r = fs_no_writer(fd);
    (void) close(fd);
    if (r < 0)
        return without_lease(settle_ms, look);
    return r == 0 ? wait_for_writer(settle_ms, look) : CANDIDATE_RIPE;
}

/* --- The list --- */

void candidates_init(struct candidates *cs)
{
    TAILQ_INIT(&cs->list);
    cs->n = 0;
}

void candidates_clear(struct candidates *cs)
{
    while (!TAILQ_EMPTY(&cs->list)) {
        struct candidate *c = TAILQ_FIRST(&cs->list);
        TAILQ_REMOVE(&cs->list, c, link);
        free(c);
    }
    cs->n = 0;
}

/* From the end: what was added last is asked for first. */
static struct candidate *find(const struct candidates *cs, const char *name, uint64_t hash)
{
    struct candidate *c;
    TAILQ_FOREACH_REVERSE(c, &cs->list, candidate_list, link)
    if (c->hash == hash && strcmp(c->name, name) == 0)
        return c;
    return NULL;
}

void candidates_put_back(struct candidates *cs, struct candidate *c, int64_t due_ms)
{
    c->due_ms = due_ms;
    cs->n++;
    struct candidate *before;
    TAILQ_FOREACH_REVERSE(before, &cs->list, candidate_list, link)
    {
        if (before->due_ms <= due_ms) {
            TAILQ_INSERT_AFTER(&cs->list, before, c, link);
            return;
        }
    }
    TAILQ_INSERT_HEAD(&cs->list, c, link);
}

int candidates_add(struct candidates *cs, const char *name, const struct candidate_look *look,
                   int64_t due_ms)
{
    /* Before the search, which is long for a long list and done for every file of a scan. */
    if (cs->n >= CANDIDATES_MAX)
        return -ENOBUFS;
    uint64_t hash = spool_name_hash(name);
    if (find(cs, name, hash) != NULL)
        return 0;
    size_t len = strlen(name);
    struct candidate *c = malloc(sizeof(*c) + len + 1);
    if (c == NULL)
        return -ENOMEM;
    c->hash = hash;
    c->look = *look;
    memcpy(c->name, name, len + 1);
    candidates_put_back(cs, c, due_ms);
    return 0;
}

void candidates_remove(struct candidates *cs, const char *name)
{
    struct candidate *c = find(cs, name, spool_name_hash(name));
    if (c == NULL)
        return;
    TAILQ_REMOVE(&cs->list, c, link);
    cs->n--;
    free(c);
}

void candidates_opened(struct candidates *cs, const char *name, int64_t now_ms)
{
    struct candidate *c = find(cs, name, spool_name_hash(name));
    if (c != NULL && c->look.changed_at_ms == 0)
        c->look.opened_at_ms = now_ms;
}

bool candidates_has_opened(const struct candidates *cs, const char *name)
{
    const struct candidate *c = find(cs, name, spool_name_hash(name));
    return c != NULL && c->look.opened_at_ms != 0;
}

void candidates_forget_opened(struct candidates *cs)
{
    struct candidate *c;
    TAILQ_FOREACH(c, &cs->list, link)
        c->look.opened_at_ms = 0;
}

struct candidate *candidates_take_due(struct candidates *cs, int64_t now_ms)
{
    struct candidate *c = TAILQ_FIRST(&cs->list);
    if (c == NULL || c->due_ms > now_ms)
        return NULL;
    TAILQ_REMOVE(&cs->list, c, link);
    cs->n--;
    return c;
}

int64_t candidates_next_ms(const struct candidates *cs)
{
    const struct candidate *c = TAILQ_FIRST(&cs->list);
    return c != NULL ? c->due_ms : INT64_MAX;
}
