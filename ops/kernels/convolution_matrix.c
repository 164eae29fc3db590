/* One tap and nothing between, so a plain matrix product: linear layers, 1×1×1 convolutions.
 *
 * k is cut into blocks. Of each, a panel of B as wide as a tile is packed into L1, where it stays while
 * the tiles of some rows pass over it; their part of A stays in L2.
 *
 * Forward and data gradient read A where it lies and pack the weights, unless these are given packed. Where
 * rows are many, weights are packed first and tasks take rows; where they are few, the weights are the larger
 * part: tasks take columns, and each packs a panel at a time, so that the copy never leaves the caches. Where
 * columns are few as well and k is long, tasks take slabs of k, whose sums are added in order.
 *
 * In the weight gradient k runs over voxels, and both factors are packed: read in place, the k of a tile
 * would lie a row of channels apart, in few of the cache's sets.
 *
 * Factors that bf16 rounds are rounded where they are packed. A is not, so it is copied: a task's own rows,
 * or all of A where tasks take columns. */
#include "ops/kernels/convolution_parts.h"

enum {
  DEPTH = 256, /* most k of a block */
  TASKS = 16,
  SLAB = 4 * DEPTH, /* least k of a slab */
  MANY_ROWS = 1024,
  ROW_PART = 96,   /* rows that are multiplied at a time */
  ROW_TASKS = 128, /* most of them that leave moments */
  LEAST_ROWS = 8,
  LEAST_CHANNELS = 16,
  MOST_VOXELS = 4095
};

typedef struct matrix_product {
  column_panels panels; /* of C */
  int64_t rows, depth;
  int64_t first, end;              /* k that is summed: all of `depth`, or a slab */
  int64_t row_parts, column_parts; /* of tasks */
  int64_t row_tasks;               /* each takes some neighbouring parts */
  int64_t slabs;                   /* of k */
  int64_t block;                   /* k of a block */
  bool by_column;                  /* B lies [column][k], otherwise [k][column] */
  bool packed;                     /* B is given packed */
  bool rounds;                     /* the factors, to bf16 */
  const float *a, *b;
  float *c;
  float *sums; /* of A over k, for each row; NULL: not wanted */
  float *rounded_a;
  const float *panels_b; /* all panels of B, packed: blocks of k, of each the panels */
  float *packed_a, *packed_b;
  float *packed_bias;   /* with slabs, as many zeros behind it */
  float *partial;       /* rows × columns, of every slab */
  conv_moments moments; /* of C */
  const conv_finish *finish;
  int64_t k, k_end; /* the present block, of the weight gradient */
} matrix_product;

static matrix_product matrix_of(int64_t rows, int64_t columns, int64_t depth) {
  return (matrix_product){.panels = column_panels_of(rows, columns),
                          .rows = rows,
                          .depth = depth,
                          .end = depth,
                          .block = smaller(depth, DEPTH)};
}

/* ---- packing ----------------------------------------------------------------------------------- */

/* from [k][column] → to [k][width], zeros beyond `columns`. */
static void pack_rows(float *to, int64_t width, const float *from, int64_t row, int64_t k,
                      int64_t columns) {
  for (int64_t i = 0; i < k; i++, to += width, from += row) {
    memcpy(to, from, (size_t)columns * sizeof(float));
    memset(to + columns, 0, (size_t)(width - columns) * sizeof(float));
  }
}

/* from [column][k] → to [k][width], zeros beyond `columns`. */
static void pack_columns(const gemm_kernels *kernels, float *to, int64_t width, const float *from,
                         int64_t row, int64_t k, int64_t columns) {
  int64_t lanes = kernels->lanes;
  for (int64_t c = 0; c < width; c += lanes) {
    int64_t whole = columns - c >= lanes ? k / lanes * lanes : 0;
    for (int64_t i = 0; i < whole; i += lanes)
      kernels->transpose(from + c * row + i, row, to + i * width + c, width);
    for (int64_t i = whole; i < k; i++)
      for (int64_t l = 0; l < lanes; l++)
        to[i * width + c + l] = c + l < columns ? from[(c + l) * row + i] : 0;
  }
}

/* from [k][row of A] → to [k][rows]: what a tile broadcasts, side by side. */
static inline __attribute__((always_inline)) void
pack_tile(float *to, const float *from, int64_t row, int64_t k, const int64_t rows) {
  for (int64_t i = 0; i < k; i++, to += rows, from += row)
    memcpy(to, from, (size_t)rows * sizeof(float));
}

static void pack_a_tile(float *to, const float *from, int64_t row, int64_t k, int64_t rows) {
  switch (rows) { /* copies of a known length are a move or two */
  case 6:
    pack_tile(to, from, row, k, 6);
    break;
  case 8:
    pack_tile(to, from, row, k, 8);
    break;
  case 12:
    pack_tile(to, from, row, k, 12);
    break;
  case 24:
    pack_tile(to, from, row, k, 24);
    break;
  default:
    pack_tile(to, from, row, k, rows);
  }
}

/* ---- forward and data gradient --------------------------------------------------------------------- */

/* A panel and a block of k; no panel: `panel` is p->panels.count, or k the depth. */
typedef struct next_panel {
  int64_t panel, k;
} next_panel;

/* The next of panels [begin, end) at k, or their first at the next block. */
static next_panel panel_after(const matrix_product *p, int64_t panel, int64_t k, int64_t begin,
                              int64_t end) {
  return panel + 1 < end ? (next_panel){panel + 1, k} : (next_panel){begin, k + p->block};
}

static int64_t block_at(const matrix_product *p, int64_t k) {
  return smaller(p->end - k, p->block);
}

/* Floats of a row of k over all panels. */
static int64_t packed_width(const matrix_product *p) {
  int64_t last = p->panels.count - 1;
  return last * p->panels.width + panel_vectors(&p->panels, last) * p->panels.kernels->lanes;
}

/* Where a panel begins among all that are packed. */
static int64_t packed_offset(const matrix_product *p, int64_t panel, int64_t k) {
  return k * packed_width(p) + panel * p->panels.width * block_at(p, k);
}

/* Of `tiles`, tile `tile` fetches its part of what the next panel is packed from: of weights [k][column] a
 * cache line of every row, of [column][k] one column. Or of the panel, where all of them are packed. */
static void fetch_next(const matrix_product *p, next_panel next, int64_t tile, int64_t tiles,
                       gemm_segment *s) {
  enum { LINE = 16 };
  s->ahead = s->middle;
  s->ahead_k = 0;
  if (next.panel >= p->panels.count || next.k >= p->end) return;
  int64_t columns = panel_columns(&p->panels, next.panel), column = next.panel * p->panels.width;
  if (p->packed) {
    int64_t step = (p->panels.width + tiles - 1) / tiles;
    if (tile * step >= p->panels.width) return;
    s->ahead =
        p->panels_b + packed_offset(p, next.panel, next.k) + tile * step * block_at(p, next.k);
    s->ahead_k = step * (ptrdiff_t)sizeof(float);
  } else if (p->by_column && tile < columns) {
    s->ahead = p->b + (column + tile) * p->depth + next.k;
    s->ahead_k = sizeof(float);
  } else if (!p->by_column && tile * LINE < columns) {
    s->ahead = p->b + next.k * p->panels.columns + column + tile * LINE;
    s->ahead_k = p->panels.columns * (ptrdiff_t)sizeof(float);
  }
}

/* Rows [row, row_end) of a panel of columns, over a block of k. `a` is their part of A, in rows `a_row`
 * apart. `next` is packed after it. */
static void multiply_panel(const matrix_product *p, const float *a, int64_t a_row,
                           const float *packed, int64_t panel, int64_t k, int64_t row,
                           int64_t row_end, next_panel next) {
  int vectors = panel_vectors(&p->panels, panel);
  int64_t columns = panel_columns(&p->panels, panel), width = vectors * p->panels.kernels->lanes;
  int64_t rows = row_end - row, tiles = gemm_tile_count(rows, p->panels.kernels->max_rows[vectors]);
  for (int64_t t = 0; t < tiles; t++) {
    int64_t begin = gemm_tile_begin(rows, tiles, t), r = row + begin;
    int height = (int)(gemm_tile_begin(rows, tiles, t + 1) - begin);
    const float *first = a + begin * a_row;
    gemm_segment s = {
        .first = first, .middle = first, .last = first + (height - 1) * a_row, .b = packed};
    fetch_next(p, next, t, tiles, &s);
    gemm_tile tile = {.segments = &s,
                      .segment_count = 1,
                      .k = block_at(p, k),
                      .a_row = a_row * (ptrdiff_t)sizeof(float),
                      .a_k = sizeof(float),
                      .b_k = width * (ptrdiff_t)sizeof(float),
                      .c = p->c + r * p->panels.columns + panel * p->panels.width,
                      .c_row = p->panels.columns * (ptrdiff_t)sizeof(float),
                      .columns = (int)columns,
                      .accumulate = k > p->first,
                      .bias = p->packed_bias + panel * p->panels.width};
    p->panels.kernels->tile[vectors][height](&tile);
  }
}

static void pack_panel(const matrix_product *p, float *packed, int64_t panel, int64_t k) {
  int64_t columns = panel_columns(&p->panels, panel), column = panel * p->panels.width;
  int64_t width = panel_vectors(&p->panels, panel) * p->panels.kernels->lanes;
  int64_t count = block_at(p, k);
  if (p->by_column)
    pack_columns(p->panels.kernels, packed, width, p->b + column * p->depth + k, p->depth, count,
                 columns);
  else
    pack_rows(packed, width, p->b + k * p->panels.columns + column, p->panels.columns, count,
              columns);
  if (p->rounds) bf16_round_rows(packed, width, count, width);
}

static void finish_part(const matrix_product *p, int64_t row, int64_t rows, int64_t column,
                        int64_t columns) {
  if (p->finish) p->finish->part(p->finish->context, row, rows, column, columns);
}

static void columns_task(void *context, int64_t task) {
  const matrix_product *p = context;
  int64_t begin = p->panels.count * task / p->column_parts,
          end = p->panels.count * (task + 1) / p->column_parts;
  float *own = p->packed ? NULL : p->packed_b + task * p->block * p->panels.width;
  for (int64_t k = 0; k < p->depth; k += p->block)
    for (int64_t panel = begin; panel < end; panel++) {
      if (own) pack_panel(p, own, panel, k);
      multiply_panel(p, (p->rounds ? p->rounded_a : p->a) + k, p->depth,
                     own ? own : p->panels_b + packed_offset(p, panel, k), panel, k, 0, p->rows,
                     panel_after(p, panel, k, begin, end));
    }
  int64_t column = begin * p->panels.width;
  int64_t columns = smaller(end * p->panels.width, p->panels.columns) - column;
  conv_moments_add(&p->moments, 0, 0, p->rows, column, columns);
  finish_part(p, 0, p->rows, column, columns);
}

static void pack_shared_task(void *context, int64_t task) {
  const matrix_product *p = context;
  int64_t panel = task % p->panels.count, k = task / p->panels.count * p->block;
  pack_panel(p, p->packed_b + packed_offset(p, panel, k), panel, k);
}

/* Rows [row, row_end) of all columns; `own` is room for a panel, if they are not packed yet. */
static void multiply_rows(const matrix_product *p, int64_t row, int64_t row_end, float *own) {
  float copied[(ROW_PART + 1) * DEPTH];
  const next_panel none = {p->panels.count, 0};
  /* Long rows begin in few of the cache's sets. */
  bool copies = p->rounds || p->slabs > 1;
  for (int64_t k = p->first; k < p->end; k += p->block) {
    const float *a = p->a + row * p->depth + k;
    int64_t a_row = copies ? p->block : p->depth;
    for (int64_t r = 0; r < row_end - row && copies; r++)
      copy_factors(copied + r * a_row, a + r * p->depth, block_at(p, k), p->rounds);
    for (int64_t panel = 0; panel < p->panels.count; panel++) {
      if (own) pack_panel(p, own, panel, k);
      multiply_panel(p, copies ? copied : a, a_row,
                     own ? own : p->panels_b + packed_offset(p, panel, k), panel, k, row, row_end,
                     own ? panel_after(p, panel, k, 0, p->panels.count) : none);
    }
  }
}

static void rows_task(void *context, int64_t task) {
  const matrix_product *p = context;
  int64_t part = p->row_parts * task / p->row_tasks;
  for (; part < p->row_parts * (task + 1) / p->row_tasks; part++) {
    int64_t row = gemm_tile_begin(p->rows, p->row_parts, part);
    int64_t row_end = gemm_tile_begin(p->rows, p->row_parts, part + 1);
    multiply_rows(p, row, row_end, NULL);
    conv_moments_add(&p->moments, task, row, row_end - row, 0, p->panels.columns);
    finish_part(p, row, row_end - row, 0, p->panels.columns);
  }
}

static void slab_task(void *context, int64_t task) {
  matrix_product p = *(const matrix_product *)context;
  int64_t blocks = (p.depth + p.block - 1) / p.block;
  p.first = blocks * task / p.slabs * p.block;
  p.end = smaller(p.depth, blocks * (task + 1) / p.slabs * p.block);
  p.c = p.partial + task * p.rows * p.panels.columns;
  if (task > 0) p.packed_bias += p.panels.count * p.panels.width;
  multiply_rows(&p, 0, p.rows, p.packed ? NULL : p.packed_b + task * p.block * p.panels.width);
}

static void add_slabs_task(void *context, int64_t row) {
  const matrix_product *p = context;
  int64_t columns = p->panels.columns;
  conv_add_slabs(p->partial + row * columns, p->slabs, p->rows * columns, p->c + row * columns,
                 columns);
  finish_part(p, row, 1, 0, columns);
}

static void pack_all(matrix_product *p, thread_pool *pool) {
  int64_t blocks = (p->depth + p->block - 1) / p->block;
  parallel_for(pool, blocks * p->panels.count, pack_shared_task, p);
}

static matrix_product product_of(const conv_shape *shape, bool transposed) {
  conv_shape s = merge_pointwise(*shape);
  matrix_product p = matrix_of(s.out[2], transposed ? s.channels : s.features,
                               transposed ? s.features : s.channels);
  p.by_column = !transposed;
  p.packed = s.packed;
  p.rounds = conv_rounds(&s);
  p.column_parts = smaller(p.panels.count, TASKS);
  if (p.rows >= MANY_ROWS || (p.rows >= ROW_PART && p.panels.count < TASKS / 2))
    p.row_parts = (p.rows + ROW_PART - 1) / ROW_PART;
  p.slabs =
      p.row_parts || p.panels.count >= TASKS / 2 ? 1 : larger(1, smaller(p.depth / SLAB, TASKS));
  p.row_tasks = s.moments ? smaller(p.row_parts, ROW_TASKS) : p.row_parts;
  p.moments = conv_moments_of(shape, p.row_parts ? p.row_tasks : 1, p.row_parts > 0);
  return p;
}

static int64_t bias_floats(const matrix_product *p) {
  return p->panels.count * p->panels.width * (p->slabs > 1 ? 2 : 1);
}

static size_t product_pieces(matrix_product *p, void *workspace) {
  pieces w = {workspace, 0};
  bool slabs = p->slabs > 1;
  int64_t tasks = slabs ? p->slabs : p->column_parts;
  int64_t packed = p->row_parts ? p->depth * packed_width(p) : tasks * p->block * p->panels.width;
  p->packed_b = p->packed ? NULL : piece(&w, packed);
  p->rounded_a = p->rounds && !p->row_parts && !slabs ? piece(&w, p->rows * p->depth) : NULL;
  p->packed_bias = piece(&w, bias_floats(p));
  p->partial = slabs ? piece(&w, p->slabs * p->rows * p->panels.columns) : NULL;
  conv_moments_pieces(&p->moments, &w);
  return w.used;
}

static bool is_matrix(const conv_shape *s) {
  return s->groups == 1 && !conv_pairs(s) && volume(s->kernel) == 1 && s->batch == 1 &&
         s->out[0] == 1 && s->out[1] == 1 && s->out[2] == s->image[2];
}

/* With few rows a panel is hardly used, with few channels a tile. */
static bool matrix_fits(const conv_shape *shape) {
  conv_shape s = merge_pointwise(*shape);
  return is_matrix(&s) && s.out[2] >= LEAST_ROWS && s.channels >= LEAST_CHANNELS &&
         s.features >= LEAST_CHANNELS;
}

static size_t matrix_workspace(const conv_shape *s, bool transposed) {
  matrix_product p = product_of(s, transposed);
  return product_pieces(&p, NULL);
}

static void matrix_run(const conv_shape *s, bool transposed, const float *input,
                       const float *weight, const float *bias, float *output, float *moments,
                       void *workspace, thread_pool *pool) {
  matrix_product p = product_of(s, transposed);
  p.a = input;
  p.b = weight;
  p.c = output;
  p.finish = transposed ? NULL : s->finish;
  product_pieces(&p, workspace);
  p.panels_b = p.packed ? weight : p.packed_b;
  for (int64_t i = 0; i < bias_floats(&p); i++)
    p.packed_bias[i] = bias && i < p.panels.columns ? bias[i] : 0;
  if (p.row_parts && !p.packed) pack_all(&p, pool);
  if (p.rounded_a) bf16_round_copy(p.rounded_a, input, p.rows * p.depth);
  conv_moments_begin(&p.moments, output);
  if (p.row_parts) {
    parallel_for(pool, p.row_tasks, rows_task, &p);
  } else if (p.slabs > 1) {
    parallel_for(pool, p.slabs, slab_task, &p);
    parallel_for(pool, p.rows, add_slabs_task, &p);
    conv_moments_add(&p.moments, 0, 0, p.rows, 0, p.panels.columns);
  } else {
    parallel_for(pool, p.column_parts, columns_task, &p);
  }
  conv_moments_end(&p.moments, moments);
}

static size_t matrix_packed_bytes(const conv_shape *s, bool transposed) {
  matrix_product p = product_of(s, transposed);
  return (size_t)(p.depth * packed_width(&p)) * sizeof(float);
}

static void matrix_pack(const conv_shape *s, bool transposed, const float *weight, float *to,
                        thread_pool *pool) {
  matrix_product p = product_of(s, transposed);
  p.b = weight;
  p.packed_b = to;
  pack_all(&p, pool);
}

/* ---- weight gradient ------------------------------------------------------------------------------- */

/* C = dyᵀ · x: rows are features, columns channels, k the voxels. */
static matrix_product weight_of(const conv_shape *shape) {
  conv_shape s = merge_pointwise(*shape);
  matrix_product p = matrix_of(s.features, s.channels, s.out[2]);
  p.rounds = conv_rounds(&s);
  p.row_parts = (p.rows + ROW_PART - 1) / ROW_PART;
  p.column_parts = smaller(p.panels.count, (TASKS + p.row_parts - 1) / p.row_parts);
  return p;
}

static size_t weight_pieces(matrix_product *p, void *workspace) {
  pieces w = {workspace, 0};
  p->packed_a = piece(&w, p->block * p->rows);
  p->packed_b = piece(&w, p->block * p->panels.count * p->panels.width);
  p->packed_bias = piece(&w, p->panels.width);
  return w.used;
}

/* The rows of a part are cut into tiles of the height that full panels have. */
typedef struct part {
  int64_t row, rows, tiles;
} part;

static part part_of(const matrix_product *p, int64_t i) {
  int64_t row = gemm_tile_begin(p->rows, p->row_parts, i);
  int64_t rows = gemm_tile_begin(p->rows, p->row_parts, i + 1) - row;
  return (part){row, rows, gemm_tile_count(rows, p->panels.kernels->max_rows[p->panels.vectors])};
}

static void pack_a_part(const matrix_product *p, int64_t i) {
  part r = part_of(p, i);
  int64_t k = p->k_end - p->k;
  const float *from = p->a + p->k * p->rows;
  for (int64_t t = 0; t < r.tiles; t++) {
    int64_t row = r.row + gemm_tile_begin(r.rows, r.tiles, t);
    int64_t rows = r.row + gemm_tile_begin(r.rows, r.tiles, t + 1) - row;
    pack_a_tile(p->packed_a + row * k, from + row, p->rows, k, rows);
    if (p->rounds) bf16_round_rows(p->packed_a + row * k, rows * k, 1, rows * k);
  }
  if (!p->sums) return;
  float *sums = p->sums + r.row;
  if (p->k == 0) memset(sums, 0, (size_t)r.rows * sizeof(float));
  for (int64_t v = 0; v < k; v++)
    for (int64_t row = 0; row < r.rows; row++) sums[row] += from[v * p->rows + r.row + row];
}

static void pack_task(void *context, int64_t task) {
  const matrix_product *p = context;
  if (task < p->row_parts) {
    pack_a_part(p, task);
    return;
  }
  int64_t panel = task - p->row_parts, k = p->k_end - p->k;
  int64_t width = panel_vectors(&p->panels, panel) * p->panels.kernels->lanes;
  float *packed = p->packed_b + panel * p->panels.width * k;
  pack_rows(packed, width, p->b + p->k * p->panels.columns + panel * p->panels.width,
            p->panels.columns, k, panel_columns(&p->panels, panel));
  if (p->rounds) bf16_round_rows(packed, width, k, width);
}

static void weight_task(void *context, int64_t task) {
  const matrix_product *p = context;
  part r = part_of(p, task / p->column_parts);
  int64_t cut = task % p->column_parts, k = p->k_end - p->k;
  int64_t begin = p->panels.count * cut / p->column_parts,
          end = p->panels.count * (cut + 1) / p->column_parts;
  for (int64_t panel = begin; panel < end; panel++) {
    int vectors = panel_vectors(&p->panels, panel);
    const float *b = p->packed_b + panel * p->panels.width * k;
    for (int64_t t = 0; t < r.tiles; t++) {
      int64_t row = r.row + gemm_tile_begin(r.rows, r.tiles, t);
      int rows = (int)(r.row + gemm_tile_begin(r.rows, r.tiles, t + 1) - row);
      const float *a = p->packed_a + row * k;
      gemm_segment s = {a, a, a + rows - 1, b, a, 0};
      gemm_tile tile = {.segments = &s,
                        .segment_count = 1,
                        .k = k,
                        .a_row = sizeof(float),
                        .a_k = rows * (ptrdiff_t)sizeof(float),
                        .b_k = vectors * p->panels.kernels->lanes * (ptrdiff_t)sizeof(float),
                        .c = p->c + row * p->panels.columns + panel * p->panels.width,
                        .c_row = p->panels.columns * (ptrdiff_t)sizeof(float),
                        .columns = (int)panel_columns(&p->panels, panel),
                        .accumulate = p->k > 0,
                        .bias = p->packed_bias};
      p->panels.kernels->tile[vectors][rows](&tile);
    }
  }
}

/* Few parts leave nothing to share; many voxels are better cut into slabs with sums of their own, as
 * convolutions are. */
static bool matrix_fits_weight(const conv_shape *shape) {
  conv_shape s = merge_pointwise(*shape);
  int64_t shorter = smaller(s.channels, s.features), longer = larger(s.channels, s.features);
  return is_matrix(&s) && s.out[2] <= MOST_VOXELS &&
         (shorter >= 128 || (shorter >= 32 && longer >= 1024));
}

static size_t matrix_weight_workspace(const conv_shape *s) {
  matrix_product p = weight_of(s);
  return weight_pieces(&p, NULL);
}

static void matrix_weight_run(const conv_shape *s, const float *x, const float *dy, float *dweight,
                              float *dbias, void *workspace, thread_pool *pool) {
  matrix_product p = weight_of(s);
  weight_pieces(&p, workspace);
  p.a = dy;
  p.b = x;
  p.c = dweight;
  p.sums = dbias;
  memset(p.packed_bias, 0, (size_t)p.panels.width * sizeof(float));
  for (p.k = 0; p.k < p.depth; p.k = p.k_end) {
    p.k_end = smaller(p.depth, p.k + p.block);
    parallel_for(pool, p.row_parts + p.panels.count, pack_task, &p);
    parallel_for(pool, p.row_parts * p.column_parts, weight_task, &p);
  }
}

const conv_method conv_matrix = {.fits = matrix_fits,
                                 .workspace = matrix_workspace,
                                 .run = matrix_run,
                                 .packed_bytes = matrix_packed_bytes,
                                 .pack = matrix_pack,
                                 .makes_moments = true,
                                 .finishes_parts = true,
                                 .fits_weight = matrix_fits_weight,
                                 .weight_workspace = matrix_weight_workspace,
                                 .weight_run = matrix_weight_run};
