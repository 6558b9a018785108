/* The small parts at the bottom: buffer, clock, files, heap, map, UUID, log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/u64map.h"
#include "base/uuid.h"

/* The same numbers in every run. */
static uint64_t random_next(uint64_t *seed)
{
    *seed += UINT64_C(0x9e3779b97f4a7c15);
    return u64map_mix(*seed);
}

/* --- buf --- */

static void test_buf_limits(void **state)
{
    (void) state;
    struct buf b;
    buf_init(&b, 10);
    assert_null(b.data);
    assert_int_equal(buf_append(&b, "12345", 5), 0);
    assert_int_equal(buf_append(&b, "123456", 6), -ENOBUFS);
    assert_int_equal(buf_printf(&b, "%06d", 1), -ENOBUFS);
    assert_int_equal(buf_append_int(&b, -99999), -ENOBUFS);
    assert_int_equal(b.len, 5);
    assert_int_equal(buf_reserve(&b, 6), -ENOBUFS);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOBUFS);
    assert_int_equal(buf_append_str(&b, "abcde"), 0);
    assert_int_equal(buf_append_char(&b, 'x'), -ENOBUFS);
    assert_int_equal(buf_append(&b, NULL, 0), 0);
    assert_string_equal(buf_cstr(&b), "12345abcde");
    buf_consume(&b, 7);
    assert_string_equal(buf_cstr(&b), "cde");
    assert_int_equal(buf_append_int(&b, 1234567), 0);
    assert_string_equal(buf_cstr(&b), "cde1234567");
    buf_consume(&b, 100);
    assert_int_equal(b.len, 0);
    buf_finish(&b);
    assert_int_equal(b.max, 10);
    buf_finish(NULL);

    buf_init(&b, 0);
    assert_int_equal(buf_append_char(&b, 'x'), -ENOBUFS);
    assert_string_equal(buf_cstr(&b), "");
    buf_finish(&b);
}

static void test_buf_texts(void **state)
{
    (void) state;
    struct buf b;
    buf_init(&b, 1000);
    assert_null(buf_steal(&b, NULL));
    assert_int_equal(buf_append_int(&b, LLONG_MIN), 0);
    assert_int_equal(buf_append_char(&b, ' '), 0);
    assert_int_equal(buf_append_int(&b, LLONG_MAX), 0);
    assert_int_equal(buf_append_char(&b, ' '), 0);
    assert_int_equal(buf_append_int(&b, 0), 0);
    assert_string_equal(buf_cstr(&b), "-9223372036854775808 9223372036854775807 0");
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%s-%d", "a", 7), 0);
    assert_int_equal(buf_printf(&b, "%s", ""), 0);

    size_t len = 0;
    char *text = buf_steal(&b, &len);
    assert_string_equal(text, "a-7");
    assert_int_equal(len, 3);
    assert_null(b.data);
    free(text);
    for (int i = 0; i < 500; i++)
        assert_int_equal(buf_append_char(&b, (char) ('a' + i % 26)), 0);
    assert_int_equal(b.len, 500);
    assert_true(b.size <= b.max);
    buf_finish(&b);
}

/* --- clock --- */

static void test_clock_format(void **state)
{
    (void) state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        { 0, "1970-01-01T00:00:00.000Z" },
        { 1, "1970-01-01T00:00:00.001Z" },
        { -1, "1969-12-31T23:59:59.999Z" },
        { INT64_C(1795546157042), "2026-11-24T18:49:17.042Z" },
        { INT64_C(951782400000), "2000-02-29T00:00:00.000Z" },
        { INT64_C(253402300799999), "9999-12-31T23:59:59.999Z" },
        { INT64_C(253402300800000), "0000-01-01T00:00:00.000Z" },
        { INT64_MAX, "0000-01-01T00:00:00.000Z" },
        { INT64_MIN, "0000-01-01T00:00:00.000Z" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[CLOCK_TEXT_MAX];
        clock_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_clock_runs(void **state)
{
    (void) state;
    int64_t steady = clock_steady_ms();
    int64_t wall = clock_wall_ms();
    assert_true(wall > INT64_C(1600000000000));
    assert_true(llabs(wall - steady) < 60000);
    int64_t mono = clock_mono_ms();
    assert_true(clock_mono_ms() >= mono);
    assert_true(clock_steady_ms() >= steady);
}

/* --- fs --- */

static char directory[64];

static int make_directory(void **state)
{
    (void) state;
    (void) snprintf(directory, sizeof(directory), "/tmp/pulse-base-XXXXXX");
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void) st;
    (void) kind;
    (void) ftw;
    return remove(path);
}

static int remove_directory(void **state)
{
    (void) state;
    return nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_fs_files(void **state)
{
    (void) state;
    char path[128];
    (void) snprintf(path, sizeof(path), "%s/a/b//c/file", directory);
    struct buf err;
    buf_init(&err, 1024);
    assert_int_equal(fs_make_parents(path, 0755, &err), 0);
    assert_int_equal(fs_make_parents(path, 0755, &err), 0);
    assert_int_equal(err.len, 0);

    char *data = NULL;
    size_t len = 0;
    assert_int_equal(fs_read_file(path, 100, &data, &len), -ENOENT);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    size_t written = 0;
    char text[10000];
    memset(text, 'x', sizeof(text));
    assert_int_equal(fs_write_all(fd, text, sizeof(text), &written), 0);
    assert_int_equal(written, sizeof(text));
    assert_int_equal(close(fd), 0);
    assert_int_equal(fs_sync_parent(path), 0);

    assert_int_equal(fs_read_file(path, sizeof(text) - 1, &data, &len), -EFBIG);
    assert_int_equal(fs_read_file(path, sizeof(text), &data, &len), 0);
    assert_int_equal(len, sizeof(text));
    assert_memory_equal(data, text, len);
    assert_int_equal(data[len], '\0');
    free(data);

    assert_int_equal(fs_read_file(directory, 100, &data, &len), -EISDIR);
    /* A file where a directory should be. */
    (void) snprintf(path, sizeof(path), "%s/a/b/c/file/x/y", directory);
    assert_int_equal(fs_make_parents(path, 0755, &err), -ENOTDIR);
    assert_non_null(strstr(buf_cstr(&err), "c/file/x' can't be made: Not a directory"));
    buf_finish(&err);
    (void) snprintf(path, sizeof(path), "%s/fifo", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(fs_read_file(path, 100, &data, &len), -EINVAL);
    assert_int_equal(fs_write_all(-1, "x", 1, &written), -EBADF);
    assert_int_equal(written, 0);
}

static void test_fs_no_writer(void **state)
{
    (void) state;
    char path[128];
    (void) snprintf(path, sizeof(path), "%s/leased", directory);
    int writer = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(writer >= 0 && reader >= 0);
    int r = fs_no_writer(reader);
    if (r == -EOPNOTSUPP) {
        (void) close(writer);
        (void) close(reader);
        skip();
    }
    assert_int_equal(r, 0);
    assert_int_equal(close(writer), 0);
    assert_int_equal(fs_no_writer(reader), 1);
    /* The lease was given back: nobody has to wait. */
    writer = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(writer >= 0);
    assert_int_equal(fs_no_writer(reader), 0);
    (void) close(writer);
    (void) close(reader);
}

/* --- heap --- */

#define NODES 2000

static void assert_heap(const struct heap *h)
{
    for (size_t i = 0; i < h->len; i++) {
        assert_int_equal(h->nodes[i]->place, i);
        if (i > 0)
            assert_true(h->nodes[(i - 1) / 2]->key <= h->nodes[i]->key);
    }
}

/* Random pushes and removals from the middle; then what is left comes out in order. */
static void test_heap_model(void **state)
{
    (void) state;
    static struct heap_node nodes[NODES];
    struct heap h;
    uint64_t seed = 1;
    size_t count = 0;

    heap_init(&h);
    assert_null(heap_min(&h));
    for (size_t i = 0; i < NODES; i++)
        nodes[i].place = HEAP_NOWHERE;
    for (int step = 0; step < 20000; step++) {
        struct heap_node *node = &nodes[random_next(&seed) % NODES];
        if (node->place == HEAP_NOWHERE) {
            assert_int_equal(heap_push(&h, node, (int64_t) (random_next(&seed) % 500)), 0);
            count++;
        } else {
            heap_remove(&h, node);
            assert_int_equal(node->place, HEAP_NOWHERE);
            heap_remove(&h, node);
            count--;
        }
        assert_int_equal(h.len, count);
        if (step % 500 == 0)
            assert_heap(&h);
    }

    int64_t last = INT64_MIN;
    for (struct heap_node *node; (node = heap_min(&h)) != NULL; count--) {
        assert_true(node->key >= last);
        last = node->key;
        heap_remove(&h, node);
    }
    assert_int_equal(count, 0);
    assert_int_equal(heap_push(&h, &nodes[0], INT64_MIN), 0);
    heap_finish(&h);
    assert_int_equal(nodes[0].place, HEAP_NOWHERE);
    heap_finish(NULL);
}

/* --- u64map --- */

#define KEYS 20000

/* Keys that crowd the same sub-tables and homes, besides well-spread ones. */
static uint64_t model_key(size_t i, int kind)
{
    switch (kind) {
    case 0:
        return u64map_mix(i + 1);
    case 1:
        return i + 1;
    default:
        return UINT64_MAX - i;
    }
}

static void test_u64map_model(void **state)
{
    (void) state;
    for (int kind = 0; kind < 3; kind++) {
        /* Probes of neighbouring keys are long: fewer of them do. */
        size_t keys = kind == 0 ? KEYS : KEYS / 20;
        uint64_t *model = calloc(keys, sizeof(*model)); /* 0 = absent */
        assert_non_null(model);
        struct u64map *m = u64map_create();
        assert_non_null(m);
        uint64_t seed = (uint64_t) kind;
        size_t count = 0;

        for (size_t step = 0; step < 12 * keys; step++) {
            size_t i = random_next(&seed) % keys;
            /* Fills up, then drains, then mixes. */
            uint64_t remove_in_10 = step < 4 * keys ? 2 : step < 8 * keys ? 8 : 5;
            if (random_next(&seed) % 10 < remove_in_10) {
                u64map_remove(m, model_key(i, kind));
                count -= model[i] != 0;
                model[i] = 0;
            } else {
                uint64_t value = random_next(&seed) | 1;
                assert_int_equal(u64map_put(m, model_key(i, kind), value), 0);
                count += model[i] == 0;
                model[i] = value;
            }
            assert_int_equal(u64map_count(m), count);
            if (step % keys != 0)
                continue;
            for (size_t k = 0; k < keys; k++) {
                uint64_t value = 0;
                assert_int_equal(u64map_get(m, model_key(k, kind), &value), model[k] != 0);
                assert_true(value == model[k]);
            }
        }
        for (size_t i = 0; i < keys; i++)
            u64map_remove(m, model_key(i, kind));
        assert_int_equal(u64map_count(m), 0);
        assert_false(u64map_get(m, model_key(0, kind), NULL));
        assert_int_equal(u64map_put(m, model_key(0, kind), 5), 0);
        u64map_clear(m);
        assert_int_equal(u64map_count(m), 0);
        assert_false(u64map_get(m, model_key(0, kind), NULL));
        assert_false(u64map_get(m, 0, NULL));
        u64map_remove(m, 0);
        u64map_destroy(m);
        free(model);
    }
    u64map_destroy(NULL);
}

static void test_u64map_mix(void **state)
{
    (void) state;
    assert_true(u64map_mix(0) == 0);
    for (uint64_t i = 1; i < 1000; i++)
        assert_true(u64map_mix(i) != 0 && u64map_mix(i) >> 40 != u64map_mix(i + 1) >> 40);
}

/* The vectors of the reference implementation: key 00 to 0f, data 00 01 02 ... */
static void test_u64map_hash(void **state)
{
    (void) state;
    static const struct {
        size_t len;
        uint64_t hash;
    } vectors[] = {
        { 0, UINT64_C(0x726fdb47dd0e0e31) },  { 1, UINT64_C(0x74f839c593dc67fd) },
        { 7, UINT64_C(0xab0200f58b01d137) },  { 8, UINT64_C(0x93f5f5799a932462) },
        { 15, UINT64_C(0xa129ca6149be45e5) }, { 63, UINT64_C(0x958a324ceb064572) },
    };
    uint8_t key[16];
    uint8_t data[64];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t) i;
    memcpy(key, data, sizeof(key));
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        assert_true(u64map_hash(key, data, vectors[i].len) == vectors[i].hash);
}

/* --- uuid --- */

static void assert_uuid7(const char *text)
{
    assert_int_equal(strlen(text), UUID_TEXT_MAX - 1);
    for (int i = 0; i < UUID_TEXT_MAX - 1; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23)
            assert_int_equal(text[i], '-');
        else
            assert_non_null(strchr("0123456789abcdef", text[i]));
    }
    assert_int_equal(text[14], '7');
    assert_non_null(strchr("89ab", text[19]));
}

/* In order whatever the clock does: stands still, steps back, jumps. */
static void test_uuid_order(void **state)
{
    (void) state;
    int64_t now = INT64_C(1795546157042);
    char last[UUID_TEXT_MAX] = "";
    char text[UUID_TEXT_MAX];

    uuid7_make(now, text);
    assert_memory_equal(text, "01a20ee4-0ff2-7", 15);
    for (int i = 0; i < 50000; i++) {
        if (i % 1000 == 999)
            now += i % 3000 == 2999 ? -60000 : 7;
        uuid7_make(now, text);
        assert_uuid7(text);
        assert_true(strcmp(last, text) < 0);
        memcpy(last, text, sizeof(last));
    }
}

/* --- log --- */

/* What log_write() puts on stderr. */
static void capture(char *ret_text, size_t size, int pipe_fds[2])
{
    ssize_t n = read(pipe_fds[0], ret_text, size - 1);
    ret_text[n > 0 ? n : 0] = '\0';
}

static void test_log(void **state)
{
    (void) state;
    char text[40000];
    char stream[64];
    char longer[20000];
    int fds[2];
    struct stat st;

    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fds[1], STDERR_FILENO) >= 0);
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    (void) setenv("JOURNAL_STREAM", "1:2", 1);
    log_init();

    errno = EXDEV;
    log_error("file '%s'", "a\nb\x1b\x7f\xc2\x9b\xff\xc3\xa9");
    int after = errno;
    capture(text, sizeof(text), fds);
    (void) snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t) st.st_dev,
                    (uintmax_t) st.st_ino);
    (void) setenv("JOURNAL_STREAM", stream, 1);
    log_init();
    char journal[1000];
    log_debug("hidden");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("d");
    log_info("i");
    log_warning("w");
    log_error("e");
    capture(journal, sizeof(journal), fds);
    log_set_level(LOG_LEVEL_ERROR);
    log_warning("hidden");
    memset(longer, 1, sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    log_error("%s", longer);
    (void) unsetenv("JOURNAL_STREAM");
    log_init();
    log_set_level(LOG_LEVEL_INFO);
    (void) dup2(saved, STDERR_FILENO);
    (void) close(saved);

    assert_string_equal(text, "error: file 'a\\x0ab\\x1b\\x7f\\xc2\\x9b\\xff\xc3\xa9'\n");
    assert_int_equal(after, EXDEV);
    assert_string_equal(journal, "<7>d\n<6>i\n<4>w\n<3>e\n");
    capture(text, sizeof(text), fds);
    assert_memory_equal(text, "<3>\\x01", 7);
    assert_true(strlen(text) < 48 * 1024);
    assert_string_equal(text + strlen(text) - 8, "\\x01...\n");
    (void) close(fds[0]);
    (void) close(fds[1]);
}

/* A blocking pipe of four pages that nobody reads for a while. */
static void test_log_without_room(void **state)
{
    (void) state;
    char text[40000];
    char longer[6000];
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fcntl(fds[1], F_SETPIPE_SZ, 16384), 16384);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fds[1], STDERR_FILENO) >= 0);
    log_init();
    memset(longer, '-', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';

    log_info("one");
    log_info("%s", longer);
    log_info("%s", longer); /* for which there is room in part */
    log_info("dropped");
    log_info("dropped");
    capture(text, sizeof(text), fds);
    log_info("two");
    capture(longer, sizeof(longer), fds);
    log_info("three");
    (void) dup2(saved, STDERR_FILENO);
    (void) close(saved);
    log_init();

    assert_memory_equal(text, "info: one\ninfo: ---", 19);
    assert_true(strlen(text) <= 16384);
    const char *note = "warning: log: 3 lines were dropped, since there was no room for them\n"
                       "info: two\n";
    /* What was cut ends where it was cut. */
    assert_string_equal(longer + (longer[0] == '\n'), note);
    assert_int_equal(longer[0] == '\n', text[strlen(text) - 1] != '\n');
    capture(text, sizeof(text), fds);
    assert_string_equal(text, "info: three\n");
    (void) close(fds[0]);
    (void) close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_limits),
        cmocka_unit_test(test_buf_texts),
        cmocka_unit_test(test_clock_format),
        cmocka_unit_test(test_clock_runs),
        cmocka_unit_test_setup_teardown(test_fs_files, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_fs_no_writer, make_directory, remove_directory),
        cmocka_unit_test(test_heap_model),
        cmocka_unit_test(test_u64map_model),
        cmocka_unit_test(test_u64map_mix),
        cmocka_unit_test(test_u64map_hash),
        cmocka_unit_test(test_uuid_order),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_without_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
