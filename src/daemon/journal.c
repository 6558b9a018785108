/* One log message for each outcome, with fields where the log is the journal. Loop thread.
 *
 * The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is one datagram a message. Not
 * sd_journal_send(): that waits for a journal that does not read, and the loop with it. */
#include "daemon/journal.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "base/buf.h"

/* A job ID has at most 255 bytes and a request ID 128; each is there twice. */
#define MESSAGE_MAX 4096

void journal_init(struct journal *j, const char *path)
{
    *j = (struct journal){ .fd = -1, .address = { .sun_family = AF_UNIX } };
    if (path == NULL)
        return;
    (void) snprintf(j->address.sun_path, sizeof(j->address.sun_path), "%s", path);
    j->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void journal_finish(struct journal *j)
{
    if (j->fd >= 0)
        (void) close(j->fd);
    j->fd = -1;
}

static enum log_level level_of(enum outcome outcome)
{
    switch (outcome) {
    case OUTCOME_CANCELLED:
        return LOG_LEVEL_DEBUG;
    case OUTCOME_TOO_LATE:
    case OUTCOME_NOT_FOUND:
    case OUTCOME_WITHDRAWN:
        return LOG_LEVEL_INFO;
    case OUTCOME_UNAUTHORIZED:
    case OUTCOME_FORBIDDEN:
    case OUTCOME_REJECTED:
    case OUTCOME_FAILED:
    case OUTCOME_EXPIRED:
    case OUTCOME_INVALID:
        break;
    }
    return LOG_LEVEL_WARNING;
}

/* Where the daemon's own news are "info", an outcome is a "notice": somebody asked about it. */
static int priority_of(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return LOG_ERR;
    case LOG_LEVEL_WARNING:
        return LOG_WARNING;
    case LOG_LEVEL_INFO:
        return LOG_NOTICE;
    case LOG_LEVEL_DEBUG:
        break;
    }
    return LOG_DEBUG;
}

static bool has_room(struct journal *j, int64_t now_ms)
{
    int64_t second = now_ms / 1000;
    if (second != j->second) {
        j->flooded = second == j->second + 1 && j->told > JOURNAL_OUTCOMES_PER_S;
        j->second = second;
        j->told = 0;
    }
    if (j->told < JOURNAL_OUTCOMES_PER_S) {
        j->told++;
        return true;
    }
    j->told = JOURNAL_OUTCOMES_PER_S + 1;
    if (!j->flooded)
        log_warning("outcomes: more than %d in a second; all of them are in the results log, and "
                    "only some of them here",
                    JOURNAL_OUTCOMES_PER_S);
    j->flooded = true;
    return false;
}

/* A bad line of a spool file stands for a job ID and may hold anything: with its length before it, no
 * newline in a value can begin another field. */
static int append_field(struct buf *b, const char *name, const char *value)
{
    uint64_t len = htole64(strlen(value));
    int r = buf_append_str(b, name);
    if (r == 0)
        r = buf_append_char(b, '\n');
    if (r == 0)
        r = buf_append(b, &len, sizeof(len));
    if (r == 0)
        r = buf_append_str(b, value);
    return r == 0 ? buf_append_char(b, '\n') : r;
}

/* Dropped when the journal does not take it, as there is nobody to tell. */
static void send_fields(const struct journal *j, const struct buf *b)
{
    (void) sendto(j->fd, b->data, b->len, MSG_NOSIGNAL | MSG_DONTWAIT,
                  (const struct sockaddr *) &j->address, sizeof(j->address));
}

void journal_outcome(struct journal *j, enum log_level level, int64_t now_ms, const char *job_id,
                     const char *request_id, enum outcome outcome)
{
    enum log_level own = level_of(outcome);
    if (own > level || !has_room(j, now_ms))
        return;
    const char *name = outcome_name(outcome);
    if (j->fd < 0) {
        log_write(own, "outcome: %s of job '%s' (request %s)", name, job_id, request_id);
        return;
    }

    char message[1024];
    (void) snprintf(message, sizeof(message), "outcome: %s of job '%s' (request %s)", name, job_id,
                    request_id);
    struct buf b;
    buf_init(&b, MESSAGE_MAX);
    int r = buf_printf(&b, "PRIORITY=%d\nSYSLOG_IDENTIFIER=pulse-canceld\nPULSE_OUTCOME=%s\n",
                       priority_of(own), name);
    if (r == 0)
        r = append_field(&b, "MESSAGE", message);
    if (r == 0)
        r = append_field(&b, "PULSE_REQUEST_ID", request_id);
    if (r == 0)
        r = append_field(&b, "PULSE_JOB_ID", job_id);
    if (r == 0)
        send_fields(j, &b);
    buf_finish(&b);
}
