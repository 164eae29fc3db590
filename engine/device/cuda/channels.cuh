/* Two sums for each channel of a channels-last tensor, over pieces of its voxels: what norms and
 * other operators that treat channels one by one are made of. */
#ifndef STRATA_DEVICE_CUDA_CHANNELS_CUH
#define STRATA_DEVICE_CUDA_CHANNELS_CUH

#include "device/cuda/kernel.cuh"

constexpr int CHANNEL_TILE = 256; /* channels of a block at most; also its threads */

/* `samples` × `voxels` × `channels`; each sample's voxels are cut into `pieces`. */
struct channel_pieces {
  int64_t samples, voxels, channels, piece_voxels;
  int pieces;
};

static inline channel_pieces cut_channels(int64_t samples, int64_t voxels, int64_t channels) {
  channel_pieces c = {samples, voxels, channels, 0, 0};
  int64_t tile = channels < CHANNEL_TILE ? channels : CHANNEL_TILE;
  int64_t least = 16 * (CHANNEL_TILE / tile); /* sixteen voxels a thread */
  int64_t pieces = (voxels + least - 1) / least;
  c.pieces = (int)(pieces < 1 ? 1 : pieces > 512 ? 512 : pieces);
  c.piece_voxels = (voxels + c.pieces - 1) / c.pieces;
  return c;
}

static inline size_t channel_pieces_bytes(const channel_pieces *c) {
  return (size_t)(c->samples * c->pieces * 2 * c->channels) * sizeof(float);
}

/* partials[sample][piece][2][channel] = Σ over the piece's voxels of what f(sample, channel, voxel,
 * first, sums) adds to its two sums; `first` is the piece's first voxel. Grid (pieces, tiles of
 * channels, samples), CHANNEL_TILE threads: neighbouring threads have neighbouring channels. */
template <typename F> __global__ void sum_channels(float *partials, channel_pieces c, F f) {
  __shared__ float shared[2][CHANNEL_TILE];
  int64_t base = (int64_t)blockIdx.y * CHANNEL_TILE;
  int width = (int)(c.channels - base < CHANNEL_TILE ? c.channels - base : CHANNEL_TILE);
  int rows = CHANNEL_TILE / width, row = (int)threadIdx.x / width, k = (int)threadIdx.x % width;
  int64_t first = blockIdx.x * c.piece_voxels;
  int64_t end = first + c.piece_voxels < c.voxels ? first + c.piece_voxels : c.voxels;
  float sums[2] = {0, 0};
  if (row < rows)
    for (int64_t v = first + row; v < end; v += rows) f(blockIdx.z, base + k, v, first, sums);
  shared[0][threadIdx.x] = sums[0];
  shared[1][threadIdx.x] = sums[1];
  __syncthreads();
  if ((int)threadIdx.x < width) {
    float a = 0, b = 0;
    for (int r = 0; r < rows; r++) {
      a += shared[0][r * width + k];
      b += shared[1][r * width + k];
    }
    float *to = partials + ((int64_t)blockIdx.z * gridDim.x + blockIdx.x) * 2 * c.channels;
    to[base + k] = a;
    to[c.channels + base + k] = b;
  }
}

template <typename F>
static inline status launch_channel_sums(const launch *l, float *partials, channel_pieces c, F f) {
  dim3 grid((unsigned)c.pieces, (unsigned)((c.channels + CHANNEL_TILE - 1) / CHANNEL_TILE),
            (unsigned)c.samples);
  return LAUNCH(l, sum_channels<F>, grid, CHANNEL_TILE, 0, partials, c, f);
}

/* ---- sums of the columns of a matrix, as of a bias's gradient ---------------------------------- */

struct column_terms {
  const float *x;
  int64_t columns;
  __device__ void operator()(int64_t, int64_t column, int64_t row, int64_t, float sums[2]) const {
    sums[0] += x[row * columns + column];
  }
};

struct add_column_pieces {
  float *y;
  const float *partials;
  int64_t columns;
  int pieces;
  __device__ void operator()(int64_t column) const {
    double total = 0;
    for (int p = 0; p < pieces; p++) total += (double)partials[p * 2 * columns + column];
    y[column] = (float)total;
  }
};

static inline size_t column_sums_scratch(int64_t rows, int64_t columns) {
  channel_pieces c = cut_channels(1, rows, columns);
  return channel_pieces_bytes(&c);
}

/* y[c] = Σ over rows of x[row][c]; the launch's scratch holds column_sums_scratch bytes. */
static inline status sum_columns(const launch *l, const float *x, int64_t rows, int64_t columns,
                                 float *y) {
  channel_pieces c = cut_channels(1, rows, columns);
  float *partials = (float *)l->scratch;
  status error = launch_channel_sums(l, partials, c, column_terms{x, columns});
  if (error) return error;
  return for_each_index(l, columns, add_column_pieces{y, partials, columns, c.pieces});
}

#endif
