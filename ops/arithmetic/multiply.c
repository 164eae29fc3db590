/* multiply: product of two values of one shape. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status multiply_grad(grad *rule) {
  for (int i = 0; i < 2; i++) {
    value_id in[2] = {rule->dy[0], rule->in[1 - i]};
    if (rule->wanted[i]) TRY(build_node(rule->b, "multiply", NULL, in, 2, &rule->dx[i]));
  }
  return OK;
}

static cost multiply_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 1);
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

static status multiply_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), multiply_task, (void *)c);
  return OK;
}

const op op_multiply = {
    .name = "multiply",
    .family = "arithmetic",
    .summary = "Product of two values of one shape.",
    .doc = "out = a · b, element by element.",
    .torch = "a * b",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"a", "any", DTYPE_F32, 0, "first factor"},
                             {"b", "as a", DTYPE_F32, 0, "second factor"},
                             {0}},
    .outputs = (const port[]){{"out", "as a", DTYPE_F32, 0, "a · b"}, {0}},
    .infer = infer_equal_shapes,
    .grad = multiply_grad,
    .cost = multiply_cost,
    .cpu = multiply_cpu,
    .cases = (const op_case[]){{"{}", "[n=1..2, c=1..9]; [n, c]", 0}, {0}},
};
