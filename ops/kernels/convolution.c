#include "ops/kernels/convolution.h"

#include "ops/kernels/gemm.h"

#include <string.h>

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int64_t rounded_up(int64_t a, int64_t multiple) {
  return (a + multiple - 1) / multiple * multiple;
}

static int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

static int64_t volume(const int64_t extent[3]) {
  return extent[0] * extent[1] * extent[2];
}

/* Workspace is handed out in pieces of whole cache lines. A first pass with base NULL adds up
 * sizes. */
typedef struct pieces {
  char *base;
  size_t used;
} pieces;

static float *piece(pieces *w, int64_t floats) {
  float *at = w->base ? (float *)(w->base + w->used) : NULL;
  w->used += (size_t)rounded_up(floats, 16) * sizeof(float);
  return at;
}

conv_shape conv_shape_linear(int64_t rows, int64_t channels, int64_t features) {
  return (conv_shape){.batch = 1,
                      .channels = channels,
                      .features = features,
                      .groups = 1,
                      .image = {1, 1, rows},
                      .out = {1, 1, rows},
                      .kernel = {1, 1, 1},
                      .stride = {1, 1, 1},
                      .dilation = {1, 1, 1}};
}

double conv_flops(const conv_shape *s) {
  return 2.0 * (double)s->batch * (double)volume(s->out) * (double)volume(s->kernel) *
         (double)(s->channels / s->groups) * (double)s->features;
}

/* One tap and nothing between: every voxel of the batch is a row of one long matrix. */
static conv_shape merge_pointwise(conv_shape s) {
  for (int a = 0; a < 3; a++)
    if (s.kernel[a] != 1 || s.stride[a] != 1 || s.padding[a] != 0) return s;
  int64_t voxels = s.batch * volume(s.image);
  s.batch = 1;
  for (int a = 0; a < 3; a++) s.image[a] = s.out[a] = a == 2 ? voxels : 1;
  return s;
}

/* ---- forward and data gradient ------------------------------------------------------------ */

/* Both directions are one sum over taps. Outputs of the data gradient fall into phases by their
 * residue modulo the stride; within a phase every output has the same taps:
 *   out coordinate = out_first + out_step·m,   in coordinate of tap t = in_step·m + offset[t]. */
typedef struct axis {
  int taps;
  int64_t positions, out_first, out_step, in_step;
  int index[CONV_MAX_KERNEL];      /* along the filter */
  int64_t offset[CONV_MAX_KERNEL]; /* ascending */
} axis;

typedef struct product {
  bool transposed; /* data gradient */
  int64_t batch, in[3], out[3];
  int64_t kernel[3], stride[3], padding[3], dilation[3];
  int64_t in_channels, out_channels, groups;
  int64_t depth, columns;                      /* summed and made channels of a group */
  int64_t group_step, depth_step, column_step; /* in weight */
  int64_t bias_period;
  /* derived */
  const gemm_kernels *kernels;
  int vectors;            /* width of a full block of columns */
  int64_t column_vectors; /* columns of a group, in vectors, rounded up */
  int64_t blocks;         /* of columns, per group */
  int64_t phases[3];
  bool padded; /* the input is copied with zeros before and after each z row */
  int64_t pad_low, padded_z;
  bool fused;        /* taps along z and their channels are one run of k */
  bool slides;       /* three taps along z, one voxel apart: sliding tiles fit */
  int64_t chunks;    /* tasks per phase, group and block */
  bool packs_itself; /* a task packs the weights it multiplies with */
  /* data */
  const float *input, *weight, *bias;
  float *output;
  float *packed_weight, *packed_bias, *zeros, *padded_input;
} product;

static axis axis_of(const product *p, int a, int64_t phase) {
  axis x = {0};
  int64_t stride = p->stride[a], dilation = p->dilation[a], padding = p->padding[a];
  if (!p->transposed) {
    x.positions = p->out[a];
    x.out_step = 1;
    x.in_step = stride;
    x.taps = (int)p->kernel[a];
    for (int t = 0; t < x.taps; t++) {
      x.index[t] = t;
      x.offset[t] = t * dilation - padding;
    }
    return x;
  }
  x.positions = phase < p->out[a] ? (p->out[a] - phase + stride - 1) / stride : 0;
  x.out_first = phase;
  x.out_step = stride;
  x.in_step = 1;
  for (int k = (int)p->kernel[a] - 1; k >= 0; k--) {
    int64_t reach = phase + padding - k * dilation;
    if (reach % stride) continue;
    x.index[x.taps] = k;
    x.offset[x.taps++] = reach / stride;
  }
  return x;
}

static int64_t taps_before(const product *p, int a, int64_t phase) {
  int64_t taps = 0;
  for (int64_t r = 0; r < phase; r++) taps += axis_of(p, a, r).taps;
  return taps;
}

/* Taps of the phases that come before (x, y, z) in the packed weights. */
static int64_t phase_begin(const product *p, const int64_t phase[3], int taps_x, int taps_y) {
  return taps_before(p, 0, phase[0]) * p->kernel[1] * p->kernel[2] +
         taps_x *
             (taps_before(p, 1, phase[1]) * p->kernel[2] + taps_y * taps_before(p, 2, phase[2]));
}

/* How the taps along z meet the borders: decides between reading the input where it lies and a copy
 * with zeros around each z row. Read in place, a tile can only put zeros in its first and last row.
 */
static void plan_z(product *p) {
  int64_t low = 0, high = 0;
  bool in_place = true, outside = false, consecutive = p->groups == 1 && p->phases[2] == 1;
  for (int64_t phase = 0; phase < p->phases[2]; phase++) {
    axis z = axis_of(p, 2, phase);
    if (!z.positions) continue;
    for (int t = 0; t < z.taps; t++) {
      int64_t first = -floor_div(z.offset[t], z.in_step);
      int64_t last = floor_div(p->in[2] - 1 - z.offset[t], z.in_step);
      low = larger(low, -z.offset[t]);
      high = larger(high, z.in_step * (z.positions - 1) + z.offset[t] - (p->in[2] - 1));
      outside |= first > 0 || last < z.positions - 1;
      in_place &= first <= 1 && last >= z.positions - 2;
      consecutive &= t == 0 || z.offset[t] == z.offset[t - 1] + 1;
    }
  }
  p->slides = p->vectors == 1 && p->phases[2] == 1 && p->kernel[2] == 3 && p->dilation[2] == 1 &&
              (p->transposed || p->stride[2] == 1);
  bool short_runs = p->depth < 4 && !p->slides && p->kernel[2] > 1 && consecutive;
  p->padded = outside && (!in_place || short_runs);
  p->pad_low = p->padded ? low : 0;
  p->padded_z = p->in[2] + (p->padded ? low + high : 0);
  p->fused = consecutive && !p->slides && (p->padded || !outside);
}

enum { FEW_OUTPUTS = 64 };

static void plan_product(product *p) {
  p->kernels = gemm_best();
  for (int a = 0; a < 3; a++) p->phases[a] = p->transposed ? p->stride[a] : 1;
  int64_t rows = (p->out[2] + p->phases[2] - 1) / p->phases[2];
  p->vectors = gemm_vectors(p->kernels, rows, p->columns);
  /* With so few outputs packing takes as long as multiplying: a block of columns is one task that
   * does both, and blocks are narrow so that there are several. */
  p->packs_itself = p->batch * volume(p->out) / volume(p->phases) <= FEW_OUTPUTS;
  if (p->packs_itself) p->vectors = (int)smaller(p->vectors, 2);
  plan_z(p);
  p->column_vectors = (p->columns + p->kernels->lanes - 1) / p->kernels->lanes;
  p->blocks = (p->column_vectors + p->vectors - 1) / p->vectors;
  int64_t tiles = gemm_tile_count(rows, p->kernels->max_rows[p->vectors]);
  int64_t units = p->batch * ((p->out[0] + p->phases[0] - 1) / p->phases[0]) *
                  ((p->out[1] + p->phases[1] - 1) / p->phases[1]) * tiles;
  int64_t products = volume(p->phases) * p->groups * p->blocks;
  p->chunks = p->packs_itself ? 1 : larger(1, smaller(units, (64 + products - 1) / products));
}

static product product_of(const conv_shape *shape, bool transposed) {
  conv_shape s = merge_pointwise(*shape);
  int64_t taps = volume(s.kernel), group_channels = s.channels / s.groups;
  product p = {.transposed = transposed,
               .batch = s.batch,
               .groups = s.groups,
               .group_step = s.features / s.groups * group_channels * taps};
  memcpy(p.kernel, s.kernel, sizeof p.kernel);
  memcpy(p.stride, s.stride, sizeof p.stride);
  memcpy(p.padding, s.padding, sizeof p.padding);
  memcpy(p.dilation, s.dilation, sizeof p.dilation);
  memcpy(p.in, transposed ? s.out : s.image, sizeof p.in);
  memcpy(p.out, transposed ? s.image : s.out, sizeof p.out);
  p.in_channels = transposed ? s.features : s.channels;
  p.out_channels = p.bias_period = transposed ? s.channels : s.features;
  p.depth = p.in_channels / s.groups;
  p.columns = p.out_channels / s.groups;
  p.depth_step = transposed ? group_channels * taps : taps;
  p.column_step = transposed ? taps : group_channels * taps;
  /* Steps as long as the filter, along z: the voxels one input makes lie side by side, so they are
   * one wider voxel. */
  if (transposed && s.groups == 1 && s.stride[2] > 1 && s.stride[2] == s.kernel[2] &&
      s.padding[2] == 0 && s.dilation[2] == 1 && p.out[2] == p.in[2] * s.stride[2]) {
    p.columns *= s.stride[2];
    p.out_channels *= s.stride[2];
    p.out[2] = p.in[2];
    p.kernel[2] = p.stride[2] = 1;
  }
  plan_product(&p);
  return p;
}

static size_t product_pieces(product *p, void *workspace) {
  pieces w = {workspace, 0};
  int64_t lanes = p->kernels->lanes, columns = p->groups * p->column_vectors * lanes;
  p->packed_weight = piece(&w, volume(p->kernel) * p->depth * columns);
  p->packed_bias = piece(&w, columns);
  p->zeros = piece(&w, p->depth);
  p->padded_input = NULL;
  if (p->padded)
    p->padded_input = piece(&w, p->batch * p->in[0] * p->in[1] * p->padded_z * p->in_channels);
  return w.used;
}

/* Weights of a block are packed in the order tiles read them: [tap][depth][columns of the block].
 */
static float *packed_block(const product *p, int64_t begin, int64_t taps, int64_t group,
                           int64_t block) {
  int64_t lanes = p->kernels->lanes;
  return p->packed_weight +
         ((begin * p->groups + group * taps) * p->column_vectors + block * p->vectors * taps) *
             p->depth * lanes;
}

/* Where every output has the same taps, a column's weights are a run in PyTorch's order: squares of
 * lanes × run are transposed. Taps are packed in the order they are summed, reversed for the data
 * gradient. */
static void pack_runs(const product *p, float *out, int64_t width, const float *from) {
  int64_t lanes = p->kernels->lanes, taps = volume(p->kernel);
  /* The run goes over (depth, tap) in the forward direction, over taps in the other. */
  int64_t run = p->transposed ? taps : taps * p->depth, runs = p->transposed ? p->depth : 1;
  if (p->column_step == 1) {
    for (int64_t d = 0; d < p->depth; d++)
      memcpy(out + d * width * lanes, from + d * p->depth_step, (size_t)lanes * sizeof(float));
    return;
  }
  float square[GEMM_MAX_LANES * GEMM_MAX_LANES];
  for (int64_t r = 0; r < runs; r++, from += p->depth_step) {
    for (int64_t begin = 0; begin < run; begin += lanes) {
      /* The last square overlaps the one before rather than hang over. */
      int64_t j = larger(0, smaller(begin, run - lanes)), count = smaller(lanes, run - j);
      int64_t d = r + j / taps, tap = j % taps;
      if (count == lanes && taps == 1) { /* one tap: rows are packed at even distances */
        p->kernels->transpose(from + j, p->column_step, out + j * width * lanes, width * lanes);
        continue;
      }
      if (count == lanes)
        p->kernels->transpose(from + j, p->column_step, square, lanes);
      else
        for (int64_t i = 0; i < count; i++)
          for (int64_t l = 0; l < lanes; l++)
            square[i * lanes + l] = from[l * p->column_step + j + i];
      for (int64_t i = 0; i < count; i++) {
        int64_t at = p->transposed ? taps - 1 - tap : tap;
        memcpy(out + (at * p->depth + d) * width * lanes, square + i * lanes,
               (size_t)lanes * sizeof(float));
        if (++tap == taps) {
          tap = 0;
          d++;
        }
      }
    }
  }
}

static void pack_task(void *context, int64_t task) {
  const product *p = context;
  int64_t lanes = p->kernels->lanes, v = task % p->column_vectors, rest = task / p->column_vectors;
  int64_t group = rest % p->groups;
  int64_t phase[3];
  rest /= p->groups;
  for (int a = 2; a >= 0; a--) {
    phase[a] = rest % p->phases[a];
    rest /= p->phases[a];
  }
  axis x = axis_of(p, 0, phase[0]), y = axis_of(p, 1, phase[1]), z = axis_of(p, 2, phase[2]);
  int64_t taps = (int64_t)x.taps * y.taps * z.taps;
  int64_t block = v / p->vectors,
          width = smaller(p->vectors, p->column_vectors - block * p->vectors);
  float *out = packed_block(p, phase_begin(p, phase, x.taps, y.taps), taps, group, block) +
               (v - block * p->vectors) * lanes;
  /* A column is a channel, and where z steps were made columns, a channel at one of them. */
  int64_t channels = p->bias_period / p->groups, filter_z = p->kernel[2] * (p->columns / channels);
  int count = (int)smaller(lanes, p->columns - v * lanes);
  if (count == lanes && volume(p->phases) == 1) {
    pack_runs(p, out, width, p->weight + group * p->group_step + v * lanes * p->column_step);
    return;
  }
  const float *from[GEMM_MAX_LANES];
  for (int l = 0; l < count; l++) {
    int64_t column = v * lanes + l;
    from[l] =
        p->weight + group * p->group_step + column % channels * p->column_step + column / channels;
  }
  for (int64_t d = 0; d < p->depth; d++)
    for (int i = 0; i < x.taps; i++)
      for (int j = 0; j < y.taps; j++)
        for (int k = 0; k < z.taps; k++) {
          int64_t at =
              d * p->depth_step + (x.index[i] * p->kernel[1] + y.index[j]) * filter_z + z.index[k];
          int64_t tap = ((int64_t)i * y.taps + j) * z.taps + k;
          float *to = out + (tap * p->depth + d) * width * lanes;
          for (int l = 0; l < count; l++) to[l] = from[l][at];
          for (int l = count; l < lanes; l++) to[l] = 0;
        }
}

static void pack_bias(const product *p) {
  int64_t padded = p->column_vectors * p->kernels->lanes;
  for (int64_t i = 0; i < p->groups * padded; i++) {
    int64_t column = i % padded;
    p->packed_bias[i] = p->bias && column < p->columns
                            ? p->bias[(i / padded * p->columns + column) % p->bias_period]
                            : 0;
  }
  memset(p->zeros, 0, (size_t)p->depth * sizeof(float));
}

static void pad_task(void *context, int64_t task) {
  const product *p = context;
  size_t row = (size_t)(p->in[2] * p->in_channels);
  size_t low = (size_t)(p->pad_low * p->in_channels);
  size_t padded = (size_t)(p->padded_z * p->in_channels);
  for (int64_t y = 0; y < p->in[1]; y++) {
    int64_t r = task * p->in[1] + y;
    float *to = p->padded_input + (size_t)r * padded;
    memset(to, 0, low * sizeof(float));
    memcpy(to + low, p->input + (size_t)r * row, row * sizeof(float));
    memset(to + low + row, 0, (padded - low - row) * sizeof(float));
  }
}

/* Runs of k that are multiplied in one visit of a tile: taps [tap, tap_end) over all of the depth,
 * or part of the depth of one tap. */
typedef struct k_block {
  int64_t tap, tap_end, depth, depth_end;
} k_block;

enum { MAX_SEGMENTS = 512, SMALL_WEIGHTS = 8192 };

typedef struct phase_plan {
  axis x, y, z;
  int64_t taps_z, depth; /* segments along z and their k, after fusing or sliding */
  int64_t tap_step;      /* floats of weights from segment to segment */
  int reach;             /* rows a tile reads beyond those it makes */
  int64_t row_tiles, rows, chunk_begin, chunk_end;
  int64_t group, column;
  int vectors;
  const float *weights;
} phase_plan;

/* What the next tile along y will read that this one does not: one more z row of each plane the
 * filter reaches, and the results it will write. Fetched meanwhile, because a row of a large volume
 * is far away and too short for the processor's own prefetch. */
typedef struct lookahead {
  const float *at;
  int64_t lines; /* cache lines of the present run */
  const float *run[CONV_MAX_KERNEL + 1];
  int64_t run_lines[CONV_MAX_KERNEL + 1];
  int count, taken;
} lookahead;

enum { LINE_FLOATS = 16 };

static void look_ahead(const product *p, const phase_plan *q, const float *input, int64_t x,
                       int64_t y, int64_t z0, int rows, const float *out, lookahead *next) {
  int64_t in_y = q->y.in_step * (y + 1) + q->y.offset[q->y.taps - 1];
  int64_t floats = ((rows - 1) * q->z.in_step + 1) * p->in_channels;
  if (in_y >= 0 && in_y < p->in[1])
    for (int t = 0; t < q->x.taps; t++) {
      int64_t in_x = q->x.in_step * x + q->x.offset[t];
      if (in_x < 0 || in_x >= p->in[0]) continue;
      next->run[next->count] =
          input + ((in_x * p->in[1] + in_y) * p->padded_z + q->z.in_step * z0) * p->in_channels;
      next->run_lines[next->count++] = (floats + LINE_FLOATS - 1) / LINE_FLOATS;
    }
  next->run[next->count] = out + q->y.out_step * p->out[2] * p->out_channels;
  next->run_lines[next->count++] =
      (rows * q->z.out_step * p->out_channels + LINE_FLOATS - 1) / LINE_FLOATS;
}

/* Along one long row, what comes some kilobytes later. */
static void fetch_row(const product *p, const phase_plan *q, const float *from, const float *to,
                      int rows) {
  enum { AHEAD = 2 };
  int64_t in = rows * q->z.in_step * p->in_channels, out = rows * q->z.out_step * p->out_channels;
  for (int64_t i = 0; i < in; i += LINE_FLOATS) __builtin_prefetch(from + AHEAD * in + i);
  for (int64_t i = 0; i < out; i += LINE_FLOATS) __builtin_prefetch(to + AHEAD * out + i, 1);
}

static void take_lines(lookahead *next, int64_t lines, gemm_segment *s) {
  s->ahead = s->middle;
  s->ahead_k = 0;
  if (next->lines <= 0) {
    if (next->taken == next->count) return;
    next->at = next->run[next->taken];
    next->lines = next->run_lines[next->taken++];
  }
  s->ahead = next->at;
  s->ahead_k = LINE_FLOATS * sizeof(float);
  next->at += lines * LINE_FLOATS;
  next->lines -= lines;
}

static void run_tile(const product *p, const phase_plan *q, k_block k, int64_t unit) {
  int64_t lanes = p->kernels->lanes, width = q->vectors * lanes;
  /* Neighbours along y come one after the other: they share two thirds of their input, in L1. */
  int64_t y = unit % q->y.positions, rest = unit / q->y.positions;
  int64_t z0 = gemm_tile_begin(q->z.positions, q->row_tiles, rest % q->row_tiles);
  int64_t z1 = gemm_tile_begin(q->z.positions, q->row_tiles, rest % q->row_tiles + 1);
  rest /= q->row_tiles;
  int64_t x = rest % q->x.positions, n = rest / q->x.positions;
  int rows = (int)(z1 - z0), last_row = rows + q->reach - 1;

  const float *input = (p->padded ? p->padded_input : p->input) +
                       n * p->in[0] * p->in[1] * p->padded_z * p->in_channels +
                       q->group * p->depth + k.depth;
  int64_t step = q->z.in_step * p->in_channels;
  int64_t out_z = q->z.out_first + q->z.out_step * z0;
  int64_t out_y = q->y.out_first + q->y.out_step * y, out_x = q->x.out_first + q->x.out_step * x;
  int64_t out_voxel = ((n * p->out[0] + out_x) * p->out[1] + out_y) * p->out[2] + out_z;
  float *out = p->output + out_voxel * p->out_channels + q->group * p->columns + q->column;
  lookahead next = {0};
  if (q->y.positions == 1) fetch_row(p, q, input + z0 * step, out, rows);
  if (q->y.taps && y + 1 < q->y.positions) look_ahead(p, q, input, x, y, z0, rows, out, &next);
  gemm_segment segments[MAX_SEGMENTS];
  int64_t count = 0;
  /* A phase that no tap reaches has no segments, and its outputs are the bias. */
  int64_t tap = k.tap, tz = 0, ty = 0, tx = 0;
  if (tap < k.tap_end) {
    tz = tap % q->taps_z;
    ty = tap / q->taps_z % q->y.taps;
    tx = tap / q->taps_z / q->y.taps;
  }
  while (tap < k.tap_end) {
    int64_t in_x = q->x.in_step * x + q->x.offset[tx], in_y = q->y.in_step * y + q->y.offset[ty];
    int64_t taps = smaller(q->taps_z - tz, k.tap_end - tap);
    if (in_x >= 0 && in_x < p->in[0] && in_y >= 0 && in_y < p->in[1]) {
      const float *line = input + (in_x * p->in[1] + in_y) * p->padded_z * p->in_channels;
      for (int64_t t = tz; t < tz + taps; t++) {
        int64_t from = q->z.in_step * z0 + q->z.offset[t] + p->pad_low;
        int64_t to = from + q->z.in_step * last_row;
        gemm_segment *s = &segments[count++];
        s->middle = line + from * p->in_channels;
        s->first = from >= 0 && from < p->padded_z ? s->middle : p->zeros;
        s->last = to >= 0 && to < p->padded_z ? s->middle + last_row * step : p->zeros;
        s->b = q->weights + (tap + t - tz) * q->tap_step + k.depth * width;
        take_lines(&next, k.depth_end - k.depth, s);
      }
    }
    tap += taps;
    tz = 0;
    if (++ty == q->y.taps) {
      ty = 0;
      tx++;
    }
  }

  gemm_tile tile = {.segments = segments,
                    .segment_count = count,
                    .k = k.depth_end - k.depth,
                    .a_row = step * (ptrdiff_t)sizeof(float),
                    .a_k = sizeof(float),
                    .b_k = width * (ptrdiff_t)sizeof(float),
                    .c = out,
                    .c_row = q->z.out_step * p->out_channels * (ptrdiff_t)sizeof(float),
                    .columns = (int)smaller(width, p->columns - q->column),
                    .accumulate = k.tap > 0 || k.depth > 0,
                    .tap = p->depth * width * (ptrdiff_t)sizeof(float),
                    .bias = p->packed_bias + q->group * p->column_vectors * lanes + q->column};
  if (q->reach)
    p->kernels->slide[rows](&tile);
  else
    p->kernels->tile[q->vectors][rows](&tile);
}

/* Weights are visited in blocks that stay in cache while the tiles of the task pass over them: in
 * L2 for tall tiles, which read them slowly, in L1 for low ones. */
static void product_task(void *context, int64_t task) {
  const product *p = context;
  phase_plan q = {0};
  int64_t chunk = task % p->chunks, rest = task / p->chunks;
  int64_t block = rest % p->blocks, phase[3];
  rest /= p->blocks;
  if (p->packs_itself)
    for (int64_t v = block * p->vectors; v < smaller(p->column_vectors, (block + 1) * p->vectors);
         v++)
      pack_task(context, rest * p->column_vectors + v);
  q.group = rest % p->groups;
  rest /= p->groups;
  for (int a = 2; a >= 0; a--) {
    phase[a] = rest % p->phases[a];
    rest /= p->phases[a];
  }
  q.x = axis_of(p, 0, phase[0]);
  q.y = axis_of(p, 1, phase[1]);
  q.z = axis_of(p, 2, phase[2]);
  if (!q.z.positions) return;
  int64_t taps = (int64_t)q.x.taps * q.y.taps * q.z.taps;
  q.reach = p->slides ? q.z.taps - 1 : 0;
  q.taps_z = p->fused || p->slides ? 1 : q.z.taps;
  q.depth = p->fused ? p->depth * q.z.taps : p->depth;
  q.vectors = (int)smaller(p->vectors, p->column_vectors - block * p->vectors);
  q.tap_step = q.z.taps / larger(1, q.taps_z) * p->depth * q.vectors * p->kernels->lanes;
  q.column = block * p->vectors * p->kernels->lanes;
  q.weights = packed_block(p, phase_begin(p, phase, q.x.taps, q.y.taps), taps, q.group, block);
  q.row_tiles = gemm_tile_count(q.z.positions, p->kernels->max_rows[q.vectors]);
  int64_t units = p->batch * q.x.positions * q.y.positions * q.row_tiles;
  int64_t begin = units * chunk / p->chunks, end = units * (chunk + 1) / p->chunks;

  int64_t tall = q.z.positions >= 10 * q.row_tiles;
  int64_t cached = (tall ? 192 : 24) * 1024 / (q.vectors * p->kernels->lanes * 4);
  if (end - begin < 2) cached = INT64_MAX;
  int64_t all = (int64_t)q.x.taps * q.y.taps * q.taps_z;
  int64_t taps_step = smaller(MAX_SEGMENTS, larger(1, cached / q.depth));
  int64_t parts = cached < q.depth ? (q.depth + cached - 1) / cached : 1;
  k_block k = {0};
  do {
    k.tap_end = smaller(all, k.tap + taps_step);
    for (int64_t part = 0; part < parts; part++) {
      k.depth = gemm_tile_begin(q.depth, parts, part);
      k.depth_end = gemm_tile_begin(q.depth, parts, part + 1);
      for (int64_t u = begin; u < end; u++) run_tile(p, &q, k, u);
    }
    k.depth = 0;
    k.tap = k.tap_end;
  } while (k.tap < all);
}

static size_t product_workspace(const conv_shape *s, bool transposed) {
  product p = product_of(s, transposed);
  return product_pieces(&p, NULL);
}

static void run_product(const conv_shape *s, bool transposed, const float *input,
                        const float *weight, const float *bias, float *output, void *workspace,
                        thread_pool *pool) {
  product p = product_of(s, transposed);
  p.input = input;
  p.weight = weight;
  p.bias = bias;
  p.output = output;
  product_pieces(&p, workspace);
  pack_bias(&p);
  if (!p.packs_itself) {
    bool small = volume(p.kernel) * p.depth * p.columns * p.groups < SMALL_WEIGHTS;
    parallel_for(small ? NULL : pool, volume(p.phases) * p.groups * p.column_vectors, pack_task,
                 &p);
  }
  if (p.padded) parallel_for(pool, p.batch * p.in[0], pad_task, &p);
  parallel_for(pool, volume(p.phases) * p.groups * p.blocks * p.chunks, product_task, &p);
}

size_t conv_forward_workspace(const conv_shape *s) {
  return product_workspace(s, false);
}

void conv_forward(const conv_shape *s, const float *x, const float *weight, const float *bias,
                  float *y, void *workspace, thread_pool *pool) {
  run_product(s, false, x, weight, bias, y, workspace, pool);
}

size_t conv_backward_data_workspace(const conv_shape *s) {
  return product_workspace(s, true);
}

void conv_backward_data(const conv_shape *s, const float *dy, const float *weight,
                        const float *bias, float *dx, void *workspace, thread_pool *pool) {
  run_product(s, true, dy, weight, bias, dx, workspace, pool);
}

/* ---- weight gradient ----------------------------------------------------------------------- */

/* For every tap, a matrix (channels × features) that sums over voxels. The rows of a tile are the
 * channels (x is broadcast) and its lanes the features, or the other way round when only the
 * channels fill whole vectors. The voxels are cut into slabs whose partial sums are added in order
 * at the end; where the weights are many and the voxels few, tasks split the weights instead. */
typedef struct weight_product {
  conv_shape s;
  bool swapped; /* lanes are channels */
  bool fused;   /* rows run over (kz, channel) */
  bool slides;  /* so they do, and sliding tiles make the three of them at once */
  const gemm_kernels *kernels;
  int64_t taps;                     /* not counting fused ones */
  int64_t rows, lanes_used, padded; /* per group: rows, columns, columns in whole vectors */
  int vectors;
  int64_t blocks, row_parts;         /* of columns and of rows, per tap and group */
  int64_t z_length, z_pieces, lines; /* a line is a run of voxels along z */
  bool in_place;                     /* the only slab's sums are dweight itself */
  int64_t slabs, parts;              /* tasks are slabs × parts */
  int64_t pad_low, padded_z;         /* of x along z */
  bool copy_x, copy_dy;              /* into whole vectors, with zeros around z rows */
  const float *x, *dy, *x_read, *dy_read;
  int64_t x_channels, dy_channels; /* of the tensors read, and per group below */
  int64_t x_group, dy_group;
  float *dweight, *dbias;
  float *x_copy, *dy_copy, *partial, *partial_bias, *zeros;
} weight_product;

enum { LINE_LENGTH = 128, SLABS = 16, ROW_PART = 96, FINISH_ROWS = 8 };

static weight_product weight_product_of(const conv_shape *shape) {
  weight_product p = {.s = merge_pointwise(*shape), .kernels = gemm_best()};
  const conv_shape *s = &p.s;
  int64_t lanes = p.kernels->lanes;
  int64_t channels = s->channels / s->groups, features = s->features / s->groups;
  int64_t padded_channels = rounded_up(channels, lanes);
  int64_t padded_features = rounded_up(features, lanes);
  /* With one tap, lanes of channels leave the sums in PyTorch's order. */
  int64_t swapped_lanes = padded_channels * features, plain_lanes = padded_features * channels;
  p.swapped =
      swapped_lanes < plain_lanes || (swapped_lanes == plain_lanes && volume(s->kernel) == 1);
  p.padded_z = s->image[2];
  p.taps = volume(s->kernel);
  p.rows = p.swapped ? features : channels;
  p.lanes_used = p.swapped ? channels : features;
  p.padded = p.swapped ? padded_channels : padded_features;
  p.copy_dy = !p.swapped && p.padded != features;
  p.copy_x = p.swapped && p.padded != channels;
  p.slides = !p.swapped && s->kernel[2] == 3 && s->stride[2] == 1 && s->padding[2] == 1 &&
             s->dilation[2] == 1;
  if (p.slides) {
    p.fused = true;
    p.taps /= 3;
    p.rows *= 3;
  }
  if (!p.swapped && !p.slides && s->groups == 1 && s->kernel[2] > 1 && s->dilation[2] == 1) {
    int64_t reach = (s->out[2] - 1) * s->stride[2] + s->kernel[2] - s->padding[2];
    bool outside = s->padding[2] > 0 || reach > s->image[2];
    p.fused = channels < 4 || (!outside && channels < 12);
    if (p.fused) {
      p.taps /= s->kernel[2];
      p.rows *= s->kernel[2];
      p.copy_x = outside;
      p.pad_low = s->padding[2];
      p.padded_z = larger(s->image[2], reach) + s->padding[2];
    }
  }
  p.x_channels = s->channels;
  p.x_group = channels;
  p.dy_channels = s->features;
  p.dy_group = features;
  if (p.copy_x && p.swapped) {
    p.x_channels = s->groups * p.padded;
    p.x_group = p.padded;
  }
  if (p.copy_dy) {
    p.dy_channels = s->groups * p.padded;
    p.dy_group = p.padded;
  }
  p.vectors = p.slides ? 1 : gemm_vectors(p.kernels, p.rows, p.lanes_used);
  p.blocks = (p.padded / lanes + p.vectors - 1) / p.vectors;
  p.row_parts = p.slides ? 1 : (p.rows + ROW_PART - 1) / ROW_PART;
  p.z_length = smaller(s->out[2], LINE_LENGTH);
  p.z_pieces = (s->out[2] + p.z_length - 1) / p.z_length;
  p.lines = s->batch * s->out[0] * s->out[1] * p.z_pieces;
  int64_t units = s->groups * p.taps * p.blocks * p.row_parts;
  int64_t voxels = s->batch * volume(s->out);
  if (voxels <= 4096 && units >= 8) {
    p.slabs = 1;
    p.parts = smaller(units, 32);
  } else {
    int64_t bytes = s->groups * p.taps * p.rows * p.padded * (int64_t)sizeof(float);
    p.slabs = larger(1, smaller(smaller(p.lines, SLABS), ((int64_t)32 << 20) / bytes));
    p.parts = smaller(units, (SLABS + p.slabs - 1) / p.slabs);
  }
  p.in_place = p.slabs == 1 && p.swapped && p.taps == 1 && p.padded == channels;
  return p;
}

static size_t weight_pieces(weight_product *p, void *workspace) {
  pieces w = {workspace, 0};
  const conv_shape *s = &p->s;
  if (!p->in_place) p->partial = piece(&w, p->slabs * s->groups * p->taps * p->rows * p->padded);
  p->partial_bias = piece(&w, p->slabs * s->features);
  p->zeros = piece(&w, GEMM_MAX_VECTORS * GEMM_MAX_LANES);
  if (p->copy_x)
    p->x_copy = piece(&w, s->batch * s->image[0] * s->image[1] * p->padded_z * p->x_channels);
  if (p->copy_dy) p->dy_copy = piece(&w, s->batch * volume(s->out) * p->dy_channels);
  return w.used;
}

/* A z row of x or dy into the copy's channel layout. */
static void copy_row(float *to, const float *from, int64_t voxels, int64_t groups, int64_t group,
                     int64_t to_group) {
  if (group == to_group) {
    memcpy(to, from, (size_t)(voxels * groups * group) * sizeof(float));
    return;
  }
  for (int64_t v = 0; v < voxels * groups; v++) {
    memcpy(to + v * to_group, from + v * group, (size_t)group * sizeof(float));
    memset(to + v * to_group + group, 0, (size_t)(to_group - group) * sizeof(float));
  }
}

static void copy_x_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  for (int64_t y = 0; y < s->image[1]; y++) {
    int64_t row = task * s->image[1] + y;
    float *to = p->x_copy + row * p->padded_z * p->x_channels;
    int64_t low = p->pad_low * p->x_channels, filled = low + s->image[2] * p->x_channels;
    memset(to, 0, (size_t)low * sizeof(float));
    copy_row(to + low, p->x + row * s->image[2] * s->channels, s->image[2], s->groups,
             s->channels / s->groups, p->x_group);
    memset(to + filled, 0, (size_t)(p->padded_z * p->x_channels - filled) * sizeof(float));
  }
}

static void copy_dy_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t voxels = s->out[1] * s->out[2];
  copy_row(p->dy_copy + task * voxels * p->dy_channels, p->dy + task * voxels * s->features, voxels,
           s->groups, s->features / s->groups, p->dy_group);
}

/* Adds to the rows [row, row_end) × one block of columns of one tap the voxels of some lines. */
static void weight_tiles(const weight_product *p, float *partial, int64_t unit, int64_t line_begin,
                         int64_t line_end, int64_t line_step, bool accumulate) {
  const conv_shape *s = &p->s;
  int64_t lanes = p->kernels->lanes;
  int64_t part = unit % p->row_parts, rest = unit / p->row_parts;
  int64_t block = rest % p->blocks;
  rest /= p->blocks;
  int64_t tap = rest % p->taps, group = rest / p->taps;
  int64_t taps_z = p->fused ? 1 : s->kernel[2];
  int64_t kz = tap % taps_z, ky = tap / taps_z % s->kernel[1], kx = tap / taps_z / s->kernel[1];
  int64_t rows = p->slides ? p->rows / 3 : p->rows;
  int64_t row_begin = gemm_tile_begin(rows, p->row_parts, part);
  int64_t row_end = gemm_tile_begin(rows, p->row_parts, part + 1);
  int vectors = (int)smaller(p->vectors, p->padded / lanes - block * p->vectors);
  int64_t column = block * p->vectors * lanes;
  int64_t tiles = gemm_tile_count(row_end - row_begin, p->slides ? p->kernels->slide_sum_rows
                                                                 : p->kernels->max_rows[vectors]);

  int64_t x_step = s->stride[2] * p->x_channels;
  int64_t a_step = p->swapped ? p->dy_channels : x_step;
  int64_t b_step = p->swapped ? x_step : p->dy_channels;
  /* One tap fetches the lines of dy that come next, another those of x. */
  int64_t middle = s->kernel[1] / 2, first_z = p->fused || kz == 0;
  bool fetch_dy = first_z && ky == middle && kx == 0;
  bool fetch_x = first_z && ky == middle && kx == s->kernel[0] - 1 && !fetch_dy;
  bool fetch_a = p->swapped ? fetch_dy : fetch_x, fetch_b = p->swapped ? fetch_x : fetch_dy;
  int64_t ahead = fetch_x    ? line_step * s->stride[1] * p->padded_z * p->x_channels
                  : fetch_dy ? line_step * s->out[2] * p->dy_channels
                             : 0;
  ptrdiff_t ahead_k = (fetch_a ? a_step : fetch_b ? b_step : 0) * (ptrdiff_t)sizeof(float);
  gemm_segment segments[MAX_SEGMENTS];
  int64_t line = line_begin;
  do {
    /* Lines whose run along z is equally long make one visit. */
    int64_t count = 0, length = 0;
    for (; line < line_end; line++) {
      int64_t piece_z = line % p->z_pieces, row = line / p->z_pieces;
      int64_t y = row % s->out[1], x = row / s->out[1] % s->out[0], n = row / s->out[1] / s->out[0];
      int64_t in_x = x * s->stride[0] + kx * s->dilation[0] - s->padding[0];
      int64_t in_y = y * s->stride[1] + ky * s->dilation[1] - s->padding[1];
      if (in_x < 0 || in_x >= s->image[0] || in_y < 0 || in_y >= s->image[1]) continue;
      int64_t z0 = piece_z * p->z_length, z1 = smaller(s->out[2], z0 + p->z_length);
      int64_t offset = p->slides ? 0 : p->pad_low - s->padding[2] + kz * s->dilation[2];
      z0 = larger(z0, -floor_div(offset, s->stride[2]));
      z1 = smaller(z1, floor_div(p->padded_z - 1 - offset, s->stride[2]) + 1);
      if (z1 <= z0) continue;
      if (count && length != z1 - z0) break;
      length = z1 - z0;
      const float *x_at = p->x_read + group * p->x_group +
                          (((n * s->image[0] + in_x) * s->image[1] + in_y) * p->padded_z +
                           z0 * s->stride[2] + offset) *
                              p->x_channels;
      const float *dy_at =
          p->dy_read + group * p->dy_group +
          (((n * s->out[0] + x) * s->out[1] + y) * s->out[2] + z0) * p->dy_channels;
      gemm_segment *g = &segments[count++];
      g->middle = p->swapped ? dy_at : x_at;
      g->b = (p->swapped ? x_at : dy_at) + column;
      if (p->slides) {
        g->first = z0 > 0 ? g->b - p->dy_channels : p->zeros;
        g->last = z1 < s->out[2] ? g->b + (z1 - z0) * p->dy_channels : p->zeros;
      }
      if (count == MAX_SEGMENTS) {
        line++;
        break;
      }
    }
    for (int64_t t = 0; t < tiles; t++) {
      int64_t r0 = row_begin + gemm_tile_begin(row_end - row_begin, tiles, t);
      int64_t r1 = row_begin + gemm_tile_begin(row_end - row_begin, tiles, t + 1);
      int tile_rows = (int)(r1 - r0);
      gemm_segment moved[MAX_SEGMENTS];
      for (int64_t i = 0; i < count; i++) {
        const float *at = segments[i].middle + r0;
        const float *fetch = fetch_b ? segments[i].b : at;
        moved[i] =
            (gemm_segment){at, at, at + tile_rows - 1, segments[i].b, fetch + ahead, ahead_k};
        if (!p->slides) continue;
        moved[i].first = segments[i].first;
        moved[i].last = segments[i].last;
      }
      gemm_tile tile = {.segments = moved,
                        .segment_count = count,
                        .k = length,
                        .a_row = sizeof(float),
                        .a_k = a_step * (ptrdiff_t)sizeof(float),
                        .b_k = b_step * (ptrdiff_t)sizeof(float),
                        .c =
                            partial + ((group * p->taps + tap) * p->rows + r0) * p->padded + column,
                        .c_row = p->padded * (ptrdiff_t)sizeof(float),
                        .columns = vectors * (int)lanes,
                        .accumulate = accumulate,
                        .tap = rows * p->padded * (ptrdiff_t)sizeof(float),
                        .bias = p->zeros};
      if (p->slides)
        p->kernels->slide_sum[tile_rows](&tile);
      else
        p->kernels->tile[vectors][tile_rows](&tile);
    }
    accumulate = true;
  } while (line < line_end);
}

static void sum_lines(const weight_product *p, float *sum, int64_t line_begin, int64_t line_end) {
  const conv_shape *s = &p->s;
  memset(sum, 0, (size_t)s->features * sizeof(float));
  for (int64_t line = line_begin; line < line_end; line++) {
    int64_t z0 = line % p->z_pieces * p->z_length, z1 = smaller(s->out[2], z0 + p->z_length);
    const float *dy = p->dy + (line / p->z_pieces * s->out[2] + z0) * s->features;
    for (int64_t z = z0; z < z1; z++, dy += s->features)
      for (int64_t f = 0; f < s->features; f++) sum[f] += dy[f];
  }
}

static void weight_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t slab = task / p->parts, part = task % p->parts;
  int64_t line_begin = p->lines * slab / p->slabs, line_end = p->lines * (slab + 1) / p->slabs;
  int64_t units = s->groups * p->taps * p->blocks * p->row_parts;
  int64_t unit_begin = units * part / p->parts, unit_end = units * (part + 1) / p->parts;
  float *partial = p->partial + slab * s->groups * p->taps * p->rows * p->padded;
  /* As many lines at a time as stay in cache while every tap passes over them; more where the
   * weights that are loaded and stored each time are many. */
  int64_t line_floats = p->z_length * (p->x_group + p->dy_group);
  int64_t cached = larger(16384, smaller(32768, 256 * (p->x_group + p->dy_group)));
  int64_t step = larger(1, smaller(MAX_SEGMENTS, cached / line_floats));
  for (int64_t line = line_begin; line < line_end; line += step)
    for (int64_t unit = unit_begin; unit < unit_end; unit++)
      weight_tiles(p, partial, unit, line, smaller(line_end, line + step), step, line > line_begin);
  if (p->dbias && part == 0)
    sum_lines(p, p->partial_bias + slab * s->features, line_begin, line_end);
}

/* Adds the slabs of one vector of sums. */
static void add_slabs(const weight_product *p, const float *from, float *sum) {
  int64_t lanes = p->kernels->lanes;
  int64_t slab_floats = p->s.groups * p->taps * p->rows * p->padded;
  memcpy(sum, from, (size_t)lanes * sizeof(float));
  for (int64_t slab = 1; slab < p->slabs; slab++) {
    from += slab_floats;
    for (int64_t l = 0; l < lanes; l++) sum[l] += from[l];
  }
}

/* Adds the slabs and puts the sums where PyTorch has them, one vector of columns × one run of some
 * channels (or one feature, when swapped) and all their taps, in squares that are transposed. */
static void finish_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t lanes = p->kernels->lanes, column_vectors = p->padded / lanes;
  int64_t filter = volume(s->kernel), channels = s->channels / s->groups;
  int64_t features = s->features / s->groups, feature_step = channels * filter;
  int64_t rows = p->swapped ? features : channels, row_step = p->swapped ? feature_step : filter;
  int64_t column_step = p->swapped ? filter : feature_step;
  int64_t v = task % column_vectors, rest = task / column_vectors;
  int64_t row_tasks = (rows + FINISH_ROWS - 1) / FINISH_ROWS;
  int64_t row = rest % row_tasks * FINISH_ROWS, group = rest / row_tasks;
  int64_t row_end = smaller(rows, row + FINISH_ROWS);
  int64_t count = smaller(lanes, p->lanes_used - v * lanes);
  int64_t fused_taps = filter / p->taps; /* a fused row is (kz, channel) */
  float square[GEMM_MAX_LANES * GEMM_MAX_LANES];
  for (; row < row_end; row++) {
    float *to =
        p->dweight + group * features * feature_step + row * row_step + v * lanes * column_step;
    for (int64_t begin = 0; begin < filter; begin += lanes) {
      int64_t tap = larger(0, smaller(begin, filter - lanes)), taps = smaller(lanes, filter - tap);
      for (int64_t i = 0; i < taps; i++) {
        int64_t partial_tap = (tap + i) / fused_taps, kz = (tap + i) % fused_taps;
        const float *from =
            p->partial +
            ((group * p->taps + partial_tap) * p->rows + kz * channels + row) * p->padded +
            v * lanes;
        add_slabs(p, from, square + i * lanes);
      }
      if (column_step == 1)
        memcpy(to, square, (size_t)count * sizeof(float));
      else if (taps == lanes && count == lanes)
        p->kernels->transpose(square, lanes, to + tap, column_step);
      else
        for (int64_t l = 0; l < count; l++)
          for (int64_t i = 0; i < taps; i++) to[l * column_step + tap + i] = square[i * lanes + l];
    }
  }
}

static void finish_bias(const weight_product *p) {
  for (int64_t f = 0; f < p->s.features; f++) {
    float sum = 0;
    for (int64_t slab = 0; slab < p->slabs; slab++)
      sum += p->partial_bias[slab * p->s.features + f];
    p->dbias[f] = sum;
  }
}

size_t conv_backward_weight_workspace(const conv_shape *s) {
  weight_product p = weight_product_of(s);
  return weight_pieces(&p, NULL);
}

void conv_backward_weight(const conv_shape *s, const float *x, const float *dy, float *dweight,
                          float *dbias, void *workspace, thread_pool *pool) {
  weight_product p = weight_product_of(s);
  weight_pieces(&p, workspace);
  p.x = x;
  p.dy = dy;
  p.dweight = dweight;
  p.dbias = dbias;
  if (p.in_place) p.partial = dweight;
  p.x_read = p.copy_x ? p.x_copy : x;
  p.dy_read = p.copy_dy ? p.dy_copy : dy;
  memset(p.zeros, 0, GEMM_MAX_VECTORS * GEMM_MAX_LANES * sizeof(float));
  if (p.copy_x) parallel_for(pool, p.s.batch * p.s.image[0], copy_x_task, &p);
  if (p.copy_dy) parallel_for(pool, p.s.batch * p.s.out[0], copy_dy_task, &p);
  parallel_for(pool, p.slabs * p.parts, weight_task, &p);
  int64_t rows = (p.swapped ? p.s.features : p.s.channels) / p.s.groups;
  int64_t row_tasks = (rows + FINISH_ROWS - 1) / FINISH_ROWS;
  if (!p.in_place)
    parallel_for(pool, p.s.groups * row_tasks * (p.padded / p.kernels->lanes), finish_task, &p);
  if (dbias) finish_bias(&p);
}
