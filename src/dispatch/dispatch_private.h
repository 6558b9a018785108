/* What the files of dispatch share. Loop thread.
 *
 *   dispatch.c  what is sent when; the queue's news, administration, life
 *   attempt.c   one attempt: from the first exchange to its outcome or its retry
 *   key.c       the check of a rejected key
 *   clock_watch.c  a sleep of the machine, which no timer sees
 *   window.c    which requests are in memory, and who is next
 *   http*.c     curl on the loop */
#ifndef PULSE_DISPATCH_PRIVATE_H
#define PULSE_DISPATCH_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

#include "dispatch/clock_watch.h"
#include "dispatch/dispatch.h"
#include "dispatch/http.h"
#include "dispatch/window.h"
#include "policy/endpoint.h"
#include "policy/health.h"
#include "policy/key_gate.h"

struct attempt;
TAILQ_HEAD(attempt_list, attempt);

struct dispatch {
    uv_loop_t *loop;
    struct queue *queue;
    struct http *http;
    uv_timer_t timer; /* the one timer: whatever wakes next */
    struct clock_watch clock_watch;
    struct dispatch_host host;

    char *base_url;
    unsigned base_epoch; /* how often it has changed */
    enum api_endpoint endpoint;
    bool route_gone; /* POST /cancel of this base URL is */
    enum api_verify verify;
    enum api_on_unauthorized on_unauthorized;
    size_t max_in_flight;
    unsigned max_attempts;
    struct retry_policy retry;

    struct window *window;
    struct attempt_list in_flight;
    int64_t unclean_seq; /* what was accepted up to it may have been sent before */

    struct key_gate key;
    unsigned key_checks;   /* under way */
    int64_t key_reread_ms; /* when to look at the key file */

    bool started, held, draining, stopping;
    void (*drained)(void *userdata);
    void *drained_userdata;
    void (*stopped)(void *userdata);
    void *stopped_userdata;
    unsigned closing;

    struct health health;
    int64_t deprecation_told_ms;
    struct dispatch_stats stats;
};

/* --- dispatch.c --- */

/* Everything that can be done now. Cheap when there is nothing. */
void dispatch_pump(struct dispatch *d);
/* Whether anything may be sent: no hold, and no rejected key. */
bool dispatch_may_send(const struct dispatch *d);
/* The outcome of a request that is not in flight, or no more; of everyone in its chain, or of it
 * alone. */
void dispatch_settle(struct dispatch *d, struct request *req, enum outcome outcome,
                     bool whole_chain);
/* Which route the next attempt takes. */
enum endpoint dispatch_endpoint(const struct dispatch *d);
/* The name of the queue's note that the old route is gone for this base URL. */
void dispatch_route_note(const struct dispatch *d, char ret_name[static QUEUE_NOTE_MAX]);
void dispatch_expire(struct dispatch *d, struct request *req);
/* Replaces a text of a request. */
void dispatch_set_text(char **field, const char *text);

/* --- attempt.c --- */

/* The request is in flight from now on, until it is settled or handed back to the queue. */
void attempt_start(struct dispatch *d, struct request *req);
/* http's `done`. */
void attempt_answered(void *userdata, void *context, const struct reply *reply);
/* Drops those in flight; their requests are still queued on disk. */
void attempt_drop_all(struct dispatch *d);

/* --- key.c --- */

/* A 401 to something sent in `epoch`. */
void key_refused(struct dispatch *d, unsigned epoch, const char *code, const char *message);
/* Sending goes on: the check was accepted, or (not `checked`) the operator says so. */
void key_resume(struct dispatch *d, bool checked);
/* Checks a rejected key when it is time, and there is a job to do it with. */
void key_turn(struct dispatch *d, int64_t now_ms);
/* When the next turn is due; INT64_MAX when nothing is planned. */
int64_t key_next_ms(const struct dispatch *d);
/* The answer to the check; it has no request. */
void key_checked(struct dispatch *d, const struct reply *reply);

#endif
