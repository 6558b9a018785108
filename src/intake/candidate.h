/* Names in the spool directory that may be ripe later: files that were found, not announced as
 * written.
 *
 * Such a file is taken when nobody has it open for writing and it has not changed for settle_ms. Where
 * leases can't tell whether somebody has, what was seen of its making has to: a file that was opened as
 * it was made is left to the event of its closing, though not for ever, while a hard link is not. The
 * list is bounded; what does not fit is for a later scan. Runs on the loop thread. */
#ifndef PULSE_INTAKE_CANDIDATE_H
#define PULSE_INTAKE_CANDIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>

#define CANDIDATES_MAX 1024

/* What was seen of a file so far. Zeroed before the first look. */
struct candidate_look {
    int64_t changed_at_ms; /* monotonic; 0 = never looked at */
    int64_t opened_at_ms;  /* monotonic; 0 = not known to be open since it was made */
    struct timespec mtime, ctime;
    off_t size;
    int64_t writer_wait_ms; /* grows while somebody has it open */
    int64_t wait_ms;        /* set with CANDIDATE_LATER */
};

enum candidate_verdict {
    CANDIDATE_RIPE,
    CANDIDATE_LATER, /* look again in wait_ms */
    CANDIDATE_GONE,
    CANDIDATE_DIRECTORY,
};

/* *ret_stat is set for RIPE. */
enum candidate_verdict candidate_look(int dir_fd, const char *name, int64_t settle_ms,
                                      struct candidate_look *look, struct stat *ret_stat);

struct candidate {
    TAILQ_ENTRY(candidate) link;
    uint64_t hash;
    int64_t due_ms; /* monotonic */
    struct candidate_look look;
    char name[];
};
TAILQ_HEAD(candidate_list, candidate);

/* In the order of due_ms. */
struct candidates {
    struct candidate_list list;
    size_t n;
};

void candidates_init(struct candidates *cs);
void candidates_clear(struct candidates *cs);

/* A name that is in the list already stays as it is. 0, -ENOBUFS when the list is full (even if the
 * name is in it), -ENOMEM. */
int candidates_add(struct candidates *cs, const char *name, const struct candidate_look *look,
                   int64_t due_ms);

void candidates_remove(struct candidates *cs, const char *name);

/* Somebody opened the file. It counts when it is in the list and was not looked at yet. */
void candidates_opened(struct candidates *cs, const char *name, int64_t now_ms);
bool candidates_has_opened(const struct candidates *cs, const char *name);

/* Events are missing, closings perhaps among them. */
void candidates_forget_opened(struct candidates *cs);

/* Takes the first out of the list when it is due; the caller frees it or puts it back. */
struct candidate *candidates_take_due(struct candidates *cs, int64_t now_ms);
void candidates_put_back(struct candidates *cs, struct candidate *c, int64_t due_ms);

/* INT64_MAX when there is none. */
int64_t candidates_next_ms(const struct candidates *cs);

#endif
