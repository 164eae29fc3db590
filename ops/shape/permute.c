/* permute: the axes of a tensor in another order. */
#include "ops/arithmetic/chunks.h"
#include "ops/kernels/gemm.h"

#include "graph/graph.h"

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

enum { SQUARE = 64 }; /* extent of the blocks that are transposed: both sides stay in cache */

/* The strides in x of the axes of the result; where the last axis of x went; and the blocks. */
typedef struct permutation {
  const call *c;
  int64_t stride[MAX_DIMS];
  int contiguous; /* axis of the result that runs along x; −1: the last, nothing to transpose */
  int64_t high, wide; /* extents of `contiguous` and of the last axis */
  int64_t high_stride;
  int64_t blocks, per_task;
} permutation;

static permutation plan_permutation(const call *c) {
  const int_list *axes = &((const permute_attrs *)c->attrs)->axes;
  const shape *x = &c->in[0].shape, *y = &c->out[0].shape;
  permutation p = {.c = c, .contiguous = -1, .wide = last_extent(&c->out[0])};
  int64_t x_stride[MAX_DIMS];
  x_stride[x->rank - 1] = 1;
  for (int d = x->rank - 2; d >= 0; d--) x_stride[d] = x_stride[d + 1] * x->dim[d + 1];
  p.stride[0] = x_stride[0];
  for (int d = 1; d < y->rank; d++) {
    p.stride[d] = x_stride[axes->at[d - 1]];
    if (axes->at[d - 1] == x->rank - 1 && d < y->rank - 1) p.contiguous = d;
  }
  if (p.contiguous < 0) return p;
  p.high = y->dim[p.contiguous];
  p.high_stride = 1;
  for (int d = p.contiguous + 1; d < y->rank; d++) p.high_stride *= y->dim[d];
  p.blocks =
      shape_elements(y) / (p.high * p.wide) * divide_up(p.high, SQUARE) * divide_up(p.wide, SQUARE);
  p.per_task =
      rows_per_task((p.high < SQUARE ? p.high : SQUARE) * (p.wide < SQUARE ? p.wide : SQUARE));
  return p;
}

/* A task is some rows of the last axis, which lie in x as they are. */
static void row_task(void *context, int64_t task) {
  const permutation *p = context;
  const shape *y = &p->c->out[0].shape;
  span part = piece_of(shape_elements(y) / p->wide, rows_per_task(p->wide), task);
  float *to = (float *)p->c->out[0].data + part.first * p->wide;
  for (int64_t r = part.first; r < part.first + part.count; r++, to += p->wide) {
    int64_t rest = r, at = 0;
    for (int d = y->rank - 2; d >= 0; d--) {
      at += rest % y->dim[d] * p->stride[d];
      rest /= y->dim[d];
    }
    copy_row(to, (const float *)p->c->in[0].data + at, p->wide);
  }
}

/* to[h][w] = from[w][h] */
static void transpose_block(const float *from, int64_t from_row, float *to, int64_t to_row,
                            int64_t high, int64_t wide) {
  const gemm_kernels *kernels = gemm_best();
  int64_t lanes = kernels->lanes, whole_high = high / lanes * lanes, whole_wide = 0;
  for (; whole_wide + lanes <= wide; whole_wide += lanes)
    for (int64_t h = 0; h < whole_high; h += lanes)
      kernels->transpose(from + whole_wide * from_row + h, from_row, to + h * to_row + whole_wide,
                         to_row);
  for (int64_t h = 0; h < high; h++)
    for (int64_t w = h < whole_high ? whole_wide : 0; w < wide; w++)
      to[h * to_row + w] = from[w * from_row + h];
}

static void block_task(void *context, int64_t task) {
  const permutation *p = context;
  const shape *y = &p->c->out[0].shape;
  span part = piece_of(p->blocks, p->per_task, task);
  int64_t across = divide_up(p->wide, SQUARE), down = divide_up(p->high, SQUARE);
  for (int64_t b = part.first; b < part.first + part.count; b++) {
    span w = piece_of(p->wide, SQUARE, b % across),
         h = piece_of(p->high, SQUARE, b / across % down);
    int64_t rest = b / across / down, from = 0, to = 0, stride = p->wide;
    for (int d = y->rank - 2; d >= 0; stride *= y->dim[d--]) {
      if (d == p->contiguous) continue;
      from += rest % y->dim[d] * p->stride[d];
      to += rest % y->dim[d] * stride;
      rest /= y->dim[d];
    }
    int64_t step = p->stride[y->rank - 1];
    transpose_block((const float *)p->c->in[0].data + from + w.first * step + h.first, step,
                    (float *)p->c->out[0].data + to + h.first * p->high_stride + w.first,
                    p->high_stride, h.count, w.count);
  }
}

static status permute_cpu(const call *c) {
  permutation p = plan_permutation(c);
  int64_t rows = shape_elements(&c->out[0].shape) / p.wide;
  if (p.contiguous < 0)
    parallel_for(c->pool, divide_up(rows, rows_per_task(p.wide)), row_task, &p);
  else
    parallel_for(c->pool, divide_up(p.blocks, p.per_task), block_task, &p);
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
