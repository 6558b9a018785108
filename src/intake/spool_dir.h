/* The spool directory that is there now, held by descriptors.
 *
 * It may be deleted or moved and made anew while the daemon runs. Then the claims of the old one go
 * on with its descriptors, and new files are taken from the new one. */
#ifndef PULSE_INTAKE_SPOOL_DIR_H
#define PULSE_INTAKE_SPOOL_DIR_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/buf.h"

struct spool_dir {
    unsigned refs;
    int fd;
    int claimed_fd;
    int rejected_fd;
    dev_t device;
    ino_t inode, claimed_inode, rejected_inode;
    bool rejected_dirty; /* names in rejected/ that are not synced yet */
};

/* Opens it and makes .claimed/ and rejected/ in it. -ENOENT when it is missing; other -errno with a
 * sentence in `reterr`. The caller has the first reference. */
int spool_dir_open(const char *path, struct spool_dir **ret, struct buf *reterr);

struct spool_dir *spool_dir_ref(struct spool_dir *d);

/* Closes it with the last reference. Accepts NULL. */
void spool_dir_unref(struct spool_dir *d);

/* Whether it is still what `path` names, with both of its directories. */
bool spool_dir_is_current(const struct spool_dir *d, const char *path);

/* Whether the file is a hard link, and, as far as modes tell, not everyone who may write to the
 * directory `fd` may read it. Anyone can drop a link to what only the daemon may read, and bad lines
 * are shown to all. (The kernel forbids that, unless fs.protected_hardlinks is off.) Such a file is
 * not even opened: closing it would take SQLite's locks away, if it is the database. 1, 0 or -errno. */
int spool_dir_withholds(int fd, const struct stat *file);

/* After files were moved to rejected/; does nothing when there were none. 0 or -errno. */
int spool_dir_sync_rejected(struct spool_dir *d);

#endif
