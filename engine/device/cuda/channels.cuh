/* Two sums for each channel of a channels-last tensor, over pieces of its voxels: what norms and
 * other operators that treat channels one by one are made of. */
#ifndef STRATA_DEVICE_CUDA_CHANNELS_CUH
#define STRATA_DEVICE_CUDA_CHANNELS_CUH

#include "device/cuda/divisor.h"
#include "device/cuda/groups.cuh"

constexpr int CHANNEL_TILE = 256; /* channels of a block at most; also its threads */

/* `samples` × `voxels` × `channels`; each sample's voxels are cut into `pieces`. */
struct channel_pieces {
  int64_t samples, voxels, channels, piece_voxels;
  int pieces;
};

/* Channels that a thread adds up. */
static inline int channels_at_once(int64_t channels) {
  return channels % GROUP == 0 ? GROUP : 1;
}

static inline channel_pieces cut_channels(int64_t samples, int64_t voxels, int64_t channels) {
  channel_pieces c = {samples, voxels, channels, 0, 0};
  int64_t lanes = (channels < CHANNEL_TILE ? channels : CHANNEL_TILE) / channels_at_once(channels);
  int64_t least = 16 * (CHANNEL_TILE / lanes); /* sixteen voxels a thread */
  int64_t pieces = (voxels + least - 1) / least;
  c.pieces = (int)(pieces < 1 ? 1 : pieces > 512 ? 512 : pieces);
  c.piece_voxels = (voxels + c.pieces - 1) / c.pieces;
  return c;
}

static inline size_t channel_pieces_bytes(const channel_pieces *c) {
  return (size_t)(c->samples * c->pieces * 2 * c->channels) * sizeof(float);
}

/* partials[sample][piece][2][channel] = Σ over the piece's voxels of what f.add<N>(sample, channel,
 * voxel, first, sums) adds to the two sums of channels `channel` … + N − 1; `first` is the piece's first
 * voxel. Grid (pieces, tiles of channels, samples), CHANNEL_TILE threads: neighbouring threads have
 * neighbouring channels. */
template <int N, typename F> __global__ void sum_channels(float *partials, channel_pieces c, F f) {
  __shared__ float shared[2][N * CHANNEL_TILE];
  int64_t base = (int64_t)blockIdx.y * CHANNEL_TILE;
  int width = (int)(c.channels - base < CHANNEL_TILE ? c.channels - base : CHANNEL_TILE);
  int lanes = width / N, rows = CHANNEL_TILE / lanes;
  int row = (int)threadIdx.x / lanes, k = (int)threadIdx.x % lanes * N;
  int64_t first = blockIdx.x * c.piece_voxels;
  int64_t end = first + c.piece_voxels < c.voxels ? first + c.piece_voxels : c.voxels;
  float sums[2][N] = {};
  if (row < rows)
    for (int64_t v = first + row; v < end; v += rows)
      f.template add<N>(blockIdx.z, base + k, v, first, sums);
  UNROLL for (int i = 0; i < N; i++) {
    shared[0][row * width + k + i] = sums[0][i];
    shared[1][row * width + k + i] = sums[1][i];
  }
  __syncthreads();
  if ((int)threadIdx.x < width) {
    float a = 0, b = 0;
    for (int r = 0; r < rows; r++) {
      a += shared[0][r * width + threadIdx.x];
      b += shared[1][r * width + threadIdx.x];
    }
    float *to = partials + ((int64_t)blockIdx.z * gridDim.x + blockIdx.x) * 2 * c.channels + base;
    to[threadIdx.x] = a;
    to[c.channels + threadIdx.x] = b;
  }
}

template <typename F>
static inline status launch_channel_sums(const launch *l, float *partials, channel_pieces c, F f) {
  dim3 grid((unsigned)c.pieces, (unsigned)((c.channels + CHANNEL_TILE - 1) / CHANNEL_TILE),
            (unsigned)c.samples);
  if (channels_at_once(c.channels) == 1)
    return LAUNCH(l, (sum_channels<1, F>), grid, CHANNEL_TILE, 0, partials, c, f);
  return LAUNCH(l, (sum_channels<GROUP, F>), grid, CHANNEL_TILE, 0, partials, c, f);
}

/* ---- their totals --------------------------------------------------------------------------------- */

constexpr int FINISHED = 8 /* channels of a block */, FINISH_ROWS = CHANNEL_TILE / FINISHED;

/* g(sample, channel, first total, second total) for every channel of a sample, on one thread each. A thread
 * adds every FINISH_ROWS-th piece, then one the sums of FINISH_ROWS threads in order: there are up to 512
 * pieces, too many for one. Grid (groups of channels, samples), CHANNEL_TILE threads. */
template <typename G>
__global__ void finish_channels(const float *partials, channel_pieces c, G g) {
  __shared__ double shared[2][FINISH_ROWS][FINISHED];
  int column = (int)threadIdx.x % FINISHED, row = (int)threadIdx.x / FINISHED;
  int64_t sample = blockIdx.y, channel = (int64_t)blockIdx.x * FINISHED + column;
  const float *from = partials + sample * c.pieces * 2 * c.channels + channel;
  double a = 0, b = 0;
  for (int p = row; p < c.pieces && channel < c.channels; p += FINISH_ROWS) {
    a += (double)from[2 * p * c.channels];
    b += (double)from[(2 * p + 1) * c.channels];
  }
  shared[0][row][column] = a;
  shared[1][row][column] = b;
  __syncthreads();
  if (row > 0 || channel >= c.channels) return;
  for (int r = 1; r < FINISH_ROWS; r++) {
    a += shared[0][r][column];
    b += shared[1][r][column];
  }
  g(sample, channel, a, b);
}

/* Both: `partials` holds channel_pieces_bytes. */
template <typename F, typename G>
static inline status total_channels(const launch *l, float *partials, channel_pieces c, F f, G g) {
  status error = launch_channel_sums(l, partials, c, f);
  if (error) return error;
  dim3 grid((unsigned)((c.channels + FINISHED - 1) / FINISHED), (unsigned)c.samples);
  return LAUNCH(l, finish_channels<G>, grid, CHANNEL_TILE, 0, partials, c, g);
}

/* ---- sums of the columns of a matrix, as of a bias's gradient ---------------------------------- */

struct column_terms {
  const float *x;
  int64_t columns;
  template <int N>
  __device__ void add(int64_t, int64_t column, int64_t row, int64_t, float sums[2][N]) const {
    numbers<N> found = load<N>(x, row * columns + column);
    UNROLL for (int k = 0; k < N; k++) sums[0][k] += found.at[k];
  }
};

struct store_column {
  float *y;
  __device__ void operator()(int64_t, int64_t column, double total, double) const {
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
  return total_channels(l, partials, c, column_terms{x, columns}, store_column{y});
}

#endif
