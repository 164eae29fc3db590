/* Changes of intensities: what is drawn for a crop, and what it makes of a voxel. */
#ifndef STRATA_OPS_SAMPLE_INTENSITY_H
#define STRATA_OPS_SAMPLE_INTENSITY_H

#include "base/rng.h"
#include "ops/sample/voxel_rule.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* random_gamma */
typedef struct gamma_change {
  int64_t channel; /* or ALL_CHANNELS */
  float gamma;
  bool invert, keep_statistics;
} gamma_change;

/* `low` and `range` are of the channel; range > 0. */
VOXEL_RULE float gamma_rule(float v, gamma_change change, float low, float high, float range) {
  if (change.invert) return high - powf((high - v) / range, change.gamma) * range;
  return powf((v - low) / range, change.gamma) * range + low;
}

/* Gives the channel the mean and the standard deviation back that it had. */
VOXEL_RULE double gamma_restoring_scale(double sd, double new_sd) {
  return new_sd > 1e-8 ? sd / new_sd : 1;
}
VOXEL_RULE float gamma_restore_rule(float v, double new_mean, double scale, double mean) {
  return (float)(((double)v - new_mean) * scale + mean);
}

/* random_contrast */
typedef struct contrast_change {
  int64_t channel; /* or ALL_CHANNELS */
  double factor;
} contrast_change;

VOXEL_RULE float contrast_rule(float v, double mean, double factor, float low, float high) {
  float stretched = (float)(mean + factor * ((double)v - mean));
  return stretched < low ? low : stretched > high ? high : stretched;
}

/* random_noise: value i of the image gets the i-th normal number of the stream. */
typedef struct noise_change {
  rng random;
  float sd;
} noise_change;

/* random_bias_field */
enum { BIAS_DEGREE_MAX = 5, BIAS_POWERS = BIAS_DEGREE_MAX + 1 };
typedef struct bias_change {
  int degree;
  double coefficient[BIAS_POWERS][BIAS_POWERS][BIAS_POWERS];
} bias_change;

/* Legendre polynomials P0 … at place i of n that are spread evenly over [−1, 1]. */
VOXEL_RULE void bias_legendre(int64_t i, int64_t n, double p[BIAS_POWERS]) {
  double x = n > 1 ? -1 + 2 * (double)i / (double)(n - 1) : -1;
  p[0] = 1;
  p[1] = x;
  for (int k = 1; k + 1 < BIAS_POWERS; k++)
    p[k + 1] = ((2 * k + 1) * x * p[k] - k * p[k - 1]) / (k + 1);
}

/* The polynomial of a line along z, in z alone. */
VOXEL_RULE void bias_along(const bias_change *change, const double px[BIAS_POWERS],
                           const double py[BIAS_POWERS], double along[BIAS_POWERS]) {
  for (int k = 0; k < BIAS_POWERS; k++) along[k] = 0;
  for (int i = 0; i <= change->degree; i++)
    for (int j = 0; i + j <= change->degree; j++)
      for (int k = 0; i + j + k <= change->degree; k++)
        along[k] += change->coefficient[i][j][k] * px[i] * py[j];
}

VOXEL_RULE float bias_factor(int degree, const double along[BIAS_POWERS],
                             const double pz[BIAS_POWERS]) {
  double sum = 0;
  for (int k = 0; k <= degree; k++) sum += along[k] * pz[k];
  return expf((float)sum);
}

#endif
