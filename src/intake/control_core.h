/* What the files of the socket share: the state of control.c, and what it does for clients and
 * calls. Private to control.c, client.c, call.c, message.c, methods.c and the methods' files.
 *
 *   client.c   bytes to lines, answers to bytes; pauses, ends and drops a client
 *   message.c  a line to calls: bare, JSON-RPC, batch
 *   methods.c  a call to work; cancel.c, listing.c, retry.c, subscribe.c and admin.c are methods
 *   call.c     results to answers, each in its place */
#ifndef PULSE_INTAKE_CONTROL_CORE_H
#define PULSE_INTAKE_CONTROL_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <uv.h>

#include "base/buf.h"
#include "intake/control.h"
#include "intake/listener.h"
#include "intake/waits.h"

#define CONTROL_READ_SIZE 65536
/* Requests in puts that are under way, of all clients: beyond it, lines wait. */
#define CONTROL_REQUESTS_MAX 50000
/* Bytes held for all clients: beyond it, who holds most is dropped. */
#define CONTROL_HELD_MAX ((size_t) 64 * 1024 * 1024)

struct client;
TAILQ_HEAD(client_list, client);

struct control {
    uv_loop_t *loop;
    struct queue *queue;
    struct control_host host;
    size_t max_clients;
    int64_t deadline_s;
    gid_t admin_gid;

    struct listener listener;
    uv_poll_t accepting;
    uv_timer_t timer; /* when to accept again; when stopping, when to wait no longer */
    /* Logged already; until things are well again. */
    bool told_full;
    bool told_no_fd;
    bool told_held;

    struct client_list clients;
    size_t n_clients;
    size_t held;

    /* Clients with lines left to run, each of which gets its turn. `turning` is active only while
     * there are any, and not while too many requests are under way. */
    struct client_list turns;
    size_t n_turns;
    uv_idle_t turning;

    size_t n_calls;    /* open ones, of vanished clients too */
    size_t n_requests; /* in puts that are under way */
    struct waits waits;

    struct client_list subscribers;
    size_t n_subscribers;
    struct buf note; /* one notification */

    uint64_t accepted;
    uint64_t coalesced;

    bool shut;
    bool stopping;
    size_t n_handles; /* open ones, `turning` aside, which is closed last */
    void (*stopped)(void *userdata);
    void *stopped_userdata;

    /* For one read callback at a time. */
    char read_data[CONTROL_READ_SIZE];
};

/* Lines may be run now. */
bool control_has_room(const struct control *c);

/* The client has lines to run: it gets a turn. */
void control_queue_turn(struct control *c, struct client *client);

/* Fewer requests are under way, or a call ended. */
void control_call_ended(struct control *c);

/* The client holds `now` bytes instead of `before`. May close any client, this one too. */
void control_account(struct control *c, size_t before, size_t now);

/* The client has left the list of clients. */
void control_client_left(struct control *c, struct client *client);

/* A handle was closed. */
void control_handle_closed(struct control *c);

#endif
