/* Open addressing with linear probing in sub-tables of any size.
 *
 * The top bits of a key choose its sub-table; the others, times the size, its home slot (so slots
 * lie in the order of the keys, and no division is needed). A removal moves later entries back
 * instead of leaving a mark: lookups stay short however often entries come and go. */
#include "base/u64map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_BITS 8
#define TABLES (1U << TABLE_BITS)
#define MIN_SLOTS 8

struct slot {
    uint64_t key; /* 0 = free */
    uint64_t value;
};

struct table {
    struct slot *slots;
    uint32_t size;
    uint32_t used; /* < size whenever there are slots, so that every probe ends */
};

struct u64map {
    size_t count;
    struct table tables[TABLES];
};

struct u64map *u64map_create(void)
{
    return calloc(1, sizeof(struct u64map));
}

void u64map_clear(struct u64map *m)
{
    for (size_t i = 0; i < TABLES; i++)
        free(m->tables[i].slots);
    memset(m, 0, sizeof(*m));
}

void u64map_destroy(struct u64map *m)
{
    if (m == NULL)
        return;
    u64map_clear(m);
    free(m);
}

size_t u64map_count(const struct u64map *m)
{
    return m->count;
}

static size_t table_of(uint64_t key)
{
    return (size_t) (key >> (64 - TABLE_BITS));
}

static uint32_t home_of(uint32_t size, uint64_t key)
{
    uint64_t high = (key << TABLE_BITS) >> 32;
    return (uint32_t) ((high * size) >> 32);
}

static uint32_t after(const struct table *t, uint32_t at)
{
    return at + 1 < t->size ? at + 1 : 0;
}

/* The slot of the key, or the free one where it would go. */
static struct slot *find(const struct table *t, uint64_t key)
{
    uint32_t at = home_of(t->size, key);
    while (t->slots[at].key != 0 && t->slots[at].key != key)
        at = after(t, at);
    return &t->slots[at];
}

static int resize(struct table *t, uint32_t size)
{
    struct table fresh = { .size = size, .used = t->used };
    fresh.slots = calloc(size, sizeof(*fresh.slots));
    if (fresh.slots == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->size; i++)
        if (t->slots[i].key != 0)
            *find(&fresh, t->slots[i].key) = t->slots[i];
    free(t->slots);
    *t = fresh;
    return 0;
}

int u64map_put(struct u64map *m, uint64_t key, uint64_t value)
{
    struct table *t = &m->tables[table_of(key)];
    if (t->size > 0) {
        struct slot *slot = find(t, key);
        if (slot->key == key) {
            slot->value = value;
            return 0;
        }
    }

    if (t->used + 1 > t->size - t->size / 8) {
        if (t->size > UINT32_MAX / 2)
            return -ENOMEM;
        uint32_t more = t->size / 4;
        int r = resize(t, t->size + (more > MIN_SLOTS ? more : MIN_SLOTS));
        if (r < 0)
            return r;
    }
    *find(t, key) = (struct slot){ .key = key, .value = value };
    t->used++;
    m->count++;
    return 0;
}

bool u64map_get(const struct u64map *m, uint64_t key, uint64_t *ret_value)
{
    const struct table *t = &m->tables[table_of(key)];
    if (t->used == 0 || key == 0)
        return false;
    const struct slot *slot = find(t, key);
    if (slot->key != key)
        return false;
    if (ret_value != NULL)
        *ret_value = slot->value;
    return true;
}

/* Gives memory back once a backlog has drained. */
static void shrink(struct table *t)
{
    if (t->used == 0) {
        free(t->slots);
        *t = (struct table){ 0 };
    } else if (t->size > 4 * MIN_SLOTS && t->used < t->size / 4) {
        /* Without memory for a smaller table the larger one serves as well. */
        (void) resize(t, t->used + t->used / 2 + MIN_SLOTS);
    }
}

void u64map_remove(struct u64map *m, uint64_t key)
{
    struct table *t = &m->tables[table_of(key)];
    if (t->used == 0 || key == 0)
        return;
    struct slot *slot = find(t, key);
    if (slot->key != key)
        return;

    uint32_t hole = (uint32_t) (slot - t->slots);
    for (uint32_t at = after(t, hole); t->slots[at].key != 0; at = after(t, at)) {
        /* An entry may move into the hole unless its home lies behind the hole (cyclically). */
        uint32_t home = home_of(t->size, t->slots[at].key);
        bool stays = hole <= at ? (home > hole && home <= at) : (home > hole || home <= at);
        if (!stays) {
            t->slots[hole] = t->slots[at];
            hole = at;
        }
    }
    t->slots[hole] = (struct slot){ 0 };
    t->used--;
    m->count--;
    shrink(t);
}

/* The finaliser of MurmurHash3. */
uint64_t u64map_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    x ^= x >> 33;
    return x;
}

/* --- SipHash-2-4 --- */

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t read_le(const uint8_t *p, size_t len)
{
    uint64_t x = 0;
    for (size_t i = 0; i < len; i++)
        x |= (uint64_t) p[i] << (8 * i);
    return x;
}

static void sip_round(uint64_t v[static 4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t u64map_hash(const uint8_t key[static 16], const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t k0 = read_le(key, 8);
    uint64_t k1 = read_le(key + 8, 8);
    uint64_t v[4] = {
        k0 ^ UINT64_C(0x736f6d6570736575),
        k1 ^ UINT64_C(0x646f72616e646f6d),
        k0 ^ UINT64_C(0x6c7967656e657261),
        k1 ^ UINT64_C(0x7465646279746573),
    };

    size_t rest = len;
    for (; rest >= 8; rest -= 8, p += 8) {
        uint64_t word = read_le(p, 8);
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t) len << 56 | read_le(p, rest);
    v[3] ^= last;
    sip_round(v);
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);

    uint64_t hash = v[0] ^ v[1] ^ v[2] ^ v[3];
    return hash != 0 ? hash : 1;
}
