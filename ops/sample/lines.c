#include "ops/sample/lines.h"

#include <stdlib.h>

status filter_lines(volume *v, int axis, line_filter filter, const void *context) {
  const int64_t C = v->channels, n = v->size[axis];
  const int64_t stride[3] = {v->size[1] * v->size[2] * C, v->size[2] * C, C};
  const int a = axis == 0 ? 1 : 0, b = axis == 2 ? 1 : 2;
  float *in = malloc((size_t)(2 * n) * sizeof *in);
  if (!in) return error_out_of_memory((size_t)(2 * n) * sizeof *in);
  float *out = in + n;
  for (int64_t i = 0; i < v->size[a]; i++)
    for (int64_t j = 0; j < v->size[b]; j++)
      for (int64_t c = 0; c < C; c++) {
        float *line = v->data + i * stride[a] + j * stride[b] + c;
        for (int64_t k = 0; k < n; k++) in[k] = line[k * stride[axis]];
        filter(context, in, out, n);
        for (int64_t k = 0; k < n; k++) line[k * stride[axis]] = out[k];
      }
  free(in);
  return OK;
}
