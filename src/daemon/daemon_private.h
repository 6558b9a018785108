/* The state of the daemon, and what its files do for each other. Loop thread.
 *
 *   daemon.c  builds and wires the parts; status, the queue's news, reload, signals
 *   key.c     a rejected key
 *   admin.c   what operators ask of several parts at once
 *   stop.c    the order of stopping */
#ifndef PULSE_DAEMON_DAEMON_PRIVATE_H
#define PULSE_DAEMON_DAEMON_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

#include "daemon/journal.h"
#include "daemon/watchdog.h"
#include "dispatch/dispatch.h"
#include "intake/control.h"
#include "intake/spool.h"
#include "model/config.h"
#include "model/request.h"
#include "queue/queue.h"
#include "results/results.h"

#define DAEMON_SIGNAL_COUNT 3

struct daemon {
    const char *config_file;
    struct config *config;
    struct config *config_at_start; /* what needs a restart is in force as it was then */
    uv_loop_t loop;
    uv_signal_t signals[DAEMON_SIGNAL_COUNT];
    uv_timer_t status_timer; /* runs only after something has happened */
    uv_timer_t grace_timer;
    struct watchdog watchdog;
    uv_prepare_t step; /* goes on with stopping, outside of anyone's callback */

    struct results *results;
    struct queue *queue;
    struct dispatch *dispatch;
    struct spool *spool;
    struct control *control;

    int64_t started_ms;
    uint64_t outcomes[OUTCOME_COUNT];
    struct journal journal;

    bool held;                       /* by the operator */
    char *key_code;                  /* why the key is rejected; NULL = it is not */
    char *key_trouble;               /* why the key file can't be used, as last logged */
    TAILQ_HEAD(, admin) withdrawals; /* under way */

    bool stopping;
    int exit_status;
    bool drained, spool_stopped, queue_stopping;
};

/* --- daemon.c --- */

/* Sends the status line to the service manager. */
void daemon_tell_status(struct daemon *d);

/* Gives dispatch what the configuration says. 0 or -ENOMEM. */
int daemon_configure_dispatch(struct daemon *d, const struct config *config);

/* --- key.c: for struct dispatch_host, which says what they do --- */

bool daemon_renew_key(void *userdata);
void daemon_key_changed(void *userdata, const char *code, const char *message);
/* What is wrong with the key, and what to do. */
int daemon_append_key_advice(const struct daemon *d, struct buf *b);

/* --- admin.c: for struct control_host, which says what they do --- */

void daemon_hold(void *userdata, bool held, queue_done_fn done, void *done_userdata);
void daemon_flush(void *userdata, queue_done_fn done, void *done_userdata);
void daemon_withdraw(void *userdata, struct queue_row *rows, size_t n_rows, queue_done_fn done,
                     void *done_userdata);

/* One has ended as withdrawn. */
void daemon_withdrawn(struct daemon *d, int64_t seq);

/* --- stop.c --- */

/* Begins to stop; the loop ends by itself when all is through. Not twice. */
void daemon_stop(struct daemon *d, const char *why);

/* Closes what was built before something failed; nothing was accepted yet. */
void daemon_take_down(struct daemon *d);

#endif
