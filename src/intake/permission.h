/* Who may use the methods that change what the daemon does. Loop thread. */
#ifndef PULSE_INTAKE_PERMISSION_H
#define PULSE_INTAKE_PERMISSION_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/buf.h"

#define PERMISSION_NO_GROUP ((gid_t) -1)

/* 0; -EINVAL when there is no such group; other -errno. `reterr` gets a sentence that begins with
 * `setting`. May block (name services): only at start. */
int permission_find_group(const char *setting, const char *name, gid_t *ret, struct buf *reterr);

/* Root, the daemon's own user, or somebody who had the group, as the primary one or as one of the
 * others, when the socket `fd` was connected. */
bool permission_is_admin(const struct ucred *peer, int fd, gid_t admin_gid);

#endif
