/* Exact Euclidean distances. */
#include "evaluate/metrics.h"

#include <math.h>
#include <stdlib.h>

static status check_grid(const int64_t size[3], const double spacing_mm[3], int64_t *voxels) {
  *voxels = 1;
  for (int a = 0; a < 3; a++) {
    if (size[a] < 1 || __builtin_mul_overflow(*voxels, size[a], voxels) || *voxels > INT64_MAX / 16)
      return error_new(ERROR_DATA, NOWHERE, "a mask of %lld × %lld × %lld voxels has no distances",
                       (long long)size[0], (long long)size[1], (long long)size[2]);
    if (!(spacing_mm[a] > 0) || !isfinite(spacing_mm[a]))
      return error_new(ERROR_DATA, NOWHERE,
                       "the voxel spacing along axis %d is %g mm; it must be "
                       "positive",
                       a, spacing_mm[a]);
  }
  return OK;
}

/* Scratch of one line of the separable transform. */
typedef struct envelope {
  double *height;  /* squared distance so far, by position */
  int64_t *vertex; /* positions of the parabolas of the lower envelope */
  double *from;    /* where each of them begins to be the lowest */
} envelope;

static status envelope_allocate(envelope *e, int64_t extent) {
  size_t n = (size_t)extent;
  *e = (envelope){malloc(n * sizeof *e->height), malloc(n * sizeof *e->vertex),
                  malloc(n * sizeof *e->from)};
  return e->height && e->vertex && e->from ? OK : error_out_of_memory(n * 24);
}

static void envelope_free(envelope *e) {
  free(e->height);
  free(e->vertex);
  free(e->from);
}

/* Along one line: distance[q] ← min over p of distance[p] + (spacing·(q − p))². The minimum is the
 * lower envelope of one parabola per position (Felzenszwalb & Huttenlocher 2012, algorithm 1). */
static void transform_line(envelope *e, float *distance, int64_t extent, int64_t stride,
                           double spacing) {
  double square = spacing * spacing;
  int64_t parabolas = 0;
  for (int64_t q = 0; q < extent; q++) {
    e->height[q] = (double)distance[q * stride];
    if (isinf(e->height[q])) continue;
    double begin = -INFINITY;
    while (parabolas > 0) {
      int64_t v = e->vertex[parabolas - 1];
      begin =
          (e->height[q] - e->height[v]) / (2 * square * (double)(q - v)) + 0.5 * (double)(q + v);
      if (begin > e->from[parabolas - 1]) break;
      parabolas--;
      begin = -INFINITY;
    }
    e->vertex[parabolas] = q;
    e->from[parabolas++] = begin;
  }
  if (parabolas == 0) return;
  int64_t k = 0;
  for (int64_t q = 0; q < extent; q++) {
    while (k + 1 < parabolas && e->from[k + 1] <= (double)q) k++;
    double apart = (double)(q - e->vertex[k]);
    distance[q * stride] = (float)(square * apart * apart + e->height[e->vertex[k]]);
  }
}

status distance_transform(const uint8_t *mask, const int64_t size[3], const double spacing_mm[3],
                          float *squared_mm) {
  int64_t voxels;
  TRY(check_grid(size, spacing_mm, &voxels));
  int64_t longest = size[0];
  for (int a = 1; a < 3; a++)
    if (size[a] > longest) longest = size[a];
  envelope e;
  status error = envelope_allocate(&e, longest);
  for (int64_t v = 0; v < voxels && !error; v++) squared_mm[v] = mask[v] ? 0.0f : INFINITY;
  int64_t plane = size[1] * size[2];
  if (!error) {
    for (int64_t line = 0; line < size[0] * size[1]; line++)
      transform_line(&e, squared_mm + line * size[2], size[2], 1, spacing_mm[2]);
    for (int64_t x = 0; x < size[0]; x++)
      for (int64_t z = 0; z < size[2]; z++)
        transform_line(&e, squared_mm + x * plane + z, size[1], size[2], spacing_mm[1]);
    for (int64_t line = 0; line < plane; line++)
      transform_line(&e, squared_mm + line, size[0], plane, spacing_mm[0]);
  }
  envelope_free(&e);
  return error;
}
