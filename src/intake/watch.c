/* inotify under uv_poll. Runs on the loop thread. */
#include "intake/watch.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define DIRECTORY_MASK                                                                             \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_OPEN | IN_DELETE_SELF | IN_MOVE_SELF |          \
     IN_ONLYDIR)
/* A directory that is held open is told of its deletion (IN_DELETE_SELF) only when it is closed:
 * its parent knows at once. */
#define PARENT_MASK (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR)

struct watch {
    uv_poll_t poll;
    void (*readable)(void *userdata);
    void (*closed)(void *userdata);
    void *userdata;
    int fd;
    int directory_wd, parent_wd; /* -1 = none */
    char *base;
    bool enabled;
    size_t pos, len;
    alignas(struct inotify_event) char events[16384];
};

static void poll_cb(uv_poll_t *handle, int status, int events)
{
    struct watch *w = handle->data;
    (void) status;
    (void) events;
    w->readable(w->userdata);
}

int watch_create(struct watch **ret, uv_loop_t *loop, void (*readable)(void *userdata),
                 void *userdata)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return -ENOMEM;
    w->readable = readable;
    w->userdata = userdata;
    w->directory_wd = w->parent_wd = -1;
    w->poll.data = w;

    int r;
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (w->fd < 0) {
        r = -errno;
        free(w);
        return r;
    }
    r = uv_poll_init(loop, &w->poll, w->fd);
    if (r < 0) {
        (void) close(w->fd);
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

static void closed_cb(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    (void) close(w->fd);
    free(w->base);
    w->closed(w->userdata);
    free(w);
}

void watch_destroy(struct watch *w, void (*closed)(void *userdata))
{
    w->closed = closed;
    uv_close((uv_handle_t *) &w->poll, closed_cb);
}

void watch_drop_directory(struct watch *w)
{
    if (w->directory_wd >= 0)
        (void) inotify_rm_watch(w->fd, w->directory_wd);
    w->directory_wd = -1;
}

bool watch_has_directory(const struct watch *w)
{
    return w->directory_wd >= 0;
}

int watch_directory(struct watch *w, int fd, const char *path)
{
    watch_drop_directory(w);
    char name[64];
    (void) snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(w->fd, name, DIRECTORY_MASK);
    if (wd < 0 && (errno == ENOENT || errno == ENOTDIR))
        wd = inotify_add_watch(w->fd, path, DIRECTORY_MASK);
    if (wd < 0)
        return -errno;
    w->directory_wd = wd;
    return 0;
}

int watch_parent(struct watch *w, const char *parent, const char *base)
{
    if (w->base == NULL) {
        w->base = strdup(base);
        if (w->base == NULL)
            return -ENOMEM;
    }
    int wd = inotify_add_watch(w->fd, parent, PARENT_MASK);
    int r = wd < 0 ? -errno : 0;
    if (w->parent_wd >= 0 && w->parent_wd != wd)
        (void) inotify_rm_watch(w->fd, w->parent_wd);
    w->parent_wd = wd;
    return r;
}

static bool translate(struct watch *w, const struct inotify_event *e, struct watch_event *ret)
{
    if (e->mask & IN_Q_OVERFLOW) {
        *ret = (struct watch_event){ .kind = WATCH_OVERFLOW };
        return true;
    }
    if (e->wd == w->parent_wd) {
        if (e->mask & IN_IGNORED)
            w->parent_wd = -1; /* a later watch_parent() sets it up anew */
        *ret = (struct watch_event){ .kind = WATCH_PARENT };
        return e->len > 0 && strcmp(e->name, w->base) == 0;
    }
    if (e->wd != w->directory_wd)
        return false; /* left over from one that was dropped */

    if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) {
        if (e->mask & IN_IGNORED)
            w->directory_wd = -1;
        *ret = (struct watch_event){ .kind = WATCH_GONE };
        return true;
    }
    enum watch_kind kind = WATCH_OPENED;
    if (e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO))
        kind = WATCH_WRITTEN;
    else if (e->mask & IN_CREATE)
        kind = WATCH_CREATED;
    *ret = (struct watch_event){
        .kind = kind,
        .directory = (e->mask & IN_ISDIR) != 0,
        .name = e->name,
    };
    return e->len > 0;
}

int watch_next(struct watch *w, struct watch_event *ret)
{
    for (;;) {
        if (w->pos == w->len) {
            ssize_t n = read(w->fd, w->events, sizeof(w->events));
            w->pos = w->len = 0;
            if (n <= 0)
                return 0;
            w->len = (size_t) n;
        }
        const struct inotify_event *e = (const void *) (w->events + w->pos);
        w->pos += sizeof(*e) + e->len;
        if (translate(w, e, ret))
            return 1;
    }
}

void watch_enable(struct watch *w, bool on)
{
    if (on == w->enabled)
        return;
    if (on && uv_poll_start(&w->poll, UV_READABLE, poll_cb) < 0)
        return;
    if (!on)
        (void) uv_poll_stop(&w->poll);
    w->enabled = on;
}
