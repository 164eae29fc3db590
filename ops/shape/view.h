/* Building the internal `view` operator: the same memory under another shape. */
#ifndef STRATA_OPS_VIEW_H
#define STRATA_OPS_VIEW_H

#include "graph/graph.h"

typedef struct view_attrs {
  int_list shape; /* every dimension, the batch included */
} view_attrs;

static inline status build_view(builder *b, value_id x, shape s, value_id *out) {
  view_attrs attrs = {.shape = {.count = s.rank}};
  for (int i = 0; i < s.rank; i++) attrs.shape.at[i] = s.dim[i];
  return build_node(b, "view", &attrs, &x, 1, out);
}

/* The gradient rule of every view: the gradient under the input's shape. */
static inline status view_back(grad *rule) {
  return build_view(rule->b, rule->dy[0], value_type(rule->b, rule->in[0])->shape, rule->dx);
}

#endif
