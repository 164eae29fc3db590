/* Sample operators that change intensities voxel by voxel; ops/sample/<name>.c have the definitions. */
#include "device/cuda/sums.cuh"
#include "ops/sample/change.cuh"

#include "ops/sample/intensity.h"

namespace intensity_changes {

/* ---- statistics of the channels: each behind the other in scratch memory ---- */

struct channel {
  double mean, sd, new_mean, new_sd;
  float low, high;
};

/* Of the channels that change: all, or one. */
struct channels_view {
  float *image; /* the first one's first voxel */
  int64_t voxels, stride, count;
  channel *of;     /* a channel each */
  float *extremes; /* partial results: a pair for each block of each channel */
  int blocks;

  /* Where value i of these channels lies. */
  __device__ int64_t place(int64_t i) const {
    return i / count * stride + i % count;
  }
};

size_t statistics_bytes(int64_t voxels, int64_t count) {
  size_t sums = (sum_scratch(count, voxels) + 255) / 256 * 256;
  size_t extremes = (size_t)(count * sum_blocks(voxels)) * 2 * sizeof(float);
  return sums + (size_t)count * sizeof(channel) + extremes;
}

channels_view view_of(const launch *l, int64_t changes) {
  sample_grid g = grid_of(in_shape(l, 0));
  bool one = changes != ALL_CHANNELS;
  char *after_sums = (char *)l->scratch + (sum_scratch(g.channels, g.voxels) + 255) / 256 * 256;
  channel *of = (channel *)after_sums;
  channels_view v = {out(l, 0) + (one ? changes : 0),
                     g.voxels,
                     g.channels,
                     one ? 1 : g.channels,
                     of,
                     (float *)(of + g.channels),
                     sum_blocks(g.voxels)};
  return v;
}

struct value_f {
  channels_view v;
  __device__ double operator()(int64_t c, int64_t i) const {
    return (double)v.image[i * v.stride + c];
  }
};

struct squared_f {
  channels_view v;
  bool again;
  __device__ double operator()(int64_t c, int64_t i) const {
    double d = (double)v.image[i * v.stride + c] - (again ? v.of[c].new_mean : v.of[c].mean);
    return d * d;
  }
};

struct take_mean_f {
  channels_view v;
  bool again;
  __device__ void operator()(int64_t c, double total) const {
    (again ? v.of[c].new_mean : v.of[c].mean) = total / (double)v.voxels;
  }
};

struct take_sd_f {
  channels_view v;
  bool again;
  __device__ void operator()(int64_t c, double total) const {
    (again ? v.of[c].new_sd : v.of[c].sd) = sqrt(total / (double)v.voxels);
  }
};

/* `again`: of the changed image, beside those of the old one. */
status find_mean(const launch *l, const channels_view &v, bool again) {
  return sum_each(l, v.count, v.voxels, value_f{v}, take_mean_f{v, again});
}
status find_sd(const launch *l, const channels_view &v, bool again) {
  return sum_each(l, v.count, v.voxels, squared_f{v, again}, take_sd_f{v, again});
}

__global__ void extremes_of_blocks(channels_view v) {
  const int64_t c = blockIdx.y;
  float low = v.image[c], high = low;
  FOR_EACH_INDEX(i, v.voxels) {
    float value = v.image[i * v.stride + c];
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  high = block_max(high);
  low = -block_max(-low);
  if (threadIdx.x > 0) return;
  float *pair = v.extremes + 2 * (c * v.blocks + blockIdx.x);
  pair[0] = low;
  pair[1] = high;
}

struct join_extremes_f {
  channels_view v;
  __device__ void operator()(int64_t c) const {
    const float *pair = v.extremes + 2 * c * v.blocks;
    float low = pair[0], high = pair[1];
    for (int b = 1; b < v.blocks; b++) {
      low = pair[2 * b] < low ? pair[2 * b] : low;
      high = pair[2 * b + 1] > high ? pair[2 * b + 1] : high;
    }
    v.of[c].low = low;
    v.of[c].high = high;
  }
};

status find_extremes(const launch *l, const channels_view &v) {
  status error =
      LAUNCH(l, extremes_of_blocks, dim3((unsigned)v.blocks, (unsigned)v.count), THREADS, 0, v);
  return error ? error : for_each_index(l, v.count, join_extremes_f{v});
}

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
  sample_grid g = grid_of(in_shape(l, 0));
  return statistics_bytes(g.voxels, g.channels);
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
  sample_grid g = grid_of(in_shape(l, 0));
  return statistics_bytes(g.voxels, g.channels);
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
