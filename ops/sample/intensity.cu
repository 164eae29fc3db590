/* Sample operators that change intensities voxel by voxel; ops/sample/<name>.c have the definitions. */
#include "ops/sample/statistics.cuh"

#include "ops/sample/intensity.h"

namespace intensity_changes {

using namespace channel_statistics;

/* ---- random_contrast ---- */

struct contrast_f {
  channels_view v;
  double factor;
  __device__ void operator()(int64_t i) const {
    const channel &c = v.of[i % v.count];
    float *value = v.image + v.place(i);
    *value = contrast_rule(*value, c.mean, factor, c.low, c.high);
  }
};

CUDA_SCRATCH(random_contrast) {
  return statistics_bytes(l);
}
CUDA_OP(random_contrast) {
  const contrast_change &change = change_of<contrast_change>(l);
  channels_view v = view_of(l, change.channel);
  status error = find_mean(l, v, false);
  if (!error) error = find_extremes(l, v);
  if (error) return error;
  return for_each_index(l, v.voxels * v.count, contrast_f{v, change.factor});
}

/* ---- random_gamma ---- */

struct gamma_f {
  channels_view v;
  gamma_change change;
  __device__ void operator()(int64_t i) const {
    const channel &c = v.of[i % v.count];
    float range = c.high - c.low;
    float *value = v.image + v.place(i);
    if (range > 0) *value = gamma_rule(*value, change, c.low, c.high, range);
  }
};

struct restore_f {
  channels_view v;
  __device__ void operator()(int64_t i) const {
    const channel &c = v.of[i % v.count];
    if (!(c.high - c.low > 0)) return;
    double scale = gamma_restoring_scale(c.sd, c.new_sd);
    float *value = v.image + v.place(i);
    *value = gamma_restore_rule(*value, c.new_mean, scale, c.mean);
  }
};

CUDA_SCRATCH(random_gamma) {
  return statistics_bytes(l);
}
CUDA_OP(random_gamma) {
  const gamma_change &change = change_of<gamma_change>(l);
  channels_view v = view_of(l, change.channel);
  status error = OK;
  if (change.keep_statistics) error = find_mean(l, v, false);
  if (!error && change.keep_statistics) error = find_sd(l, v, false);
  if (!error) error = find_extremes(l, v);
  if (!error) error = for_each_index(l, v.voxels * v.count, gamma_f{v, change});
  if (error || !change.keep_statistics) return error;
  error = find_mean(l, v, true);
  if (!error) error = find_sd(l, v, true);
  return error ? error : for_each_index(l, v.voxels * v.count, restore_f{v});
}

/* ---- random_brightness ---- */

/* Arguments of a kernel have little room. */
constexpr int FACTORS = 64;

struct factors_f {
  float *image;
  int64_t channels, first, count;
  float factor[FACTORS];
  __device__ void operator()(int64_t i) const {
    image[i / count * channels + first + i % count] *= factor[i % count];
  }
};

CUDA_OP(random_brightness) {
  sample_grid g = grid_of(in_shape(l, 0));
  const float *factors = &change_of<float>(l);
  for (int64_t first = 0; first < g.channels; first += FACTORS) {
    factors_f f = {out(l, 0), g.channels, first, g.channels - first, {}};
    if (f.count > FACTORS) f.count = FACTORS;
    for (int64_t c = 0; c < f.count; c++) f.factor[c] = factors[first + c];
    status error = for_each_index(l, g.voxels * f.count, f);
    if (error) return error;
  }
  return OK;
}

/* ---- random_noise ---- */

struct noise_f {
  float *image;
  noise_change change;
  __device__ void operator()(int64_t i) const {
    uint64_t n = 2 * (uint64_t)i;
    image[i] +=
        change.sd * draw_normal(draw_ahead(&change.random, n), draw_ahead(&change.random, n + 1));
  }
};

CUDA_OP(random_noise) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        noise_f{out(l, 0), change_of<noise_change>(l)});
}

/* ---- random_rician_noise ---- */

struct rician_f {
  channels_view v;
  noise_change change;
  __device__ void operator()(int64_t i) const {
    uint64_t n = 4 * (uint64_t)i;
    float along = draw_normal(draw_ahead(&change.random, n), draw_ahead(&change.random, n + 1));
    float across =
        draw_normal(draw_ahead(&change.random, n + 2), draw_ahead(&change.random, n + 3));
    v.image[i] = rician_rule(v.image[i], v.of[i % v.count].low, change.sd, along, across);
  }
};

CUDA_SCRATCH(random_rician_noise) {
  return statistics_bytes(l);
}
CUDA_OP(random_rician_noise) {
  channels_view v = view_of(l, ALL_CHANNELS);
  status error = find_extremes(l, v);
  if (error) return error;
  return for_each_index(l, v.voxels * v.count, rician_f{v, change_of<noise_change>(l)});
}

/* ---- random_histogram_shift ---- */

struct histogram_f {
  channels_view v;
  histogram_change change;
  __device__ void operator()(int64_t i) const {
    const channel &c = v.of[i % v.count];
    float range = c.high - c.low;
    float *value = v.image + v.place(i);
    if (range > 0) *value = histogram_rule(*value, &change, c.low, range);
  }
};

CUDA_SCRATCH(random_histogram_shift) {
  return statistics_bytes(l);
}
CUDA_OP(random_histogram_shift) {
  const histogram_change &change = change_of<histogram_change>(l);
  channels_view v = view_of(l, change.channel);
  status error = find_extremes(l, v);
  return error ? error : for_each_index(l, v.voxels * v.count, histogram_f{v, change});
}

/* ---- random_spike ---- */

struct spike_f {
  channels_view v;
  sample_grid grid;
  spike_change change;
  __device__ void operator()(int64_t voxel) const {
    int64_t place[3];
    grid.place(voxel, place);
    float share = spike_rule(&change, place, grid.size);
    for (int64_t c = 0; c < v.count; c++)
      v.image[voxel * v.count + c] += (v.of[c].high - v.of[c].low) * share;
  }
};

CUDA_SCRATCH(random_spike) {
  return statistics_bytes(l);
}
CUDA_OP(random_spike) {
  channels_view v = view_of(l, ALL_CHANNELS);
  status error = find_extremes(l, v);
  if (error) return error;
  return for_each_index(l, v.voxels,
                        spike_f{v, grid_of(in_shape(l, 0)), change_of<spike_change>(l)});
}

/* ---- random_cutout ---- */

struct cutout_f {
  channels_view v;
  sample_grid grid;
  cutout_change change;
  __device__ void operator()(int64_t voxel) const {
    int64_t place[3];
    grid.place(voxel, place);
    if (!is_cut_out(&change, place)) return;
    for (int64_t c = 0; c < v.count; c++)
      v.image[voxel * v.count + c] = change.to_mean ? (float)v.of[c].mean : 0;
  }
};

CUDA_SCRATCH(random_cutout) {
  return statistics_bytes(l);
}
CUDA_OP(random_cutout) {
  const cutout_change &change = change_of<cutout_change>(l);
  channels_view v = view_of(l, ALL_CHANNELS);
  status error = change.to_mean ? find_mean(l, v, false) : OK;
  if (error) return error;
  return for_each_index(l, v.voxels, cutout_f{v, grid_of(in_shape(l, 0)), change});
}

/* ---- random_bias_field ---- */

struct bias_f {
  float *image;
  sample_grid grid;
  bias_change change;
  __device__ void operator()(int64_t voxel) const {
    int64_t index[3];
    double p[3][BIAS_POWERS], along[BIAS_POWERS];
    grid.place(voxel, index);
    for (int a = 0; a < 3; a++) bias_legendre(index[a], grid.size[a], p[a]);
    bias_along(&change, p[0], p[1], along);
    float factor = bias_factor(change.degree, along, p[2]);
    for (int64_t c = 0; c < grid.channels; c++) image[voxel * grid.channels + c] *= factor;
  }
};

CUDA_OP(random_bias_field) {
  sample_grid g = grid_of(in_shape(l, 0));
  return for_each_index(l, g.voxels, bias_f{out(l, 0), g, change_of<bias_change>(l)});
}

} // namespace intensity_changes
