/* Finding what was written to the results log before it was renamed away. Runs on the writer
 * thread. */
#include "results/rotated.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "results/scan.h"

struct neighbours {
    DIR *dir;
    const char *base; /* the log's own name */
    uint64_t own_inode;
    const struct queue_cursor *cursor;
    int64_t max_n;
};

/* A file that was opened because it is the one sought. */
struct neighbour {
    int fd;
    const char *name; /* valid until the directory is read on */
};

/* Read-only where it can't be written: then a torn tail stays. */
static int open_neighbour(int dir_fd, const char *name)
{
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
    int fd = openat(dir_fd, name, flags | O_RDWR | O_APPEND);
    return fd >= 0 ? fd : openat(dir_fd, name, flags | O_RDONLY);
}

static bool is_cursors(const struct neighbours *nb, int fd, const struct stat *st)
{
    return st->st_ino == nb->cursor->inode && st->st_size >= nb->cursor->offset &&
           scan_line_before(fd, nb->cursor->offset, nb->cursor->n) > 0;
}

/* The cursor's file (first_n 0), or the one whose first line is number `first_n`. True when there
 * is one; the caller closes it. */
static bool find(struct neighbours *nb, int64_t first_n, struct neighbour *ret)
{
    size_t base_len = strlen(nb->base);
    const struct dirent *entry;

    rewinddir(nb->dir);
    while ((entry = readdir(nb->dir)) != NULL) {
        struct stat st;
        if (strncmp(entry->d_name, nb->base, base_len) != 0 ||
            fstatat(dirfd(nb->dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode) || st.st_ino == nb->own_inode)
            continue;
        if (first_n == 0 && st.st_ino != nb->cursor->inode)
            continue;

        int fd = open_neighbour(dirfd(nb->dir), entry->d_name);
        if (fd < 0)
            continue;
        if (first_n == 0 ? is_cursors(nb, fd, &st) : scan_first_n(fd) == first_n) {
            *ret = (struct neighbour){ .fd = fd, .name = entry->d_name };
            return true;
        }
        (void) close(fd);
    }
    return false;
}

/* Takes the lines after `*last_n`. Only the cursor's file is known to be ours: of another one that
 * merely looks like it, lines that the database can't have given out count for nothing. */
static int take(const struct neighbours *nb, const struct neighbour *file, bool cursors,
                int64_t *last_n, struct buf *reterr)
{
    struct scan scan;
    const struct scan_from from = {
        .offset = cursors ? nb->cursor->offset : 0,
        .expect_n = *last_n + 1,
        .floor_n = *last_n,
    };
    int r = scan_log(file->fd, &from, &scan);
    if (r == 0 && scan.highest_n > nb->max_n && !cursors)
        return 0;
    if (r == 0)
        r = scan_check_database(&scan, file->name, nb->max_n, NULL, reterr);
    if (r == -EEXIST)
        return r;

    if (r == 0 && (cursors || scan.last_n > 0)) {
        int repaired = scan_repair(file->fd, file->name, &scan);
        if (repaired < 0)
            log_warning("results: '%s': can't cut its torn end: %s", file->name,
                        strerror(-repaired));
        r = fdatasync(file->fd) < 0 ? -errno : 0;
    }
    if (r < 0) {
        (void) buf_printf(reterr, "%s: can't read and sync the rotated results log: %s", file->name,
                          strerror(-r));
        return r;
    }
    if (scan.last_n > *last_n)
        *last_n = scan.last_n;
    return 0;
}

static int recover(struct neighbours *nb, int64_t *last_n, bool *found, struct buf *reterr)
{
    struct neighbour file;
    *found = find(nb, 0, &file);
    if (*found) {
        int r = take(nb, &file, true, last_n, reterr);
        (void) close(file.fd);
        if (r < 0)
            return r;
    }

    /* Ends: each turn raises last_n or is the last. */
    for (int64_t before = -1; before != *last_n && find(nb, *last_n + 1, &file);) {
        before = *last_n;
        int r = take(nb, &file, false, last_n, reterr);
        (void) close(file.fd);
        if (r < 0)
            return r;
    }
    return 0;
}

int rotated_recover(const char *path, uint64_t own_inode, const struct queue_cursor *cursor,
                    int64_t max_n, int64_t *ret_last_n, bool *ret_found, struct buf *reterr)
{
    const char *slash = strrchr(path, '/');
    char *dirname = slash != NULL ? strndup(path, (size_t) (slash - path) + 1) : strdup(".");
    if (dirname == NULL)
        return -ENOMEM;

    struct neighbours nb = {
        .dir = opendir(dirname),
        .base = slash != NULL ? slash + 1 : path,
        .own_inode = own_inode,
        .cursor = cursor,
        .max_n = max_n,
    };
    int r;
    if (nb.dir == NULL) {
        r = -errno;
        (void) buf_printf(reterr, "%s: can't read the directory of the results log: %s", dirname,
                          strerror(-r));
    } else {
        int64_t last_n = cursor->n;
        bool found = false;
        r = recover(&nb, &last_n, &found, reterr);
        if (r == 0) {
            *ret_last_n = last_n;
            *ret_found = found;
        }
        (void) closedir(nb.dir);
    }
    free(dirname);
    return r;
}
