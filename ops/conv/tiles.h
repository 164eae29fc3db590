/* Convolutions as products of tiles by tensor cores (tensor_cores.cuh): which problem is cut how, and
 * which voxels a tap reads. Plain arithmetic, the same for the host, its tests and CUDA kernels, which
 * define TILES_FUNCTION before. What is chosen depends on the problem alone. */
#ifndef STRATA_OPS_CONV_TILES_H
#define STRATA_OPS_CONV_TILES_H

#include "device/cuda/convolution.h"

#include <stdbool.h>
#include <string.h>

#ifndef TILES_FUNCTION
#define TILES_FUNCTION static inline
#endif

/* A block multiplies a tile of TILE_ROWS × depth with one of depth × 32, 64 or 128 columns, BF16_DEPTH or
 * TF32_DEPTH at a time: a step. */
enum { TILE_ROWS = 128, BF16_DEPTH = 32, TF32_DEPTH = 16, TILE_THREADS = 256, TILE_WIDTH = 8 };

TILES_FUNCTION int64_t tiles_over(int64_t count, int64_t tile) {
  return (count + tile - 1) / tile;
}

/* ---- which voxels a tap reads ------------------------------------------------------------------------ */

/* An axis of the forward pass, in voxels. */
typedef struct tile_axis {
  int image, out, kernel, stride, padding, dilation;
} tile_axis;

/* Voxels of the result that read the same taps, along one axis: voxel first + i · step of it reads, for
 * j = 0 … taps − 1, voxel begin + i · row_step + j · tap_step of what is gathered, times tap
 * tap_first + j · tap_stride of the filter. Voxels outside are zeros. */
typedef struct axis_window {
  int first, step, count;
  int begin, row_step, tap_step;
  int tap_first, tap_stride, taps;
} axis_window;

TILES_FUNCTION axis_window forward_window(const tile_axis *a) {
  axis_window w = {0, 1, a->out, -a->padding, a->stride, a->dilation, 0, 1, a->kernel};
  return w;
}

TILES_FUNCTION int common_divisor(int a, int b) {
  while (b) {
    int rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* Into how many such windows the image falls in the gradient of the data. */
TILES_FUNCTION int backward_windows(const tile_axis *a) {
  return a->stride < a->image ? a->stride : a->image;
}

/* The gradient of voxel o is Σ over taps k of the result's voxel (o + padding − k · dilation) / stride,
 * where that is whole: for voxels of one residue of o by the stride, every tap_stride-th tap. So no
 * product with the zeros between strided voxels is ever made. */
TILES_FUNCTION axis_window backward_window(const tile_axis *a, int residue) {
  int common = common_divisor(a->stride, a->dilation);
  axis_window w = {residue, a->stride, 0, 0, 1, -a->dilation / common, 0, a->stride / common, 0};
  w.count = residue < a->image ? (a->image - 1 - residue) / a->stride + 1 : 0;
  for (int k = 0; k < w.tap_stride && k < a->kernel; k++) {
    int at = residue + a->padding - k * a->dilation;
    if (at % a->stride) continue;
    w.begin = at / a->stride;
    w.tap_first = k;
    w.taps = (a->kernel - 1 - k) / w.tap_stride + 1;
    break;
  }
  return w;
}

/* ---- how a problem is cut ---------------------------------------------------------------------------- */

/* Forward and gradient of the data: rows are voxels of the result, the depth is taps times channels.
 * Gradient of the weight: rows are taps times channels, the depth is voxels. Columns are features, or
 * channels in the gradient of the data. */
typedef struct conv_tiling {
  bool fits;   /* tensor cores take it */
  int columns; /* of a tile */
  int depth;   /* of a step */
  int width;   /* channels of one tap in a step; depth / width taps are in it. Not for the weight */
  int windows; /* kinds of voxels that read taps of their own: stride³ in the gradient of the data */
  int64_t window_taps;  /* of a window at most, filled up to whole steps */
  bool copies_gathered; /* what taps read is copied first, in bf16 where factors are */
  bool copies_other;    /* and in the gradient of the weight, the result's gradient */
  int64_t gathered_width, other_width; /* a group's channels there, filled up */
  int64_t rows;                        /* of the longest window, or of the weight */
  int64_t row_tiles, column_tiles;
  int64_t pieces; /* the depth is cut into, each with sums of its own that are added in order */
} conv_tiling;

/* ---- what it costs ----------------------------------------------------------------------------------- */

/* Clocks of one multiprocessor, for comparing kernels and tiles; they were counted, not measured. A step
 * takes the longer of two: its warps' instructions, as compiled for sm_90 (115, 125 and 180 a warp for 32,
 * 64 and 128 columns, in TF32 a half more; eight warps, four issued a clock), and its products, at 1280 a
 * clock, five eighths of the tensor cores' peak, which is what mma.sync is said to reach on Hopper; in
 * TF32 a step has half as many, at half the rate. */
TILES_FUNCTION int64_t step_clocks(int columns) {
  return columns == 32 ? 230 : columns == 64 ? 250 : 410;
}

/* A step of the plain kernels is 64 × 64 × 16: 1400 instructions a warp, most of them to find what is
 * gathered. Starting and ending a block takes about as long in either. */
enum { PLAIN_TILE = 64, PLAIN_DEPTH = 16, PLAIN_STEP_CLOCKS = 2800, BLOCK_CLOCKS = 1000 };

static inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t filled_width(int64_t channels, bool is_copied) {
  return is_copied ? tiles_over(channels, TILE_WIDTH) * TILE_WIDTH : channels;
}

/* What is read 16 bytes at a time needs whole ones; and where every number is read often, a copy in half
 * the bytes pays. */
static inline bool pays_to_copy(const convolution *c, int64_t channels, int64_t reads) {
  return channels % 4 || (c->bf16 && reads >= 4);
}

/* Enough blocks for two waves of two on each of 132 multiprocessors, no piece under eight steps, partial
 * sums of at most 256 MiB. */
static inline int64_t pieces_of(int64_t blocks, int64_t steps, int64_t sums) {
  int64_t pieces = tiles_over(528, blocks);
  pieces = least(pieces, least(steps / 8, ((int64_t)64 << 20) / sums));
  return pieces < 1 ? 1 : pieces;
}

static inline int columns_of(int64_t out_width) {
  int best = 128;
  for (int columns = 64; columns >= 32; columns /= 2)
    if (tiles_over(out_width, columns) * step_clocks(columns) <
        tiles_over(out_width, best) * step_clocks(best))
      best = columns;
  return best;
}

static inline tile_axis tile_axis_of(const convolution *c, int a) {
  tile_axis axis = {(int)c->image[a],  (int)c->out[a],     (int)c->kernel[a],
                    (int)c->stride[a], (int)c->padding[a], (int)c->dilation[a]};
  return axis;
}

/* Groups of few channels would be filled up with zeros, and the copy be several times as large as the
 * volume. Voxels and rows of the filter have 32-bit numbers. */
static inline bool tensor_cores_fit(const convolution *c) {
  int64_t channels = c->channels / c->groups, features = c->features / c->groups;
  int64_t image = c->batch, out = c->batch;
  for (int a = 0; a < 3; a++) image *= c->image[a], out *= c->out[a];
  bool is_narrow = channels < TILE_WIDTH || features < TILE_WIDTH;
  return (c->bf16 || c->tf32) && !(c->groups > 1 && is_narrow) && image < INT32_MAX / 2 &&
         out < INT32_MAX / 2;
}

/* Of the kernels without tensor cores: rows × depth × out_width for each group. */
static inline int64_t plain_clocks(int64_t groups, int64_t rows, int64_t depth, int64_t out_width) {
  int64_t blocks = tiles_over(rows, PLAIN_TILE) * tiles_over(out_width, PLAIN_TILE) * groups;
  return blocks * (BLOCK_CLOCKS + tiles_over(depth, PLAIN_DEPTH) * PLAIN_STEP_CLOCKS);
}

/* Of the tiling, whose windows have `steps` steps together. */
static inline int64_t tiling_clocks(const conv_tiling *t, int64_t groups, int64_t steps) {
  int64_t tiles = t->row_tiles * t->column_tiles * groups;
  return tiles * (t->windows * t->pieces * BLOCK_CLOCKS + steps * step_clocks(t->columns));
}

static inline conv_tiling tiling_of(const convolution *c) {
  conv_tiling t;
  memset(&t, 0, sizeof t);
  t.fits = tensor_cores_fit(c);
  if (!t.fits) return t;
  bool is_data = c->pass == CONVOLUTION_BACKWARD_DATA;
  bool is_weight = c->pass == CONVOLUTION_BACKWARD_WEIGHT;
  int64_t channels = c->channels / c->groups, features = c->features / c->groups;
  int64_t in_width = is_data ? features : channels, out_width = is_data ? channels : features;
  int64_t taps = 1, strides = 1, out = c->batch, image = c->batch, most_taps = 1;
  t.windows = 1;
  t.rows = c->batch;
  for (int a = 0; a < 3; a++) {
    tile_axis axis = tile_axis_of(c, a);
    axis_window w = is_data ? backward_window(&axis, 0) : forward_window(&axis);
    taps *= c->kernel[a];
    strides *= c->stride[a];
    out *= c->out[a];
    image *= c->image[a];
    t.rows *= w.count;
    most_taps *= tiles_over(c->kernel[a], w.tap_stride);
    if (is_data) t.windows *= backward_windows(&axis);
  }
  t.depth = c->bf16 ? BF16_DEPTH : TF32_DEPTH;
  t.columns = columns_of(out_width);
  t.column_tiles = tiles_over(out_width, t.columns);
  t.copies_gathered = pays_to_copy(c, in_width, taps * t.column_tiles / (is_data ? 1 : strides));
  t.gathered_width = filled_width(in_width, t.copies_gathered);
  int64_t voxels = is_data ? image : out, plain, all_steps;
  int64_t sums = voxels * out_width * c->groups, steps;
  if (is_weight) {
    t.rows = taps * t.gathered_width;
    all_steps = steps = tiles_over(out, t.depth);
    sums = t.rows * out_width * c->groups;
    plain = plain_clocks(c->groups, taps * in_width, out, out_width);
  } else {
    t.width = in_width <= 8 ? 8 : in_width <= 16 ? 16 : t.depth;
    int64_t step_taps = t.depth / t.width, chunks = tiles_over(in_width, t.depth);
    int64_t with_taps = least(t.windows, taps); /* at most */
    t.window_taps = tiles_over(most_taps, step_taps) * step_taps;
    steps = t.window_taps / step_taps * chunks;
    all_steps = tiles_over(taps + (step_taps - 1) * with_taps, step_taps) * chunks;
    plain = plain_clocks(c->groups, voxels, taps * in_width, out_width);
  }
  t.row_tiles = tiles_over(t.rows, TILE_ROWS);
  t.copies_other = is_weight && pays_to_copy(c, out_width, t.row_tiles);
  t.other_width = filled_width(out_width, t.copies_other);
  t.pieces = pieces_of(t.row_tiles * t.column_tiles * t.windows * c->groups, steps, sums);
  int64_t blocks = t.row_tiles * t.column_tiles * t.windows * c->groups * t.pieces;
  bool is_small = blocks < INT32_MAX && taps * (in_width + t.depth) < INT32_MAX / 2;
  t.fits = is_small && tiling_clocks(&t, c->groups, all_steps) < plain;
  return t;
}

/* Whether these kernels are faster than cuDNN's for the problem, where both can. Measured in bf16 with cuDNN
 * 9.19 on an H200, node by node in steps of UNETR and Swin UNETR: gradients of weights over many voxels
 * take 0.13 to 1.0 of its time (its deterministic engines cut them into too few pieces), gradients of
 * the data from at most 16 features half, and filters over a single channel 0.4. Elsewhere cuDNN takes 0.4
 * to 0.8 of theirs. */
TILES_FUNCTION bool tiles_are_faster(const convolution *c) {
  enum { MANY_VOXELS = 16384, FEW_FEATURES = 16, FEW_CHANNELS = 4 };
  int64_t voxels = c->batch * c->out[0] * c->out[1] * c->out[2];
  if (!c->bf16 || c->groups != 1 || voxels < MANY_VOXELS) return false;
  if (c->pass == CONVOLUTION_BACKWARD_WEIGHT) return true;
  if (c->pass == CONVOLUTION_BACKWARD_DATA) return c->features <= FEW_FEATURES;
  return c->channels <= FEW_CHANNELS;
}

#endif
