/* layer_norm: a warp for each row; ops/norm/layer_norm.c has the definition. */
#include "device/cuda/groups.cuh"

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

/* dweight and dbias of a piece of the rows: partials[piece][2][column]. Neighbouring threads have
 * neighbouring columns. */
static __global__ void affine_pieces(float *partials, const float *x, const float *dy,
                                     const float *means, const float *rstds, int64_t rows,
                                     int64_t width, int64_t piece_rows) {
  int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int64_t first = blockIdx.y * piece_rows;
  int64_t end = first + piece_rows < rows ? first + piece_rows : rows;
  if (column >= width) return;
  float dweight = 0, dbias = 0;
  for (int64_t r = first; r < end; r++) {
    float g = dy[r * width + column];
    dweight += g * ((x[r * width + column] - means[r]) * rstds[r]);
    dbias += g;
  }
  partials[(int64_t)blockIdx.y * 2 * width + column] = dweight;
  partials[((int64_t)blockIdx.y * 2 + 1) * width + column] = dbias;
}

struct add_pieces {
  float *dweight, *dbias;
  const float *partials;
  int64_t width, pieces;
  __device__ void operator()(int64_t i) const {
    double total = 0;
    for (int64_t p = 0; p < pieces; p++) total += (double)partials[p * 2 * width + i];
    (i < width ? dweight[i] : dbias[i - width]) = (float)total;
  }
};

struct clear_scalars {
  float *a, *b;
  __device__ void operator()(int64_t) const {
    *a = *b = 0;
  }
};

static int64_t affine_piece_rows(int64_t rows) {
  int64_t piece = (rows + 255) / 256;
  return piece < 16 ? 16 : piece;
}

CUDA_SCRATCH(layer_norm_backward) {
  int64_t width = last_extent(in_shape(l, BACK_X)), rows = elements(in_shape(l, BACK_X)) / width;
  int64_t piece = affine_piece_rows(rows);
  return (size_t)((rows + piece - 1) / piece * 2 * width) * sizeof(float);
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
  int64_t piece = affine_piece_rows(rows), pieces = (rows + piece - 1) / piece;
  error = LAUNCH(l, affine_pieces, dim3(blocks_of(width), (unsigned)pieces), THREADS, 0, partials,
                 x, dy, means, rstds, rows, width, piece);
  if (error) return error;
  return for_each_index(l, 2 * width, add_pieces{out(l, 1), out(l, 2), partials, width, pieces});
}

} // namespace layer_norm_kernels
