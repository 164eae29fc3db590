#include "graph/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool shape_equal(const shape *a, const shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

shape shape_of(int rank, const int64_t *dims) {
  shape s = {.rank = rank};
  for (int i = 0; i < rank && i < MAX_DIMS; i++) s.dim[i] = dims[i];
  return s;
}

char *shape_format(char out[96], const shape *s) {
  if (s->rank < 0) return strcpy(out, "absent");
  if (s->rank == 0) return strcpy(out, "scalar");
  size_t used = 0;
  for (int i = 0; i < s->rank && used < 80; i++)
    used += (size_t)snprintf(out + used, 96 - used, i ? "×%lld" : "%lld", (long long)s->dim[i]);
  return out;
}

const char *dtype_name(dtype type) {
  static const char *const names[] = {
      [DTYPE_F32] = "f32", [DTYPE_I32] = "i32", [DTYPE_BF16] = "bf16", [DTYPE_REGIONS] = "sets"};
  return names[type];
}

double tensor_norm(const tensor *t) {
  if (t->dtype != DTYPE_F32) return NAN;
  const float *x = t->data;
  double sum = 0;
  for (int64_t i = 0; i < shape_elements(&t->shape); i++) sum += (double)x[i] * (double)x[i];
  return sqrt(sum);
}
