/* scale: a value times a number; the number may follow a schedule. */
#include "ops/arithmetic/scale.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

/* The gradient is the same operator under the same name, so a schedule reaches both. */
static status scale_grad(grad *rule) {
  return build_node(rule->b, "scale", rule->attrs, rule->dy, 1, rule->dx);
}

static cost scale_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 1);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void scale_chunk(float *y, const float *x, float factor, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = factor * x[i];
}

static void scale_task(void *context, int64_t task) {
  const call *c = context;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  scale_chunk((float *)c->out[0].data + part.first, (const float *)c->in[0].data + part.first,
              (float)((const scale_attrs *)c->attrs)->factor, part.count);
}

static status scale_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), scale_task, (void *)c);
  return OK;
}

const op op_scale = {
    .name = "scale",
    .family = "arithmetic",
    .summary = "A value times a number.",
    .doc = "out = factor · x. Weighs the terms of a loss; the factor may follow a schedule.",
    .torch = "factor * x",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "factor · x"}, {0}},
    .attrs = (const attr[]){{"factor", ATTR_FLOAT, offsetof(scale_attrs, factor), NULL, 0, 0, NULL,
                             ATTR_SCHEDULABLE, "what to multiply by"},
                            {0}},
    .attrs_bytes = sizeof(scale_attrs),
    .infer = infer_same_shape,
    .grad = scale_grad,
    .cost = scale_cost,
    .cpu = scale_cpu,
    .cases = (const op_case[]){{"{factor: -1.5}", "[1..3, 1..9]", 0}, {0}},
};
