/* multiply: product of two values, the smaller one repeated to the common shape. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/sum_to.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/broadcast.h"

static status multiply_grad(grad *rule) {
  value_id dy = rule->dy[0];
  for (int i = 0; i < 2; i++) {
    value_id in[2] = {dy, rule->in[1 - i]};
    if (!rule->wanted[i]) continue;
    if (same_shape(rule->b, rule->in[i], dy))
      TRY(build_node(rule->b, "multiply", rule->attrs, in, 2, &rule->dx[i]));
    else
      TRY(build_sum_to(rule->b, in[0], in[1], rule->in[i], &rule->dx[i]));
  }
  return OK;
}

static cost multiply_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count;
  return cost_per_element(out, 1);
}

/* y may be a. */
FOR_EACH_ISA static void multiply_chunk(float *y, const float *a, const float *b, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = a[i] * b[i];
}

static void multiply_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  multiply_chunk((float *)c->out[0].data + part.first, (const float *)c->in[0].data + part.first,
                 (const float *)c->in[1].data + part.first, part.count);
}

static void multiply_repeated_task(void *context, int64_t task) {
  const call *c = context;
  const shape *whole = &c->out[0].shape;
  span part = chunk_of(shape_elements(whole), task);
  float *y = (float *)c->out[0].data + part.first;
  if (c->out[0].data != c->in[0].data)
    broadcast_apply(broadcast_copy, whole, part, y, &c->in[0].shape, c->in[0].data);
  broadcast_apply(broadcast_multiply, whole, part, y, &c->in[1].shape, c->in[1].data);
}

static status multiply_cpu(const call *c) {
  bool repeats = !shape_equal(&c->in[0].shape, &c->in[1].shape);
  parallel_for(c->pool, chunk_count(shape_elements(&c->out[0].shape)),
               repeats ? multiply_repeated_task : multiply_task, (void *)c);
  return OK;
}

const op op_multiply = {
    .name = "multiply",
    .family = "arithmetic",
    .summary = "Product of two values.",
    .doc = "out = a · b, element by element. " BROADCAST_DOC,
    .torch = "a * b",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"a", "any", DTYPE_F32, 0, "first factor"},
                             {"b", "any", DTYPE_F32, 0, "second factor"},
                             {0}},
    .outputs = (const port[]){{"out", "common shape", DTYPE_F32, PORT_STORABLE, "a · b"}, {0}},
    .attrs = broadcast_attr_list,
    .attrs_bytes = sizeof(broadcast_attrs),
    .infer = infer_broadcast,
    .grad = multiply_grad,
    .cost = multiply_cost,
    .cpu = multiply_cpu,
    .cases = (const op_case[]){{"{}", "[n=1..2, c=1..9]; [n, c]", 0},
                               {"{}", "[2, 3, 8]; [2, 3, 8]", 0},
                               {"{broadcast: true}", "[n=1..2, 1..40, c=1..40]; [c]", 0},
                               {"{broadcast: true}", "[n=1..2, h=1..3, 1..9, 1..70]; [h, 1, 1]", 0},
                               {"{broadcast: true}", "[n=1..3, 1, a=2..5]; [n, 4, 1]", 0},
                               {"{broadcast: true}", "[1]; [n=1..3, 2, 9]", 0},
                               {"{broadcast: true}", "[2, 300, 65]; [65]", 0},
                               {0}},
};
