/* Lines of a results log: JSON objects that begin with {"n":N, one a line, N consecutive. Runs on
 * the writer thread. */
#include "results/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"

static const char opening[] = "{\"n\":";
#define OPENING_LEN (sizeof(opening) - 1)
#define DIGITS_MAX 18
#define SECTOR 512 /* a disk writes at least so much at once */

/* N of {"n":N, or 0. */
static int64_t number_of(const char *line, size_t len)
{
    if (len < OPENING_LEN || memcmp(line, opening, OPENING_LEN) != 0)
        return 0;

    int64_t n = 0;
    size_t i = OPENING_LEN;
    for (; i < len && line[i] >= '0' && line[i] <= '9'; i++) {
        if (i - OPENING_LEN == DIGITS_MAX || (n == 0 && i > OPENING_LEN))
            return 0;
        n = n * 10 + (line[i] - '0');
    }
    return i < len && line[i] == ',' ? n : 0;
}

/* The same of a line that is a whole JSON object. */
static int64_t parse_line(const char *line, size_t len)
{
    struct json_fault fault;
    int64_t n = number_of(line, len);
    return n > 0 && json_check(line, len, &fault) == 0 ? n : 0;
}

/* The request_id of a line that parses. It needs no escapes, and no member before it can hold the
 * text that is looked for. */
static void read_id(const char *line, size_t len, char ret_id[static REQUEST_ID_MAX + 1])
{
    static const char member[] = "\"request_id\":\"";
    ret_id[0] = '\0';
    const char *from = memmem(line, len, member, sizeof(member) - 1);
    if (from == NULL)
        return;
    from += sizeof(member) - 1;
    const char *to = memchr(from, '"', len - (size_t) (from - line));
    if (to == NULL || to - from > REQUEST_ID_MAX)
        return;
    memcpy(ret_id, from, (size_t) (to - from));
    ret_id[to - from] = '\0';
}

/* --- Forward --- */

/* One line, or a piece of one that is longer than any of ours. */
struct piece {
    const char *text;
    size_t len; /* without the newline */
    bool whole; /* ends with a newline */
};

struct reader {
    int fd;
    char *data; /* SCAN_LINE_MAX bytes */
    size_t begin, end;
    int64_t offset; /* of data[begin] */
    bool eof;
};

/* Keeps what was not consumed and fills the rest of the buffer. */
static int fill(struct reader *rd)
{
    memmove(rd->data, rd->data + rd->begin, rd->end - rd->begin);
    rd->end -= rd->begin;
    rd->begin = 0;

    size_t room = SCAN_LINE_MAX - rd->end;
    ssize_t n = fs_read_at(rd->fd, rd->data + rd->end, room, rd->offset + (int64_t) rd->end);
    if (n < 0)
        return (int) n;
    rd->eof = (size_t) n < room;
    rd->end += (size_t) n;
    return 0;
}

/* 1, 0 at the end of the file, or -errno. */
static int next_piece(struct reader *rd, struct piece *ret)
{
    for (;;) {
        const char *text = rd->data + rd->begin;
        size_t len = rd->end - rd->begin;
        const char *newline = memchr(text, '\n', len);
        bool full = len == SCAN_LINE_MAX;

        if (newline != NULL || full || (rd->eof && len > 0)) {
            *ret = (struct piece){ .text = text, .len = len, .whole = newline != NULL };
            if (newline != NULL)
                ret->len = (size_t) (newline - text);
            size_t taken = ret->len + (newline != NULL);
            rd->begin += taken;
            rd->offset += (int64_t) taken;
            return 1;
        }
        if (rd->eof)
            return 0;
        int r = fill(rd);
        if (r < 0)
            return r;
    }
}

static int scan_pieces(struct reader *rd, const struct scan_from *from, struct scan *s)
{
    int64_t expect_n = from->expect_n;
    bool any_n = expect_n == 0;
    bool broken = false;
    struct piece piece;
    int r;

    while ((r = next_piece(rd, &piece)) > 0) {
        int64_t n = parse_line(piece.text, piece.len);
        if (n > s->highest_n)
            s->highest_n = n;

        if (!broken && n > 0 && (n <= from->floor_n || n == expect_n || any_n)) {
            s->end = rd->offset;
            s->no_newline = !piece.whole;
            if (n > s->last_n) {
                s->last_n = n;
                read_id(piece.text, piece.len, s->last_id);
            }
            if (n > from->floor_n || from->expect_n == 0)
                expect_n = n + 1;
            any_n = false;
            continue;
        }
        any_n = false;
        /* A bad line among lines that only this file has: they are worth more than order. */
        if (!broken && n == 0 && from->expect_n == 0 && s->last_n < from->floor_n)
            continue;
        /* Nothing good can follow. One line that parses still shows whose file it is. */
        broken = true;
        if (s->highest_n > 0)
            break;
    }
    return r < 0 ? r : 0;
}

int scan_log(int fd, const struct scan_from *from, struct scan *ret)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;

    struct reader rd = { .fd = fd, .offset = from->offset, .data = malloc(SCAN_LINE_MAX) };
    if (rd.data == NULL)
        return -ENOMEM;

    struct scan s = { .size = st.st_size, .end = from->offset };
    int r = scan_pieces(&rd, from, &s);
    free(rd.data);
    if (r < 0)
        return r;
    *ret = s;
    return 0;
}

/* --- Judging and repairing --- */

int scan_check_database(const struct scan *scan, const char *path, int64_t max_n,
                        const struct queue_log_check *check, struct buf *reterr)
{
    if (scan->highest_n <= max_n) {
        if (check == NULL || scan->last_n == 0 || scan->last_id[0] == '\0' ||
            queue_log_check(check, scan->last_n, scan->last_id) != 0)
            return 0;
        (void) buf_printf(reterr,
                          "%s: result line %lld is of another request than in the queue database: "
                          "the log belongs to another database. Move it away, or restore its "
                          "database",
                          path, (long long) scan->last_n);
        return -EEXIST;
    }
    (void) buf_printf(reterr,
                      "%s: has result line %lld, but the queue database has only %lld: the log "
                      "belongs to another database. Move it away, or restore its database",
                      path, (long long) scan->highest_n, (long long) max_n);
    return -EEXIST;
}

int scan_repair(int fd, const char *path, const struct scan *scan)
{
    if (scan->size > scan->end) {
        if (ftruncate(fd, scan->end) < 0)
            return -errno;
        log_warning("results: '%s': cut %lld bytes that were no whole lines in order", path,
                    (long long) (scan->size - scan->end));
    }
    return scan->no_newline ? fs_write_all(fd, "\n", 1, NULL) : 0;
}

/* --- Looks --- */

int scan_line_before(int fd, int64_t offset, int64_t n)
{
    if (offset == 0)
        return 1;

    size_t len = offset < SCAN_LINE_MAX ? (size_t) offset : SCAN_LINE_MAX;
    char *data = malloc(len);
    if (data == NULL)
        return -ENOMEM;

    ssize_t got = fs_read_at(fd, data, len, offset - (int64_t) len);
    int r = got < 0 ? (int) got : 0;
    if (got == (ssize_t) len && data[len - 1] == '\n') {
        const char *newline = memrchr(data, '\n', len - 1);
        const char *line = newline != NULL ? newline + 1 : data;
        r = parse_line(line, (size_t) (data + len - 1 - line)) == n;
    }
    free(data);
    return r;
}

/* What the next byte of a wreck may be. */
enum wreck_part { WRECK_OPENING, WRECK_TEXT, WRECK_NULS, WRECK_FOREIGN };

struct wreck {
    enum wreck_part part;
    int64_t in_line; /* bytes of this line so far */
    bool torn;       /* this line has NULs */
};

static enum wreck_part next_of_text(const struct wreck *w, char c)
{
    if (c == '\n') /* a whole line is none of ours, else it had parsed */
        return w->torn ? WRECK_OPENING : WRECK_FOREIGN;
    if (c == '\0')
        return WRECK_NULS;
    return (unsigned char) c >= ' ' ? WRECK_TEXT : WRECK_FOREIGN;
}

static enum wreck_part next_part(const struct wreck *w, int64_t offset, char c)
{
    switch (w->part) {
    case WRECK_OPENING:
        if (w->in_line < (int64_t) OPENING_LEN && c == opening[w->in_line])
            return w->in_line + 1 == (int64_t) OPENING_LEN ? WRECK_TEXT : WRECK_OPENING;
        return c == '\0' ? WRECK_NULS : WRECK_FOREIGN;
    case WRECK_TEXT:
        return next_of_text(w, c);
    case WRECK_NULS:
        if (c == '\0')
            return WRECK_NULS;
        return offset % SECTOR == 0 ? next_of_text(w, c) : WRECK_FOREIGN;
    case WRECK_FOREIGN:
        break;
    }
    return WRECK_FOREIGN;
}

int scan_is_wreck(int fd)
{
    char data[4096];
    int64_t offset = 0;
    struct wreck w = { .part = WRECK_OPENING };

    for (;;) {
        ssize_t n = fs_read_at(fd, data, sizeof(data), offset);
        if (n <= 0)
            return n < 0 ? (int) n : 1;
        for (ssize_t i = 0; i < n; i++) {
            w.part = next_part(&w, offset + i, data[i]);
            w.in_line = data[i] == '\n' ? 0 : w.in_line + 1;
            w.torn = data[i] == '\0' || (w.torn && data[i] != '\n');
        }
        if (w.part == WRECK_FOREIGN)
            return 0;
        offset += n;
    }
}

int64_t scan_first_n(int fd)
{
    char data[OPENING_LEN + DIGITS_MAX + 1];
    ssize_t n = fs_read_at(fd, data, sizeof(data), 0);
    return n < 0 ? 0 : number_of(data, (size_t) n);
}
