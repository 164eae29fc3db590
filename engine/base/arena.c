#include "base/arena.h"

#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 64 * 1024 };

struct arena_block {
  struct arena_block *next;
  size_t used, capacity;
  _Alignas(16) unsigned char data[];
};

void *arena_alloc(arena *a, size_t bytes) {
  size_t size = (bytes + 15) & ~(size_t)15;
  struct arena_block *block = a->blocks;
  if (size < bytes || !block || block->capacity - block->used < size) {
    size_t capacity = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    block = size < bytes ? NULL : calloc(1, sizeof *block + capacity);
    if (!block) memory_end(bytes);
    block->capacity = capacity;
    block->next = a->blocks;
    a->blocks = block;
  }
  void *result = block->data + block->used;
  block->used += size;
  a->used_bytes += size;
  return result;
}

char *arena_strndup(arena *a, const char *text, size_t length) {
  char *copy = arena_alloc(a, length + 1);
  memcpy(copy, text, length);
  return copy;
}

char *arena_strdup(arena *a, const char *text) {
  return arena_strndup(a, text, strlen(text));
}

char *arena_printf(arena *a, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  char *text = arena_alloc(a, (size_t)(length < 0 ? 0 : length) + 1);
  if (length > 0) vsnprintf(text, (size_t)length + 1, format, args);
  va_end(args);
  return text;
}

void *arena_copy(arena *a, const void *data, size_t bytes) {
  void *copy = arena_alloc(a, bytes);
  if (bytes) memcpy(copy, data, bytes);
  return copy;
}

void arena_free(arena *a) {
  for (struct arena_block *block = a->blocks, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  *a = (arena){0};
}

void arena_grow(arena *a, void **items, int count, int *capacity, size_t element_bytes) {
  if (count < *capacity) return;
  int grown = *capacity ? *capacity * 2 : 8;
  void *moved = arena_alloc(a, (size_t)grown * element_bytes);
  if (count) memcpy(moved, *items, (size_t)count * element_bytes);
  *items = moved;
  *capacity = grown;
}
