/* The forward pass and the data gradient as sums over taps, of any filter. */
#include "ops/kernels/convolution_product.h"

/* How the taps along z meet the borders: decides between reading the input where it lies and a copy
 * with zeros around each z row. Read in place, a tile can only put zeros in its first and last row.
 */
static void plan_z(conv_product *p) {
  int64_t low = 0, high = 0;
  bool in_place = true, outside = false, consecutive = p->groups == 1 && p->phases[2] == 1;
  for (int64_t phase = 0; phase < p->phases[2]; phase++) {
    conv_axis z = conv_axis_of(p, 2, phase);
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
  p->copied = p->padded || p->pairs || p->rounds;
}

enum { FEW_OUTPUTS = 64, TASKS = 128 };

static void plan_product(conv_product *p) {
  p->kernels = p->pairs ? gemm_best_bf16() : gemm_best();
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
  p->chunks = p->packs_itself ? 1 : larger(1, smaller(units, (TASKS + products - 1) / products));
}

static conv_product product_of(const conv_shape *shape, bool transposed) {
  conv_shape s = merge_pointwise(*shape);
  int64_t taps = volume(s.kernel), group_channels = s.channels / s.groups;
  conv_product p = {.transposed = transposed,
                    .batch = s.batch,
                    .groups = s.groups,
                    .group_step = s.features / s.groups * group_channels * taps};
  memcpy(p.kernel, s.kernel, sizeof p.kernel);
  memcpy(p.stride, s.stride, sizeof p.stride);
  memcpy(p.padding, s.padding, sizeof p.padding);
  memcpy(p.dilation, s.dilation, sizeof p.dilation);
  memcpy(p.in, transposed ? s.out : s.image, sizeof p.in);
  memcpy(p.out, transposed ? s.image : s.out, sizeof p.out);
  p.pairs = conv_pairs(&s);
  p.rounds = conv_rounds(&s);
  p.packed = s.packed;
  p.given_channels = transposed ? s.features : s.channels;
  p.out_channels = p.bias_period = transposed ? s.channels : s.features;
  p.given_depth = p.given_channels / s.groups;
  p.depth = p.pairs ? bf16_pairs(p.given_depth) : p.given_depth;
  p.in_channels = p.depth * s.groups;
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
  p.moments = conv_moments_of(shape, p.chunks, p.groups * p.blocks == 1);
  return p;
}

static int64_t packed_columns(const conv_product *p) {
  return p->groups * p->column_vectors * p->kernels->lanes;
}

static int64_t packed_floats(const conv_product *p) {
  return volume(p->kernel) * p->depth * packed_columns(p);
}

static size_t product_pieces(conv_product *p, void *workspace) {
  pieces w = {workspace, 0};
  p->packed_weight = p->packed ? NULL : piece(&w, packed_floats(p));
  p->packed_bias = piece(&w, packed_columns(p));
  p->zeros = piece(&w, p->depth);
  p->copied_input = NULL;
  if (p->copied)
    p->copied_input = piece(&w, p->batch * p->in[0] * p->in[1] * p->padded_z * p->in_channels);
  conv_moments_pieces(&p->moments, &w);
  return w.used;
}

/* Runs of k that are multiplied in one visit of a tile: taps [tap, tap_end) over all of the depth,
 * or part of the depth of one tap. */
typedef struct k_block {
  int64_t tap, tap_end, depth, depth_end;
} k_block;

enum { SMALL_WEIGHTS = 8192 };

typedef struct phase_plan {
  conv_axis x, y, z;
  int64_t taps_z, depth; /* segments along z and their k, after fusing or sliding */
  int64_t tap_step;      /* floats of weights from segment to segment */
  int reach;             /* rows a tile reads beyond those it makes */
  int64_t row_tiles;
  int64_t group, column;
  int vectors;
  const float *weights;
} phase_plan;

/* What the next tile along y will read that this one does not: one more z row of each plane the
 * filter reaches, and the results it will write. */
static void look_ahead(const conv_product *p, const phase_plan *q, const float *input, int64_t x,
                       int64_t y, int64_t z0, int rows, const float *out, lookahead *next) {
  int64_t in_y = q->y.in_step * (y + 1) + q->y.offset[q->y.taps - 1];
  int64_t floats = ((rows - 1) * q->z.in_step + 1) * p->in_channels;
  if (in_y >= 0 && in_y < p->in[1])
    for (int t = 0; t < q->x.taps; t++) {
      int64_t in_x = q->x.in_step * x + q->x.offset[t];
      if (in_x < 0 || in_x >= p->in[0]) continue;
      lookahead_add(next,
                    input + ((in_x * p->in[1] + in_y) * p->padded_z + q->z.in_step * z0) *
                                p->in_channels,
                    floats);
    }
  lookahead_add(next, out + q->y.out_step * p->out[2] * p->out_channels,
                rows * q->z.out_step * p->out_channels);
}

/* Along one long row, what the next tile reads and writes. */
static void fetch_row(const conv_product *p, const phase_plan *q, const float *from,
                      const float *to, int rows) {
  int64_t in = rows * q->z.in_step * p->in_channels, step = q->z.out_step * p->out_channels;
  int64_t columns = smaller(q->vectors * p->kernels->lanes, p->columns - q->column);
  int64_t out = rows * step, run = columns < step ? columns : out;
  for (int64_t i = 0; i < in; i += LINE_FLOATS) __builtin_prefetch(from + in + i);
  for (int64_t row = 0; row < out; row += columns < step ? step : out)
    for (int64_t i = 0; i < run; i += LINE_FLOATS) __builtin_prefetch(to + out + row + i, 1);
}

/* A tile: where it is, and what its taps along z read. Neighbours along y come one after the other: they
 * share two thirds of their input, in L1. */
typedef struct place {
  int64_t n, x, tile, y;
  int64_t z0, z1;
  int64_t from[CONV_MAX_KERNEL]; /* voxels from the beginning of an input row */
  bool first_is_there[CONV_MAX_KERNEL], last_is_there[CONV_MAX_KERNEL];
} place;

static int last_row_of(const phase_plan *q, const place *at) {
  return (int)(at->z1 - at->z0) + q->reach - 1;
}

static void enter_row_tile(const conv_product *p, const phase_plan *q, place *at) {
  at->z0 = gemm_tile_begin(q->z.positions, q->row_tiles, at->tile);
  at->z1 = gemm_tile_begin(q->z.positions, q->row_tiles, at->tile + 1);
  for (int64_t t = 0; t < q->taps_z; t++) {
    int64_t from = q->z.in_step * at->z0 + q->z.offset[t] + p->pad_low;
    int64_t to = from + q->z.in_step * last_row_of(q, at);
    at->from[t] = from;
    at->first_is_there[t] = from >= 0 && from < p->padded_z;
    at->last_is_there[t] = to >= 0 && to < p->padded_z;
  }
}

static void enter_place(const conv_product *p, const phase_plan *q, int64_t unit, place *at) {
  at->y = unit % q->y.positions;
  unit /= q->y.positions;
  at->tile = unit % q->row_tiles;
  unit /= q->row_tiles;
  at->x = unit % q->x.positions;
  at->n = unit / q->x.positions;
  enter_row_tile(p, q, at);
}

static void next_place(const conv_product *p, const phase_plan *q, place *at) {
  if (++at->y < q->y.positions) return;
  at->y = 0;
  if (++at->tile == q->row_tiles) {
    at->tile = 0;
    if (++at->x == q->x.positions) {
      at->x = 0;
      at->n++;
    }
  }
  enter_row_tile(p, q, at);
}

static void run_tile(const conv_product *p, const phase_plan *q, k_block k, const place *at) {
  int64_t lanes = p->kernels->lanes, width = q->vectors * lanes;
  int64_t n = at->n, x = at->x, y = at->y, z0 = at->z0;
  int rows = (int)(at->z1 - z0), last_row = last_row_of(q, at);

  const float *input = (p->copied ? p->copied_input : p->input) +
                       n * p->in[0] * p->in[1] * p->padded_z * p->in_channels +
                       q->group * p->depth + k.depth;
  int64_t step = q->z.in_step * p->in_channels;
  int64_t out_z = q->z.out_first + q->z.out_step * z0;
  int64_t out_y = q->y.out_first + q->y.out_step * y, out_x = q->x.out_first + q->x.out_step * x;
  int64_t out_voxel = ((n * p->out[0] + out_x) * p->out[1] + out_y) * p->out[2] + out_z;
  float *out = p->output + out_voxel * p->out_channels + q->group * p->columns + q->column;
  lookahead next;
  lookahead_begin(&next);
  if (q->y.positions == 1) fetch_row(p, q, input + z0 * step, out, rows);
  if (q->y.taps && y + 1 < q->y.positions) look_ahead(p, q, input, x, y, z0, rows, out, &next);
  gemm_segment segments[CONV_MAX_SEGMENTS];
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
        gemm_segment *s = &segments[count++];
        s->middle = line + at->from[t] * p->in_channels;
        s->first = at->first_is_there[t] ? s->middle : p->zeros;
        s->last = at->last_is_there[t] ? s->middle + last_row * step : p->zeros;
        s->b = q->weights + (tap + t - tz) * q->tap_step + k.depth * width;
        lookahead_take(&next, k.depth_end - k.depth, s);
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

/* Of tiles that are done. */
static void add_moments(const conv_product *p, const phase_plan *q, int64_t chunk, int64_t begin,
                        int64_t end) {
  if (!p->moments.wanted) return;
  int64_t width = q->vectors * p->kernels->lanes, column = q->group * p->columns + q->column;
  int64_t columns = smaller(width, p->columns - q->column);
  place at;
  enter_place(p, q, begin, &at);
  for (int64_t u = begin; u < end; u++) {
    int64_t voxel = ((at.n * p->out[0] + at.x) * p->out[1] + at.y) * p->out[2] + at.z0;
    conv_moments_add(&p->moments, chunk, voxel, at.z1 - at.z0, column, columns);
    if (u + 1 < end) next_place(p, q, &at);
  }
}

/* Weights are visited in blocks that stay in cache while some tiles pass over them: in L2 for tall tiles,
 * which read them slowly, in L1 for low ones. Where there are several blocks, as many tiles as keep what
 * they read in L2 until the next. */
static void run_tiles(const conv_product *p, const phase_plan *q, int64_t chunk, int64_t begin,
                      int64_t end) {
  enum { L1_BYTES = 24 << 10, L2_BYTES = 192 << 10, LEAST_TILES = 16 };
  int64_t rows = (q->z.positions + q->row_tiles - 1) / q->row_tiles;
  bool tall = q->z.positions >= 10 * q->row_tiles;
  int64_t cached = (tall ? L2_BYTES : L1_BYTES) / (q->vectors * p->kernels->lanes * 4);
  if (end - begin < 2) cached = INT64_MAX;
  int64_t all = (int64_t)q->x.taps * q->y.taps * q->taps_z;
  int64_t taps_step = smaller(CONV_MAX_SEGMENTS, larger(1, cached / q->depth));
  int64_t parts = cached < q->depth ? (q->depth + cached - 1) / cached : 1;
  int64_t read = q->x.taps * ((rows - 1) * q->z.in_step + q->z.taps) * p->in_channels * 4;
  int64_t span = larger(LEAST_TILES, L2_BYTES / larger(1, read));
  /* Moments are taken of some tiles at a time, too. */
  if (taps_step >= all && parts == 1) span = p->moments.wanted ? LEAST_TILES : end - begin;
  place at;
  for (; begin < end; begin += span) {
    int64_t stop = smaller(end, begin + span);
    k_block k = {0};
    do {
      k.tap_end = smaller(all, k.tap + taps_step);
      for (int64_t part = 0; part < parts; part++) {
        k.depth = gemm_tile_begin(q->depth, parts, part);
        k.depth_end = gemm_tile_begin(q->depth, parts, part + 1);
        enter_place(p, q, begin, &at);
        for (int64_t u = begin; u < stop; u++) {
          run_tile(p, q, k, &at);
          if (u + 1 < stop) next_place(p, q, &at);
        }
      }
      k.depth = 0;
      k.tap = k.tap_end;
    } while (k.tap < all);
    add_moments(p, q, chunk, begin, stop);
  }
}

static void product_task(void *context, int64_t task) {
  const conv_product *p = context;
  phase_plan q = {0};
  int64_t chunk = task % p->chunks, rest = task / p->chunks;
  int64_t block = rest % p->blocks, phase[3];
  rest /= p->blocks;
  if (p->packs_itself && !p->packed)
    for (int64_t v = block * p->vectors; v < smaller(p->column_vectors, (block + 1) * p->vectors);
         v++)
      conv_pack_weights(context, rest * p->column_vectors + v);
  q.group = rest % p->groups;
  rest /= p->groups;
  for (int a = 2; a >= 0; a--) {
    phase[a] = rest % p->phases[a];
    rest /= p->phases[a];
  }
  q.x = conv_axis_of(p, 0, phase[0]);
  q.y = conv_axis_of(p, 1, phase[1]);
  q.z = conv_axis_of(p, 2, phase[2]);
  if (!q.z.positions) return;
  q.reach = p->slides ? q.z.taps - 1 : 0;
  q.taps_z = p->fused || p->slides ? 1 : q.z.taps;
  q.depth = p->fused ? p->depth * q.z.taps : p->depth;
  q.vectors = (int)smaller(p->vectors, p->column_vectors - block * p->vectors);
  q.tap_step = q.z.taps / larger(1, q.taps_z) * p->depth * q.vectors * p->kernels->lanes;
  q.column = block * p->vectors * p->kernels->lanes;
  q.weights = conv_packed_block(p, phase, &q.x, &q.y, &q.z, q.group, block);
  /* Where moments are wanted, a chunk has the same voxels in all blocks, the last and narrower one too. */
  int width = p->moments.wanted ? p->vectors : q.vectors;
  q.row_tiles = gemm_tile_count(q.z.positions, p->kernels->max_rows[width]);
  int64_t units = p->batch * q.x.positions * q.y.positions * q.row_tiles;
  int64_t begin = units * chunk / p->chunks, end = units * (chunk + 1) / p->chunks;
  run_tiles(p, &q, chunk, begin, end);
}

static void pack_product(conv_product *p, thread_pool *pool) {
  bool small = volume(p->kernel) * p->given_depth * p->columns * p->groups < SMALL_WEIGHTS;
  parallel_for(small ? NULL : pool, volume(p->phases) * p->groups * p->column_vectors,
               conv_pack_weights, p);
}

/* Every shape. */
static bool taps_fits(const conv_shape *s) {
  (void)s;
  return true;
}

static size_t taps_workspace(const conv_shape *s, bool transposed) {
  conv_product p = product_of(s, transposed);
  return product_pieces(&p, NULL);
}

static void taps_run(const conv_shape *s, bool transposed, const float *input, const float *weight,
                     const float *bias, float *output, float *moments, void *workspace,
                     thread_pool *pool) {
  conv_product p = product_of(s, transposed);
  p.input = input;
  p.weight = weight;
  p.bias = bias;
  p.output = output;
  product_pieces(&p, workspace);
  conv_pack_bias(&p);
  if (p.packed)
    p.packed_weight = (float *)weight; /* nothing writes to it then */
  else if (!p.packs_itself)
    pack_product(&p, pool);
  conv_copy_input(&p, pool);
  conv_moments_begin(&p.moments, output);
  parallel_for(pool, volume(p.phases) * p.groups * p.blocks * p.chunks, product_task, &p);
  conv_moments_end(&p.moments, moments);
}

static size_t taps_packed_bytes(const conv_shape *s, bool transposed) {
  conv_product p = product_of(s, transposed);
  return (size_t)packed_floats(&p) * sizeof(float);
}

static void taps_pack(const conv_shape *s, bool transposed, const float *weight, float *to,
                      thread_pool *pool) {
  conv_product p = product_of(s, transposed);
  p.weight = weight;
  p.packed_weight = to;
  pack_product(&p, pool);
}

const conv_method conv_taps = {.fits = taps_fits,
                               .workspace = taps_workspace,
                               .run = taps_run,
                               .packed_bytes = taps_packed_bytes,
                               .pack = taps_pack,
                               .makes_moments = true,
                               .fits_weight = taps_fits,
                               .weight_workspace = conv_taps_weight_workspace,
                               .weight_run = conv_taps_weight_run};
