/* Request lines: a table of good ones, a table of bad ones with what their sender is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/json.h"
#include "model/line.h"

#define TEXT(s) .text = (s), .len = sizeof(s) - 1

#define A50 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A255 A50 A50 A50 A50 A50 "aaaaa"
#define A128 A50 A50 "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"

#define BAD_JOB_ID "job_id is not a job ID (1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -)"
#define BAD_REQUEST_ID "request_id is not 1 to 128 bytes of A-Z a-z 0-9 . _ : -"
#define BAD_DEADLINE "deadline_s is not an integer from 1 to 2592000"

struct good_case {
    const char *text;
    size_t len;
    const char *job_id;
    const char *request_id; /* NULL = "" */
    int64_t deadline_s;
};

static const struct good_case good_cases[] = {
    { TEXT("abc123-def456-ghi789"), "abc123-def456-ghi789" },
    { TEXT("a"), "a" },
    { TEXT("..."), "..." },
    { TEXT(".a"), ".a" },
    { TEXT("~user:1_2.3-4"), "~user:1_2.3-4" },
    { TEXT("-"), "-" },
    { TEXT("true"), "true" },
    { TEXT("12"), "12" },
    { TEXT(A255), A255 },
    { TEXT("{\"job_id\":\"a\"}"), "a" },
    { TEXT("{ \"deadline_s\" : 60 , \"job_id\" : \"a\", \"request_id\":\"r.1_2:3-4\" }"), "a",
      "r.1_2:3-4", 60 },
    { TEXT("{\"job_id\":\"\\u0061b\"}"), "ab" },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":1}"), "a", NULL, 1 },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":2592000}"), "a", NULL, 2592000 },
    { TEXT("{\"job_id\":\"" A255 "\",\"request_id\":\"" A128 "\"}"), A255, A128 },
};

struct bad_case {
    const char *text;
    size_t len;
    const char *what;
};

static const struct bad_case bad_cases[] = {
    { TEXT(""), "not a job ID" },
    { TEXT("."), "not a job ID" },
    { TEXT(".."), "not a job ID" },
    { TEXT("a b"), "not a job ID" },
    { TEXT("a/b"), "not a job ID" },
    { TEXT("../etc"), "not a job ID" },
    { TEXT("a%2fb"), "not a job ID" },
    { TEXT("a?x=1"), "not a job ID" },
    { TEXT("a#"), "not a job ID" },
    { TEXT("a\0b"), "not a job ID" },
    { TEXT("a\0"), "not a job ID" },
    { TEXT("a\nb"), "not a job ID" },
    { TEXT("a\r"), "not a job ID" },
    { TEXT("\x1b[2J"), "not a job ID" },
    { TEXT("\xc3\xa9"), "not a job ID" },
    { TEXT("\xff"), "not a job ID" },
    { TEXT("a,b"), "not a job ID" },
    { TEXT(A255 "a"), "not a job ID" },
    { TEXT("'a'"), "not a job ID" },

    { TEXT("{"), "bad JSON at byte 2: unexpected end" },
    { TEXT("{\"job_id\":\"a\"} x"), "bad JSON at byte 16: text after the value" },
    { TEXT("{job_id:\"a\"}"), "bad JSON at byte 2: unexpected character" },
    { TEXT("{\"job_id\":\"a\0\"}"), "bad JSON at byte 13: control character in a string" },
    { TEXT("{\"job_id\":\"a\\u0000b\"}"), "bad JSON at byte 13: U+0000 in a string" },
    { TEXT("{\"job_id\":\"\xff\"}"), "bad JSON at byte 12: not UTF-8" },
    { TEXT("{\"job_id\":\"a\",\"job_id\":\"b\"}"), "bad JSON at byte 15: repeated member" },
    { TEXT("{\"job_id\":\"a\",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}"),
      "bad JSON at byte 34: too deeply nested" },
    { TEXT("[\"a\"]"), "not an object" },
    { TEXT("[]"), "not an object" },
    { TEXT("\"a\""), "not an object" },
    { TEXT("{}"), "job_id is missing" },
    { TEXT("{\"request_id\":\"r\"}"), "job_id is missing" },
    { TEXT("{\"job_id\":null}"), "job_id is not a string" },
    { TEXT("{\"job_id\":12}"), "job_id is not a string" },
    { TEXT("{\"job_id\":[\"a\"]}"), "job_id is not a string" },
    { TEXT("{\"job_id\":\"\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\"..\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\"a/b\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\"a\\nb\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\" a\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\"" A255 "a\"}"), BAD_JOB_ID },
    { TEXT("{\"job_id\":\"a\",\"request_id\":null}"), "request_id is not a string" },
    { TEXT("{\"job_id\":\"a\",\"request_id\":1}"), "request_id is not a string" },
    { TEXT("{\"job_id\":\"a\",\"request_id\":\"\"}"), BAD_REQUEST_ID },
    { TEXT("{\"job_id\":\"a\",\"request_id\":\"a~\"}"), BAD_REQUEST_ID },
    { TEXT("{\"job_id\":\"a\",\"request_id\":\"" A128 "a\"}"), BAD_REQUEST_ID },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":0}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":-1}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":2592001}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":60.0}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":1e3}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":\"60\"}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":true}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":null}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":99999999999999999999999}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":-99999999999999999999999}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"deadline_s\":18446744073709551617}"), BAD_DEADLINE },
    { TEXT("{\"job_id\":\"a\",\"dedline_s\":60}"), "unknown member 'dedline_s'" },
    { TEXT("{\"job_id\":\"a\",\"Job_id\":\"a\"}"), "unknown member 'Job_id'" },
    { TEXT("{\"job_id\":\"a\",\"wait\":true}"), "unknown member 'wait'" },
    { TEXT("{\"job_id\":\"a\",\"\":1}"), "unknown member ''" },
    { TEXT("{\"job_id\":\"a\",\"\\u001b[2J\\n\xc3\xa9\":1}"), "unknown member '?[2J?\?\?'" },
    { TEXT("{\"job_id\":\"a\",\"" A50 "\":1}"),
      "unknown member 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'" },
};

/* From a copy without a byte to spare, for a sanitizer to see reads beyond the end. */
static int parse_exact(const char *text, size_t len, struct line *ret, struct buf *reterr)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int r = line_parse(copy, len, ret, reterr);
    free(copy);
    return r;
}

static void test_good(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(good_cases) / sizeof(good_cases[0]); i++) {
        const struct good_case *c = &good_cases[i];
        struct line line;
        struct buf err;
        buf_init(&err, 1000);
        memset(&line, 'x', sizeof(line));
        if (parse_exact(c->text, c->len, &line, &err) != 0)
            fail_msg("'%s' was refused: %s", c->text, buf_cstr(&err));
        assert_string_equal(line.job_id, c->job_id);
        assert_string_equal(line.request_id, c->request_id != NULL ? c->request_id : "");
        assert_int_equal(line.deadline_s, c->deadline_s);
        assert_int_equal(err.len, 0);
        buf_finish(&err);
    }
}

static void test_bad(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++) {
        const struct bad_case *c = &bad_cases[i];
        struct line line = { .deadline_s = 7 };
        struct buf err;
        buf_init(&err, 1000);
        int r = parse_exact(c->text, c->len, &line, &err);
        if (r != -EINVAL || strcmp(buf_cstr(&err), c->what) != 0)
            fail_msg("'%s': %d, '%s' instead of '%s'", c->text, r, buf_cstr(&err), c->what);
        assert_int_equal(line.deadline_s, 7);
        buf_finish(&err);
    }
}

struct wait_case {
    const char *text;
    int r;
    bool wait;
    const char *what;
};

static void test_wait(void **state)
{
    (void) state;
    static const struct wait_case cases[] = {
        { "{\"job_id\":\"a\"}", 0, false, "" },
        { "{\"job_id\":\"a\",\"wait\":true}", 0, true, "" },
        { "{\"job_id\":\"a\",\"wait\":false}", 0, false, "" },
        { "{\"job_id\":\"a\",\"wait\":1}", -EINVAL, false, "wait is not true or false" },
        { "{\"job_id\":\"a\",\"wait\":null}", -EINVAL, false, "wait is not true or false" },
        { "{\"job_id\":\"a\",\"wait\":\"true\"}", -EINVAL, false, "wait is not true or false" },
        { "{\"wait\":true}", -EINVAL, false, "job_id is missing" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json_object *root = NULL;
        assert_int_equal(json_parse(cases[i].text, strlen(cases[i].text), &root, NULL), 0);
        struct line line;
        struct buf err;
        bool wait = false;
        buf_init(&err, 1000);
        assert_int_equal(line_from_object(root, &line, &wait, &err), cases[i].r);
        assert_int_equal(wait, cases[i].wait);
        assert_string_equal(buf_cstr(&err), cases[i].what);
        buf_finish(&err);
        json_object_put(root);
    }
}

static void test_trim(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        const char *trimmed;
    } cases[] = {
        { "", "" },
        { " \t\r", "" },
        { "a", "a" },
        { " a b\t\r", "a b" },
        { "a\r\r", "a" },
        { "\t \ra", "a" },
        { "a\v", "a\v" },
        { "\xc2\xa0"
          "a",
          "\xc2\xa0"
          "a" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = cases[i].text;
        size_t len = strlen(text);
        line_trim(&text, &len);
        assert_int_equal(len, strlen(cases[i].trimmed));
        assert_memory_equal(text, cases[i].trimmed, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_trim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
