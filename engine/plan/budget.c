#include "plan/budget.h"

#include "graph/passes.h"

#include <stdlib.h>
#include <string.h>

/* Arithmetic that takes as long as moving a byte: what CPUs and GPUs are built for, roughly. */
static const double FLOPS_PER_BYTE = 5;

enum { NEVER = -1 };

/* When a value is used, by nodes of the graph before recomputation; views count for what they show. */
typedef struct uses {
  int32_t last_forward, first_backward, last_backward; /* NEVER */
} uses;

typedef struct search {
  const graph *g;
  const plan_use *use;
  int forward;
  bool *able;     /* per forward node: may run again */
  bool *chosen;   /* per forward node: runs again */
  int64_t *made;  /* per forward node: bytes of its results */
  double *price;  /* per forward node: of running it again, in bytes moved */
  value_id *root; /* per value: what it shows */
  bool *kept;     /* per value: in memory for the whole step */
  int64_t *bytes; /* per value */

  /* The graph as chosen. */
  uses *used;     /* per value */
  int64_t *alive; /* per node of g: most alive there or just before */
  int64_t most;   /* of all nodes */
  int32_t *at;    /* per forward node that is chosen: where it runs again */

  /* For one candidate. */
  bool *in_set;    /* per forward node: runs again with it, and its inputs were not looked at yet */
  int32_t *set_at; /* where */
  int waiting;     /* nodes in the set */
  int64_t *change; /* per node of g: difference to the node before; 0 outside of … */
  int32_t changed_first, changed_last;
  arena memory;
} search;

static void *array(search *s, int count, size_t element) {
  return arena_alloc(&s->memory, (size_t)(count + 1) * element);
}

static bool keeps_state(const graph *g, const node *n) {
  for (int k = 0; k < n->in_count; k++)
    if (n->in[k] != VALUE_NONE && g->values[n->in[k]].state) return true;
  return false;
}

static void search_open(search *s, const graph *g, const plan_use *use) {
  int nodes = g->node_count, values = g->value_count;
  *s = (search){.g = g, .use = use, .forward = graph_forward_nodes(g)};
  s->able = array(s, nodes, sizeof *s->able);
  s->chosen = array(s, nodes, sizeof *s->chosen);
  s->made = array(s, nodes, sizeof *s->made);
  s->price = array(s, nodes, sizeof *s->price);
  s->at = array(s, nodes, sizeof *s->at);
  s->in_set = array(s, nodes, sizeof *s->in_set);
  s->set_at = array(s, nodes, sizeof *s->set_at);
  s->alive = array(s, nodes, sizeof *s->alive);
  s->change = array(s, nodes + 1, sizeof *s->change);
  s->root = array(s, values, sizeof *s->root);
  s->kept = array(s, values, sizeof *s->kept);
  s->bytes = array(s, values, sizeof *s->bytes);
  s->used = array(s, values, sizeof *s->used);
  for (int v = 0; v < values; v++) {
    s->root[v] = v;
    s->kept[v] = g->values[v].kind != VALUE_TEMP;
    s->bytes[v] = (int64_t)tensor_bytes(&g->values[v].type);
  }
  for (int i = 0; i < nodes; i++)
    if (g->nodes[i].op->traits & OP_VIEW) s->root[g->nodes[i].out[0]] = s->root[g->nodes[i].in[0]];
  for (int i = 0; i < use->keep_count; i++)
    if (use->keep[i] != VALUE_NONE) s->kept[s->root[use->keep[i]]] = true;
  for (int i = 0; i < s->forward; i++) {
    const node *n = &g->nodes[i];
    cost c = node_cost(g, n);
    for (int k = 0; k < n->out_count; k++) s->made[i] += s->bytes[n->out[k]];
    double arithmetic = c.flops / FLOPS_PER_BYTE;
    s->able[i] = !(n->op->traits & OP_VIEW) && !keeps_state(g, n);
    s->price[i] = 1 + (arithmetic > c.bytes ? arithmetic : c.bytes);
  }
}

/* ---- the graph as chosen ------------------------------------------------------------------- */

static void use_in_backward(search *s, value_id v, int32_t at) {
  if (v == VALUE_NONE) return;
  uses *u = &s->used[s->root[v]];
  if (u->first_backward == NEVER || at < u->first_backward) u->first_backward = at;
  if (at > u->last_backward) u->last_backward = at;
}

/* Where the results of node i are first wanted in the backward part, or NEVER. */
static int32_t first_wanted(const search *s, int i) {
  int32_t first = NEVER;
  for (int k = 0; k < s->g->nodes[i].out_count; k++) {
    int32_t at = s->used[s->g->nodes[i].out[k]].first_backward;
    if (at != NEVER && (first == NEVER || at < first)) first = at;
  }
  return first;
}

static void find_uses(search *s) {
  const graph *g = s->g;
  for (int v = 0; v < g->value_count; v++) s->used[v] = (uses){NEVER, NEVER, NEVER};
  for (int i = g->node_count - 1; i >= 0; i--) {
    const node *n = &g->nodes[i];
    if (i < s->forward) s->at[i] = s->chosen[i] ? first_wanted(s, i) : NEVER;
    int32_t at = i < s->forward ? s->at[i] : i;
    for (int k = 0; k < n->in_count; k++) {
      if (n->in[k] == VALUE_NONE) continue;
      uses *u = &s->used[s->root[n->in[k]]];
      if (i < s->forward && i > u->last_forward) u->last_forward = i;
      if (at != NEVER) use_in_backward(s, n->in[k], at);
    }
    for (int k = 0; i < s->forward && k < n->out_count; k++) {
      uses *u = &s->used[n->out[k]];
      if (u->last_forward == NEVER) u->last_forward = i;
    }
  }
}

static void find_alive(search *s) {
  arena memory = {0};
  graph trial;
  int room = 2 * s->g->node_count + 1;
  int32_t *place = arena_alloc(&memory, (size_t)room * sizeof *place);
  size_t *alive = arena_alloc(&memory, (size_t)room * sizeof *alive);
  graph_recompute(s->g, s->chosen, &memory, &trial, place);
  plan_alive(&trial, s->use, alive);
  memset(s->alive, 0, (size_t)s->g->node_count * sizeof *s->alive);
  s->most = 0;
  for (int i = 0; i < trial.node_count; i++) {
    int64_t now = (int64_t)alive[i];
    if (now > s->alive[place[i]]) s->alive[place[i]] = now;
    if (now > s->most) s->most = now;
  }
  arena_free(&memory);
}

static void look(search *s) {
  find_uses(s);
  find_alive(s);
}

/* Of the graph as chosen, with every buffer in its place. */
static status planned_bytes(const search *s, size_t *out) {
  arena memory = {0};
  graph trial;
  plan p;
  graph_recompute(s->g, s->chosen, &memory, &trial, NULL);
  status error = plan_memory(&trial, s->use, &p);
  if (!error) {
    *out = p.arena_bytes;
    plan_free(&p);
  }
  arena_free(&memory);
  return error;
}

/* ---- one candidate --------------------------------------------------------------------------- */

static int64_t above(int64_t bytes, int64_t target) {
  return bytes > target ? bytes - target : 0;
}

static double excess(const search *s, int64_t target) {
  double sum = 0;
  for (int i = 0; i < s->g->node_count; i++) sum += (double)above(s->alive[i], target);
  return sum;
}

/* `bytes` more in the nodes first … last. */
static void add_change(search *s, int32_t first, int32_t last, int64_t bytes) {
  if (first > last) return;
  s->change[first] += bytes;
  s->change[last + 1] -= bytes;
  if (first < s->changed_first) s->changed_first = first;
  if (last > s->changed_last) s->changed_last = last;
}

static void put_in_set(search *s, int node, int32_t at) {
  s->in_set[node] = true;
  s->set_at[node] = at;
  s->waiting++;
}

/* An input of a node that would run again at `at`: it is in memory there, or it is made again too,
 * or it stays in memory until then. */
static void want_input(search *s, value_id v, int32_t at, bool with_inputs) {
  if (v == VALUE_NONE) return;
  value_id r = s->root[v];
  if (s->kept[r]) return;
  const uses *u = &s->used[r];
  int32_t producer = s->g->values[r].producer;
  if (s->in_set[producer]) {
    if (at < s->set_at[producer]) s->set_at[producer] = at;
    return;
  }
  if (s->chosen[producer]) {
    if (u->first_backward == NEVER) return;
    add_change(s, at, u->first_backward - 1, s->bytes[r]);
    add_change(s, u->last_backward + 1, at, s->bytes[r]);
    return;
  }
  int32_t end = u->last_backward > u->last_forward ? u->last_backward : u->last_forward;
  if (end >= at) return;
  if (with_inputs && s->able[producer]) {
    put_in_set(s, producer, at);
    return;
  }
  add_change(s, end + 1, at, s->bytes[r]);
}

/* What running node i again would free above the target, by the price of it; `set`, when not NULL,
 * receives the nodes that it takes. 0: nothing. */
static double worth(search *s, int i, bool with_inputs, int64_t target, bool *set) {
  const graph *g = s->g;
  int32_t at = first_wanted(s, i);
  if (at == NEVER) return 0;
  s->changed_first = g->node_count;
  s->changed_last = NEVER;
  s->waiting = 0;
  put_in_set(s, i, at);
  double price = 0;
  for (int n = i; s->waiting > 0; n--) {
    if (!s->in_set[n]) continue;
    s->waiting--;
    price += s->price[n];
    for (int k = 0; k < g->nodes[n].out_count; k++) {
      value_id v = g->nodes[n].out[k];
      const uses *u = &s->used[v];
      if (s->kept[v] || u->first_backward == NEVER) continue;
      add_change(s, u->last_forward + 1, s->set_at[n] - 1, -s->bytes[v]);
    }
    for (int k = 0; k < g->nodes[n].in_count; k++)
      want_input(s, g->nodes[n].in[k], s->set_at[n], with_inputs);
    s->in_set[n] = false; /* its readers have been seen */
    if (set) set[n] = true;
  }
  double freed = 0;
  int64_t change = 0;
  for (int t = s->changed_first; t <= s->changed_last; t++) {
    change += s->change[t];
    freed += (double)(above(s->alive[t], target) - above(s->alive[t] + change, target));
  }
  if (s->changed_last != NEVER)
    memset(s->change + s->changed_first, 0,
           (size_t)(s->changed_last - s->changed_first + 2) * sizeof *s->change);
  return freed > 0 ? freed / price : 0;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* Adds the best candidate to the choice. False when there is none. */
static bool choose_of(search *s, const bool *refused, int64_t target, int64_t least, int *seed) {
  double best = 0;
  int best_node = NEVER;
  bool best_with_inputs = false;
  for (int i = 0; i < s->forward; i++) {
    if (!s->able[i] || s->chosen[i] || refused[i] || s->made[i] < least) continue;
    for (int with_inputs = 0; with_inputs < 2; with_inputs++) {
      double now = worth(s, i, with_inputs, target, NULL);
      if (now <= best) continue;
      best = now;
      best_node = i;
      best_with_inputs = with_inputs;
    }
  }
  if (best_node == NEVER) return false;
  worth(s, best_node, best_with_inputs, target, s->chosen);
  *seed = best_node;
  return true;
}

/* Results of less than a thousandth of what is too much only when there are no others: there are many,
 * and they would be looked at again after every choice. */
static bool choose_one(search *s, const bool *refused, int64_t target, int *seed) {
  return choose_of(s, refused, target, (s->most - target) / 1000, seed) ||
         choose_of(s, refused, target, 0, seed);
}

/* Chooses until nothing is alive above the target. False when that cannot be reached. */
static bool reach(search *s, int64_t target) {
  arena memory = {0};
  bool *refused = arena_alloc(&memory, (size_t)s->forward + 1);
  bool *before = arena_alloc(&memory, (size_t)s->forward + 1);
  int seed;
  while (s->most > target) {
    double now = excess(s, target);
    memcpy(before, s->chosen, (size_t)s->forward * sizeof *before);
    if (!choose_one(s, refused, target, &seed)) break;
    look(s);
    if (excess(s, target) < now) continue;
    refused[seed] = true; /* lives overlap otherwise than they seemed to */
    memcpy(s->chosen, before, (size_t)s->forward * sizeof *before);
    look(s);
  }
  arena_free(&memory);
  return s->most <= target;
}

/* Placing takes some more than is alive: the target goes down by what is too much. */
static status reach_planned(search *s, size_t budget, size_t *planned) {
  int64_t target = (int64_t)budget;
  bool reached = true;
  TRY(planned_bytes(s, planned));
  while (*planned > budget && reached && target > 0) {
    reached = reach(s, target);
    TRY(planned_bytes(s, planned));
    if (*planned > budget) target = (s->most < target ? s->most : target) - 1;
  }
  return OK;
}

/* By small steps from one peak to the next, which sometimes gets further. */
static status reach_stepwise(search *s, size_t budget, size_t *planned) {
  memset(s->chosen, 0, (size_t)s->forward * sizeof *s->chosen);
  look(s);
  TRY(planned_bytes(s, planned));
  size_t least = *planned;
  bool *best = array(s, s->forward, sizeof *best);
  while (*planned > budget && reach(s, s->most - s->most / 50)) {
    TRY(planned_bytes(s, planned));
    if (*planned >= least) continue;
    least = *planned;
    memcpy(best, s->chosen, (size_t)s->forward * sizeof *best);
  }
  memcpy(s->chosen, best, (size_t)s->forward * sizeof *best);
  *planned = least;
  return OK;
}

/* Takes back what the budget allows to keep, dearest first, until what is left costs little. */
static status take_back(search *s, size_t budget, size_t *planned) {
  bool *tried = array(s, s->forward, sizeof *tried);
  double untried = 0;
  for (int i = 0; i < s->forward; i++) untried += s->chosen[i] ? s->price[i] : 0;
  double enough = untried / 50;
  while (untried > enough) {
    int dearest = NEVER;
    for (int i = 0; i < s->forward; i++)
      if (s->chosen[i] && !tried[i] && (dearest == NEVER || s->price[i] > s->price[dearest]))
        dearest = i;
    if (dearest == NEVER) break;
    tried[dearest] = true;
    untried -= s->price[dearest];
    s->chosen[dearest] = false;
    find_alive(s);
    size_t bytes = budget + 1;
    if (s->most <= (int64_t)budget) TRY(planned_bytes(s, &bytes));
    if (bytes <= budget)
      *planned = bytes;
    else
      s->chosen[dearest] = true;
  }
  return OK;
}

static void rewrite(const search *s, graph *g, recomputation *out) {
  graph again;
  graph_recompute(s->g, s->chosen, &g->memory, &again, NULL);
  g->nodes = again.nodes;
  g->node_count = again.node_count;
  g->node_capacity = again.node_capacity;
  g->values = again.values;
  g->value_count = again.value_count;
  g->value_capacity = again.value_capacity;
  graph_prune(g, s->use->keep, s->use->keep_count); /* views that nobody reads twice */
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (!n->recomputed || (n->op->traits & OP_VIEW)) continue;
    cost c = node_cost(g, n);
    out->nodes++;
    out->flops += c.flops;
    out->bytes += c.bytes;
  }
}

status plan_within(graph *g, const plan_use *use, size_t budget_bytes, recomputation *out) {
  search s;
  *out = (recomputation){0};
  search_open(&s, g, use);
  look(&s);
  status error = planned_bytes(&s, &out->arena_before_bytes);
  out->arena_bytes = out->arena_before_bytes;
  if (!error && out->arena_bytes > budget_bytes) {
    error = reach_planned(&s, budget_bytes, &out->arena_bytes);
    if (!error && out->arena_bytes > budget_bytes)
      error = reach_stepwise(&s, budget_bytes, &out->arena_bytes);
    if (!error && out->arena_bytes <= budget_bytes) {
      error = take_back(&s, budget_bytes, &out->arena_bytes);
      if (!error) rewrite(&s, g, out);
    }
  }
  arena_free(&s.memory);
  return error ? error : graph_verify(g);
}
