/* budget: forward values that are computed again in the backward part instead of being kept, until
 * the step fits into a budget. */
#ifndef STRATA_PLAN_BUDGET_H
#define STRATA_PLAN_BUDGET_H

#include "plan/plan.h"

/* What was chosen. */
typedef struct recomputation {
  int nodes;                 /* that run twice, views not counted */
  double flops, bytes;       /* that they add to a step */
  size_t arena_before_bytes; /* the planned peak without recomputation */
  size_t arena_bytes;        /* and with it: within the budget, or the smallest that was found */
} recomputation;

/* Rewrites a differentiated graph (graph_recompute) so that its planned peak is at most
 * `budget_bytes`. The choice is greedy: of all forward nodes, with what must be computed before them,
 * the one that frees most of the memory above the budget, counted over all nodes of the step, for
 * the arithmetic and memory traffic it costs; after each choice lives are found anew, and choices
 * that turn out to be needless are taken back, dearest first. It depends on the graph, `use` and the
 * budget alone, not on the machine.
 *
 * When out->arena_bytes is above the budget, the graph is as it was, and out->arena_bytes is a budget
 * that can be met. */
status plan_within(graph *g, const plan_use *use, size_t budget_bytes, recomputation *out);

#endif
