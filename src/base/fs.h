/* Small file system helpers with -errno results. */
#ifndef PULSE_BASE_FS_H
#define PULSE_BASE_FS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

/* Writes all of it, through short writes and EINTR. On an error, *ret_written (may be NULL) says
 * how much of it went out before. */
int fs_write_all(int fd, const void *data, size_t len, size_t *ret_written);

/* Reads `len` bytes from `offset` on, or up to the end of the file, through short reads and EINTR.
 * How many, or -errno. */
ssize_t fs_read_at(int fd, void *data, size_t len, off_t offset);

/* Makes the directories above `path`, like mkdir -p `dirname path`. 0 or -errno, with a text in
 * `reterr` that names the one which could not be made. */
int fs_make_parents(const char *path, mode_t mode, struct buf *reterr);

/* The bytes from..end of a file once more, in their place: a sync that fails leaves its pages marked
 * as clean, and the next one would succeed without having written them. Not with O_APPEND, which
 * would put them at the end. */
int fs_write_again(int fd, int64_t from, int64_t end);

/* fsync of the directory that holds `path`. */
int fs_sync_parent(const char *path);

/* Reads a whole regular file of at most `max` bytes; -EFBIG when larger. `*ret_data` is
 * NUL-terminated past its length and freed by the caller. */
int fs_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len);

/* fcntl read lease: 1 when nobody has the file open for writing, 0 when somebody has,
 * -EOPNOTSUPP (or another error) when the file system can't tell. The lease is given back. */
int fs_no_writer(int fd);

#endif
