/* The socket as a whole: accepting, turns, the limits for all clients together, beginning and end.
 * Loop thread. */
#include "intake/control_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "intake/client.h"
#include "intake/permission.h"
#include "intake/rpc.h"
#include "intake/subscribe.h"

#define ACCEPTS_PER_TURN 64
/* When no descriptor is left, and no client goes meanwhile. */
#define ACCEPT_PAUSE_MS 1000
/* At the end, for answers that are still on their way. */
#define STOP_GRACE_MS 1000
/* A result line, and what makes a notification of it. */
#define NOTE_MAX ((size_t) 1024 * 1024)

/* --- Accepting --- */

static void on_connection(uv_poll_t *poll, int status, int events);

static void set_accepting(struct control *c, bool accepting)
{
    if (accepting && !c->stopping)
        (void) uv_poll_start(&c->accepting, UV_READABLE, on_connection);
    else
        (void) uv_poll_stop(&c->accepting);
}

static void on_accept_pause(uv_timer_t *timer)
{
    set_accepting(timer->data, true);
}

/* Best effort: who does not read it at once was only to be told why. */
static void refuse_client(struct control *c, int fd)
{
    struct buf text;
    buf_init(&text, 4096);
    int r = rpc_append_error(&text, "null", RPC_TOO_MANY_CLIENTS,
                             "too_many_clients: as many clients are connected as "
                             "socket.max_clients allows");
    if (r == 0)
        r = buf_append_char(&text, '\n');
    if (r == 0)
        (void) send(fd, text.data, text.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    buf_finish(&text);
    (void) close(fd);

    if (!c->told_full)
        log_warning("control: socket.max_clients (%zu) reached; new clients are refused",
                    c->max_clients);
    c->told_full = true;
}

static void pause_accepting(struct control *c, int r)
{
    if (!c->told_no_fd)
        log_error("control: can't accept a client: %s; they wait", strerror(-r));
    c->told_no_fd = true;
    set_accepting(c, false);
    (void) uv_timer_start(&c->timer, on_accept_pause, ACCEPT_PAUSE_MS, 0);
}

/* Returns false when there is none left, or none can be taken now. */
static bool accept_client(struct control *c)
{
    int fd = accept4(c->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
        return true;
    if (fd < 0 && errno == EAGAIN) {
        c->told_no_fd = false;
        return false;
    }
    if (fd < 0) {
        pause_accepting(c, -errno);
        return false;
    }
    if (c->n_clients >= c->max_clients) {
        refuse_client(c, fd);
        return true;
    }
    int r = client_create(c, fd);
    if (r < 0)
        log_error("control: can't serve a client: %s", strerror(-r));
    return true;
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct control *c = poll->data;
    (void) status; /* accept4() knows better what is wrong */
    (void) events;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN && accept_client(c); i++)
        continue;
}

/* --- Turns --- */

bool control_has_room(const struct control *c)
{
    return c->n_requests < CONTROL_REQUESTS_MAX;
}

static void on_turn(uv_idle_t *idle)
{
    struct control *c = idle->data;
    /* Who is not through is queued anew, behind the others. */
    for (size_t n = c->n_turns; n > 0 && c->n_turns > 0 && control_has_room(c); n--) {
        struct client *client = TAILQ_FIRST(&c->turns);
        TAILQ_REMOVE(&c->turns, client, turn_link);
        client->in_turns = false;
        c->n_turns--;
        client_run(client);
    }
    if (c->n_turns == 0 || !control_has_room(c))
        (void) uv_idle_stop(idle);
}

static void start_turning(struct control *c)
{
    if (c->n_turns > 0 && control_has_room(c) && !uv_is_closing((uv_handle_t *) &c->turning))
        (void) uv_idle_start(&c->turning, on_turn);
}

void control_queue_turn(struct control *c, struct client *client)
{
    if (!client->in_turns) {
        TAILQ_INSERT_TAIL(&c->turns, client, turn_link);
        client->in_turns = true;
        c->n_turns++;
    }
    start_turning(c);
}

/* --- The end --- */

static void on_all_closed(uv_handle_t *handle)
{
    struct control *c = handle->data;
    c->stopped(c->stopped_userdata);
}

static void check_stopped(struct control *c)
{
    if (c->stopping && c->n_handles == 0 && c->n_calls == 0 &&
        !uv_is_closing((uv_handle_t *) &c->turning))
        uv_close((uv_handle_t *) &c->turning, on_all_closed);
}

void control_handle_closed(struct control *c)
{
    c->n_handles--;
    check_stopped(c);
}

void control_call_ended(struct control *c)
{
    start_turning(c);
    check_stopped(c);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct control *c = handle->data;
    listener_finish(&c->listener);
    control_handle_closed(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
    control_handle_closed(handle->data);
}

static void close_clients(struct control *c)
{
    struct client *client;
    while ((client = TAILQ_FIRST(&c->clients)) != NULL)
        client_close(client);
}

static void close_timer(struct control *c)
{
    if (!uv_is_closing((uv_handle_t *) &c->timer))
        uv_close((uv_handle_t *) &c->timer, on_handle_closed);
}

static void on_grace_over(uv_timer_t *timer)
{
    struct control *c = timer->data;
    close_clients(c);
    close_timer(c);
}

/* --- Clients --- */

void control_client_left(struct control *c, struct client *client)
{
    TAILQ_REMOVE(&c->clients, client, link);
    c->n_clients--;
    c->held -= client->held;
    client->held = 0;
    if (c->n_clients <= c->max_clients / 2)
        c->told_full = false;
    if (client->in_turns) {
        TAILQ_REMOVE(&c->turns, client, turn_link);
        client->in_turns = false;
        c->n_turns--;
    }
    if (c->stopping && c->n_clients == 0)
        close_timer(c);
    else if (!c->stopping && uv_is_active((uv_handle_t *) &c->timer))
        set_accepting(c, true);
}

static struct client *find_biggest(const struct control *c)
{
    struct client *biggest = NULL;
    struct client *client;
    TAILQ_FOREACH(client, &c->clients, link) {
        if (biggest == NULL || client->held > biggest->held)
            biggest = client;
    }
    return biggest;
}

void control_account(struct control *c, size_t before, size_t now)
{
    c->held += now - before;
    if (c->held < CONTROL_HELD_MAX / 2)
        c->told_held = false;
    while (c->held > CONTROL_HELD_MAX) {
        struct client *client = find_biggest(c);
        if (!c->told_held)
            log_warning("control: clients hold %zu bytes; those that hold most are dropped (%s: "
                        "%zu bytes)",
                        c->held, client->origin, client->held);
        c->told_held = true;
        client_close(client);
    }
}

/* --- Contract --- */

int control_create(struct control **ret, uv_loop_t *loop, struct queue *queue,
                   const struct control_options *options, const struct control_host *host,
                   struct buf *reterr)
{
    struct control *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        if (options->listen_fd >= 0)
            (void) close(options->listen_fd);
        return -ENOMEM;
    }
    c->loop = loop;
    c->queue = queue;
    c->host = *host;
    c->max_clients = (size_t) options->max_clients;
    c->deadline_s = options->deadline_s;
    c->listener.fd = -1;
    TAILQ_INIT(&c->clients);
    TAILQ_INIT(&c->turns);
    TAILQ_INIT(&c->subscribers);
    buf_init(&c->note, NOTE_MAX);
    c->admin_gid = PERMISSION_NO_GROUP;

    int r = options->listen_fd >= 0
                ? listener_adopt(&c->listener, options->listen_fd, reterr)
                : listener_open(&c->listener, options->path, options->mode, options->group, reterr);
    if (r == 0 && options->admin_group[0] != '\0')
        r = permission_find_group("socket.admin_group", options->admin_group, &c->admin_gid,
                                  reterr);
    if (r == 0)
        r = waits_init(&c->waits);
    /* The last that may fail: from here on handles are open. */
    if (r == 0)
        r = uv_poll_init(loop, &c->accepting, c->listener.fd);
    if (r < 0) {
        listener_finish(&c->listener);
        control_destroy(c);
        return r;
    }
    (void) uv_timer_init(loop, &c->timer);
    (void) uv_idle_init(loop, &c->turning);
    c->accepting.data = c;
    c->timer.data = c;
    c->turning.data = c;
    c->n_handles = 2;
    set_accepting(c, true);
    *ret = c;
    return 0;
}

void control_set_deadline(struct control *c, int64_t deadline_s)
{
    c->deadline_s = deadline_s;
}

void control_settled(struct control *c, const struct queue_settled *settled)
{
    if (settled->line != NULL)
        waits_settle(&c->waits, settled->request_id, settled->line, settled->line_len);
    subscribe_settled(c, settled);
}

void control_shut(struct control *c)
{
    c->shut = true;
    waits_release(&c->waits);
}

void control_stop(struct control *c, void (*done)(void *userdata), void *userdata)
{
    c->stopped = done;
    c->stopped_userdata = userdata;
    control_shut(c);
    c->stopping = true;
    uv_close((uv_handle_t *) &c->accepting, on_listener_closed);

    (void) uv_timer_start(&c->timer, on_grace_over, STOP_GRACE_MS, 0);
    struct client *next;
    for (struct client *client = TAILQ_FIRST(&c->clients); client != NULL; client = next) {
        next = TAILQ_NEXT(client, link);
        client_end_input(client);
    }
    if (c->n_clients == 0)
        close_timer(c);
}

void control_destroy(struct control *c)
{
    if (c == NULL)
        return;
    waits_finish(&c->waits);
    buf_finish(&c->note);
    free(c);
}

void control_get_stats(const struct control *c, struct control_stats *ret)
{
    *ret = (struct control_stats){
        .accepted = c->accepted,
        .coalesced = c->coalesced,
        .clients = c->n_clients,
    };
}
