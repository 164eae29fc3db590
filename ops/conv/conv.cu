/* conv3d, its gradients, and conv_transpose3d, as products of gathered tiles: no column matrix is
 * written. ops/kernels/convolution.h has the definition.
 *
 * The three are one product each, per group of channels:
 *   forward        y[voxel][f]    = Σ over (tap, c)   x[voxel·stride + tap]·w
 *   backward data  dx[voxel][c]   = Σ over (tap, f)   dy[(voxel − tap) / stride]·w
 *   backward weight dw[(tap, c)][f] = Σ over voxels   x[voxel·stride + tap]·dy[voxel]
 * The first two differ only in which voxel a tap reads. Weights are laid out anew, [tap][in][out],
 * so that neighbouring threads read neighbouring numbers.
 *
 * Where a library computes a convolution (library.cuh), one product does (apart.cuh) or tensor cores do
 * (tensor_cores.cuh), these kernels rest. */
#include "device/cuda/bf16.cuh"
#include "device/cuda/channels.cuh"
#include "device/cuda/index.cuh"
#include "ops/conv/apart.cuh"
#include "ops/conv/filters.cuh"
#include "ops/conv/library.cuh"
#include "ops/conv/tensor_cores.cuh"

namespace conv_kernels {

constexpr int TILE = 64, STEP = 16, PER_THREAD = 4; /* THREADS = (TILE / PER_THREAD)² */

struct geometry {
  int64_t kernel[3], stride[3], padding[3], dilation[3];
  int64_t taps;
  bool backward; /* the tap's voxel is looked for in the result of the forward pass */

  __device__ void tap_of(int64_t tap, int64_t k[3]) const {
    k[2] = tap % kernel[2];
    k[1] = tap / kernel[2] % kernel[1];
    k[0] = tap / (kernel[2] * kernel[1]);
  }
  /* The voxel along an axis that tap k reads for voxel o of the result; −1: none. */
  __device__ int64_t source(int axis, int64_t o, int64_t k, int64_t extent) const {
    int64_t at;
    if (backward) {
      at = o + padding[axis] - k * dilation[axis];
      if (at < 0 || at % stride[axis]) return -1;
      at /= stride[axis];
    } else {
      at = o * stride[axis] + k * dilation[axis] - padding[axis];
    }
    return at >= 0 && at < extent ? at : -1;
  }
};

struct problem {
  geometry g;
  volume_shape from, to;               /* what is read, and the result (or, for the weight, dy) */
  int64_t groups, in_width, out_width; /* channels of a group in `from` and in `to` */
  int64_t rows, depth;                 /* voxels of `to` in all; taps · in_width */
  bool bf16;                           /* factors are rounded */
};

/* Where row m of the product begins reading for tap t; −1 for a zero. */
static __device__ inline int64_t gathered(const problem &p, const int64_t where[4], int64_t tap) {
  int64_t k[3], at[3];
  p.g.tap_of(tap, k);
  for (int a = 0; a < 3; a++) {
    at[a] = p.g.source(a, where[1 + a], k[a], p.from.dim[1 + a]);
    if (at[a] < 0) return -1;
  }
  return p.from.index(where[0], at[0], at[1], at[2], 0);
}

static __device__ inline void locate_row(const problem &p, int64_t row, int64_t where[4]) {
  where[3] = row % p.to.dim[3];
  row /= p.to.dim[3];
  where[2] = row % p.to.dim[2];
  row /= p.to.dim[2];
  where[1] = row % p.to.dim[1];
  where[0] = row / p.to.dim[1];
}

static __device__ inline void multiply_step(float sums[PER_THREAD][PER_THREAD],
                                            const float a[STEP][TILE + 1],
                                            const float b[STEP][TILE + 1]) {
  int row = (int)threadIdx.x / (TILE / PER_THREAD), column = (int)threadIdx.x % (TILE / PER_THREAD);
  for (int k = 0; k < STEP; k++) {
    float x[PER_THREAD], y[PER_THREAD];
    for (int i = 0; i < PER_THREAD; i++) {
      x[i] = a[k][row * PER_THREAD + i];
      y[i] = b[k][column + i * (TILE / PER_THREAD)];
    }
    for (int i = 0; i < PER_THREAD; i++)
      for (int j = 0; j < PER_THREAD; j++) sums[i][j] += x[i] * y[j];
  }
}

/* y = gathered x · packed weights + bias. Grid: (tiles of rows, tiles of columns, groups). */
static __global__ void __launch_bounds__(THREADS)
    gathered_product(float *y, source x, const float *packed, const float *bias, problem p) {
  __shared__ float a[STEP][TILE + 1], b[STEP][TILE + 1];
  __shared__ int64_t where[TILE][4];
  int64_t first_row = (int64_t)blockIdx.x * TILE, first_column = (int64_t)blockIdx.y * TILE;
  int64_t group = blockIdx.z;
  for (int r = (int)threadIdx.x; r < TILE; r += THREADS)
    if (first_row + r < p.rows) locate_row(p, first_row + r, where[r]);
  float sums[PER_THREAD][PER_THREAD] = {};
  const float *weights = packed + group * p.depth * p.out_width;
  for (int64_t k0 = 0; k0 < p.depth; k0 += STEP) {
    __syncthreads();
    for (int i = (int)threadIdx.x; i < STEP * TILE; i += THREADS) {
      int k = i % STEP, r = i / STEP; /* neighbouring threads: neighbouring channels */
      int64_t depth = k0 + k, at = -1;
      if (depth < p.depth && first_row + r < p.rows) at = gathered(p, where[r], depth / p.in_width);
      a[k][r] = at < 0 ? 0.0f : rounded_if(p.bf16, x[at + group * p.in_width + depth % p.in_width]);
      int c = i % TILE, kb = i / TILE;
      bool is_there = k0 + kb < p.depth && first_column + c < p.out_width;
      b[kb][c] = is_there ? weights[(k0 + kb) * p.out_width + first_column + c] : 0.0f;
    }
    __syncthreads();
    multiply_step(sums, a, b);
  }
  int row = (int)threadIdx.x / (TILE / PER_THREAD), column = (int)threadIdx.x % (TILE / PER_THREAD);
  int64_t channels = p.groups * p.out_width;
  for (int i = 0; i < PER_THREAD; i++)
    for (int j = 0; j < PER_THREAD; j++) {
      int64_t m = first_row + row * PER_THREAD + i;
      int64_t n = first_column + column + j * (TILE / PER_THREAD);
      if (m >= p.rows || n >= p.out_width) continue;
      int64_t channel = group * p.out_width + n;
      y[m * channels + channel] = sums[i][j] + (bias ? bias[channel] : 0.0f);
    }
}

static geometry geometry_of(const launch *l, const plugin_shape *weight, bool backward) {
  geometry g = {};
  g.taps = 1;
  g.backward = backward;
  for (int a = 0; a < 3; a++) {
    g.kernel[a] = weight->dim[2 + a];
    g.taps *= g.kernel[a];
    g.stride[a] = integer_at(l, "stride", a);
    g.dilation[a] = integer_at(l, "dilation", a);
    int64_t padding = integer_at(l, "padding", a);
    g.padding[a] = padding >= 0 ? padding : g.dilation[a] * (g.kernel[a] - 1) / 2;
  }
  return g;
}

static problem problem_of(const launch *l, const plugin_shape *weight, const plugin_shape *from,
                          const plugin_shape *to, bool backward) {
  problem p = {};
  p.g = geometry_of(l, weight, backward);
  p.from = volume_of(from);
  p.to = volume_of(to);
  p.groups = integer(l, "groups");
  p.in_width = p.from.dim[4] / p.groups;
  p.out_width = p.to.dim[4] / p.groups;
  p.rows = elements(to) / p.to.dim[4];
  p.depth = p.g.taps * p.in_width;
  p.bf16 = is_bf16(l);
  return p;
}

static unsigned tiles_of(int64_t n) {
  return (unsigned)((n + TILE - 1) / TILE);
}

static status run_product(const launch *l, const problem &p, const source &x, const float *weight,
                          const float *bias, float *y) {
  float *packed = (float *)l->scratch;
  status error = for_each_index(l, p.groups * p.depth * p.out_width,
                                pack_f<float>{packed, weight, p.in_width, p.out_width, p.in_width,
                                              p.out_width, p.g.taps, !p.g.backward, p.bf16});
  if (error) return error;
  return LAUNCH(l, gathered_product,
                dim3(tiles_of(p.rows), tiles_of(p.out_width), (unsigned)p.groups), THREADS, 0, y, x,
                (const float *)packed, bias, p);
}

static size_t weight_bytes(const launch *l, int input) {
  return (size_t)elements(in_shape(l, input)) * sizeof(float);
}

/* What can compute a convolution: a library or one product, tensor cores, or else the kernels above. */
struct conv_ways {
  library_call library;
  tile_call tiles;
};

static conv_ways ways_of(const launch *l, convolution_pass pass, const plugin_shape *weight,
                         const plugin_tensor *image, const plugin_tensor *result) {
  conv_ways w = {};
  convolution c = convolution_of(l, pass, weight, image, result);
  if (tiles_are_faster(&c) && !places_are_apart(&c)) {
    w.library.c = c;
    w.tiles = tile_call_of(c, image, result);
    if (w.tiles.t.fits) return w;
  }
  w.library = library_call_of(l, c, image, result);
  if (!w.library.is_there && !w.library.is_apart) w.tiles = tile_call_of(c, image, result);
  return w;
}

static conv_ways forward_ways(const launch *l) {
  return ways_of(l, CONVOLUTION_FORWARD, in_shape(l, 1), &l->call->in[0], &l->call->out[0]);
}

/* Of backward data and of the transposed convolution, which is the same. */
static conv_ways adjoint_ways(const launch *l) {
  return ways_of(l, CONVOLUTION_BACKWARD_DATA, in_shape(l, 1), &l->call->out[0], &l->call->in[0]);
}

static size_t product_bytes(const launch *l, const conv_ways &w) {
  if (w.library.is_apart) return apart_scratch(l, &w.library);
  if (w.library.is_there) return library_scratch(&w.library);
  return w.tiles.t.fits ? tile_scratch(&w.tiles) : weight_bytes(l, 1);
}

static status run_own(const launch *l, const conv_ways &w, const float *bias) {
  if (w.tiles.t.fits) return run_taps(l, &w.tiles, source_of(l, 0), in(l, 1), bias, out(l, 0));
  bool is_data = w.library.c.pass == CONVOLUTION_BACKWARD_DATA;
  problem p = problem_of(l, in_shape(l, 1), in_shape(l, 0), out_shape(l, 0), is_data);
  return run_product(l, p, source_of(l, 0), in(l, 1), bias, out(l, 0));
}

CUDA_SCRATCH(conv3d) {
  return product_bytes(l, forward_ways(l));
}
CUDA_OP(conv3d) {
  conv_ways w = forward_ways(l);
  if (w.library.is_there)
    return run_library(l, &w.library, in<void>(l, 0), (float *)in(l, 1), out(l, 0), in(l, 2));
  return run_own(l, w, in(l, 2));
}

static status run_adjoint(const launch *l, const float *bias) {
  conv_ways w = adjoint_ways(l);
  const library_call *k = &w.library;
  if (k->is_apart)
    return run_apart(l, k, out(l, 0), out_shape(l, 0), in(l, 1), in<void>(l, 0), bias);
  if (k->is_there) return run_library(l, k, out(l, 0), (float *)in(l, 1), in<void>(l, 0), bias);
  return run_own(l, w, bias);
}

CUDA_SCRATCH(conv3d_backward_data) {
  return product_bytes(l, adjoint_ways(l));
}
CUDA_OP(conv3d_backward_data) {
  return run_adjoint(l, nullptr);
}

CUDA_SCRATCH(conv_transpose3d) {
  return product_bytes(l, adjoint_ways(l));
}
CUDA_OP(conv_transpose3d) {
  return run_adjoint(l, in(l, 2));
}

/* ---- gradient of the weight ------------------------------------------------------------------------ */

/* Voxels are cut into pieces, each with sums of its own: partials[piece][group][(tap, c)][f]. Grid:
 * (tiles of (tap, c), tiles of f, pieces · groups). */
static __global__ void __launch_bounds__(THREADS)
    weight_pieces(float *partials, source x, source dy, problem p, int64_t piece_rows) {
  __shared__ float a[STEP][TILE + 1], b[STEP][TILE + 1];
  __shared__ int64_t where[STEP][4];
  int64_t first_row = (int64_t)blockIdx.x * TILE, first_column = (int64_t)blockIdx.y * TILE;
  int64_t group = blockIdx.z % p.groups, piece = blockIdx.z / p.groups;
  int64_t begin = piece * piece_rows;
  int64_t end = begin + piece_rows < p.rows ? begin + piece_rows : p.rows;
  int64_t features = p.groups * p.out_width;
  float sums[PER_THREAD][PER_THREAD] = {};
  for (int64_t k0 = begin; k0 < end; k0 += STEP) {
    if (threadIdx.x < STEP && k0 + threadIdx.x < end)
      locate_row(p, k0 + threadIdx.x, where[threadIdx.x]);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < STEP * TILE; i += THREADS) {
      int c = i % TILE, k = i / TILE;
      int64_t depth = first_row + c, at = -1;
      bool is_row = k0 + k < end;
      if (is_row && depth < p.depth) at = gathered(p, where[k], depth / p.in_width);
      a[k][c] = at < 0 ? 0.0f : rounded_if(p.bf16, x[at + group * p.in_width + depth % p.in_width]);
      bool is_there = is_row && first_column + c < p.out_width;
      int64_t in_dy = (k0 + k) * features + group * p.out_width + first_column + c;
      b[k][c] = is_there ? rounded_if(p.bf16, dy[in_dy]) : 0.0f;
    }
    __syncthreads();
    multiply_step(sums, a, b);
  }
  int row = (int)threadIdx.x / (TILE / PER_THREAD), column = (int)threadIdx.x % (TILE / PER_THREAD);
  float *to = partials + ((int64_t)piece * p.groups + group) * p.depth * p.out_width;
  for (int i = 0; i < PER_THREAD; i++)
    for (int j = 0; j < PER_THREAD; j++) {
      int64_t m = first_row + row * PER_THREAD + i;
      int64_t n = first_column + column + j * (TILE / PER_THREAD);
      if (m < p.depth && n < p.out_width) to[m * p.out_width + n] = sums[i][j];
    }
}

struct weight_plan {
  problem p;
  int64_t pieces, piece_rows;
};

/* About as many blocks as a large card runs at once, and at most 256 MiB of partial sums. */
static weight_plan plan_weight(const launch *l) {
  weight_plan w = {};
  w.p = problem_of(l, out_shape(l, 0), in_shape(l, 0), in_shape(l, 1), false);
  int64_t tiles = (int64_t)tiles_of(w.p.depth) * tiles_of(w.p.out_width) * w.p.groups;
  int64_t pieces = (1024 + tiles - 1) / tiles, longest = (w.p.rows + 4 * STEP - 1) / (4 * STEP);
  int64_t room = ((int64_t)64 << 20) / (w.p.groups * w.p.depth * w.p.out_width);
  pieces = pieces > longest ? longest : pieces;
  pieces = pieces > room ? room : pieces;
  w.pieces = pieces < 1 ? 1 : pieces;
  w.piece_rows = (w.p.rows + w.pieces - 1) / w.pieces;
  return w;
}

static size_t weight_partial_bytes(const weight_plan &w) {
  size_t bytes = (size_t)(w.pieces * w.p.groups * w.p.depth * w.p.out_width) * sizeof(float);
  return (bytes + 255) / 256 * 256;
}

static conv_ways weight_ways(const launch *l) {
  return ways_of(l, CONVOLUTION_BACKWARD_WEIGHT, out_shape(l, 0), &l->call->in[0], &l->call->in[1]);
}

static status run_pieces(const launch *l, const weight_plan &w) {
  float *partials = (float *)l->scratch;
  status error =
      LAUNCH(l, weight_pieces,
             dim3(tiles_of(w.p.depth), tiles_of(w.p.out_width), (unsigned)(w.pieces * w.p.groups)),
             THREADS, 0, partials, source_of(l, 0), source_of(l, 1), w.p, w.piece_rows);
  if (error) return error;
  return add_weight_pieces(l, out(l, 0), partials, w.p.in_width, w.p.in_width, w.p.out_width,
                           w.p.g.taps, w.p.groups, w.pieces);
}

/* The filter's gradient and the bias's sums take turns. */
CUDA_SCRATCH(conv3d_backward_weight) {
  weight_plan plan = plan_weight(l);
  conv_ways w = weight_ways(l);
  size_t weight = w.library.is_there ? library_scratch(&w.library)
                  : w.tiles.t.fits   ? tile_scratch(&w.tiles)
                                     : weight_partial_bytes(plan);
  size_t sums = column_sums_scratch(plan.p.rows, plan.p.to.dim[4]);
  return weight > sums ? weight : sums;
}

CUDA_OP(conv3d_backward_weight) {
  weight_plan plan = plan_weight(l);
  conv_ways w = weight_ways(l);
  status error =
      w.library.is_there
          ? run_library(l, &w.library, in<void>(l, 0), out(l, 0), in<void>(l, 1), nullptr)
      : w.tiles.t.fits ? run_voxels(l, &w.tiles, source_of(l, 0), source_of(l, 1), out(l, 0))
                       : run_pieces(l, plan);
  if (error || !flag(l, "bias")) return error;
  return sum_columns(l, in(l, 1), plan.p.rows, plan.p.to.dim[4], out(l, 1));
}

CUDA_SCRATCH(conv_transpose3d_backward_bias) {
  int64_t columns = last_extent(in_shape(l, 0));
  return column_sums_scratch(elements(in_shape(l, 0)) / columns, columns);
}
CUDA_OP(conv_transpose3d_backward_bias) {
  int64_t columns = last_extent(in_shape(l, 0));
  return sum_columns(l, in(l, 0), elements(in_shape(l, 0)) / columns, columns, out(l, 0));
}

} // namespace conv_kernels
