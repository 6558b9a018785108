/* The socket: clients, their lines, and the methods.
 *
 * Each client has a bounded line reader and a list of answers in the order of its lines; nothing is
 * read from a client whose answers pile up. Runs on the loop thread. */
#ifndef PULSE_INTAKE_CONTROL_H
#define PULSE_INTAKE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "base/buf.h"
#include "queue/queue.h"

struct control;

struct control_options {
    int listen_fd; /* passed by the service manager; -1 = make the socket at `path` */
    const char *path;
    mode_t mode;
    const char *group;       /* "" = unchanged */
    const char *admin_group; /* "" = only root and the daemon's own user */
    int64_t max_clients;
    int64_t deadline_s; /* for requests that give none */
};

/* What the methods need of the rest of the daemon. */
struct control_host {
    /* The state that dispatch knows of a leading request, or -1 when it is not in memory. */
    int (*leader_state)(void *userdata, int64_t seq);
    /* Appends the `stats` object. */
    int (*append_stats)(void *userdata, struct buf *b);

    /* Sending stops, or resumes. `done` (n = 0) once that is on disk; status as in queue.h. */
    void (*hold)(void *userdata, bool held, queue_done_fn done, void *done_userdata);
    /* Every waiting retry is due now; n = how many were waiting. */
    void (*flush)(void *userdata, queue_done_fn done, void *done_userdata);
    /* Ends those of the rows, as just read, that are pending and not in flight; a follower is in
     * flight when its leader is. n = how many. The rows' requests are consumed (set to NULL). */
    void (*withdraw)(void *userdata, struct queue_row *rows, size_t n_rows, queue_done_fn done,
                     void *done_userdata);
    /* Reads the configuration anew. 0, with the settings that need a restart appended to
     * `restart_needed` as names separated by ", "; -EINVAL with its FILE:LINE text. */
    int (*reload)(void *userdata, struct buf *restart_needed, struct buf *reterr);
    void *userdata;
};

struct control_stats {
    uint64_t accepted;
    uint64_t coalesced;
    size_t clients;
};

/* 0; -EADDRINUSE when a live daemon holds the socket; other -errno. `reterr` gets a sentence. */
int control_create(struct control **ret, uv_loop_t *loop, struct queue *queue,
                   const struct control_options *options, const struct control_host *host,
                   struct buf *reterr);

void control_set_deadline(struct control *c, int64_t deadline_s);

/* An outcome was committed: answers those who wait for it. */
void control_settled(struct control *c, const struct queue_settled *settled);

/* From now on nothing is accepted (-32004); waits that are open get the plain queued answer. */
void control_shut(struct control *c);

/* Sends what is still to be sent (briefly, to those who read), closes all, then calls `done`. */
void control_stop(struct control *c, void (*done)(void *userdata), void *userdata);

/* After control_stop()'s `done`; accepts NULL. */
void control_destroy(struct control *c);

void control_get_stats(const struct control *c, struct control_stats *ret);

#endif
