/* rejected/: NAME and NAME.reason. Runs on the loop thread.
 *
 * The directory is the group's too, so nothing in it is trusted: files are made exclusively, and no
 * link is followed. */
#include "intake/reject.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "intake/spool_name.h"

#define REASON_MAX 8192
#define PLACE_ATTEMPTS 4

/* One place each: `why` may hold one %jd for the detail. */
struct text {
    const char *why;
    const char *remedy;
};

static struct text text_of(enum reject_cause cause)
{
    switch (cause) {
    case REJECT_SYMLINK:
        return (struct text){ "it is a symbolic link, and links are never followed",
                              "Copy the file that it points to into the spool directory (cp -L)." };
    case REJECT_FIFO:
        return (struct text){ "it is a FIFO, not a regular file",
                              "Write a regular file, or use the socket." };
    case REJECT_DEVICE:
        return (struct text){ "it is a device, not a regular file", "Write a regular file." };
    case REJECT_SOCKET:
        return (struct text){ "it is a socket, not a regular file", "Write a regular file." };
    case REJECT_DIRECTORY:
        return (struct text){ "it is a directory, not a regular file",
                              "Move the files in it into the spool directory one by one." };
    case REJECT_TOO_LARGE:
        return (struct text){ "it has %jd bytes, more than spool.max_file_bytes allows",
                              "Split it (split -C 10M) and move the pieces into the spool "
                              "directory, or raise spool.max_file_bytes and restart the daemon." };
    case REJECT_UNREADABLE:
        return (
            struct text){ "the daemon's user may not read it",
                          "Make it readable for the daemon's user or group (chmod, chgrp), then "
                          "move it back into the spool directory." };
    case REJECT_LINKED:
        return (struct text){
            "it is a hard link, and who dropped it need not be able to read the file: "
            "not everyone who may write to the spool directory is",
            "Copy the file into the spool directory (cp)."
        };
    case REJECT_NUL:
        return (
            struct text){ "it contains a NUL byte (at byte %jd), so it is no text; nothing of it "
                          "was taken",
                          "Save it as plain UTF-8 text (UTF-16 is full of NUL bytes: iconv -f "
                          "UTF-16 -t UTF-8), then move it back into the spool directory." };
    case REJECT_BAD_LINES:
        return (
            struct text){ "too many of its lines were bad; the lines up to %jd were dealt with, "
                          "and this file is the rest, which was not looked at",
                          "The results log has a line for each bad one. Correct what is here, "
                          "then move it back into the spool directory." };
    case REJECT_FOREIGN:
        return (struct text){ "it lay in " CLAIMED_DIRECTORY
                              "/ under a name that the daemon does not "
                              "give",
                              "If it is to be taken, move it into the spool directory itself." };
    case REJECT_EMPTIED:
        return (
            struct text){ "it had content when it was dropped and is empty now, as after a power "
                          "failure; its name was not taken for a job ID",
                          "Drop it again with its content." };
    case REJECT_REWRITTEN:
        return (
            struct text){ "it was cut short or rewritten while it was taken; %jd lines of what it "
                          "held before were dealt with",
                          "Compare it with the results log, then move what is missing back into "
                          "the spool directory. Write under a name that starts with a dot and "
                          "rename, and this can't happen." };
    case REJECT_LATE:
        return (
            struct text){ "it was empty when it was taken, so that its name counted as a job ID, "
                          "and got its content after that",
                          "If its lines are to be taken, move it back into the spool directory. "
                          "Write under a name that starts with a dot and rename, and this can't "
                          "happen." };
    }
    abort();
}

enum reject_cause reject_cause_of_type(mode_t mode)
{
    if (S_ISLNK(mode))
        return REJECT_SYMLINK;
    if (S_ISFIFO(mode))
        return REJECT_FIFO;
    if (S_ISSOCK(mode))
        return REJECT_SOCKET;
    if (S_ISDIR(mode))
        return REJECT_DIRECTORY;
    return REJECT_DEVICE;
}

static void format_why(const struct reject *why, char *ret, size_t size)
{
    const char *before = text_of(why->cause).why;
    const char *place = strstr(before, "%jd");
    if (place == NULL)
        (void) snprintf(ret, size, "%s", before);
    else
        (void) snprintf(ret, size, "%.*s%jd%s", (int) (place - before), before,
                        (intmax_t) why->detail, place + 3);
}

/* --- Names --- */

/* 1 there is something, 0 nothing, -errno. */
static int exists(int fd, const char *name)
{
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 1;
    return errno == ENOENT || errno == ENAMETOOLONG ? 0 : -errno;
}

static void reason_name(const char *name, char ret[static NAME_MAX + 1])
{
    (void) snprintf(ret, NAME_MAX + 1, "%.*s" REASON_SUFFIX,
                    (int) (NAME_MAX - strlen(REASON_SUFFIX)), name);
}

/* A reason without its file was left by a crash, or by somebody who took the file away: it may be
 * replaced. Unless it is a rejected file itself, which has a reason of its own, or a directory. */
static int is_free(int fd, const char *name)
{
    char reason[NAME_MAX + 1], reason_of_reason[NAME_MAX + 1];
    struct stat st;
    int r = exists(fd, name);
    if (r != 0)
        return r < 0 ? r : 0;
    reason_name(name, reason);
    if (fstatat(fd, reason, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return 0;
    r = exists(fd, reason);
    if (r == 1) {
        reason_name(reason, reason_of_reason);
        r = strlen(reason) + strlen(REASON_SUFFIX) > NAME_MAX ? 0 : exists(fd, reason_of_reason);
    }
    return r < 0 ? r : !r;
}

static int choose_name(int fd, const struct reject *why, char ret[static NAME_MAX + 1])
{
    for (unsigned attempt = 0; attempt < REJECT_NAME_ATTEMPTS; attempt++) {
        reject_name_format(ret, why->name, why->uuid, attempt);
        int r = is_free(fd, ret);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return -EEXIST;
}

/* --- The reason --- */

static int format_reason(struct buf *b, const struct reject *why)
{
    char what[512], time[CLOCK_TEXT_MAX];
    format_why(why, what, sizeof(what));
    clock_format(clock_wall_ms(), time);

    int r = buf_append_str(b, "pulse-canceld did not take the file ");
    if (r == 0)
        r = json_append_cstr(b, why->name); /* quoted, and nothing in it breaks the line */
    if (r == 0)
        r = buf_printf(b, ":\n%s.\n\nWhat to do: %s\n\nTime: %s\nClaim: %s\n", what,
                       text_of(why->cause).remedy, time, why->uuid);
    return r;
}

static int make_file(int fd, const char *name, int *ret)
{
    (void) unlinkat(fd, name, 0); /* of a run before this one */
    int file = openat(fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
    if (file < 0)
        return -errno;
    *ret = file;
    return 0;
}

static int write_reason(struct spool_dir *d, const struct reject *why, const char *reason)
{
    char temporary[NAME_MAX + 1];
    (void) snprintf(temporary, sizeof(temporary), ".%s" REASON_SUFFIX, why->uuid);

    struct buf text;
    buf_init(&text, REASON_MAX);
    int file = -1;
    int r = format_reason(&text, why);
    if (r == 0)
        r = make_file(d->rejected_fd, temporary, &file);
    if (r == 0)
        r = fs_write_all(file, text.data, text.len, NULL);
    if (r == 0 && fsync(file) < 0)
        r = -errno;
    if (r == 0 && renameat(d->rejected_fd, temporary, d->rejected_fd, reason) < 0)
        r = -errno;
    if (file >= 0)
        (void) close(file);
    if (r < 0 && file >= 0)
        (void) unlinkat(d->rejected_fd, temporary, 0);
    buf_finish(&text);
    return r;
}

static int rename_to_new(int from_fd, const char *from, int to_fd, const char *to)
{
    if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    /* Not every file system can; that the name is free was looked up just now. */
    if (errno == EINVAL && renameat(from_fd, from, to_fd, to) == 0)
        return 0;
    return -errno;
}

static int place(struct spool_dir *d, int from_fd, const char *from_name, const struct reject *why)
{
    char name[NAME_MAX + 1], reason[NAME_MAX + 1], what[512];
    int r = -EEXIST;
    for (int i = 0; i < PLACE_ATTEMPTS && r == -EEXIST; i++) {
        r = choose_name(d->rejected_fd, why, name);
        if (r < 0)
            return r;
        reason_name(name, reason);
        r = write_reason(d, why, reason);
        if (r < 0)
            return r;
        r = rename_to_new(from_fd, from_name, d->rejected_fd, name);
        if (r < 0)
            (void) unlinkat(d->rejected_fd, reason, 0);
    }
    if (r < 0)
        return r;
    d->rejected_dirty = true;
    format_why(why, what, sizeof(what));
    log_warning("spool: '%s': %s; moved to " REJECTED_DIRECTORY "/%s", why->name, what, name);
    return 0;
}

int reject_move(struct spool_dir *d, int from_fd, const char *from_name, const struct reject *why)
{
    return place(d, from_fd, from_name, why);
}

/* --- The rest of a file --- */

static void rest_name(const char *uuid, char ret[static NAME_MAX + 1])
{
    (void) snprintf(ret, NAME_MAX + 1, ".%s.rest", uuid);
}

void reject_rest_finish(struct spool_dir *d, const char *uuid, struct reject_rest *rest)
{
    if (rest->fd < 0)
        return;
    char name[NAME_MAX + 1];
    rest_name(uuid, name);
    (void) close(rest->fd);
    (void) unlinkat(d->rejected_fd, name, 0);
    *rest = (struct reject_rest){ .fd = -1 };
}

static int copy_some(int from_fd, int to_fd, off_t offset, size_t len, off_t *ret_copied)
{
    char chunk[16384];
    off_t copied = 0;
    while ((size_t) copied < len) {
        size_t part = len - (size_t) copied < sizeof(chunk) ? len - (size_t) copied : sizeof(chunk);
        ssize_t n = pread(from_fd, chunk, part, offset + copied);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO; /* it was that long a moment ago */
        int r = fs_write_all(to_fd, chunk, (size_t) n, NULL);
        if (r < 0)
            return r;
        copied += n;
    }
    *ret_copied = copied;
    return 0;
}

int reject_rest_copy(struct spool_dir *d, const char *uuid, int from_fd, off_t from, off_t to,
                     size_t max, struct reject_rest *rest)
{
    int r;
    if (rest->fd < 0) {
        char name[NAME_MAX + 1];
        rest_name(uuid, name);
        rest->copied = 0;
        r = make_file(d->rejected_fd, name, &rest->fd);
        if (r < 0)
            return r;
    }
    off_t left = to - from - rest->copied;
    size_t len = left > (off_t) max ? max : (size_t) left;
    off_t copied = 0;
    r = copy_some(from_fd, rest->fd, from + rest->copied, len, &copied);
    /* Synced part by part: one sync of it all could hold the loop up for long. */
    if (r == 0 && fdatasync(rest->fd) < 0)
        r = -errno;
    if (r < 0) {
        reject_rest_finish(d, uuid, rest);
        return r;
    }
    rest->copied += copied;
    return rest->copied < to - from;
}

/* Looks whether the file `name` in rejected/ came of this claim. */
static bool is_of_claim(int fd, const char *name, const char *uuid)
{
    char reason[NAME_MAX + 1], text[REASON_MAX];
    reason_name(name, reason);
    if (exists(fd, name) != 1)
        return false;
    int file = openat(fd, reason, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t n = read(file, text, sizeof(text));
    (void) close(file);
    return n > 0 && memmem(text, (size_t) n, uuid, strlen(uuid)) != NULL;
}

bool reject_rest_placed(struct spool_dir *d, const struct reject *why)
{
    char name[NAME_MAX + 1];
    for (unsigned attempt = 0; attempt < REJECT_NAME_ATTEMPTS; attempt++) {
        reject_name_format(name, why->name, why->uuid, attempt);
        if (is_of_claim(d->rejected_fd, name, why->uuid))
            return true;
    }
    return false;
}

int reject_rest_place(struct spool_dir *d, const struct reject *why, struct reject_rest *rest)
{
    char name[NAME_MAX + 1];
    rest_name(why->uuid, name);
    int r = place(d, d->rejected_fd, name, why);
    if (r < 0) {
        reject_rest_finish(d, why->uuid, rest);
        return r;
    }
    (void) close(rest->fd);
    *rest = (struct reject_rest){ .fd = -1 };
    return 0;
}
