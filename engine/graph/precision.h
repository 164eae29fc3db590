/* precision: whether the factors of products are rounded to bf16, of which a processor or a card
 * multiplies twice as many a second as of f32, or may be rounded to tf32 (the exponent of f32, ten
 * bits of its fraction), which only NVIDIA's tensor cores multiply: elsewhere tf32 is f32.
 *
 * An operator that can declares the attribute `precision` (PRECISION_ATTR) and reads it in its
 * kernel. In a stage of bf16 or tf32 the precision pass writes it to every node that leaves it open
 * (`auto`, which is f32 otherwise). So the decision stands on the node, for the plan, the kernel and
 * copies of the node alike. Everything that is
 * no factor of a product is f32 in all: sums, results, norms, softmax, losses, weights, gradients,
 * optimizer, and every tensor in memory. So are depthwise filters. */
#ifndef STRATA_GRAPH_PRECISION_H
#define STRATA_GRAPH_PRECISION_H

#include "graph/graph.h"

typedef enum precision {
  PRECISION_AUTO,
  PRECISION_F32,
  PRECISION_BF16,
  PRECISION_TF32,
  PRECISIONS
} precision;

extern const char *const precision_choices[]; /* of items: "auto", "f32", "bf16", "tf32" */

#define PRECISION_ATTR(type, field)                                                                \
  {                                                                                                \
    "precision", ATTR_CHOICE, offsetof(type, field), "auto", 0, 0, precision_choices, 0,           \
        "what the factors of the products are rounded to; auto: as the stage says"                 \
  }

/* The pass: nodes that leave it open get what is `chosen`. Runs when every node is there, gradients
 * too. */
void graph_set_precision(graph *g, precision chosen);
/* Of the node's products; f32 where they leave it open or there are none. */
precision node_precision(const node *n);

/* What of a graph's products is of which precision; costs are those of nodes. */
typedef struct precision_share {
  int nodes[PRECISIONS];    /* that have the choice */
  double flops[PRECISIONS]; /* theirs */
  int all_nodes;            /* that have the choice */
  double all_flops;         /* of all nodes */
} precision_share;

precision_share graph_precision(const graph *g);
/* A bit, 1 << precision, for each that some node has. */
unsigned graph_precisions(const graph *g);

#endif
