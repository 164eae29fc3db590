#include "base/index.h"

#include "base/text.h"

#include <string.h>

enum { FIRST_CAPACITY = 16 };

typedef struct index_slot {
  const char *name; /* NULL: the slot is free */
  int number;
} index_slot;

/* Where `name` is, or the free slot where it belongs. */
static index_slot *slot_of(const name_index *x, const char *name) {
  uint64_t mask = (uint64_t)x->capacity - 1, at = text_hash(name) & mask;
  while (x->slots[at].name && strcmp(x->slots[at].name, name) != 0) at = (at + 1) & mask;
  return &x->slots[at];
}

int index_find(const name_index *x, const char *name) {
  if (x->count == 0) return -1;
  const index_slot *slot = slot_of(x, name);
  return slot->name ? slot->number : -1;
}

void index_add(arena *memory, name_index *x, const char *name, int number) {
  if (2 * (x->count + 1) > x->capacity) {
    name_index larger = {.count = x->count,
                         .capacity = x->capacity ? 2 * x->capacity : FIRST_CAPACITY};
    larger.slots = arena_alloc(memory, (size_t)larger.capacity * sizeof *larger.slots);
    for (int i = 0; i < x->capacity; i++)
      if (x->slots[i].name) *slot_of(&larger, x->slots[i].name) = x->slots[i];
    *x = larger;
  }
  index_slot *slot = slot_of(x, name);
  x->count += slot->name == NULL;
  *slot = (index_slot){name, number};
}
