/* What happens in a directory and to it, by an inotify descriptor of its own.
 *
 * uv_fs_event would not do: it has no IN_CLOSE_WRITE and drops IN_Q_OVERFLOW. Events stay in the
 * kernel until they are asked for; that queue is the list of names that are still to be taken, and
 * it is bounded: when it runs over, the directory has to be scanned. Runs on the loop thread. */
#ifndef PULSE_INTAKE_WATCH_H
#define PULSE_INTAKE_WATCH_H

#include <stdbool.h>

#include <uv.h>

struct watch;

enum watch_kind {
    WATCH_WRITTEN,  /* closed after writing, or renamed in */
    WATCH_CREATED,  /* there in some other way: being written, linked, made */
    WATCH_OPENED,   /* by anybody; straight after CREATED it is what a writer does */
    WATCH_OVERFLOW, /* events are missing */
    WATCH_GONE,     /* the directory was deleted, moved or unmounted, or is no longer watched */
    WATCH_PARENT,   /* the directory's name in its parent means something else now */
};

struct watch_event {
    enum watch_kind kind;
    bool directory;   /* WRITTEN, CREATED, OPENED: it is a directory */
    const char *name; /* WRITTEN, CREATED, OPENED; valid until the next call */
};

/* `readable` is called on the loop while watch_enable() is on and there are events. 0 or -errno. */
int watch_create(struct watch **ret, uv_loop_t *loop, void (*readable)(void *userdata),
                 void *userdata);

/* Watches the open directory `fd` (`path` stands in where there is no /proc) in place of the one
 * before. 0 or -errno. */
int watch_directory(struct watch *w, int fd, const char *path);
void watch_drop_directory(struct watch *w);
bool watch_has_directory(const struct watch *w);

/* Watches the parent for `base`; again, when it was replaced. 0 or -errno. */
int watch_parent(struct watch *w, const char *parent, const char *base);

/* The next event: 1, or 0 when there is none now. */
int watch_next(struct watch *w, struct watch_event *ret);

void watch_enable(struct watch *w, bool on);

/* Closes and frees; `closed` once the loop is done with it. */
void watch_destroy(struct watch *w, void (*closed)(void *userdata));

#endif
