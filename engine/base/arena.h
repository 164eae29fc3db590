/* Memory with one owner and one life: everything allocated from an arena is freed with it. Used for
 * what lives as long as a phase (a parsed file, a graph, a plan). Not thread-safe. */
#ifndef STRATA_BASE_ARENA_H
#define STRATA_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

typedef struct arena {
  struct arena_block *blocks;
  size_t used_bytes; /* handed out so far */
} arena;

/* Zeroed memory aligned to 16 bytes. Never returns NULL: it is for descriptions (base/memory.h). Sizes
 * that come from a file must be bounded before they get here. */
void *arena_alloc(arena *a, size_t bytes);
char *arena_strdup(arena *a, const char *text);
char *arena_strndup(arena *a, const char *text, size_t length);
char *arena_printf(arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Copy of `bytes` bytes. */
void *arena_copy(arena *a, const void *data, size_t bytes);
/* Frees everything; the arena is empty and can be used again. */
void arena_free(arena *a);

/* Growing array in an arena: ensures room for one more element of `element_bytes` in *items. */
void arena_grow(arena *a, void **items, int count, int *capacity, size_t element_bytes);
#define ARENA_PUSH(a, items, count, capacity, value)                                               \
  do {                                                                                             \
    arena_grow((a), (void **)&(items), (count), &(capacity), sizeof *(items));                     \
    (items)[(count)++] = (value);                                                                  \
  } while (0)

#endif
