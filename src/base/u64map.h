/* A map from 64-bit keys to 64-bit values, 16 bytes a slot at a load of up to 7/8.
 *
 * The keys are expected to be spread already (hashes; small integers go through u64map_mix()).
 * It is split into sub-tables that grow one at a time by a quarter, so that a million entries need
 * some 20 MB and never twice that while growing. Key 0 is not allowed. */
#ifndef PULSE_BASE_U64MAP_H
#define PULSE_BASE_U64MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct u64map;

/* NULL when out of memory. */
struct u64map *u64map_create(void);
void u64map_destroy(struct u64map *m);

size_t u64map_count(const struct u64map *m);

/* Inserts or replaces. 0 or -ENOMEM. */
int u64map_put(struct u64map *m, uint64_t key, uint64_t value);
bool u64map_get(const struct u64map *m, uint64_t key, uint64_t *ret_value);
void u64map_remove(struct u64map *m, uint64_t key);
void u64map_clear(struct u64map *m);

/* Spreads an integer over 64 bits, one to one; 0 only for 0. */
uint64_t u64map_mix(uint64_t x);

/* SipHash-2-4 of Aumasson and Bernstein; never 0, so that it can be a key. */
uint64_t u64map_hash(const uint8_t key[static 16], const void *data, size_t len);

#endif
