/* Mean, deviation, minimum and maximum of the channels that a change is about. */
#ifndef STRATA_OPS_SAMPLE_STATISTICS_CUH
#define STRATA_OPS_SAMPLE_STATISTICS_CUH

#include "device/cuda/sums.cuh"
#include "ops/sample/change.cuh"

#include "ops/sample/voxel_rule.h"

namespace channel_statistics {

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

/* Of an operator's scratch memory, at its start; whole pieces of 256. */
static inline size_t statistics_bytes(const launch *l) {
  sample_grid g = grid_of(in_shape(l, 0));
  size_t sums = (sum_scratch(g.channels, g.voxels) + 255) / 256 * 256;
  size_t extremes = (size_t)(g.channels * sum_blocks(g.voxels)) * 2 * sizeof(float);
  return (sums + (size_t)g.channels * sizeof(channel) + extremes + 255) / 256 * 256;
}

static inline channels_view view_of(const launch *l, int64_t changes) {
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
static inline status find_mean(const launch *l, const channels_view &v, bool again) {
  return sum_each(l, v.count, v.voxels, value_f{v}, take_mean_f{v, again});
}
static inline status find_sd(const launch *l, const channels_view &v, bool again) {
  return sum_each(l, v.count, v.voxels, squared_f{v, again}, take_sd_f{v, again});
}

static __global__ void extremes_of_blocks(channels_view v) {
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

static inline status find_extremes(const launch *l, const channels_view &v) {
  status error =
      LAUNCH(l, extremes_of_blocks, dim3((unsigned)v.blocks, (unsigned)v.count), THREADS, 0, v);
  return error ? error : for_each_index(l, v.count, join_extremes_f{v});
}

} // namespace channel_statistics

#endif
