/* Rules and loops shared by operators that work element by element. */
#ifndef STRATA_OPS_ELEMENTWISE_H
#define STRATA_OPS_ELEMENTWISE_H

#include "ops/arithmetic/chunks.h"

#include "graph/op.h"

/* Output 0 has the shape of input 0. */
static inline status infer_same_shape(infer *rule) {
  rule->out[0].shape = rule->in[0].shape;
  return OK;
}

/* As above, and every input must have that shape. */
static inline status infer_equal_shapes(infer *rule) {
  for (int i = 1; i < rule->in_count; i++)
    if (!shape_equal(&rule->in[0].shape, &rule->in[i].shape)) {
      char first[96], other[96];
      return shape_error("the inputs must have one shape, but input 1 is %s and input %d is %s",
                         shape_format(first, &rule->in[0].shape), i + 1,
                         shape_format(other, &rule->in[i].shape));
    }
  rule->out[0].shape = rule->in[0].shape;
  return OK;
}

static inline cost cost_per_element(const tensor *in, double flops) {
  return (cost){.flops = flops * (double)shape_elements(&in[0].shape)};
}

/* A kernel without attributes, on `count` elements: y from a, or from a and b. */
typedef void one_to_one(float *y, const float *a, int64_t count);
typedef void two_to_one(float *y, const float *a, const float *b, int64_t count);

typedef struct elementwise {
  const call *call;
  one_to_one *one;
  two_to_one *two;
} elementwise;

static inline void elementwise_task(void *context, int64_t task) {
  const elementwise *e = context;
  const tensor *in = e->call->in;
  span part = chunk_of(shape_elements(&in[0].shape), task);
  float *y = (float *)e->call->out[0].data + part.first;
  const float *a = (const float *)in[0].data + part.first;
  if (e->one)
    e->one(y, a, part.count);
  else
    e->two(y, a, (const float *)in[1].data + part.first, part.count);
}

/* Output 0 from input 0, or from inputs 0 and 1: one of the kernels is NULL. */
static inline status run_elementwise(const call *c, one_to_one *one, two_to_one *two) {
  elementwise e = {c, one, two};
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), elementwise_task, &e);
  return OK;
}

#endif
