/* slice: consecutive positions along one axis, what concat joined. */
#include "ops/shape/axis.h"

typedef struct slice_backward_attrs {
  int axis;
  int64_t start, total; /* extent of the input that was sliced */
} slice_backward_attrs;

static cost no_flops(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static status slice_infer(infer *rule) {
  const slice_attrs *attrs = rule->attrs;
  shape x = rule->in[0].shape;
  int axis;
  char have[96];
  TRY(axis_of(attrs->axis, &x, &axis));
  if (attrs->start + attrs->size > x.dim[axis])
    return shape_error("positions %lld to %lld along axis %d (\"%s\") were asked for, but x, %s, "
                       "has only %lld there",
                       (long long)attrs->start, (long long)(attrs->start + attrs->size - 1), axis,
                       axis_choices[attrs->axis], shape_format(have, &x), (long long)x.dim[axis]);
  x.dim[axis] = attrs->size;
  rule->out[0].shape = x;
  return OK;
}

static status slice_grad(grad *rule) {
  const slice_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  int axis;
  TRY(axis_of(attrs->axis, x, &axis));
  slice_backward_attrs back = {attrs->axis, attrs->start, x->dim[axis]};
  return build_node(rule->b, "slice_backward", &back, rule->dy, 1, rule->dx);
}

/* Rows of the larger and of the smaller tensor, and where the smaller lies in the larger. */
typedef struct slice_work {
  const float *from;
  float *to;
  int64_t rows, whole, part, offset;
} slice_work;

static slice_work work_of(const call *c, const tensor *whole, const tensor *part, int axis,
                          int64_t start) {
  int64_t stride = axis_stride(&whole->shape, axis);
  return (slice_work){.from = c->in[0].data,
                      .to = c->out[0].data,
                      .rows = rows_before(&whole->shape, axis),
                      .whole = whole->shape.dim[axis] * stride,
                      .part = part->shape.dim[axis] * stride,
                      .offset = start * stride};
}

static void slice_task(void *context, int64_t task) {
  const slice_work *w = context;
  tile t = tile_of(w->rows, w->part, task);
  for (int64_t r = t.rows.first; r < t.rows.first + t.rows.count; r++)
    copy_row(w->to + r * w->part + t.columns.first,
             w->from + r * w->whole + w->offset + t.columns.first, t.columns.count);
}

static status slice_cpu(const call *c) {
  const slice_attrs *attrs = c->attrs;
  int axis;
  TRY(axis_of(attrs->axis, &c->in[0].shape, &axis));
  slice_work w = work_of(c, &c->in[0], &c->out[0], axis, attrs->start);
  parallel_for(c->pool, tile_count(w.rows, w.part), slice_task, &w);
  return OK;
}

const op op_slice = {
    .name = "slice",
    .family = "shape",
    .summary = "Consecutive positions along one axis, by default channels.",
    .doc = "out = the `size` positions of x along `axis` from `start` (counting from 0). Several "
           "slices split a tensor into parts.",
    .torch = "x.narrow(axis, start, size)",
    .version = 1,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, PORT_CARRIED, "feature map or tokens"}, {0}},
    .outputs =
        (const port[]){{"out", "… size", DTYPE_F32, PORT_STORABLE, "the chosen positions"}, {0}},
    .attrs = (const attr[]){{"axis", ATTR_CHOICE, offsetof(slice_attrs, axis), "channel", 0, 0,
                             axis_choices, 0, AXIS_DOC},
                            {"start", ATTR_INT, offsetof(slice_attrs, start), "0", 0, 1e9, NULL, 0,
                             "first position, counting from 0"},
                            {"size", ATTR_INT, offsetof(slice_attrs, size), NULL, 1, 1e9, NULL, 0,
                             "number of positions"},
                            {0}},
    .attrs_bytes = sizeof(slice_attrs),
    .infer = slice_infer,
    .grad = slice_grad,
    .cost = no_flops,
    .cpu = slice_cpu,
    .cases = (const op_case[]){{"{start: 1, size: 1..3}", "[1..2, 1..5, 4..20]", 0},
                               {"{size: 16}", "[1..2, 3, 3, 2, 32]", 0},
                               {"{start: 4, size: 8}", "[2, 3, 20]", 0},
                               {"{axis: y, start: 0..1, size: 2}", "[1..2, 2, 3..5, 3, 1..4]", 0},
                               {"{axis: 2, start: 1, size: 1}", "[2, 3, 3, 2, 1..3, 4]", 0},
                               {"{axis: token|1, start: 1, size: 1..3}", "[1..2, 4..9, 1..9]", 0},
                               {0}},
};

/* ---- the gradient of slice ------------------------------------------------------------------- */

static status slice_backward_infer(infer *rule) {
  const slice_backward_attrs *attrs = rule->attrs;
  shape dx = rule->in[0].shape;
  int axis;
  TRY(axis_of(attrs->axis, &dx, &axis));
  if (attrs->start + dx.dim[axis] > attrs->total)
    return shape_error("%lld positions do not hold the slice", (long long)attrs->total);
  dx.dim[axis] = attrs->total;
  rule->out[0].shape = dx;
  return OK;
}

static status slice_backward_grad(grad *rule) {
  const slice_backward_attrs *attrs = rule->attrs;
  const shape *dy = &value_type(rule->b, rule->in[0])->shape;
  int axis;
  TRY(axis_of(attrs->axis, dy, &axis));
  slice_attrs back = {attrs->axis, attrs->start, dy->dim[axis]};
  return build_node(rule->b, "slice", &back, rule->dy, 1, rule->dx);
}

static void clear_row(float *to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = 0;
}

static void slice_backward_task(void *context, int64_t task) {
  const slice_work *w = context;
  tile t = tile_of(w->rows, w->whole, task);
  span before = span_within(t.columns, 0, w->offset);
  span within = span_within(t.columns, w->offset, w->offset + w->part);
  span after = span_within(t.columns, w->offset + w->part, w->whole);
  for (int64_t r = t.rows.first; r < t.rows.first + t.rows.count; r++) {
    float *dx = w->to + r * w->whole;
    clear_row(dx + before.first, before.count);
    copy_row(dx + within.first, w->from + r * w->part + within.first - w->offset, within.count);
    clear_row(dx + after.first, after.count);
  }
}

static status slice_backward_cpu(const call *c) {
  const slice_backward_attrs *attrs = c->attrs;
  int axis;
  TRY(axis_of(attrs->axis, &c->in[0].shape, &axis));
  slice_work w = work_of(c, &c->out[0], &c->in[0], axis, attrs->start);
  parallel_for(c->pool, tile_count(w.rows, w.whole), slice_backward_task, &w);
  return OK;
}

const op op_slice_backward = {
    .name = "slice_backward",
    .family = "shape",
    .summary = "Gradient of slice: dy among zeros.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs =
        (const port[]){{"dy", "… size", DTYPE_F32, PORT_CARRIED, "gradient of the slice"}, {0}},
    .outputs =
        (const port[]){{"dx", "… C", DTYPE_F32, PORT_STORABLE, "gradient of the input"}, {0}},
    .attrs = (const attr[]){{"axis", ATTR_CHOICE, offsetof(slice_backward_attrs, axis), "channel",
                             0, 0, axis_choices, 0, AXIS_DOC},
                            {"start", ATTR_INT, offsetof(slice_backward_attrs, start), "0", 0, 1e9,
                             NULL, 0, "first position of the slice"},
                            {"total", ATTR_INT, offsetof(slice_backward_attrs, total), NULL, 1, 1e9,
                             NULL, 0, "extent of the input along the axis"},
                            {0}},
    .attrs_bytes = sizeof(slice_backward_attrs),
    .infer = slice_backward_infer,
    .grad = slice_backward_grad,
    .cost = no_flops,
    .cpu = slice_backward_cpu,
};
