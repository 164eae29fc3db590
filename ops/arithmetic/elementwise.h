/* Shape and cost rules shared by operators that work element by element. */
#ifndef STRATA_OPS_ELEMENTWISE_H
#define STRATA_OPS_ELEMENTWISE_H

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

#endif
