/* A one-dimensional filter along an axis of an image: how separable sample operators are written.
 */
#ifndef STRATA_OPS_SAMPLE_LINES_H
#define STRATA_OPS_SAMPLE_LINES_H

#include "data/volume.h"
#include "ops/sample/voxel_rule.h"

#include <math.h>

/* `out` and `in` are lines of n voxels of one channel. */
typedef void (*line_filter)(const void *context, const float *in, float *out, int64_t n);

/* Filters every line of a channel, or of ALL_CHANNELS, along the axis, in place. */
status filter_lines(volume *v, int64_t channel, int axis, line_filter filter, const void *context);

/* A Gaussian, cut at 4 standard deviations and normalized to sum 1, as scipy.ndimage has it. */
enum { GAUSSIAN_RADIUS_MAX = 64 };
typedef struct gaussian {
  int64_t radius;
  bool continues_edges; /* beyond the ends: the end values, or 0 */
  float weight[2 * GAUSSIAN_RADIUS_MAX + 1];
} gaussian;

/* `sd` in voxels, at most 16; one of hardly any width leaves all as it is. */
gaussian gaussian_of(double sd, bool continues_edges);

/* random_blur */
typedef struct blur_change {
  int64_t channel;   /* or ALL_CHANNELS */
  gaussian along[3]; /* by axis */
} blur_change;

/* A line_filter whose context is a gaussian. */
void smooth_line(const void *context, const float *in, float *out, int64_t n);

/* random_sharpen */
typedef struct sharpen_change {
  int64_t channel; /* or ALL_CHANNELS */
  float strength;
  gaussian smooth;
} sharpen_change;

/* `low` and `high` are of the channel. */
VOXEL_RULE float sharpen_rule(float v, float smooth, float strength, float low, float high) {
  float sharp = v + strength * (v - smooth);
  return sharp < low ? low : sharp > high ? high : sharp;
}

/* random_low_resolution: a line of n voxels is read at m evenly spread ones (the nearest) and those
 * are joined linearly. */
typedef struct coarse_change {
  int64_t channel; /* or ALL_CHANNELS */
  double zoom;
  unsigned axes; /* bits */
} coarse_change;

VOXEL_RULE int64_t coarse_count(int64_t n, double zoom) {
  int64_t m = (int64_t)rint((double)n * zoom);
  return m < 1 ? 1 : m;
}

/* Voxel i of the result; the line's voxels lie `stride` values apart. */
VOXEL_RULE float coarse_rule(const float *line, int64_t stride, int64_t n, int64_t m, int64_t i) {
  double step = (double)n / (double)m;
  double at = ((double)i + 0.5) / step - 0.5;
  at = at < 0 ? 0 : at > (double)(m - 1) ? (double)(m - 1) : at;
  int64_t low = (int64_t)at, high = low + 1 < m ? low + 1 : low;
  float w = (float)(at - (double)low);
  float a = line[(int64_t)(((double)low + 0.5) * step) * stride];
  float b = line[(int64_t)(((double)high + 0.5) * step) * stride];
  return a + w * (b - a);
}

/* random_ringing: of the n frequencies of a line the lowest m stay. Voxel i of the result is the sum of
 * in[k] · (w(|i − k|) + w(i + k + 1)) with w(d) = (1 + 2 Σ cos(π d f / n) over 0 < f < m) / 2n, which is
 * the cosine transform, cut and transformed back. */
typedef struct ringing_change {
  int64_t channel; /* or ALL_CHANNELS */
  double keep;
  unsigned axes; /* bits */
} ringing_change;

/* The sum in closed form (Dirichlet's kernel); d from 0 to 2n − 1. */
VOXEL_RULE float ringing_weight(int64_t d, int64_t n, int64_t m) {
  const double half_turn = 3.141592653589793;
  double count = (double)(2 * m - 1), length = (double)(2 * n);
  if (d == 0) return (float)(count / length);
  double angle = half_turn * (double)d / length;
  return (float)(sin(count * angle) / (length * sin(angle)));
}

/* A line_filter whose context are 2n weights. */
void ring_line(const void *context, const float *in, float *out, int64_t n);

#endif
