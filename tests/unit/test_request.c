/* The request: identifiers, the state machine, and the texts made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/request.h"

static void test_job_ids(void **state)
{
    (void) state;
    char longest[JOB_ID_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        { "abc123-def456-ghi789", true },
        { "a", true },
        { "A.b_c~d:e-f", true },
        { "...", true },
        { ".a", true },
        { "-rf", true },
        { "", false },
        { ".", false },
        { "..", false },
        { "a b", false },
        { "a/b", false },
        { "a\\b", false },
        { "a%2Fb", false },
        { "a?b", false },
        { "a#b", false },
        { "a\nb", false },
        { "a\x7f", false },
        { "\xc3\xa4", false },
        { "\xff", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(job_id_valid(cases[i].text, strlen(cases[i].text)), cases[i].valid);
    assert_true(job_id_valid(longest, JOB_ID_MAX));
    assert_false(job_id_valid(longest, JOB_ID_MAX + 1));
    assert_false(job_id_valid("a\0b", 3));
}

static void test_request_ids(void **state)
{
    (void) state;
    char longest[REQUEST_ID_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    assert_true(request_id_valid("a.b_c:d-9", 9));
    assert_true(request_id_valid("..", 2));
    assert_true(request_id_valid(longest, REQUEST_ID_MAX));
    assert_false(request_id_valid(longest, REQUEST_ID_MAX + 1));
    assert_false(request_id_valid("", 0));
    assert_false(request_id_valid("a~b", 3));
    assert_false(request_id_valid("a\0b", 3));
}

static void test_transitions(void **state)
{
    (void) state;
    /* From a row to a column; q i w d. */
    static const char *const table[] = { "-iwd", "q-wd", "q--d", "----" };
    for (int from = 0; from < REQUEST_STATE_COUNT; from++)
        for (int to = 0; to < REQUEST_STATE_COUNT; to++)
            assert_int_equal(request_may_become((enum request_state) from, (enum request_state) to),
                             table[from][to] != '-');
}

static void test_names(void **state)
{
    (void) state;
    for (int i = 0; i < OUTCOME_COUNT; i++)
        assert_int_equal(outcome_from_name(outcome_name((enum outcome) i)), i);
    for (int i = 0; i < REQUEST_STATE_COUNT; i++)
        assert_int_equal(request_state_from_name(request_state_name((enum request_state) i)), i);
    assert_true(outcome_from_name("canceled") < 0);
    assert_true(request_state_from_name("") < 0);
    assert_null(endpoint_name(ENDPOINT_NONE));
}

static void test_result_line(void **state)
{
    (void) state;
    struct request *req = request_create(SOURCE_SPOOL, "r1", "job", 3, "a\"b\n\xff", 1000, 61000);
    assert_non_null(req);
    request_set_state(req, REQUEST_IN_FLIGHT);
    request_set_state(req, REQUEST_DONE);
    req->n = 7;
    req->outcome = OUTCOME_NOT_FOUND;
    req->done_at_ms = 1042;
    req->http_status = 404;
    req->attempts = 2;
    req->endpoint = ENDPOINT_JOB;
    assert_int_equal(request_set_text(&req->message, "no such job"), 0);
    assert_int_equal(request_set_text(&req->error_code, "JOB_001"), 0);
    assert_int_equal(request_set_text(&req->error_message, "no such job"), 0);

    struct buf b;
    buf_init(&b, 65536);
    assert_int_equal(request_append_result(&b, req), 0);
    assert_string_equal(
        buf_cstr(&b),
        "{\"n\":7,\"time\":\"1970-01-01T00:00:01.042Z\",\"request_id\":\"r1\",\"job_id\":\"job\","
        "\"outcome\":\"not_found\",\"http_status\":404,\"attempts\":2,\"endpoint\":\"job\","
        "\"job_status\":null,\"source\":\"spool\",\"origin\":\"a\\\"b\\n\xef\xbf\xbd\","
        "\"accepted_at\":\"1970-01-01T00:00:01.000Z\",\"elapsed_ms\":42,\"coalesced_with\":null,"
        "\"message\":\"no such job\",\"error\":{\"code\":\"JOB_001\",\"message\":\"no such job\"}}");
    buf_finish(&b);
    request_destroy(req);
}

static void test_item(void **state)
{
    (void) state;
    struct request *req = request_create(SOURCE_SOCKET, "r1", "job", 3, "uid=0 pid=1", 1000, 61000);
    request_set_state(req, REQUEST_WAITING);
    req->due_at_ms = 2000;
    struct buf b;
    buf_init(&b, 65536);
    assert_int_equal(request_append_item(&b, req, REQUEST_WAITING), 0);
    assert_string_equal(
        buf_cstr(&b),
        "{\"request_id\":\"r1\",\"job_id\":\"job\",\"state\":\"waiting\",\"attempts\":0,"
        "\"accepted_at\":\"1970-01-01T00:00:01.000Z\",\"deadline_at\":\"1970-01-01T00:01:01.000Z\","
        "\"next_attempt_at\":\"1970-01-01T00:00:02.000Z\",\"last_error\":null,"
        "\"source\":\"socket\",\"origin\":\"uid=0 pid=1\"}");
    buf_finish(&b);
    request_destroy(req);
}

/* An offending line may be anything; what is kept of it is text, and not too much. */
static void test_offending_lines(void **state)
{
    (void) state;
    char noise[2000];
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char) (i * 37);
    struct request *req = request_create(SOURCE_SPOOL, "r", noise, sizeof(noise), "f", 0, 0);
    size_t len = strlen(req->job_id);
    assert_true(len > 200 && len <= JOB_ID_MAX);
    for (size_t i = 0; i < len;) {
        size_t n = json_utf8_length(req->job_id + i, len - i);
        assert_true(n > 0);
        i += n;
    }
    request_destroy(req);
}

/* The cut never leaves half a character. */
static void test_texts_are_cut(void **state)
{
    (void) state;
    char text[REQUEST_TEXT_MAX + 100];
    memset(text, 'x', sizeof(text));
    memcpy(text + REQUEST_TEXT_MAX - 1, "\xc3\xa4", 2);
    text[sizeof(text) - 1] = '\0';
    char *field = NULL;
    assert_int_equal(request_set_text(&field, text), 0);
    assert_int_equal(strlen(field), REQUEST_TEXT_MAX - 1);
    assert_int_equal(request_set_text(&field, NULL), 0);
    assert_null(field);
}

/* One that joined when the last attempt was over has no attempt, and so no endpoint of one. */
static void test_what_a_follower_inherits(void **state)
{
    (void) state;
    const struct request leader = {
        .attempts = 2,
        .chain_attempts = 2,
        .endpoint = ENDPOINT_CANCEL,
        .http_status = 404,
    };
    struct request early = { .attempts = 0, .chain_attempts = 1 };
    assert_int_equal(request_inherit(&early, &leader, true), 0);
    assert_int_equal(early.attempts, 1);
    assert_int_equal(early.endpoint, ENDPOINT_CANCEL);

    struct request late = { .attempts = 0, .chain_attempts = 2 };
    assert_int_equal(request_inherit(&late, &leader, true), 0);
    assert_int_equal(late.attempts, 0);
    assert_int_equal(late.endpoint, ENDPOINT_NONE);
    assert_int_equal(late.http_status, 404);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_ids),
        cmocka_unit_test(test_request_ids),
        cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_result_line),
        cmocka_unit_test(test_item),
        cmocka_unit_test(test_offending_lines),
        cmocka_unit_test(test_texts_are_cut),
        cmocka_unit_test(test_what_a_follower_inherits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
