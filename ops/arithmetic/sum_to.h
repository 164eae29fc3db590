/* Building a `sum_to` node inside the gradient rules of operators that repeat their inputs. */
#ifndef STRATA_OPS_SUM_TO_H
#define STRATA_OPS_SUM_TO_H

#include "graph/graph.h"

typedef struct sum_to_attrs {
  int_list shape; /* every dimension */
} sum_to_attrs;

static inline bool same_shape(const builder *b, value_id x, value_id y) {
  return shape_equal(&value_type(b, x)->shape, &value_type(b, y)->shape);
}

/* Σ x · factor in the shape of `like`; `factor` may be VALUE_NONE. */
static inline status build_sum_to(builder *b, value_id x, value_id factor, value_id like,
                                  value_id *out) {
  const shape *s = &value_type(b, like)->shape;
  sum_to_attrs attrs = {.shape = {.count = s->rank}};
  for (int i = 0; i < s->rank; i++) attrs.shape.at[i] = s->dim[i];
  return build_node(b, "sum_to", &attrs, (value_id[]){x, factor}, 2, out);
}

#endif
