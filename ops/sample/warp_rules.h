/* Where the voxels of a turned or bent crop come from, and how an image and a label map are read
 * there. */
#ifndef STRATA_OPS_SAMPLE_WARP_RULES_H
#define STRATA_OPS_SAMPLE_WARP_RULES_H

#include "base/rng.h"
#include "ops/sample/lines.h"

/* Beyond the crop: 0, or the value of the nearest voxel. */
enum { OUTSIDE_ZERO, OUTSIDE_EDGE };

/* random_affine. Output voxel → input voxel: middle + m · (index − middle). */
typedef struct turn_change {
  double m[3][3], middle[3];
  int outside;
} turn_change;

VOXEL_RULE void turn_rule(const turn_change *t, const int64_t index[3], double at[3]) {
  double from[3];
  for (int a = 0; a < 3; a++) from[a] = (double)index[a] - t->middle[a];
  for (int r = 0; r < 3; r++)
    at[r] = t->middle[r] + t->m[r][0] * from[0] + t->m[r][1] * from[1] + t->m[r][2] * from[2];
}

/* random_elastic. The field is one number of the stream for every voxel and axis, smoothed; across a
 * plane one slice for all, without the axis `normal` (−1: there is no plane). */
typedef struct elastic_change {
  rng random;
  gaussian smoothing;
  float magnitude;
  int normal, outside;
} elastic_change;

VOXEL_RULE float elastic_noise(float uniform) {
  return 2 * uniform - 1;
}

/* `by`: the displacements of the voxel, one for each axis but `normal`. */
VOXEL_RULE void elastic_rule(const float *by, float magnitude, int normal, const int64_t index[3],
                             double at[3]) {
  for (int a = 0; a < 3; a++) {
    at[a] = (double)index[a];
    if (a != normal) at[a] += (double)(magnitude * *by++);
  }
}

VOXEL_RULE void warp_move_inside(const int64_t size[3], double at[3]) {
  for (int a = 0; a < 3; a++) {
    double last = (double)(size[a] - 1);
    at[a] = at[a] < 0 ? 0 : at[a] > last ? last : at[a];
  }
}

/* Trilinear, 0 outside; all channels of the voxel. */
VOXEL_RULE void warp_read_image(const float *in, const int64_t size[3], int64_t channels,
                                const double at[3], float *out) {
  const int64_t stride[3] = {size[1] * size[2] * channels, size[2] * channels, channels};
  int64_t low[3];
  float weight[3][2];
  for (int a = 0; a < 3; a++) {
    double whole = floor(at[a]);
    low[a] = (int64_t)whole;
    weight[a][1] = (float)(at[a] - whole);
    weight[a][0] = 1 - weight[a][1];
  }
  for (int64_t c = 0; c < channels; c++) out[c] = 0;
  for (int corner = 0; corner < 8; corner++) {
    float w = 1;
    int64_t from = 0;
    bool within = true;
    for (int a = 0; a < 3; a++) {
      int64_t i = low[a] + (corner >> a & 1);
      within = within && i >= 0 && i < size[a];
      w *= weight[a][corner >> a & 1];
      from += i * stride[a];
    }
    for (int64_t c = 0; c < channels && within; c++) out[c] += w * in[from + c];
  }
}

/* The nearest voxel, 0 outside. */
VOXEL_RULE uint8_t warp_read_label(const uint8_t *in, const int64_t size[3], const double at[3]) {
  int64_t index = 0;
  for (int a = 0; a < 3; a++) {
    double i = rint(at[a]);
    if (!(i >= 0 && i < (double)size[a])) return 0;
    index = index * size[a] + (int64_t)i;
  }
  return in[index];
}

#endif
