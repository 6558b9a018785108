/* What is sent when: takes requests from the queue in their order, makes attempts through http/,
 * has replies judged by policy/, and hands retries and outcomes back to the queue.
 *
 * Memory holds what is in flight, a window of what comes next, and the nearest retries; the backlog
 * stays in the database. Runs on the loop thread. */
#ifndef PULSE_DISPATCH_DISPATCH_H
#define PULSE_DISPATCH_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "dispatch/http.h"
#include "model/config.h"
#include "model/request.h"
#include "policy/health.h"
#include "policy/retry.h"
#include "queue/queue.h"

struct dispatch;

struct dispatch_options {
    struct http_options http; /* max_connections is set from max_in_flight */
    enum api_endpoint endpoint;
    enum api_verify verify;
    enum api_on_unauthorized on_unauthorized;
    size_t max_in_flight;
    unsigned max_attempts;
    struct retry_policy retry;
};

#define DISPATCH_STATUS_MAX 1000

/* What dispatch needs of others. */
struct dispatch_host {
    /* Reads the key file anew. True when it has another key, which is then configured already. */
    bool (*renew_key)(void *userdata);
    /* The API rejects the key, and sending has stopped: its code and message. Or NULL: it goes on. */
    void (*key_changed)(void *userdata, const char *code, const char *message);
    void *userdata;
};

struct dispatch_stats {
    size_t in_flight;
    enum endpoint endpoint; /* in use */
    bool key_rejected;
    enum health_state health;
    size_t waiting;                        /* for a retry; on disk too */
    uint64_t attempts;                     /* counted ones */
    uint64_t retries;                      /* attempts that were not a request's first */
    uint64_t verifications;                /* questions for a job's status */
    uint64_t replies[DISPATCH_STATUS_MAX]; /* by HTTP status */
    uint64_t transport_failures;
};

/* 0 or -errno. */
int dispatch_create(struct dispatch **ret, uv_loop_t *loop, struct queue *queue,
                    const struct dispatch_host *host);

/* Copied; for attempts that start from now on. 0 or -ENOMEM, and the old options stay. */
int dispatch_configure(struct dispatch *d, const struct dispatch_options *options);

/* Begins to send what the queue has. */
void dispatch_start(struct dispatch *d);

/* Starts nothing more; `drained` when nothing is in flight (perhaps at once). */
void dispatch_drain(struct dispatch *d, void (*drained)(void *userdata), void *userdata);

/* Gives up what is in flight: it is still queued on disk. `stopped` once all handles are closed. */
void dispatch_stop(struct dispatch *d, void (*stopped)(void *userdata), void *userdata);

/* After dispatch_stop()'s `stopped`; accepts NULL. */
void dispatch_destroy(struct dispatch *d);

/* The queue's news, see struct queue_handler. */
void dispatch_accepted(struct dispatch *d, struct request *req);
void dispatch_retried(struct dispatch *d, struct request *req);
void dispatch_promoted(struct dispatch *d, struct request *req);
/* Settled, now or before. */
void dispatch_ended(struct dispatch *d, int64_t seq);
void dispatch_fetched(struct dispatch *d, enum queue_order order, int status,
                      struct request **requests, size_t n, int64_t next_at_ms);
/* Whether the database can be used. */
void dispatch_storage(struct dispatch *d, bool usable);

/* Nothing more is sent until it is released; what is in flight goes on. */
void dispatch_hold(struct dispatch *d, bool held);

/* A rejected key may be good by now: sending goes on, one request first. */
void dispatch_resume(struct dispatch *d);

/* Every waiting retry is due now: the ones in memory at once, the others by fetching them anew. For
 * after queue_flush(). */
void dispatch_flush(struct dispatch *d);

/* Takes back a request that is not in flight: ends it as withdrawn. `req` is its row as just read,
 * and is consumed. Whether it will end so, unless it has ended since it was read. One that is on its
 * way back from a retry is settled when it comes: all is on disk after a queue_barrier() and another. */
bool dispatch_withdraw(struct dispatch *d, struct request *req);

/* enum request_state of a leading request in memory, or -1. */
int dispatch_leader_state(const struct dispatch *d, int64_t seq);

/* Whether something that could be done is not being done: a request that is ready while a slot is free
 * and nothing is held, or a time that passed more than `late_ms` ago. Between two turns of the loop
 * that is never so, and while requests are accepted only for a moment. */
bool dispatch_is_stuck(const struct dispatch *d, int64_t late_ms);

const struct dispatch_stats *dispatch_get_stats(struct dispatch *d);

#endif
