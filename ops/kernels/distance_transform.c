#include "ops/kernels/distance_transform.h"

#include <math.h>

/* Scratch of one line of the separable transform. */
typedef struct envelope {
  double *height;  /* squared distance so far, by position */
  double *from;    /* where each parabola begins to be the lowest */
  int64_t *vertex; /* positions of the parabolas of the lower envelope */
} envelope;

static int64_t longest_side(const int64_t size[3]) {
  int64_t longest = size[0];
  for (int a = 1; a < 3; a++)
    if (size[a] > longest) longest = size[a];
  return longest;
}

size_t distance_transform_scratch(const int64_t size[3]) {
  return (size_t)longest_side(size) * (2 * sizeof(double) + sizeof(int64_t));
}

/* Along one line: squared[q] ← min over p of squared[p] + (spacing·(q − p))². The minimum is the
 * lower envelope of one parabola per position (algorithm 1 of the paper). */
static void transform_line(const envelope *e, float *squared, int64_t extent, int64_t stride,
                           double spacing) {
  double square = spacing * spacing;
  int64_t parabolas = 0;
  for (int64_t q = 0; q < extent; q++) {
    e->height[q] = (double)squared[q * stride];
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
    squared[q * stride] = (float)(square * apart * apart + e->height[e->vertex[k]]);
  }
}

void distance_transform(float *squared, const int64_t size[3], const double spacing[3],
                        void *scratch) {
  int64_t longest = longest_side(size), plane = size[1] * size[2];
  double *numbers = scratch;
  envelope e = {numbers, numbers + longest, (int64_t *)(numbers + 2 * longest)};
  for (int64_t line = 0; line < size[0] * size[1]; line++)
    transform_line(&e, squared + line * size[2], size[2], 1, spacing[2]);
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t z = 0; z < size[2]; z++)
      transform_line(&e, squared + x * plane + z, size[1], size[2], spacing[1]);
  for (int64_t line = 0; line < plane; line++)
    transform_line(&e, squared + line, size[0], plane, spacing[0]);
}
