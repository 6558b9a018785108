/* Answers, each in its place: at once, in the order of the lines, or with the rest of its batch.
 * Loop thread. */
#include "intake/call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "intake/client.h"

/* The account of all clients is far below it. */
#define TEXT_MAX ((size_t) 256 * 1024 * 1024)

struct batch *batch_create(void)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    if (batch != NULL)
        buf_init(&batch->text, TEXT_MAX);
    return batch;
}

static void batch_free(struct batch *batch)
{
    buf_finish(&batch->text);
    free(batch);
}

struct call *call_create(struct client *client, enum call_form form, const char *id,
                         struct batch *batch)
{
    if (client->deaf)
        form = CALL_SILENT;

    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        return NULL;
    *call = (struct call){ .control = client->control, .client = client, .form = form };
    buf_init(&call->text, TEXT_MAX);
    if (form == CALL_SINGLE || form == CALL_BATCH) {
        call->id = strdup(id);
        if (call->id == NULL) {
            free(call);
            return NULL;
        }
    }

    LIST_INSERT_HEAD(&client->calls, call, link);
    client->control->n_calls++;
    if (form == CALL_LINE)
        TAILQ_INSERT_TAIL(&client->lines, call, line_link);
    if (form == CALL_BATCH) {
        call->batch = batch;
        batch->n_open++;
    }
    if (form != CALL_SILENT)
        client->n_answers++;
    if (call->id != NULL)
        call_hold(call, strlen(call->id));
    call_set_load(call, (struct call_load){ .weight = 1 });
    return call;
}

void call_set_load(struct call *call, struct call_load load)
{
    call->control->n_requests += load.n_requests - call->load.n_requests;
    if (call->client != NULL) {
        call->client->weight += load.weight - call->load.weight;
        call->client->n_waits += load.n_waits - call->load.n_waits;
    }
    call->load = load;
}

void call_hold(struct call *call, size_t bytes)
{
    if (call->form == CALL_SILENT)
        return;
    call->held += bytes;
    call->client->held_texts += bytes;
}

/* Its answer, if it had one, has found its place or is not wanted. */
static void call_free(struct call *call)
{
    struct control *c = call->control;

    call_set_load(call, (struct call_load){ 0 });
    if (call->client != NULL) {
        call->client->held_texts -= call->held;
        LIST_REMOVE(call, link);
    }
    c->n_calls--;
    buf_finish(&call->text);
    free(call->id);
    free(call);
}

/* The call's answer is in the batch, or will never be. */
static void leave_batch(struct client *client, struct batch *batch)
{
    batch->n_open--;
    if (batch->complete && batch->n_open == 0)
        batch_complete(client, batch);
}

void batch_complete(struct client *client, struct batch *batch)
{
    batch->complete = true;
    if (batch->n_open > 0)
        return;

    /* Of notifications only: no answer at all, not even []. */
    int r = 0;
    if (!client->deaf && batch->text.len > 0) {
        r = buf_append(&client->out, batch->text.data, batch->text.len);
        if (r == 0)
            r = buf_append_str(&client->out, "]\n");
    }
    client->held_texts -= batch->text.len;
    batch_free(batch);
    if (r < 0)
        client_close(client);
}

/* Moves the lines' answers out, as far as they are there. */
static int send_lines(struct client *client)
{
    struct call *call;
    while ((call = TAILQ_FIRST(&client->lines)) != NULL && call->ready) {
        int r = buf_append(&client->out, call->text.data, call->text.len);
        if (r < 0)
            return r;
        TAILQ_REMOVE(&client->lines, call, line_link);
        client->n_answers--;
        call_free(call);
    }
    return 0;
}

void call_silence(struct call *call)
{
    struct client *client = call->client;
    struct batch *batch = call->batch;
    bool over = call->ready || call->abandon != NULL;

    if (call->form == CALL_SILENT)
        return;
    if (call->abandon != NULL)
        call->abandon(call->owner);
    if (call->form == CALL_LINE)
        TAILQ_REMOVE(&client->lines, call, line_link);
    client->n_answers--;
    client->held_texts -= call->held;
    call->held = 0;
    call->form = CALL_SILENT;
    call->batch = NULL;
    if (over)
        call_free(call);
    if (batch != NULL)
        leave_batch(client, batch);
}

void call_orphan(struct call *call)
{
    LIST_REMOVE(call, link);
    call->client = NULL;
}

static int append_message(struct buf *b, const struct call *call, enum rpc_error code,
                          const char *message)
{
    if (call->form == CALL_LINE)
        return rpc_append_line_error(b, code, message);
    return rpc_append_error(b, call->id, code, message);
}

static int append_result(struct buf *b, const struct call *call, const char *result, size_t len)
{
    if (call->form == CALL_LINE)
        return buf_append(b, result, len);
    return rpc_append_result(b, call->id, result, len);
}

/* Appends the answer, an error's when `result` is NULL, to the text that it goes out with. */
static int write_answer(struct call *call, const char *result, size_t len, enum rpc_error code,
                        const char *message)
{
    struct client *client = call->client;
    struct buf *b = &client->out;
    if (call->form == CALL_LINE)
        b = &call->text;
    else if (call->form == CALL_BATCH)
        b = &call->batch->text;

    size_t before = b->len;
    int r = 0;
    if (call->form == CALL_BATCH)
        r = buf_append_char(b, b->len == 0 ? '[' : ',');
    if (r == 0 && result != NULL)
        r = append_result(b, call, result, len);
    else if (r == 0)
        r = append_message(b, call, code, message);
    if (r == 0 && call->form != CALL_BATCH)
        r = buf_append_char(b, '\n');
    if (r < 0)
        return r;

    if (call->form == CALL_LINE)
        call_hold(call, b->len - before);
    else if (call->form == CALL_BATCH)
        client->held_texts += b->len - before;
    return 0;
}

static void end(struct call *call)
{
    struct control *c = call->control;
    struct client *client = call->client;
    struct batch *batch = call->batch;
    int r = 0;

    switch (call->form) {
    case CALL_LINE:
        call->ready = true;
        /* It may stay behind others, but runs no longer. */
        call_set_load(call, (struct call_load){ .weight = call->load.weight });
        r = send_lines(client);
        break;
    case CALL_SINGLE:
    case CALL_BATCH:
        client->n_answers--;
        call_free(call);
        if (batch != NULL)
            leave_batch(client, batch);
        break;
    case CALL_SILENT:
        call_free(call);
        break;
    }
    if (r < 0)
        client_close(client);
    if (client != NULL)
        client_update(client);
    control_call_ended(c);
}

static void answer(struct call *call, const char *result, size_t len, enum rpc_error code,
                   const char *message)
{
    call->abandon = NULL;
    if (call->form != CALL_SILENT && write_answer(call, result, len, code, message) < 0) {
        log_error("control: out of memory for an answer; %s is dropped", call->client->origin);
        client_close(call->client); /* which silences the call */
    }
    end(call);
}

void call_result(struct call *call, const char *result, size_t len)
{
    answer(call, result, len, RPC_INTERNAL, NULL);
}

void call_error(struct call *call, enum rpc_error code, const char *message)
{
    answer(call, NULL, 0, code, message);
}
