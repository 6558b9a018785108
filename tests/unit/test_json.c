/* The strict JSON scanner, the tree behind it, and the writing of strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/json.h"

/* A text with its length, so that it may hold a NUL. */
#define TEXT(s) .text = (s), .len = sizeof(s) - 1

struct check_case {
    const char *text;
    size_t len;
    const char *what; /* NULL = good */
    size_t offset;
};

static const struct check_case check_cases[] = {
    { TEXT("{}") },
    { TEXT("[]") },
    { TEXT(" \t\r\n{ \"a\" : [ 1 , 2 ] } \n") },
    { TEXT("null") },
    { TEXT("true") },
    { TEXT("12") },
    { TEXT("-0.5e+10") },
    { TEXT("0") },
    { TEXT("1E-5") },
    { TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"") },
    { TEXT("\"\\ud83d\\ude00\"") },
    { TEXT("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"") },
    { TEXT("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":2}]}") },
    { TEXT("{\"a\":1,\"A\":2,\"\":3}") },
    { TEXT("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]") },
    { TEXT("99999999999999999999999999") },

    { TEXT(""), "unexpected end", 0 },
    { TEXT("  "), "unexpected end", 2 },
    { TEXT("{"), "unexpected end", 1 },
    { TEXT("{\"a\""), "unexpected end", 4 },
    { TEXT("{\"a\":"), "unexpected end", 5 },
    { TEXT("{\"a\":1"), "unexpected end", 6 },
    { TEXT("[1,"), "unexpected end", 3 },
    { TEXT("\"abc"), "unexpected end", 4 },
    { TEXT("\"abc\\"), "bad escape in a string", 5 },
    { TEXT("-"), "unexpected end", 1 },
    { TEXT("1."), "unexpected end", 2 },
    { TEXT("1e"), "unexpected end", 2 },
    { TEXT("tru"), "unexpected end", 3 },
    { TEXT("trux"), "unexpected character", 3 },
    { TEXT("{\"a\":1,}"), "unexpected character", 7 },
    { TEXT("[1,]"), "unexpected character", 3 },
    { TEXT("[1 2]"), "unexpected character", 3 },
    { TEXT("{a:1}"), "unexpected character", 1 },
    { TEXT("{'a':1}"), "unexpected character", 1 },
    { TEXT("{1:1}"), "unexpected character", 1 },
    { TEXT("[1}"), "unexpected character", 2 },
    { TEXT("NaN"), "unexpected character", 0 },
    { TEXT("Infinity"), "unexpected character", 0 },
    { TEXT("-Infinity"), "unexpected character", 1 },
    { TEXT("TRUE"), "unexpected character", 0 },
    { TEXT("+1"), "unexpected character", 0 },
    { TEXT(".5"), "unexpected character", 0 },
    { TEXT("01"), "text after the value", 1 },
    { TEXT("-01"), "text after the value", 2 },
    { TEXT("0x10"), "text after the value", 1 },
    { TEXT("1.e5"), "unexpected character", 2 },
    { TEXT("// x\n1"), "unexpected character", 0 },
    { TEXT("\xef\xbb\xbf{}"), "unexpected character", 0 },
    { TEXT("{} {}"), "text after the value", 3 },
    { TEXT("{}\0"), "text after the value", 2 },
    { TEXT("{\0}"), "unexpected character", 1 },
    { TEXT("nullx"), "text after the value", 4 },

    { TEXT("\"a\0b\""), "control character in a string", 2 },
    { TEXT("\"a\nb\""), "control character in a string", 2 },
    { TEXT("\"a\x1f\""), "control character in a string", 2 },
    { TEXT("\"\\x41\""), "bad escape in a string", 2 },
    { TEXT("\"\\'\""), "bad escape in a string", 2 },
    { TEXT("\"\\u12g4\""), "bad escape in a string", 5 },
    { TEXT("\"\\u12"), "bad escape in a string", 5 },
    { TEXT("\"ab\\u0000\""), "U+0000 in a string", 3 },
    { TEXT("{\"\\u0000\":1}"), "U+0000 in a string", 2 },
    { TEXT("\"\\ud83d\""), "half a surrogate pair in a string", 1 },
    { TEXT("\"\\ud83d\\n\""), "half a surrogate pair in a string", 1 },
    { TEXT("\"\\ud83d\\ud83d\""), "half a surrogate pair in a string", 1 },
    { TEXT("\"\\ude00\""), "half a surrogate pair in a string", 1 },
    { TEXT("\"\\ud83d\\u\""), "bad escape in a string", 9 },

    { TEXT("\"\xff\""), "not UTF-8", 1 },
    { TEXT("\"a\xc3\""), "not UTF-8", 2 },
    { TEXT("\"\xc3"), "not UTF-8", 1 },
    { TEXT("\"\xc0\xaf\""), "not UTF-8", 1 },
    { TEXT("\"\xc0\x80\""), "not UTF-8", 1 },
    { TEXT("\"\xe0\x80\xaf\""), "not UTF-8", 1 },
    { TEXT("\"\xf0\x80\x80\xaf\""), "not UTF-8", 1 },
    { TEXT("\"\xed\xa0\x80\""), "not UTF-8", 1 },
    { TEXT("\"\xf4\x90\x80\x80\""), "not UTF-8", 1 },
    { TEXT("\"\xf5\x80\x80\x80\""), "not UTF-8", 1 },
    { TEXT("\"\x80\""), "not UTF-8", 1 },

    { TEXT("{\"a\":1,\"a\":1}"), "repeated member", 7 },
    { TEXT("{\"a\":1,\"b\":2,\"\\u0061\":3}"), "repeated member", 13 },
    { TEXT("{\"\xc3\xa9\":1,\"\\u00e9\":2}"), "repeated member", 8 },
    { TEXT("{\"\xe2\x82\xac\":1,\"\\u20AC\":2}"), "repeated member", 9 },
    { TEXT("{\"\xf0\x9f\x98\x80\":1,\"\\ud83d\\ude00\":2}"), "repeated member", 10 },
    { TEXT("{\"\":1,\"\":2}"), "repeated member", 6 },
    { TEXT("[{\"b\":1,\"x\":{\"b\":1,\"b\":2}}]"), "repeated member", 19 },
    { TEXT("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]"), "too deeply nested", 16 },
};

/* Parsed from a copy without a byte to spare, for a sanitizer to see reads beyond the end. */
static int parse_exact(const struct check_case *c, struct json_object **ret,
                       struct json_fault *reterr_fault)
{
    char *copy = malloc(c->len > 0 ? c->len : 1);
    assert_non_null(copy);
    memcpy(copy, c->text, c->len);
    int r = json_parse(copy, c->len, ret, reterr_fault);
    free(copy);
    return r;
}

static void test_check(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(check_cases) / sizeof(check_cases[0]); i++) {
        const struct check_case *c = &check_cases[i];
        struct json_object *root = NULL;
        struct json_fault fault = { 0 };
        int r = parse_exact(c, &root, &fault);
        json_object_put(root);

        if (c->what == NULL) {
            if (r != 0)
                fail_msg("'%s' was refused at %zu: %s", c->text, fault.offset, fault.what);
            continue;
        }
        if (r != -EINVAL || strcmp(fault.what, c->what) != 0 || fault.offset != c->offset)
            fail_msg("'%s': %d, '%s' at %zu instead of '%s' at %zu", c->text, r,
                     fault.what != NULL ? fault.what : "(none)", fault.offset, c->what, c->offset);
        assert_int_equal(json_check(c->text, c->len, NULL), -EINVAL);
    }
}

/* No prefix of a document but the whole is one. */
static void test_every_prefix_is_refused(void **state)
{
    (void) state;
    static const char text[] = "{\"a\":[1,-2.5e3,true,null,\"x\\u00e9\xc3\xa9\"],\"b\":{\"c\":{}}}";
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        assert_int_equal(json_check(text, len, NULL), -EINVAL);
    assert_int_equal(json_check(text, sizeof(text) - 1, NULL), 0);
}

/* An attacker's megabyte of members takes sorting, not comparing each with each. */
static void test_many_members(void **state)
{
    (void) state;
    enum { MEMBERS = 100000 };
    struct buf b;
    buf_init(&b, 4 * 1024 * 1024);
    assert_int_equal(buf_append_char(&b, '{'), 0);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(buf_printf(&b, "\"m%d\":%d,", i, i), 0);
    size_t last = b.len;

    assert_int_equal(buf_append_str(&b, "\"z\":0}"), 0);
    assert_int_equal(json_check(b.data, b.len, NULL), 0);

    struct json_fault fault;
    b.len = last;
    assert_int_equal(buf_append_str(&b, "\"m5\":0}"), 0);
    assert_int_equal(json_check(b.data, b.len, &fault), -EINVAL);
    assert_string_equal(fault.what, "repeated member");
    assert_int_equal(fault.offset, last);
    buf_finish(&b);
}

static void test_deep_nesting_is_cheap(void **state)
{
    (void) state;
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    struct json_fault fault;
    assert_int_equal(json_check(text, DEPTH, &fault), -EINVAL);
    assert_int_equal(fault.offset, JSON_MAX_DEPTH);
    free(text);
}

static void test_tree(void **state)
{
    (void) state;
    static const char text[] = "{\"s\":\"x\\u00e9\",\"n\":12,\"o\":{\"s\":\"y\"},\"null\":null}";
    struct json_object *root = NULL;
    assert_int_equal(json_parse(text, sizeof(text) - 1, &root, NULL), 0);
    assert_string_equal(json_get_string(root, "s"), "x\xc3\xa9");
    assert_null(json_get_string(root, "n"));
    assert_null(json_get_string(root, "null"));
    assert_null(json_get_string(root, "missing"));
    assert_null(json_get_string(NULL, "s"));

    struct json_object *inner = NULL;
    assert_true(json_object_object_get_ex(root, "o", &inner));
    assert_string_equal(json_get_string(inner, "s"), "y");
    json_object_put(root);

    root = (struct json_object *) &text;
    assert_int_equal(json_parse("null", 4, &root, NULL), 0);
    assert_null(root);
    assert_int_equal(json_parse("-12", 3, &root, NULL), 0);
    assert_int_equal(json_object_get_int64(root), -12);
    json_object_put(root);
    assert_int_equal(json_parse(" \"a\" ", 5, &root, NULL), 0);
    assert_string_equal(json_object_get_string(root), "a");
    json_object_put(root);
}

struct string_case {
    const char *text;
    size_t len;
    const char *json;
};

static const struct string_case string_cases[] = {
    { TEXT(""), "\"\"" },
    { TEXT("abc/é"), "\"abc/é\"" },
    { TEXT("\"\\"), "\"\\\"\\\\\"" },
    { TEXT("a\nb\r\t\b\f"), "\"a\\nb\\r\\t\\b\\f\"" },
    { TEXT("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\\u007f\"" },
    { TEXT("\x1b[2J"), "\"\\u001b[2J\"" },
    { TEXT("\xc2\x80\xc2\x9b\xc2\xa0"), "\"\\u0080\\u009b\xc2\xa0\"" },
    { TEXT("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xa7"), "\"\\u2028\\u2029\xe2\x80\xa7\"" },
    { TEXT("a\xff"
           "b\xc3"),
      "\"a\xef\xbf\xbd"
      "b\xef\xbf\xbd\"" },
    { TEXT("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
    { TEXT("\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\"" },
};

static void test_append_string(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(string_cases) / sizeof(string_cases[0]); i++) {
        const struct string_case *c = &string_cases[i];
        struct buf b;
        buf_init(&b, 1000);
        assert_int_equal(json_append_string(&b, c->text, c->len), 0);
        assert_string_equal(buf_cstr(&b), c->json);
        if (memchr(c->text, '\0', c->len) == NULL)
            assert_int_equal(json_check(b.data, b.len, NULL), 0);

        /* Whatever the room, all of it or nothing. */
        size_t whole = b.len;
        buf_finish(&b);
        for (size_t max = 0; max <= whole; max++) {
            buf_init(&b, max);
            int r = json_append_string(&b, c->text, c->len);
            assert_int_equal(r, max < whole ? -ENOBUFS : 0);
            assert_int_equal(b.len, max < whole ? 0 : whole);
            buf_finish(&b);
        }
    }
}

static void test_append_cstr(void **state)
{
    (void) state;
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(json_append_cstr(&b, NULL), 0);
    assert_int_equal(json_append_cstr(&b, "x"), 0);
    assert_string_equal(buf_cstr(&b), "null\"x\"");
    buf_finish(&b);
}

/* Against the definition: every code point, and nothing else of up to four bytes. */
static void test_utf8_length(void **state)
{
    (void) state;
    size_t good = 0;
    for (uint32_t lead = 0x80; lead < 0x100; lead++)
        for (uint32_t second = 0; second < 0x100; second++)
            for (uint32_t third = 0x70; third < 0xd0; third++) {
                char s[4] = { (char) lead, (char) second, (char) third, (char) 0x80 };
                size_t n = json_utf8_length(s, sizeof(s));
                if (n > 0)
                    assert_int_equal(json_utf8_length(s, n - 1), 0);
                good += n;
            }
    /* Leads times seconds times thirds; E0, ED, F0 and F4 have fewer seconds. */
    size_t two = 30 * 64 * 96;
    size_t three = (16 * 64 - 32 - 32) * 64;
    size_t four = (48 + 3 * 64 + 16) * 64;
    assert_int_equal(good, 2 * two + 3 * three + 4 * four);
    assert_int_equal(json_utf8_length("", 0), 0);
    assert_int_equal(json_utf8_length("\0", 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_many_members), cmocka_unit_test(test_deep_nesting_is_cheap),
        cmocka_unit_test(test_tree),         cmocka_unit_test(test_append_string),
        cmocka_unit_test(test_append_cstr),  cmocka_unit_test(test_utf8_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
