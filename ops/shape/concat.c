/* concat: channels of several feature maps side by side. Its gradient cuts them apart again. */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

typedef struct slice_attrs {
  int64_t start, size;
} slice_attrs;

typedef struct slice_backward_attrs {
  int64_t start, total; /* channels of the input that was sliced */
} slice_backward_attrs;

static cost no_flops(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static int64_t row_count(const tensor *t) {
  return shape_elements(&t->shape) / last_extent(t);
}

/* ---- concat ---------------------------------------------------------------------------------- */

static status concat_infer(infer *rule) {
  shape y = rule->in[0].shape;
  if (y.rank < 1) return shape_error("cannot join scalars");
  for (int i = 1; i < rule->in_count; i++) {
    shape x = rule->in[i].shape;
    bool fits = x.rank == y.rank;
    for (int d = 0; fits && d < y.rank - 1; d++) fits = x.dim[d] == y.dim[d];
    if (!fits) {
      char first[96], other[96];
      return shape_error("all but the channels must agree, but input 1 is %s and input %d is %s",
                         shape_format(first, &rule->in[0].shape), i + 1, shape_format(other, &x));
    }
    y.dim[y.rank - 1] += x.dim[x.rank - 1];
  }
  rule->out[0].shape = y;
  return OK;
}

static status concat_grad(grad *rule) {
  int64_t start = 0;
  for (int i = 0; i < rule->in_count; i++) {
    int64_t size = last_extent(value_type(rule->b, rule->in[i]));
    slice_attrs part = {start, size};
    if (rule->wanted[i]) TRY(build_node(rule->b, "slice", &part, &rule->dy[0], 1, &rule->dx[i]));
    start += size;
  }
  return OK;
}

static void concat_task(void *context, int64_t task) {
  const call *c = context;
  int64_t width = last_extent(&c->out[0]);
  span part = piece_of(row_count(&c->out[0]), rows_per_task(width), task);
  float *y = (float *)c->out[0].data + part.first * width;
  for (int i = 0; i < c->in_count; i++) {
    int64_t size = last_extent(&c->in[i]);
    const float *x = (const float *)c->in[i].data + part.first * size;
    for (int64_t r = 0; r < part.count; r++) copy_row(y + r * width, x + r * size, size);
    y += size;
  }
}

static status concat_cpu(const call *c) {
  parallel_for(c->pool, divide_up(row_count(&c->out[0]), rows_per_task(last_extent(&c->out[0]))),
               concat_task, (void *)c);
  return OK;
}

const op op_concat = {
    .name = "concat",
    .family = "shape",
    .summary = "Channels of several feature maps side by side.",
    .doc = "Joins the inputs along the last axis, in the order given.",
    .torch = "torch.cat(x, dim=-1)",
    .version = 1,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, PORT_VARIADIC, "feature maps or tokens"}, {0}},
    .outputs = (const port[]){{"out", "… ΣC", DTYPE_F32, 0, "all channels"}, {0}},
    .infer = concat_infer,
    .grad = concat_grad,
    .cost = no_flops,
    .cpu = concat_cpu,
    .cases = (const op_case[]){{"{}", "[n=1..2, x=1..4, 3, 2, 1..20]; [n, x, 3, 2, 1..17]", 0},
                               {"{}", "[2, t=1..9, 3]; [2, t, 1]; [2, t, 4]", 0},
                               {"{}", "[2, 3, 5]", 0},
                               {0}},
};

/* ---- slice ----------------------------------------------------------------------------------- */

static status slice_infer(infer *rule) {
  const slice_attrs *attrs = rule->attrs;
  shape x = rule->in[0].shape;
  if (x.rank < 1) return shape_error("cannot slice a scalar");
  if (attrs->start + attrs->size > x.dim[x.rank - 1])
    return shape_error("channels %lld to %lld were asked for, but x has %lld",
                       (long long)attrs->start, (long long)(attrs->start + attrs->size - 1),
                       (long long)x.dim[x.rank - 1]);
  x.dim[x.rank - 1] = attrs->size;
  rule->out[0].shape = x;
  return OK;
}

static status slice_grad(grad *rule) {
  const slice_attrs *attrs = rule->attrs;
  slice_backward_attrs back = {attrs->start, last_extent(value_type(rule->b, rule->in[0]))};
  return build_node(rule->b, "slice_backward", &back, rule->dy, 1, rule->dx);
}

static void slice_task(void *context, int64_t task) {
  const call *c = context;
  int64_t from = last_extent(&c->in[0]), to = last_extent(&c->out[0]);
  span part = piece_of(row_count(&c->in[0]), rows_per_task(from), task);
  const float *x =
      (const float *)c->in[0].data + part.first * from + ((const slice_attrs *)c->attrs)->start;
  float *y = (float *)c->out[0].data + part.first * to;
  for (int64_t r = 0; r < part.count; r++) copy_row(y + r * to, x + r * from, to);
}

static status slice_cpu(const call *c) {
  parallel_for(c->pool, divide_up(row_count(&c->in[0]), rows_per_task(last_extent(&c->in[0]))),
               slice_task, (void *)c);
  return OK;
}

const op op_slice = {
    .name = "slice",
    .family = "shape",
    .summary = "Some consecutive channels.",
    .doc = "out = the `size` channels of x from `start` (counting from 0).",
    .torch = "x[..., start:start + size]",
    .version = 1,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, 0, "feature map or tokens"}, {0}},
    .outputs = (const port[]){{"out", "… size", DTYPE_F32, 0, "the chosen channels"}, {0}},
    .attrs = (const attr[]){{"start", ATTR_INT, offsetof(slice_attrs, start), "0", 0, 1e9, NULL, 0,
                             "first channel, counting from 0"},
                            {"size", ATTR_INT, offsetof(slice_attrs, size), NULL, 1, 1e9, NULL, 0,
                             "number of channels"},
                            {0}},
    .attrs_bytes = sizeof(slice_attrs),
    .infer = slice_infer,
    .grad = slice_grad,
    .cost = no_flops,
    .cpu = slice_cpu,
    .cases = (const op_case[]){{"{start: 1, size: 1..3}", "[1..2, 1..5, 4..20]", 0},
                               {"{size: 16}", "[1..2, 3, 3, 2, 32]", 0},
                               {0}},
};

/* ---- the gradient of slice ------------------------------------------------------------------- */

static status slice_backward_infer(infer *rule) {
  const slice_backward_attrs *attrs = rule->attrs;
  shape dx = rule->in[0].shape;
  if (attrs->start + dx.dim[dx.rank - 1] > attrs->total)
    return shape_error("%lld channels do not hold the slice", (long long)attrs->total);
  dx.dim[dx.rank - 1] = attrs->total;
  rule->out[0].shape = dx;
  return OK;
}

static status slice_backward_grad(grad *rule) {
  slice_attrs back = {((const slice_backward_attrs *)rule->attrs)->start,
                      last_extent(value_type(rule->b, rule->in[0]))};
  return build_node(rule->b, "slice", &back, rule->dy, 1, rule->dx);
}

static void slice_backward_task(void *context, int64_t task) {
  const call *c = context;
  int64_t start = ((const slice_backward_attrs *)c->attrs)->start;
  int64_t from = last_extent(&c->in[0]), to = last_extent(&c->out[0]);
  span part = piece_of(row_count(&c->in[0]), rows_per_task(to), task);
  const float *dy = (const float *)c->in[0].data + part.first * from;
  float *dx = (float *)c->out[0].data + part.first * to;
  for (int64_t r = 0; r < part.count; r++, dx += to, dy += from) {
    for (int64_t i = 0; i < start; i++) dx[i] = 0;
    copy_row(dx + start, dy, from);
    for (int64_t i = start + from; i < to; i++) dx[i] = 0;
  }
}

static status slice_backward_cpu(const call *c) {
  parallel_for(c->pool, divide_up(row_count(&c->in[0]), rows_per_task(last_extent(&c->out[0]))),
               slice_backward_task, (void *)c);
  return OK;
}

const op op_slice_backward = {
    .name = "slice_backward",
    .family = "shape",
    .summary = "Gradient of slice: dy among zeros.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "… size", DTYPE_F32, 0, "gradient of the slice"}, {0}},
    .outputs = (const port[]){{"dx", "… C", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .attrs = (const attr[]){{"start", ATTR_INT, offsetof(slice_backward_attrs, start), "0", 0, 1e9,
                             NULL, 0, "first channel of the slice"},
                            {"total", ATTR_INT, offsetof(slice_backward_attrs, total), NULL, 1, 1e9,
                             NULL, 0, "channels of the input"},
                            {0}},
    .attrs_bytes = sizeof(slice_backward_attrs),
    .infer = slice_backward_infer,
    .grad = slice_backward_grad,
    .cost = no_flops,
    .cpu = slice_backward_cpu,
};
