/* What cancel.c (the loop) and cancel_source.c, cancel_report.c (where requests come from, what is
 * said of them) share. */
#ifndef PULSE_CTL_CANCEL_PRIVATE_H
#define PULSE_CTL_CANCEL_PRIVATE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "ctl/call.h"
#include "ctl/command.h"
#include "ctl/connection.h"
#include "ctl/input.h"
#include "ctl/progress.h"
#include "ctl/window.h"
#include "model/request.h"

/* Where requests come from: the command's arguments, or a file. */
struct cancel_source {
    const struct invocation *inv;
    bool from_file;
    int fd;
    struct input input;
    size_t next_argument;
    bool ended;
    int error;                       /* -errno: it can't be read on */
    char prefix[REQUEST_ID_MAX + 1]; /* of the request_ids that are made here */
    bool prefix_given;
    int64_t deadline_s; /* for lines that have none; 0 = the daemon's */
};

/* How many of what. */
struct cancel_tally {
    int64_t outcomes[OUTCOME_COUNT];
    int64_t unknown_outcomes; /* of a newer daemon */
    int64_t queued;           /* with --no-wait */
    int64_t coalesced;
    int64_t known;     /* with --no-wait: was asked for before, by the same request_id */
    int64_t bad_lines; /* that were not sent, or that the daemon called bad */
    int64_t refused;   /* queue full and the like */
};

struct cancel {
    const struct invocation *inv;
    bool json;
    bool wait;
    bool verbose; /* each job is told, not only those that went wrong */
    struct cancel_source source;
    struct connection connection;
    struct window window;
    struct progress progress;
    struct cancel_tally tally;
    sigset_t unblocked;
    int64_t reconnect_ms;
    int64_t repeat_at_ms; /* when postponed requests are sent again; 0 = none are */
    int64_t quiet_since_ms;
    bool why_asked;   /* since then */
    bool refused;     /* nothing more is sent */
    bool turned_away; /* the daemon wants nothing of this connection */
    bool lost;        /* the daemon went away and did not come back */
};

/* --- cancel_source.c --- */

/* Checks arguments and options, opens the file. `ret` is good for cancel_source_close() anyway. */
enum ctl_exit cancel_source_open(struct cancel_source *ret, const struct invocation *inv);
void cancel_source_close(struct cancel_source *s);

/* How many requests there will be, or -1. */
int64_t cancel_source_count(struct cancel_source *s);

/* The next line with its request_id. False: none yet, or none at all once `ended`. */
bool cancel_source_next(struct cancel_source *s, struct input_line *ret);

/* To wait for when there was no line: -1 = nothing. */
int cancel_source_fd(const struct cancel_source *s);
void cancel_source_read(struct cancel_source *s);

/* --- cancel_report.c --- */

/* All that is printed while cancel goes on. */
void cancel_report_bad(struct cancel *c, uint64_t number, const char *job_id, const char *what);
void cancel_report_result(struct cancel *c, const struct answer *a);
void cancel_report_queued(struct cancel *c, const struct answer *a);
void cancel_report_refused(struct cancel *c, const struct answer *a);

/* The summary, and advice when it was cut short. The exit status. */
enum ctl_exit cancel_report_end(struct cancel *c, int signal);

int64_t cancel_tally_done(const struct cancel_tally *t);

/* --- cancel_why.c --- */

/* Something came, nothing was to come, or the connection is another one. */
void cancel_why_reset(struct cancel *c);

/* How long until it has been quiet for too long; -1 = no matter how long. */
int cancel_why_timeout(const struct cancel *c);

/* Asks when it is time. 0 or -errno, as connection_send(). */
int cancel_why_ask(struct cancel *c);

/* Whether `a` is about this; tells what keeps requests from ending. */
bool cancel_why_answered(struct cancel *c, const struct answer *a);

#endif
