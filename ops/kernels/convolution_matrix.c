/* One tap and nothing between, so a plain matrix product, where it is large enough for blocking to pay:
 * linear layers over tokens, 1×1×1 convolutions of many channels.
 *
 * k is cut into blocks of DEPTH. Of each, a panel of B as wide as a tile is packed into L1, where it stays
 * while the tiles of all rows pass over it; their part of A stays in L2. Forward and data gradient read A
 * where it lies and pack the weights, once each; a panel belongs to a task, so that the weights' copy never
 * leaves the caches. In the weight gradient k runs over voxels, so both factors are packed: read in place,
 * the k of a tile would lie a row of channels apart, in few of the cache's sets. */
#include "ops/kernels/convolution_parts.h"

enum { DEPTH = 256, TASKS = 16, ROW_PART = 96 };

typedef struct matrix_product {
  const gemm_kernels *kernels;
  int64_t rows, columns, depth; /* C is rows × columns */
  int vectors;                  /* of a full panel */
  int64_t width, panels;        /* of a panel, in columns; the last may be narrower */
  int64_t row_parts, column_parts;
  bool by_column; /* B lies [column][k], otherwise [k][column] */
  const float *a, *b, *bias;
  float *c;
  float *sums; /* of A over k, for each row; NULL: not wanted */
  float *packed_a, *packed_b, *packed_bias;
  int64_t k, k_end; /* the present block, of the weight gradient */
} matrix_product;

/* Columns of a panel, and the vectors that hold them. */
static int64_t panel_columns(const matrix_product *p, int64_t panel) {
  return smaller(p->width, p->columns - panel * p->width);
}
static int panel_vectors(const matrix_product *p, int64_t panel) {
  return (int)((panel_columns(p, panel) + p->kernels->lanes - 1) / p->kernels->lanes);
}

static matrix_product matrix_of(int64_t rows, int64_t columns, int64_t depth) {
  matrix_product p = {.kernels = gemm_best(), .rows = rows, .columns = columns, .depth = depth};
  p.vectors = gemm_vectors(p.kernels, rows, columns);
  p.width = p.vectors * p.kernels->lanes;
  p.panels = (columns + p.width - 1) / p.width;
  return p;
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

/* Tiles fetch what the panel after theirs is packed from: of weights [k][column] a cache line of every
 * row, of [column][k] one column. */
static void fetch_next(const matrix_product *p, int64_t panel, int64_t k, int64_t tile,
                       gemm_segment *s) {
  enum { LINE = 16 };
  s->ahead = s->middle;
  s->ahead_k = 0;
  if (panel >= p->panels || k >= p->depth) return;
  int64_t columns = panel_columns(p, panel), column = panel * p->width;
  if (p->by_column && tile < columns) {
    s->ahead = p->b + (column + tile) * p->depth + k;
    s->ahead_k = sizeof(float);
  } else if (!p->by_column && tile * LINE < columns) {
    s->ahead = p->b + k * p->columns + column + tile * LINE;
    s->ahead_k = p->columns * (ptrdiff_t)sizeof(float);
  }
}

static void multiply_panel(const matrix_product *p, const float *packed, int64_t panel,
                           int64_t next_panel, int64_t next_k, int64_t k, int64_t k_end) {
  int vectors = panel_vectors(p, panel);
  int64_t columns = panel_columns(p, panel), width = vectors * p->kernels->lanes;
  int64_t tiles = gemm_tile_count(p->rows, p->kernels->max_rows[vectors]);
  for (int64_t t = 0; t < tiles; t++) {
    int64_t row = gemm_tile_begin(p->rows, tiles, t);
    int rows = (int)(gemm_tile_begin(p->rows, tiles, t + 1) - row);
    const float *a = p->a + row * p->depth + k;
    gemm_segment s = {.first = a, .middle = a, .last = a + (rows - 1) * p->depth, .b = packed};
    fetch_next(p, next_panel, next_k, t, &s);
    gemm_tile tile = {.segments = &s,
                      .segment_count = 1,
                      .k = k_end - k,
                      .a_row = p->depth * (ptrdiff_t)sizeof(float),
                      .a_k = sizeof(float),
                      .b_k = width * (ptrdiff_t)sizeof(float),
                      .c = p->c + row * p->columns + panel * p->width,
                      .c_row = p->columns * (ptrdiff_t)sizeof(float),
                      .columns = (int)columns,
                      .accumulate = k > 0,
                      .bias = p->packed_bias + panel * p->width};
    p->kernels->tile[vectors][rows](&tile);
  }
}

static void product_task(void *context, int64_t task) {
  const matrix_product *p = context;
  int64_t begin = p->panels * task / p->column_parts,
          end = p->panels * (task + 1) / p->column_parts;
  float *packed = p->packed_b + task * DEPTH * p->width;
  for (int64_t k = 0; k < p->depth; k += DEPTH) {
    int64_t k_end = smaller(p->depth, k + DEPTH);
    for (int64_t panel = begin; panel < end; panel++) {
      int64_t columns = panel_columns(p, panel), column = panel * p->width;
      int64_t width = panel_vectors(p, panel) * p->kernels->lanes;
      if (p->by_column)
        pack_columns(p->kernels, packed, width, p->b + column * p->depth + k, p->depth, k_end - k,
                     columns);
      else
        pack_rows(packed, width, p->b + k * p->columns + column, p->columns, k_end - k, columns);
      bool is_last = panel + 1 == end;
      multiply_panel(p, packed, panel, is_last ? begin : panel + 1, is_last ? k_end : k, k, k_end);
    }
  }
}

static matrix_product product_of(const conv_shape *shape, bool transposed) {
  conv_shape s = merge_pointwise(*shape);
  matrix_product p = matrix_of(s.out[2], transposed ? s.channels : s.features,
                               transposed ? s.features : s.channels);
  p.by_column = !transposed;
  p.column_parts = smaller(p.panels, TASKS);
  return p;
}

static size_t product_pieces(matrix_product *p, void *workspace) {
  pieces w = {workspace, 0};
  p->packed_b = piece(&w, p->column_parts * DEPTH * p->width);
  p->packed_bias = piece(&w, p->panels * p->width);
  return w.used;
}

/* Few rows leave nothing to share a packed panel; few columns or k, nothing to block. */
bool matrix_fits(const conv_shape *shape) {
  conv_shape s = merge_pointwise(*shape);
  return s.groups == 1 && !s.bf16 && volume(s.kernel) == 1 && s.batch == 1 && s.out[0] == 1 &&
         s.out[1] == 1 && s.out[2] == s.image[2] && s.out[2] >= 64 && s.channels >= 128 &&
         s.features >= 128;
}

size_t matrix_workspace(const conv_shape *s, bool transposed) {
  matrix_product p = product_of(s, transposed);
  return product_pieces(&p, NULL);
}

void matrix_run(const conv_shape *s, bool transposed, const float *input, const float *weight,
                const float *bias, float *output, void *workspace, thread_pool *pool) {
  matrix_product p = product_of(s, transposed);
  p.a = input;
  p.b = weight;
  p.c = output;
  product_pieces(&p, workspace);
  for (int64_t i = 0; i < p.panels * p.width; i++)
    p.packed_bias[i] = bias && i < p.columns ? bias[i] : 0;
  parallel_for(pool, p.column_parts, product_task, &p);
}

/* ---- weight gradient ------------------------------------------------------------------------------- */

/* C = dyᵀ · x: rows are features, columns channels, k the voxels. */
static matrix_product weight_of(const conv_shape *shape) {
  conv_shape s = merge_pointwise(*shape);
  matrix_product p = matrix_of(s.features, s.channels, s.out[2]);
  p.row_parts = (p.rows + ROW_PART - 1) / ROW_PART;
  p.column_parts = smaller(p.panels, (TASKS + p.row_parts - 1) / p.row_parts);
  return p;
}

static size_t weight_pieces(matrix_product *p, void *workspace) {
  pieces w = {workspace, 0};
  p->packed_a = piece(&w, smaller(p->depth, DEPTH) * p->rows);
  p->packed_b = piece(&w, smaller(p->depth, DEPTH) * p->panels * p->width);
  p->packed_bias = piece(&w, p->width);
  return w.used;
}

/* The rows of a part are cut into tiles of the height that full panels have. */
typedef struct part {
  int64_t row, rows, tiles;
} part;

static part part_of(const matrix_product *p, int64_t i) {
  int64_t row = gemm_tile_begin(p->rows, p->row_parts, i);
  int64_t rows = gemm_tile_begin(p->rows, p->row_parts, i + 1) - row;
  return (part){row, rows, gemm_tile_count(rows, p->kernels->max_rows[p->vectors])};
}

static void pack_a_part(const matrix_product *p, int64_t i) {
  part r = part_of(p, i);
  int64_t k = p->k_end - p->k;
  const float *from = p->a + p->k * p->rows;
  for (int64_t t = 0; t < r.tiles; t++) {
    int64_t row = r.row + gemm_tile_begin(r.rows, r.tiles, t);
    int64_t rows = r.row + gemm_tile_begin(r.rows, r.tiles, t + 1) - row;
    pack_a_tile(p->packed_a + row * k, from + row, p->rows, k, rows);
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
  pack_rows(p->packed_b + panel * p->width * k, panel_vectors(p, panel) * p->kernels->lanes,
            p->b + p->k * p->columns + panel * p->width, p->columns, k, panel_columns(p, panel));
}

static void weight_task(void *context, int64_t task) {
  const matrix_product *p = context;
  part r = part_of(p, task / p->column_parts);
  int64_t cut = task % p->column_parts, k = p->k_end - p->k;
  int64_t begin = p->panels * cut / p->column_parts, end = p->panels * (cut + 1) / p->column_parts;
  for (int64_t panel = begin; panel < end; panel++) {
    int vectors = panel_vectors(p, panel);
    const float *b = p->packed_b + panel * p->width * k;
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
                        .b_k = vectors * p->kernels->lanes * (ptrdiff_t)sizeof(float),
                        .c = p->c + row * p->columns + panel * p->width,
                        .c_row = p->columns * (ptrdiff_t)sizeof(float),
                        .columns = (int)panel_columns(p, panel),
                        .accumulate = p->k > 0,
                        .bias = p->packed_bias};
      p->kernels->tile[vectors][rows](&tile);
    }
  }
}

size_t matrix_weight_workspace(const conv_shape *s) {
  matrix_product p = weight_of(s);
  return weight_pieces(&p, NULL);
}

void matrix_weight_run(const conv_shape *s, const float *x, const float *dy, float *dweight,
                       float *dbias, void *workspace, thread_pool *pool) {
  matrix_product p = weight_of(s);
  weight_pieces(&p, workspace);
  p.a = dy;
  p.b = x;
  p.c = dweight;
  p.sums = dbias;
  memset(p.packed_bias, 0, (size_t)p.width * sizeof(float));
  for (p.k = 0; p.k < p.depth; p.k = p.k_end) {
    p.k_end = smaller(p.depth, p.k + DEPTH);
    parallel_for(pool, p.row_parts + p.panels, pack_task, &p);
    parallel_for(pool, p.row_parts * p.column_parts, weight_task, &p);
  }
}
