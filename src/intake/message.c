/* Lines to calls. Loop thread.
 *
 * A batch is run call by call, each parsed from the text when its turn comes, so that one line
 * neither fills the memory with a tree nor keeps others waiting. */
#include "intake/message.h"

#include <stdbool.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "model/line.h"
#include "intake/methods.h"

#define ERROR_TEXT_MAX 512
/* More than fit into a line if all are a cancel of something. */
#define BATCH_CALLS_MAX 20000
/* Beyond this much answer, the rest of a batch is refused. */
#define BATCH_TEXT_MAX ((size_t) 8 * 1024 * 1024)
/* Objects and arrays of one call: a legal one has three, and each costs json-c a kilobyte. */
#define CALL_NESTS_MAX 16

static void out_of_memory(struct client *client)
{
    log_error("control: out of memory for a call; %s is dropped", client->origin);
    client_close(client);
}

static void answer_error(struct client *client, enum call_form form, struct batch *batch,
                         enum rpc_error code, const char *message)
{
    struct call *call = call_create(client, form, "null", batch);
    if (call == NULL)
        out_of_memory(client);
    else
        call_error(call, code, message);
}

void message_refuse(struct client *client, const char *line, size_t len, enum rpc_error code,
                    const char *message)
{
    /* What can't be parsed is JSON-RPC when it says so, or when it is a batch. */
    static const char member[] = "\"jsonrpc\"";
    line_trim(&line, &len);
    bool rpc =
        len > 0 && (line[0] == '[' ||
                    (line[0] == '{' && memmem(line, len, member, sizeof(member) - 1) != NULL));
    answer_error(client, rpc ? CALL_SINGLE : CALL_LINE, NULL, code, message);
}

static bool is_utf8(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = json_utf8_length(text + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* --- Finding values in JSON text --- */

/* The length of the value at the start of `text`, up to the comma or bracket behind it. *ret_nests
 * counts objects and arrays. */
static size_t value_length(const char *text, size_t len, size_t *ret_nests)
{
    size_t depth = 0;
    bool in_string = false;
    size_t i = 0;
    *ret_nests = 0;
    for (; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            (*ret_nests)++;
        } else if (depth == 0 && (c == ',' || c == ']' || c == '}')) {
            break;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return i < len ? i : len;
}

static bool too_nested(const char *text, size_t len)
{
    size_t nests;
    (void) value_length(text, len, &nests);
    return nests > CALL_NESTS_MAX;
}

/* --- Calls --- */

static void run_call(struct client *client, struct json_object *root, enum call_form form,
                     struct batch *batch)
{
    struct rpc_call rpc;
    struct buf error;
    buf_init(&error, ERROR_TEXT_MAX);
    int code = rpc_read_call(root, &rpc, &error);

    struct call *call = call_create(client, rpc.notification ? CALL_SILENT : form, rpc.id, batch);
    if (call == NULL)
        out_of_memory(client);
    else if (code != 0)
        call_error(call, code, buf_cstr(&error));
    else if (call->batch != NULL && call->batch->text.len > BATCH_TEXT_MAX)
        call_error(call, RPC_INTERNAL, "the batch's answer is too long; send smaller batches");
    else
        methods_run(call, rpc.method, rpc.params);
    buf_finish(&error);
}

static void run_line(struct client *client, const char *text, size_t len)
{
    struct line line;
    struct buf error;
    struct call *call = call_create(client, CALL_LINE, NULL, NULL);
    if (call == NULL) {
        out_of_memory(client);
        return;
    }
    buf_init(&error, ERROR_TEXT_MAX);
    if (line_parse(text, len, &line, &error) == 0)
        methods_run_line(call, &line);
    else if (is_utf8(text, len))
        call_error(call, RPC_PARAMS, buf_cstr(&error));
    else
        call_error(call, RPC_PARSE, "not UTF-8");
    buf_finish(&error);
}

/* --- Batches --- */

static const char *skip_blanks(const char *text, const char *end)
{
    while (text < end && strchr(" \t\r\n", *text) != NULL && *text != '\0')
        text++;
    return text;
}

static size_t count_values(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t at = 0; at < len && text[at] != ']'; n++) {
        size_t nests;
        at += value_length(text + at, len - at, &nests);
        if (at < len && text[at] == ',')
            at++;
    }
    return n;
}

static void open_batch(struct client *client, const char *text, size_t len)
{
    struct json_fault fault;
    if (json_check(text, len, &fault) < 0) {
        struct buf error;
        buf_init(&error, ERROR_TEXT_MAX);
        (void) buf_printf(&error, "bad JSON at byte %zu: %s", fault.offset + 1, fault.what);
        message_refuse(client, text, len, RPC_PARSE, buf_cstr(&error));
        buf_finish(&error);
        return;
    }

    const char *first = skip_blanks(text + 1, text + len);
    size_t left = (size_t) (text + len - first);
    if (*first == ']') {
        message_refuse(client, text, len, RPC_INVALID_REQUEST, "an empty batch");
        return;
    }
    if (count_values(first, left) > BATCH_CALLS_MAX) {
        message_refuse(client, text, len, RPC_INVALID_REQUEST,
                       "a batch of more than 20000 calls; nothing of it was run");
        return;
    }
    struct batch *batch = NULL;
    if (!client->deaf) {
        batch = batch_create();
        if (batch == NULL) {
            out_of_memory(client);
            return;
        }
    }
    client->batch = batch;
    client->batch_next = first;
    client->batch_left = left;
}

void message_run_batch(struct client *client)
{
    size_t nests;
    const char *value = client->batch_next;
    size_t len = value_length(value, client->batch_left, &nests);
    /* The text was checked: what ends a value is a comma or the last bracket. */
    bool last = value[len] == ']';
    client->batch_next += len + 1;
    client->batch_left -= len + 1;

    struct json_object *root = NULL;
    struct json_fault fault;
    if (nests > CALL_NESTS_MAX) {
        answer_error(client, CALL_BATCH, client->batch, RPC_INVALID_REQUEST, "too deeply nested");
    } else if (json_parse(value, len, &root, &fault) < 0) {
        out_of_memory(client);
    } else {
        run_call(client, root, CALL_BATCH, client->batch);
        json_object_put(root);
    }

    if (last) {
        struct batch *batch = client->batch;
        client->batch_next = NULL;
        client->batch = NULL;
        if (batch != NULL)
            batch_complete(client, batch);
    }
}

/* --- Lines --- */

void message_run(struct client *client, const char *line, size_t len)
{
    line_trim(&line, &len);
    if (len == 0)
        return;
    if (line[0] == '[') {
        open_batch(client, line, len);
        return;
    }
    if (line[0] == '{' && too_nested(line, len)) {
        message_refuse(client, line, len, RPC_INVALID_REQUEST, "too many objects and arrays");
        return;
    }

    enum rpc_form form;
    struct json_object *root = NULL;
    struct buf error;
    buf_init(&error, ERROR_TEXT_MAX);
    if (rpc_classify(line, len, &form, &root, &error) < 0) {
        out_of_memory(client);
        buf_finish(&error);
        return;
    }
    switch (form) {
    case RPC_FORM_LINE:
        run_line(client, line, len);
        break;
    case RPC_FORM_SINGLE:
        run_call(client, root, CALL_SINGLE, NULL);
        break;
    case RPC_FORM_BATCH: /* begins with a bracket: opened above */
        break;
    case RPC_FORM_BROKEN:
        message_refuse(client, line, len, RPC_PARSE, buf_cstr(&error));
        break;
    }
    json_object_put(root);
    buf_finish(&error);
}
