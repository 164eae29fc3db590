#include "graph/storage.h"

#include "graph/precision.h"

#include <stdlib.h>

/* Of everything that might be stored as bf16, what is left. */
typedef struct search {
  const graph *g;
  bool *stored; /* by value */
} search;

static bool is_view(const node *n) {
  return n->op->traits & OP_VIEW;
}

/* Everything that a kernel can write so, that somebody reads, and nobody outside. */
static void start(search *s, const value_id *keep, int keep_count) {
  const graph *g = s->g;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->in_count; k++)
      if (n->in[k] != VALUE_NONE) s->stored[n->in[k]] = true;
  }
  for (int i = 0; i < g->value_count; i++)
    s->stored[i] &= g->values[i].kind == VALUE_TEMP && g->values[i].type.dtype == DTYPE_F32;
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->out_count && !is_view(n); k++)
      s->stored[n->out[k]] &= (n->op->outputs[k].flags & PORT_STORABLE) != 0;
  }
  for (int i = 0; i < keep_count; i++)
    if (keep[i] != VALUE_NONE) s->stored[keep[i]] = false;
  for (int v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM && g->values[v].gradient != VALUE_NONE)
      s->stored[g->values[v].gradient] = false;
}

/* Whether the node gives the same result for input `k` rounded. */
static bool takes_rounded(const search *s, const node *n, int k) {
  const port *p = input_port(n->op, k);
  if (is_view(n) || p->flags & PORT_CARRIED) return s->stored[n->out[0]];
  if (p->flags & PORT_SIGN) return true;
  if (!(p->flags & PORT_ROUNDED) || node_precision(n) != PRECISION_BF16) return false;
  if (!n->op->reads_exactly) return true;
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  node_types(s->g, n, in, out);
  return !n->op->reads_exactly(n->attrs, in, n->in_count, k);
}

/* Takes away what one of its readers reads exactly; a view and what it looks at are of one kind. True
 * when anything was. */
static bool take_away(search *s, const node *n) {
  bool changed = false;
  for (int k = n->in_count - 1; k >= 0; k--) {
    value_id v = n->in[k];
    if (v == VALUE_NONE || !s->stored[v] || takes_rounded(s, n, k)) continue;
    s->stored[v] = false;
    changed = true;
  }
  if (is_view(n) && s->stored[n->out[0]] && !s->stored[n->in[0]]) {
    s->stored[n->out[0]] = false;
    changed = true;
  }
  return changed;
}

/* By value, heap-owned. Readers come later, so from the last node to the first one look is nearly
 * enough. */
static status find_stored(const graph *g, const value_id *keep, int keep_count, bool **out) {
  search s = {.g = g, .stored = calloc((size_t)g->value_count + 1, sizeof *s.stored)};
  *out = s.stored;
  if (!s.stored) return error_out_of_memory((size_t)g->value_count);
  start(&s, keep, keep_count);
  bool changed = true;
  while (changed) {
    changed = false;
    for (int i = g->node_count - 1; i >= 0; i--) changed |= take_away(&s, &g->nodes[i]);
  }
  return OK;
}

status graph_choose_storage(graph *g, const value_id *keep, int keep_count) {
  bool *stored;
  if (g->stored) return OK;
  TRY(find_stored(g, keep, keep_count, &stored));
  for (int v = 0; v < g->value_count; v++)
    if (stored[v]) g->values[v].type.dtype = DTYPE_BF16;
  g->stored = true;
  free(stored);
  return OK;
}

status graph_storage(const graph *g, const value_id *keep, int keep_count, storage_share *out) {
  bool *stored = NULL;
  *out = (storage_share){0};
  if (!g->stored) TRY(find_stored(g, keep, keep_count, &stored));
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->out_count && !is_view(n); k++) {
      const tensor *t = &g->values[n->out[k]].type;
      if (stored ? !stored[n->out[k]] : t->dtype != DTYPE_BF16) continue;
      out->values++;
      out->bytes +=
          (size_t)shape_elements(&t->shape) * (dtype_bytes(DTYPE_F32) - dtype_bytes(DTYPE_BF16));
    }
  }
  free(stored);
  return OK;
}
