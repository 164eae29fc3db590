/* prelu and its gradient; ops/activation/prelu.c has the definition. */
#include "device/cuda/channels.cuh"

namespace prelu_kernels {

enum { IN_X, IN_WEIGHT };
enum { BACK_X, BACK_WEIGHT, BACK_DY };

struct prelu_f {
  float *y;
  const float *x, *weight;
  int64_t slopes; /* 1, or one for each channel */
  __device__ void operator()(int64_t i) const {
    y[i] = x[i] > 0.0f ? x[i] : weight[i % slopes] * x[i];
  }
};

CUDA_OP(prelu) {
  return for_each_index(
      l, elements(in_shape(l, IN_X)),
      prelu_f{out(l, 0), in(l, IN_X), in(l, IN_WEIGHT), elements(in_shape(l, IN_WEIGHT))});
}

struct prelu_backward_f {
  float *dx;
  const float *x, *weight, *dy;
  int64_t slopes;
  __device__ void operator()(int64_t i) const {
    dx[i] = x[i] > 0.0f ? dy[i] : weight[i % slopes] * dy[i];
  }
};

struct slope_terms {
  const float *x, *dy;
  int64_t channels;
  template <int N>
  __device__ void add(int64_t, int64_t channel, int64_t row, int64_t, float sums[2][N]) const {
    int64_t i = row * channels + channel;
    numbers<N> at = load<N>(x, i), gradient = load<N>(dy, i);
    UNROLL for (int k = 0; k < N; k++) if (!(at.at[k] > 0.0f)) sums[0][k] +=
        at.at[k] * gradient.at[k];
  }
};

/* A slope for all channels gathers all of them. One block. */
static __global__ void total_slope(float *dweight, const float *partials, channel_pieces c) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < c.pieces * c.channels; i += blockDim.x)
    total += (double)partials[i / c.channels * 2 * c.channels + i % c.channels];
  total = block_sum(total);
  if (threadIdx.x == 0) *dweight = (float)total;
}

CUDA_SCRATCH(prelu_backward) {
  int64_t channels = last_extent(in_shape(l, BACK_X));
  return column_sums_scratch(elements(in_shape(l, BACK_X)) / channels, channels);
}

CUDA_OP(prelu_backward) {
  int64_t count = elements(in_shape(l, BACK_X)), channels = last_extent(in_shape(l, BACK_X));
  int64_t slopes = elements(in_shape(l, BACK_WEIGHT));
  const float *x = in(l, BACK_X), *dy = in(l, BACK_DY);
  channel_pieces c = cut_channels(1, count / channels, channels);
  float *partials = (float *)l->scratch;
  status error =
      for_each_index(l, count, prelu_backward_f{out(l, 0), x, in(l, BACK_WEIGHT), dy, slopes});
  if (error) return error;
  slope_terms terms = {x, dy, channels};
  if (slopes > 1) return total_channels(l, partials, c, terms, store_column{out(l, 1)});
  error = launch_channel_sums(l, partials, c, terms);
  if (error) return error;
  return LAUNCH(l, total_slope, 1, THREADS, 0, out(l, 1), partials, c);
}

} // namespace prelu_kernels
