/* What the kernels of convolutions by tensor cores have in common: how factors come from memory to
 * tiles in shared memory, and how tiles are multiplied. Included by tensor_cores.cuh. */
#ifndef STRATA_OPS_CONV_TILES_CUH
#define STRATA_OPS_CONV_TILES_CUH

#include "device/cuda/mma.cuh"

#define TILES_FUNCTION static __host__ __device__ inline
#include "ops/conv/tiles.h"

namespace conv_kernels {

/* Tiles of factors in bf16 (E is uint16_t) or TF32 (E is uint32_t). From row to row in shared memory:
 * rows are aligned to 16 bytes, and what a warp reads at once lies in all 32 banks. */
template <typename E> constexpr int DEPTH = sizeof(E) == 2 ? BF16_DEPTH : TF32_DEPTH;
template <typename E> constexpr int DEPTH_PITCH = DEPTH<E> + 16 / (int)sizeof(E);
constexpr int ROWS_PITCH = TILE_ROWS + 8;
template <int COLUMNS> constexpr int COLUMN_PITCH = COLUMNS + 8;

/* The numbers of the kernels' problem; tiles.h has their meaning. */
struct tile_problem {
  tile_axis axis[3];
  int from[3], to[3]; /* extents of what is gathered, and of the result */
  bool is_data;
  int batch, groups, taps, out_width;
  int gathered_width, other_width, width, width_bits; /* 1 << width_bits is width */
  int filter_depth, filter_columns;                   /* filled up */
  int window_taps;
  unsigned gathered_pitch, other_pitch, filter_pitch; /* bytes, from voxel to voxel or row to row */
  int windows[3];                                     /* along the axes */
  int row_tiles, column_tiles, pieces;
  bool is_even; /* out_width; so pairs are aligned */
};

/* ---- factors ----------------------------------------------------------------------------------------- */

template <typename V> static __device__ inline V load_or_zeros(const void *from, bool is_there) {
  const V zeros = {0, 0, 0, 0};
  return is_there ? *static_cast<const V *>(from) : zeros;
}

/* 16 bytes of factors, on their way from memory to a tile. */
template <typename T> struct part;

template <> struct part<float> {
  static constexpr int COUNT = 4;
  float4 x;
  __device__ void load(const float *from, bool is_there) {
    x = load_or_zeros<float4>(from, is_there);
  }
  __device__ void store(uint16_t *to) const {
    uint2 pairs = {bf16_pair(x.x, x.y), bf16_pair(x.z, x.w)};
    *reinterpret_cast<uint2 *>(to) = pairs;
  }
  __device__ void store(uint32_t *to) const {
    uint4 rounded = {tf32_bits(x.x), tf32_bits(x.y), tf32_bits(x.z), tf32_bits(x.w)};
    *reinterpret_cast<uint4 *>(to) = rounded;
  }
};

template <> struct part<uint16_t> {
  static constexpr int COUNT = 8;
  uint4 x;
  __device__ void load(const uint16_t *from, bool is_there) {
    x = load_or_zeros<uint4>(from, is_there);
  }
  __device__ void store(uint16_t *to) const {
    *reinterpret_cast<uint4 *>(to) = x;
  }
};

/* How a thread fills its share of a tile of ROWS × COLUMNS: parts of one column, STEP rows apart. */
template <typename T, int ROWS, int COLUMNS> struct share {
  static constexpr int ACROSS = COLUMNS / part<T>::COUNT, STEP = TILE_THREADS / ACROSS;
  static constexpr int COUNT = ROWS > STEP ? ROWS / STEP : 1;
  static __device__ int column() {
    return (int)(threadIdx.x % ACROSS) * part<T>::COUNT;
  }
  static __device__ int row(int i) {
    return (int)(threadIdx.x / ACROSS) + i * STEP;
  }
  static __device__ bool has(int i) {
    return ROWS >= STEP || row(i) < ROWS;
  }
  template <typename E>
  static __device__ void store(E *tile, int pitch, const part<T> (&held)[COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++)
      if (has(i)) held[i].store(tile + row(i) * pitch + column());
  }
};

/* `rows` rows of `pitch` bytes on. */
template <typename T>
static __device__ inline const T *rows_after(const T *first, unsigned rows, unsigned pitch) {
  return reinterpret_cast<const T *>(reinterpret_cast<const char *>(first) +
                                     (uint64_t)rows * pitch);
}

/* ---- voxels ------------------------------------------------------------------------------------------ */

/* A voxel of what is gathered, before a tap's shift: where it is, and its number in memory, which may lie
 * outside of it; so numbers are unsigned. */
struct tile_voxel {
  int at[3];
  unsigned number;
};

constexpr int OUT_OF_REACH = -(1 << 29); /* outside of every volume, however it is shifted */

/* The number of a voxel of the first sample, or how far a shift moves numbers. */
static __device__ inline unsigned number_of(const tile_problem &p, const int at[3]) {
  return ((unsigned)at[0] * (unsigned)p.from[1] + (unsigned)at[1]) * (unsigned)p.from[2] +
         (unsigned)at[2];
}

static __device__ inline unsigned number_in(const tile_problem &p, int sample, const int at[3]) {
  return (unsigned)sample * (unsigned)(p.from[0] * p.from[1] * p.from[2]) + number_of(p, at);
}

static __device__ inline bool is_inside(const tile_problem &p, const tile_voxel &v,
                                        const int shift[3]) {
  bool inside = true;
  UNROLL
  for (int axis = 0; axis < 3; axis++)
    inside &= (unsigned)(v.at[axis] + shift[axis]) < (unsigned)p.from[axis];
  return inside;
}

/* Index `i` of samples × extents. */
static __device__ inline void split_index(int i, const int extent[3], int *sample, int at[3]) {
  at[2] = i % extent[2];
  i /= extent[2];
  at[1] = i % extent[1];
  i /= extent[1];
  at[0] = i % extent[0];
  *sample = i / extent[0];
}

/* ---- products ---------------------------------------------------------------------------------------- */

static __device__ inline void store_pair(float *to, float first, float second, bool is_even) {
  if (is_even) {
    float2 pair = {first, second};
    *reinterpret_cast<float2 *>(to) = pair;
  } else {
    to[0] = first;
    to[1] = second;
  }
}

/* A warp's part of a tile of 128 × COLUMNS, in pieces of 16 × 8. */
template <int COLUMNS> struct warp_tile {
  static constexpr int ROWS = COLUMNS / 2, ACROSS = COLUMNS / 32, PIECES = ROWS / 16;
  float sums[PIECES][4][4] = {};

  static __device__ int row() {
    return (int)(threadIdx.x / WARP / ACROSS) * ROWS;
  }
  static __device__ int column() {
    return (int)(threadIdx.x / WARP % ACROSS) * 32;
  }
  /* += a · b, a step. `a` lies row by row, or with BY_COLUMNS column by column. */
  template <bool BY_COLUMNS> __device__ void multiply(const uint16_t *a, const uint16_t *b) {
    constexpr int PITCH = COLUMN_PITCH<COLUMNS>, A_PITCH = DEPTH_PITCH<uint16_t>;
    UNROLL
    for (int k = 0; k < BF16_DEPTH; k += 16) {
      uint32_t x[4], y[2][4];
      load_b(y[0], b + k * PITCH, PITCH, column());
      load_b(y[1], b + k * PITCH, PITCH, column() + 16);
      UNROLL
      for (int m = 0; m < PIECES; m++) {
        if constexpr (BY_COLUMNS)
          load_a_of_columns(x, a + k * ROWS_PITCH, ROWS_PITCH, row() + 16 * m);
        else
          load_a(x, a + (row() + 16 * m) * A_PITCH, A_PITCH, k);
        UNROLL
        for (int n = 0; n < 4; n++) multiply_add(sums[m][n], x, y[n / 2] + n % 2 * 2);
      }
    }
  }
  template <bool BY_COLUMNS> __device__ void multiply(const uint32_t *a, const uint32_t *b) {
    constexpr int PITCH = COLUMN_PITCH<COLUMNS>;
    constexpr int A_ROW = BY_COLUMNS ? 1 : DEPTH_PITCH<uint32_t>, A_K = BY_COLUMNS ? ROWS_PITCH : 1;
    int g = (int)(threadIdx.x % WARP / 4), t = (int)(threadIdx.x % 4);
    const uint32_t *of_a = a + (row() + g) * A_ROW + t * A_K;
    const uint32_t *of_b = b + t * PITCH + column() + g;
    UNROLL
    for (int k = 0; k < TF32_DEPTH; k += 8) {
      uint32_t x[4], y[4][2];
      UNROLL
      for (int n = 0; n < 4; n++)
        for (int i = 0; i < 2; i++) y[n][i] = of_b[(k + 4 * i) * PITCH + 8 * n];
      UNROLL
      for (int m = 0; m < PIECES; m++) {
        for (int i = 0; i < 4; i++)
          x[i] = of_a[(16 * m + i % 2 * 8) * A_ROW + (k + i / 2 * 4) * A_K];
        UNROLL
        for (int n = 0; n < 4; n++) multiply_add_tf32(sums[m][n], x, y[n]);
      }
    }
  }
  /* Calls f(row, column, pair) for each two neighbours of a row that this thread has. */
  template <typename F> __device__ void each_pair(F f) const {
    int lane = (int)(threadIdx.x % WARP);
    UNROLL
    for (int m = 0; m < PIECES; m++)
      for (int h = 0; h < 2; h++)
        for (int n = 0; n < 4; n++)
          f(row() + 16 * m + 8 * h + lane / 4, column() + 8 * n + lane % 4 * 2, sums[m][n] + 2 * h);
  }
};

/* The block's tile: columns first, then windows, rows, groups, pieces. */
struct tile_place {
  int column, window, row, group, piece;
};

static __device__ inline tile_place place_of_tile(const tile_problem &p, int columns) {
  unsigned i = blockIdx.x, windows = (unsigned)(p.windows[0] * p.windows[1] * p.windows[2]);
  tile_place at;
  at.column = (int)(i % (unsigned)p.column_tiles) * columns;
  i /= (unsigned)p.column_tiles;
  at.window = (int)(i % windows);
  i /= windows;
  at.row = (int)(i % (unsigned)p.row_tiles) * TILE_ROWS;
  i /= (unsigned)p.row_tiles;
  at.group = (int)(i % (unsigned)p.groups);
  at.piece = (int)(i / (unsigned)p.groups);
  return at;
}

/* Piece `piece` of `steps`. */
struct step_range {
  unsigned begin, end;
};
static __device__ inline step_range steps_of_piece(const tile_problem &p, int steps, int piece) {
  return {(unsigned)((int64_t)steps * piece / p.pieces),
          (unsigned)((int64_t)steps * (piece + 1) / p.pieces)};
}

/* Goes through the steps of a block: F has prepare(step), which may leave in shared memory what loads of
 * that step need to know; load(step) from memory to registers, step by step; store(step) from there to
 * the tiles of the step; multiply(step). There are tiles for two steps: while the warps multiply one
 * pair, the factors of the next are on their way. */
template <typename F> static __device__ inline void go_through(step_range steps, F &f) {
  if (steps.begin >= steps.end) return;
  f.prepare(steps.begin);
  f.prepare(steps.begin + 1);
  __syncthreads();
  f.load(steps.begin);
  f.store(steps.begin);
  KEEP_LOOP
  for (unsigned step = steps.begin; step < steps.end; step++) {
    /* The tiles of this step are there, and nobody reads those of the last any more, nor what was
     * prepared for this one. */
    __syncthreads();
    bool has_next = step + 1 < steps.end;
    if (has_next) f.load(step + 1);
    f.prepare(step + 2);
    f.multiply(step);
    if (has_next) f.store(step + 1);
  }
}

} // namespace conv_kernels

#endif
