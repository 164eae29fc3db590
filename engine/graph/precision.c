#include "graph/precision.h"

const char *const precision_choices[] = {"auto", "f32", "bf16", NULL};

void graph_set_precision(graph *g, precision chosen, source_pos at) {
  if (chosen != PRECISION_BF16) return;
  g->precision_at = at;
  for (int i = 0; i < g->node_count; i++) {
    int *own = attr_choice(g->nodes[i].op, g->nodes[i].attrs, "precision");
    if (own && *own == PRECISION_AUTO) *own = PRECISION_BF16;
  }
}

bool node_is_bf16(const node *n) {
  const int *own = attr_choice(n->op, n->attrs, "precision");
  return own && *own == PRECISION_BF16;
}

precision_share graph_precision(const graph *g) {
  precision_share share = {0};
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    double flops = node_cost(g, n).flops;
    share.all_flops += flops;
    if (!attr_choice(n->op, n->attrs, "precision")) continue;
    if (node_is_bf16(n)) {
      share.bf16++;
      share.bf16_flops += flops;
    } else {
      share.f32++;
    }
  }
  return share;
}
