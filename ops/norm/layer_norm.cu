/* layer_norm: a warp for each row; ops/norm/layer_norm.c has the definition. */
#include "device/cuda/channels.cuh"

namespace layer_norm_kernels {

/* N neighbours a lane and turn. */
template <int N>
static __global__ void normalize_rows(target y, float *means, float *rstds, const float *x,
                                      const float *weight, const float *bias, int64_t rows,
                                      int64_t width, double eps) {
  int lane = (int)(threadIdx.x % WARP);
  int64_t per_block = blockDim.x / WARP;
  for (int64_t r = blockIdx.x * per_block + threadIdx.x / WARP; r < rows;
       r += gridDim.x * per_block) {
    int64_t begin = r * width;
    float sum = 0, squares = 0;
    for (int64_t i = lane * N; i < width; i += WARP * N) {
      numbers<N> value = load<N>(x, begin + i);
      UNROLL for (int k = 0; k < N; k++) sum += value.at[k];
    }
    float mean = warp_sum(sum) / (float)width;
    for (int64_t i = lane * N; i < width; i += WARP * N) {
      numbers<N> value = load<N>(x, begin + i);
      UNROLL for (int k = 0; k < N; k++) squares += (value.at[k] - mean) * (value.at[k] - mean);
    }
    float rstd = (float)(1.0 / sqrt((double)warp_sum(squares) / (double)width + eps));
    for (int64_t i = lane * N; i < width; i += WARP * N) {
      numbers<N> value = load<N>(x, begin + i);
      UNROLL for (int k = 0; k < N; k++) value.at[k] = (value.at[k] - mean) * rstd;
      if (weight) {
        numbers<N> w = load<N>(weight, i), added = load<N>(bias, i);
        UNROLL for (int k = 0; k < N; k++) value.at[k] = value.at[k] * w.at[k] + added.at[k];
      }
      store(y, begin + i, value);
    }
    if (lane == 0 && means) means[r] = mean;
    if (lane == 0 && rstds) rstds[r] = rstd;
  }
}

CUDA_OP(layer_norm) {
  int64_t width = last_extent(in_shape(l, 0)), rows = elements(in_shape(l, 0)) / width;
  auto kernel = width % GROUP == 0 ? normalize_rows<GROUP> : normalize_rows<1>;
  return LAUNCH(l, kernel, blocks_of(rows, THREADS / WARP), THREADS, 0, target_of(l, 0), out(l, 1),
                out(l, 2), in(l, 0), in(l, 1), in(l, 2), rows, width, number(l, "eps"));
}

/* ---- gradient: dx = rstd (g − Σg/C − x̂ Σ(g·x̂)/C), g = dy·weight -------------------------------- */

enum { BACK_X, BACK_WEIGHT, BACK_MEAN, BACK_RSTD, BACK_DY };

/* dy·weight */
template <int N>
static __device__ inline numbers<N> weighted(const float *dy, const float *weight, int64_t begin,
                                             int64_t i) {
  numbers<N> g = load<N>(dy, begin + i);
  if (!weight) return g;
  numbers<N> w = load<N>(weight, i);
  UNROLL for (int k = 0; k < N; k++) g.at[k] *= w.at[k];
  return g;
}

template <int N>
static __global__ void backward_rows(float *dx, const float *x, const float *dy,
                                     const float *weight, const float *means, const float *rstds,
                                     int64_t rows, int64_t width) {
  int lane = (int)(threadIdx.x % WARP);
  int64_t per_block = blockDim.x / WARP;
  for (int64_t r = blockIdx.x * per_block + threadIdx.x / WARP; r < rows;
       r += gridDim.x * per_block) {
    float mean = means[r], rstd = rstds[r], sum = 0, dot = 0;
    int64_t begin = r * width;
    for (int64_t i = lane * N; i < width; i += WARP * N) {
      numbers<N> g = weighted<N>(dy, weight, begin, i), value = load<N>(x, begin + i);
      UNROLL for (int k = 0; k < N; k++) {
        sum += g.at[k];
        dot += g.at[k] * ((value.at[k] - mean) * rstd);
      }
    }
    sum = warp_sum(sum) / (float)width;
    dot = warp_sum(dot) / (float)width;
    for (int64_t i = lane * N; i < width; i += WARP * N) {
      numbers<N> g = weighted<N>(dy, weight, begin, i), value = load<N>(x, begin + i);
      UNROLL for (int k = 0; k < N; k++) value.at[k] =
          rstd * (g.at[k] - sum - (value.at[k] - mean) * rstd * dot);
      store(dx, begin + i, value);
    }
  }
}

/* dweight and dbias: columns are channels, rows their voxels. */
struct affine_terms {
  const float *x, *dy, *means, *rstds;
  int64_t width;
  template <int N>
  __device__ void add(int64_t, int64_t column, int64_t row, int64_t, float sums[2][N]) const {
    numbers<N> g = load<N>(dy, row * width + column), value = load<N>(x, row * width + column);
    float mean = means[row], rstd = rstds[row];
    UNROLL for (int k = 0; k < N; k++) {
      sums[0][k] += g.at[k] * ((value.at[k] - mean) * rstd);
      sums[1][k] += g.at[k];
    }
  }
};

struct store_affine {
  float *dweight, *dbias;
  __device__ void operator()(int64_t, int64_t column, double of_weight, double of_bias) const {
    dweight[column] = (float)of_weight;
    dbias[column] = (float)of_bias;
  }
};

struct clear_scalars {
  float *a, *b;
  __device__ void operator()(int64_t) const {
    *a = *b = 0;
  }
};

CUDA_SCRATCH(layer_norm_backward) {
  int64_t width = last_extent(in_shape(l, BACK_X)), rows = elements(in_shape(l, BACK_X)) / width;
  return column_sums_scratch(rows, width);
}

CUDA_OP(layer_norm_backward) {
  int64_t width = last_extent(in_shape(l, BACK_X)), rows = elements(in_shape(l, BACK_X)) / width;
  const float *x = in(l, BACK_X), *dy = in(l, BACK_DY), *weight = in(l, BACK_WEIGHT);
  const float *means = in(l, BACK_MEAN), *rstds = in(l, BACK_RSTD);
  float *partials = (float *)l->scratch;
  auto kernel = width % GROUP == 0 ? backward_rows<GROUP> : backward_rows<1>;
  status error = LAUNCH(l, kernel, blocks_of(rows, THREADS / WARP), THREADS, 0, out(l, 0), x, dy,
                        weight, means, rstds, rows, width);
  if (error) return error;
  if (!weight) return for_each_index(l, 1, clear_scalars{out(l, 1), out(l, 2)});
  return total_channels(l, partials, cut_channels(1, rows, width),
                        affine_terms{x, dy, means, rstds, width},
                        store_affine{out(l, 1), out(l, 2)});
}

} // namespace layer_norm_kernels
