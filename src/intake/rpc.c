/* JSON-RPC 2.0: bytes to calls, and results to answers. Any thread. */
#include "intake/rpc.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/json.h"

int rpc_classify(const char *text, size_t len, enum rpc_form *ret_form,
                 struct json_object **ret_root, struct buf *reterr)
{
    size_t start = 0;
    while (start < len && (text[start] == ' ' || text[start] == '\t' || text[start] == '\r'))
        start++;

    *ret_root = NULL;
    *ret_form = RPC_FORM_LINE;
    if (start == len || (text[start] != '{' && text[start] != '['))
        return 0;

    struct json_object *root = NULL;
    struct json_fault fault;
    int r = json_parse(text, len, &root, &fault);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        (void) buf_printf(reterr, "bad JSON at byte %zu: %s", fault.offset + 1, fault.what);
        *ret_form = RPC_FORM_BROKEN;
        return 0;
    }

    if (json_object_is_type(root, json_type_array)) {
        *ret_form = RPC_FORM_BATCH;
    } else if (json_object_object_get_ex(root, "jsonrpc", NULL)) {
        *ret_form = RPC_FORM_SINGLE;
    } else {
        json_object_put(root);
        root = NULL;
    }
    *ret_root = root;
    return 0;
}

static int refuse(struct buf *reterr, enum rpc_error code, const char *what)
{
    (void) buf_append_str(reterr, what);
    return code;
}

/* json-c stops at the ends of its integers, and an answer with another id is worse than none. */
static bool saturated(struct json_object *number)
{
    return json_object_is_type(number, json_type_int) &&
           (json_object_get_uint64(number) == UINT64_MAX ||
            json_object_get_int64(number) == INT64_MIN);
}

static int read_id(struct json_object *value, struct rpc_call *call, struct buf *reterr)
{
    if (value == NULL)
        return 0; /* a null id is an id: answered, as null */

    struct buf text;
    int r = 0;
    buf_init(&text, sizeof(call->id) - 1);
    if (json_object_is_type(value, json_type_string)) {
        r = json_append_string(&text, json_object_get_string(value),
                               (size_t) json_object_get_string_len(value));
    } else if ((json_object_is_type(value, json_type_int) && !saturated(value)) ||
               json_object_is_type(value, json_type_double)) {
        /* For a double, json-c has kept the client's own digits. */
        const char *number = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN);
        r = number != NULL ? buf_append_str(&text, number) : -ENOMEM;
    } else {
        return refuse(reterr, RPC_INVALID_REQUEST, "id is not a string, a 64-bit number or null");
    }

    if (r == 0) {
        memcpy(call->id, text.data, text.len);
        call->id[text.len] = '\0';
    }
    buf_finish(&text);
    if (r == -ENOMEM)
        return refuse(reterr, RPC_INTERNAL, "out of memory");
    if (r == 0)
        return 0;
    (void) buf_printf(reterr, "id is longer than %d bytes", RPC_ID_MAX);
    return RPC_INVALID_REQUEST;
}

static int read_params(struct json_object *object, struct rpc_call *call, struct buf *reterr)
{
    struct json_object *params;
    if (!json_object_object_get_ex(object, "params", &params))
        return 0;
    if (json_object_is_type(params, json_type_object)) {
        call->params = params;
        return 0;
    }
    if (!json_object_is_type(params, json_type_array)) {
        call->notification = false;
        return refuse(reterr, RPC_INVALID_REQUEST, "params is not an object");
    }
    /* Nothing by position is nothing by name. */
    if (json_object_array_length(params) == 0)
        return 0;
    return refuse(reterr, RPC_PARAMS, "params are taken by name, as an object");
}

int rpc_read_call(struct json_object *value, struct rpc_call *ret, struct buf *reterr)
{
    *ret = (struct rpc_call){ .id = "null" };

    if (!json_object_is_type(value, json_type_object))
        return refuse(reterr, RPC_INVALID_REQUEST, "not an object");

    struct json_object *id = NULL;
    bool has_id = json_object_object_get_ex(value, "id", &id);
    int r = read_id(id, ret, reterr);
    if (r != 0)
        return r;

    const char *version = json_get_string(value, "jsonrpc");
    if (version == NULL || strcmp(version, "2.0") != 0)
        return refuse(reterr, RPC_INVALID_REQUEST, "jsonrpc is not \"2.0\"");
    ret->method = json_get_string(value, "method");
    if (ret->method == NULL)
        return refuse(reterr, RPC_INVALID_REQUEST, "method is missing or not a string");
    ret->notification = !has_id;
    return read_params(value, ret, reterr);
}

/* --- Answers --- */

struct error_text {
    const char *word;
    const char *data; /* what to do about it */
};

static struct error_text text_of(enum rpc_error code)
{
    switch (code) {
    case RPC_PARSE:
        return (struct error_text){ .word = "parse error" };
    case RPC_INVALID_REQUEST:
        return (struct error_text){ .word = "invalid request" };
    case RPC_METHOD:
        return (struct error_text){ .word = "method not found" };
    case RPC_PARAMS:
        return (struct error_text){ .word = "params" };
    case RPC_INTERNAL:
        return (struct error_text){ .word = "internal error" };
    case RPC_QUEUE_FULL:
        return (struct error_text){
            .word = "queue_full",
            .data = "Send it again once requests have finished, or raise queue.max_pending.",
        };
    case RPC_STORAGE_UNAVAILABLE:
        return (struct error_text){
            .word = "storage_unavailable",
            .data = "Free space on, or repair, the file system of queue.database or results.path, "
                    "whichever the message names, and send it again with the same request_id.",
        };
    case RPC_PERMISSION_DENIED:
        return (struct error_text){
            .word = "permission_denied",
            .data = "Call it as root, as the daemon's user or as a member of socket.admin_group.",
        };
    case RPC_SHUTTING_DOWN:
        return (struct error_text){
            .word = "shutting_down",
            .data = "Send it again when the daemon has started anew.",
        };
    case RPC_TOO_MANY_CLIENTS:
        return (struct error_text){
            .word = "too_many_clients",
            .data = "Connect again when other clients have gone, or raise socket.max_clients.",
        };
    case RPC_BAD_CONFIGURATION:
        return (struct error_text){
            .word = "bad_configuration",
            .data = "Correct the configuration file and reload again; until then the old "
                    "configuration stays in force.",
        };
    }
    return (struct error_text){ .word = "error" };
}

/* Errors of the buffer are kept until the end. */
static void put(struct buf *b, int *r, const char *text)
{
    if (*r == 0)
        *r = buf_append_str(b, text);
}

static void put_string(struct buf *b, int *r, const char *text)
{
    if (*r == 0)
        *r = json_append_cstr(b, text);
}

static int put_message(struct buf *b, const char *word, const char *message)
{
    if (message == NULL || message[0] == '\0')
        return json_append_cstr(b, word);
    if (strncmp(message, word, strlen(word)) == 0)
        return json_append_cstr(b, message);

    struct buf text;
    buf_init(&text, strlen(word) + 2 + strlen(message));
    int r = buf_printf(&text, "%s: %s", word, message);
    if (r == 0)
        r = json_append_string(b, text.data, text.len);
    buf_finish(&text);
    return r;
}

/* "error":{"code":CODE,"message":MESSAGE,"data":DATA} */
static void put_error(struct buf *b, int *r, enum rpc_error code, const char *message)
{
    struct error_text text = text_of(code);

    put(b, r, "\"error\":{\"code\":");
    if (*r == 0)
        *r = buf_append_int(b, code);
    put(b, r, ",\"message\":");
    if (*r == 0)
        *r = put_message(b, text.word, message);
    if (text.data != NULL) {
        put(b, r, ",\"data\":");
        put_string(b, r, text.data);
    }
    put(b, r, "}");
}

/* An answer is added whole or not at all. */
static int settle(struct buf *b, size_t before, int r)
{
    if (r < 0)
        b->len = before;
    return r;
}

int rpc_append_result(struct buf *b, const char *id, const char *result, size_t len)
{
    size_t before = b->len;
    int r = 0;
    put(b, &r, "{\"jsonrpc\":\"2.0\",\"result\":");
    if (r == 0)
        r = buf_append(b, result, len);
    put(b, &r, ",\"id\":");
    put(b, &r, id);
    put(b, &r, "}");
    return settle(b, before, r);
}

int rpc_append_error(struct buf *b, const char *id, enum rpc_error code, const char *message)
{
    size_t before = b->len;
    int r = 0;
    put(b, &r, "{\"jsonrpc\":\"2.0\",");
    put_error(b, &r, code, message);
    put(b, &r, ",\"id\":");
    put(b, &r, id);
    put(b, &r, "}");
    return settle(b, before, r);
}

int rpc_append_line_error(struct buf *b, enum rpc_error code, const char *message)
{
    size_t before = b->len;
    int r = 0;
    put(b, &r, "{");
    put_error(b, &r, code, message);
    put(b, &r, "}");
    return settle(b, before, r);
}

int rpc_append_notification(struct buf *b, const char *method, const char *params, size_t len)
{
    size_t before = b->len;
    int r = 0;
    put(b, &r, "{\"jsonrpc\":\"2.0\",\"method\":");
    put_string(b, &r, method);
    put(b, &r, ",\"params\":");
    if (r == 0)
        r = buf_append(b, params, len);
    put(b, &r, "}");
    return settle(b, before, r);
}
