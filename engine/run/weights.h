/* Weight files: safetensors (8-byte header length, JSON header, raw little-endian tensors), written
 * atomically: temporary file, fsync, rename, fsync of the folder. */
#ifndef STRATA_RUN_WEIGHTS_H
#define STRATA_RUN_WEIGHTS_H

#include "base/status.h"
#include "graph/tensor.h"

enum {
  WEIGHTS_MAX_HEADER_BYTES = 8 << 20, /* about fifty thousand tensors */
  WEIGHTS_MAX_NAME_BYTES = 1000
};

typedef struct named_tensor {
  const char *name;
  /* F32 or I32. Data is borrowed when writing. When reading it lies in the mapping where type and
   * alignment allow, else in a converted copy; either way it lives until weights_close, and writing
   * to it changes neither the file nor another reader. */
  tensor tensor;
} named_tensor;

typedef struct weights {
  named_tensor *list; /* sorted by name (strcmp) */
  int count;
  const char *const *metadata; /* key, value, key, value, …, NULL; sorted by key */
  void *impl;
} weights;

/* Header, offsets, overlaps, sizes and names are checked against the file before use. F16, BF16 and
 * F64 tensors become F32; I64, I16, I8, U8 and BOOL become I32 (values that do not fit are an
 * error). On error *out is empty. The file must not be cut short while it is open; weights_write
 * replaces files whole, so it never does that. */
status weights_read(const char *path, weights *out);
/* NULL when there is none of that name. */
const named_tensor *weights_find(const weights *w, const char *name);
void weights_close(weights *w);
/* `metadata`: key, value, …, NULL; may be NULL. Same input, in any order, same bytes. */
status weights_write(const char *path, const named_tensor *list, int count,
                     const char *const *metadata);

/* ---- For readers of other formats (engine/weights) ----------------------------------------- */

/* An empty set, to be closed in any case; `weights_add` tensors, then `weights_end`. */
status weights_begin(weights *out);
/* `t.data` is heap memory, which the set frees. The name is copied. */
void weights_add(weights *w, const char *name, tensor t);
/* Sorts; a name that cannot be written, or that two tensors have, is an error. */
status weights_end(weights *w);
/* Tensor i of the list is called names[i] from now on; NULL drops it. Sorts as weights_end does. */
status weights_rename(weights *w, const char *const *names);
/* "PATH is not a usable weight file: " in front of an error's message. */
status weights_refused(const char *path, status error);

#endif
