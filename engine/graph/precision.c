#include "graph/precision.h"

#include <string.h>

const char *const precision_choices[] = {"auto", "f32", "bf16", "tf32", NULL};

static const tensor *port_named(const graph *g, const port *ports, const value_id *values,
                                const char *name) {
  for (int i = 0; ports[i].name; i++)
    if (strcmp(ports[i].name, name) == 0) return &g->values[values[i]].type;
  return NULL;
}

/* A filter for each channel: there, a number is read for every product, so nothing is gained by
 * rounding, and the kernels are f32. */
static bool is_depthwise(const graph *g, const node *n) {
  const int64_t *groups = attr_integer(n->op, n->attrs, "groups");
  if (!groups || *groups == 1) return false;
  const tensor *weight = port_named(g, n->op->inputs, n->in, "weight");
  if (!weight) weight = port_named(g, n->op->outputs, n->out, "dweight");
  return weight && weight->shape.dim[0] == *groups && weight->shape.dim[1] == 1;
}

void graph_set_precision(graph *g, precision chosen) {
  if (chosen != PRECISION_BF16 && chosen != PRECISION_TF32) return;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    int *own = attr_choice(n->op, n->attrs, "precision");
    if (own && *own == PRECISION_AUTO && !is_depthwise(g, n)) *own = (int)chosen;
  }
}

precision node_precision(const node *n) {
  const int *own = attr_choice(n->op, n->attrs, "precision");
  return own && *own != PRECISION_AUTO ? (precision)*own : PRECISION_F32;
}

precision_share graph_precision(const graph *g) {
  precision_share share = {0};
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    double flops = node_cost(g, n).flops;
    share.all_flops += flops;
    if (!attr_choice(n->op, n->attrs, "precision")) continue;
    share.nodes[node_precision(n)]++;
    share.flops[node_precision(n)] += flops;
    share.all_nodes++;
  }
  return share;
}

unsigned graph_precisions(const graph *g) {
  unsigned used = 0;
  for (int i = 0; i < g->node_count; i++)
    if (attr_choice(g->nodes[i].op, g->nodes[i].attrs, "precision"))
      used |= 1u << node_precision(&g->nodes[i]);
  return used;
}
