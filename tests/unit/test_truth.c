/* What an ambiguous API leaves open, and how it is found out: endpoint, verify, key_gate, deprecation,
 * and the strings that are picked from a body that may be cut short. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_peek.h"
#include "policy/deprecation.h"
#include "policy/endpoint.h"
#include "policy/key_gate.h"
#include "policy/verify.h"

#define ENVELOPE "{\"error\":{\"code\":\"JOB_1\",\"message\":\"m\"}}"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct reply make_reply(int status, const char *body)
{
    return (struct reply){
        .transport = status != 0 ? TRANSPORT_OK : TRANSPORT_FAILED,
        .sent = true,
        .trouble = "reset",
        .status = status,
        .body = body,
        .body_len = strlen(body),
        .api_key = "",
    };
}

static struct judgement judge(int status, const char *body)
{
    struct reply reply = make_reply(status, body);
    struct judgement j;
    assert_int_equal(verdict_judge(&reply, "a", &j), 0);
    return j;
}

static void test_kinds_of_replies(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        enum reply_kind kind;
        bool envelope, names_job;
    } cases[] = {
        { 0, "", REPLY_LOST, false, false },
        { 200, "{\"job_id\":\"a\"}", REPLY_BELIEVED, false, true },
        { 202, "{\"job_id\":\"a\"}", REPLY_UNBELIEVED, false, true },
        { 200, "{\"job_id\":\"b\"}", REPLY_UNBELIEVED, false, false },
        { 200, "<html>", REPLY_UNBELIEVED, false, false },
        { 404, ENVELOPE, REPLY_REFUSED, true, false },
        { 404, "{\"error\":{\"code\":1,\"message\":\"m\"}}", REPLY_REFUSED, false, false },
        { 500, "{\"error\":{\"code\":\"c\"}}", REPLY_REFUSED, false, false },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct judgement j = judge(cases[i].status, cases[i].body);
        assert_int_equal(j.kind, cases[i].kind);
        assert_int_equal(j.envelope, cases[i].envelope);
        assert_int_equal(j.names_job, cases[i].names_job);
        struct reply reply = make_reply(cases[i].status, cases[i].body);
        assert_int_equal(verdict_has_envelope(&reply), cases[i].envelope);
        judgement_finish(&j);
    }
    struct reply unsent = make_reply(0, "");
    unsent.sent = false;
    struct judgement j;
    assert_int_equal(verdict_judge(&unsent, "a", &j), 0);
    assert_int_equal(j.kind, REPLY_NONE);
    judgement_finish(&j);
}

static void test_the_first_route(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        bool gone;
    } cases[] = {
        { 404, "", true },        { 404, "<html>", true }, { 404, ENVELOPE, false },
        { 405, "", true },        { 405, ENVELOPE, true }, { 410, "", true },
        { 501, ENVELOPE, true },  { 500, "", false },      { 403, "", false },
        { 301, "", false },       { 400, "", false },      { 200, "{\"job_id\":\"a\"}", false },
        { 200, "<html>", false }, { 0, "", false },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct judgement j = judge(cases[i].status, cases[i].body);
        assert_int_equal(endpoint_may_be_gone(&j), cases[i].gone);
        judgement_finish(&j);
    }
}

static void test_the_second_route(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        enum endpoint_proof proof;
    } cases[] = {
        { 200, "{\"job_id\":\"a\"}", ENDPOINT_GONE },
        { 202, "{\"job_id\":\"a\"}", ENDPOINT_GONE },
        { 200, "{\"job_id\":\"b\"}", ENDPOINT_FAILED },
        { 200, "<html>", ENDPOINT_FAILED },
        { 404, ENVELOPE, ENDPOINT_GONE },
        { 404, "", ENDPOINT_STANDS },
        { 405, "", ENDPOINT_STANDS },
        { 405, ENVELOPE, ENDPOINT_GONE },
        { 403, "", ENDPOINT_STANDS },
        { 401, "", ENDPOINT_FAILED },
        { 301, "", ENDPOINT_STANDS },
        { 500, "", ENDPOINT_FAILED },
        { 500, ENVELOPE, ENDPOINT_GONE },
        { 429, "", ENDPOINT_FAILED },
        { 501, "", ENDPOINT_STANDS },
        { 0, "", ENDPOINT_FAILED },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct judgement j = judge(cases[i].status, cases[i].body);
        assert_int_equal(endpoint_second_answer(&j), cases[i].proof);
        judgement_finish(&j);
    }
}

static void test_when_to_ask(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        struct trail before;
        bool last;
        bool wanted[3]; /* never, ambiguous, always */
    } cases[] = {
        { 200, "{\"job_id\":\"a\"}", { 0 }, false, { false, false, true } },
        { 200, "<html>", { 0 }, false, { false, true, true } },
        { 204, "", { 0 }, false, { false, true, true } },
        { 200, "{\"job_id\":\"b\"}", { 0 }, false, { false, true, true } },
        { 0, "", { 0 }, false, { false, true, true } },
        { 500, "", { 0 }, false, { false, false, true } },
        { 500, "", { .server_errors = 1 }, false, { false, true, true } },
        { 500, "", { .server_errors = 7 }, false, { false, true, true } },
        { 500, "", { 0 }, true, { false, true, true } }, /* `failed` has to be true */
        { 502, "", { .server_errors = 1 }, false, { false, false, true } },
        { 404, ENVELOPE, { 0 }, false, { false, false, true } },
        { 404, ENVELOPE, { .doubtful = true }, false, { false, true, true } },
        { 403, ENVELOPE, { .doubtful = true }, false, { false, false, true } },
        { 401, ENVELOPE, { .doubtful = true }, false, { false, false, false } },
        { 429, "", { .server_errors = 1 }, true, { false, false, false } },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct judgement j = judge(cases[i].status, cases[i].body);
        for (int mode = API_VERIFY_NEVER; mode <= API_VERIFY_ALWAYS; mode++) {
            /* API_VERIFY_NEVER, _AMBIGUOUS and _ALWAYS count from 0. */
            assert_int_equal(
                verify_wanted((enum api_verify) mode, &cases[i].before, &j, cases[i].last),
                cases[i].wanted[mode]);
        }
        judgement_finish(&j);
    }
    struct judgement unsent = { .kind = REPLY_NONE, .verdict = VERDICT_RETRY };
    assert_false(verify_wanted(API_VERIFY_ALWAYS, &(struct trail){ 0 }, &unsent, true));
}

static void test_the_trail(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        struct trail after;
    } steps[] = {
        { 429, "", { 0 } },
        { 500, "", { .doubtful = true, .server_errors = 1 } },
        { 500, "", { .doubtful = true, .server_errors = 2 } },
        { 502, "", { .doubtful = true } },
        { 500, "", { .doubtful = true, .server_errors = 1 } },
        { 0, "", { .doubtful = true } },
        { 200, "{\"job_id\":\"a\"}", { .doubtful = true, .believed = true } },
    };
    struct trail trail = { 0 };
    for (size_t i = 0; i < COUNT(steps); i++) {
        struct judgement j = judge(steps[i].status, steps[i].body);
        verify_note(&trail, &j);
        assert_int_equal(trail.doubtful, steps[i].after.doubtful);
        assert_int_equal(trail.believed, steps[i].after.believed);
        assert_int_equal(trail.server_errors, steps[i].after.server_errors);
        judgement_finish(&j);
    }
    trail = (struct trail){ 0 };
    struct judgement unsent = { .kind = REPLY_NONE };
    verify_note(&trail, &unsent);
    assert_false(trail.doubtful);
}

static void test_what_the_status_says(void **state)
{
    (void) state;
    static const struct {
        int status;
        const char *body;
        bool believed, decided;
        enum outcome outcome;
        const char *job_status;
    } cases[] = {
        { 200, "{\"job_id\":\"a\",\"status\":\"canceled\"}", false, true, OUTCOME_CANCELLED,
          "canceled" },
        { 200, "{\"job_id\":\"a\",\"status\":\"completed\"}", false, true, OUTCOME_TOO_LATE,
          "completed" },
        { 200, "{\"job_id\":\"a\",\"status\":\"failed\"}", false, true, OUTCOME_TOO_LATE,
          "failed" },
        { 200, "{\"job_id\":\"a\",\"status\":\"pending\"}", false, false, 0, "pending" },
        { 200, "{\"job_id\":\"a\",\"status\":\"cancelled\"}", false, false, 0, "cancelled" },
        { 200, "{\"job_id\":\"b\",\"status\":\"canceled\"}", false, false, 0, NULL },
        { 200, "{\"status\":\"canceled\"}", false, false, 0, NULL },
        { 200, "{\"job_id\":\"a\",\"status\":7}", false, false, 0, NULL },
        { 200, "<html>", false, false, 0, NULL },
        { 202, "{\"job_id\":\"a\",\"status\":\"canceled\"}", false, false, 0, NULL },
        { 404, ENVELOPE, false, false, 0, NULL },
        { 404, ENVELOPE, true, true, OUTCOME_CANCELLED, NULL },
        { 404, "", true, false, 0, NULL },
        { 500, ENVELOPE, true, false, 0, NULL },
        { 0, "", true, false, 0, NULL },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct reply reply = make_reply(cases[i].status, cases[i].body);
        struct finding f;
        assert_int_equal(verify_read(&reply, "a", cases[i].believed, &f), 0);
        assert_int_equal(f.decided, cases[i].decided);
        if (f.decided)
            assert_int_equal(f.outcome, cases[i].outcome);
        if (cases[i].job_status != NULL)
            assert_string_equal(f.job_status, cases[i].job_status);
        else
            assert_null(f.job_status);
        free(f.job_status);
    }
    /* Cut short on purpose, or by the connection. */
    struct reply cut =
        make_reply(200, "{\"job_id\":\"a\",\"status\":\"completed\",\"result\":\"xx");
    struct finding f;
    cut.transport = TRANSPORT_FAILED;
    assert_int_equal(verify_read(&cut, "a", false, &f), 0);
    assert_false(f.decided);
    cut.truncated = true;
    assert_int_equal(verify_read(&cut, "a", false, &f), 0);
    assert_true(f.decided);
    free(f.job_status);

    struct reply leaky = make_reply(200, "{\"job_id\":\"a\",\"status\":\"for s3cret\"}");
    leaky.api_key = "s3cret";
    assert_int_equal(verify_read(&leaky, "a", false, &f), 0);
    assert_string_equal(f.job_status, "for ******");
    free(f.job_status);
}

static void test_the_key_gate(void **state)
{
    (void) state;
    struct key_gate g = { 0 };
    assert_true(key_gate_refused(&g, 0, 1000));
    assert_false(key_gate_refused(&g, 0, 1001)); /* others that were in flight */
    key_gate_answered(&g, 0, true);
    assert_true(g.rejected);
    assert_int_equal(g.check_at_ms, 1000); /* at once */
    int64_t now_ms = 1000;
    for (int64_t delay_ms = 1000; delay_ms < 256000 * 2; delay_ms *= 2) {
        key_gate_check_failed(&g, now_ms);
        assert_int_equal(g.check_at_ms - now_ms, delay_ms < 300000 ? delay_ms : 300000);
        now_ms = g.check_at_ms;
    }
    key_gate_check_failed(&g, now_ms);
    assert_int_equal(g.check_at_ms - now_ms, 300000);

    key_gate_resume(&g, false);
    assert_false(g.rejected);
    assert_true(g.proving);
    assert_false(key_gate_refused(&g, 0, now_ms)); /* of before */
    key_gate_answered(&g, 1, false);               /* asked for a status: no proof for the other */
    assert_false(g.proving);
    assert_true(key_gate_refused(&g, 1, now_ms));
    assert_int_equal(g.check_at_ms - now_ms, 300000);

    key_gate_resume(&g, true);
    key_gate_answered(&g, 2, true);
    assert_true(key_gate_refused(&g, 2, now_ms));
    assert_int_equal(g.check_at_ms, now_ms); /* begun anew */

    /* The operator's impatience does not make it slower. */
    for (unsigned epoch = 3; epoch < 6; epoch++) {
        key_gate_resume(&g, false);
        assert_true(key_gate_refused(&g, epoch, now_ms));
        assert_int_equal(g.check_at_ms, now_ms);
    }
    /* A check that is accepted while cancels are not does. */
    for (unsigned epoch = 6; epoch < 9; epoch++) {
        key_gate_resume(&g, true);
        assert_true(key_gate_refused(&g, epoch, now_ms));
        assert_int_equal(g.check_at_ms - now_ms, 1000 << (epoch - 6));
    }
}

static void test_deprecation(void **state)
{
    (void) state;
    static const struct {
        const char *deprecation, *sunset, *text;
    } cases[] = {
        { "@1688169599", NULL, " since 2023-06-30" },
        { NULL, "Sun, 30 Jun 2024 23:59:59 GMT",
          ", to be removed on Sun, 30 Jun 2024 23:59:59 GMT" },
        { "@0", "soon", " since 1970-01-01, to be removed on soon" },
        { "true", NULL, " (Deprecation: true)" },
        { "@", NULL, " (Deprecation: @)" },
        { "@12x", NULL, " (Deprecation: @12x)" },
        { "@99999999999999999999", NULL, " (Deprecation: @99999999999999999999)" },
        { "by s3cret", "for s3cret", " (Deprecation: by ******), to be removed on for ******" },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[DEPRECATION_TEXT_MAX];
        deprecation_describe(cases[i].deprecation, cases[i].sunset, "s3cret", text);
        assert_string_equal(text, cases[i].text);
    }
    char long_text[1000], text[DEPRECATION_TEXT_MAX];
    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    deprecation_describe(long_text, long_text, "", text);
    assert_true(strlen(text) < DEPRECATION_TEXT_MAX);
    /* Masked before it is cut. */
    memcpy(long_text + 60, "s3cret", 6);
    deprecation_describe(long_text, long_text, "s3cret", text);
    assert_null(strstr(text, "s3"));
}

static void test_peeking(void **state)
{
    (void) state;
    static const struct {
        const char *text;
        int r;
        const char *value;
    } cases[] = {
        { "{\"s\":\"x\"}", 0, "x" },
        { " {\"a\":1,\"s\":\"x\"", 0, "x" },
        { "{\"a\":{\"s\":\"no\"},\"b\":[\"s\",\"no\"],\"s\" : \"x\" , \"r\":\"cut", 0, "x" },
        { "{\"a\":\"}\\\"{,\",\"s\":\"x\"}", 0, "x" },
        { "{\"s\":\"\\u00e9\\n\"}", 0, "\xc3\xa9\n" },
        { "{\"s\":\"\"}", 0, "" },
        { "{\"s\":\"x", -ENOENT, NULL }, /* its end is missing */
        { "{\"s\":12}", -ENOENT, NULL },
        { "{\"s\":null,\"t\":1}", -ENOENT, NULL },
        { "{\"t\":\"x\"}", -ENOENT, NULL },
        { "{\"s\":\"x\",\"s\":\"y\"}", -EINVAL, NULL },
        { "{", -ENOENT, NULL },
        { "[\"s\"]", -EINVAL, NULL },
        { "", -EINVAL, NULL },
        { "<html>", -EINVAL, NULL },
        { "{\"s\":\"\xff\"}", -EINVAL, NULL },
        { "{s:\"x\"}", -ENOENT, NULL },
        { "{\"\\", -ENOENT, NULL },
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *value = NULL;
        assert_int_equal(json_peek_string(cases[i].text, strlen(cases[i].text), "s", &value),
                         cases[i].r);
        if (cases[i].value != NULL)
            assert_string_equal(value, cases[i].value);
        else
            assert_null(value);
        free(value);
    }
    /* Every beginning of a text: no answer, or the right one. */
    static const char whole[] = "{\"a\":[1,{\"s\":\"no\"}],\"s\":\"x\",\"b\":\"\\\\\"}";
    for (size_t len = 0; len < sizeof(whole); len++) {
        char *copy = malloc(len + 1); /* for the address sanitizer */
        memcpy(copy, whole, len);
        char *value = NULL;
        if (json_peek_string(copy, len, "s", &value) == 0)
            assert_string_equal(value, "x");
        free(value);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_of_replies), cmocka_unit_test(test_the_first_route),
        cmocka_unit_test(test_the_second_route), cmocka_unit_test(test_when_to_ask),
        cmocka_unit_test(test_the_trail),        cmocka_unit_test(test_what_the_status_says),
        cmocka_unit_test(test_the_key_gate),     cmocka_unit_test(test_deprecation),
        cmocka_unit_test(test_peeking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
