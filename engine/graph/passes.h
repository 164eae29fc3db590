/* The passes between expansion and planning, in the order they run. Each takes a valid graph and
 * leaves a valid one; stage_expand ends with graph_verify. */
#ifndef STRATA_GRAPH_PASSES_H
#define STRATA_GRAPH_PASSES_H

#include "graph/graph.h"

/* fuse: norm + residual add + leaky ReLU become one pass over memory. Looks for
 *     leaky_relu(norm(x))  and  leaky_relu(add(norm(x), r))
 * where the intermediate results have no other reader, and rewrites them to
 *     norm(x, residual: r) with the ReLU's slope, for every norm that takes both.
 * Runs before differentiation, so the fused operator's own gradient rule is used. Values in `keep`
 * are read from outside and stay. */
void graph_fuse(graph *g, const value_id *keep, int keep_count);

#endif
