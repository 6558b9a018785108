/* Recovery of a results log from whatever a crash, or somebody else, has made of it.
 *
 * The input's fields: whose the cursor is (1 the log's, 2 a rotated neighbour's, 3 a file's that is
 * gone, else nobody's); its n; its offset, or, negative, its number of lines; the database's last
 * n; the first n that the database still has. Then the log; after a line `====`, its neighbour. A
 * line `@N` stands for the good line number N, `!N` for N thousand bytes of no line. */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "results/results.h"

#define N_MAX 1000000000000
/* Long lines only while the content is shorter than that. */
#define LONG_LINES_MAX ((size_t) 1024 * 1024)
#define CONTENT_MAX ((size_t) 4 * 1024 * 1024)

/* Outcomes before this one are pruned; the others' request_ids are r-N. */
struct queue_log_check {
    int64_t first_n;
};

int queue_log_check(const struct queue_log_check *check, int64_t n, const char *request_id)
{
    char id[32];
    (void) snprintf(id, sizeof(id), "r-%lld", (long long) n);
    return n < check->first_n ? -ENOENT : strcmp(request_id, id) == 0;
}

/* --- The files --- */

struct place {
    const char *log, *rotated;
    uint64_t log_inode, rotated_inode;
};

static uint64_t inode_of(const char *path)
{
    struct stat st;
    CHECK(stat(path, &st) == 0);
    return st.st_ino;
}

static const struct place *place(void)
{
    static struct place p;
    if (p.log == NULL) {
        p.log = fuzz_path("results.log");
        p.rotated = fuzz_path("results.log.1");
        fuzz_write_file(p.log, "", 0);
        fuzz_write_file(p.rotated, "", 0);
        p.log_inode = inode_of(p.log);
        p.rotated_inode = inode_of(p.rotated);
        log_set_level(LOG_LEVEL_ERROR);
    }
    return &p;
}

static void append_good(struct buf *b, long long n)
{
    CHECK(buf_printf(b, "{\"n\":%lld,\"request_id\":\"r-%lld\",\"x\":[1,null]}", n, n) == 0);
}

/* Up to the line `====` or the end. */
static void read_content(struct fuzz_input *in, struct buf *ret)
{
    buf_init(ret, CONTENT_MAX);
    while (in->left > 0) {
        const char *newline = memchr(in->at, '\n', in->left);
        const char *line = in->at;
        size_t len = newline != NULL ? (size_t) (newline - line) : in->left;
        in->at += len + (newline != NULL);
        in->left -= len + (newline != NULL);
        if (len == 4 && memcmp(line, "====", 4) == 0)
            return;
        char number[16] = "";
        memcpy(number, line, len < sizeof(number) ? len : sizeof(number) - 1);
        if (number[0] == '@') {
            append_good(ret, atoll(number + 1));
        } else if (number[0] == '!') {
            size_t n = (size_t) (atoll(number + 1) & 511) * 1000;
            n = ret->len + n < LONG_LINES_MAX ? n : 0;
            CHECK(buf_reserve(ret, n) == 0);
            memset(ret->data + ret->len, 'x', n);
            ret->len += n;
        } else {
            CHECK(buf_append(ret, line, len) == 0);
        }
        if (newline != NULL)
            CHECK(buf_append_char(ret, '\n') == 0);
    }
}

static void read_file(const char *path, struct buf *ret)
{
    char *text = NULL;
    size_t len = 0;
    CHECK(fs_read_file(path, CONTENT_MAX, &text, &len) == 0);
    buf_init(ret, CONTENT_MAX);
    CHECK(buf_append(ret, text, len) == 0);
    free(text);
}

static bool equal(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* --- Lines, read in another way than the daemon does --- */

/* The line at `at`, without its newline; its number, or 0 when it is no result line. */
static int64_t line_at(const struct buf *b, size_t at, size_t *ret_len)
{
    const char *line = b->data + at;
    const char *newline = memchr(line, '\n', b->len - at);
    *ret_len = newline != NULL ? (size_t) (newline - line) : b->len - at;
    if (*ret_len < 7 || memcmp(line, "{\"n\":", 5) != 0 || *ret_len > (size_t) 256 * 1024)
        return 0;
    struct json_object *root = NULL, *n = NULL;
    int64_t number = 0;
    if (json_parse(line, *ret_len, &root, NULL) == 0 && json_object_object_get_ex(root, "n", &n) &&
        json_object_is_type(n, json_type_int))
        number = json_object_get_int64(n);
    /* Written as the daemon writes it, and not its only member. */
    char text[32];
    size_t len = (size_t) snprintf(text, sizeof(text), "%lld,", (long long) number);
    if (number >= INT64_C(1000000000000000000) || *ret_len < 5 + len ||
        memcmp(line + 5, text, len) != 0)
        number = 0;
    json_object_put(root);
    return number > 0 ? number : 0;
}

/* Only the daemon's own lines, in whatever state: those that can be read are in order. Anything is
 * kept or cut of a file that somebody else has put together. */
static bool is_own(const struct buf *b)
{
    int64_t last = 0;
    size_t len;
    for (size_t at = 0; at < b->len; at += len + 1) {
        int64_t n = line_at(b, at, &len);
        if (n > 0 && last > 0 && n != last + 1)
            return false;
        last = n > 0 ? n : last;
    }
    return true;
}

/* The lines after `floor_n` follow each other, with nothing between them; `at` the cursor, they
 * follow its line. */
static void check_order(const struct buf *b, size_t at, int64_t floor_n)
{
    int64_t last = at > 0 ? floor_n : 0;
    bool begun = at > 0;
    size_t len;
    for (; at < b->len; at += len + 1) {
        int64_t n = line_at(b, at, &len);
        CHECK_TEXT(!begun || n == last + 1, b->data, b->len);
        begun = begun || n > floor_n;
        last = n > 0 ? n : last;
    }
}

static bool has_line(const struct buf *b, int64_t n)
{
    size_t len;
    for (size_t at = 0; at < b->len; at += len + 1)
        if (line_at(b, at, &len) == n)
            return true;
    return false;
}

/* A line that was cut is written again, which is only done after `last_n`; or the other file
 * has it. */
static void check_nothing_lost(const struct buf *before, const struct buf *after,
                               const struct buf *other, int64_t floor_n, int64_t last_n)
{
    size_t len;
    for (size_t at = 0; at < before->len; at += len + 1) {
        int64_t n = line_at(before, at, &len);
        CHECK_TEXT(n <= floor_n || n > last_n || has_line(after, n) || has_line(other, n),
                   before->data, before->len);
    }
}

static size_t end_of_lines(const struct buf *b, int64_t n_lines)
{
    size_t at = 0;
    for (int64_t i = 0; i < n_lines && at < b->len; i++) {
        const char *newline = memchr(b->data + at, '\n', b->len - at);
        if (newline == NULL)
            break;
        at = (size_t) (newline - b->data) + 1;
    }
    return at;
}

/* What was whole lines in order stays; what is cut is from a line's start on. */
static void check_cut(const struct buf *before, const struct buf *after, int64_t floor_n)
{
    bool added = after->len == before->len + 1;
    size_t kept = added ? before->len : after->len;
    CHECK_TEXT(kept <= before->len, after->data, after->len);
    CHECK(kept == 0 || memcmp(before->data, after->data, kept) == 0);
    CHECK(!added || after->data[kept] == '\n');
    CHECK_TEXT(after->len == 0 || after->data[after->len - 1] == '\n', after->data, after->len);
    if (kept == before->len || !is_own(before))
        return;

    /* The first line that was cut is not the one that had to follow. */
    size_t len, at = 0;
    int64_t last = 0, n = line_at(before, kept, &len);
    while (at < kept) {
        int64_t here = line_at(before, at, &len);
        last = here > 0 ? here : last;
        at += len + 1;
    }
    CHECK_TEXT(n == 0 || last == 0 || n != last + 1, before->data, before->len);
    CHECK_TEXT(n == 0 || n > floor_n || last > floor_n, before->data, before->len);
}

/* --- A recovery --- */

struct scene {
    struct queue_cursor cursor;
    int64_t max_n;
    struct queue_log_check check;
    struct buf log, rotated; /* as they were */
};

static int64_t within(int64_t value, int64_t min, int64_t max)
{
    return value < min ? min : value > max ? max : value;
}

static void read_scene(struct fuzz_input *in, struct scene *s)
{
    const struct place *p = place();
    int64_t whose = fuzz_number(in), n = fuzz_number(in);
    int64_t offset = within(fuzz_number(in), -N_MAX, CONTENT_MAX);
    int64_t max_n = fuzz_number(in);
    s->check.first_n = fuzz_number(in);
    read_content(in, &s->log);
    read_content(in, &s->rotated);

    const struct buf *own = whose == 2 ? &s->rotated : &s->log;
    s->cursor = (struct queue_cursor){
        .inode = whose == 1   ? p->log_inode
                 : whose == 2 ? p->rotated_inode
                 : whose == 3 ? UINT64_MAX
                              : 0,
        .offset = offset < 0 ? (int64_t) end_of_lines(own, -offset) : offset,
        .n = within(n, 0, N_MAX),
    };
    if (s->cursor.n == 0)
        s->cursor.offset = 0; /* before the first line */
    s->max_n = within(max_n, s->cursor.n, N_MAX + 10);
}

/* Whether the log is the cursor's file as it was left, grown perhaps. */
static bool is_grown(const struct scene *s)
{
    const struct buf *log = &s->log;
    size_t begin = (size_t) s->cursor.offset, len;
    if (s->cursor.inode != place()->log_inode || begin > log->len)
        return false;
    if (begin == 0)
        return true;
    if (log->data[--begin] != '\n')
        return false;
    while (begin > 0 && log->data[begin - 1] != '\n')
        begin--;
    return line_at(log, begin, &len) == s->cursor.n;
}

/* Whether the daemon can have left the two files so: the neighbour goes on after the cursor, is
 * damaged only at its end, and then, since it is synced before lines go into the next file, the
 * last one. */
static bool is_rotated_well(const struct scene *s)
{
    int64_t expect_n = s->cursor.n + 1;
    bool torn = false;
    size_t len;
    for (size_t at = (size_t) s->cursor.offset; at < s->rotated.len; at += len + 1) {
        int64_t n = line_at(&s->rotated, at, &len);
        if (n > 0 && (torn || n != expect_n++))
            return false;
        torn = torn || n == 0;
    }
    for (size_t at = 0; at < s->log.len; at += len + 1) {
        int64_t n = line_at(&s->log, at, &len);
        if (n > 0)
            return !torn && n == expect_n;
    }
    return true;
}

static int recover(struct queue_log *log, const struct scene *s, int64_t *ret_last_n)
{
    struct buf why;
    buf_init(&why, 8192);
    int r = log->recover(log->userdata, &s->cursor, s->max_n, &s->check, ret_last_n, &why);
    CHECK(r == 0 || r == -EEXIST);
    CHECK((r == 0) == (why.len == 0));
    buf_finish(&why);
    return r;
}

static void check_recovered(const struct scene *s, int64_t last_n)
{
    struct buf log, rotated;
    read_file(place()->log, &log);
    read_file(place()->rotated, &rotated);
    CHECK(last_n >= s->cursor.n && last_n <= s->max_n);
    check_cut(&s->log, &log, s->cursor.n);
    bool grown = is_grown(s);
    size_t start = grown ? (size_t) s->cursor.offset : 0;
    CHECK(log.len >= start);
    if (is_own(&s->log)) {
        check_order(&log, start, s->cursor.n);
    }
    /* What is in front of the cursor stays; no older line is behind it. */
    bool moved = s->cursor.inode == place()->rotated_inode;
    if (is_own(&s->log) && (!moved || is_rotated_well(s)))
        check_nothing_lost(&s->log, &log, &rotated, grown ? s->cursor.n : 0, last_n);
    if (moved && is_own(&s->log) && is_rotated_well(s))
        check_nothing_lost(&s->rotated, &rotated, &log, s->cursor.n, last_n);
    if (!equal(&s->rotated, &rotated))
        CHECK(s->cursor.inode != 0 && s->cursor.inode != place()->log_inode);
    size_t same = s->rotated.len < rotated.len ? s->rotated.len : rotated.len;
    CHECK(same == 0 || memcmp(s->rotated.data, rotated.data, same) == 0);
    CHECK(rotated.len <= s->rotated.len + 1);
    buf_finish(&log);
    buf_finish(&rotated);
}

/* The next start finds what this one has written, and has nothing to cut. */
static void check_going_on(struct queue_log *log, struct scene *s, int64_t last_n)
{
    struct buf lines, before, after;
    buf_init(&lines, 1024);
    append_good(&lines, last_n + 1);
    CHECK(buf_append_char(&lines, '\n') == 0);
    append_good(&lines, last_n + 2);
    CHECK(buf_append_char(&lines, '\n') == 0);
    CHECK(log->append(log->userdata, lines.data, lines.len, last_n + 2) == 0);
    read_file(place()->log, &before);

    /* The crash came before the cursor was committed. */
    int64_t again = 0;
    struct scene late = { .cursor = s->cursor, .max_n = s->max_n + 2, .check = s->check };
    if (s->max_n == last_n && recover(log, &late, &again) == 0)
        CHECK(again >= s->cursor.n && again <= last_n + 2);
    fuzz_write_file(place()->log, before.data, before.len);

    struct queue_cursor cursor;
    CHECK(log->sync(log->userdata, &cursor) == 0);
    cursor.offset = (int64_t) before.len;
    cursor.n = last_n + 2;
    struct scene next = { .cursor = cursor, .max_n = last_n + 2, .check = s->check };
    CHECK(cursor.inode == place()->log_inode);
    CHECK(recover(log, &next, &again) == 0);
    CHECK(again == last_n + 2);
    read_file(place()->log, &after);
    CHECK(equal(&before, &after));
    buf_finish(&lines);
    buf_finish(&before);
    buf_finish(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { .at = (const char *) data, .left = size };
    struct scene s;
    read_scene(&in, &s);
    fuzz_write_file(place()->log, s.log.data, s.log.len);
    fuzz_write_file(place()->rotated, s.rotated.data, s.rotated.len);

    struct results *results = NULL;
    struct queue_log log;
    CHECK(results_create(&results, place()->log) == 0);
    results_get_log(results, &log);
    int64_t last_n = 0;
    if (recover(&log, &s, &last_n) == 0) {
        check_recovered(&s, last_n);
        check_going_on(&log, &s, last_n);
    } else {
        struct buf now, rotated;
        read_file(place()->log, &now);
        read_file(place()->rotated, &rotated);
        CHECK(equal(&s.log, &now) && equal(&s.rotated, &rotated));
        buf_finish(&now);
        buf_finish(&rotated);
    }
    results_destroy(results);
    buf_finish(&s.log);
    buf_finish(&s.rotated);
    return 0;
}
