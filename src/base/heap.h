/* A binary min-heap of (key, payload), where each payload remembers its place so that it can be
 * removed or moved from the middle. */
#ifndef PULSE_BASE_HEAP_H
#define PULSE_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>

#define HEAP_NOWHERE ((size_t) -1)

/* Embedded in the payload. Set `place` to HEAP_NOWHERE before first use. */
struct heap_node {
    int64_t key;
    size_t place;
};

struct heap {
    struct heap_node **nodes;
    size_t len;
    size_t size;
};

void heap_init(struct heap *h);
void heap_finish(struct heap *h);

/* 0 or -ENOMEM. */
int heap_push(struct heap *h, struct heap_node *node, int64_t key);

/* NULL when empty. */
struct heap_node *heap_min(const struct heap *h);

/* No-op for a node that is nowhere. */
void heap_remove(struct heap *h, struct heap_node *node);

#endif
