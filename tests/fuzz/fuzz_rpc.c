/* JSON-RPC: a client's line to calls, as intake/message.c does it, with a client and methods that
 * only note what comes. What is run is compared with what the line says. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/line.h"
#include "intake/message.h"
#include "intake/methods.h"
#include "intake/rpc.h"

/* What became of a call. */
struct noted {
    enum call_form form;
    int code; /* 0 = a method was run */
    char *id; /* NULL for LINE */
    char *method;
    bool has_params;
    bool nested; /* refused for its nesting, before it was read */
};

/* Of one line. */
struct notes {
    struct noted *calls;
    size_t n_calls;
    struct batch *batch;
};

static struct notes *notes(void)
{
    static struct notes the_notes;
    return &the_notes;
}

/* --- The client and the methods --- */

struct call *call_create(struct client *client, enum call_form form, const char *id,
                         struct batch *batch)
{
    CHECK(form == CALL_LINE || id != NULL);
    CHECK(batch == NULL || batch == notes()->batch);
    struct call *call = calloc(1, sizeof(*call));
    call->client = client;
    call->form = form;
    call->batch = batch;
    if (id != NULL) {
        CHECK(json_check(id, strlen(id), NULL) == 0);
        CHECK(strchr(id, '\n') == NULL);
        call->id = strdup(id);
    }
    return call;
}

/* Ends the call. */
static struct noted *note(struct call *call)
{
    struct notes *all = notes();
    all->calls = realloc(all->calls, (all->n_calls + 1) * sizeof(*all->calls));
    struct noted *noted = &all->calls[all->n_calls++];
    *noted = (struct noted){ .form = call->form, .id = call->id };
    free(call);
    return noted;
}

/* The answer, as call.c writes it. */
void call_error(struct call *call, enum rpc_error code, const char *message)
{
    struct buf b;
    buf_init(&b, 65536);
    CHECK(message != NULL && message[0] != '\0');
    CHECK((call->form == CALL_LINE ? rpc_append_line_error(&b, code, message)
                                   : rpc_append_error(&b, call->id, code, message)) == 0);
    struct json_object *root = fuzz_check_json(b.data, b.len), *error, *number;
    CHECK(json_object_object_get_ex(root, "error", &error));
    CHECK(json_object_object_get_ex(error, "code", &number));
    CHECK(json_object_get_int(number) == (int) code);
    CHECK(fuzz_string(error, "message") != NULL);
    json_object_put(root);
    buf_finish(&b);

    bool nested = strcmp(message, "too deeply nested") == 0;
    struct noted *noted = note(call);
    noted->code = code;
    noted->nested = nested;
}

void methods_run(struct call *call, const char *name, struct json_object *params)
{
    CHECK(name != NULL);
    CHECK(params == NULL || json_object_is_type(params, json_type_object));
    struct noted *noted = note(call);
    noted->method = strdup(name);
    noted->has_params = params != NULL;
}

void methods_run_line(struct call *call, const struct line *line)
{
    CHECK(call->form == CALL_LINE);
    CHECK(fuzz_is_job_id(line->job_id));
    (void) note(call);
}

struct batch *batch_create(void)
{
    CHECK(notes()->batch == NULL);
    return notes()->batch = calloc(1, sizeof(struct batch));
}

void batch_complete(struct client *client, struct batch *batch)
{
    CHECK(client->batch_next == NULL);
    CHECK(batch == notes()->batch);
    notes()->batch = NULL;
    free(batch);
}

/* Only done when memory runs out. */
void client_close(struct client *client)
{
    (void) client;
    CHECK(!"the client was closed");
}

/* --- What the line says --- */

static void check_call(const struct noted *noted, struct json_object *value)
{
    struct rpc_call call;
    struct buf why;
    if (noted->nested)
        return;
    buf_init(&why, 512);
    int code = rpc_read_call(value, &call, &why);
    CHECK(noted->code == code);
    CHECK(strcmp(noted->id, call.id) == 0);
    CHECK((noted->form == CALL_SILENT) == call.notification);
    if (code == 0) {
        CHECK(strcmp(noted->method, fuzz_string(value, "method")) == 0);
        CHECK(strcmp(fuzz_string(value, "jsonrpc"), "2.0") == 0);
        CHECK(call.notification == !json_object_object_get_ex(value, "id", NULL));
        CHECK(noted->has_params == (call.params != NULL));
    } else {
        CHECK(why.len > 0);
    }
    buf_finish(&why);
}

/* An id that is a string or an integer comes back as it was. */
static void check_id(const struct noted *noted, struct json_object *value)
{
    struct json_object *id = NULL, *back = NULL;
    if (noted->nested || !json_object_is_type(value, json_type_object) ||
        !json_object_object_get_ex(value, "id", &id))
        return;
    CHECK(json_parse(noted->id, strlen(noted->id), &back, NULL) == 0);
    if (back != NULL)
        CHECK(json_object_equal(id, back));
    else if (id != NULL)
        CHECK(noted->code == RPC_INVALID_REQUEST);
    json_object_put(back);
}

static void check_notes(const char *text, size_t len)
{
    const struct notes *all = notes();
    struct json_object *root = NULL;
    bool json = len > 0 && strchr("{[", text[0]) != NULL && text[0] != '\0';
    int r = json ? json_parse(text, len, &root, NULL) : -EINVAL;

    if (r == 0 && json_object_is_type(root, json_type_array) &&
        json_object_array_length(root) > 0) {
        CHECK(all->n_calls == json_object_array_length(root));
        for (size_t i = 0; i < all->n_calls; i++) {
            struct json_object *value = json_object_array_get_idx(root, i);
            CHECK(all->calls[i].form == CALL_BATCH || all->calls[i].form == CALL_SILENT);
            check_call(&all->calls[i], value);
            check_id(&all->calls[i], value);
        }
    } else {
        CHECK(all->n_calls == (len > 0));
        bool single = r == 0 && json_object_object_get_ex(root, "jsonrpc", NULL);
        if (single && all->calls[0].form != CALL_LINE &&
            (all->calls[0].code != RPC_INVALID_REQUEST || all->calls[0].id[0] != 'n')) {
            check_call(&all->calls[0], root);
            check_id(&all->calls[0], root);
        } else if (len > 0 && r == 0 && !single && json_object_is_type(root, json_type_object)) {
            CHECK(all->calls[0].form == CALL_LINE || all->calls[0].code != 0);
        } else if (json && r < 0) {
            CHECK(all->calls[0].code == RPC_PARSE || all->calls[0].code == RPC_INVALID_REQUEST);
        }
    }
    json_object_put(root);
}

static void forget(void)
{
    struct notes *all = notes();
    for (size_t i = 0; i < all->n_calls; i++) {
        free(all->calls[i].id);
        free(all->calls[i].method);
    }
    free(all->calls);
    *all = (struct notes){ .calls = NULL };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The reader of lines never hands over a newline. */
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t len = newline != NULL ? (size_t) (newline - data) : size;
    char *line = fuzz_copy((const char *) data, len);
    struct client client = { .origin = "uid=0 pid=1" };

    message_run(&client, line, len);
    while (client.batch_next != NULL) {
        size_t left = client.batch_left;
        CHECK(client.batch_next >= line && client.batch_next + left <= line + len);
        message_run_batch(&client);
        CHECK(client.batch_next == NULL || client.batch_left < left); /* so that it ends */
    }
    CHECK(notes()->batch == NULL);

    const char *text = line;
    line_trim(&text, &len);
    check_notes(text, len);
    forget();
    free(line);
    return 0;
}
