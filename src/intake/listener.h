/* The listening socket: made at a path, or taken over from the service manager. */
#ifndef PULSE_INTAKE_LISTENER_H
#define PULSE_INTAKE_LISTENER_H

#include <sys/types.h>

#include "base/buf.h"

struct listener {
    int fd;     /* listens, does not block; -1 = none */
    char *path; /* NULL when the socket was passed */
    dev_t device;
    ino_t inode;
};

/* Binds and listens at `path`; at no moment can more people connect than `mode` and `group` ("" =
 * unchanged) allow. What a dead daemon left there is replaced. 0; -EADDRINUSE when a live daemon
 * listens there; -EEXIST when the path is something else than a socket; other -errno. `reterr` gets
 * a sentence. */
int listener_open(struct listener *ret, const char *path, mode_t mode, const char *group,
                  struct buf *reterr);

/* Takes over `fd`, also when it fails. Path, mode and group are left alone. */
int listener_adopt(struct listener *ret, int fd, struct buf *reterr);

/* Closes; removes the path if it is still the socket that was made. Accepts one that was never
 * opened if its fd is -1. */
void listener_finish(struct listener *l);

#endif
