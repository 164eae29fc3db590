/* Weight files: safetensors (8-byte header length, JSON header, raw little-endian tensors), written
 * atomically: temporary file, fsync, rename, fsync of the folder. */
#ifndef STRATA_RUN_WEIGHTS_H
#define STRATA_RUN_WEIGHTS_H

#include "graph/tensor.h"
#include "base/status.h"

typedef struct named_tensor {
  const char *name;
  tensor tensor; /* F32 or I32; data borrowed when writing, inside the mapping when reading */
} named_tensor;

typedef struct weights {
  named_tensor *list; /* sorted by name */
  int count;
  const char *const *metadata; /* key, value, key, value, …, NULL */
  void *impl;
} weights;

/* Header, offsets, overlaps, sizes and names are checked against the file before use; F16, BF16 and
 * F64 tensors are converted to f32. */
status weights_read(const char *path, weights *out);
const named_tensor *weights_find(const weights *w, const char *name);
void weights_close(weights *w);
/* `metadata`: key, value, …, NULL; may be NULL. Same input, same bytes. */
status weights_write(const char *path, const named_tensor *list, int count,
                     const char *const *metadata);

#endif
