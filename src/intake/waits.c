/* Chained buckets that double: adding, removing and settling take constant time. Loop thread. */
#include "intake/waits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/u64map.h"

#define FIRST_BUCKETS 64

int waits_init(struct waits *w)
{
    *w = (struct waits){ 0 };
    if (getrandom(w->key, sizeof(w->key), 0) != (ssize_t) sizeof(w->key))
        return -errno;
    return 0;
}

void waits_finish(struct waits *w)
{
    free(w->buckets);
    w->buckets = NULL;
    w->n_buckets = 0;
}

static struct wait_list *bucket_of(const struct waits *w, uint64_t hash)
{
    return &w->buckets[hash & (w->n_buckets - 1)];
}

static int grow(struct waits *w)
{
    struct wait_list *old = w->buckets;
    size_t n_old = w->n_buckets;
    size_t n_buckets = n_old == 0 ? FIRST_BUCKETS : n_old * 2;
    struct wait_list *buckets = calloc(n_buckets, sizeof(*buckets));
    if (buckets == NULL)
        return -ENOMEM;

    w->buckets = buckets;
    w->n_buckets = n_buckets;
    for (size_t i = 0; i < n_old; i++) {
        struct wait *wait;
        while ((wait = LIST_FIRST(&old[i])) != NULL) {
            LIST_REMOVE(wait, link);
            LIST_INSERT_HEAD(bucket_of(w, wait->hash), wait, link);
        }
    }
    free(old);
    return 0;
}

int waits_add(struct waits *w, struct wait *wait, const char *request_id)
{
    if (w->n == w->n_buckets) {
        int r = grow(w);
        if (r < 0)
            return r;
    }
    wait->request_id = strdup(request_id);
    if (wait->request_id == NULL)
        return -ENOMEM;
    wait->hash = u64map_hash(w->key, request_id, strlen(request_id));
    LIST_INSERT_HEAD(bucket_of(w, wait->hash), wait, link);
    w->n++;
    return 0;
}

void waits_remove(struct waits *w, struct wait *wait)
{
    if (wait->request_id == NULL)
        return;
    LIST_REMOVE(wait, link);
    free(wait->request_id);
    wait->request_id = NULL;
    w->n--;
}

static struct wait *find(const struct waits *w, const char *request_id, uint64_t hash)
{
    struct wait *wait;
    LIST_FOREACH(wait, bucket_of(w, hash), link) {
        if (wait->hash == hash && strcmp(wait->request_id, request_id) == 0)
            return wait;
    }
    return NULL;
}

void waits_settle(struct waits *w, const char *request_id, const char *line, size_t len)
{
    if (w->n == 0)
        return;
    uint64_t hash = u64map_hash(w->key, request_id, strlen(request_id));
    /* From the start each time: who is notified may take others out of the table. */
    struct wait *wait;
    while ((wait = find(w, request_id, hash)) != NULL) {
        waits_remove(w, wait);
        wait->notify(wait, line, len);
    }
}

void waits_release(struct waits *w)
{
    for (size_t i = 0; i < w->n_buckets; i++) {
        struct wait *wait;
        while ((wait = LIST_FIRST(&w->buckets[i])) != NULL) {
            waits_remove(w, wait);
            wait->notify(wait, NULL, 0);
        }
    }
}
