/* Small file system helpers with -errno results. Any thread. */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int fs_write_all(int fd, const void *data, size_t len, size_t *ret_written)
{
    const char *from = data;
    size_t done = 0;
    int r = 0;

    while (done < len) {
        ssize_t n = write(fd, from + done, len - done);
        if (n > 0) {
            done += (size_t) n;
        } else if (n == 0) {
            r = -EIO;
            break;
        } else if (errno != EINTR) {
            r = -errno;
            break;
        }
    }
    if (ret_written != NULL)
        *ret_written = done;
    return r;
}

int fs_make_parents(const char *path, mode_t mode, struct buf *reterr)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return -ENOMEM;

    int r = 0;
    for (char *slash = strchr(copy, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        if (slash == copy)
            continue;
        *slash = '\0';
        /* A read-only or foreign directory that exists answers EROFS or EACCES, not EEXIST. */
        if (mkdir(copy, mode) < 0 && errno != EEXIST) {
            int error = errno;
            struct stat st;
            if (stat(copy, &st) < 0 || !S_ISDIR(st.st_mode)) {
                (void) buf_printf(reterr, "directory '%s' can't be made: %s", copy,
                                  strerror(error));
                r = -error;
                break;
            }
        }
        *slash = '/';
    }
    free(copy);
    return r;
}

int fs_write_again(int fd, int64_t from, int64_t end)
{
    char data[65536];
    while (from < end) {
        size_t want = end - from < (int64_t) sizeof(data) ? (size_t) (end - from) : sizeof(data);
        ssize_t n = pread(fd, data, want, from);
        if (n > 0)
            n = pwrite(fd, data, (size_t) n, from);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        from += n;
    }
    return 0;
}

int fs_sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = NULL;
    if (slash == NULL)
        parent = strdup(".");
    else if (slash == path)
        parent = strdup("/");
    else
        parent = strndup(path, (size_t) (slash - path));
    if (parent == NULL)
        return -ENOMEM;

    int r = 0;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        r = -errno;
    if (fd >= 0)
        (void) close(fd);
    free(parent);
    return r;
}

static int read_all(int fd, size_t max, char **ret_data, size_t *ret_len)
{
    size_t size = 4096;
    size_t len = 0;
    char *data = malloc(size + 1);
    if (data == NULL)
        return -ENOMEM;

    int r = 0;
    for (;;) {
        if (len == size) {
            char *more = realloc(data, size * 2 + 1);
            if (more == NULL) {
                r = -ENOMEM;
                goto out;
            }
            data = more;
            size *= 2;
        }
        ssize_t n = read(fd, data + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r = -errno;
            goto out;
        }
        if (n == 0)
            break;
        len += (size_t) n;
        if (len > max) {
            r = -EFBIG;
            goto out;
        }
    }
    data[len] = '\0';
    *ret_data = data;
    data = NULL;
    *ret_len = len;
out:
    free(data);
    return r;
}

int fs_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len)
{
    /* Without O_NONBLOCK, opening a FIFO would wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;

    int r = 0;
    struct stat st;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (S_ISDIR(st.st_mode))
        r = -EISDIR;
    else if (!S_ISREG(st.st_mode))
        r = -EINVAL;
    else
        r = read_all(fd, max, ret_data, ret_len);
    (void) close(fd);
    return r;
}

int fs_no_writer(int fd)
{
    /* Whoever opens the file for writing while the lease is held has us signalled, and SIGIO, the
     * default, would end the process. SIGURG is ignored unless somebody asks for it. */
    if (fcntl(fd, F_SETSIG, SIGURG) < 0)
        return -errno;
    if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
        if (errno == EAGAIN)
            return 0;
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    }
    (void) fcntl(fd, F_SETLEASE, F_UNLCK);
    return 1;
}

ssize_t fs_read_at(int fd, void *data, size_t len, off_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *) data + done, len - done, offset + (off_t) done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t) n;
    }
    return (ssize_t) done;
}
