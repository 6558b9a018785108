/* A connection to the daemon's socket: bytes out, lines in. It never blocks but in
 * connection_wait(). */
#ifndef PULSE_CTL_CONNECTION_H
#define PULSE_CTL_CONNECTION_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct connection {
    int fd; /* -1 = none */
    struct buf out;
    struct buf in;
    size_t in_start;   /* of the line that comes next */
    size_t in_scanned; /* no newline before */
    bool ended;        /* the daemon will send no more */
};

/* Opens nothing yet. */
void connection_init(struct connection *c);

/* Also what was not sent or read yet is gone. May be opened again. */
void connection_close(struct connection *c);

/* 0 or -errno; -ENAMETOOLONG when `path` is too long for a socket. */
int connection_open(struct connection *c, const char *path);

/* Queues a line; its newline is added. 0 or -errno. */
int connection_send(struct connection *c, const char *text, size_t len);

/* Waits until something can be written or read, or until `extra_fd` (-1 = none) can be read, then
 * writes and reads what goes. `unblocked` is the signal mask meanwhile (NULL = as it is). A line
 * that is there already is no reason not to wait. 1, 0 when the time is over (`timeout_ms` -1 =
 * never), -EINTR, or -errno when the connection is lost. */
int connection_wait(struct connection *c, int timeout_ms, const sigset_t *unblocked, int extra_fd,
                    bool *ret_extra);

/* The next line without its newline, valid until the next connection_wait(). */
bool connection_line(struct connection *c, const char **ret_line, size_t *ret_len);

/* Says what `error` (-errno of the above, or 0 for an end without an answer) means, and what to do
 * about it. */
void connection_explain(const char *path, int error);

#endif
