/* Verdicts, delays and paths, each as a table of cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "policy/endpoint.h"
#include "policy/health.h"
#include "policy/retry.h"
#include "policy/verdict.h"

#define KEY "s3cret-key"
#define ENVELOPE "{\"error\":{\"code\":\"JOB_001\",\"message\":\"text\"}}"

static void test_verdicts(void **state)
{
    (void) state;
    static const struct {
        enum transport transport;
        bool sent;
        int status;
        const char *body;
        enum verdict verdict;
        bool counts;
        enum outcome outcome; /* of DONE */
        const char *code;
    } cases[] = {
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a\",\"message\":\"m\"}", VERDICT_DONE, true,
          OUTCOME_CANCELLED, NULL },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a\"}", VERDICT_DONE, true, OUTCOME_CANCELLED,
          NULL },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"b\"}", VERDICT_RETRY, true, 0,
          "job_id_mismatch" },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a\"} {}", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a\",\"job_id\":\"a\"}", VERDICT_RETRY, true, 0,
          "bad_reply" },
        { TRANSPORT_OK, true, 200, "{\"job_id\":7}", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 200, "{\"job_id\":\"a\\u0000\"}", VERDICT_RETRY, true, 0,
          "bad_reply" },
        { TRANSPORT_OK, true, 200, "[]", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 200, "", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 202, "{\"job_id\":\"a\"}", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 204, "", VERDICT_RETRY, true, 0, "bad_reply" },
        { TRANSPORT_OK, true, 302, "", VERDICT_DONE, true, OUTCOME_REJECTED, "http_302" },
        { TRANSPORT_OK, true, 400, ENVELOPE, VERDICT_DONE, true, OUTCOME_REJECTED, "JOB_001" },
        { TRANSPORT_OK, true, 401, ENVELOPE, VERDICT_DONE, true, OUTCOME_UNAUTHORIZED, "JOB_001" },
        { TRANSPORT_OK, true, 403, ENVELOPE, VERDICT_DONE, true, OUTCOME_FORBIDDEN, "JOB_001" },
        { TRANSPORT_OK, true, 404, ENVELOPE, VERDICT_DONE, true, OUTCOME_NOT_FOUND, "JOB_001" },
        { TRANSPORT_OK, true, 404, "gone", VERDICT_DONE, true, OUTCOME_NOT_FOUND, "http_404" },
        { TRANSPORT_OK, true, 408, "", VERDICT_RETRY, true, 0, "http_408" },
        { TRANSPORT_OK, true, 425, "", VERDICT_RETRY, true, 0, "http_425" },
        { TRANSPORT_OK, true, 429, ENVELOPE, VERDICT_RETRY, true, 0, "JOB_001" },
        { TRANSPORT_OK, true, 500, ENVELOPE, VERDICT_RETRY, true, 0, "JOB_001" },
        { TRANSPORT_OK, true, 500, "{\"error\":{\"code\":1,\"message\":\"x\"}}", VERDICT_RETRY,
          true, 0, "http_500" },
        { TRANSPORT_OK, true, 500, "{\"error\":\"x\"}", VERDICT_RETRY, true, 0, "http_500" },
        { TRANSPORT_OK, true, 501, "", VERDICT_DONE, true, OUTCOME_REJECTED, "http_501" },
        { TRANSPORT_OK, true, 599, "", VERDICT_RETRY, true, 0, "http_599" },
        { TRANSPORT_FAILED, false, 0, "", VERDICT_RETRY, false, 0, "transport" },
        { TRANSPORT_FAILED, true, 0, "", VERDICT_RETRY, true, 0, "transport" },
        { TRANSPORT_FAILED, true, 200, "{\"job_id\":\"a\"}", VERDICT_RETRY, true, 0, "transport" },
        { TRANSPORT_TIMEOUT, true, 0, "", VERDICT_RETRY, true, 0, "timeout" },
        { TRANSPORT_TLS, false, 0, "", VERDICT_RETRY, false, 0, "tls" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply reply = {
            .transport = cases[i].transport,
            .sent = cases[i].sent,
            .trouble = "trouble",
            .api_key = KEY,
            .status = cases[i].status,
            .body = cases[i].body,
            .body_len = strlen(cases[i].body),
        };
        struct judgement j;
        assert_int_equal(verdict_judge(&reply, "a", &j), 0);
        assert_int_equal(j.verdict, cases[i].verdict);
        assert_int_equal(j.counts, cases[i].counts);
        assert_int_equal(j.http_status, cases[i].status);
        if (j.verdict == VERDICT_DONE)
            assert_int_equal(j.outcome, cases[i].outcome);
        if (cases[i].code != NULL) {
            assert_string_equal(j.error_code, cases[i].code);
            assert_non_null(j.message);
        } else {
            assert_null(j.error_code);
        }
        judgement_finish(&j);
    }
}

/* A server that echoes its headers must not get the key into our files, nor half of it. */
static void test_the_key_is_masked_before_the_cut(void **state)
{
    (void) state;
    char body[REQUEST_TEXT_MAX + 200];
    char text[REQUEST_TEXT_MAX + 64];
    memset(text, 'x', sizeof(text));
    memcpy(text, KEY, strlen(KEY));
    memcpy(text + REQUEST_TEXT_MAX - 4, KEY, strlen(KEY)); /* across the cut */
    text[sizeof(text) - 1] = '\0';
    int len =
        snprintf(body, sizeof(body), "{\"error\":{\"code\":\"" KEY "\",\"message\":\"%s\"}}", text);
    struct reply reply = { .status = 400, .body = body, .body_len = (size_t) len, .api_key = KEY };
    struct judgement j;
    assert_int_equal(verdict_judge(&reply, "a", &j), 0);
    assert_string_equal(j.error_code, "**********");
    assert_int_equal(strlen(j.message), REQUEST_TEXT_MAX);
    assert_null(strstr(j.message, "s3c"));
    assert_null(strstr(j.error_message, "s3c"));
    judgement_finish(&j);
}

static void test_delays(void **state)
{
    (void) state;
    static const struct {
        int64_t base, max;
        unsigned attempt;
        uint64_t random;
        int64_t retry_after, expected;
    } cases[] = {
        { 1000, 300000, 1, 0, 0, 1 },
        { 1000, 300000, 1, 1000, 0, 1000 },
        { 1000, 300000, 1, 1001, 0, 1 }, /* 0 after the modulo, and at least 1 */
        { 1000, 300000, 4, 8000, 0, 8000 },
        { 1000, 300000, 20, 300000, 0, 300000 },
        { 1000, 300000, 1000, 300000, 0, 300000 }, /* no overflow */
        { 3600000, 86400000, 32, 86400000, 0, 86400000 },
        { 1000, 500, 1, 500, 0, 500 }, /* max below base */
        { 1000, 300000, 1, 0, 7000, 7000 },
        { 1000, 300000, 4, 8000, 7000, 8000 },
        { 1000, 300000, 1, 0, 999999999, 300000 },
        { 1000, 300000, 0, 5, 0, 5 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct retry_policy policy = {
            .base_delay_ms = cases[i].base,
            .max_delay_ms = cases[i].max,
        };
        assert_int_equal(
            retry_delay_ms(&policy, cases[i].attempt, cases[i].random, cases[i].retry_after),
            cases[i].expected);
    }
}

static void test_paths(void **state)
{
    (void) state;
    char path[ENDPOINT_PATH_MAX];
    endpoint_path(ENDPOINT_CANCEL, "aZ0-._~", path);
    assert_string_equal(path, "/cancel/aZ0-._~");
    endpoint_path(ENDPOINT_JOB, "a:b", path);
    assert_string_equal(path, "/job/a%3Ab");
    /* Never sent, and yet: nothing leaves the segment or the line. */
    endpoint_path(ENDPOINT_CANCEL, "../x?y#z%\r\n\xff", path);
    assert_string_equal(path, "/cancel/..%2Fx%3Fy%23z%25%0D%0A%FF");

    char longest[JOB_ID_MAX + 1];
    memset(longest, ':', JOB_ID_MAX);
    longest[JOB_ID_MAX] = '\0';
    endpoint_path(ENDPOINT_CANCEL, longest, path);
    assert_int_equal(strlen(path), strlen("/cancel/") + 3 * JOB_ID_MAX);
}

static void test_health(void **state)
{
    (void) state;
    static const struct {
        enum transport transport;
        int status;
        bool changed;
        enum health_state state;
    } steps[] = {
        { TRANSPORT_OK, 200, false, HEALTH_GOOD },
        { TRANSPORT_FAILED, 0, false, HEALTH_GOOD },
        { TRANSPORT_TIMEOUT, 0, false, HEALTH_GOOD },
        { TRANSPORT_OK, 500, false, HEALTH_GOOD }, /* it answers */
        { TRANSPORT_FAILED, 0, false, HEALTH_GOOD },
        { TRANSPORT_FAILED, 0, false, HEALTH_GOOD },
        { TRANSPORT_FAILED, 0, true, HEALTH_UNREACHABLE },
        { TRANSPORT_TLS, 0, false, HEALTH_UNREACHABLE },
        { TRANSPORT_OK, 404, true, HEALTH_GOOD },
        { TRANSPORT_TLS, 0, true, HEALTH_UNREACHABLE },
        { TRANSPORT_OK, 401, true, HEALTH_GOOD }, /* it answers: the key is another matter */
    };
    struct health health = { .state = HEALTH_GOOD };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct reply reply = { .transport = steps[i].transport, .status = steps[i].status };
        assert_int_equal(health_note(&health, &reply), steps[i].changed);
        assert_int_equal(health.state, steps[i].state);
    }
}

static void test_health_of_a_failing_server(void **state)
{
    (void) state;
    const struct reply failing = { .transport = TRANSPORT_OK, .status = 503 };
    const struct reply good = { .transport = TRANSPORT_OK, .status = 200 };
    const struct reply reset = { .transport = TRANSPORT_FAILED };
    struct health health = { .state = HEALTH_GOOD };
    /* Jobs fail here and there: no news. */
    for (int i = 0; i < 100; i++)
        assert_false(health_note(&health, i % 10 == 9 ? &good : &failing));
    /* All of them do, and a reset between is no sign of life. */
    for (int i = 0; i < 9; i++)
        assert_false(health_note(&health, &failing));
    assert_false(health_note(&health, &reset));
    assert_true(health_note(&health, &failing));
    assert_int_equal(health.state, HEALTH_FAILING);
    assert_false(health_note(&health, &failing));
    assert_true(health_note(&health, &good));
    assert_int_equal(health.state, HEALTH_GOOD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_the_key_is_masked_before_the_cut),
        cmocka_unit_test(test_delays),   cmocka_unit_test(test_paths),
        cmocka_unit_test(test_health),   cmocka_unit_test(test_health_of_a_failing_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
