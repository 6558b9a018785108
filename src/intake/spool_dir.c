/* The spool directory and its two directories, by descriptor. Runs on the loop thread. */
#include "intake/spool_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "intake/spool_name.h"

static void close_fd(int fd)
{
    if (fd >= 0)
        (void) close(fd);
}

void spool_dir_unref(struct spool_dir *d)
{
    if (d == NULL || --d->refs > 0)
        return;
    close_fd(d->rejected_fd);
    close_fd(d->claimed_fd);
    close_fd(d->fd);
    free(d);
}

struct spool_dir *spool_dir_ref(struct spool_dir *d)
{
    d->refs++;
    return d;
}

/* Whoever may write to the spool directory may put anything in their place: no link is followed, and
 * they have to be ours. `guarded` ones are nobody else's business. */
static int open_own(struct spool_dir *d, const char *name, mode_t mode, bool guarded, int *ret_fd,
                    ino_t *ret_inode, struct buf *reterr)
{
    bool made = mkdirat(d->fd, name, mode) == 0;
    if (!made && errno != EEXIST) {
        int r = -errno;
        (void) buf_printf(reterr, "can't make '%s' in it: %s", name, strerror(-r));
        return r;
    }
    int fd = openat(d->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        int r = -errno;
        bool other = r == -ENOTDIR || r == -ELOOP;
        (void) buf_printf(reterr, "can't open '%s' in it: %s", name,
                          other ? "it is no directory of the daemon's: move it away"
                                : strerror(-r));
        return r;
    }

    struct stat st;
    int r = fstat(fd, &st) < 0 ? -errno : 0;
    if (r == 0 && st.st_uid != geteuid() && st.st_uid != 0) {
        (void) buf_printf(reterr, "'%s' in it belongs to uid %ju, not to the daemon: move it away",
                          name, (uintmax_t) st.st_uid);
        r = -EPERM;
    }
    /* mkdir heeds the umask, and rejected/ is for the group too. The group may be inherited, and
     * with it a setgid bit, which may stay but not be set: RestrictSUIDSGID= forbids that. */
    mode_t wanted = mode | (st.st_mode & S_ISGID);
    bool differs = (st.st_mode & 07777) != wanted;
    if (r == 0 && differs && (made || (guarded && (st.st_mode & 077) != 0)) &&
        fchmod(fd, wanted) < 0) {
        r = -errno;
        (void) buf_printf(reterr, "can't set the mode of '%s' in it: %s", name, strerror(-r));
    }
    if (r < 0) {
        (void) close(fd);
        return r;
    }
    *ret_fd = fd;
    *ret_inode = st.st_ino;
    return 0;
}

int spool_dir_open(const char *path, struct spool_dir **ret, struct buf *reterr)
{
    struct spool_dir *d = malloc(sizeof(*d));
    if (d == NULL)
        return -ENOMEM;
    *d = (struct spool_dir){ .refs = 1, .fd = -1, .claimed_fd = -1, .rejected_fd = -1 };

    int r = 0;
    struct stat st;
    d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0 || fstat(d->fd, &st) < 0) {
        r = -errno;
        (void) buf_printf(reterr, "can't open it: %s", strerror(-r));
        goto out;
    }
    d->device = st.st_dev;
    d->inode = st.st_ino;
    r = open_own(d, CLAIMED_DIRECTORY, 0700, true, &d->claimed_fd, &d->claimed_inode, reterr);
    if (r < 0)
        goto out;
    r = open_own(d, REJECTED_DIRECTORY, 0770, false, &d->rejected_fd, &d->rejected_inode, reterr);
    if (r < 0)
        goto out;
    *ret = d;
    d = NULL;
out:
    spool_dir_unref(d);
    return r;
}

static bool is_child(const struct spool_dir *d, const char *name, ino_t inode)
{
    struct stat st;
    return fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
           st.st_ino == inode;
}

bool spool_dir_is_current(const struct spool_dir *d, const char *path)
{
    /* An inode that is held open is not used again, so that the numbers are an identity. */
    struct stat st;
    return stat(path, &st) == 0 && st.st_dev == d->device && st.st_ino == d->inode &&
           is_child(d, CLAIMED_DIRECTORY, d->claimed_inode) &&
           is_child(d, REJECTED_DIRECTORY, d->rejected_inode);
}

int spool_dir_withholds(int fd, const struct stat *file)
{
    struct stat st;
    if (file->st_nlink < 2 || file->st_size == 0) /* of an empty one, only the name counts */
        return 0;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return 0;
    mode_t readers = S_IRGRP | S_IROTH;
    if ((st.st_mode & S_IWOTH) == 0 && file->st_gid == st.st_gid)
        readers = S_IRGRP;
    return (file->st_mode & readers) != readers;
}

int spool_dir_sync_rejected(struct spool_dir *d)
{
    if (d->rejected_dirty && fsync(d->rejected_fd) < 0)
        return -errno;
    d->rejected_dirty = false;
    return 0;
}
