/* The listening socket. Blocking calls on the local file system only; loop thread, at start. */
#include "intake/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "intake/permission.h"

static int fill_address(const char *path, struct sockaddr_un *ret, struct buf *reterr)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    size_t len = strlen(path);
    if (len >= sizeof(ret->sun_path)) {
        (void) buf_printf(reterr,
                          "%s: the path of a socket has at most %zu bytes, this one has %zu", path,
                          sizeof(ret->sun_path) - 1, len);
        return -ENAMETOOLONG;
    }
    memcpy(ret->sun_path, path, len + 1);
    return 0;
}

static int fail(struct buf *reterr, const char *path, const char *what, int r)
{
    (void) buf_printf(reterr, "%s: %s: %s", path, what, strerror(-r));
    return r;
}

/* 0 when nobody listens at the socket. */
static int probe(const struct sockaddr_un *address, struct buf *reterr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(reterr, address->sun_path, "can't look who has it", -errno);
    int r = 0;
    if (connect(fd, (const struct sockaddr *) address, sizeof(*address)) < 0)
        r = -errno;
    (void) close(fd);

    /* A full backlog (EAGAIN) is somebody, too. */
    if (r == 0 || r == -EAGAIN) {
        (void) buf_printf(reterr, "%s: the socket is held by a live daemon", address->sun_path);
        return -EADDRINUSE;
    }
    if (r != -ECONNREFUSED && r != -ENOENT)
        return fail(reterr, address->sun_path, "a socket is there, but can't be asked", r);
    return 0;
}

/* Removes what a dead daemon left. */
static int clear_path(const struct sockaddr_un *address, struct buf *reterr)
{
    const char *path = address->sun_path;
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : fail(reterr, path, "can't make the socket", -errno);
    if (!S_ISSOCK(st.st_mode)) {
        (void) buf_printf(reterr, "%s: exists and is no socket; it is left alone", path);
        return -EEXIST;
    }
    int r = probe(address, reterr);
    if (r < 0)
        return r;
    if (unlink(path) < 0 && errno != ENOENT)
        return fail(reterr, path, "can't remove a dead daemon's socket", -errno);
    return 0;
}

static int bind_at(struct listener *l, const struct sockaddr_un *address, struct buf *reterr)
{
    const char *path = address->sun_path;
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return fail(reterr, path, "can't make a socket", -errno);
    /* On Linux, the inode takes its mode from the socket. The umask would be everyone's: other
     * threads make files. */
    if (fchmod(l->fd, S_IRUSR | S_IWUSR) < 0)
        return fail(reterr, path, "can't set the socket's mode", -errno);
    if (bind(l->fd, (const struct sockaddr *) address, sizeof(*address)) < 0)
        return fail(reterr, path, "can't make the socket", -errno);

    l->path = strdup(path);
    struct stat st;
    if (l->path == NULL || lstat(path, &st) < 0) {
        int r = l->path == NULL ? -ENOMEM : -errno;
        (void) unlink(path);
        free(l->path);
        l->path = NULL;
        return fail(reterr, path, "can't make the socket", r);
    }
    l->device = st.st_dev;
    l->inode = st.st_ino;
    return 0;
}

int listener_open(struct listener *ret, const char *path, mode_t mode, const char *group,
                  struct buf *reterr)
{
    struct listener l = { .fd = -1 };
    struct sockaddr_un address;
    gid_t gid = (gid_t) -1;

    int r = fill_address(path, &address, reterr);
    if (r == 0 && group[0] != '\0')
        r = permission_find_group("socket.group", group, &gid, reterr);
    if (r == 0)
        r = clear_path(&address, reterr);
    if (r == 0)
        r = bind_at(&l, &address, reterr);
    if (r < 0)
        goto out;

    /* The group first: it must not be the wrong one that the mode lets in. */
    if (gid != (gid_t) -1 && lchown(path, (uid_t) -1, gid) < 0)
        r = fail(reterr, path, "can't give the socket to socket.group", -errno);
    else if (chmod(path, mode) < 0)
        r = fail(reterr, path, "can't give the socket socket.mode", -errno);
    else if (listen(l.fd, SOMAXCONN) < 0)
        r = fail(reterr, path, "can't listen", -errno);
out:
    if (r < 0)
        listener_finish(&l);
    else
        *ret = l;
    return r;
}

static int socket_option(int fd, int option)
{
    int value = 0;
    socklen_t len = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -errno : value;
}

int listener_adopt(struct listener *ret, int fd, struct buf *reterr)
{
    struct listener l = { .fd = fd };
    int r = 0;

    if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM) {
        (void) buf_append_str(reterr, "the socket that was passed is no Unix stream socket "
                                      "(ListenStream= with a path)");
        r = -EPROTOTYPE;
    } else if (socket_option(fd, SO_ACCEPTCONN) != 1 && listen(fd, SOMAXCONN) < 0) {
        r = -errno;
        (void) buf_printf(reterr, "the socket that was passed can't listen (Accept=no?): %s",
                          strerror(-r));
    } else if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
               fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        r = -errno;
        (void) buf_printf(reterr, "the socket that was passed: %s", strerror(-r));
    }
    if (r < 0)
        listener_finish(&l);
    else
        *ret = l;
    return r;
}

void listener_finish(struct listener *l)
{
    struct stat st;
    /* Before closing: as long as the socket is open, its inode number is nobody else's. */
    if (l->path != NULL && lstat(l->path, &st) == 0 && st.st_dev == l->device &&
        st.st_ino == l->inode)
        (void) unlink(l->path);
    free(l->path);
    if (l->fd >= 0)
        (void) close(l->fd);
    *l = (struct listener){ .fd = -1 };
}
