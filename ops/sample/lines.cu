/* random_blur, random_sharpen, random_low_resolution and random_ringing; ops/sample/<name>.c have the definitions. */
#include "ops/sample/lines.cuh"
#include "ops/sample/statistics.cuh"

namespace lines_changes {

using namespace channel_statistics;

struct coarsen_f {
  float *to;
  const float *from;
  line_place line;
  int64_t m;

  __device__ void operator()(int64_t i) const {
    int64_t k = line.at(i);
    to[i] = coarse_rule(from + (i - k * line.stride), line.stride, line.n, m, k);
  }
};

size_t image_bytes(const launch *l) {
  return (size_t)elements(in_shape(l, 0)) * sizeof(float);
}

CUDA_SCRATCH(random_blur) {
  return image_bytes(l);
}
CUDA_OP(random_blur) {
  sample_grid g = grid_of(in_shape(l, 0));
  const blur_change &change = change_of<blur_change>(l);
  return filter_axes(l, out(l, 0), (float *)l->scratch, &g, change.channel, 7,
                     [&](float *to, const float *from, int axis) {
                       return smooth_f{to, from, line_along(&g, axis), change.along[axis]};
                     });
}

struct sharpen_f {
  channels_view v;
  const float *smooth;
  float strength;
  __device__ void operator()(int64_t i) const {
    const channel &c = v.of[i % v.count];
    int64_t at = v.place(i);
    v.image[at] = sharpen_rule(v.image[at], smooth[at], strength, c.low, c.high);
  }
};

/* Two images behind the statistics. */
CUDA_SCRATCH(random_sharpen) {
  return statistics_bytes(l) + 2 * image_bytes(l);
}
CUDA_OP(random_sharpen) {
  sample_grid g = grid_of(in_shape(l, 0));
  const sharpen_change &change = change_of<sharpen_change>(l);
  float *smooth = (float *)((char *)l->scratch + statistics_bytes(l));
  float *other = smooth + g.voxels * g.channels;
  channels_view v = view_of(l, change.channel);
  status error = find_extremes(l, v);
  if (!error)
    error = for_each_value(l, &g, change.channel, copy_values_f{smooth, (const float *)out(l, 0)});
  if (!error)
    error = filter_axes(l, smooth, other, &g, change.channel, 7,
                        [&](float *to, const float *from, int axis) {
                          return smooth_f{to, from, line_along(&g, axis), change.smooth};
                        });
  if (error) return error;
  const int64_t first = change.channel == ALL_CHANNELS ? 0 : change.channel;
  return for_each_index(l, v.voxels * v.count, sharpen_f{v, smooth + first, change.strength});
}

CUDA_SCRATCH(random_low_resolution) {
  return image_bytes(l);
}
CUDA_OP(random_low_resolution) {
  sample_grid g = grid_of(in_shape(l, 0));
  const coarse_change &change = change_of<coarse_change>(l);
  return filter_axes(
      l, out(l, 0), (float *)l->scratch, &g, change.channel, change.axes,
      [&](float *to, const float *from, int axis) {
        return coarsen_f{to, from, line_along(&g, axis), coarse_count(g.size[axis], change.zoom)};
      });
}

struct weigh_f {
  float *weight;
  int64_t n, m;
  __device__ void operator()(int64_t d) const {
    weight[d] = ringing_weight(d, n, m);
  }
};

/* ring_line of lines.c: the voxels in the same order. */
struct ring_f {
  float *to;
  const float *from, *weight;
  line_place line;

  __device__ void operator()(int64_t i) const {
    int64_t k = line.at(i);
    const float *first = from + (i - k * line.stride);
    float sum = 0;
    for (int64_t j = 0; j < line.n; j++)
      sum += first[j * line.stride] * (weight[k < j ? j - k : k - j] + weight[k + j + 1]);
    to[i] = sum;
  }
};

/* The weights of the longest axis behind an image. */
CUDA_SCRATCH(random_ringing) {
  sample_grid g = grid_of(in_shape(l, 0));
  int64_t longest = g.size[0];
  for (int a = 1; a < 3; a++) longest = g.size[a] > longest ? g.size[a] : longest;
  return image_bytes(l) + (size_t)(2 * longest) * sizeof(float);
}
CUDA_OP(random_ringing) {
  sample_grid g = grid_of(in_shape(l, 0));
  const ringing_change &change = change_of<ringing_change>(l);
  float *other = (float *)l->scratch, *weight = other + g.voxels * g.channels;
  for (int a = 0; a < 3; a++) {
    if (!(change.axes >> a & 1)) continue;
    const int64_t n = g.size[a];
    status error = for_each_index(l, 2 * n, weigh_f{weight, n, coarse_count(n, change.keep)});
    if (!error)
      error = filter_axes(l, out(l, 0), other, &g, change.channel, 1u << a,
                          [&](float *to, const float *from, int axis) {
                            return ring_f{to, from, weight, line_along(&g, axis)};
                          });
    if (error) return error;
  }
  return OK;
}

} // namespace lines_changes
