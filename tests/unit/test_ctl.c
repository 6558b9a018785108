/* The client's pure parts: times, texts, answers, the progress bar, rates and curves. */
#include <errno.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ctl/call.h"
#include "ctl/output.h"
#include "ctl/progress.h"
#include "ctl/top_model.h"
#include "ctl/when.h"
#include "ctl/window.h"

/* --- Times --- */

#define NOW INT64_C(1772366400000) /* 2026-03-01T12:00:00Z */

static void assert_when(const char *text, const char *expected)
{
    int64_t ms;
    char shown[CLOCK_TEXT_MAX];
    if (when_parse(text, NOW, &ms) < 0)
        fail_msg("'%s' is no time", text);
    clock_format(ms, shown);
    assert_string_equal(shown, expected);
}

static void test_when(void **state)
{
    (void) state;
    (void) setenv("TZ", "Europe/Berlin", 1);
    tzset();
    assert_when("2026-03-01T12:00:00.042Z", "2026-03-01T12:00:00.042Z");
    assert_when("2026-03-01T12:00:00.0421Z", "2026-03-01T12:00:00.042Z");
    assert_when("2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00.500Z");
    assert_when("2026-03-01 12:00Z", "2026-03-01T12:00:00.000Z");
    assert_when("2026-03-01T12:00:00+05:30", "2026-03-01T06:30:00.000Z");
    assert_when("2026-03-01T12:00:00-01:00", "2026-03-01T13:00:00.000Z");
    assert_when("2026-03-01 12:00:30", "2026-03-01T11:00:30.000Z");
    assert_when("2026-07-01 12:00", "2026-07-01T10:00:00.000Z");
    assert_when("2026-03-01", "2026-02-28T23:00:00.000Z");
    assert_when("now", "2026-03-01T12:00:00.000Z");
    assert_when("today", "2026-02-28T23:00:00.000Z");
    assert_when("yesterday", "2026-02-27T23:00:00.000Z");
    assert_when("90s", "2026-03-01T11:58:30.000Z");
    assert_when("15m", "2026-03-01T11:45:00.000Z");
    assert_when("2h", "2026-03-01T10:00:00.000Z");
    assert_when("1d", "2026-02-28T12:00:00.000Z");
    assert_when("1w", "2026-02-22T12:00:00.000Z");
}

static void test_when_bad(void **state)
{
    static const char *const bad[] = {
        "",
        "soon",
        "5",
        "s",
        "-1h",
        "1h30m",
        "1x",
        "2026",
        "2026-3-1",
        "2026-02-30",
        "2026-13-01",
        "2026-00-01",
        "2026-03-01T",
        "2026-03-01 1",
        "2026-03-01T25:00Z",
        "2026-03-01T12:60Z",
        "2026-03-01T12:00:00.Z",
        "2026-03-01T12:00+1",
        "2026-03-01T12:00Zx",
        "99999999999999999999d",
        "2026-03-01x",
    };
    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t ms;
        if (when_parse(bad[i], NOW, &ms) != -EINVAL)
            fail_msg("'%s' is taken for a time", bad[i]);
    }
}

/* --- Texts --- */

static void assert_text(const char *text, size_t max_width, const char *expected, size_t width)
{
    struct buf b;
    buf_init(&b, 4096);
    assert_int_equal(output_append_text(&b, text, max_width), width);
    assert_string_equal(buf_cstr(&b), expected);
    buf_finish(&b);
}

static void test_text(void **state)
{
    (void) state;
    assert_non_null(setlocale(LC_ALL, "C.UTF-8"));
    assert_text("", 0, "", 0);
    assert_text("a\x1b[31mb\x7f\n", 0, "a?[31mb??", 9);
    assert_text("\xc2\x9b é 日本", 0, "? é 日本", 8);
    assert_text("\xff\xc3", 0, "??", 2);
    assert_text("abcdef", 6, "abcdef", 6);
    assert_text("abcdefg", 6, "abcde~", 6);
    assert_text("日本語", 6, "日本語", 6);
    assert_text("日本語x", 6, "日本~", 5);
    assert_text("\x1b\x1b\x1b", 2, "?~", 2);
    assert_non_null(setlocale(LC_ALL, "C"));
    assert_text("é日", 0, "??", 2);
    assert_non_null(setlocale(LC_ALL, "C.UTF-8"));
}

static void test_numbers(void **state)
{
    char text[OUTPUT_COUNT_MAX];
    (void) state;
    assert_string_equal(output_count(0, text), "0");
    assert_string_equal(output_count(999, text), "999");
    assert_string_equal(output_count(1000, text), "1,000");
    assert_string_equal(output_count(-1234567, text), "-1,234,567");
    assert_string_equal(output_count(INT64_MAX, text), "9,223,372,036,854,775,807");
    assert_string_equal(output_span(59, text), "00:00:59");
    assert_string_equal(output_span(93784, text), "1d 02:03:04");
}

/* --- Answers --- */

static void assert_answer(const char *line, const char *text)
{
    struct answer a;
    assert_int_equal(answer_parse(line, strlen(line), &a), 0);
    assert_int_equal(a.text_len, strlen(text));
    assert_memory_equal(a.text, text, a.text_len);
    answer_finish(&a);
}

/* What --json prints is the text as it came. */
static void test_answer_text(void **state)
{
    (void) state;
    assert_answer("{\"jsonrpc\":\"2.0\",\"result\":{\"a\": [1,{\"b\":2}]},\"id\":1}",
                  "{\"a\": [1,{\"b\":2}]}");
    assert_answer("{\"id\":1,\"result\":\"},\\\"result\\\":\",\"jsonrpc\":\"2.0\"}",
                  "\"},\\\"result\\\":\"");
    assert_answer(" { \"result\" : [ ] , \"id\" : 1 }", "[ ] ");
    assert_answer("{\"results\":1,\"result\":2}", "2");
    assert_answer("{\"error\":{\"code\":-1,\"message\":\"a:b\"},\"id\":null}",
                  "{\"code\":-1,\"message\":\"a:b\"}");
    assert_answer("{\"method\":\"outcome\",\"params\":{\"n\":1}}", "{\"n\":1}");
}

static void test_answer(void **state)
{
    static const char line[] =
        "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32001,\"message\":\"queue_full\"},\"id\":7}";
    struct answer a;
    (void) state;
    assert_int_equal(answer_parse(line, strlen(line), &a), 0);
    assert_int_equal(a.id, 7);
    assert_int_equal(answer_error_code(&a), CALL_QUEUE_FULL);
    assert_null(a.result);
    answer_finish(&a);
    assert_int_equal(answer_parse("[1]", 3, &a), -EINVAL);
    assert_int_equal(answer_parse("{", 1, &a), -EINVAL);
    assert_int_equal(answer_parse("", 0, &a), -EINVAL);
}

/* --- The bar --- */

static void assert_bar(const struct progress *p, int columns, const char *expected)
{
    struct buf b;
    buf_init(&b, 4096);
    progress_append(&b, p, columns, 10000);
    assert_string_equal(buf_cstr(&b), expected);
    buf_finish(&b);
}

static void test_progress(void **state)
{
    struct progress p = { .total = 40, .bad_name = "not cancelled" };
    (void) state;
    assert_bar(&p, 40, "[>                        ]   0% 0 of 40");
    p.done = 10;
    assert_bar(&p, 60, "[######>                 ]  25% 10 of 40, 1/s, 00:00:30 left");
    p.done = 40;
    p.bad = 2;
    assert_bar(&p, 60, "[######################] 100% 40 of 40, 2 not cancelled, 4/s");
    /* Too narrow for a bar, then for the numbers. */
    assert_bar(&p, 40, "40 of 40, 2 not cancelled, 4/s");
    assert_bar(&p, 10, "40 of 40, ");
    p.total = -1;
    assert_bar(&p, 60, "40, 2 not cancelled, 4/s");
}

/* --- top --- */

static void take(struct top_model *m, const char *text, int64_t now_ms)
{
    struct json_object *stats = json_tokener_parse(text);
    assert_non_null(stats);
    top_model_take_stats(m, stats, now_ms);
}

static void assert_spark(const struct top_model *m, enum top_series series, size_t width,
                         bool unicode, const char *expected)
{
    struct buf b;
    buf_init(&b, 8192);
    top_model_append_spark(&b, m, series, width, unicode);
    assert_string_equal(buf_cstr(&b), expected);
    buf_finish(&b);
}

static void test_rates(void **state)
{
    struct top_model m;
    (void) state;
    top_model_init(&m);
    take(&m,
         "{\"pid\":1,\"uptime_s\":10,\"results\":{\"cancelled\":50,\"failed\":5},"
         "\"pending\":{\"queued\":3,\"waiting\":4,\"in_flight\":2}}",
         1000);
    assert_true(top_model_now(&m, TOP_CANCELLED) == 0); /* nothing to compare with */
    assert_true(top_model_average(&m, TOP_CANCELLED) == 5);
    assert_true(top_model_now(&m, TOP_BACKLOG) == 7);
    assert_true(top_model_now(&m, TOP_IN_FLIGHT) == 2);
    take(&m, "{\"pid\":1,\"uptime_s\":12,\"results\":{\"cancelled\":90,\"failed\":6}}", 3000);
    assert_true(top_model_now(&m, TOP_CANCELLED) == 20);
    assert_true(top_model_now(&m, TOP_OTHERS) == 0.5);
    /* Another daemon counts from its own beginning. */
    take(&m, "{\"pid\":2,\"uptime_s\":1,\"results\":{\"cancelled\":9}}", 4000);
    assert_true(top_model_now(&m, TOP_CANCELLED) == 0);
    assert_spark(&m, TOP_CANCELLED, 5, false, "   @ ");
    top_model_finish(&m);
}

static void test_sparks(void **state)
{
    struct top_model m;
    char text[96];
    (void) state;
    top_model_init(&m);
    assert_spark(&m, TOP_BACKLOG, 3, true, "   ");
    for (int i = 0; i <= 8; i++) {
        (void) snprintf(text, sizeof(text), "{\"pid\":1,\"pending\":{\"queued\":%d}}", i * 1000);
        take(&m, text, i * 1000);
    }
    assert_spark(&m, TOP_BACKLOG, 9, true, " ▁▂▃▄▅▆▇█");
    assert_spark(&m, TOP_BACKLOG, 9, false, " .:-=+*#@");
    assert_spark(&m, TOP_BACKLOG, 2, false, "#@");
    /* Little beside much is not nothing. */
    take(&m, "{\"pid\":1,\"pending\":{\"queued\":1}}", 9000);
    assert_spark(&m, TOP_BACKLOG, 3, false, "#@.");
    /* A ring: the oldest are gone. */
    for (int i = 0; i < 2 * TOP_SAMPLES; i++)
        take(&m, "{\"pid\":1,\"pending\":{\"queued\":1}}", 10000 + i * 1000);
    assert_spark(&m, TOP_BACKLOG, 3, false, "@@@");
    top_model_finish(&m);
}

static void test_failures(void **state)
{
    struct top_model m;
    char text[96];
    (void) state;
    top_model_init(&m);
    top_model_take_result(&m, json_tokener_parse("{\"outcome\":\"cancelled\"}"));
    assert_int_equal(m.n_failures, 0);
    for (int i = 0; i < TOP_FAILURES + 5; i++) {
        (void) snprintf(text, sizeof(text), "{\"outcome\":\"failed\",\"n\":%d}", i);
        top_model_take_result(&m, json_tokener_parse(text));
    }
    assert_int_equal(m.n_failures, TOP_FAILURES + 5);
    assert_int_equal(json_object_get_int(json_object_object_get(m.failures[4], "n")),
                     TOP_FAILURES + 4);
    assert_int_equal(json_object_get_int(json_object_object_get(m.failures[5], "n")), 5);
    top_model_finish(&m);
}

/* --- The window --- */

static void add(struct window *w, const char *job)
{
    struct input_line line = { .number = 1 };
    (void) strcpy(line.line.job_id, job);
    (void) strcpy(line.line.request_id, "r");
    assert_int_equal(window_add(w, &line), 0);
}

/* The jobs of the calls in the connection's buffer, which is then emptied. */
static void assert_sent(struct window *w, const char *jobs)
{
    struct connection c;
    char found[64] = "";
    connection_init(&c);
    assert_int_equal(window_send(w, &c), 0);
    const char *at = buf_cstr(&c.out);
    while ((at = strstr(at, "\"job_id\":\"")) != NULL) {
        at += 10;
        (void) strncat(found, at, 1);
    }
    assert_string_equal(found, jobs);
    connection_close(&c);
}

static int64_t id_of(const struct window *w, const char *job)
{
    for (size_t i = 0; i < w->size; i++)
        if (w->slots[i].list != NULL && strcmp(w->slots[i].job_id, job) == 0)
            return (int64_t) i;
    return -1;
}

static void test_window(void **state)
{
    struct window w;
    (void) state;
    assert_int_equal(window_init(&w, 4, true), 0);
    add(&w, "a");
    add(&w, "b");
    add(&w, "c");
    assert_sent(&w, "abc");
    assert_sent(&w, "");
    add(&w, "d");
    assert_true(window_full(&w));
    assert_int_equal(window_count_sent(&w, 1), 2);

    window_done(&w, window_find(&w, id_of(&w, "b")));
    assert_false(window_full(&w));
    /* Answers to what was not asked. */
    assert_null(window_find(&w, id_of(&w, "d")));
    assert_null(window_find(&w, -1));
    assert_null(window_find(&w, 4));

    /* A postponed one goes before what is new; after a lost connection all go again. */
    window_postpone(&w, window_find(&w, id_of(&w, "c")));
    assert_null(window_find(&w, id_of(&w, "c")));
    window_repeat(&w, false);
    assert_sent(&w, "cd");
    window_repeat(&w, true);
    assert_sent(&w, "acd");
    window_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_when),        cmocka_unit_test(test_when_bad),
        cmocka_unit_test(test_text),        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_answer_text), cmocka_unit_test(test_answer),
        cmocka_unit_test(test_progress),    cmocka_unit_test(test_rates),
        cmocka_unit_test(test_sparks),      cmocka_unit_test(test_failures),
        cmocka_unit_test(test_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
