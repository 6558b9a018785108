/* Request lines of the client: what a spool file may hold, in pieces of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "ctl/input.h"
#include "ctl/log_reader.h"

static void assert_good(const char *text, const char *job, const char *request, int64_t deadline_s)
{
    struct input_line line;
    input_line_read(text, strlen(text), 1, &line);
    assert_string_equal(line.problem, "");
    assert_string_equal(line.line.job_id, job);
    assert_string_equal(line.line.request_id, request);
    assert_int_equal(line.line.deadline_s, deadline_s);
}

static void assert_bad(const char *text, const char *problem)
{
    struct input_line line;
    input_line_read(text, strlen(text), 1, &line);
    assert_string_equal(line.problem, problem);
}

static void test_lines(void **state)
{
    (void) state;
    assert_good("a", "a", "", 0);
    assert_good("A-z.0_~:9", "A-z.0_~:9", "", 0);
    assert_good("{\"job_id\":\"a\"}", "a", "", 0);
    assert_good("{\"deadline_s\":60,\"request_id\":\"r:1\",\"job_id\":\"a\"}", "a", "r:1", 60);
    assert_bad("", "not a job ID");
    assert_bad("..", "not a job ID");
    assert_bad("a b", "not a job ID");
    assert_bad("{}", "job_id is missing");
    assert_bad("[]", "not an object");
    assert_bad("{\"job_id\":1}", "job_id is not a string");
    assert_bad("{\"job_id\":\"a\",\"request_id\":\"~\"}",
               "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -");
    assert_bad("{\"job_id\":\"a\",\"deadline_s\":2592001}",
               "deadline_s is not an integer from 1 to 2592000");
    assert_bad("{\"job_id\":\"a\",\"deadline_s\":\"60\"}",
               "deadline_s is not an integer from 1 to 2592000");
    assert_bad("{\"job_id\":\"a\",\"wait\":true}", "unknown member 'wait'");
    assert_bad("{\"job_id\":\"a\",\"job_id\":\"a\"}", "bad JSON at byte 15: repeated member");
}

/* A pipe with `text` in it, whose writer has gone. */
static int pipe_of(const char *text, size_t len)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], text, len), (ssize_t) len);
    (void) close(fds[1]);
    return fds[0];
}

static void assert_input(const char *text, size_t len, const char *expected)
{
    struct buf found;
    struct input in;
    struct input_line line;
    int fd = pipe_of(text, len);
    buf_init(&found, 4096);
    input_init(&in, fd);
    for (;;) {
        while (input_next(&in, &line)) {
            assert_int_equal(buf_printf(&found, "%d%s%s ", (int) line.number,
                                        line.problem[0] != '\0' ? "!" : "=", line.line.job_id),
                             0);
        }
        if (in.ended)
            break;
        assert_int_equal(input_read(&in), 0);
    }
    assert_string_equal(buf_cstr(&found), expected);
    buf_finish(&found);
    input_finish(&in);
    (void) close(fd);
}

static void test_input(void **state)
{
    static const char text[] =
        "\xef\xbb\xbf# comment\r\n  a\t\r\n\n\xef\xbb\xbfx\n#b\nc d\n\0\n{\"job_id\":\"e\"}\nf";
    static const char bom[] = "\xef\xbb\xbf"
                              "a\n";
    (void) state;
    assert_input("", 0, "");
    assert_input("\n\n", 2, "");
    assert_input("a", 1, "1=a ");
    assert_input(bom, sizeof(bom) - 1, "1=a ");
    assert_input(text, sizeof(text) - 1, "2=a 4! 6! 7! 8=e 9=f ");
}

/* What does not fit is one bad line, however long; the rest goes on. */
static void test_too_long(void **state)
{
    static char text[INPUT_LINE_MAX * 3 + 64];
    (void) state;
    for (size_t len = INPUT_LINE_MAX - 1; len <= INPUT_LINE_MAX * 3; len += INPUT_LINE_MAX / 2) {
        memset(text, ' ', len);
        text[0] = 'x';
        text[len - 1] = 'y';
        memcpy(text + len, "\nb\n", 4);
        assert_input(text, len + 3, "1! 2=b ");
        assert_input(text, len, "1! ");
    }
}

static void test_count(void **state)
{
    static const char text[] = "a\n\n#\nb\n c\nbad line\nd";
    struct input in;
    (void) state;
    int fd = pipe_of(text, sizeof(text) - 1);
    input_init(&in, fd);
    assert_int_equal(input_count(&in), 5);
    input_finish(&in);
    (void) close(fd);
}

static int64_t number_of(const char *line)
{
    return log_line_number(line, strlen(line));
}

static void test_log_line_number(void **state)
{
    (void) state;
    assert_int_equal(number_of("{\"n\":1,\"time\":\"\"}"), 1);
    assert_int_equal(number_of("{\"n\":1234567890123,"), INT64_C(1234567890123));
    assert_int_equal(number_of("{\"n\":12"), 0);
    assert_int_equal(number_of("{\"n\":}"), 0);
    assert_int_equal(number_of("{\"n\":99999999999999999999999,"), 0);
    assert_int_equal(number_of("{\"m\":1,"), 0);
    assert_int_equal(number_of(""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),           cmocka_unit_test(test_input),
        cmocka_unit_test(test_too_long),        cmocka_unit_test(test_count),
        cmocka_unit_test(test_log_line_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
