/* Reading, writing, pausing and ending a client. Loop thread.
 *
 * A callback only notes what happened; client_update() then decides what is due. */
#include "intake/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "intake/message.h"
#include "intake/permission.h"
#include "intake/subscribe.h"

/* A client gets this many lines in before others get their turn. */
#define LINES_PER_TURN 64

/* Beyond these nothing more of a client is run, until all are below half. */
#define WEIGHT_MAX 128
#define WAITS_MAX 16384
#define UNSENT_MAX ((size_t) 1024 * 1024)

/* What one outcome that is waited for costs in memory. */
#define WAIT_BYTES 400

/* Of too long a line, how much is read only to let its sender finish and see the error. */
#define DISCARD_MAX ((size_t) 16 * 1024 * 1024)

#define OUT_MAX ((size_t) 512 * 1024 * 1024)

/* --- Writing --- */

/* Its sender sees the end now, and may finish sending. */
static void say_bye(struct client *client)
{
    uv_os_fd_t fd;
    if (!client->said_bye && uv_fileno((uv_handle_t *) &client->pipe, &fd) == 0)
        (void) shutdown(fd, SHUT_WR);
    client->said_bye = true;
}

static void deafen(struct client *client)
{
    client->deaf = true;
    subscribe_end(client);
    struct call *next;
    for (struct call *call = LIST_FIRST(&client->calls); call != NULL; call = next) {
        next = LIST_NEXT(call, link);
        call_silence(call);
    }
    /* No call of it is open now, or it would have ended with the last. */
    if (client->batch != NULL)
        batch_complete(client, client->batch);
    client->batch = NULL;
}

/* Whatever the reason, it must not wait for answers that will not come. What it has sent still
 * counts. */
static void writing_failed(struct client *client)
{
    deafen(client);
    say_bye(client);
}

static void on_written(uv_write_t *req, int status)
{
    struct client *client = req->data;
    free(client->writing);
    client->writing = NULL;
    client->writing_len = 0;
    client->notes_writing = 0;
    if (client->closing)
        return;
    if (status < 0)
        writing_failed(client);
    client_update(client);
}

/* One write at a time: what is answered meanwhile goes out together with the next. */
static void flush(struct client *client)
{
    if (client->deaf)
        buf_finish(&client->out);
    if (client->writing != NULL || client->out.len == 0)
        return;

    client->writing = buf_steal(&client->out, &client->writing_len);
    client->notes_writing = client->notes_out;
    client->notes_out = 0;
    uv_buf_t data = { .base = client->writing, .len = client->writing_len };
    int r = uv_write(&client->write, (uv_stream_t *) &client->pipe, &data, 1, on_written);
    if (r < 0) {
        free(client->writing);
        client->writing = NULL;
        client->writing_len = 0;
        writing_failed(client);
    }
}

void client_push(struct client *client)
{
    if (client->closing || client->deaf || client->writing == NULL || client->out.len == 0)
        return;
    uv_buf_t data = { .base = client->out.data, .len = client->out.len };
    /* UV_EAGAIN while something of the write before is left. */
    int n = uv_try_write((uv_stream_t *) &client->pipe, &data, 1);
    if (n <= 0)
        return;
    client->notes_writing = 0;
    buf_consume(&client->out, (size_t) n);
    if (client->notes_out > client->out.len)
        client->notes_out = client->out.len;
}

static size_t unsent(const struct client *client)
{
    size_t in_write = client->writing == NULL
                          ? 0
                          : uv_stream_get_write_queue_size((const uv_stream_t *) &client->pipe);
    return client->out.len + in_write;
}

/* --- Limits --- */

static void set_paused(struct client *client)
{
    size_t n = unsent(client);
    if (client->weight > WEIGHT_MAX || client->n_waits > WAITS_MAX || n > UNSENT_MAX)
        client->paused = true;
    else if (client->weight <= WEIGHT_MAX / 2 && client->n_waits <= WAITS_MAX / 2 &&
             n <= UNSENT_MAX / 2)
        client->paused = false;
}

static void account(struct client *client)
{
    size_t held = client->in.size + client->out.size + client->writing_len + client->held_texts +
                  client->n_waits * WAIT_BYTES;
    size_t before = client->held;
    client->held = held;
    control_account(client->control, before, held);
}

/* --- Reading --- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct client *client = handle->data;
    (void) suggested;
    *ret = uv_buf_init(client->control->read_data, CONTROL_READ_SIZE);
}

static void discard(struct client *client, const char *data, size_t len)
{
    client->discarded += len;
    if (memchr(data, '\n', len) != NULL || client->discarded > DISCARD_MAX)
        client->input_done = true;
    client_update(client);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *data)
{
    struct client *client = stream->data;
    if (n == 0)
        return;
    if (n < 0) {
        client->input_done = true;
        client->reading = false;
        if (n != UV_EOF)
            deafen(client);
        client_run(client);
        return;
    }
    if (client->doomed) {
        discard(client, data->base, (size_t) n);
        return;
    }
    if (buf_append(&client->in, data->base, (size_t) n) < 0) {
        log_error("control: out of memory for a line; %s is dropped", client->origin);
        client_close(client);
        return;
    }
    client_run(client);
}

static void set_reading(struct client *client, bool reading)
{
    uv_stream_t *stream = (uv_stream_t *) &client->pipe;
    if (reading == client->reading)
        return;
    if (!reading) {
        (void) uv_read_stop(stream);
    } else if (uv_read_start(stream, on_alloc, on_read) < 0) {
        client_close(client);
        return;
    }
    client->reading = reading;
}

/* Drops what was run: only while there is no line left, for it moves the rest. */
static void compact(struct client *client)
{
    if (client->in_start > 0)
        buf_consume(&client->in, client->in_start);
    client->in_start = 0;
    client->in_scanned = client->in.len;
    if (client->in.len == 0)
        buf_finish(&client->in);
}

/* --- Lines --- */

static void refuse_long_line(struct client *client, bool ended)
{
    client->doomed = true;
    subscribe_end(client);
    client->input_done |= ended;
    message_refuse(client, client->in.data + client->in_start, 64, RPC_INVALID_REQUEST,
                   "a line is longer than 1 MiB; closing");
    client->in_start = client->in.len;
    compact(client);
}

static bool next_line(struct client *client, const char **ret_line, size_t *ret_len)
{
    struct buf *in = &client->in;
    if (client->in_scanned == in->len)
        return false;

    const char *start = in->data + client->in_start;
    const char *newline = memchr(in->data + client->in_scanned, '\n', in->len - client->in_scanned);
    size_t len = newline != NULL ? (size_t) (newline - start) : in->len - client->in_start;
    if (len > CLIENT_LINE_MAX) {
        refuse_long_line(client, newline != NULL);
        return false;
    }
    if (newline == NULL) {
        client->in_scanned = in->len;
        return false;
    }
    client->in_start += len + 1;
    client->in_scanned = client->in_start;
    *ret_line = start;
    *ret_len = len;
    return true;
}

/* What is left at the end of the input has no newline. */
static void refuse_rest(struct client *client)
{
    const char *rest = client->in.data + client->in_start;
    size_t len = client->in.len - client->in_start;
    bool blank = true;
    for (size_t i = 0; i < len && blank; i++)
        blank = strchr(" \t\r", rest[i]) != NULL && rest[i] != '\0';
    if (!blank)
        message_refuse(client, rest, len, RPC_INVALID_REQUEST,
                       "the last line has no newline; it may be cut short, so it was not run");
    client->in_start = client->in.len;
    compact(client);
}

static bool has_more(const struct client *client)
{
    return client->batch_next != NULL || client->in_scanned < client->in.len;
}

void client_run(struct client *client)
{
    client->running = true;
    for (unsigned i = 0; i < LINES_PER_TURN && !client->closing; i++) {
        const char *line;
        size_t len;
        set_paused(client);
        if (client->paused || !control_has_room(client->control))
            break;
        if (client->batch_next != NULL)
            message_run_batch(client);
        else if (next_line(client, &line, &len))
            message_run(client, line, len);
        else
            break;
    }
    if (client->input_done && !client->closing && !has_more(client) && client->in.len > 0)
        refuse_rest(client);
    client->running = false;
    client_update(client);
}

/* --- When half of the connection is closed ---
 *
 * After the end of its input, a client that waits for outcomes is not read any more, so nothing
 * would tell that it has gone. A second descriptor of the socket under its own poll does: EPOLLHUP
 * is always reported, and priority data does not exist on Unix sockets. */

struct hangup {
    uv_poll_t poll;
    int fd;
    struct client *client; /* NULL once it is closing */
    struct control *control;
};

static void on_hangup_closed(uv_handle_t *handle)
{
    struct hangup *hangup = handle->data;
    struct control *c = hangup->control;
    (void) close(hangup->fd);
    free(hangup);
    control_handle_closed(c);
}

static void on_hangup(uv_poll_t *poll, int status, int events)
{
    struct hangup *hangup = poll->data;
    (void) status;
    (void) events;
    if (hangup->client != NULL)
        client_close(hangup->client);
}

/* Where it can't be watched, the client is noticed when its answer can't be written. */
static void watch_hangup(struct client *client)
{
    uv_os_fd_t socket_fd;
    if (client->hangup != NULL || uv_fileno((uv_handle_t *) &client->pipe, &socket_fd) < 0)
        return;
    struct hangup *hangup = calloc(1, sizeof(*hangup));
    if (hangup == NULL)
        return;
    *hangup = (struct hangup){
        .fd = fcntl(socket_fd, F_DUPFD_CLOEXEC, 0),
        .client = client,
        .control = client->control,
    };
    if (hangup->fd < 0 || uv_poll_init(client->control->loop, &hangup->poll, hangup->fd) < 0) {
        if (hangup->fd >= 0)
            (void) close(hangup->fd);
        free(hangup);
        return;
    }
    hangup->poll.data = hangup;
    client->hangup = hangup;
    client->control->n_handles++;
    (void) uv_poll_start(&hangup->poll, UV_PRIORITIZED, on_hangup);
}

/* --- Life --- */

static void end_when_done(struct client *client)
{
    if (client->n_answers == 0 && unsent(client) == 0 &&
        client->subscription == SUBSCRIPTION_NONE) {
        if (client->input_done) {
            client_close(client);
            return;
        }
        say_bye(client);
    }
    if (client->input_done && (client->n_waits > 0 || client->subscription != SUBSCRIPTION_NONE))
        watch_hangup(client);
}

void client_update(struct client *client)
{
    if (client->running || client->closing)
        return;
    subscribe_drained(client);
    flush(client);
    account(client);
    if (client->closing)
        return;

    set_paused(client);
    if (has_more(client)) {
        set_reading(client, false);
        if (!client->paused)
            control_queue_turn(client->control, client);
        return;
    }
    compact(client);
    set_reading(client, !client->input_done && !client->paused);
    if (!client->closing && (client->input_done || client->doomed))
        end_when_done(client);
}

void client_end_input(struct client *client)
{
    client->input_done = true;
    subscribe_end(client);
    client->in_start = client->in.len;
    client->in_scanned = client->in.len;
    client->batch_next = NULL;
    struct batch *batch = client->batch;
    client->batch = NULL;
    if (batch != NULL)
        batch_complete(client, batch);
    client_update(client);
}

bool client_is_admin(const struct client *client)
{
    uv_os_fd_t fd = -1;
    (void) uv_fileno((const uv_handle_t *) &client->pipe, &fd);
    return permission_is_admin(&client->peer, fd, client->control->admin_gid);
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    struct control *c = client->control;
    buf_finish(&client->in);
    buf_finish(&client->out);
    free(client->writing);
    free(client);
    control_handle_closed(c);
}

void client_close(struct client *client)
{
    if (client->closing)
        return;
    client->closing = true;
    deafen(client);
    struct call *call;
    while ((call = LIST_FIRST(&client->calls)) != NULL)
        call_orphan(call);
    if (client->hangup != NULL) {
        client->hangup->client = NULL;
        uv_close((uv_handle_t *) &client->hangup->poll, on_hangup_closed);
        client->hangup = NULL;
    }
    uv_close((uv_handle_t *) &client->pipe, on_closed);
    control_client_left(client->control, client);
}

int client_create(struct control *c, int fd)
{
    struct client *client = calloc(1, sizeof(*client));
    socklen_t peer_len = sizeof(client->peer);
    int r = 0;
    if (client == NULL)
        r = -ENOMEM;
    else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &peer_len) < 0)
        r = -errno;
    if (r < 0) {
        free(client);
        (void) close(fd);
        return r;
    }

    client->control = c;
    (void) snprintf(client->origin, sizeof(client->origin), "uid=%u pid=%d", client->peer.uid,
                    client->peer.pid);
    buf_init(&client->in, CLIENT_LINE_MAX + CONTROL_READ_SIZE);
    buf_init(&client->out, OUT_MAX);
    LIST_INIT(&client->calls);
    TAILQ_INIT(&client->lines);
    (void) uv_pipe_init(c->loop, &client->pipe, 0);
    client->pipe.data = client;
    client->write.data = client;
    TAILQ_INSERT_TAIL(&c->clients, client, link);
    c->n_clients++;
    c->n_handles++;

    r = uv_pipe_open(&client->pipe, fd);
    if (r < 0) {
        (void) close(fd);
        client_close(client);
        return r;
    }
    client_update(client);
    return 0;
}
