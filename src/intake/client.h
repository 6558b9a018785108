/* One connection: a bounded line reader, answers on their way out, and when to do what.
 *
 * A client is read only while nothing of it is left to run and its answers do not pile up. Private
 * to the socket's files; see control_core.h. */
#ifndef PULSE_INTAKE_CLIENT_H
#define PULSE_INTAKE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <uv.h>

#include "base/buf.h"
#include "intake/call.h"
#include "intake/control_core.h"

/* Of a line, without its newline. */
#define CLIENT_LINE_MAX ((size_t) 1024 * 1024)

struct hangup;

enum subscription {
    SUBSCRIPTION_NONE,
    SUBSCRIPTION_BEGINS, /* what is being committed is still without its line */
    SUBSCRIPTION_ON,
};

struct client {
    struct control *control;
    uv_pipe_t pipe;
    struct hangup *hangup; /* NULL = not watched for */
    TAILQ_ENTRY(client) link;
    TAILQ_ENTRY(client) turn_link;
    bool in_turns;
    struct ucred peer; /* when it connected */
    char origin[40];   /* "uid=N pid=N" */

    /* Input: [in_start, in.len) is still to be run; no newline lies in [in_start, in_scanned). */
    struct buf in;
    size_t in_start;
    size_t in_scanned;
    /* What is left of the batch that is being run, in `in`; NULL = none is. */
    const char *batch_next;
    size_t batch_left;
    struct batch *batch; /* its answer; NULL when nobody listens */
    bool reading;
    bool input_done; /* nothing more will come */
    bool doomed;     /* sent too long a line: what comes is thrown away */
    size_t discarded;
    bool said_bye;

    /* Calls that are open, and what keeps the client from being read (see client.c). */
    struct call_list calls;
    struct call_line_list lines; /* bare lines, in their order */
    unsigned weight;
    size_t n_waits;
    size_t n_answers;  /* calls that will be answered and are not yet */
    size_t held_texts; /* bytes of answers that can't go out yet */
    size_t held;       /* what control has on the account */
    bool paused;
    bool running; /* client_update() waits for the end of the turn */

    /* Output: one write is under way at a time; meanwhile `out` collects. */
    struct buf out;
    uv_write_t write;
    char *writing; /* NULL = no write is under way */
    size_t writing_len;
    bool deaf; /* can't be written to; what it sent is still run */

    /* Notifications: their bytes in `out` and in the write, and how many did not fit. */
    enum subscription subscription;
    TAILQ_ENTRY(client) subscriber_link;
    size_t notes_out;
    size_t notes_writing;
    uint64_t missed;

    bool closing;
};

/* Takes `fd`, also when it fails. */
int client_create(struct control *c, int fd);

/* Runs some of the lines that are left. */
void client_run(struct client *client);

/* Something changed: sends, reads on, pauses, or ends, whatever is due. */
void client_update(struct client *client);

/* Nothing more is read or run; open calls are still answered. */
void client_end_input(struct client *client);

/* By socket.admin_group and its like, see permission.h. */
bool client_is_admin(const struct client *client);

/* Writes of `out` what goes at once, though a write that is through has not been reported yet. */
void client_push(struct client *client);

/* Closes at once. The client is freed later, so pointers to it stay good until the stack unwinds.
 * What it has put into the queue goes on. */
void client_close(struct client *client);

#endif
