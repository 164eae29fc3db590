#include "graph/passes.h"

#include <string.h>

int graph_forward_nodes(const graph *g) {
  int count = 0;
  while (count < g->node_count && !g->nodes[count].backward) count++;
  return count;
}

typedef struct pass {
  const graph *g;
  int forward;
  const bool *chosen;
  bool *again;      /* per forward node: chosen and read in the backward part, or a view of such */
  int32_t *at;      /* per forward node: the node before which it is run again */
  value_id *second; /* per value of g: what stands for it in the backward part */
  arena *memory;
  graph *out;
} pass;

static int32_t maker(const pass *p, value_id v) {
  int32_t producer = v == VALUE_NONE ? -1 : p->g->values[v].producer;
  return producer < p->forward ? producer : -1;
}

/* Everything that reads comes later, so one look at each node from the last to the first will do. */
static void find_places(pass *p) {
  const graph *g = p->g;
  for (int i = 0; i < p->forward; i++) {
    const node *n = &g->nodes[i];
    bool is_view = n->op->traits & OP_VIEW;
    int32_t seen = is_view ? maker(p, n->in[0]) : -1;
    p->again[i] = is_view ? seen >= 0 && p->again[seen] : p->chosen[i];
    p->at[i] = g->node_count;
  }
  for (int i = g->node_count - 1; i >= 0; i--) {
    const node *n = &g->nodes[i];
    int32_t here = i < p->forward ? p->at[i] : i;
    if (i < p->forward && !p->again[i]) continue;
    for (int k = 0; k < n->in_count; k++) {
      int32_t from = maker(p, n->in[k]);
      if (from >= 0 && here < p->at[from]) p->at[from] = here;
    }
  }
  for (int i = 0; i < p->forward; i++) p->again[i] &= p->at[i] < g->node_count;
}

static value_id second_of(pass *p, value_id v) {
  return v == VALUE_NONE ? v : p->second[v];
}

/* Adds `n`, its inputs being those of the second round where there are such. */
static void add_node(pass *p, node n, bool in_backward) {
  graph *out = p->out;
  if (in_backward) {
    n.in = arena_copy(p->memory, n.in, (size_t)n.in_count * sizeof *n.in);
    for (int k = 0; k < n.in_count; k++) n.in[k] = second_of(p, n.in[k]);
  }
  for (int k = 0; k < n.out_count; k++) out->values[n.out[k]].producer = out->node_count;
  out->nodes[out->node_count++] = n;
}

static void run_again(pass *p, int index) {
  graph *out = p->out;
  node n = p->g->nodes[index];
  n.backward = n.recomputed = true;
  n.out = arena_copy(p->memory, n.out, (size_t)n.out_count * sizeof *n.out);
  for (int k = 0; k < n.out_count; k++) {
    value_id first = n.out[k];
    n.out[k] = out->value_count++;
    out->values[n.out[k]] = out->values[first];
    p->second[first] = n.out[k];
  }
  add_node(p, n, true);
}

void graph_recompute(const graph *g, const bool *chosen, arena *memory, graph *out,
                     int32_t *place) {
  int forward = graph_forward_nodes(g), nodes = g->node_count, values = g->value_count;
  pass p = {.g = g, .forward = forward, .chosen = chosen, .memory = memory, .out = out};
  p.again = arena_alloc(memory, (size_t)nodes + 1);
  p.at = arena_alloc(memory, (size_t)(nodes + 1) * sizeof *p.at);
  find_places(&p);
  int more_nodes = 0, more_values = 0;
  for (int i = 0; i < forward; i++) {
    more_nodes += p.again[i];
    more_values += p.again[i] ? g->nodes[i].out_count : 0;
  }
  *out = (graph){.training = g->training,
                 .stored = g->stored,
                 .node_capacity = nodes + more_nodes,
                 .value_capacity = values + more_values,
                 .value_count = values};
  out->nodes = arena_alloc(memory, (size_t)(out->node_capacity + 1) * sizeof *out->nodes);
  out->values = arena_alloc(memory, (size_t)(out->value_capacity + 1) * sizeof *out->values);
  memcpy(out->values, g->values, (size_t)values * sizeof *out->values);
  p.second = arena_alloc(memory, (size_t)(values + 1) * sizeof *p.second);
  for (int v = 0; v < values; v++) p.second[v] = v;

  /* Forward nodes by the place of their second run, in their order: a list for each place. */
  int32_t *head = arena_alloc(memory, (size_t)(nodes + 1) * sizeof *head);
  int32_t *next = arena_alloc(memory, (size_t)(nodes + 1) * sizeof *next);
  for (int i = 0; i <= nodes; i++) head[i] = -1;
  for (int i = forward - 1; i >= 0; i--) {
    if (!p.again[i]) continue;
    next[i] = head[p.at[i]];
    head[p.at[i]] = i;
  }
  for (int i = 0; i < nodes; i++) {
    for (int32_t k = head[i]; k >= 0; k = next[k]) {
      if (place) place[out->node_count] = i;
      run_again(&p, k);
    }
    if (place) place[out->node_count] = i;
    add_node(&p, g->nodes[i], i >= forward);
  }
}
