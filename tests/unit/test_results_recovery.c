/* What recovery makes of a results log after every kind of end, as a table. */
#include "results_place.h"

/* `head` (if any), lines first..last (0 = none), then `tail`. */
struct content {
    const char *head;
    int first, last;
    const char *tail;
    size_t tail_len; /* 0 = strlen */
};

enum cursor_at { CURSOR_NONE, CURSOR_LOG, CURSOR_ROTATED, CURSOR_GONE };

struct recovery {
    const char *name;
    bool no_log;
    struct content log;
    struct content rotated; /* r.log.1, when it has anything */
    struct content older;   /* r.log.2 */
    enum cursor_at cursor;
    int cursor_n;     /* its offset is after this line of the file */
    int offset_extra; /* added to it */
    int max_n;
    int want_r;
    int want_n;
    struct content log_after;       /* all zero: empty */
    const char *rotated_after_tail; /* after its lines; NULL: as it was */
    bool rotated_cut;               /* to its lines only */
};

#define NULS "\0\0\0\0\0\0\0\0"
#define NULS_64 NULS NULS NULS NULS NULS NULS NULS NULS
#define SECTOR_LOST NULS_64 NULS_64 NULS_64 NULS_64 NULS_64 NULS_64 NULS_64 NULS_64
#define REST "b-1\",\"x\":[1,null]}\n"
#define TORN "{\"n\":6,\"job_id\":\"jo"
#define SIX "{\"n\":6,\"job_id\":\"job-6\",\"x\":[1,null]}"

/* clang-format off */
static const struct recovery recoveries[] = {
    { .name = "nothing yet", .no_log = true },
    { .name = "nothing yet, outcomes committed", .no_log = true, .max_n = 3 },
    { .name = "empty file", .max_n = 3 },

    /* The cursor's own file. */
    { .name = "as it was left", .log = { .first = 1, .last = 5 },
      .cursor = CURSOR_LOG, .cursor_n = 5, .max_n = 5, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "grown", .log = { .first = 1, .last = 5 },
      .cursor = CURSOR_LOG, .cursor_n = 2, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "torn line", .log = { .first = 1, .last = 5, .tail = TORN },
      .cursor = CURSOR_LOG, .cursor_n = 2, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "torn line right after the cursor", .log = { .first = 1, .last = 5, .tail = TORN },
      .cursor = CURSOR_LOG, .cursor_n = 5, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "only the newline is missing", .log = { .first = 1, .last = 5, .tail = SIX },
      .cursor = CURSOR_LOG, .cursor_n = 5, .max_n = 9, .want_n = 6,
      .log_after = { .first = 1, .last = 6 } },
    { .name = "NULs", .log = { .first = 1, .last = 5, .tail = NULS, .tail_len = 8 },
      .cursor = CURSOR_LOG, .cursor_n = 3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "torn line and NULs",
      .log = { .first = 1, .last = 5, .tail = TORN NULS, .tail_len = sizeof(TORN) - 1 + 8 },
      .cursor = CURSOR_LOG, .cursor_n = 3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "a hole, then more lines",
      .log = { .first = 1, .last = 5, .tail = "\0\0\n{\"n\":7,\"a\":1}\n", .tail_len = 17 },
      .cursor = CURSOR_LOG, .cursor_n = 3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "a gap in n", .log = { .first = 1, .last = 5, .tail = "{\"n\":7,\"a\":1}\n" },
      .cursor = CURSOR_LOG, .cursor_n = 3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "not JSON though it looks like it",
      .log = { .first = 1, .last = 5, .tail = "{\"n\":6,\"a\":1,\"a\":1}\n" },
      .cursor = CURSOR_LOG, .cursor_n = 3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "new file, first line torn", .log = { .tail = "{\"n\":6,\"jo" },
      .cursor = CURSOR_LOG, .cursor_n = 0, .max_n = 9, .want_n = 0 },
    { .name = "more than the database has", .log = { .first = 1, .last = 9 },
      .cursor = CURSOR_LOG, .cursor_n = 5, .max_n = 5, .want_r = -EEXIST,
      .log_after = { .first = 1, .last = 9 } },
    { .name = "truncated, then written to", .log = { .first = 6, .last = 7 },
      .cursor = CURSOR_LOG, .cursor_n = 7, .offset_extra = 500, .max_n = 9, .want_n = 7,
      .log_after = { .first = 6, .last = 7 } },
    { .name = "truncated to nothing", .log = { 0 },
      .cursor = CURSOR_LOG, .cursor_n = 7, .offset_extra = 500, .max_n = 9, .want_n = 7 },
    { .name = "truncated, torn", .log = { .first = 6, .last = 8, .tail = "{\"n" },
      .cursor = CURSOR_LOG, .cursor_n = 7, .offset_extra = 500, .max_n = 9, .want_n = 8,
      .log_after = { .first = 6, .last = 8 } },
    { .name = "edited in place: the cursor is amid a line", .log = { .first = 1, .last = 5 },
      .cursor = CURSOR_LOG, .cursor_n = 4, .offset_extra = -3, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 5 } },
    { .name = "edited: a bad line in what is known to be written is kept",
      .log = { .head = "# noted by hand\n", .first = 3, .last = 8 },
      .cursor = CURSOR_LOG, .cursor_n = 7, .offset_extra = 1, .max_n = 9, .want_n = 8,
      .log_after = { .head = "# noted by hand\n", .first = 3, .last = 8 } },

    /* No cursor. */
    { .name = "no cursor, torn", .log = { .first = 1, .last = 4, .tail = "{\"n\":5,\"" },
      .max_n = 9, .want_n = 4, .log_after = { .first = 1, .last = 4 } },
    { .name = "no cursor, begins later", .log = { .first = 4, .last = 5 },
      .max_n = 9, .want_n = 5, .log_after = { .first = 4, .last = 5 } },
    { .name = "no cursor, another database", .log = { .first = 1, .last = 4 },
      .max_n = 3, .want_r = -EEXIST, .log_after = { .first = 1, .last = 4 } },
    { .name = "no cursor, only NULs", .log = { .tail = NULS, .tail_len = 8 }, .max_n = 9 },
    { .name = "no cursor, torn first line", .log = { .tail = TORN }, .max_n = 9 },
    { .name = "no cursor, torn opening", .log = { .tail = "{\"" }, .max_n = 9 },
    { .name = "no cursor, torn first line, NULs",
      .log = { .tail = TORN NULS, .tail_len = sizeof(TORN) - 1 + 8 }, .max_n = 9 },
    { .name = "no cursor, the first sector was lost",
      .log = { .tail = SECTOR_LOST REST, .tail_len = 512 + sizeof(REST) - 1 }, .max_n = 9 },
    { .name = "no cursor, sectors were lost, and another one later",
      .log = { .tail = SECTOR_LOST REST TORN NULS, .tail_len = 512 + sizeof(REST TORN) - 1 + 8 },
      .max_n = 9 },
    { .name = "a foreign file after NULs that are no sector",
      .log = { .tail = NULS_64 REST, .tail_len = 64 + sizeof(REST) - 1 }, .max_n = 9,
      .want_r = -EEXIST, .log_after = { .tail = NULS_64 REST, .tail_len = 64 + sizeof(REST) - 1 } },
    { .name = "a foreign line after a lost sector",
      .log = { .tail = SECTOR_LOST REST "hello\n", .tail_len = 512 + sizeof(REST) + 5 }, .max_n = 9,
      .want_r = -EEXIST,
      .log_after = { .tail = SECTOR_LOST REST "hello\n", .tail_len = 512 + sizeof(REST) + 5 } },
    { .name = "a foreign file with a lost sector",
      .log = { .tail = SECTOR_LOST "\x7f\x01", .tail_len = 514 }, .max_n = 9, .want_r = -EEXIST,
      .log_after = { .tail = SECTOR_LOST "\x7f\x01", .tail_len = 514 } },
    { .name = "a foreign file", .log = { .tail = "127.0.0.1 GET /\n" }, .max_n = 9,
      .want_r = -EEXIST, .log_after = { .tail = "127.0.0.1 GET /\n" } },
    { .name = "a foreign JSON file", .log = { .tail = "{\"name\":\"x\"}\n{\"name\":\"y\"}\n" },
      .max_n = 9, .want_r = -EEXIST,
      .log_after = { .tail = "{\"name\":\"x\"}\n{\"name\":\"y\"}\n" } },
    { .name = "a foreign file that begins like ours", .log = { .tail = "{\"n\":1.5}\n" },
      .max_n = 9, .want_r = -EEXIST, .log_after = { .tail = "{\"n\":1.5}\n" } },
    { .name = "a foreign file with NULs first", .log = { .tail = "\0\0BIN", .tail_len = 5 },
      .max_n = 9, .want_r = -EEXIST, .log_after = { .tail = "\0\0BIN", .tail_len = 5 } },

    /* Rotated. */
    { .name = "rotated, new log not made yet", .no_log = true,
      .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 5 },
    { .name = "rotated, new log empty", .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 5 },
    { .name = "rotated with a torn end", .rotated = { .first = 1, .last = 5, .tail = TORN },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 5, .rotated_cut = true },
    { .name = "rotated, nothing after the cursor but NULs",
      .rotated = { .first = 1, .last = 5, .tail = NULS, .tail_len = 8 },
      .cursor = CURSOR_ROTATED, .cursor_n = 5, .max_n = 9, .want_n = 5, .rotated_cut = true },
    { .name = "rotated, the new log has lines", .log = { .first = 6, .last = 7 },
      .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 7,
      .log_after = { .first = 6, .last = 7 } },
    { .name = "rotated, the new log is torn", .log = { .tail = TORN },
      .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 5 },
    { .name = "rotated, the new log has a hole at its beginning",
      .log = { .tail = "\0\0\n{\"n\":7,\"a\":1}\n", .tail_len = 17 },
      .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_n = 5 },
    { .name = "rotated twice", .rotated = { .first = 6, .last = 8 },
      .older = { .first = 1, .last = 5 },
      .cursor = CURSOR_NONE, .max_n = 9, .want_n = 0 },
    { .name = "rotated, its lines are more than the database has",
      .rotated = { .first = 1, .last = 5 },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 4, .want_r = -EEXIST },
    { .name = "rotated, then a foreign file put there", .log = { .tail = "hello\n" },
      .rotated = { .first = 1, .last = 5, .tail = TORN },
      .cursor = CURSOR_ROTATED, .cursor_n = 3, .max_n = 9, .want_r = -EEXIST,
      .log_after = { .tail = "hello\n" } },
    { .name = "gone, new log empty", .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9,
      .want_n = 5 },
    { .name = "gone, the new log goes on", .log = { .first = 7, .last = 8 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 8,
      .log_after = { .first = 7, .last = 8 } },
    { .name = "gone, an older log put back", .log = { .first = 1, .last = 4 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 5,
      .log_after = { .first = 1, .last = 4 } },
    { .name = "gone, a copy in its place", .log = { .first = 1, .last = 7, .tail = "{\"n\":8" },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 7,
      .log_after = { .first = 1, .last = 7 } },
    { .name = "gone, another database's log put there", .log = { .first = 1, .last = 10 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_r = -EEXIST,
      .log_after = { .first = 1, .last = 10 } },
    { .name = "compressed", .rotated = { .head = "\x1f\x8b\x08 compressed" },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 5 },
    { .name = "gone, but the one that follows it is there", .rotated = { .first = 6, .last = 8 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 8 },
    { .name = "rotated twice, the second has a torn end",
      .rotated = { .first = 6, .last = 8, .tail = "{\"n\":9,\"" },
      .older = { .first = 1, .last = 5 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 8, .rotated_cut = true },
    { .name = "another database's rotated log counts for nothing",
      .rotated = { .first = 6, .last = 12 },
      .cursor = CURSOR_GONE, .cursor_n = 5, .max_n = 9, .want_n = 5 },
};
/* clang-format on */

static size_t render(const struct content *c, char *text)
{
    size_t len = 0;
    if (c->head != NULL)
        len += (size_t) sprintf(text, "%s", c->head);
    if (c->last > 0)
        len += put_lines(text + len, c->first, c->last);
    if (c->tail != NULL) {
        size_t tail_len = c->tail_len > 0 ? c->tail_len : strlen(c->tail);
        memcpy(text + len, c->tail, tail_len);
        len += tail_len;
    }
    return len;
}

static void lay(const char *path, const struct content *c)
{
    static char text[CONTENT_MAX];
    size_t len = render(c, text);
    write_whole(path, text, len);
}

static bool is_empty(const struct content *c)
{
    return c->head == NULL && c->last == 0 && c->tail == NULL;
}

static struct queue_cursor cursor_of(const struct recovery *c, const char *log_path,
                                     const char *rotated_path, const char *gone_path)
{
    static char text[CONTENT_MAX];
    const struct content *content = &c->log;
    const char *path = log_path;
    struct stat st;

    if (c->cursor == CURSOR_NONE)
        return (struct queue_cursor){ 0 };
    if (c->cursor == CURSOR_ROTATED) {
        content = &c->rotated;
        path = rotated_path;
    } else if (c->cursor == CURSOR_GONE) {
        path = gone_path;
    }
    assert_int_equal(stat(path, &st), 0);
    size_t offset =
        c->cursor_n > 0 && content->last > 0 ? put_lines(text, content->first, c->cursor_n) : 0;
    return (struct queue_cursor){
        .device = st.st_dev,
        .inode = st.st_ino,
        .offset = (int64_t) offset + c->offset_extra,
        .n = c->cursor_n,
    };
}

static void recover_case(struct place *p, const struct recovery *c)
{
    static char want[CONTENT_MAX];
    static char rotated_before[CONTENT_MAX];
    char rotated[128], older[128], gone[128];
    size_t rotated_len = 0;
    path_of(p, "r.log.1", rotated);
    path_of(p, "r.log.2", older);
    path_of(p, "gone", gone);

    if (!c->no_log)
        lay(p->log_path, &c->log);
    if (!is_empty(&c->rotated)) {
        lay(rotated, &c->rotated);
        rotated_len = read_all(rotated, rotated_before);
    }
    if (!is_empty(&c->older))
        lay(older, &c->older);
    lay(gone, &(struct content){ 0 });

    struct queue_cursor cursor = cursor_of(c, p->log_path, rotated, gone);
    struct buf err;
    buf_init(&err, 4096);
    int64_t last_n = 0;
    int r = p->log.recover(p->log.userdata, &cursor, c->max_n, NULL, &last_n, &err);
    if (r != c->want_r || (r == 0 && last_n != c->want_n))
        fail_msg("%s: returned %d and line %lld: %s", c->name, r, (long long) last_n,
                 buf_cstr(&err));
    assert_true((r < 0) == (err.len > 0));
    buf_finish(&err);

    size_t len = render(&c->log_after, want);
    assert_content(c->name, p->log_path, want, len);
    if (rotated_len > 0) {
        size_t keep =
            c->rotated_cut ? put_lines(want, c->rotated.first, c->rotated.last) : rotated_len;
        assert_content(c->name, rotated, rotated_before, keep);
    }
    (void) unlink(gone);
}

static void test_recover(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(recoveries) / sizeof(recoveries[0]); i++) {
        void *place = NULL;
        setup(&place);
        recover_case(place, &recoveries[i]);
        teardown(&place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_recover) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
