/* Filters of 3×3 voxels along x and y that step by one, by Winograd's minimal filtering F(2×2, 3×3)
 * (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Up to three taps along z
 * stay a sum: they and their channels are one run of k.
 *
 * Four by four rows of input make two by two rows of output. With d the input, g the filter and
 *
 *   Bᵀ = 1  0 −1  0     G = 1   0  0     Aᵀ = 1  1  1  0
 *        0  1  1  0         ½   ½  ½          0  1 −1 −1
 *        0 −1  1  0         ½  −½  ½
 *        0  1  0 −1         0   0  1
 *
 * the output is Aᵀ ((G g Gᵀ) ∘ (Bᵀ d B)) A: 16 products for what takes 36, at the price of sums over
 * every row. In between lie 16 matrix products, one for each point of the transformed rows.
 *
 * The gradient of the filter is Gᵀ ((Bᵀ d B) ∘ (A dy Aᵀ)) G, summed over tiles before it is transformed.
 *
 * Where the output's channels fill half a vector, one holds a pair of neighbours along z: what one of them
 * reads at tap t, the other reads at tap t − 1, so a pair has one tap more, 0 for one of the two at either
 * end. Four vectors in the place of six, for three taps; the same sums in the same order. */
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/convolution_parts.h"
#include "ops/kernels/convolution_winograd_parts.h"

enum {
  SIDE = WINOGRAD_SIDE,
  POINTS = WINOGRAD_POINTS,
  TAPS = 3,
  MOST_TAPS_Z = 3,
  MOST_FILTER = TAPS * TAPS * MOST_TAPS_Z,
  TASKS = 32,
  LEAST_CHANNELS = 8,
  LEAST_K = 16, /* taps along z and channels */
  LEAST_VOXELS = 128,
  STRIP_FLOATS = 48 << 10, /* transformed rows of a tile, in and out: they stay in L2 */
  LEAST_STRIP = 12,
  GROUP_ROWS = 48, /* that weights are read for, at least */
  WEIGHTS_IN_L2 = 32 << 10,
  MANY_WEIGHTS = 6 << 20,
  MANY_VOXELS = 4096
};

typedef struct winograd {
  column_panels panels;                    /* of the output's channels */
  bool transposed, rounds;                 /* the factors to bf16 */
  bool packed;                             /* the weights are given transformed */
  int64_t batch, in[3], out[3], before[3]; /* zeros before the input, along an axis */
  int64_t depth, columns;                  /* channels of input and output */
  int taps, filter;                        /* along z, and of all of the filter */
  int64_t pair;                            /* outputs along z in a row of the product, 1 or 2 */
  int64_t k;                               /* taps and channels that a row reads */
  int64_t depth_step, column_step;         /* in weight */
  int64_t tiles[2], strips, strip; /* tiles along x and y, cuts of z and their length at most */
  int64_t units, group, tasks;     /* a unit: a strip of a tile; so many are multiplied together */
  int64_t unit_in, unit_out;       /* floats of a point of a unit */
  int64_t point_in, point_out;     /* floats from point to point of a group */
  const float *input, *weight;
  float *output;
  float *packed_weight, *packed_bias, *zeros, *rows;
  conv_moments moments; /* of the output */
  /* the weight gradient's */
  const float *dy;
  float *sums, *bias_sums, *dweight, *dbias;
  int64_t slabs;            /* cuts of the units, with sums of their own */
  int64_t row_parts, visit; /* cuts of the rows of a sum; units that are summed at a time */
} winograd;

/* An odd number of cache lines: points that are written side by side lie in different sets. */
static int64_t spread(int64_t floats) {
  enum { LINE = 16 };
  return ((floats + LINE - 1) / LINE | 1) * LINE;
}

/* Where a unit is. */
typedef struct unit {
  int64_t n, x, y, z, length; /* of the first output, and outputs along z */
} unit;

static unit unit_of(const winograd *p, int64_t index) {
  unit u = {.y = index % p->tiles[1] * 2};
  index /= p->tiles[1];
  int64_t strip = index % p->strips;
  index /= p->strips;
  u.x = index % p->tiles[0] * 2;
  u.n = index / p->tiles[0];
  u.z = gemm_tile_begin(p->out[2], p->strips, strip);
  u.length = gemm_tile_begin(p->out[2], p->strips, strip + 1) - u.z;
  return u;
}

/* ---- transforms -------------------------------------------------------------------------------- */

/* Rows begin at multiples of the channels. The widest vectors are for those where they then lie in one line
 * of the cache: two lines for every other vector take longer than vectors half as wide. */
static const winograd_transforms *transforms_of(int64_t channels) {
#if defined(__x86_64__)
  int lanes = gemm_best()->lanes;
  if (lanes >= winograd_avx512.lanes && channels % winograd_avx512.lanes == 0)
    return &winograd_avx512;
  if (lanes >= winograd_avx2.lanes) return &winograd_avx2;
#else
  (void)channels;
#endif
  return &winograd_portable;
}

static int64_t whole_pairs(const winograd *p, int64_t length) {
  return (length + p->pair - 1) / p->pair * p->pair;
}

/* Voxels along z that a unit reads, with those its taps reach beyond both ends; from low to high they are
 * inside. */
typedef struct reach {
  int64_t first, end, low, high;
} reach;

static reach reach_of(const winograd *p, const unit *u) {
  reach z = {.first = u->z - p->before[2]};
  z.end = z.first + whole_pairs(p, u->length) + p->taps - 1;
  z.low = larger(z.first, 0);
  z.high = smaller(z.end, p->in[2]);
  return z;
}

/* Row (i, j) of a unit's input from voxel z on; zeros outside. */
static const float *input_row(const winograd *p, const unit *u, int i, int j, int64_t z) {
  int64_t x = u->x - p->before[0] + i, y = u->y - p->before[1] + j;
  bool is_inside = x >= 0 && x < p->in[0] && y >= 0 && y < p->in[1];
  int64_t voxel = ((u->n * p->in[0] + x) * p->in[1] + y) * p->in[2] + z;
  return is_inside ? p->input + voxel * p->depth : p->zeros;
}

/* The input of a unit, zeros where there is none. */
static void enter_unit(const winograd *p, const unit *u, float *to) {
  const float *rows[POINTS];
  reach z = reach_of(p, u);
  for (int i = 0; i < POINTS; i++) rows[i] = input_row(p, u, i / SIDE, i % SIDE, z.low);
  if (z.low > z.first || z.high < z.end)
    for (int64_t i = 0; i < POINTS; i++) {
      memset(to + i * p->point_in, 0, (size_t)((z.low - z.first) * p->depth) * sizeof(float));
      memset(to + i * p->point_in + (z.high - z.first) * p->depth, 0,
             (size_t)((z.end - z.high) * p->depth) * sizeof(float));
    }
  transforms_of(p->depth)->input(rows, (z.high - z.low) * p->depth, p->rounds,
                                 to + (z.low - z.first) * p->depth, p->point_in);
}

/* Where the four rows of a unit's output begin, in floats; −1: outside. */
static void output_rows(const winograd *p, const unit *u, int64_t rows[4]) {
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) {
      int64_t x = u->x + i, y = u->y + j;
      bool is_inside = x < p->out[0] && y < p->out[1];
      int64_t voxel = ((u->n * p->out[0] + x) * p->out[1] + y) * p->out[2] + u->z;
      rows[2 * i + j] = is_inside ? voxel * p->columns : -1;
    }
}

static void leave_unit(const winograd *p, int64_t task, const unit *u, const float *from,
                       float *nowhere) {
  int64_t at[4];
  float *rows[4];
  output_rows(p, u, at);
  for (int r = 0; r < 4; r++) rows[r] = at[r] < 0 ? nowhere : p->output + at[r];
  transforms_of(p->columns)->output(from, p->point_out, u->length * p->columns, rows);
  for (int r = 0; r < 4; r++)
    if (at[r] >= 0)
      conv_moments_add(&p->moments, task, at[r] / p->columns, u->length, 0, p->columns);
}

/* ---- weights ----------------------------------------------------------------------------------- */

static float *packed_panel(const winograd *p, int64_t point, int64_t panel) {
  return p->packed_weight + (point * p->panels.count + panel) * p->k * p->panels.width;
}

enum { MOST_WIDTH = GEMM_MAX_VECTORS * GEMM_MAX_LANES };

VECTOR_INLINE void filter_points(float (*g)[MOST_WIDTH], int64_t width, int step,
                                 float (*to)[MOST_WIDTH], int to_step) {
  for (int64_t l = 0; l < width; l++) {
    float a = g[0][l], b = g[step][l], c = g[2 * step][l], half = 0.5f * (a + c);
    to[0][l] = a;
    to[to_step][l] = half + 0.5f * b;
    to[2 * to_step][l] = half - 0.5f * b;
    to[3 * to_step][l] = c;
  }
}

/* g: [x][y][z][column] of one channel of the input → [tap along z][point][column]. */
FOR_EACH_ISA static void transform_filters(float (*g)[MOST_WIDTH], int taps, int64_t width,
                                           float (*points)[MOST_WIDTH]) {
  float half[SIDE * TAPS][MOST_WIDTH];
  for (int z = 0; z < taps; z++) {
    for (int y = 0; y < TAPS; y++)
      filter_points(g + taps * y + z, width, TAPS * taps, half + y, TAPS);
    for (int i = 0; i < SIDE; i++)
      filter_points(half + TAPS * i, width, 1, points + z * POINTS + SIDE * i, 1);
  }
}

/* Channels of a task of packing. */
enum { PACK_CHANNELS = 16 };

static int64_t pack_parts(const winograd *p) {
  return (p->depth + PACK_CHANNELS - 1) / PACK_CHANNELS;
}

/* Of a tap and a channel. */
static void pack_row(const winograd *p, float *to, int64_t width, int tap, const float *columns) {
  if (p->pair == 1) {
    memcpy(to, columns, (size_t)width * sizeof(float));
    return;
  }
  size_t bytes = (size_t)p->columns * sizeof(float);
  float *next = to + p->depth * width;
  if (tap == 0) memset(to + p->columns, 0, bytes);
  memcpy(to, columns, bytes);
  memcpy(next + p->columns, columns, bytes);
  if (tap == p->taps - 1) memset(next, 0, bytes);
}

static void pack_task(void *context, int64_t task) {
  const winograd *p = context;
  float g[MOST_FILTER][MOST_WIDTH] = {{0}}, points[MOST_TAPS_Z * POINTS][MOST_WIDTH];
  int64_t panel = task % p->panels.count, c = task / p->panels.count * PACK_CHANNELS;
  int64_t width = panel_vectors(&p->panels, panel) * p->panels.kernels->lanes;
  int64_t columns = smaller(panel_columns(&p->panels, panel), p->columns);
  for (int64_t end = smaller(p->depth, c + PACK_CHANNELS); c < end; c++) {
    for (int64_t l = 0; l < columns; l++) {
      const float *from =
          p->weight + c * p->depth_step + (panel * p->panels.width + l) * p->column_step;
      for (int t = 0; t < p->filter; t++) {
        float value = from[p->transposed ? p->filter - 1 - t : t];
        g[t][l] = p->rounds ? bf16_round(value) : value;
      }
    }
    transform_filters(g, p->taps, width, points);
    for (int z = 0; z < p->taps; z++)
      for (int i = 0; i < POINTS; i++)
        pack_row(p, packed_panel(p, i, panel) + (z * p->depth + c) * width, width, z,
                 points[z * POINTS + i]);
  }
}

/* ---- forward and data gradient ------------------------------------------------------------------ */

/* What the next unit along y will read that this one does not, and where this one will be written. Units
 * that are multiplied in groups are of volumes small enough to lie near. */
static void look_ahead(const winograd *p, const unit *u, const unit *following, lookahead *next) {
  int64_t at[4];
  output_rows(p, u, at);
  for (int r = 0; r < 4; r++)
    if (at[r] >= 0) lookahead_add(next, p->output + at[r], u->length * p->columns);
  reach z = reach_of(p, following);
  for (int i = 0; i < SIDE; i++)
    for (int j = SIDE / 2; j < SIDE; j++) {
      const float *row = input_row(p, following, i, j, z.low);
      if (row != p->zeros) lookahead_add(next, row, (z.high - z.low) * p->depth);
    }
}

static void multiply_rows(const winograd *p, int64_t point, int64_t panel, int64_t outputs,
                          const float *in, float *out, lookahead *next) {
  int vectors = panel_vectors(&p->panels, panel);
  int64_t width = vectors * p->panels.kernels->lanes;
  int64_t length = whole_pairs(p, outputs) / p->pair;
  int64_t in_row = p->pair * p->depth, out_row = p->pair * p->columns;
  int64_t tiles = gemm_tile_count(length, p->panels.kernels->max_rows[vectors]);
  for (int64_t t = 0; t < tiles; t++) {
    int64_t row = gemm_tile_begin(length, tiles, t);
    int rows = (int)(gemm_tile_begin(length, tiles, t + 1) - row);
    const float *a = in + row * in_row;
    gemm_segment s = {a, a, a + (rows - 1) * in_row, packed_panel(p, point, panel), NULL, 0};
    lookahead_take(next, p->k, &s);
    /* A number added at point (1, 1) comes out in every output. */
    const float *bias =
        p->packed_bias + (point == SIDE + 1 ? 0 : p->panels.count * p->panels.width);
    gemm_tile tile = {.segments = &s,
                      .segment_count = 1,
                      .k = p->k,
                      .a_row = in_row * (ptrdiff_t)sizeof(float),
                      .a_k = sizeof(float),
                      .b_k = width * (ptrdiff_t)sizeof(float),
                      .c = out + row * out_row + panel * p->panels.width,
                      .c_row = out_row * (ptrdiff_t)sizeof(float),
                      .columns = (int)panel_columns(&p->panels, panel),
                      .bias = bias + panel * p->panels.width};
    p->panels.kernels->tile[vectors][rows](&tile);
  }
}

static void product_task(void *context, int64_t task) {
  const winograd *p = context;
  int64_t begin = p->units * task / p->tasks, end = p->units * (task + 1) / p->tasks;
  float *in = p->rows + task * (POINTS * (p->point_in + p->point_out) + p->unit_out);
  float *out = in + POINTS * p->point_in, *nowhere = out + POINTS * p->point_out;
  unit units[GROUP_ROWS]; /* a group's: strips have a row or more */
  for (; begin < end; begin += p->group) {
    int64_t count = smaller(p->group, end - begin);
    for (int64_t g = 0; g < count; g++) {
      units[g] = unit_of(p, begin + g);
      enter_unit(p, &units[g], in + g * p->unit_in);
    }
    lookahead next;
    lookahead_begin(&next);
    if (p->group == 1 && begin + 1 < end) {
      unit following = unit_of(p, begin + 1);
      look_ahead(p, units, &following, &next);
    }
    for (int64_t i = 0; i < POINTS; i++)
      for (int64_t panel = 0; panel < p->panels.count; panel++)
        for (int64_t g = 0; g < count; g++)
          multiply_rows(p, i, panel, units[g].length, in + i * p->point_in + g * p->unit_in,
                        out + i * p->point_out + g * p->unit_out, &next);
    for (int64_t g = 0; g < count; g++)
      leave_unit(p, task, &units[g], out + g * p->unit_out, nowhere);
  }
}

static winograd product_of(const conv_shape *s, bool transposed) {
  winograd p = {
      .transposed = transposed, .rounds = s->bf16, .packed = s->packed, .batch = s->batch};
  for (int a = 0; a < 3; a++) {
    p.in[a] = transposed ? s->out[a] : s->image[a];
    p.out[a] = transposed ? s->image[a] : s->out[a];
    p.before[a] = transposed ? s->kernel[a] - 1 - s->padding[a] : s->padding[a];
  }
  p.depth = transposed ? s->features : s->channels;
  p.columns = transposed ? s->channels : s->features;
  p.taps = (int)s->kernel[2];
  p.filter = TAPS * TAPS * p.taps;
  p.depth_step = transposed ? s->channels * p.filter : p.filter;
  p.column_step = transposed ? p.filter : s->channels * p.filter;
  p.pair = p.taps > 1 && 2 * p.columns <= gemm_best()->lanes ? 2 : 1;
  p.k = (p.taps + p.pair - 1) * p.depth;
  int64_t most = larger(LEAST_STRIP, STRIP_FLOATS / (POINTS * (p.depth + p.columns)));
  p.strips = (p.out[2] + most - 1) / most;
  p.strip = whole_pairs(&p, (p.out[2] + p.strips - 1) / p.strips);
  p.panels = column_panels_of(p.strip / p.pair, p.pair * p.columns);
  for (int a = 0; a < 2; a++) p.tiles[a] = (p.out[a] + 1) / 2;
  p.units = p.batch * p.strips * p.tiles[0] * p.tiles[1];
  p.tasks = smaller(p.units, TASKS);
  p.moments = conv_moments_of(s, p.tasks, true);
  bool stays = POINTS * p.taps * p.depth * p.columns <= WEIGHTS_IN_L2;
  p.group = stays ? 1 : larger(1, GROUP_ROWS / p.strip);
  p.group = smaller(p.group, (p.units + p.tasks - 1) / p.tasks);
  p.unit_in = (p.strip + p.taps - 1) * p.depth;
  p.unit_out = p.strip * p.columns;
  p.point_in = spread(p.group * p.unit_in);
  p.point_out = spread(p.group * p.unit_out);
  return p;
}

static int64_t packed_floats(const winograd *p) {
  return POINTS * p->k * p->panels.count * p->panels.width;
}

static size_t product_pieces(winograd *p, void *workspace) {
  pieces w = {workspace, 0};
  p->packed_weight = p->packed ? NULL : piece(&w, packed_floats(p));
  p->packed_bias = piece(&w, 2 * p->panels.count * p->panels.width);
  p->zeros = piece(&w, p->unit_in);
  p->rows = piece(&w, p->tasks * (POINTS * (p->point_in + p->point_out) + p->unit_out));
  conv_moments_pieces(&p->moments, &w);
  return w.used;
}

static bool winograd_fits_weight(const conv_shape *s) {
  for (int a = 0; a < 3; a++)
    if (s->stride[a] != 1 || s->dilation[a] != 1 || s->padding[a] >= s->kernel[a]) return false;
  if (s->kernel[0] != TAPS || s->kernel[1] != TAPS || s->kernel[2] > MOST_TAPS_Z) return false;
  int64_t narrower = smaller(s->channels, s->features);
  return s->groups == 1 && narrower >= LEAST_CHANNELS && narrower * s->kernel[2] >= LEAST_K &&
         s->out[0] > 1 && s->out[1] > 1 && s->batch * volume(s->out) >= LEAST_VOXELS;
}

/* Every task reads all of the transformed weights: many of them should be read for many voxels. */
static bool winograd_fits(const conv_shape *s) {
  return winograd_fits_weight(s) &&
         (POINTS * s->kernel[2] * s->channels * s->features <= MANY_WEIGHTS ||
          s->batch * volume(s->out) >= MANY_VOXELS);
}

static size_t winograd_workspace(const conv_shape *s, bool transposed) {
  winograd p = product_of(s, transposed);
  return product_pieces(&p, NULL);
}

static void pack_all(winograd *p, thread_pool *pool) {
  parallel_for(pool, p->panels.count * pack_parts(p), pack_task, p);
}

static size_t winograd_packed_bytes(const conv_shape *s, bool transposed) {
  winograd p = product_of(s, transposed);
  return (size_t)packed_floats(&p) * sizeof(float);
}

static void winograd_pack(const conv_shape *s, bool transposed, const float *weight, float *to,
                          thread_pool *pool) {
  winograd p = product_of(s, transposed);
  p.weight = weight;
  p.packed_weight = to;
  pack_all(&p, pool);
}

static void winograd_run(const conv_shape *s, bool transposed, const float *input,
                         const float *weight, const float *bias, float *output, float *moments,
                         void *workspace, thread_pool *pool) {
  winograd p = product_of(s, transposed);
  p.input = input;
  p.weight = weight;
  p.output = output;
  product_pieces(&p, workspace);
  memset(p.zeros, 0, (size_t)p.unit_in * sizeof(float));
  memset(p.packed_bias, 0, (size_t)(2 * p.panels.count * p.panels.width) * sizeof(float));
  for (int64_t i = 0; bias && i < p.pair; i++)
    memcpy(p.packed_bias + i * p.columns, bias, (size_t)p.columns * sizeof(float));
  if (p.packed)
    p.packed_weight = (float *)weight; /* nothing writes to it then */
  else
    pack_all(&p, pool);
  conv_moments_begin(&p.moments, output);
  parallel_for(pool, p.tasks, product_task, &p);
  conv_moments_end(&p.moments, moments);
}

/* ---- weight gradient ------------------------------------------------------------------------------- */

/* Of each point a sum of its own, rows (tap along z, channel) × features, k over the voxels of every unit,
 * or pairs of them: the second's are then a tap further down.
 * Units are transformed in groups that stay in the caches, and then summed, row by row of every point.
 *
 * Where voxels are many, units are cut into slabs with sums of their own, which are added in order at the
 * end: a slab is one task, so that a core sums what it has transformed. Otherwise the sums are large
 * beside the work: there is one slab, and units, then rows of points, are the tasks. */
enum {
  GROUP_FLOATS = 1 << 20,
  SLAB_GROUP_FLOATS = 160 << 10, /* with the sums, in the L2 of one core */
  MOST_SLABS = 16,
  LEAST_SLABS = 8,
  SLAB_VOXELS = 256, /* at least, of a point */
  SLAB_SUMS = 256 << 10,
  ROW_PART = 96,
  VISIT_FLOATS = 12 << 10
};

/* Floats of the sums of a slab, and of its transformed rows. */
static int64_t slab_sums(const winograd *p) {
  return POINTS * p->k * p->pair * p->columns;
}
static int64_t slab_rows(const winograd *p) {
  return POINTS * (p->point_in + p->point_out);
}

static winograd weight_of(const conv_shape *s) {
  winograd p = product_of(s, false);
  p.panels = column_panels_of(p.k, p.pair * p.columns);
  p.row_parts = (p.k + ROW_PART - 1) / ROW_PART;
  p.slabs = smaller(MOST_SLABS, p.units * p.strip / SLAB_VOXELS);
  if (p.slabs < LEAST_SLABS || slab_sums(&p) > SLAB_SUMS) p.slabs = 1;
  int64_t floats = p.slabs > 1 ? SLAB_GROUP_FLOATS : GROUP_FLOATS;
  p.group = larger(1, floats / (POINTS * (p.unit_in + p.unit_out)));
  p.group = smaller(smaller(p.group, p.units), CONV_MAX_SEGMENTS);
  /* What is read again for every tile stays near, and is long enough to pay for a visit of the sums. */
  p.visit = larger(1, VISIT_FLOATS / ((p.depth + 2 * p.panels.width) * p.strip));
  p.point_in = spread(p.group * p.unit_in);
  /* B is read in whole vectors. */
  p.point_out = spread(p.group * p.unit_out + p.panels.width);
  return p;
}

static size_t weight_pieces(winograd *p, void *workspace) {
  pieces w = {workspace, 0};
  p->bias_sums = piece(&w, 2 * p->slabs * p->columns);
  p->zeros = piece(&w, larger(p->unit_in, p->unit_out));
  p->rows = piece(&w, p->slabs * slab_rows(p));
  p->sums = piece(&w, p->slabs * slab_sums(p));
  return w.used;
}

typedef struct slab {
  const winograd *p;
  float *in, *out;            /* transformed rows of x and dy */
  float *sums, *bias, *terms; /* of the gradients, and of one group's for the bias */
  int64_t first, count;       /* the units of the present group */
} slab;

static slab slab_of(const winograd *p, int64_t index) {
  slab s = {.p = p,
            .in = p->rows + index * slab_rows(p),
            .sums = p->sums + index * slab_sums(p),
            .bias = p->bias_sums + 2 * index * p->columns};
  s.out = s.in + POINTS * p->point_in;
  s.terms = s.bias + p->columns;
  return s;
}

static void gradient_rows(const winograd *p, const unit *u, const float *rows[4]) {
  int64_t at[4];
  output_rows(p, u, at);
  for (int r = 0; r < 4; r++) rows[r] = at[r] < 0 ? p->zeros : p->dy + at[r];
}

static void enter_task(void *context, int64_t task) {
  const slab *s = context;
  const winograd *p = s->p;
  unit u = unit_of(p, s->first + task);
  float *in = s->in + task * p->unit_in, *out = s->out + task * p->unit_out;
  const float *rows[4];
  gradient_rows(p, &u, rows);
  enter_unit(p, &u, in);
  transforms_of(p->columns)->gradient(rows, u.length * p->columns, p->rounds, out, p->point_out);
  /* All units of a group are summed over as many voxels. */
  int64_t read = whole_pairs(p, u.length) + p->taps - 1, most = p->strip + p->taps - 1;
  for (int64_t i = 0; i < POINTS && u.length < p->strip; i++) {
    memset(in + i * p->point_in + read * p->depth, 0,
           (size_t)((most - read) * p->depth) * sizeof(float));
    memset(out + i * p->point_out + u.length * p->columns, 0,
           (size_t)((p->strip - u.length) * p->columns) * sizeof(float));
  }
}

/* Adds the gradients of the group's units. */
FOR_EACH_ISA static void sum_gradient(const slab *s) {
  const winograd *p = s->p;
  float *to = s->terms;
  memset(to, 0, (size_t)p->columns * sizeof(float));
  for (int64_t i = s->first; i < s->first + s->count; i++) {
    const float *rows[4];
    unit u = unit_of(p, i);
    gradient_rows(p, &u, rows);
    for (int r = 0; r < 4; r++)
      for (int64_t z = 0; z < u.length && rows[r] != p->zeros; z++)
        for (int64_t f = 0; f < p->columns; f++) to[f] += rows[r][z * p->columns + f];
  }
  for (int64_t f = 0; f < p->columns; f++) s->bias[f] += to[f];
}

/* Rows [row, row_end) of a point's sum, over the units [first, first + count) of the group. */
static void sum_rows(const slab *s, int64_t point, int64_t row, int64_t row_end, int64_t first,
                     int64_t count) {
  const winograd *p = s->p;
  const float *in = s->in + point * p->point_in + first * p->unit_in;
  const float *out = s->out + point * p->point_out + first * p->unit_out;
  int64_t columns = p->pair * p->columns;
  float *sums = s->sums + point * p->k * columns;
  gemm_segment segments[CONV_MAX_SEGMENTS];
  for (int64_t panel = 0; panel < p->panels.count; panel++) {
    int vectors = panel_vectors(&p->panels, panel);
    int64_t tiles = gemm_tile_count(row_end - row, p->panels.kernels->max_rows[vectors]);
    for (int64_t t = 0; t < tiles; t++) {
      int64_t r = row + gemm_tile_begin(row_end - row, tiles, t);
      int rows = (int)(row + gemm_tile_begin(row_end - row, tiles, t + 1) - r);
      for (int64_t g = 0; g < count; g++) {
        const float *a = in + g * p->unit_in + r;
        segments[g] = (gemm_segment){
            a, a, a + rows - 1, out + g * p->unit_out + panel * p->panels.width, a, 0};
      }
      gemm_tile tile = {.segments = segments,
                        .segment_count = count,
                        .k = p->strip / p->pair,
                        .a_row = sizeof(float),
                        .a_k = p->pair * p->depth * (ptrdiff_t)sizeof(float),
                        .b_k = columns * (ptrdiff_t)sizeof(float),
                        .c = sums + r * columns + panel * p->panels.width,
                        .c_row = columns * (ptrdiff_t)sizeof(float),
                        .columns = (int)panel_columns(&p->panels, panel),
                        .accumulate = true};
      p->panels.kernels->tile[vectors][rows](&tile);
    }
  }
}

static void sum_task(void *context, int64_t task) {
  const slab *s = context;
  const winograd *p = s->p;
  if (task == POINTS * p->row_parts) {
    sum_gradient(s);
    return;
  }
  int64_t point = task / p->row_parts, part = task % p->row_parts;
  for (int64_t first = 0; first < s->count; first += p->visit)
    sum_rows(s, point, gemm_tile_begin(p->k, p->row_parts, part),
             gemm_tile_begin(p->k, p->row_parts, part + 1), first,
             smaller(p->visit, s->count - first));
}

static void sum_slab(const winograd *p, int64_t index, thread_pool *pool) {
  slab s = slab_of(p, index);
  memset(s.sums, 0, (size_t)slab_sums(p) * sizeof(float));
  memset(s.bias, 0, (size_t)p->columns * sizeof(float));
  int64_t end = gemm_tile_begin(p->units, p->slabs, index + 1);
  for (s.first = gemm_tile_begin(p->units, p->slabs, index); s.first < end; s.first += s.count) {
    s.count = smaller(p->group, end - s.first);
    parallel_for(pool, s.count, enter_task, &s);
    parallel_for(pool, POINTS * p->row_parts + (p->dbias != NULL), sum_task, &s);
  }
}

static void slab_task(void *context, int64_t task) {
  sum_slab(context, task, NULL);
}

VECTOR_INLINE void weight_points(float (*s)[MOST_WIDTH], int64_t width, int step,
                                 float (*to)[MOST_WIDTH], int to_step) {
  for (int64_t l = 0; l < width; l++) {
    float b = 0.5f * s[step][l], c = 0.5f * s[2 * step][l];
    to[0][l] = s[0][l] + (b + c);
    to[to_step][l] = b - c;
    to[2 * to_step][l] = (b + c) + s[3 * step][l];
  }
}

/* points: [tap along z][point][column] → g: [x][y][z][column]. */
FOR_EACH_ISA static void transform_sums(float (*points)[MOST_WIDTH], int taps, int64_t width,
                                        float (*g)[MOST_WIDTH]) {
  float half[TAPS * SIDE][MOST_WIDTH];
  for (int z = 0; z < taps; z++) {
    for (int j = 0; j < SIDE; j++)
      weight_points(points + z * POINTS + j, width, SIDE, half + j, SIDE);
    for (int x = 0; x < TAPS; x++)
      weight_points(half + SIDE * x, width, 1, g + TAPS * taps * x + z, taps);
  }
}

/* Of a tap and a channel, over the slabs and both of a pair. */
static void add_sums(const winograd *p, const float *sums, int tap, int64_t c, float *to,
                     int64_t columns) {
  int64_t row = p->pair * p->columns;
  sums += (tap * p->depth + c) * row;
  conv_add_slabs(sums, p->slabs, slab_sums(p), to, columns);
  if (p->pair == 1) return;
  float second[MOST_WIDTH];
  conv_add_slabs(sums + p->depth * row + p->columns, p->slabs, slab_sums(p), second, columns);
  for (int64_t l = 0; l < columns; l++) to[l] += second[l];
}

static void weight_task(void *context, int64_t task) {
  const winograd *p = context;
  float points[MOST_TAPS_Z * POINTS][MOST_WIDTH], g[MOST_FILTER][MOST_WIDTH];
  int64_t panel = task % p->panels.count, c = task / p->panels.count * PACK_CHANNELS;
  int64_t columns = smaller(panel_columns(&p->panels, panel), p->columns);
  for (int64_t end = smaller(p->depth, c + PACK_CHANNELS); c < end; c++) {
    for (int i = 0; i < POINTS; i++)
      for (int z = 0; z < p->taps; z++)
        add_sums(p, p->sums + i * p->k * p->pair * p->columns + panel * p->panels.width, z, c,
                 points[z * POINTS + i], columns);
    transform_sums(points, p->taps, columns, g);
    for (int64_t l = 0; l < columns; l++)
      for (int t = 0; t < p->filter; t++)
        p->dweight[c * p->depth_step + (panel * p->panels.width + l) * p->column_step + t] =
            g[t][l];
  }
}

static size_t winograd_weight_workspace(const conv_shape *s) {
  winograd p = weight_of(s);
  return weight_pieces(&p, NULL);
}

static void winograd_weight_run(const conv_shape *s, const float *x, const float *dy,
                                float *dweight, float *dbias, void *workspace, thread_pool *pool) {
  winograd p = weight_of(s);
  p.input = x;
  p.dy = dy;
  p.dweight = dweight;
  p.dbias = dbias;
  weight_pieces(&p, workspace);
  memset(p.zeros, 0, (size_t)larger(p.unit_in, p.unit_out) * sizeof(float));
  if (p.slabs > 1)
    parallel_for(pool, p.slabs, slab_task, &p);
  else
    sum_slab(&p, 0, pool);
  parallel_for(pool, p.panels.count * pack_parts(&p), weight_task, &p);
  if (dbias) conv_add_slabs(slab_of(&p, 0).bias, p.slabs, 2 * p.columns, dbias, p.columns);
}

const conv_method conv_winograd = {.fits = winograd_fits,
                                   .workspace = winograd_workspace,
                                   .run = winograd_run,
                                   .packed_bytes = winograd_packed_bytes,
                                   .pack = winograd_pack,
                                   .makes_moments = true,
                                   .fits_weight = winograd_fits_weight,
                                   .weight_workspace = winograd_weight_workspace,
                                   .weight_run = winograd_weight_run};
