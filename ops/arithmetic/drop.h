/* What dropout, spatial dropout and stochastic depth share. Each draws one 32-bit number for every
 * thing it may drop, from the sample's stream, in order; the thing is dropped when the number is
 * below rate · 2^32, else scaled by 1 / (1 − rate) so that the expectation stays.
 *
 * Nothing is stored for the gradient: backward is the same operator on dy, and draws the same
 * numbers because a stream is named by sample and node, and both nodes bear the item's name. */
#ifndef STRATA_OPS_DROP_H
#define STRATA_OPS_DROP_H

#include "ops/arithmetic/elementwise.h"

#include "graph/graph.h"

/* First in the attribute struct of all three. */
typedef struct drop_attrs {
  double rate;
} drop_attrs;

#define DROP_RATE_ATTR(doc)                                                                        \
  { "rate", ATTR_FLOAT, offsetof(drop_attrs, rate), "0.1", 0, 0.99, NULL, ATTR_SCHEDULABLE, doc }

static inline uint32_t drop_limit(const void *attrs) {
  return (uint32_t)(((const drop_attrs *)attrs)->rate * 0x1p32);
}

static inline float drop_factor(const void *attrs) {
  return (float)(1.0 / (1.0 - ((const drop_attrs *)attrs)->rate));
}

static inline status drop_infer(infer *rule) {
  if (rule->in[0].shape.rank < 1) return shape_error("x must have samples as its first axis");
  return infer_same_shape(rule);
}

#endif
