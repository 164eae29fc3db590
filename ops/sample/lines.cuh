/* Filters along an axis of an image, a thread for each value. */
#ifndef STRATA_OPS_SAMPLE_LINES_CUH
#define STRATA_OPS_SAMPLE_LINES_CUH

#include "ops/sample/change.cuh"

#include "ops/sample/lines.h"

/* The line that value i lies on: its voxels are `stride` values apart. */
struct line_place {
  int64_t stride, n;

  __device__ int64_t at(int64_t i) const {
    return i / stride % n;
  }
};

static inline line_place line_along(const sample_grid *g, int axis) {
  line_place p = {g->channels, g->size[axis]};
  for (int a = axis + 1; a < 3; a++) p.stride *= g->size[a];
  return p;
}

/* smooth_line of lines.c: the weights in the same order. */
struct smooth_f {
  float *to;
  const float *from;
  line_place line;
  gaussian g;

  __device__ void operator()(int64_t i) const {
    int64_t k = line.at(i);
    float sum = 0;
    for (int64_t d = -g.radius; d <= g.radius; d++) {
      int64_t other = k + d;
      if (other < 0 || other >= line.n) {
        if (!g.continues_edges) continue;
        other = other < 0 ? 0 : line.n - 1;
      }
      sum += g.weight[d + g.radius] * from[i + (other - k) * line.stride];
    }
    to[i] = sum;
  }
};

struct copy_values_f {
  float *to;
  const float *from;
  __device__ void operator()(int64_t i) const {
    to[i] = from[i];
  }
};

/* What `f` does with every value, done with those of one channel. */
template <typename F> struct of_channel_f {
  F f;
  int64_t channels, channel;
  __device__ void operator()(int64_t i) const {
    f(i * channels + channel);
  }
};

template <typename F>
static inline status for_each_value(const launch *l, const sample_grid *g, int64_t channel, F f) {
  if (channel == ALL_CHANNELS) return for_each_index(l, g->voxels * g->channels, f);
  return for_each_index(l, g->voxels, of_channel_f<F>{f, g->channels, channel});
}

/* Along one axis after the other, between two pieces of memory, back to the first. `filter` makes
 * the functor of (to, from, axis). */
template <typename Filter>
static inline status filter_axes(const launch *l, float *image, float *other, const sample_grid *g,
                                 int64_t channel, unsigned axes, Filter filter) {
  float *from = image, *to = other;
  for (int a = 0; a < 3; a++) {
    if (!(axes >> a & 1)) continue;
    status error = for_each_value(l, g, channel, filter(to, (const float *)from, a));
    if (error) return error;
    float *made = to;
    to = from;
    from = made;
  }
  if (from == image) return OK;
  return for_each_value(l, g, channel, copy_values_f{image, from});
}

#endif
