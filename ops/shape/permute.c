/* permute: the axes of a tensor in another order. */
#include "ops/arithmetic/chunks.h"
#include "ops/kernels/gemm.h"

#include "graph/graph.h"

#include <string.h>

typedef struct permute_attrs {
  int_list axes;
} permute_attrs;

static status permute_infer(infer *rule) {
  const int_list *axes = &((const permute_attrs *)rule->attrs)->axes;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (axes->count != x->rank - 1)
    return shape_error("x is %s: name its %d axes after the batch (1 to %d), not %d of them",
                       shape_format(have, x), x->rank - 1, x->rank - 1, axes->count);
  shape y = {.rank = x->rank, .dim = {x->dim[0]}};
  unsigned seen = 0;
  for (int i = 0; i < axes->count; i++) {
    int64_t axis = axes->at[i];
    if (axis < 1 || axis >= x->rank || (seen >> axis & 1u))
      return shape_error("every axis from 1 to %d must be named once", x->rank - 1);
    seen |= 1u << axis;
    y.dim[i + 1] = x->dim[axis];
  }
  rule->out[0].shape = y;
  return OK;
}

static status permute_grad(grad *rule) {
  const int_list *axes = &((const permute_attrs *)rule->attrs)->axes;
  permute_attrs inverse = {.axes = {.count = axes->count}};
  for (int i = 0; i < axes->count; i++) inverse.axes.at[axes->at[i] - 1] = i + 1;
  return build_node(rule->b, "permute", &inverse, rule->dy, 1, rule->dx);
}

static cost permute_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* An axis of the result: its extent, and the floats from position to position in x and in the result. */
typedef struct moved_axis {
  int64_t extent, from, to;
} moved_axis;

/* Axes whose positions are counted together, the first axis fastest. */
typedef struct axis_group {
  moved_axis axis[MAX_DIMS];
  int count;
  int64_t positions;
  int64_t side; /* of a block, in positions */
} axis_group;

/* Axes that stay neighbours are one, and what lies together in both tensors is a unit. `high` are axes that
 * run along x and `wide` such that run along the result: matrices of units are transposed, one for each
 * position of the others. */
typedef struct permutation {
  const float *from;
  float *to;
  int64_t unit;
  axis_group high, wide, others;
} permutation;

/* A block has this many floats, so that both sides stay in cache. */
enum { BLOCK = 4096, SIDE = 64, LONG_SIDE = 256 };

/* The axes of the result, the last one first; returns how many. */
static int axes_of(const call *c, moved_axis axis[MAX_DIMS]) {
  const int_list *axes = &((const permute_attrs *)c->attrs)->axes;
  const shape *x = &c->in[0].shape;
  int64_t x_stride[MAX_DIMS], stride = 1;
  for (int d = x->rank - 1; d >= 0; stride *= x->dim[d--]) x_stride[d] = stride;
  int count = 0;
  stride = 1;
  for (int d = x->rank - 1; d >= 0; d--) {
    int64_t source = d > 0 ? axes->at[d - 1] : 0;
    moved_axis next = {x->dim[source], x_stride[source], stride};
    stride *= next.extent;
    if (next.extent == 1) continue;
    if (count && next.from == axis[count - 1].extent * axis[count - 1].from)
      axis[count - 1].extent *= next.extent;
    else
      axis[count++] = next;
  }
  return count;
}

static void take_axis(axis_group *g, moved_axis *axis, int *count, int i) {
  g->axis[g->count++] = axis[i];
  g->positions *= axis[i].extent;
  for (--*count; i < *count; i++) axis[i] = axis[i + 1];
}

static permutation plan_permutation(const call *c) {
  axis_group none = {.positions = 1};
  permutation p = {c->in[0].data, c->out[0].data, 1, none, none, none};
  moved_axis all[MAX_DIMS], *axis = all;
  int count = axes_of(c, all);
  if (count && axis->from == 1) {
    p.unit = axis->extent;
    axis++;
    count--;
  }
  if (count) take_axis(&p.wide, axis, &count, 0);
  /* A short side goes on with the axis that comes next. */
  for (int i = 0; i < count && p.high.positions < SIDE;)
    if (axis[i].from == p.unit * p.high.positions) {
      take_axis(&p.high, axis, &count, i);
      i = 0;
    } else {
      i++;
    }
  while (count && p.wide.positions < SIDE && axis->to == p.unit * p.wide.positions)
    take_axis(&p.wide, axis, &count, 0);
  while (count) take_axis(&p.others, axis, &count, 0);
  p.high.side = p.high.positions < SIDE ? p.high.positions : SIDE;
  while (p.high.side > 1 && p.high.side * p.high.side * p.unit > BLOCK) p.high.side /= 2;
  p.wide.side = BLOCK / (p.high.side * p.unit);
  p.wide.side = p.wide.side < 1 ? 1 : p.wide.side > LONG_SIDE ? LONG_SIDE : p.wide.side;
  return p;
}

/* Floats before a position, in x and in the result. */
static moved_axis offset_of(const axis_group *g, int64_t position) {
  moved_axis at = {0};
  for (int i = 0; i < g->count; i++) {
    int64_t index = position % g->axis[i].extent;
    at.from += index * g->axis[i].from;
    at.to += index * g->axis[i].to;
    position /= g->axis[i].extent;
  }
  return at;
}

/* Where the rows of a block lie: the `wide` ones of x and the `high` ones of the result. */
typedef struct block_rows {
  int64_t high, wide;
  const float *from[LONG_SIDE];
  float *to[SIDE];
} block_rows;

/* One row of a square; its lanes are a multiple of four. */
static inline void copy_lanes(float *to, const float *from, int64_t lanes) {
  for (int64_t i = 0; i < lanes; i += 4) memcpy(to + i, from + i, 4 * sizeof *to);
}

/* to[h][w] = from[w][h]. The transposition of a square has rows at even distances: those of several axes go
 * by way of a copy. */
static void transpose_block(const permutation *p, const block_rows *b) {
  const gemm_kernels *kernels = gemm_best();
  int64_t lanes = kernels->lanes, whole_high = b->high / lanes * lanes, whole_wide = 0;
  bool even_from = p->wide.count == 1, even_to = p->high.count == 1;
  float read[GEMM_MAX_LANES * GEMM_MAX_LANES], written[GEMM_MAX_LANES * GEMM_MAX_LANES];
  for (; whole_wide + lanes <= b->wide; whole_wide += lanes)
    for (int64_t h = 0; h < whole_high; h += lanes) {
      if (!even_from)
        for (int64_t i = 0; i < lanes; i++)
          copy_lanes(read + i * lanes, b->from[whole_wide + i] + h, lanes);
      kernels->transpose(
          even_from ? b->from[whole_wide] + h : read, even_from ? p->wide.axis[0].from : lanes,
          even_to ? b->to[h] + whole_wide : written, even_to ? p->high.axis[0].to : lanes);
      if (!even_to)
        for (int64_t i = 0; i < lanes; i++)
          copy_lanes(b->to[h + i] + whole_wide, written + i * lanes, lanes);
    }
  for (int64_t h = 0; h < b->high; h++)
    for (int64_t w = h < whole_high ? whole_wide : 0; w < b->wide; w++) b->to[h][w] = b->from[w][h];
}

static inline __attribute__((always_inline)) void move_units(const block_rows *b,
                                                             const int64_t unit) {
  for (int64_t h = 0; h < b->high; h++)
    for (int64_t w = 0; w < b->wide; w++)
      copy_row(b->to[h] + w * unit, b->from[w] + h * unit, unit);
}

static void move_block(const permutation *p, const block_rows *b) {
  switch (p->unit) { /* copies of a known length are a move or two */
  case 1:
    transpose_block(p, b);
    break;
  case 8:
    move_units(b, 8);
    break;
  case 16:
    move_units(b, 16);
    break;
  case 32:
    move_units(b, 32);
    break;
  default:
    move_units(b, p->unit);
  }
}

static int64_t blocks_of(const axis_group *g) {
  return divide_up(g->positions, g->side);
}

static void block_task(void *context, int64_t task) {
  const permutation *p = context;
  int64_t across = blocks_of(&p->wide), down = blocks_of(&p->high);
  span w = piece_of(p->wide.positions, p->wide.side, task % across);
  span h = piece_of(p->high.positions, p->high.side, task / across % down);
  moved_axis first = offset_of(&p->others, task / across / down);
  block_rows b = {.high = h.count, .wide = w.count};
  for (int64_t i = 0; i < w.count; i++)
    b.from[i] = p->from + first.from + h.first * p->unit + offset_of(&p->wide, w.first + i).from;
  for (int64_t i = 0; i < h.count; i++)
    b.to[i] = p->to + first.to + w.first * p->unit + offset_of(&p->high, h.first + i).to;
  move_block(p, &b);
}

static status permute_cpu(const call *c) {
  permutation p = plan_permutation(c);
  parallel_for(c->pool, blocks_of(&p.wide) * blocks_of(&p.high) * p.others.positions, block_task,
               &p);
  return OK;
}

const op op_permute = {
    .name = "permute",
    .family = "shape",
    .summary = "The axes in another order.",
    .doc = "Axis i of out (after the batch) is axis axes[i] of x. Axes count from 1; the batch, "
           "axis 0, stays where it is.",
    .torch = "x.permute(0, *axes)",
    .version = 1,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, PORT_CARRIED, "values"}, {0}},
    .outputs =
        (const port[]){{"out", "N …", DTYPE_F32, PORT_STORABLE, "the same values, moved"}, {0}},
    .attrs =
        (const attr[]){{"axes", ATTR_INTS, offsetof(permute_attrs, axes), NULL, 1, MAX_DIMS - 1,
                        NULL, 0, "axes of x after the batch, in their new order"},
                       {0}},
    .attrs_bytes = sizeof(permute_attrs),
    .infer = permute_infer,
    .grad = permute_grad,
    .cost = permute_cost,
    .cpu = permute_cpu,
    .cases = (const op_case[]){{"{axes: [2, 1]}", "[1..2, 1..9, 1..9]", 0},
                               {"{axes: [3, 1, 2, 4]}", "[1..2, 2, 3, 4, 1..5]", 0},
                               {"{axes: [4, 1, 2, 3]}", "[2, 2, 3, 4, 3]", 0},
                               {"{axes: [2, 1, 3]}", "[2, 3, 5, 8]", 0},
                               {"{axes: [2, 1]}", "[1..2, 60..70, 15..35]", 0},
                               {"{axes: [3, 4, 2, 1]}", "[2, 9, 2, 3, 17..18]", 0},
                               {"{axes: [6, 5, 1, 7, 3, 2, 4]}", "[1, 2, 3, 1, 2, 3, 4, 5]", 0},
                               {0}},
};
