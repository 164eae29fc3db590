#include "graph/passes.h"

#include <stdlib.h>
#include <string.h>

static bool is_op(const node *n, const char *name) {
  return strcmp(n->op->name, name) == 0;
}

/* The node that makes v as its first output, when only one node reads it. */
static node *sole_producer(graph *g, const int *readers, value_id v) {
  int32_t index = g->values[v].producer;
  if (index < 0 || readers[v] != 1) return NULL;
  return g->nodes[index].out[0] == v ? &g->nodes[index] : NULL;
}

/* Node lists keep their length during the pass; nodes that were merged away lose their operator and
 * are dropped at the end. Nothing makes their result any more. */
static void drop(graph *g, node *n) {
  g->values[n->out[0]].producer = -1;
  n->op = NULL;
}

static int residual_port(const op *o) {
  for (int i = 0; o->inputs && o->inputs[i].name; i++)
    if (strcmp(o->inputs[i].name, "residual") == 0) return i;
  return -1;
}

/* A norm (what has a residual and a slope) with neither residual nor activation yet. */
static bool is_plain_norm(const node *n) {
  if (!n) return false;
  const double *slope = attr_number(n->op, n->attrs, "slope");
  int port = residual_port(n->op);
  return slope && *slope == 1.0 && port >= 0 && n->in[port] == VALUE_NONE;
}

void graph_fuse(graph *g, const value_id *keep, int keep_count) {
  int *readers = graph_reader_counts(g, keep, keep_count);
  for (int i = 0; i < g->node_count; i++) {
    node *act = &g->nodes[i];
    if (!act->op || !is_op(act, "leaky_relu")) continue;
    value_id residual = VALUE_NONE;
    node *before = sole_producer(g, readers, act->in[0]), *sum = NULL, *norm = NULL;
    if (before && is_op(before, "add") && before->in_count == 2) {
      sum = before;
      for (int side = 0; side < 2 && !norm; side++) {
        norm = sole_producer(g, readers, sum->in[side]);
        /* A norm adds a residual of its own shape; it repeats none. */
        if (!is_plain_norm(norm) ||
            !shape_equal(&g->values[sum->in[0]].type.shape, &g->values[sum->in[1]].type.shape))
          norm = NULL;
        if (norm) residual = sum->in[1 - side];
      }
    } else if (is_plain_norm(before)) {
      norm = before;
    }
    if (!norm) continue;
    int port = residual_port(norm->op);
    /* The merged node stands where the activation stood, after everything it reads. */
    node merged = *norm;
    *attr_number(merged.op, merged.attrs, "slope") = *attr_number(act->op, act->attrs, "slope");
    merged.in[port] = residual;
    merged.out = arena_copy(&g->memory, norm->out, (size_t)norm->out_count * sizeof *norm->out);
    merged.out[0] = act->out[0];
    for (int k = 0; k < merged.out_count; k++) g->values[merged.out[k]].producer = i;
    *act = merged;
    if (sum) drop(g, sum);
    drop(g, norm);
  }
  int kept = 0;
  for (int i = 0; i < g->node_count; i++) {
    if (!g->nodes[i].op) continue;
    for (int k = 0; k < g->nodes[i].out_count; k++) g->values[g->nodes[i].out[k]].producer = kept;
    g->nodes[kept++] = g->nodes[i];
  }
  g->node_count = kept;
  free(readers);
}
