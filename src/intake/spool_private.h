/* Between spool.c (the life of the module, and when it works), spool_claims.c (its claims) and
 * spool_find.c (where files come from). */
#ifndef PULSE_INTAKE_SPOOL_PRIVATE_H
#define PULSE_INTAKE_SPOOL_PRIVATE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "intake/candidate.h"
#include "intake/claim.h"
#include "intake/spool.h"
#include "intake/spool_dir.h"
#include "intake/watch.h"

/* Claims in memory that the queue has not acknowledged, and those that wait for a writer. */
#define SPOOL_ACTIVE_MAX 256
#define SPOOL_WAITING_MAX 1024
/* Of the first, those that met with an error of their own: files that can't be dealt with must not
 * hold up all others. */
#define SPOOL_STUCK_MAX 64
/* Requests in open puts. */
#define SPOOL_REQUESTS_MAX 8192
/* Work between two turns of the loop. */
#define SPOOL_SLICE_FILES 32
#define SPOOL_SLICE_BYTES (256 * 1024)
#define SPOOL_SLICE_LOOKS 256
/* A directory that is there but can't be used is tried again, less and less often. */
#define SPOOL_REOPEN_FIRST_MS 250
/* Things that were logged once. */
#define SPOOL_NOTED_MAX 64

/* Whether the queue takes what it is given. */
enum spool_flow {
    SPOOL_FLOWS,
    SPOOL_HALTED,  /* it does not, or files can't be claimed: nothing new is begun */
    SPOOL_PROBING, /* one claim tries it again */
};

/* A walk through a directory, a few names at a time. */
struct spool_scan {
    DIR *dir; /* NULL = none is going on */
    bool wanted;
};

struct spool {
    uv_loop_t *loop;
    char *path;
    char *parent, *base; /* of the path */
    int64_t rescan_interval_ms;
    struct claim_shared shared;

    struct spool_dir *dir; /* NULL while it is missing */
    struct watch *watch;   /* NULL when there is no inotify */
    struct candidates candidates;
    struct spool_scan claimed_scan, scan;
    bool scan_overflowed; /* the scan saw more candidates than there is room for */
    bool scan_took;       /* the scan took something */
    int64_t scan_wait_ms;
    unsigned turn;

    /* Every claim is in one of these. */
    struct claim_list ready, putting, waiting, stuck;
    size_t n_claims, n_waiting, n_stuck;
    bool stuck_left; /* more are stuck than are in memory: a scan of .claimed/ finds them */
    enum spool_flow flow;

    /* Monotonic; INT64_MAX = not planned. */
    int64_t retry_at_ms; /* for the stuck and the halted */
    int64_t retry_wait_ms;
    int64_t scan_at_ms;   /* for candidates that did not fit */
    int64_t reopen_at_ms; /* for a directory that is there but can't be used */
    int64_t reopen_wait_ms;

    int dir_error;   /* logged; 0 = none */
    int watch_error; /* logged */
    int take_error;  /* logged; 0 once something was claimed, or a scan met with no error */
    bool scan_failed;
    int told_trouble;
    void (*trouble_changed)(void *userdata);
    void *userdata;
    bool full_logged;
    uint64_t noted[SPOOL_NOTED_MAX];
    size_t n_noted;

    uv_idle_t idle;  /* runs while there is work */
    uv_timer_t wake; /* for the earliest of what is planned */
    uv_timer_t rescan;
    unsigned handles; /* open ones */
    bool stopping;
    void (*stopped)(void *userdata);
    void *stopped_userdata;
};

/* What a slice may still do. */
struct spool_slice {
    struct claim_budget budget;
    int looks;
};

/* --- spool.c --- */

/* Something changed from outside: work soon, not inside the caller. */
void spool_update(struct spool *s);

/* --- spool_claims.c --- */

void spool_init_claims(struct spool *s);

/* All but those that the queue has: they come back by themselves. */
void spool_drop_claims(struct spool *s);

/* A new claim: begins it at once. */
void spool_begin_claim(struct spool *s, struct claim *c, struct spool_slice *slice);

/* One that is ready, as far as the slice goes. */
void spool_run_claim(struct spool *s, struct claim *c, struct spool_slice *slice);

/* Those that have waited long enough for a writer are ready. */
void spool_wake_claims(struct spool *s);

bool spool_has_claim(const struct spool *s, const char *uuid);
bool spool_has_room(const struct spool *s);

/* Nothing is taken until the retry. */
void spool_halt(struct spool *s);

/* When `retry_at_ms` has come. While the queue refuses, one claim tries it for all. */
void spool_retry(struct spool *s);

/* --- spool_find.c --- */

/* Opens the directory if it is there, watches it, and wants it scanned. */
void spool_open_directory(struct spool *s);
void spool_drop_directory(struct spool *s);

/* Looks whether the path still names the directory that is open. */
void spool_check_directory(struct spool *s);

/* Takes or looks at what comes next. False when there is nothing to do now. */
bool spool_find_next(struct spool *s, struct spool_slice *slice);

#endif
