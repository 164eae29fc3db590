#include "graph/passes.h"

static bool can_leave_moments(const graph *g, const node *n) {
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  if (!n->op->moments) return false;
  node_types(g, n, in, out);
  return n->op->moments->fits(n->attrs, in);
}

static value_id *with_another(graph *g, const value_id *list, int count, value_id v) {
  value_id *longer = arena_alloc(&g->memory, (size_t)(count + 1) * sizeof *longer);
  for (int i = 0; i < count; i++) longer[i] = list[i];
  longer[count] = v;
  return longer;
}

/* The node makes its second output, too. */
static value_id leave_moments(graph *g, int index) {
  node *n = &g->nodes[index];
  const tensor *y = &g->values[n->out[0]].type;
  value moments = {.name = arena_printf(&g->memory, "%s.moments", n->name),
                   .type = {.dtype = DTYPE_F32,
                            .shape = SHAPE(y->shape.dim[0], 2, y->shape.dim[y->shape.rank - 1])},
                   .kind = VALUE_TEMP,
                   .producer = index,
                   .gradient = VALUE_NONE};
  ARENA_PUSH(&g->memory, g->values, g->value_count, g->value_capacity, moments);
  n->op = n->op->moments->with;
  n->out = with_another(g, n->out, n->out_count++, g->value_count - 1);
  return n->out[1];
}

void graph_pass_moments(graph *g) {
  arena memory = {0};
  /* By node: the moments that it has been made to leave. */
  value_id *moments = arena_alloc(&memory, (size_t)(g->node_count + 1) * sizeof *moments);
  for (int i = 0; i < g->node_count; i++) moments[i] = VALUE_NONE;
  for (int k = 0; k < g->node_count; k++) {
    node *norm = &g->nodes[k];
    int32_t i = norm->op->of_moments ? g->values[norm->in[0]].producer : -1;
    if (i < 0 || i >= k || g->nodes[i].out[0] != norm->in[0]) continue;
    if (moments[i] == VALUE_NONE && can_leave_moments(g, &g->nodes[i]))
      moments[i] = leave_moments(g, i);
    if (moments[i] == VALUE_NONE) continue;
    norm->op = norm->op->of_moments;
    norm->in = with_another(g, norm->in, norm->in_count++, moments[i]);
  }
  arena_free(&memory);
}
