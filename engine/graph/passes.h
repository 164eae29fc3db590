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

/* moments: on the CPU, a convolution whose result a norm normalizes leaves mean and Σ(x − mean)² of each
 * channel (op_moments), and the norm reads its input once in place of twice. The nodes change to the
 * operators that do so, and the moments are a value between them; other readers of the result change
 * nothing. After differentiation, before recomputation; a second call does nothing. */
void graph_pass_moments(graph *g);

/* pack: for a graph whose parameters keep their values from run to run, on the CPU. Marks the nodes
 * that read a weight in the packed form of their kernels (op_packing): what no other node reads, and
 * where that form, which takes the weight's place, is not much larger; not the head, if it can run by
 * planes. Runs last, before the parameters are laid out, with room for that form. A program of the graph packs when it runs first after its parameters were filled
 * (parameters.packed). */
void graph_pack(graph *g, const value_id *keep, int keep_count);
/* Of the form in which a marked node reads parameter v; 0: none does. */
size_t graph_packed_bytes(const graph *g, value_id v);
/* The mark of a node, or NULL where its operator packs nothing. */
bool *node_packed(const node *n);

/* Nodes before the first that differentiation has made. */
int graph_forward_nodes(const graph *g);
/* recompute: forward nodes that are `chosen` (one flag per node) run once more in the backward part,
 * each just before its results are first read there, and whoever reads them there reads the second
 * results; the first ones need no memory in between. Views follow what they look at. The same
 * kernels on the same inputs: attributes are shared, random numbers are named by the node, so
 * results are equal to the bit. Nodes that keep state of their own (PORT_STATE) must not be chosen.
 *
 * `out` is a new graph whose arrays lie in `memory` and which shares everything else with `g`; values
 * of `g` keep their numbers. `place`, when not NULL, receives for each of its nodes the node of `g`
 * that it is or directly precedes; it has room for twice the nodes of `g`. Which nodes are worth it
 * is decided by plan/budget.h. */
void graph_recompute(const graph *g, const bool *chosen, arena *memory, graph *out, int32_t *place);

#endif
