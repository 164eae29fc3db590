/* Exact Euclidean distances and the 95th-percentile Hausdorff distance. */
#include "evaluate/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Corners of a box of voxels; empty while to[0] is 0. */
typedef struct box {
  int64_t from[3], to[3];
} box;

/* Smallest box around both masks. Outside it there is nothing to measure from or to. */
static box bounding_box(const uint8_t *a, const uint8_t *b, const int64_t size[3]) {
  box found = {{size[0], size[1], size[2]}, {0, 0, 0}};
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t y = 0; y < size[1]; y++) {
      int64_t row = (x * size[1] + y) * size[2], first = 0, last = size[2] - 1;
      while (first <= last && !(a[row + first] | b[row + first])) first++;
      if (first > last) continue;
      while (!(a[row + last] | b[row + last])) last--;
      int64_t low[3] = {x, y, first}, high[3] = {x, y, last};
      for (int d = 0; d < 3; d++) {
        if (low[d] < found.from[d]) found.from[d] = low[d];
        if (high[d] >= found.to[d]) found.to[d] = high[d] + 1;
      }
    }
  return found;
}

/* Surface voxels of a mask within `crop`: those of the mask with a 6-neighbour outside it, where
 * beyond the image is outside. Returns their number. */
static int64_t surface(const uint8_t *mask, const int64_t size[3], const box *crop, uint8_t *out) {
  int64_t stride[3] = {size[1] * size[2], size[2], 1}, count = 0;
  for (int64_t x = crop->from[0]; x < crop->to[0]; x++)
    for (int64_t y = crop->from[1]; y < crop->to[1]; y++)
      for (int64_t z = crop->from[2]; z < crop->to[2]; z++) {
        const int64_t at[3] = {x, y, z};
        const uint8_t *voxel = mask + x * stride[0] + y * stride[1] + z;
        bool is_surface = false;
        for (int a = 0; a < 3 && *voxel && !is_surface; a++)
          is_surface =
              at[a] == 0 || at[a] == size[a] - 1 || !voxel[-stride[a]] || !voxel[stride[a]];
        *out++ = is_surface;
        count += is_surface;
      }
  return count;
}

/* Distances in mm from the voxels of `from` to the nearest of `to`, appended at `out`. */
static status directed_distances(const uint8_t *from, const uint8_t *to, const int64_t size[3],
                                 const double spacing_mm[3], float *squared_mm, float *out) {
  TRY(distance_transform(to, size, spacing_mm, squared_mm));
  int64_t voxels = size[0] * size[1] * size[2];
  for (int64_t v = 0; v < voxels; v++)
    if (from[v]) *out++ = sqrtf(squared_mm[v]);
  return OK;
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Sorts. Interpolates linearly between the two nearest ranks, as NumPy and PyTorch do. */
static double percentile95(float *values, int64_t count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  double rank = 0.95 * (double)(count - 1);
  int64_t below = (int64_t)rank, above = below + 1 < count ? below + 1 : below;
  double fraction = rank - (double)below;
  return (double)values[below] + fraction * ((double)values[above] - (double)values[below]);
}

status hausdorff95(const uint8_t *a, const uint8_t *b, const int64_t size[3],
                   const double spacing_mm[3], bool pooled, double *out) {
  *out = NAN;
  int64_t voxels;
  TRY(check_grid(size, spacing_mm, &voxels));
  box crop = bounding_box(a, b, size);
  if (crop.to[0] == 0) return OK;
  int64_t extent[3];
  for (int d = 0; d < 3; d++) extent[d] = crop.to[d] - crop.from[d];
  size_t cropped = (size_t)(extent[0] * extent[1] * extent[2]);

  uint8_t *surface_a = malloc(cropped), *surface_b = malloc(cropped);
  float *squared_mm = malloc(cropped * sizeof *squared_mm), *distances = NULL;
  status error = OK;
  if (!surface_a || !surface_b || !squared_mm) {
    error = error_out_of_memory(cropped * 6);
    goto done;
  }
  int64_t count_a = surface(a, size, &crop, surface_a),
          count_b = surface(b, size, &crop, surface_b);
  if (count_a == 0 || count_b == 0) goto done;
  distances = malloc((size_t)(count_a + count_b) * sizeof *distances);
  if (!distances) {
    error = error_out_of_memory((size_t)(count_a + count_b) * sizeof *distances);
    goto done;
  }
  error = directed_distances(surface_a, surface_b, extent, spacing_mm, squared_mm, distances);
  if (!error)
    error = directed_distances(surface_b, surface_a, extent, spacing_mm, squared_mm,
                               distances + count_a);
  if (error) goto done;
  if (pooled)
    *out = percentile95(distances, count_a + count_b);
  else
    *out = fmax(percentile95(distances, count_a), percentile95(distances + count_a, count_b));
done:
  free(surface_a);
  free(surface_b);
  free(squared_mm);
  free(distances);
  return error;
}
