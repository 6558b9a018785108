/* One claimed file: from the rename into .claimed/ to its removal.
 *
 * It is read in parts; each part is one put, and only one is open at a time. It is removed when all
 * of it is committed and no writer has it open. Its phases are small steps, each of which may be
 * repeated, so that a claim can be left at any point, by a crash too, and begun anew: the same
 * lines make the same request_ids. Runs on the loop thread. */
#ifndef PULSE_INTAKE_CLAIM_H
#define PULSE_INTAKE_CLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>

#include "base/uuid.h"
#include "intake/reject.h"
#include "intake/spool.h"
#include "intake/spool_dir.h"
#include "queue/queue.h"

/* After so many bad lines the rest of a file is not looked at. */
#define CLAIM_BAD_LINES_MAX 100
#define CLAIM_LINE_MAX (1024 * 1024)
#define CLAIM_WINDOW (64 * 1024)
#define CLAIM_PART_LINES 1000

/* A line of the part that is being made or committed. */
struct claim_item {
    off_t offset;
    uint64_t number;
    bool bad;
};

struct claim;

/* What all claims share. */
struct claim_shared {
    struct queue *queue;
    int64_t max_file_bytes;
    int64_t settle_ms;
    int64_t deadline_s;
    struct spool_stats stats;
    size_t open_requests; /* in puts that are open */
    size_t part_lines;    /* most lines a part; fewer while the queue is nearly full */
    /* A put that was open is back. */
    void (*woken)(struct claim *c, bool refused, void *userdata);
    void *userdata;

    /* Scratch, used within one step only. */
    char *window; /* CLAIM_WINDOW bytes */
    struct request *requests[CLAIM_PART_LINES];
    struct claim_item items[CLAIM_PART_LINES];
    size_t n;
};

enum claim_phase {
    CLAIM_OPENING,
    CLAIM_CHECKING, /* for NUL bytes, before anything is taken */
    CLAIM_NAMED,    /* empty: the name is its only line */
    CLAIM_READING,
    CLAIM_SKIPPING, /* the end of a line that is too long */
    CLAIM_DISOWNED, /* lines whose request_id belongs to another job become invalid ones */
    CLAIM_CUTTING,  /* too many bad lines: the rest goes to rejected/ */
    CLAIM_ENDING,   /* all is committed */
};

/* What is to be done with the claim after a step. */
enum claim_next {
    CLAIM_MORE,    /* step again */
    CLAIM_PUT,     /* a put is open: `woken` comes */
    CLAIM_WRITER,  /* somebody may still write: step again after claim_wait_ms() */
    CLAIM_REFUSED, /* the queue is full or in trouble */
    CLAIM_STUCK,   /* an error that may pass: step again later */
    CLAIM_OVER,    /* gone from .claimed/: destroy it */
};

TAILQ_HEAD(claim_list, claim);

struct claim {
    struct claim_shared *shared;
    struct spool_dir *dir;
    int holder_fd;    /* the directory that has the file: .claimed/, or one of its own in there */
    char *holder;     /* the name of that one; NULL = .claimed/ */
    char *entry;      /* its name in there */
    const char *name; /* what it was called in the spool directory; into `entry` */
    char uuid[UUID_TEXT_MAX];
    bool was_empty;
    mode_t mode;
    int fd; /* -1 = not opened, or empty and not readable */
    enum claim_phase phase;
    enum claim_phase resume_phase; /* after DISOWNED */
    bool checked;                  /* for NUL bytes */
    bool synced;                   /* its name lasts */
    bool named;                    /* it was empty, and its name was its only line */
    bool noted;                    /* the queue may have kept how far it is */
    int logged_error;

    /* All before it is committed. */
    off_t offset;
    uint64_t number; /* of the last line before it */
    unsigned bad;
    uint64_t logged_number, logged_disowned; /* bad lines up to them are in the log */
    off_t look_offset;                       /* CHECKING, SKIPPING: where to go on */

    /* The part that is being committed: where its end will get us. */
    off_t begin_offset; /* of its first line */
    off_t next_offset;
    uint64_t next_number;
    unsigned next_bad;
    bool next_ends; /* where the file ends, as far as is known */
    struct claim_item *items;
    size_t n_items;

    struct reject_rest rest;

    /* Where leases are not to be had: when it was last seen to change. */
    struct timespec seen_mtime;
    off_t seen_size;
    int64_t seen_at_ms; /* 0 = never looked at */

    /* The owner's. */
    TAILQ_ENTRY(claim) link;
    struct claim_list *list;
    int64_t due_ms;
};

/* What a step may still cost before the loop is due again. */
struct claim_budget {
    int64_t bytes;
    int files;
};

/* Claims the file `name` of the directory, whose lstat is given. 0 or -errno, and nothing happened:
 * -ENOENT when it is gone. */
int claim_take(struct claim **ret, struct claim_shared *shared, struct spool_dir *dir,
               const char *name, const struct stat *st);

/* Goes on with one that lies in .claimed/. -ENOENT gone (or an empty directory, now removed);
 * -EINVAL not a claim; other -errno. */
int claim_recover(struct claim **ret, struct claim_shared *shared, struct spool_dir *dir,
                  const char *entry);

/* One step. */
enum claim_next claim_step(struct claim *c, struct claim_budget *budget);

/* How long to wait for a writer. */
int64_t claim_wait_ms(const struct claim_shared *shared);

/* Not while a put is open. What lies in .claimed/ stays there. */
void claim_destroy(struct claim *c);

#endif
