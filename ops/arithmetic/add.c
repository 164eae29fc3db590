/* add: sum of one or more values, the smaller ones repeated to the common shape. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/sum_to.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/broadcast.h"
#include "ops/norm/layer_norm.h"

static status add_grad(grad *rule) {
  value_id dy = rule->dy[0];
  for (int i = 0; i < rule->in_count; i++) {
    if (!rule->wanted[i]) continue;
    if (same_shape(rule->b, rule->in[i], dy))
      rule->dx[i] = dy;
    else
      TRY(build_sum_to(rule->b, dy, VALUE_NONE, rule->in[i], &rule->dx[i]));
  }
  return OK;
}

static cost add_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in;
  return cost_per_element(out, in_count - 1);
}

/* y may be a. */
FOR_EACH_ISA static void add_two(float *y, const float *a, const float *b, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i];
}

FOR_EACH_ISA static void add_three(float *y, const float *a, const float *b, const float *c,
                                   int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i] + c[i];
}

FOR_EACH_ISA static void add_rows(float *y, const float *x, int64_t rows, int64_t width,
                                  int64_t row_step, int64_t step) {
  for (int64_t r = 0; r < rows; r++, y += width, x += row_step)
    if (step) {
      ELEMENTWISE
      for (int64_t i = 0; i < width; i++) y[i] += x[i];
    } else {
      float term = x[0];
      for (int64_t i = 0; i < width; i++) y[i] += term;
    }
}

static void add_repeated_task(void *context, int64_t task) {
  const call *c = context;
  const shape *whole = &c->out[0].shape;
  span part = chunk_of(shape_elements(whole), task);
  float *y = (float *)c->out[0].data + part.first;
  if (c->out[0].data != c->in[0].data)
    broadcast_apply(broadcast_copy, whole, part, y, &c->in[0].shape, c->in[0].data);
  for (int i = 1; i < c->in_count; i++)
    broadcast_apply(add_rows, whole, part, y, &c->in[i].shape, c->in[i].data);
}

enum { BLOCK = 1024 };

/* Elements `part` of inputs of one shape. */
static void add_part(const call *c, span part) {
  float *y = (float *)c->out[0].data + part.first;
  const float *x = (const float *)c->in[0].data + part.first;
  if (c->in_count == 1) {
    if (y != x) memcpy(y, x, (size_t)part.count * sizeof *y);
    return;
  }
  if (c->in_count <= 3) {
    const float *b = (const float *)c->in[1].data + part.first;
    if (c->in_count == 2)
      add_two(y, x, b, part.count);
    else
      add_three(y, x, b, (const float *)c->in[2].data + part.first, part.count);
    return;
  }
  /* From left to right in a buffer of its own: y may be the first input's memory, and that may be
   * read again further right. */
  float sum[BLOCK];
  for (int64_t at = 0; at < part.count; at += BLOCK) {
    int64_t count = part.count - at < BLOCK ? part.count - at : BLOCK;
    memcpy(sum, x + at, (size_t)count * sizeof *sum);
    for (int i = 1; i < c->in_count; i++)
      add_two(sum, sum, (const float *)c->in[i].data + part.first + at, count);
    memcpy(y + at, sum, (size_t)count * sizeof *sum);
  }
}

static void add_task(void *context, int64_t task) {
  const call *c = context;
  add_part(c, chunk_of(shape_elements(&c->out[0].shape), task));
}

static bool repeats(const call *c) {
  for (int i = 0; i < c->in_count; i++)
    if (!shape_equal(&c->in[i].shape, &c->out[0].shape)) return true;
  return false;
}

static status add_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->out[0].shape)),
               repeats(c) ? add_repeated_task : add_task, (void *)c);
  return OK;
}

/* A residual and the norm behind it. */
typedef struct add_norm {
  const call *add, *norm;
} add_norm;

static void add_norm_task(void *context, int64_t task) {
  const add_norm *both = context;
  const tensor *sum = &both->norm->in[0];
  int64_t width = last_extent(sum);
  span rows = piece_of(shape_elements(&sum->shape) / width, rows_per_task(width), task);
  add_part(both->add, (span){rows.first * width, rows.count * width});
  layer_norm_part(both->norm, rows);
}

static status add_norm_cpu(const call *add, const call *norm) {
  if (repeats(add)) {
    TRY(add_cpu(add));
    return op_layer_norm.cpu(norm);
  }
  int64_t width = last_extent(&norm->in[0]), rows = shape_elements(&norm->in[0].shape) / width;
  parallel_for(add->pool, divide_up(rows, rows_per_task(width)), add_norm_task,
               &(add_norm){add, norm});
  return OK;
}

static const op_chain add_chain = {.next = &op_layer_norm, .by_part = true, .cpu = add_norm_cpu};

const op op_add = {
    .name = "add",
    .family = "arithmetic",
    .summary = "Sum of values.",
    .doc = "out = x₁ + x₂ + …, element by element, from left to right. " BROADCAST_DOC,
    .torch = "sum(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, PORT_VARIADIC, "what to add"}, {0}},
    .outputs = (const port[]){{"out", "common shape", DTYPE_F32, PORT_STORABLE, "the sum"}, {0}},
    .attrs = broadcast_attr_list,
    .attrs_bytes = sizeof(broadcast_attrs),
    .infer = infer_broadcast,
    .grad = add_grad,
    .cost = add_cost,
    .cpu = add_cpu,
    .chain = &add_chain,
    .cases =
        (const op_case[]){{"{}", "[n=1..2, c=1..9]; [n, c]", 0},
                          {"{}", "[a=1..5, b=1..5]; [a, b]; [a, b]; [a, b]", 0},
                          {"{}", "[3, 4]", 0},
                          {"{}", "[2, 3, 8]; [2, 3, 8]; [2, 3, 8]", 0},
                          {"{broadcast: true}", "[n=1..2, t=1..20, c=1..40]; [1, t, c]; [c]", 0},
                          {"{broadcast: true}", "[2, 1, 1]; [n=1..3, 2, 1..5, 33]", 0},
                          {"{broadcast: true}", "[3, 17000]; [17000]", 0},
                          {"{broadcast: true}", "[2..3, 1, a=1..9, 1]; [3..4, 1, 5]", 0},
                          {0}},
};
