/* plan memory: one arena for everything a step makes, with offsets from liveness.
 *
 * A buffer is a root value and the values that alias it (views, in-place results). It lives from
 * the node that makes it to the last node that reads it; values in `keep` and inputs live to the
 * end. Buffers are placed largest first at the lowest offset where they overlap no buffer alive at
 * the same time (greedy by size). Parameters and their gradients are not in the arena. */
#ifndef STRATA_PLAN_PLAN_H
#define STRATA_PLAN_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGN = 64 };

typedef struct placement {
  int64_t offset; /* bytes into the arena; −1: not in the arena (parameter, parameter gradient) */
  value_id root;  /* the value whose memory this one uses (itself when it has its own) */
} placement;

typedef struct plan {
  placement *values;        /* one per graph value */
  int64_t *workspace;       /* one per node: offset, or −1 when it needs none */
  size_t arena_bytes;       /* what is allocated: the planned peak */
  size_t naive_bytes;       /* every buffer with memory of its own */
  size_t lower_bound_bytes; /* the most that is alive at once: no plan can do better */
  arena memory;
} plan;

/* `threads` is passed to workspace_bytes; 0: the device's kernels have scratch memory of their own,
 * and the plan none. */
status plan_memory(const graph *g, const value_id *keep, int keep_count, int threads, plan *out);
void plan_free(plan *p);
/* No two buffers alive at the same time, workspaces included, share a byte. */
status plan_verify(const graph *g, const plan *p, const value_id *keep, int keep_count,
                   int threads);

#endif
