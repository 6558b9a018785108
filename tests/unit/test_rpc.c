/* JSON-RPC 2.0: what a line is, what a call asks for, how answers look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/json.h"
#include "intake/rpc.h"

struct classify_case {
    const char *text;
    enum rpc_form form;
    const char *what; /* for BROKEN */
};

static const struct classify_case classify_cases[] = {
    { "abc", RPC_FORM_LINE, "" },
    { "", RPC_FORM_LINE, "" },
    { "   ", RPC_FORM_LINE, "" },
    { "12", RPC_FORM_LINE, "" },
    { "\"abc\"", RPC_FORM_LINE, "" },
    { "{\"job_id\":\"a\"}", RPC_FORM_LINE, "" },
    { "{}", RPC_FORM_LINE, "" },
    { "{\"method\":\"ping\",\"id\":1}", RPC_FORM_LINE, "" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1}", RPC_FORM_SINGLE, "" },
    { " \t{\"jsonrpc\":null}", RPC_FORM_SINGLE, "" },
    { "[]", RPC_FORM_BATCH, "" },
    { "[1,{}]", RPC_FORM_BATCH, "" },
    { "{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]", RPC_FORM_BROKEN,
      "bad JSON at byte 40: unexpected character" },
    { "[1", RPC_FORM_BROKEN, "bad JSON at byte 3: unexpected end" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2}", RPC_FORM_BROKEN,
      "bad JSON at byte 25: repeated member" },
    { "{\"job_id\":\"\xff\"}", RPC_FORM_BROKEN, "bad JSON at byte 12: not UTF-8" },
};

static void test_classify(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(classify_cases) / sizeof(classify_cases[0]); i++) {
        const struct classify_case *c = &classify_cases[i];
        struct json_object *root = NULL;
        enum rpc_form form;
        struct buf err;
        buf_init(&err, 1000);
        assert_int_equal(rpc_classify(c->text, strlen(c->text), &form, &root, &err), 0);
        if (form != c->form || strcmp(buf_cstr(&err), c->what) != 0)
            fail_msg("'%s': form %d, '%s'", c->text, (int) form, buf_cstr(&err));
        assert_int_equal(root != NULL, form == RPC_FORM_SINGLE || form == RPC_FORM_BATCH);
        json_object_put(root);
        buf_finish(&err);
    }
}

struct call_case {
    const char *text;
    int r;
    const char *method; /* NULL: not looked at */
    const char *id;
    bool notification;
    bool has_params;
    const char *what;
};

#define V "\"jsonrpc\":\"2.0\""
#define BAD_ID "id is not a string, a 64-bit number or null"
#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X250 X50 X50 X50 X50 X50
#define X1000 X250 X250 X250 X250

static const struct call_case call_cases[] = {
    { "{" V ",\"method\":\"ping\",\"id\":1}", 0, "ping", "1", false, false, "" },
    { "{" V ",\"method\":\"ping\"}", 0, "ping", "null", true, false, "" },
    { "{" V ",\"method\":\"ping\",\"id\":null}", 0, "ping", "null", false, false, "" },
    { "{" V ",\"method\":\"x\",\"params\":{\"a\":1},\"id\":\"q\"}", 0, "x", "\"q\"", false, true,
      "" },
    { "{" V ",\"method\":\"x\",\"params\":[],\"id\":-7}", 0, "x", "-7", false, false, "" },
    { "{" V ",\"method\":\"x\",\"params\":{},\"id\":1.50}", 0, "x", "1.50", false, true, "" },
    { "{" V ",\"method\":\"x\",\"id\":9007199254740993}", 0, "x", "9007199254740993", false, false,
      "" },
    { "{" V ",\"method\":\"x\",\"id\":18446744073709551614}", 0, "x", "18446744073709551614", false,
      false, "" },
    { "{" V ",\"method\":\"x\",\"id\":\"a/\\u00e9\\n\\u001b\\u2028\"}", 0, "x",
      "\"a/\xc3\xa9\\n\\u001b\\u2028\"", false, false, "" },
    { "{" V ",\"method\":\"x\",\"id\":\"\"}", 0, "x", "\"\"", false, false, "" },
    { "{" V ",\"method\":\"x\",\"extra\":1,\"id\":1}", 0, "x", "1", false, false, "" },
    { "{" V ",\"method\":\"\",\"id\":1}", 0, "", "1", false, false, "" },

    { "1", RPC_INVALID_REQUEST, NULL, "null", false, false, "not an object" },
    { "[]", RPC_INVALID_REQUEST, NULL, "null", false, false, "not an object" },
    { "null", RPC_INVALID_REQUEST, NULL, "null", false, false, "not an object" },
    { "{\"foo\":\"boo\"}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      "jsonrpc is not \"2.0\"" },
    { "{\"jsonrpc\":\"1.0\",\"method\":\"x\",\"id\":5}", RPC_INVALID_REQUEST, NULL, "5", false,
      false, "jsonrpc is not \"2.0\"" },
    { "{\"jsonrpc\":2.0,\"method\":\"x\"}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      "jsonrpc is not \"2.0\"" },
    { "{" V ",\"id\":5}", RPC_INVALID_REQUEST, NULL, "5", false, false,
      "method is missing or not a string" },
    { "{" V ",\"method\":1,\"params\":\"bar\"}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      "method is missing or not a string" },
    { "{" V ",\"method\":\"x\",\"params\":\"bar\",\"id\":\"i\"}", RPC_INVALID_REQUEST, "x", "\"i\"",
      false, false, "params is not an object" },
    { "{" V ",\"method\":\"x\",\"params\":null}", RPC_INVALID_REQUEST, "x", "null", false, false,
      "params is not an object" },
    { "{" V ",\"method\":\"x\",\"params\":[1],\"id\":1}", RPC_PARAMS, "x", "1", false, false,
      "params are taken by name, as an object" },
    { "{" V ",\"method\":\"x\",\"params\":[1]}", RPC_PARAMS, "x", "null", true, false,
      "params are taken by name, as an object" },
    { "{" V ",\"method\":\"x\",\"id\":{}}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      BAD_ID },
    { "{" V ",\"method\":\"x\",\"id\":[1]}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      BAD_ID },
    { "{" V ",\"method\":\"x\",\"id\":true}", RPC_INVALID_REQUEST, NULL, "null", false, false,
      BAD_ID },
    { "{" V ",\"method\":\"x\",\"id\":99999999999999999999}", RPC_INVALID_REQUEST, NULL, "null",
      false, false, BAD_ID },
    { "{" V ",\"method\":\"x\",\"id\":-99999999999999999999}", RPC_INVALID_REQUEST, NULL, "null",
      false, false, BAD_ID },
    { "{" V ",\"method\":\"x\",\"id\":\"" X1000 "xxxxxxxxxxxxxxxxxxxxxx\"}", 0, "x",
      "\"" X1000 "xxxxxxxxxxxxxxxxxxxxxx\"", false, false, "" },
    { "{" V ",\"method\":\"x\",\"id\":\"" X1000 "xxxxxxxxxxxxxxxxxxxxxxx\"}", RPC_INVALID_REQUEST,
      NULL, "null", false, false, "id is longer than 1024 bytes" },
};

static void test_read_call(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(call_cases) / sizeof(call_cases[0]); i++) {
        const struct call_case *c = &call_cases[i];
        struct json_object *root = NULL;
        assert_int_equal(json_parse(c->text, strlen(c->text), &root, NULL), 0);
        struct rpc_call call;
        struct buf err;
        memset(&call, 'x', sizeof(call));
        buf_init(&err, 1000);
        int r = rpc_read_call(root, &call, &err);
        if (r != c->r || strcmp(buf_cstr(&err), c->what) != 0)
            fail_msg("'%s': %d, '%s'", c->text, r, buf_cstr(&err));
        assert_string_equal(call.id, c->id);
        assert_int_equal(call.notification, c->notification);
        assert_int_equal(call.params != NULL, c->has_params);
        if (c->method != NULL)
            assert_string_equal(call.method, c->method);
        buf_finish(&err);
        json_object_put(root);
    }
}

struct error_case {
    enum rpc_error code;
    const char *message;
    const char *written;
    bool data;
};

static const struct error_case error_cases[] = {
    { RPC_PARSE, "bad JSON", "parse error: bad JSON", false },
    { RPC_INVALID_REQUEST, NULL, "invalid request", false },
    { RPC_METHOD, "'foo'", "method not found: 'foo'", false },
    { RPC_PARAMS, "not a job ID", "params: not a job ID", false },
    { RPC_PARAMS, "params: not a job ID", "params: not a job ID", false },
    { RPC_INTERNAL, "out of memory", "internal error: out of memory", false },
    { RPC_QUEUE_FULL, "1000000 are pending", "queue_full: 1000000 are pending", true },
    { RPC_STORAGE_UNAVAILABLE, "storage_unavailable: \"x\"", "storage_unavailable: \"x\"", true },
    { RPC_PERMISSION_DENIED, "", "permission_denied", true },
    { RPC_SHUTTING_DOWN, NULL, "shutting_down", true },
    { RPC_TOO_MANY_CLIENTS, "1024\n", "too_many_clients: 1024\n", true },
    { RPC_BAD_CONFIGURATION, "a.conf:3: x", "bad_configuration: a.conf:3: x", true },
};

static void assert_error(const char *text, size_t len, const struct error_case *c, const char *id)
{
    struct json_object *root = NULL;
    struct json_object *error = NULL;
    struct json_object *value = NULL;
    assert_null(memchr(text, '\n', len));
    assert_int_equal(json_parse(text, len, &root, NULL), 0);
    assert_true(json_object_object_get_ex(root, "error", &error));
    assert_true(json_object_object_get_ex(error, "code", &value));
    assert_int_equal(json_object_get_int(value), c->code);
    assert_string_equal(json_get_string(error, "message"), c->written);
    assert_int_equal(json_get_string(error, "data") != NULL, c->data);
    assert_int_equal(json_object_object_length(root), id != NULL ? 3 : 1);
    if (id != NULL) {
        assert_string_equal(json_get_string(root, "jsonrpc"), "2.0");
        assert_string_equal(json_get_string(root, "id"), id);
    }
    json_object_put(root);
}

static void test_errors(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof(error_cases) / sizeof(error_cases[0]); i++) {
        const struct error_case *c = &error_cases[i];
        struct buf b;
        buf_init(&b, 10000);
        assert_int_equal(rpc_append_error(&b, "\"i\"", c->code, c->message), 0);
        assert_error(b.data, b.len, c, "i");
        buf_clear(&b);
        assert_int_equal(rpc_append_line_error(&b, c->code, c->message), 0);
        assert_error(b.data, b.len, c, NULL);
        buf_finish(&b);
    }
}

static void test_answers(void **state)
{
    (void) state;
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(rpc_append_result(&b, "7", "{\"a\":1}", 7), 0);
    assert_string_equal(buf_cstr(&b), "{\"jsonrpc\":\"2.0\",\"result\":{\"a\":1},\"id\":7}");
    buf_clear(&b);
    assert_int_equal(rpc_append_notification(&b, "outcome", "{}", 2), 0);
    assert_string_equal(buf_cstr(&b), "{\"jsonrpc\":\"2.0\",\"method\":\"outcome\",\"params\":{}}");
    buf_finish(&b);
}

/* An answer that does not fit leaves nothing behind. */
static void test_answers_whole(void **state)
{
    (void) state;
    for (size_t max = 1; max < 60; max++) {
        struct buf b;
        buf_init(&b, max);
        assert_int_equal(buf_append_char(&b, 'x'), 0);
        assert_int_equal(rpc_append_error(&b, "1", RPC_QUEUE_FULL, "full"), -ENOBUFS);
        assert_int_equal(b.len, 1);
        assert_int_equal(rpc_append_line_error(&b, RPC_QUEUE_FULL, "full"), -ENOBUFS);
        assert_int_equal(b.len, 1);
        int r = rpc_append_result(&b, "1", "[]", 2);
        assert_int_equal(b.len, r < 0 ? 1 : 37);
        buf_finish(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classify),      cmocka_unit_test(test_read_call),
        cmocka_unit_test(test_errors),        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_answers_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
