/* The results log: opening, writing under faults, rotation. Its recovery has a table of its own,
 * test_results_recovery.c. */
#include "results_place.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* --- System calls that fail on demand --- */

static int fdatasync_fault;
static ino_t fdatasync_fault_inode; /* 0 = any */
static int ftruncate_fault;

/* Instead of the C library's. */
int fdatasync(int fd)
{
    struct stat st;
    if (fdatasync_fault != 0 && (fdatasync_fault_inode == 0 ||
                                 (fstat(fd, &st) == 0 && st.st_ino == fdatasync_fault_inode))) {
        errno = fdatasync_fault;
        return -1;
    }
    return (int) syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t len)
{
    if (ftruncate_fault != 0) {
        errno = ftruncate_fault;
        return -1;
    }
    return (int) syscall(SYS_ftruncate, fd, len);
}

static int stop(void **state)
{
    fdatasync_fault = 0;
    fdatasync_fault_inode = 0;
    ftruncate_fault = 0;
    return teardown(state);
}

static int64_t recover(struct place *p, const struct queue_cursor *cursor, int64_t max_n)
{
    struct buf err;
    buf_init(&err, 4096);
    int64_t last_n = -1;
    int r = p->log.recover(p->log.userdata, cursor, max_n, NULL, &last_n, &err);
    if (r < 0)
        fail_msg("recover: %d: %s", r, buf_cstr(&err));
    buf_finish(&err);
    return last_n;
}

static int append(struct place *p, int first, int last)
{
    static char text[CONTENT_MAX];
    size_t len = put_lines(text, first, last);
    return p->log.append(p->log.userdata, text, len, last);
}

static void assert_lines(struct place *p, const char *name, int first, int last)
{
    static char want[CONTENT_MAX];
    char path[128];
    path_of(p, name, path);
    assert_content(name, path, want, put_lines(want, first, last));
}

static const struct queue_cursor no_cursor;

/* --- Opening --- */

static void refuse(struct place *p, const char *word)
{
    struct buf err;
    buf_init(&err, 4096);
    int64_t last_n = -1;
    assert_true(p->log.recover(p->log.userdata, &no_cursor, 0, NULL, &last_n, &err) < 0);
    if (strstr(buf_cstr(&err), word) == NULL)
        fail_msg("no '%s' in: %s", word, buf_cstr(&err));
    buf_finish(&err);
}

static void test_refuses_symlink(void **state)
{
    struct place *p = *state;
    assert_int_equal(symlink("elsewhere", p->log_path), 0);
    refuse(p, "symbolic link");
}

static void test_refuses_fifo(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkfifo(p->log_path, 0600), 0);
    refuse(p, "not a regular file");
}

static void test_refuses_directory(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkdir(p->log_path, 0700), 0);
    refuse(p, p->log_path);
}

static void test_refuses_device(void **state)
{
    struct place *p = *state;
    results_destroy(p->results);
    assert_int_equal(results_create(&p->results, "/dev/null"), 0);
    results_get_log(p->results, &p->log);
    refuse(p, "not a regular file");
}

static void test_mode(void **state)
{
    struct place *p = *state;
    mode_t mask = umask(077);
    recover(p, &no_cursor, 0);
    (void) umask(mask);

    struct stat st;
    assert_int_equal(stat(p->log_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

/* --- Writing --- */

static void test_write_and_cursor(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;

    assert_int_equal(append(p, 1, 1), -EBADF);
    assert_int_equal(recover(p, &no_cursor, 0), 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(append(p, 4, 4), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);

    struct stat st;
    assert_int_equal(stat(p->log_path, &st), 0);
    assert_int_equal(cursor.inode, st.st_ino);
    assert_int_equal(cursor.device, st.st_dev);
    assert_int_equal(cursor.offset, st.st_size);
    assert_int_equal(cursor.n, 4);

    assert_int_equal(append(p, 5, 6), 0);
    assert_int_equal(recover(p, &cursor, 9), 6);
    assert_lines(p, "r.log", 1, 6);
}

/* Lets the file grow to `max` bytes, so that a write stops short in the middle of a line. */
static void limit_file_size(rlim_t max)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_short_write(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 2), 0);

    limit_file_size(100);
    assert_true(append(p, 3, 5) < 0);
    assert_lines(p, "r.log", 1, 2);
    assert_true(append(p, 3, 3) < 0);

    limit_file_size(RLIM_INFINITY);
    assert_lines(p, "r.log", 1, 2);
    assert_int_equal(append(p, 3, 5), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(cursor.n, 5);
    assert_lines(p, "r.log", 1, 5);
}

static void test_short_write_that_cant_be_cut(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 2), 0);

    limit_file_size(100);
    ftruncate_fault = EIO;
    assert_true(append(p, 3, 5) < 0);
    limit_file_size(RLIM_INFINITY);

    /* The torn rest doesn't count, and nothing is written after it. */
    assert_int_equal(append(p, 3, 5), -EIO);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(cursor.n, 2);

    ftruncate_fault = 0;
    assert_int_equal(append(p, 3, 5), 0);
    assert_lines(p, "r.log", 1, 5);
}

/* A second fdatasync() would succeed without having written a thing. */
static void test_failed_sync(void **state)
{
    struct place *p = *state;
    struct queue_cursor synced, cursor;
    static char text[CONTENT_MAX], nuls[CONTENT_MAX];
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &synced), 0);

    assert_int_equal(append(p, 4, 5), 0);
    fdatasync_fault = EIO;
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -EIO);
    fdatasync_fault = 0;

    /* The kernel has forgotten the page: lines 4 and 5 are on disk nowhere. */
    size_t len = read_all(p->log_path, text);
    int fd = open(p->log_path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    size_t lost = len - (size_t) synced.offset;
    assert_int_equal(pwrite(fd, nuls, lost, synced.offset), lost);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -EIO);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -EIO);

    /* It has not. */
    assert_int_equal(pwrite(fd, text + synced.offset, lost, synced.offset), lost);
    (void) close(fd);
    assert_int_equal(append(p, 6, 6), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(cursor.n, 6);
    assert_int_equal(append(p, 7, 7), 0);
    assert_lines(p, "r.log", 1, 7);
}

/* What can't be synced any more is cut and written again once the log is recovered. */
static void test_failed_sync_then_recovery(void **state)
{
    struct place *p = *state;
    struct queue_cursor synced, cursor;
    static const char nuls[30];
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &synced), 0);
    assert_int_equal(append(p, 4, 5), 0);
    fdatasync_fault = EIO;
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -EIO);
    fdatasync_fault = 0;

    int fd = open(p->log_path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, nuls, sizeof(nuls), synced.offset + 5), sizeof(nuls));
    (void) close(fd);
    assert_int_equal(recover(p, &synced, 5), 3);
    assert_int_equal(append(p, 4, 5), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_lines(p, "r.log", 1, 5);
}

static void test_truncated_while_open(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(truncate(p->log_path, 0), 0);

    assert_int_equal(append(p, 4, 5), 0);
    assert_lines(p, "r.log", 4, 5);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(recover(p, &cursor, 5), 5);
    assert_lines(p, "r.log", 4, 5);
}

/* Removed, however its writer comes to see it: a new file takes what was not synced in the old one. */
static void test_removed_while_open(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(append(p, 4, 5), 0);
    assert_int_equal(unlink(p->log_path), 0);

    assert_int_equal(append(p, 6, 6), -ESTALE);
    struct queue_cursor lost = cursor;
    assert_int_equal(p->log.sync(p->log.userdata, &lost), -ESTALE);
    assert_int_equal(p->log.reopen(p->log.userdata), -ESTALE);
    assert_int_equal(recover(p, &cursor, 6), 3);
    assert_int_equal(append(p, 4, 6), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(cursor.n, 6);
    assert_lines(p, "r.log", 4, 6);
}

/* The remedy for a file that can't be synced any more. */
static void test_removed_after_a_failed_sync(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    struct stat st;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(stat(p->log_path, &st), 0);
    fdatasync_fault = EIO;
    fdatasync_fault_inode = st.st_ino;
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -EIO);
    assert_int_equal(unlink(p->log_path), 0);

    assert_int_equal(p->log.sync(p->log.userdata, &cursor), -ESTALE);
    assert_int_equal(recover(p, &no_cursor, 3), 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_lines(p, "r.log", 1, 3);
}

/* --- Rotation --- */

static void rotate(struct place *p)
{
    char rotated[128];
    path_of(p, "r.log.1", rotated);
    assert_int_equal(rename(p->log_path, rotated), 0);
}

static void test_reopen(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    rotate(p);
    assert_int_equal(append(p, 4, 5), 0);
    assert_int_equal(p->log.reopen(p->log.userdata), 0);
    assert_int_equal(append(p, 6, 7), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_lines(p, "r.log.1", 1, 5);
    assert_lines(p, "r.log", 6, 7);

    struct stat st;
    assert_int_equal(stat(p->log_path, &st), 0);
    assert_int_equal(cursor.inode, st.st_ino);
    assert_int_equal(cursor.offset, st.st_size);
    assert_int_equal(cursor.n, 7);
}

static void test_reopen_without_rotation(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.reopen(p->log.userdata), 0);
    assert_int_equal(append(p, 4, 4), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(cursor.n, 4);
    assert_lines(p, "r.log", 1, 4);
}

static void test_reopen_failures_keep_the_old_file(void **state)
{
    struct place *p = *state;
    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    rotate(p);

    assert_int_equal(mkdir(p->log_path, 0700), 0);
    assert_true(p->log.reopen(p->log.userdata) < 0);
    assert_int_equal(append(p, 4, 4), 0);
    assert_int_equal(rmdir(p->log_path), 0);

    write_whole(p->log_path, "not ours\n", 9);
    assert_int_equal(p->log.reopen(p->log.userdata), -EEXIST);
    assert_int_equal(append(p, 5, 5), 0);
    assert_content("foreign", p->log_path, "not ours\n", 9);
    assert_int_equal(unlink(p->log_path), 0);

    assert_int_equal(p->log.reopen(p->log.userdata), 0);
    assert_int_equal(append(p, 6, 6), 0);
    assert_lines(p, "r.log.1", 1, 5);
    assert_lines(p, "r.log", 6, 6);
}

/* Rotated twice since the cursor was kept: both neighbours count. */
static void test_rotated_twice(void **state)
{
    struct place *p = *state;
    struct queue_cursor cursor;
    char once[128], twice[128];
    path_of(p, "r.log.1", once);
    path_of(p, "r.log.2", twice);

    recover(p, &no_cursor, 0);
    assert_int_equal(append(p, 1, 3), 0);
    assert_int_equal(p->log.sync(p->log.userdata, &cursor), 0);
    assert_int_equal(append(p, 4, 5), 0);
    assert_int_equal(rename(p->log_path, twice), 0);
    assert_int_equal(p->log.reopen(p->log.userdata), 0);
    assert_int_equal(append(p, 6, 7), 0);
    assert_int_equal(rename(p->log_path, once), 0);

    assert_int_equal(recover(p, &cursor, 9), 7);
    assert_int_equal(append(p, 8, 9), 0);
    assert_lines(p, "r.log.2", 1, 5);
    assert_lines(p, "r.log.1", 6, 7);
    assert_lines(p, "r.log", 8, 9);
}

/* --- Long lines and logs larger than any buffer --- */

static void test_long(void **state)
{
    struct place *p = *state;
    const size_t line_len = 100 * 1024;
    char *line = malloc(line_len + 64);
    assert_non_null(line);
    recover(p, &no_cursor, 0);
    for (int n = 1; n <= 20; n++) {
        size_t len = (size_t) sprintf(line, "{\"n\":%d,\"x\":\"", n);
        memset(line + len, 'x', line_len);
        len += line_len;
        memcpy(line + len, "\"}\n", 3);
        assert_int_equal(p->log.append(p->log.userdata, line, len + 3, n), 0);
    }
    free(line);

    struct stat before, after;
    assert_int_equal(stat(p->log_path, &before), 0);
    FILE *f = fopen(p->log_path, "ae");
    assert_non_null(f);
    for (int i = 0; i < 300 * 1024; i++)
        assert_int_equal(fputc('\0', f), 0);
    assert_int_equal(fclose(f), 0);

    assert_int_equal(recover(p, &no_cursor, 30), 20);
    assert_int_equal(stat(p->log_path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refuses_symlink),
        TEST(test_refuses_fifo),
        TEST(test_refuses_directory),
        TEST(test_refuses_device),
        TEST(test_mode),
        TEST(test_write_and_cursor),
        TEST(test_short_write),
        TEST(test_short_write_that_cant_be_cut),
        TEST(test_failed_sync),
        TEST(test_failed_sync_then_recovery),
        TEST(test_truncated_while_open),
        TEST(test_removed_while_open),
        TEST(test_removed_after_a_failed_sync),
        TEST(test_reopen),
        TEST(test_reopen_without_rotation),
        TEST(test_reopen_failures_keep_the_old_file),
        TEST(test_rotated_twice),
        TEST(test_long),
    };
    (void) signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
