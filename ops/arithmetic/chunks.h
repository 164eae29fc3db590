/* Splitting flat arrays into tasks. The split depends on the number of elements alone, so results
 * are the same on any number of threads. */
#ifndef STRATA_OPS_CHUNKS_H
#define STRATA_OPS_CHUNKS_H

#include "graph/op.h"

/* 64 KiB of floats: long enough to hide a task's start, short enough to balance. */
enum { CHUNK_ELEMENTS = 16384 };

typedef struct span {
  int64_t first, count;
} span;

static inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

static inline int64_t chunk_count(int64_t elements) {
  return divide_up(elements, CHUNK_ELEMENTS);
}

/* Part `task` of `total` things cut into pieces of `length`. */
static inline span piece_of(int64_t total, int64_t length, int64_t task) {
  int64_t first = task * length;
  return (span){first, total - first < length ? total - first : length};
}

static inline span chunk_of(int64_t elements, int64_t task) {
  return piece_of(elements, CHUNK_ELEMENTS, task);
}

/* Rows of `width` elements per task, about a chunk in all. */
static inline int64_t rows_per_task(int64_t width) {
  return width >= CHUNK_ELEMENTS ? 1 : CHUNK_ELEMENTS / width;
}

static inline int64_t last_extent(const tensor *t) {
  return t->shape.rank > 0 ? t->shape.dim[t->shape.rank - 1] : 1;
}

/* Copies `count` floats; short rows, of which channels-last tensors are made, stay inline. */
static inline void copy_row(float *restrict to, const float *restrict from, int64_t count) {
  if (count > 512) {
    __builtin_memcpy(to, from, (size_t)count * sizeof *to);
    return;
  }
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) __builtin_memcpy(to + i, from + i, 16 * sizeof *to);
  for (; i < count; i++) __builtin_memcpy(to + i, from + i, sizeof *to);
}

#endif
