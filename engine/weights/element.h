/* Element types of weight files, by their names in safetensors, and what they become here: F16, BF16
 * and F64 become F32; I64, I16, I8, U8 and BOOL become I32. */
#ifndef STRATA_WEIGHTS_ELEMENT_H
#define STRATA_WEIGHTS_ELEMENT_H

#include "base/status.h"
#include "graph/tensor.h"

typedef struct element_type {
  const char *name; /* "F16" */
  size_t bytes;
  dtype becomes;
  /* False when a value does not fit. `source` is aligned to its element. */
  bool (*convert)(const void *source, void *target, int64_t n);
} element_type;

/* NULL when there is none of that name. */
const element_type *element_type_of(const char *name);
/* Is a tensor of this type used as it lies in the file? */
bool element_is_native(const element_type *type);
/* `n` elements in the type Strata computes in. *out is heap memory that the caller frees; `source`
 * needs no alignment. A value that does not fit is an error; `name` is the tensor's, for it. */
status element_convert(const element_type *type, const void *source, int64_t n, const char *name,
                       void **out);

#endif
