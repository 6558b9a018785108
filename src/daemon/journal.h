/* Outcomes in the daemon's own log, so that `journalctl PULSE_JOB_ID=…` finds them. Loop thread.
 *
 * The results log is the record; this is for whoever looks at the journal when something is wrong.
 * `cancelled` is worth a line at log.level debug only, and in a flood most of the others are left
 * out: the journal would drop what matters. */
#ifndef PULSE_DAEMON_JOURNAL_H
#define PULSE_DAEMON_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/log.h"
#include "model/request.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define JOURNAL_OUTCOMES_PER_S 100

struct journal {
    int fd; /* -1 = the log is not the journal, and has no fields */
    struct sockaddr_un address;
    int64_t second;
    unsigned told; /* in that second */
    bool flooded;  /* said so, and it has not ended yet */
};

/* `path` is the journal's socket, or NULL for the plain log. */
void journal_init(struct journal *j, const char *path);
void journal_finish(struct journal *j);

/* `level` is that of log.level; `now_ms` is monotonic. */
void journal_outcome(struct journal *j, enum log_level level, int64_t now_ms, const char *job_id,
                     const char *request_id, enum outcome outcome);

#endif
