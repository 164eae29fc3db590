/* plan memory: one arena for everything a step makes, with offsets from liveness.
 *
 * A buffer is a root value and the values that alias it (views, in-place results). It lives from the node
 * that makes it, or the one before whose kernel may run both (op_chain), to the last node that reads it;
 * values in `keep` and inputs live to the end. Buffers are placed largest first at the lowest offset where
 * they overlap no buffer alive at the same time (greedy by size). Parameters are not in the arena.
 *
 * Gradients of parameters are not either, unless the optimizer consumes each as soon as it is
 * complete and nobody reads its parameter any more (`consume_gradients`): then a gradient is a
 * buffer like others, and it lives until its parameter is updated. */
#ifndef STRATA_PLAN_PLAN_H
#define STRATA_PLAN_PLAN_H

#include "graph/graph.h"

enum { PLAN_ALIGN = 64 };

/* What a plan is made for. */
typedef struct plan_use {
  const value_id *keep; /* read from outside after a run */
  int keep_count;
  int threads; /* given to workspace_bytes; 0: the device's kernels have scratch memory of their own,
                  and the plan none */
  bool chains; /* a kernel may run the next call, too (op_chain) */
  bool consume_gradients;
} plan_use;

typedef struct placement {
  int64_t offset; /* bytes into the arena; −1: not in the arena (parameter, gradient outside) */
  value_id root;  /* the value whose memory this one uses (itself when it has its own) */
} placement;

typedef struct plan {
  placement *values;     /* one per graph value */
  int64_t *workspace;    /* one per node: offset, or −1 when it needs none */
  int32_t *update_after; /* one per graph value: the node after which this parameter's gradient is
                            consumed; −1: none is */
  size_t arena_bytes;    /* what is allocated: the planned peak */
  size_t naive_bytes;    /* every buffer with memory of its own */
  size_t lower_bound_bytes; /* the most that is alive at once: no plan can do better */
  arena memory;
} plan;

status plan_memory(const graph *g, const plan_use *use, plan *out);
void plan_free(plan *p);
/* Without placing anything: the bytes alive while each node runs, workspaces included. `alive` has
 * room for node_count of them. */
void plan_alive(const graph *g, const plan_use *use, size_t *alive);
/* No two buffers alive at the same time, workspaces included, share a byte; gradients are intact
 * when they are consumed, and nothing reads a parameter after its update. */
status plan_verify(const graph *g, const plan *p, const plan_use *use);

#endif
