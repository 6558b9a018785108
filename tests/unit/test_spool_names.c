/* The pure parts of the spool: names, and lines to requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "intake/spool_line.h"
#include "intake/spool_name.h"

#define UUID "01939f5e-abcd-7000-8000-0123456789ab"

static void test_ignored(void **state)
{
    (void) state;
    static const struct {
        const char *name;
        bool ignored;
    } cases[] = {
        { ".", true },         { ".claimed", true },   { "rejected", true }, { ".x", true },
        { "a.tmp", true },     { "a.part", true },     { "a.swp", true },    { "a~", true },
        { "~", true },         { "rejectedx", false }, { "tmp", false },     { "a.tmp.b", false },
        { "a.swpx", false },   { "a.TMP", false },     { "-", false },       { "a~b", false },
        { "a.reason", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (spool_name_ignored(cases[i].name) != cases[i].ignored)
            fail_msg("%s", cases[i].name);
}

static void test_claim_names(void **state)
{
    (void) state;
    char text[NAME_MAX + 1], name[NAME_MAX + 1];
    struct claim_name parsed;
    assert_true(claim_name_format(text, UUID, false, "a-b"));
    assert_string_equal(text, UUID "-a-b");
    assert_int_equal(claim_name_parse(text, &parsed), 0);
    assert_string_equal(parsed.uuid, UUID);
    assert_string_equal(parsed.name, "a-b");
    assert_false(parsed.was_empty);

    assert_true(claim_name_format(text, UUID, true, "+x"));
    assert_string_equal(text, UUID "++x");
    assert_int_equal(claim_name_parse(text, &parsed), 0);
    assert_string_equal(parsed.name, "+x");
    assert_true(parsed.was_empty);

    memset(name, 'n', sizeof(name));
    name[NAME_MAX - 37] = '\0';
    assert_true(claim_name_format(text, UUID, true, name));
    assert_int_equal(strlen(text), NAME_MAX);
    name[NAME_MAX - 37] = 'n';
    name[NAME_MAX - 36] = '\0';
    assert_false(claim_name_format(text, UUID, true, name));
    assert_string_equal(text, UUID "+");
    assert_int_equal(claim_name_parse(text, &parsed), 0);
    assert_null(parsed.name);
    assert_true(parsed.was_empty);
    assert_false(claim_name_format(text, UUID, false, name));
    assert_string_equal(text, UUID);
    assert_int_equal(claim_name_parse(text, &parsed), 0);
    assert_null(parsed.name);
    assert_false(parsed.was_empty);

    static const char *const strange[] = { "",         "a",
                                           UUID "x",   UUID "-",
                                           UUID "_ab", "." UUID "-a",
                                           "01939f5e", "01939f5e-abcd-7000-8000-0123456789aX-a" };
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++)
        if (claim_name_parse(strange[i], &parsed) != -EINVAL)
            fail_msg("'%s'", strange[i]);
}

static void test_reject_names(void **state)
{
    (void) state;
    char text[NAME_MAX + 1], name[NAME_MAX + 1];
    reject_name_format(text, "a", UUID, 0);
    assert_string_equal(text, "a");
    reject_name_format(text, "a", UUID, 1);
    assert_string_equal(text, "a.1");
    reject_name_format(text, "a", UUID, REJECT_NAME_ATTEMPTS - 1);
    assert_string_equal(text, "a." UUID);

    memset(name, 'n', NAME_MAX);
    name[NAME_MAX] = '\0';
    for (unsigned i = 0; i < REJECT_NAME_ATTEMPTS; i++) {
        reject_name_format(text, name, UUID, i);
        assert_int_equal(strlen(text), NAME_MAX - strlen(REASON_SUFFIX));
    }
    /* Not in the middle of a character. */
    for (size_t i = 0; i + 1 < NAME_MAX; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    reject_name_format(text, name, UUID, 0);
    assert_int_equal(strlen(text), 248);
    reject_name_format(text, name, UUID, 9);
    assert_int_equal(strlen(text), 248);
    assert_string_equal(text + 246, ".9");
    name[0] = 'x';
    memmove(name + 1, name + 2, NAME_MAX - 1);
    reject_name_format(text, name, UUID, 0);
    assert_int_equal(strlen(text), 247);
}

static const struct spool_line_file file = {
    .uuid = UUID,
    .name = "f.txt",
    .now_ms = 1000000,
    .deadline_s = 60,
};

static void test_lines(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        const char *job_id; /* NULL = nothing comes of it */
        const char *request_id;
        const char *message; /* NULL = it is good */
        int64_t deadline_at_ms;
    } cases[] = {
        { "", NULL, NULL, NULL, 0 },
        { " \t\r", NULL, NULL, NULL, 0 },
        { "# a", NULL, NULL, NULL, 0 },
        { "  #a", NULL, NULL, NULL, 0 },
        { "a", "a", UUID ".7", NULL, 1060000 },
        { " a\t\r", "a", UUID ".7", NULL, 1060000 },
        { "{\"job_id\":\"a\"}", "a", UUID ".7", NULL, 1060000 },
        { "{\"job_id\":\"a\",\"request_id\":\"r\",\"deadline_s\":1}", "a", "r", NULL, 1001000 },
        { " a b ", "a b", UUID ".7", "line 7: not a job ID", 1060000 },
        { "..", "..", UUID ".7", "line 7: not a job ID", 1060000 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request *req;
        bool bad;
        const char *text = cases[i].text;
        assert_int_equal(spool_line_request(&file, 7, text, strlen(text), &req, &bad), 0);
        assert_int_equal(bad, cases[i].message != NULL);
        if (cases[i].job_id == NULL) {
            assert_null(req);
            continue;
        }
        assert_string_equal(req->job_id, cases[i].job_id);
        assert_string_equal(req->request_id, cases[i].request_id);
        assert_string_equal(req->origin, "f.txt");
        assert_int_equal(req->source, SOURCE_SPOOL);
        assert_int_equal(req->accepted_at_ms, 1000000);
        assert_int_equal(req->deadline_at_ms, cases[i].deadline_at_ms);
        assert_int_equal(req->state, bad ? REQUEST_DONE : REQUEST_QUEUED);
        if (bad) {
            assert_int_equal(req->outcome, OUTCOME_INVALID);
            assert_int_equal(req->done_at_ms, 1000000);
            assert_string_equal(req->message, cases[i].message);
            assert_string_equal(req->error_message, cases[i].message);
            assert_string_equal(req->error_code, "invalid_request");
        }
        request_destroy(req);
    }
}

static void test_names_as_lines(void **state)
{
    (void) state;
    struct spool_line_file named = file;
    struct request *req;
    bool bad;
    named.name = "job-1";
    assert_int_equal(spool_line_name(&named, &req, &bad), 0);
    assert_false(bad);
    assert_string_equal(req->job_id, "job-1");
    assert_string_equal(req->request_id, UUID ".1");
    request_destroy(req);

    static const char *const names[] = { "two words", "#a", "{\"job_id\": \"a\"}", " a", "\xff\n" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        named.name = names[i];
        assert_int_equal(spool_line_name(&named, &req, &bad), 0);
        assert_true(bad);
        assert_memory_equal(req->message, "line 1: ", 8);
        assert_int_equal(req->state, REQUEST_DONE);
        request_destroy(req);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ignored),        cmocka_unit_test(test_claim_names),
        cmocka_unit_test(test_reject_names),   cmocka_unit_test(test_lines),
        cmocka_unit_test(test_names_as_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
