/* permute: the axes of a tensor in another order. */
#include "ops/arithmetic/chunks.h"

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

/* A task is some rows of the last axis of the result; their elements lie `step` apart in x. */
static void permute_task(void *context, int64_t task) {
  const call *c = context;
  const int_list *axes = &((const permute_attrs *)c->attrs)->axes;
  const shape *x = &c->in[0].shape, *y = &c->out[0].shape;
  int64_t x_stride[MAX_DIMS], stride[MAX_DIMS];
  x_stride[x->rank - 1] = 1;
  for (int d = x->rank - 2; d >= 0; d--) x_stride[d] = x_stride[d + 1] * x->dim[d + 1];
  int64_t step = stride[0] = x_stride[0];
  for (int d = 1; d < y->rank; d++) step = stride[d] = x_stride[axes->at[d - 1]];

  int64_t width = last_extent(&c->out[0]);
  span part = piece_of(shape_elements(y) / width, rows_per_task(width), task);
  float *to = (float *)c->out[0].data + part.first * width;
  for (int64_t r = part.first; r < part.first + part.count; r++, to += width) {
    int64_t rest = r, at = 0;
    for (int d = y->rank - 2; d >= 0; d--) {
      at += rest % y->dim[d] * stride[d];
      rest /= y->dim[d];
    }
    const float *from = (const float *)c->in[0].data + at;
    if (step == 1)
      copy_row(to, from, width);
    else
      for (int64_t i = 0; i < width; i++) to[i] = from[i * step];
  }
}

static status permute_cpu(const call *c) {
  int64_t width = last_extent(&c->out[0]), rows = shape_elements(&c->out[0].shape) / width;
  parallel_for(c->pool, divide_up(rows, rows_per_task(width)), permute_task, (void *)c);
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
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "N …", DTYPE_F32, 0, "the same values, moved"}, {0}},
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
                               {0}},
};
