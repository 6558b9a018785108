/* The rule for administration. Loop thread. */
#include "intake/permission.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP_BUF_MAX (1024 * 1024)

int permission_find_group(const char *setting, const char *name, gid_t *ret, struct buf *reterr)
{
    int r = -ERANGE;
    for (size_t size = 1024; r == -ERANGE && size <= GROUP_BUF_MAX; size *= 4) {
        char *data = malloc(size);
        if (data == NULL)
            return -ENOMEM;
        struct group group;
        struct group *found = NULL;
        r = -getgrnam_r(name, &group, data, size, &found);
        if (r == 0 && found != NULL)
            *ret = group.gr_gid;
        free(data);
        if (r == 0 && found == NULL) {
            (void) buf_printf(reterr, "%s: there is no group '%s'", setting, name);
            return -EINVAL;
        }
    }
    if (r < 0)
        (void) buf_printf(reterr, "%s: group '%s': %s", setting, name, strerror(-r));
    return r;
}

/* SO_PEERCRED has the primary group only. */
static bool has_supplementary(int fd, gid_t gid)
{
    socklen_t len = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
        return false; /* it has none, or they can't be told */
    gid_t *groups = malloc(len);
    if (groups == NULL)
        return false;
    bool found = false;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0) {
        for (size_t i = 0; i < len / sizeof(groups[0]) && !found; i++)
            found = groups[i] == gid;
    }
    free(groups);
    return found;
}

bool permission_is_admin(const struct ucred *peer, int fd, gid_t admin_gid)
{
    if (peer->uid == 0 || peer->uid == geteuid())
        return true;
    if (admin_gid == PERMISSION_NO_GROUP)
        return false;
    return peer->gid == admin_gid || has_supplementary(fd, admin_gid);
}
