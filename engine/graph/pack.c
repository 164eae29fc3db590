#include "graph/passes.h"

#include <stdlib.h>

/* Winograd's filters grow by 16/9. */
enum { MOST_GROWTH = 2 };

static size_t packed_bytes(const graph *g, const node *n) {
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  node_types(g, n, in, out);
  return n->op->packing->bytes(n->attrs, in, n->in_count, out);
}

/* The head of a network, which a program may run a few planes at a time: a packed form is that of one
 * shape. */
static bool runs_by_planes(const graph *g, int node) {
  const op *o = g->nodes[node].op;
  return node == g->node_count - 1 && o->by_plane && o->by_plane(g->nodes[node].attrs);
}

void graph_pack(graph *g, const value_id *keep, int keep_count) {
  int *readers = graph_reader_counts(g, keep, keep_count);
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (!n->op->packing || runs_by_planes(g, i)) continue;
    value_id v = n->in[n->op->packing->input];
    if (g->values[v].kind != VALUE_PARAM || readers[v] != 1) continue;
    size_t bytes = packed_bytes(g, n);
    *node_packed(n) = bytes > 0 && bytes <= MOST_GROWTH * tensor_bytes(&g->values[v].type);
  }
  free(readers);
}

size_t graph_packed_bytes(const graph *g, value_id v) {
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    const bool *packed = node_packed(n);
    if (packed && *packed && n->in[n->op->packing->input] == v) return packed_bytes(g, n);
  }
  return 0;
}

bool *node_packed(const node *n) {
  return n->op->packing ? (bool *)((char *)n->attrs + n->op->packing->flag) : NULL;
}
