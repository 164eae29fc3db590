/* prune: drops nodes whose results nobody asked for. */
#include "base/memory.h"
#include "graph/graph.h"

#include <stdlib.h>

void graph_prune(graph *g, const value_id *keep, int keep_count) {
  bool *live = memory_take((size_t)g->value_count * sizeof *live);
  for (int i = 0; i < keep_count; i++)
    if (keep[i] != VALUE_NONE) live[keep[i]] = true;
  for (int i = 0; i < g->value_count; i++)
    if (g->values[i].kind == VALUE_PARAM && g->values[i].gradient != VALUE_NONE)
      live[g->values[i].gradient] = true;
  bool *wanted = memory_take((size_t)g->node_count * sizeof *wanted);
  for (int i = g->node_count - 1; i >= 0; i--) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->out_count; k++) wanted[i] |= live[n->out[k]];
    for (int k = 0; wanted[i] && k < n->in_count; k++)
      if (n->in[k] != VALUE_NONE) live[n->in[k]] = true;
  }
  int kept = 0;
  for (int i = 0; i < g->node_count; i++) {
    if (!wanted[i]) {
      for (int k = 0; k < g->nodes[i].out_count; k++) g->values[g->nodes[i].out[k]].producer = -1;
      continue;
    }
    for (int k = 0; k < g->nodes[i].out_count; k++) g->values[g->nodes[i].out[k]].producer = kept;
    g->nodes[kept++] = g->nodes[i];
  }
  g->node_count = kept;
  free(wanted);
  free(live);
}
