/* Merging files by the numbers of their lines. Usually one file ends where the next begins; but a
 * rotation may be under way, a file may be there plain and compressed, and after a new beginning of
 * the database the numbers begin anew. */
#include "ctl/log_reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "base/buf.h"
#include "ctl/output.h"

/* More than any line the daemon writes: four texts of 4 KiB, escaped. */
#define LINE_MAX_BYTES ((size_t) 256 * 1024)
#define READ_SIZE ((size_t) 64 * 1024)
#define FILES_MAX 1000
/* A rotation may happen while the directory is read. */
#define TRIES_MAX 5

struct file {
    char *name;
    int fd;
    ino_t inode;
    int64_t first_n;
    /* While it is read. */
    gzFile gz;
    struct buf data;
    size_t start; /* behind `line` */
    bool ended;
    const char *line; /* NULL = none (left) */
    size_t len;
    int64_t n;
};

struct log_reader {
    char *dirname;
    const char *base;
    struct file *files; /* by first_n */
    size_t n_files;
    size_t n_begun; /* of them, those that are or were read */
    struct file *current;
    char *last; /* the line that was given last */
    size_t last_len;
    size_t last_size;
    bool incomplete;
};

int64_t log_line_number(const char *line, size_t len)
{
    static const char begin[] = "{\"n\":";
    const size_t begin_len = sizeof(begin) - 1;
    int64_t n = 0;
    size_t at = begin_len;
    if (len < begin_len + 2 || memcmp(line, begin, begin_len) != 0)
        return 0;
    for (; at < len && line[at] >= '0' && line[at] <= '9' && n < INT64_MAX / 10 - 10; at++)
        n = n * 10 + (line[at] - '0');
    return at < len && line[at] == ',' ? n : 0;
}

/* --- One file --- */

static void leave_out(struct log_reader *r, const struct file *f, const char *why)
{
    output_complain("%s%s: %s: it is left out", r->dirname, f->name, why);
    r->incomplete = true;
}

/* 0 or -errno; at the end `ended`. */
static int fill(struct file *f)
{
    buf_consume(&f->data, f->start);
    f->start = 0;
    int r = buf_reserve(&f->data, READ_SIZE);
    if (r < 0)
        return r;
    int n = gzread(f->gz, f->data.data + f->data.len, (unsigned) READ_SIZE);
    if (n < 0)
        return -EIO;
    f->data.len += (size_t) n;
    f->ended = n == 0;
    /* A compressed file that was cut short ends like any other, but for this. */
    int status = Z_OK;
    if (f->ended)
        (void) gzerror(f->gz, &status);
    return status == Z_BUF_ERROR ? -EIO : 0;
}

/* The next line that is a result. What is torn or no result is passed over: the daemon writes it
 * anew. 0 or -errno. */
static int advance(struct file *f)
{
    f->line = NULL;
    for (;;) {
        const char *text = f->data.data + f->start;
        size_t left = f->data.len - f->start;
        const char *newline = left > 0 ? memchr(text, '\n', left) : NULL;
        if (newline != NULL) {
            f->len = (size_t) (newline - text);
            f->start += f->len + 1;
            f->n = log_line_number(text, f->len);
            if (f->n > 0) {
                f->line = text;
                return 0;
            }
            continue;
        }
        if (f->ended)
            return 0;
        if (left > LINE_MAX_BYTES)
            f->start = f->data.len; /* no line of ours */
        int r = fill(f);
        if (r < 0)
            return r;
    }
}

/* With the first line at hand. */
static int begin(struct file *f)
{
    int fd = dup(f->fd);
    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0 || (f->gz = gzdopen(fd, "rb")) == NULL) {
        int r = errno != 0 ? -errno : -ENOMEM;
        if (fd >= 0)
            (void) close(fd);
        return r;
    }
    buf_init(&f->data, LINE_MAX_BYTES + 2 * READ_SIZE);
    f->start = 0;
    f->ended = false;
    return advance(f);
}

static void end(struct file *f)
{
    if (f->gz != NULL)
        (void) gzclose(f->gz);
    f->gz = NULL;
    f->line = NULL;
    buf_finish(&f->data);
}

static void close_file(struct file *f)
{
    end(f);
    if (f->fd >= 0)
        (void) close(f->fd);
    free(f->name);
}

static const char *foreign_format(int fd)
{
    static const struct {
        const char *magic;
        size_t len;
        const char *tool;
    } formats[] = {
        { "\xfd\x37zXZ", 5, "compressed by xz, unpack it first (unxz)" },
        { "\x28\xb5\x2f\xfd", 4, "compressed by zstd, unpack it first (unzstd)" },
        { "BZh", 3, "compressed by bzip2, unpack it first (bunzip2)" },
    };
    char head[8];
    ssize_t n = pread(fd, head, sizeof(head), 0);
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (n >= (ssize_t) formats[i].len && memcmp(head, formats[i].magic, formats[i].len) == 0)
            return formats[i].tool;
    return NULL;
}

/* --- All files --- */

/* True when it belongs to the stream, with its first number. */
static bool look_into(struct log_reader *r, struct file *f)
{
    const char *foreign = foreign_format(f->fd);
    if (foreign != NULL) {
        leave_out(r, f, foreign);
        return false;
    }
    int error = begin(f);
    f->first_n = f->line != NULL ? f->n : 0;
    end(f);
    if (error < 0) {
        leave_out(r, f, error == -EIO ? "damaged" : strerror(-error));
        return false;
    }
    return f->first_n > 0;
}

static int add_file(struct log_reader *r, const char *name, int fd, ino_t inode)
{
    struct file *files = reallocarray(r->files, r->n_files + 1, sizeof(*files));
    if (files == NULL)
        return -ENOMEM;
    r->files = files;
    struct file f = { .name = strdup(name), .fd = fd, .inode = inode };
    if (f.name == NULL)
        return -ENOMEM;
    files[r->n_files++] = f;
    return 0;
}

static bool has_inode(const struct log_reader *r, ino_t inode)
{
    for (size_t i = 0; i < r->n_files; i++)
        if (r->files[i].inode == inode)
            return true;
    return false;
}

/* Opens one entry of the directory, if it may be one of ours. 0 or -ENOMEM. */
static int take_entry(struct log_reader *r, int dir_fd, const char *name)
{
    struct stat st;
    bool itself = strcmp(name, r->base) == 0;
    if (strncmp(name, r->base, strlen(r->base)) != 0 || r->n_files >= FILES_MAX)
        return 0;
    int fd = openat(dir_fd, name,
                    O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (itself ? 0 : O_NOFOLLOW));
    if (fd < 0) {
        /* ELOOP: a link, which is not followed. */
        if (errno != ENOENT && errno != ELOOP) {
            const struct file f = { .name = (char *) name };
            leave_out(r, &f,
                      errno == EACCES
                          ? "no permission to read it (use sudo, or become a member of the "
                            "group 'pulse-canceld' and log in anew)"
                          : strerror(errno));
        }
        return 0;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0 || has_inode(r, st.st_ino)) {
        (void) close(fd);
        return 0;
    }
    int error = add_file(r, name, fd, st.st_ino);
    if (error < 0)
        (void) close(fd);
    return error;
}

static ino_t inode_of(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, 0) == 0 ? st.st_ino : 0;
}

static int open_all(struct log_reader *r)
{
    DIR *dir = opendir(r->dirname);
    if (dir == NULL)
        return -errno;
    int error = 0;
    ino_t before = 0;
    ino_t after = inode_of(dirfd(dir), r->base);
    /* Once more when the log was renamed meanwhile: its new name may have been passed already. */
    for (int i = 0; i < TRIES_MAX && error == 0 && (i == 0 || before != after); i++) {
        const struct dirent *entry;
        before = after;
        rewinddir(dir);
        while (error == 0 && (entry = readdir(dir)) != NULL)
            error = take_entry(r, dirfd(dir), entry->d_name);
        after = inode_of(dirfd(dir), r->base);
    }
    (void) closedir(dir);
    return error;
}

static int compare_files(const void *a, const void *b)
{
    const struct file *x = a;
    const struct file *y = b;
    if (x->first_n != y->first_n)
        return x->first_n < y->first_n ? -1 : 1;
    return strcmp(x->name, y->name);
}

int log_reader_open(struct log_reader **ret, const char *path)
{
    struct log_reader *r = calloc(1, sizeof(*r));
    const char *slash = strrchr(path, '/');
    int error = -ENOMEM;
    if (r == NULL)
        return error;
    r->base = slash != NULL ? slash + 1 : path;
    r->dirname = slash != NULL ? strndup(path, (size_t) (slash - path) + 1) : strdup("./");
    if (r->dirname != NULL)
        error = open_all(r);
    if (error == 0 && r->n_files == 0 && !r->incomplete && access(path, F_OK) < 0)
        error = -ENOENT;
    if (error < 0) {
        log_reader_close(r);
        return error;
    }
    size_t kept = 0;
    for (size_t i = 0; i < r->n_files; i++) {
        if (look_into(r, &r->files[i]))
            r->files[kept++] = r->files[i];
        else
            close_file(&r->files[i]);
    }
    r->n_files = kept;
    if (kept > 0)
        qsort(r->files, kept, sizeof(*r->files), compare_files);
    *ret = r;
    return 0;
}

void log_reader_close(struct log_reader *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n_files; i++)
        close_file(&r->files[i]);
    free(r->files);
    free(r->dirname);
    free(r->last);
    free(r);
}

bool log_reader_incomplete(const struct log_reader *r)
{
    return r->incomplete;
}

/* --- The stream --- */

static void check(struct log_reader *r, const struct file *f, int error)
{
    if (error >= 0)
        return;
    output_complain("%s%s: damaged: what is behind line %lld is left out", r->dirname, f->name,
                    (long long) f->n);
    r->incomplete = true;
}

/* Of those that are read, the one whose line comes next; others begin when their turn comes. */
static struct file *smallest(struct log_reader *r)
{
    for (;;) {
        struct file *found = NULL;
        for (size_t i = 0; i < r->n_begun; i++) {
            struct file *f = &r->files[i];
            if (f->line != NULL && (found == NULL || f->n < found->n))
                found = f;
        }
        if (r->n_begun == r->n_files || (found != NULL && found->n < r->files[r->n_begun].first_n))
            return found;
        struct file *next = &r->files[r->n_begun++];
        check(r, next, begin(next));
    }
}

static int remember(struct log_reader *r, const char *line, size_t len)
{
    if (len > r->last_size || r->last == NULL) {
        char *last = realloc(r->last, len);
        if (last == NULL)
            return -ENOMEM;
        r->last = last;
        r->last_size = len;
    }
    memcpy(r->last, line, len);
    r->last_len = len;
    return 0;
}

int log_reader_next(struct log_reader *r, const char **ret_line, size_t *ret_len, int64_t *ret_n)
{
    for (;;) {
        if (r->current != NULL) {
            check(r, r->current, advance(r->current));
            if (r->current->line == NULL)
                end(r->current);
        }
        r->current = smallest(r);
        if (r->current == NULL)
            return 0;
        const struct file *f = r->current;
        if (r->last != NULL && f->len == r->last_len && memcmp(f->line, r->last, f->len) == 0)
            continue;
        int error = remember(r, f->line, f->len);
        if (error < 0)
            return error;
        *ret_line = f->line;
        *ret_len = f->len;
        *ret_n = f->n;
        return 1;
    }
}
