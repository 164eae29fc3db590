/* Finds names among many. */
#ifndef STRATA_BASE_INDEX_H
#define STRATA_BASE_INDEX_H

#include "base/arena.h"

/* A hash table from names to the numbers they were added with. Zero-initialise; memory is the
 * arena's. */
typedef struct name_index {
  struct index_slot *slots;
  int count, capacity; /* a power of two, at most half full */
} name_index;

/* The number of `name`, or −1. */
int index_find(const name_index *x, const char *name);
/* `name` (borrowed) gets a `number` ≥ 0 in place of the one it may have. */
void index_add(arena *memory, name_index *x, const char *name, int number);

#endif
