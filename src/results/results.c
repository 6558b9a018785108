/* The results log: JSON Lines, {"n":1,…} {"n":2,…}, appended and synced; rotation by rename and
 * reopen. What a crash left of it is judged by scan.c. Runs on the writer thread. */
#include "results/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "results/rotated.h"
#include "results/scan.h"

#define RESULTS_MODE 0640

/* An open log. Invariant: the file's first `end` bytes are whole lines, the last of which is number
 * `last_n`. */
struct log_file {
    int fd; /* -1 = none */
    uint64_t device, inode;
    int64_t end;
    int64_t last_n;
    int64_t synced_end;
    int64_t synced_n;
    bool counts_links; /* its file system does */
    bool removed;      /* told already */
    bool dirty;        /* bytes past `end` could not be cut */
    bool unsynced;     /* a sync failed: what came after synced_end may be nowhere but in memory */
};

struct results {
    char *path;
    struct log_file log;
    int reopen_error; /* what was logged last */
};

int results_create(struct results **ret, const char *path)
{
    struct results *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return -ENOMEM;
    r->log.fd = -1;
    r->path = strdup(path);
    if (r->path == NULL) {
        results_destroy(r);
        return -ENOMEM;
    }
    *ret = r;
    return 0;
}

static void log_close(struct log_file *log)
{
    if (log->fd >= 0)
        (void) close(log->fd);
    log->fd = -1;
}

void results_destroy(struct results *r)
{
    if (r == NULL)
        return;
    log_close(&r->log);
    free(r->path);
    free(r);
}

/* --- Opening --- */

/* Opens the file or makes it. O_NONBLOCK so that a FIFO in its place can't hang the daemon. */
static int open_or_make(const char *path)
{
    const int flags = O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;

    int fd = open(path, flags);
    if (fd >= 0 || errno != ENOENT)
        return fd >= 0 ? fd : -errno;

    fd = open(path, flags | O_CREAT | O_EXCL, RESULTS_MODE);
    if (fd < 0)
        return -errno;
    /* The umask may have taken the group's right to read. */
    if (fchmod(fd, RESULTS_MODE) < 0) {
        int r = -errno;
        (void) close(fd);
        return r;
    }
    return fd;
}

/* Some don't: a file that is in its place has none. */
static bool counts_links(const struct stat *st, const char *path)
{
    struct stat there;
    return st->st_nlink > 0 || lstat(path, &there) < 0 || there.st_ino != st->st_ino;
}

/* A symbolic link is refused because rotation renames the link, and then neither the old file's
 * neighbours nor the new one's place are where they are looked for. */
static int log_open(struct log_file *ret, const char *path, struct buf *reterr)
{
    int fd = open_or_make(path);
    if (fd == -ELOOP) {
        (void) buf_printf(reterr, "%s: is a symbolic link: name the file itself in results.path",
                          path);
        return -ELOOP;
    }
    if (fd < 0) {
        (void) buf_printf(reterr, "%s: can't open the results log: %s", path, strerror(-fd));
        return fd;
    }

    struct stat st;
    int r = fstat(fd, &st) < 0 ? -errno : 0;
    if (r == 0 && !S_ISREG(st.st_mode)) {
        (void) buf_printf(reterr, "%s: is not a regular file: results.path needs one", path);
        (void) close(fd);
        return -EINVAL;
    }
    /* Always: the file may have been made just before a crash, or by logrotate. */
    if (r == 0)
        r = fs_sync_parent(path);
    if (r < 0) {
        (void) buf_printf(reterr, "%s: can't sync the directory of the results log: %s", path,
                          strerror(-r));
        (void) close(fd);
        return r;
    }
    *ret = (struct log_file){
        .fd = fd,
        .device = st.st_dev,
        .inode = st.st_ino,
        .counts_links = counts_links(&st, path),
    };
    return 0;
}

/* --- Recovery --- */

/* A scan that may be repaired: the file is ours, and of this database. */
static int scan_own(const struct log_file *log, const char *path, const struct scan_from *from,
                    int64_t max_n, const struct queue_log_check *check, struct scan *ret,
                    struct buf *reterr)
{
    int r = scan_log(log->fd, from, ret);
    if (r == 0 && from->offset == 0 && ret->highest_n == 0) {
        r = scan_is_wreck(log->fd);
        if (r == 0) {
            (void) buf_printf(reterr,
                              "%s: is not a results log: it has not one result line. Move it away, "
                              "or set results.path to another file",
                              path);
            return -EEXIST;
        }
    }
    if (r < 0) {
        (void) buf_printf(reterr, "%s: can't read the results log: %s", path, strerror(-r));
        return r;
    }
    return scan_check_database(ret, path, max_n, check, reterr);
}

/* Before anything is cut, all checks have been made. */
static int repair(struct log_file *log, const char *path, const struct scan *scan,
                  struct buf *reterr)
{
    int r = scan_repair(log->fd, path, scan);
    if (r < 0) {
        (void) buf_printf(reterr, "%s: can't repair the results log: %s", path, strerror(-r));
        return r;
    }
    log->end = scan->end + scan->no_newline;
    return 0;
}

/* The cursor's file, grown since or not. Its device is not compared: it may have another number
 * after a reboot, and the line before the offset says more. 1, 0 or -errno. */
static int is_cursors(const struct log_file *log, const struct queue_cursor *cursor)
{
    struct stat st;
    if (log->inode != cursor->inode)
        return 0;
    if (fstat(log->fd, &st) < 0)
        return -errno;
    return st.st_size >= cursor->offset ? scan_line_before(log->fd, cursor->offset, cursor->n) : 0;
}

static int recover_grown(struct log_file *log, const char *path, const struct queue_cursor *cursor,
                         int64_t max_n, const struct queue_log_check *check, struct buf *reterr)
{
    struct scan scan;
    const struct scan_from from = {
        .offset = cursor->offset,
        .expect_n = cursor->n + 1,
        .floor_n = cursor->n,
    };
    int r = scan_own(log, path, &from, max_n, check, &scan, reterr);
    if (r == 0)
        r = repair(log, path, &scan, reterr);
    if (r == 0)
        log->last_n = scan.last_n > cursor->n ? scan.last_n : cursor->n;
    return r;
}

/* A log that is not the cursor's file as it was left: new after a rotation, or changed. */
static int recover_changed(struct log_file *log, const char *path,
                           const struct queue_cursor *cursor, int64_t max_n,
                           const struct queue_log_check *check, struct buf *reterr)
{
    struct scan scan;
    const struct scan_from from = { .floor_n = cursor->n };
    int r = scan_own(log, path, &from, max_n, check, &scan, reterr);
    if (r < 0)
        return r;

    int64_t last_n = cursor->n;
    bool known = true;
    if (log->inode == cursor->inode)
        log_warning("results: '%s': was cut or changed by another program; lines after %lld may "
                    "have gone with it or be repeated",
                    path, (long long) cursor->n);
    else if (cursor->inode != 0)
        r = rotated_recover(path, log->inode, cursor, max_n, &last_n, &known, reterr);
    if (r == 0)
        r = repair(log, path, &scan, reterr);
    if (r < 0)
        return r;

    log->last_n = scan.last_n > last_n ? scan.last_n : last_n;
    /* Later lines, here or in a neighbour, say what the lost file had. */
    if (!known && log->last_n == cursor->n && max_n > cursor->n)
        log_warning("results: '%s': the file that it follows is gone or compressed; lines after "
                    "%lld may be repeated, under their old n",
                    path, (long long) cursor->n);
    return 0;
}

static int write_again(int fd, int64_t from, int64_t end)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_APPEND) < 0)
        return -errno;
    int r = fs_write_again(fd, from, end);
    if (fcntl(fd, F_SETFL, flags) < 0 && r == 0)
        r = -errno;
    return r;
}

/* No name is left, so that nobody will read what is written to it. */
static bool is_removed(const struct log_file *log, const struct stat *st)
{
    return st->st_nlink == 0 && log->counts_links;
}

/* Before the file is opened anew, in its place or renamed: nobody else knows that its last sync
 * failed. What of it the kernel has lost is found missing by the scan. */
static int save_unsynced(const struct log_file *log)
{
    struct stat st;
    if (log->fd < 0 || !log->unsynced)
        return 0;
    if (fstat(log->fd, &st) < 0)
        return -errno;
    if (is_removed(log, &st))
        return 0;
    int64_t end = st.st_size < log->end ? st.st_size : log->end;
    int r = write_again(log->fd, log->synced_end, end);
    if (r == 0 && fdatasync(log->fd) < 0)
        r = -errno;
    return r;
}

/* The lines after the cursor may be there only because the last process could not sync them. */
static int sync_recovered(const struct log_file *log, int64_t from)
{
    int r = write_again(log->fd, from, log->end);
    if (r == 0 && fdatasync(log->fd) < 0)
        r = -errno;
    return r;
}

static int results_recover(void *userdata, const struct queue_cursor *cursor, int64_t max_n,
                           const struct queue_log_check *check, int64_t *ret_last_n,
                           struct buf *reterr)
{
    struct results *r = userdata;
    struct log_file log;

    int rc = save_unsynced(&r->log);
    if (rc < 0) {
        (void) buf_printf(reterr, "%s: can't sync the results log: %s", r->path, strerror(-rc));
        return rc;
    }
    rc = log_open(&log, r->path, reterr);
    if (rc < 0)
        return rc;

    rc = is_cursors(&log, cursor);
    bool grown = rc > 0;
    if (grown)
        rc = recover_grown(&log, r->path, cursor, max_n, check, reterr);
    else if (rc == 0)
        rc = recover_changed(&log, r->path, cursor, max_n, check, reterr);
    else
        (void) buf_printf(reterr, "%s: can't read the results log: %s", r->path, strerror(-rc));

    if (rc == 0)
        rc = sync_recovered(&log, grown ? cursor->offset : log.end);
    if (rc < 0 && reterr->len == 0) {
        /* What is repaired is only in memory, as is what the old descriptor has not synced. */
        r->log.unsynced = true;
        (void) buf_printf(reterr, "%s: can't sync the results log: %s", r->path, strerror(-rc));
    }
    if (rc < 0) {
        log_close(&log);
        return rc;
    }
    log.synced_end = log.end;
    log.synced_n = log.last_n;
    log_close(&r->log);
    r->log = log;
    r->reopen_error = 0;
    *ret_last_n = log.last_n;
    return 0;
}

/* --- Writing --- */

/* -ESTALE when it was removed. */
static int log_stat(struct log_file *log, const char *path, struct stat *ret)
{
    if (fstat(log->fd, ret) < 0)
        return -errno;
    if (!is_removed(log, ret))
        return 0;
    if (!log->removed)
        log_warning("results: '%s': was removed by another program; beginning a new one", path);
    log->removed = true;
    return -ESTALE;
}

/* Brings the file and `end` together again. */
static int log_settle(struct log_file *log, const char *path)
{
    struct stat st;
    int r = log_stat(log, path, &st);
    if (r < 0)
        return r;

    if (log->dirty && st.st_size > log->end) {
        if (ftruncate(log->fd, log->end) < 0)
            return -errno;
        st.st_size = log->end;
    }
    log->dirty = false;

    if (st.st_size != log->end)
        log_warning("results: '%s': was %s by another program; going on at its end", path,
                    st.st_size < log->end ? "cut" : "written to");
    if (st.st_size < log->end) {
        /* What it took along is not ours to write again. */
        log->synced_end = st.st_size;
        log->synced_n = log->last_n;
        log->unsynced = false;
    }
    log->end = st.st_size;
    return 0;
}

static int results_append(void *userdata, const char *lines, size_t len, int64_t last_n)
{
    struct results *r = userdata;
    struct log_file *log = &r->log;
    if (log->fd < 0)
        return -EBADF;

    int rc = log_settle(log, r->path);
    if (rc < 0)
        return rc;
    rc = fs_write_all(log->fd, lines, len, NULL);
    if (rc < 0) {
        log->dirty = ftruncate(log->fd, log->end) < 0;
        return rc;
    }
    log->end += (int64_t) len;
    log->last_n = last_n;
    return 0;
}

/* What a failed sync may not have written, provided that the kernel still has it. */
static int rewrite_unsynced(struct log_file *log)
{
    struct scan scan;
    const struct scan_from from = {
        .offset = log->synced_end,
        .expect_n = log->synced_n + 1,
        .floor_n = log->synced_n,
    };
    int r = scan_log(log->fd, &from, &scan);
    if (r < 0)
        return r;
    if (scan.end < log->end)
        return -EIO;

    return write_again(log->fd, log->synced_end, log->end);
}

static int log_sync(struct log_file *log)
{
    int r = log->unsynced ? rewrite_unsynced(log) : 0;
    if (r == 0 && fdatasync(log->fd) < 0)
        r = -errno;
    log->unsynced = r < 0;
    if (r < 0)
        return r;
    log->synced_end = log->end;
    log->synced_n = log->last_n;
    return 0;
}

static int results_sync(void *userdata, struct queue_cursor *ret_cursor)
{
    struct results *r = userdata;
    struct log_file *log = &r->log;
    if (log->fd < 0)
        return -EBADF;

    int rc = log_sync(log);
    /* After the sync: what is kept for sure is kept in a file that can be found. And if it failed: in
     * another file it may not. */
    struct stat st;
    int found = log_stat(log, r->path, &st);
    if (found < 0 || rc < 0)
        return found < 0 ? found : rc;
    *ret_cursor = (struct queue_cursor){
        .device = log->device,
        .inode = log->inode,
        .offset = log->end,
        .n = log->last_n,
    };
    return 0;
}

/* The file at the path in place of `old`; not empty when logrotate's or an older one was put there.
 * Every line it has must be one that was written before. */
static int log_succeed(struct log_file *ret, const struct log_file *old, const char *path,
                       struct buf *reterr)
{
    struct log_file log;
    int r = log_open(&log, path, reterr);
    if (r < 0)
        return r;

    if (log.inode == old->inode && log.device == old->device) {
        log_close(&log);
        *ret = *old;
        return 0;
    }

    struct scan scan;
    const struct scan_from from = { .floor_n = old->last_n };
    r = scan_own(&log, path, &from, old->last_n, NULL, &scan, reterr);
    if (r == 0)
        r = repair(&log, path, &scan, reterr);
    if (r < 0) {
        log_close(&log);
        return r;
    }
    log.last_n = old->last_n;
    log.synced_end = log.end;
    log.synced_n = log.last_n;
    *ret = log;
    return 0;
}

static int results_reopen(void *userdata)
{
    struct results *r = userdata;
    if (r->log.fd < 0)
        return -EBADF;

    int rc = log_settle(&r->log, r->path);
    if (rc == 0)
        rc = log_sync(&r->log);
    if (rc < 0)
        return rc;

    struct log_file log;
    struct buf err;
    buf_init(&err, 8192);
    rc = log_succeed(&log, &r->log, r->path, &err);
    /* It is tried again and again. */
    if (rc < 0 && rc != r->reopen_error)
        log_error("results: %s; going on with the old file", buf_cstr(&err));
    r->reopen_error = rc;
    buf_finish(&err);
    if (rc < 0)
        return rc;

    if (log.fd != r->log.fd)
        log_close(&r->log);
    r->log = log;
    return 0;
}

void results_get_log(struct results *r, struct queue_log *ret_log)
{
    *ret_log = (struct queue_log){
        .recover = results_recover,
        .append = results_append,
        .sync = results_sync,
        .reopen = results_reopen,
        .userdata = r,
    };
}
