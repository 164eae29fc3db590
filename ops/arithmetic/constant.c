/* constant: a tensor filled with one number; 1 is where every gradient starts. */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

typedef struct constant_attrs {
  double value;
  int_list shape;
} constant_attrs;

static status constant_infer(infer *rule) {
  const constant_attrs *attrs = rule->attrs;
  if (attrs->shape.count > MAX_DIMS)
    return shape_error("%d dimensions are too many; the limit is %d", attrs->shape.count, MAX_DIMS);
  rule->out[0].shape = shape_of(attrs->shape.count, attrs->shape.at);
  return OK;
}

static cost constant_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static void constant_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->out[0].shape), task);
  float *y = (float *)c->out[0].data + part.first;
  float value = (float)((const constant_attrs *)c->attrs)->value;
  for (int64_t i = 0; i < part.count; i++) y[i] = value;
}

static status constant_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->out[0].shape)), constant_task, (void *)c);
  return OK;
}

const op op_constant = {
    .name = "constant",
    .family = "arithmetic",
    .summary = "A tensor filled with one number.",
    .version = 1,
    .traits = OP_INTERNAL,
    .outputs = (const port[]){{"out", "any", DTYPE_F32, 0, "the number, everywhere"}, {0}},
    .attrs = (const attr[]){{"value", ATTR_FLOAT, offsetof(constant_attrs, value), "1", 0, 0, NULL,
                             0, "the number"},
                            {"shape", ATTR_INTS, offsetof(constant_attrs, shape), "[]", 1, 1e9,
                             NULL, 0, "dimensions; none for a scalar"},
                            {0}},
    .attrs_bytes = sizeof(constant_attrs),
    .infer = constant_infer,
    .cost = constant_cost,
    .cpu = constant_cpu,
};
