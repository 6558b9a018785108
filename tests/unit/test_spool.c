/* The spool against a queue in memory: what is taken, when, and what becomes of the files. */
#include "spool_place.h"

#include "base/buf.h"

/* All but the last digit. */
#define UUID "01939f5e-0000-7000-8000-00000000000"

static void test_files(void **state)
{
    struct place *p = *state;
    start_spool(p);
    drop_file(p, "job-1", "");
    drop_file(p, "list.txt",
              "\xef\xbb\xbf"
              "a\r\n\n# comment\n  b\t\n{\"job_id\": \"c\", \"request_id\": \"r-1\", "
              "\"deadline_s\": 5}\nbad line\nd");
    drop_file(p, "only-comments", "# nothing\n");
    run_until(p, stats_of(p).files == 3);

    assert_int_equal(p->queue.n_kept, 6);
    assert_int_equal(stats_of(p).accepted, 5);
    const struct request *job = kept_job(p, "job-1");
    assert_string_equal(job->origin, "job-1");
    assert_int_equal(job->source, SOURCE_SPOOL);
    assert_int_equal(job->deadline_at_ms - job->accepted_at_ms, 60000);
    assert_string_equal(job->request_id + 36, ".1");
    assert_string_equal(kept_job(p, "a")->request_id + 36, ".1");
    assert_string_equal(kept_job(p, "b")->request_id + 36, ".4");
    assert_string_equal(kept_job(p, "d")->request_id + 36, ".7");
    assert_string_equal(kept_job(p, "c")->request_id, "r-1");
    assert_int_equal(kept_job(p, "c")->deadline_at_ms - kept_job(p, "c")->accepted_at_ms, 5000);
    const struct request *bad = kept_job(p, "bad line");
    assert_int_equal(bad->state, REQUEST_DONE);
    assert_int_equal(bad->outcome, OUTCOME_INVALID);
    assert_string_equal(bad->message, "line 6: not a job ID");
    assert_string_equal(bad->error_code, "invalid_request");
    assert_int_equal(count_names(p, "."), 2);
    assert_int_equal(count_names(p, ".claimed"), 0);
    assert_int_equal(p->queue.unsynced, 0);
}

static void test_names_left_alone(void **state)
{
    struct place *p = *state;
    static const char *const names[] = { ".x", "a.tmp", "b.part", "c.swp", "d~" };
    drop_file(p, names[0], "x\n");
    start_spool(p);
    for (size_t i = 1; i < sizeof(names) / sizeof(names[0]); i++)
        drop_file(p, names[i], "x\n");
    drop_file(p, "last", "");
    run_until(p, stats_of(p).files == 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_true(there_is(p, names[i]));
    assert_int_equal(p->queue.n_kept, 1);
}

static void test_longest_names(void **state)
{
    struct place *p = *state;
    char name[256], list[256];
    memset(name, 'n', 255);
    memset(list, 'l', 255);
    name[255] = list[255] = '\0';
    start_spool(p);
    drop_file(p, name, "");
    drop_file(p, list, "a\n");
    run_until(p, stats_of(p).files == 2);
    assert_string_equal(kept_job(p, name)->origin, name);
    assert_string_equal(kept_job(p, "a")->origin, list);
    assert_int_equal(count_names(p, ".claimed"), 0);
}

static void test_large_file(void **state)
{
    struct place *p = *state;
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 8000; i++)
        assert_int_equal(buf_printf(&text, "job-%d\n", i), 0);
    drop_file(p, "large", buf_cstr(&text));
    buf_finish(&text);
    start_spool(p);
    /* Found by the scan: it has to settle first. */
    run_until(p, stats_of(p).files == 1);
    assert_int_equal(p->queue.n_kept, 8000);
    assert_string_equal(p->queue.kept[7999]->job_id, "job-7999");
    assert_true(p->queue.most_lines <= 1000);
    assert_true(p->queue.unsynced > 0); /* only the first part has to wait for the name */
}

static void test_long_lines(void **state)
{
    struct place *p = *state;
    struct buf text;
    buf_init(&text, 8 << 20);
    assert_int_equal(buf_reserve(&text, 3 << 20), 0);
    /* A JSON line of 1 MiB sharp, one that is a byte too long, and a last one without newline. */
    const char json[] = "{\"job_id\": \"a\"}";
    size_t json_len = sizeof(json) - 1;
    assert_int_equal(buf_append_str(&text, "first\n{"), 0);
    memset(text.data + text.len, ' ', (1 << 20) - json_len);
    text.len += (1 << 20) - json_len;
    assert_int_equal(buf_append_str(&text, json + 1), 0);
    assert_int_equal(buf_append_str(&text, "\n"), 0);
    memset(text.data + text.len, 'x', (1 << 20) + 1);
    text.len += (1 << 20) + 1;
    assert_int_equal(buf_append_str(&text, "\nlast\n"), 0);
    memset(text.data + text.len, 'y', 300000);
    text.len += 300000;
    drop_file(p, "f", buf_cstr(&text));
    buf_finish(&text);
    start_spool(p);
    run_until(p, stats_of(p).files == 1);
    assert_int_equal(p->queue.n_kept, 5);
    assert_string_equal(p->queue.kept[1]->job_id, "a");
    assert_string_equal(p->queue.kept[2]->message, "line 3: longer than 1 MiB");
    assert_int_equal(strlen(p->queue.kept[2]->job_id), JOB_ID_MAX);
    assert_string_equal(p->queue.kept[3]->job_id, "last");
    assert_string_equal(p->queue.kept[4]->message, "line 5: not a job ID");
}

static void test_writer(void **state)
{
    struct place *p = *state;
    char path[512];
    start_spool(p);
    path_of(p, "slow", path);
    int slow = write_file(path, "a\nhal", 5, 0);
    /* A second writer closes it, so that it is claimed; the first goes on. */
    (void) close(write_file(path, "", 0, O_APPEND));
    run_until(p, p->queue.n_kept == 1 && count_names(p, ".claimed") == 1);
    assert_int_equal(write(slow, "f\nb\n", 4), 4);
    run_until(p, p->queue.n_kept == 3);
    assert_int_equal(count_names(p, ".claimed"), 1);
    assert_int_equal(write(slow, "c", 1), 1);
    (void) close(slow);
    run_until(p, stats_of(p).files == 1);
    assert_non_null(kept_job(p, "half"));
    assert_non_null(kept_job(p, "c"));
    assert_int_equal(p->queue.n_kept, 4);
}

static void test_linked_in(void **state)
{
    struct place *p = *state;
    char path[512], aside[64];
    start_spool(p);
    (void) snprintf(aside, sizeof(aside), "%s/aside", p->home);
    int fd = write_file(aside, "ab", 2, 0);
    path_of(p, "linked", path);
    assert_int_equal(link(aside, path), 0);
    /* The next to settle is taken, this one not: somebody has it open. */
    path_of(p, "marker", path);
    assert_int_equal(symlink("x", path), 0);
    run_until(p, stats_of(p).rejected == 1);
    assert_true(there_is(p, "linked"));
    assert_int_equal(write(fd, "c\n", 2), 2);
    (void) close(fd);
    run_until(p, stats_of(p).files == 1);
    assert_non_null(kept_job(p, "abc"));
    assert_int_equal(unlink(aside), 0);
}

static void test_rejected(void **state)
{
    struct place *p = *state;
    char path[512] = "";
    p->options.max_file_bytes = 1000;
    path_of(p, "link", path);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    path_of(p, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    path_of(p, "nul", path);
    (void) close(write_file(path, "a\nb\0c\n", 6, 0));
    path_of(p, "large", path);
    (void) close(write_file(path, path, 500, 0));
    assert_int_equal(truncate(path, 1001), 0);
    start_spool(p);
    run_until(p, stats_of(p).rejected == 4);
    drop_file(p, "nul", "x");
    run_until(p, stats_of(p).files == 1);
    path_of(p, "nul", path);
    (void) close(write_file(path, "\0", 1, 0));
    run_until(p, stats_of(p).rejected == 5);

    static const char *const names[] = { "link", "fifo", "nul", "large", "nul.1" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char name[64];
        (void) snprintf(name, sizeof(name), "rejected/%s", names[i]);
        assert_true(there_is(p, name));
        (void) snprintf(name, sizeof(name), "rejected/%s.reason", names[i]);
        assert_true(there_is(p, name));
    }
    assert_int_equal(count_names(p, "rejected"), 10);
    assert_int_equal(count_names(p, ".claimed"), 0);
    assert_int_equal(p->queue.n_kept, 1);
}

static void write_bad_lines(struct place *p, const char *name)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 130; i++)
        assert_int_equal(buf_printf(&text, "good-%d\nbad line %d\n", i, i), 0);
    drop_file(p, name, buf_cstr(&text));
    buf_finish(&text);
}

static void assert_rest(const struct place *p, const char *name)
{
    char path[512], text[8192];
    path_of(p, name, path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void) close(fd);
    assert_true(n > 0);
    text[n] = '\0';
    assert_memory_equal(text, "good-100\nbad line 100\n", 22);
    assert_string_equal(text + n - 22, "good-129\nbad line 129\n");
}

static void test_too_many_bad_lines(void **state)
{
    struct place *p = *state;
    start_spool(p);
    write_bad_lines(p, "f");
    run_until(p, stats_of(p).rejected == 1 && count_names(p, ".claimed") == 0);
    assert_int_equal(p->queue.n_kept, 200);
    assert_rest(p, "rejected/f");
    assert_int_equal(count_names(p, "rejected"), 2);
}

static void test_begun_before(void **state)
{
    struct place *p = *state;
    char path[512];
    path_of(p, ".claimed", path);
    assert_int_equal(mkdir(path, 0700), 0);
    drop_file(p, ".claimed/" UUID "1-list", "a\nb");
    drop_file(p, ".claimed/" UUID "2+job", "");
    drop_file(p, ".claimed/" UUID "3-emptied", "");
    drop_file(p, ".claimed/strange", "c\n");
    path_of(p, ".claimed/" UUID "4", path);
    assert_int_equal(mkdir(path, 0700), 0);
    drop_file(p, ".claimed/" UUID "4/d", "d\n");
    path_of(p, ".claimed/" UUID "5+", path);
    assert_int_equal(mkdir(path, 0700), 0);
    start_spool(p);
    run_until(p, stats_of(p).files == 3 && stats_of(p).rejected == 2 &&
                     count_names(p, ".claimed") == 0);
    assert_string_equal(kept_job(p, "a")->request_id, UUID "1.1");
    assert_string_equal(kept_job(p, "b")->request_id, UUID "1.2");
    assert_string_equal(kept_job(p, "job")->request_id, UUID "2.1");
    assert_string_equal(kept_job(p, "d")->request_id, UUID "4.1");
    assert_true(there_is(p, "rejected/emptied"));
    assert_true(there_is(p, "rejected/strange"));
    assert_int_equal(p->queue.n_kept, 4);
}

/* Stopped with a put open, then begun anew: the lines are known. */
static void test_stopped_and_begun_anew(void **state)
{
    struct place *p = *state;
    p->queue.held = true;
    start_spool(p);
    write_bad_lines(p, "f");
    drop_file(p, "job", "");
    run_until(p, p->queue.n_open == 2);
    stop_spool(p);
    assert_int_equal(p->queue.n_kept, 201);
    assert_int_equal(count_names(p, ".claimed"), 2);
    start_spool(p);
    run_until(p, stats_of(p).files == 1 && stats_of(p).rejected == 1);
    assert_int_equal(p->queue.n_kept, 201);
    assert_int_equal(stats_of(p).accepted, 0);
    assert_rest(p, "rejected/f");
}

/* The 100th bad line is number 2400. */
static void write_long_file(const struct place *p, const char *name)
{
    char text[64 * 1024];
    size_t len = 0;
    for (int i = 1; i <= 2500; i++)
        len += (size_t) snprintf(text + len, sizeof(text) - len,
                                 i < 100 || i == 2400 ? "no job %d\n" : "j%d\n", i);
    drop_file(p, name, text);
}

/* Not from its beginning, and with what was known of it. */
static void test_goes_on_amid_a_file(void **state)
{
    struct place *p = *state;
    char path[512];
    path_of(p, ".claimed", path);
    assert_int_equal(mkdir(path, 0700), 0);
    p->queue.max_pending = 2100;
    write_long_file(p, ".claimed/" UUID "8-f");
    start_spool(p);
    run_until(p, p->queue.n_pending == 2100 && p->queue.n_open == 0);
    assert_int_equal(count_notes(&p->queue), 2);
    stop_spool(p);

    p->queue.n_lines = 0;
    p->queue.max_pending = 10000;
    start_spool(p);
    run_until(p, count_names(p, ".claimed") == 0);
    assert_int_equal(p->queue.n_kept, 2400);
    assert_string_equal(kept_job(p, "j2399")->request_id, UUID "8.2399");
    assert_true(p->queue.n_lines <= 1400);
    assert_true(there_is(p, "rejected/f"));
    assert_int_equal(count_notes(&p->queue), 0);
}

/* What was kept of it goes with it. */
static void test_moved_away_amid_a_file(void **state)
{
    struct place *p = *state;
    char path[512];
    path_of(p, ".claimed", path);
    assert_int_equal(mkdir(path, 0700), 0);
    p->queue.max_pending = 2100;
    write_long_file(p, ".claimed/" UUID "9-f");
    start_spool(p);
    run_until(p, p->queue.n_pending == 2100 && p->queue.n_open == 0);
    stop_spool(p);
    path_of(p, ".claimed/" UUID "9-f", path);
    assert_int_equal(truncate(path, 5), 0);
    start_spool(p);
    run_until(p, there_is(p, "rejected/f"));
    assert_int_equal(count_notes(&p->queue), 0);
}

/* A crash came after the rest was placed and before the claim was removed. */
static void test_rest_is_placed_once(void **state)
{
    struct place *p = *state;
    char path[512];
    path_of(p, ".claimed", path);
    assert_int_equal(mkdir(path, 0700), 0);
    path_of(p, "rejected", path);
    assert_int_equal(mkdir(path, 0770), 0);
    write_bad_lines(p, ".claimed/" UUID "6-f");
    drop_file(p, "rejected/f", "another\n");
    drop_file(p, "rejected/f.reason", "Claim: " UUID "7\n");
    drop_file(p, "rejected/f.1", "the rest\n");
    drop_file(p, "rejected/f.1.reason", "Claim: " UUID "6\n");
    start_spool(p);
    run_until(p, p->queue.n_kept == 200 && count_names(p, ".claimed") == 0);
    assert_int_equal(count_names(p, "rejected"), 4);
}

static void test_request_ids_of_other_jobs(void **state)
{
    struct place *p = *state;
    start_spool(p);
    drop_file(p, "f", "{\"job_id\":\"a\",\"request_id\":\"r\"}\n");
    run_until(p, stats_of(p).files == 1);
    drop_file(
        p, "g",
        "# x\n{\"job_id\":\"b\",\"request_id\":\"r\"}\nc\n{\"job_id\":\"a\",\"request_id\":\"r\"}\n");
    run_until(p, stats_of(p).files == 2);
    assert_int_equal(p->queue.n_kept, 3);
    assert_non_null(kept_job(p, "c"));
    const struct request *bad = p->queue.kept[2];
    assert_int_equal(bad->outcome, OUTCOME_INVALID);
    assert_string_equal(bad->message, "line 2: request_id belongs to another job");
    assert_string_equal(bad->job_id, "{\"job_id\":\"b\",\"request_id\":\"r\"}");
    assert_string_equal(bad->request_id + 36, ".2");
}

static void test_full_queue(void **state)
{
    struct place *p = *state;
    p->queue.max_pending = 5;
    start_spool(p);
    drop_file(p, "list", "a\nb\nbad line\nc\nd\ne\nf\ng\nbad line too\nh\n");
    run_until(p, p->queue.n_kept == 6);
    drop_file(p, "job", "");
    /* It tries again by itself, in vain. */
    uint64_t begin_ms = uv_hrtime() / 1000000;
    run_until(p, uv_hrtime() / 1000000 >= begin_ms + 1200);
    assert_int_equal(p->queue.n_kept, 6);
    p->queue.max_pending = 7;
    spool_resume(p->spool);
    run_until(p, p->queue.n_pending == 7);
    p->queue.max_pending = 100;
    spool_resume(p->spool);
    run_until(p, stats_of(p).files == 2);
    assert_int_equal(stats_of(p).accepted, 9);
    assert_int_equal(p->queue.n_kept, 11);
}

static void test_storage_trouble(void **state)
{
    struct place *p = *state;
    start_spool(p);
    p->queue.failure = -EIO;
    drop_file(p, "a", "");
    run_until(p, count_names(p, ".claimed") == 1 && p->queue.n_open == 0);
    p->queue.failure = 0;
    p->queue.refusal = -EIO;
    drop_file(p, "b", "x\n");
    uint64_t begin_ms = uv_hrtime() / 1000000;
    run_until(p, uv_hrtime() / 1000000 >= begin_ms + 100);
    assert_int_equal(count_names(p, ".claimed"), 1);
    assert_true(there_is(p, "b"));
    p->queue.refusal = 0;
    spool_resume(p->spool);
    run_until(p, stats_of(p).files == 2);
    assert_int_equal(p->queue.n_kept, 2);
}

static void test_directory_comes_and_goes(void **state)
{
    struct place *p = *state;
    char aside[80];
    (void) snprintf(aside, sizeof(aside), "%s.old", p->dir);
    assert_int_equal(rmdir(p->dir), 0);
    start_spool(p);
    run_until(p, !uv_is_active((const uv_handle_t *) &p->queue.turn));
    for (int i = 0; i < 3; i++) {
        char name[16];
        (void) snprintf(name, sizeof(name), "job-%d", i);
        assert_int_equal(mkdir(p->dir, 0755), 0);
        drop_file(p, name, "");
        run_until(p, stats_of(p).files == (uint64_t) i + 1);
        assert_int_equal(rename(p->dir, aside), 0);
        remove_tree(aside);
    }
    /* Full when it comes. */
    assert_int_equal(mkdir(aside, 0755), 0);
    char path[128];
    (void) snprintf(path, sizeof(path), "%s/job-3", aside);
    (void) close(write_file(path, "", 0, 0));
    assert_int_equal(rename(aside, p->dir), 0);
    run_until(p, stats_of(p).files == 4);
    assert_int_equal(p->queue.n_kept, 4);
}

static void test_own_directories_removed(void **state)
{
    struct place *p = *state;
    char path[512];
    start_spool(p);
    run_until(p, there_is(p, ".claimed"));
    path_of(p, ".claimed", path);
    assert_int_equal(rmdir(path), 0);
    drop_file(p, "job", "");
    run_until(p, stats_of(p).files == 1);
    assert_non_null(kept_job(p, "job"));
}

static void test_links_for_own_directories(void **state)
{
    struct place *p = *state;
    char path[512];
    path_of(p, ".claimed", path);
    assert_int_equal(symlink(p->home, path), 0);
    log_set_level(LOG_LEVEL_ERROR);
    start_spool(p);
    drop_file(p, "job", "");
    uint64_t begin_ms = uv_hrtime() / 1000000;
    run_until(p, uv_hrtime() / 1000000 >= begin_ms + 100);
    assert_true(there_is(p, "job"));
    assert_int_equal(unlink(path), 0);
    run_until(p, stats_of(p).files == 1);
}

static void test_many_files(void **state)
{
    struct place *p = *state;
    char name[32];
    for (int i = 0; i < 3000; i++) {
        (void) snprintf(name, sizeof(name), "old-%d", i);
        drop_file(p, name, "");
    }
    start_spool(p);
    /* More events than the kernel keeps, too. */
    for (int i = 0; i < 9000; i++) {
        (void) snprintf(name, sizeof(name), "new-%d", i);
        drop_file(p, name, "");
    }
    run_until(p, stats_of(p).files == 12000);
    assert_int_equal(p->queue.n_kept, 12000);
    assert_int_equal(count_names(p, "."), 2);
    assert_true(p->queue.most_open <= 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_longest_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_linked_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rejected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_bad_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_begun_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_and_begun_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_goes_on_amid_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved_away_amid_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rest_is_placed_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request_ids_of_other_jobs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_storage_trouble, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_comes_and_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_directories_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links_for_own_directories, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
