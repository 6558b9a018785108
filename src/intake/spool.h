/* The spool directory: job-ID files to requests.
 *
 * A dropped file is claimed by renaming it into .claimed/ under a fresh UUIDv7, read in parts, each
 * part handed to the queue, and removed once all of it is committed and no writer has it open. The
 * claim's UUID and the line number make the request_id, so that a crash between commit and unlink
 * makes no second request. Runs on the loop thread. */
#ifndef PULSE_INTAKE_SPOOL_H
#define PULSE_INTAKE_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "queue/queue.h"

struct spool;

struct spool_options {
    const char *directory;
    int64_t max_file_bytes;
    int64_t settle_ms;
    int64_t rescan_interval_s;
    int64_t deadline_s;                      /* for lines that give none */
    void (*trouble_changed)(void *userdata); /* spool_trouble() says something else now */
    void *userdata;
};

struct spool_stats {
    uint64_t files;     /* taken whole */
    uint64_t rejected;  /* moved to rejected/ */
    uint64_t accepted;  /* requests put into the queue */
    uint64_t coalesced; /* of these, joined a chain */
};

/* What the file system of the spool does to us: -ENOSPC, -EDQUOT, -EIO or -EROFS while files can't
 * be claimed, moved or removed for it, and wait; 0 = nothing. */
int spool_trouble(const struct spool *s);

/* The directory may be missing: it is waited for. */
int spool_create(struct spool **ret, uv_loop_t *loop, struct queue *queue,
                 const struct spool_options *options);

/* Watches, finishes what is in .claimed/, scans. */
int spool_start(struct spool *s);

/* R settings. */
void spool_set_deadline(struct spool *s, int64_t deadline_s);

/* Work may fit again (the queue got shorter, storage recovered): goes on at once. Cheap to call. */
void spool_resume(struct spool *s);

/* Takes nothing more and closes its handles; `done` when they are closed and no put is open. */
void spool_stop(struct spool *s, void (*done)(void *userdata), void *userdata);

/* After spool_stop()'s `done`; accepts NULL. */
void spool_destroy(struct spool *s);

void spool_get_stats(const struct spool *s, struct spool_stats *ret);

#endif
