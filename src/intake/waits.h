/* Who waits for the outcome of which request: a hash table by request_id. */
#ifndef PULSE_INTAKE_WAITS_H
#define PULSE_INTAKE_WAITS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

/* Embedded in the one who waits; several may wait for the same request. */
struct wait {
    LIST_ENTRY(wait) link;
    uint64_t hash;
    char *request_id; /* NULL = not in the table */
    /* The outcome, or NULL: it can't be waited for any longer. The wait has left the table. */
    void (*notify)(struct wait *wait, const char *line, size_t len);
};
LIST_HEAD(wait_list, wait);

struct waits {
    uint8_t key[16]; /* of the hash: clients choose request_ids */
    struct wait_list *buckets;
    size_t n_buckets;
    size_t n;
};

/* 0 or -errno. */
int waits_init(struct waits *w);
void waits_finish(struct waits *w);

/* Copies request_id. 0 or -ENOMEM. */
int waits_add(struct waits *w, struct wait *wait, const char *request_id);

/* No-op for one that is not in the table. */
void waits_remove(struct waits *w, struct wait *wait);

/* Notifies all who wait for this request. */
void waits_settle(struct waits *w, const char *request_id, const char *line, size_t len);

/* Notifies everyone that waiting is over. None may be added meanwhile. */
void waits_release(struct waits *w);

#endif
