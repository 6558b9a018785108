/* Bytes to and from the daemon's socket. */
#include "ctl/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ctl/output.h"

#define OUT_MAX ((size_t) 64 * 1024 * 1024)
/* The longest answer of the daemon: 128 MiB of rows, and some. */
#define IN_MAX ((size_t) 256 * 1024 * 1024)
#define READ_SIZE ((size_t) 64 * 1024)
/* A daemon that is stopped (SIGSTOP) or starts takes no connections once its queue is full. */
#define CONNECT_TIMEOUT_S 10

void connection_init(struct connection *c)
{
    *c = (struct connection){ .fd = -1 };
    buf_init(&c->out, OUT_MAX);
    buf_init(&c->in, IN_MAX);
}

void connection_close(struct connection *c)
{
    if (c->fd >= 0)
        (void) close(c->fd);
    buf_finish(&c->out);
    buf_finish(&c->in);
    connection_init(c);
}

int connection_open(struct connection *c, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t len = strlen(path);
    if (len >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, len + 1);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S };
    (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    int r = connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
    if (r == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        r = -errno;
    if (r < 0) {
        (void) close(fd);
        return r;
    }
    connection_close(c);
    c->fd = fd;
    return 0;
}

int connection_send(struct connection *c, const char *text, size_t len)
{
    size_t before = c->out.len;
    int r = buf_append(&c->out, text, len);
    if (r == 0)
        r = buf_append_char(&c->out, '\n');
    if (r < 0)
        c->out.len = before;
    return r;
}

static int write_some(struct connection *c)
{
    ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    buf_consume(&c->out, (size_t) n);
    return 0;
}

static int read_some(struct connection *c)
{
    buf_consume(&c->in, c->in_start);
    c->in_scanned -= c->in_start;
    c->in_start = 0;
    int r = buf_reserve(&c->in, READ_SIZE);
    if (r < 0)
        return r;
    ssize_t n = read(c->fd, c->in.data + c->in.len, READ_SIZE);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    c->in.len += (size_t) n;
    c->ended = n == 0;
    return 0;
}

/* A daemon that turns us away says why and closes: the write fails, but there is an answer to
 * read. */
static int write_or_read(struct connection *c)
{
    int r = write_some(c);
    if (r == 0)
        return 0;
    buf_clear(&c->out);
    (void) read_some(c);
    return c->in.len > c->in_start ? 0 : r;
}

int connection_wait(struct connection *c, int timeout_ms, const sigset_t *unblocked, int extra_fd,
                    bool *ret_extra)
{
    struct pollfd fds[2] = {
        { .fd = c->ended ? -1 : c->fd,
          .events = (short) (POLLIN | (c->out.len > 0 ? POLLOUT : 0)) },
        { .fd = extra_fd, .events = POLLIN },
    };
    const struct timespec timeout = {
        .tv_sec = timeout_ms / 1000,
        .tv_nsec = timeout_ms % 1000 * 1000000L,
    };
    int n = ppoll(fds, 2, timeout_ms < 0 ? NULL : &timeout, unblocked);
    if (n < 0)
        return -errno;
    if (ret_extra != NULL)
        *ret_extra = fds[1].revents != 0;

    /* Reading first: the last answers are worth more than an error that the rest can't be sent. */
    int r = 0;
    if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        r = read_some(c);
    if (r == 0 && (fds[0].revents & POLLOUT) != 0 && !c->ended)
        r = write_or_read(c);
    return r < 0 ? r : n > 0;
}

bool connection_line(struct connection *c, const char **ret_line, size_t *ret_len)
{
    const char *newline = c->in.len > c->in_scanned
                              ? memchr(c->in.data + c->in_scanned, '\n', c->in.len - c->in_scanned)
                              : NULL;
    if (newline == NULL) {
        c->in_scanned = c->in.len;
        return false;
    }
    *ret_line = c->in.data + c->in_start;
    *ret_len = (size_t) (newline - *ret_line);
    c->in_start = (size_t) (newline - c->in.data) + 1;
    c->in_scanned = c->in_start;
    return true;
}

/* --- What went wrong --- */

static void explain_permission(const char *path)
{
    struct stat st;
    const struct group *group = NULL;
    if (stat(path, &st) == 0 && st.st_gid != 0 && (st.st_mode & S_IWGRP) != 0)
        group = getgrgid(st.st_gid);
    const char *name = group != NULL ? group->gr_name : "pulse-cancel";
    output_complain("no permission to connect to %s\n"
                    "Use sudo, or become a member of the group '%s' (sudo usermod -aG %s USER) and "
                    "log in anew.",
                    path, name, name);
}

void connection_explain(const char *path, int error)
{
    switch (-error) {
    case EACCES:
    case EPERM:
        explain_permission(path);
        break;
    case ENOENT:
    case ECONNREFUSED:
    case ENOTSOCK:
        output_complain(
            "the daemon can't be reached: %s: %s\n"
            "Start it with 'sudo systemctl start pulse-canceld', or name its socket with "
            "--socket PATH; 'journalctl -u pulse-canceld' says why it does not run.",
            path, strerror(-error));
        break;
    case ENAMETOOLONG:
        output_complain("%s: too long for the path of a socket (at most 107 bytes)\n"
                        "Use a shorter one, through a symbolic link for instance.",
                        path);
        break;
    case EAGAIN:
    case ETIMEDOUT:
        output_complain("the daemon at %s does not answer\n"
                        "See 'systemctl status pulse-canceld' and 'journalctl -u pulse-canceld'; a "
                        "restart loses nothing.",
                        path);
        break;
    case 0:
    case ECONNRESET:
    case EPIPE:
        output_complain("the daemon at %s ended the connection before it answered\n"
                        "Run this again; 'journalctl -u pulse-canceld' says what happened.",
                        path);
        break;
    default:
        output_complain("the daemon can't be reached: %s: %s\n"
                        "See 'systemctl status pulse-canceld'.",
                        path, strerror(-error));
        break;
    }
}
