#include "ops/sample/lines.h"

#include "ops/sample/channels.h"

#include <math.h>
#include <stdlib.h>

status filter_lines(volume *v, int64_t channel, int axis, line_filter filter, const void *context) {
  const int64_t C = v->channels, n = v->size[axis];
  const int64_t stride[3] = {v->size[1] * v->size[2] * C, v->size[2] * C, C};
  const int64_t first = first_channel(channel), end = end_of_channels(channel, C);
  const int a = axis == 0 ? 1 : 0, b = axis == 2 ? 1 : 2;
  float *in = malloc((size_t)(2 * n) * sizeof *in);
  if (!in) return error_out_of_memory((size_t)(2 * n) * sizeof *in);
  float *out = in + n;
  for (int64_t i = 0; i < v->size[a]; i++)
    for (int64_t j = 0; j < v->size[b]; j++)
      for (int64_t c = first; c < end; c++) {
        float *line = v->data + i * stride[a] + j * stride[b] + c;
        for (int64_t k = 0; k < n; k++) in[k] = line[k * stride[axis]];
        filter(context, in, out, n);
        for (int64_t k = 0; k < n; k++) line[k * stride[axis]] = out[k];
      }
  free(in);
  return OK;
}

gaussian gaussian_of(double sd, bool continues_edges) {
  gaussian g = {
      .radius = (int64_t)(4 * sd + 0.5), .continues_edges = continues_edges, .weight = {1}};
  double sum = 0;
  if (g.radius == 0) return g;
  for (int64_t d = -g.radius; d <= g.radius; d++) sum += exp(-0.5 * (double)(d * d) / (sd * sd));
  for (int64_t d = -g.radius; d <= g.radius; d++)
    g.weight[d + g.radius] = (float)(exp(-0.5 * (double)(d * d) / (sd * sd)) / sum);
  return g;
}

void smooth_line(const void *context, const float *in, float *out, int64_t n) {
  const gaussian *g = context;
  for (int64_t i = 0; i < n; i++) out[i] = 0;
  /* Weight by weight, in this order, so that the inner loop runs along the line. */
  for (int64_t d = -g->radius; d <= g->radius; d++) {
    float w = g->weight[d + g->radius];
    int64_t first = d < 0 ? -d : 0, end = d > 0 ? n - d : n;
    if (first > n) first = n;
    if (end < first) end = first;
    if (g->continues_edges) {
      for (int64_t i = 0; i < first; i++) out[i] += w * in[0];
      for (int64_t i = end; i < n; i++) out[i] += w * in[n - 1];
    }
    for (int64_t i = first; i < end; i++) out[i] += w * in[i + d];
  }
}

void ring_line(const void *context, const float *in, float *out, int64_t n) {
  const float *weight = context;
  for (int64_t i = 0; i < n; i++) out[i] = 0;
  /* Voxel by voxel of the source, so that the inner loops run along the line. */
  for (int64_t k = 0; k < n; k++) {
    const float *mirrored = weight + k + 1;
    for (int64_t i = 0; i < k; i++) out[i] += in[k] * (weight[k - i] + mirrored[i]);
    for (int64_t i = k; i < n; i++) out[i] += in[k] * (weight[i - k] + mirrored[i]);
  }
}
