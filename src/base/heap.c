/* The binary min-heap. Nodes with equal keys come out in any order. */
#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

void heap_init(struct heap *h)
{
    *h = (struct heap){ 0 };
}

void heap_finish(struct heap *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < h->len; i++)
        h->nodes[i]->place = HEAP_NOWHERE;
    free(h->nodes);
    heap_init(h);
}

static void put_at(struct heap *h, size_t place, struct heap_node *node)
{
    h->nodes[place] = node;
    node->place = place;
}

static void sift_up(struct heap *h, size_t place, struct heap_node *node)
{
    while (place > 0) {
        size_t parent = (place - 1) / 2;
        if (h->nodes[parent]->key <= node->key)
            break;
        put_at(h, place, h->nodes[parent]);
        place = parent;
    }
    put_at(h, place, node);
}

static void sift_down(struct heap *h, size_t place, struct heap_node *node)
{
    for (;;) {
        size_t child = place * 2 + 1;
        if (child >= h->len)
            break;
        if (child + 1 < h->len && h->nodes[child + 1]->key < h->nodes[child]->key)
            child++;
        if (node->key <= h->nodes[child]->key)
            break;
        put_at(h, place, h->nodes[child]);
        place = child;
    }
    put_at(h, place, node);
}

int heap_push(struct heap *h, struct heap_node *node, int64_t key)
{
    if (h->len == h->size) {
        size_t size = h->size > 0 ? h->size * 2 : 16;
        struct heap_node **nodes = reallocarray(h->nodes, size, sizeof(*nodes));
        if (nodes == NULL)
            return -ENOMEM;
        h->nodes = nodes;
        h->size = size;
    }
    node->key = key;
    sift_up(h, h->len++, node);
    return 0;
}

struct heap_node *heap_min(const struct heap *h)
{
    return h->len > 0 ? h->nodes[0] : NULL;
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    if (node->place == HEAP_NOWHERE)
        return;
    size_t place = node->place;
    node->place = HEAP_NOWHERE;

    struct heap_node *last = h->nodes[--h->len];
    if (last == node)
        return;
    if (place > 0 && last->key < h->nodes[(place - 1) / 2]->key)
        sift_up(h, place, last);
    else
        sift_down(h, place, last);
}
