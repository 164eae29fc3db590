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

/* random_rician_noise: value i of the image gets the normal numbers 2i and 2i + 1 of the stream. `low` is
 * the least value of the channel. */
VOXEL_RULE float rician_rule(float v, float low, float sd, float along, float across) {
  float real = v - low + sd * along, imaginary = sd * across;
  return low + sqrtf(real * real + imaginary * imaginary);
}

/* random_histogram_shift: where `points` places that are spread evenly over [0, 1] come to lie. */
enum { HISTOGRAM_POINTS_MAX = 32 };
typedef struct histogram_change {
  int64_t channel; /* or ALL_CHANNELS */
  int points;
  float to[HISTOGRAM_POINTS_MAX];
} histogram_change;

/* `low` and `range` are of the channel; range > 0. */
VOXEL_RULE float histogram_rule(float v, const histogram_change *change, float low, float range) {
  float at = (v - low) / range * (float)(change->points - 1);
  int k = at >= (float)(change->points - 1) ? change->points - 2 : at > 0 ? (int)at : 0;
  float below = change->to[k], above = change->to[k + 1];
  return low + range * (below + (at - (float)k) * (above - below));
}

/* random_spike: waves through the whole crop, of `frequency` periods along each axis. */
enum { SPIKES_MAX = 8 };
typedef struct spike_change {
  int count;
  float amplitude[SPIKES_MAX];                        /* of the channel's range */
  double frequency[SPIKES_MAX][3], phase[SPIKES_MAX]; /* phase in periods */
} spike_change;

/* All waves at a place, as a share of the range. */
VOXEL_RULE float spike_rule(const spike_change *change, const int64_t place[3],
                            const int64_t size[3]) {
  float sum = 0;
  for (int s = 0; s < change->count; s++) {
    double periods = change->phase[s];
    for (int a = 0; a < 3; a++)
      periods += change->frequency[s][a] * (double)place[a] / (double)size[a];
    periods -= floor(periods);
    sum += change->amplitude[s] * cosf((float)(6.283185307179586 * periods));
  }
  return sum;
}

/* random_cutout */
enum { CUTOUT_BOXES_MAX = 16 };
typedef struct cutout_change {
  int count;
  bool to_mean; /* of the channel; otherwise to 0 */
  int32_t at[CUTOUT_BOXES_MAX][3], size[CUTOUT_BOXES_MAX][3];
} cutout_change;

VOXEL_RULE bool is_cut_out(const cutout_change *change, const int64_t place[3]) {
  for (int b = 0; b < change->count; b++) {
    bool inside = true;
    for (int a = 0; a < 3; a++) {
      int64_t from = place[a] - change->at[b][a];
      inside = inside && from >= 0 && from < change->size[b][a];
    }
    if (inside) return true;
  }
  return false;
}

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
