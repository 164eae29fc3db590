/* Building a `scale` node inside other operators' rules. */
#ifndef STRATA_OPS_SCALE_H
#define STRATA_OPS_SCALE_H

#include "graph/graph.h"

typedef struct scale_attrs {
  double factor;
} scale_attrs;

static inline status build_scale(builder *b, value_id x, double factor, value_id *out) {
  scale_attrs attrs = {factor};
  return build_node(b, "scale", &attrs, &x, 1, out);
}

#endif
