/* Subscribers and what they are sent. Loop thread. */
#include "intake/subscribe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "intake/client.h"
#include "intake/methods.h"

/* Unsent notifications of one client, and of all together, in bytes. The first is enough for the
 * 10,000 outcomes of a large call at once. */
#define UNSENT_MAX ((size_t) 8 * 1024 * 1024)
#define UNSENT_ALL_MAX ((size_t) 16 * 1024 * 1024)

static size_t unsent_max(const struct control *c)
{
    size_t share = UNSENT_ALL_MAX / (c->n_subscribers > 0 ? c->n_subscribers : 1);
    return share < UNSENT_MAX ? share : UNSENT_MAX;
}

/* Of a write all counts until it is reported. */
static size_t unsent(const struct client *client)
{
    return client->notes_out + client->notes_writing;
}

static bool has_room(struct client *client, size_t len, size_t most)
{
    if (client->missed > 0)
        return false;
    if (unsent(client) + len > most)
        client_push(client);
    return unsent(client) + len <= most;
}

static bool send_note(struct client *client, const char *text, size_t len)
{
    if (buf_append(&client->out, text, len) < 0)
        return false;
    client->notes_out += len;
    return true;
}

/* --- Outcomes --- */

/* The notification with its newline goes into c->note. */
static bool write_note(struct control *c, const struct queue_settled *settled)
{
    buf_clear(&c->note);
    return settled->line != NULL &&
           rpc_append_notification(&c->note, "outcome", settled->line, settled->line_len) == 0 &&
           buf_append_char(&c->note, '\n') == 0;
}

void subscribe_settled(struct control *c, const struct queue_settled *settled)
{
    if (TAILQ_EMPTY(&c->subscribers))
        return;
    bool written = write_note(c, settled);
    size_t most = unsent_max(c);
    struct client *next;
    for (struct client *client = TAILQ_FIRST(&c->subscribers); client != NULL; client = next) {
        /* Whoever is closed meanwhile is freed later, and says so by its subscription. */
        next = TAILQ_NEXT(client, subscriber_link);
        if (client->subscription != SUBSCRIPTION_ON)
            continue;
        if (!written || !has_room(client, c->note.len, most) ||
            !send_note(client, c->note.data, c->note.len))
            client->missed++;
        else
            client_update(client);
    }
}

static void tell_missed(struct client *client)
{
    char text[128];
    int len =
        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"method\":\"missed\",\"params\":{\"count\":%" PRIu64 "}}\n",
                 client->missed);
    if (send_note(client, text, (size_t) len))
        client->missed = 0;
}

void subscribe_drained(struct client *client)
{
    if (client->missed > 0 && unsent(client) <= unsent_max(client->control) / 2)
        tell_missed(client);
}

/* --- Beginning and end --- */

static void begin(struct client *client)
{
    struct control *c = client->control;
    if (client->subscription != SUBSCRIPTION_NONE)
        return;
    client->subscription = SUBSCRIPTION_BEGINS;
    TAILQ_INSERT_TAIL(&c->subscribers, client, subscriber_link);
    if (c->n_subscribers++ == 0)
        queue_watch_all(c->queue, true);
}

void subscribe_end(struct client *client)
{
    struct control *c = client->control;
    if (client->subscription == SUBSCRIPTION_NONE)
        return;
    if (client->missed > 0 && !client->deaf)
        tell_missed(client);
    client->missed = 0;
    client->subscription = SUBSCRIPTION_NONE;
    TAILQ_REMOVE(&c->subscribers, client, subscriber_link);
    if (--c->n_subscribers == 0) {
        queue_watch_all(c->queue, false);
        buf_finish(&c->note);
    }
}

static void on_barrier(void *userdata, int status, int64_t n)
{
    static const char subscribed[] = "{\"subscribed\":true}";
    struct call *call = userdata;
    struct client *client = call->client;
    (void) n;
    if (client != NULL && client->subscription == SUBSCRIPTION_BEGINS) {
        if (status == -ESHUTDOWN)
            subscribe_end(client);
        else
            client->subscription = SUBSCRIPTION_ON;
    }
    if (status == -ESHUTDOWN)
        methods_refuse(call, status);
    else
        call_result(call, subscribed, sizeof(subscribed) - 1);
}

void subscribe_run(struct call *call, struct json_object *params)
{
    if (methods_refuse_params(call, params))
        return;
    struct client *client = call->client;
    if (!client->deaf)
        begin(client);
    /* What is being committed now goes without its line; all after it has one. In storage trouble
     * (the barrier fails) nothing is being committed. */
    queue_barrier(call->control->queue, on_barrier, call);
}
