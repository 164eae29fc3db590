#include "plan/plan.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct buffer {
  int64_t bytes, offset;
  int32_t first, last; /* nodes */
  value_id value;      /* VALUE_NONE: the workspace of node `first` */
} buffer;

static int64_t align_up(int64_t bytes) {
  return (bytes + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

/* Gradients never share memory with another value, wherever they lie. */
static bool may_share(const graph *g, const bool *is_gradient, value_id v) {
  return g->values[v].kind != VALUE_PARAM && !is_gradient[v];
}

/* Last node that reads each value itself (aliases not yet considered). */
static void last_reads(const graph *g, int32_t *last) {
  for (int i = 0; i < g->node_count; i++)
    for (int k = 0; k < g->nodes[i].in_count; k++)
      if (g->nodes[i].in[k] != VALUE_NONE) last[g->nodes[i].in[k]] = i;
}

/* Decides which values share memory. `last` becomes the last read of the whole buffer at its root.
 */
static void choose_roots(const graph *g, const bool *kept, const bool *is_gradient, int32_t *last,
                         placement *values, arena *memory) {
  bool *viewed = arena_alloc(memory, (size_t)g->value_count + 1);
  for (int v = 0; v < g->value_count; v++) values[v] = (placement){.offset = -1, .root = v};
  /* Views first: they have no choice, and they lengthen the life of what they look at. */
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (!(n->op->traits & OP_VIEW)) continue;
    values[n->out[0]].root = values[n->in[0]].root;
    viewed[values[n->in[0]].root] = true;
  }
  for (int v = 0; v < g->value_count; v++) {
    value_id root = values[v].root;
    if (kept[v]) last[v] = g->node_count;
    if (last[v] > last[root]) last[root] = last[v];
  }
  /* In place: when the input's buffer dies in this very node and nobody outside needs it. */
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (!(n->op->traits & OP_IN_PLACE) || n->in_count == 0 || n->in[0] == VALUE_NONE) continue;
    value_id root = values[n->in[0]].root, out = n->out[0];
    if (g->values[root].kind != VALUE_TEMP || !may_share(g, is_gradient, root) ||
        !may_share(g, is_gradient, out) || values[out].root != out || last[root] != i ||
        tensor_bytes(&g->values[root].type) != tensor_bytes(&g->values[out].type))
      continue;
    bool read_twice = false;
    for (int k = 1; k < n->in_count; k++)
      read_twice |= n->in[k] != VALUE_NONE && values[n->in[k]].root == root;
    if (read_twice) continue;
    /* `out` may already be the root of later views, so every alias moves. */
    values[out].root = root;
    for (int v = 0; viewed[out] && v < g->value_count; v++)
      if (values[v].root == out) values[v].root = root;
    if (last[out] > last[root]) last[root] = last[out];
  }
}

static int largest_first(const void *a, const void *b) {
  const buffer *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return x->value < y->value ? -1 : 1;
}

/* `placed` stays sorted by offset, so one look finds the lowest gap between those alive. */
static size_t place(buffer *list, int count) {
  buffer *placed = memory_take((size_t)count * sizeof *placed);
  int64_t peak = 0;
  qsort(list, (size_t)count, sizeof *list, largest_first);
  for (int i = 0; i < count; i++) {
    buffer *b = &list[i];
    int64_t at = 0;
    for (int j = 0; j < i; j++) {
      const buffer *other = &placed[j];
      if (other->first > b->last || b->first > other->last) continue;
      if (other->offset - at >= b->bytes) break;
      int64_t end = other->offset + other->bytes;
      if (end > at) at = end;
    }
    b->offset = at;
    if (at + b->bytes > peak) peak = at + b->bytes;
    int above = i;
    while (above > 0 && placed[above - 1].offset > at) above--;
    memmove(placed + above + 1, placed + above, (size_t)(i - above) * sizeof *placed);
    placed[above] = *b;
  }
  free(placed);
  return (size_t)peak;
}

static int64_t workspace_of(const graph *g, const node *n, int threads) {
  if (!n->op->workspace_bytes || threads == 0) return 0;
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  node_types(g, n, in, out);
  return (int64_t)n->op->workspace_bytes(n->attrs, in, n->in_count, out, threads);
}

/* Everything that wants memory, and from when to when. */
typedef struct lives {
  placement *values;
  int32_t *update_after;
  buffer *list;
  int count;
  size_t naive_bytes;
} lives;

/* A gradient is consumed once it is complete and its parameter has had its last reader. */
static void consume_gradients(const graph *g, int32_t *last, lives *out) {
  for (int v = 0; v < g->value_count; v++) {
    value_id gradient = g->values[v].kind == VALUE_PARAM ? g->values[v].gradient : VALUE_NONE;
    if (gradient == VALUE_NONE) continue;
    if (last[v] > last[gradient]) last[gradient] = last[v];
    out->update_after[v] = last[gradient] < g->node_count ? last[gradient] : g->node_count - 1;
  }
}

/* What passes leave behind when they drop a node has a producer that does not make it. */
static bool is_made(const graph *g, value_id v) {
  int32_t producer = g->values[v].producer;
  if (producer < 0 || producer >= g->node_count) return false;
  for (int k = 0; k < g->nodes[producer].out_count; k++)
    if (g->nodes[producer].out[k] == v) return true;
  return false;
}

/* From which node on the results of `producer` need memory: from the one before, if its kernel may run both
 * (op_chain). */
static int32_t first_written(const graph *g, const plan_use *use, const placement *values,
                             int32_t producer) {
  int32_t before = producer - 1;
  while (before >= 0 && (g->nodes[before].op->traits & OP_VIEW)) before--;
  if (before < 0 || !use->chains) return producer;
  const node *own = &g->nodes[before], *next = &g->nodes[producer];
  bool chains = own->op->chain && own->op->chain->next == next->op && next->in_count > 0 &&
                next->in[0] != VALUE_NONE && values[next->in[0]].root == values[own->out[0]].root;
  return chains ? before : producer;
}

static void list_values(const graph *g, const plan_use *use, const bool *outside, const bool *kept,
                        const int32_t *last, lives *out) {
  for (int v = 0; v < g->value_count; v++) {
    bool made = is_made(g, v), is_input = g->values[v].kind == VALUE_INPUT;
    if (outside[v] || !(made || (is_input && kept[v]))) continue;
    int64_t bytes = align_up((int64_t)tensor_bytes(&g->values[v].type));
    bool is_view = made && (g->nodes[g->values[v].producer].op->traits & OP_VIEW);
    if (!is_view) out->naive_bytes += (size_t)bytes;
    if (out->values[v].root != v) continue;
    int32_t first = is_input ? -1 : first_written(g, use, out->values, g->values[v].producer);
    out->list[out->count++] = (buffer){.bytes = bytes, .first = first, .last = last[v], .value = v};
  }
}

static void list_workspaces(const graph *g, int threads, lives *out) {
  for (int i = 0; i < g->node_count; i++) {
    int64_t bytes = align_up(workspace_of(g, &g->nodes[i], threads));
    if (bytes == 0) continue;
    out->naive_bytes += (size_t)bytes;
    out->list[out->count++] = (buffer){.bytes = bytes, .first = i, .last = i, .value = VALUE_NONE};
  }
}

static lives find_lives(const graph *g, const plan_use *use, arena *memory) {
  int values = g->value_count;
  lives out = {0};
  bool *kept = arena_alloc(memory, (size_t)values + 1);
  bool *is_gradient = arena_alloc(memory, (size_t)values + 1);
  bool *outside = arena_alloc(memory, (size_t)values + 1);
  int32_t *last = arena_alloc(memory, (size_t)(values + 1) * sizeof *last);
  out.values = arena_alloc(memory, (size_t)(values + 1) * sizeof *out.values);
  out.update_after = arena_alloc(memory, (size_t)(values + 1) * sizeof *out.update_after);
  out.list = arena_alloc(memory, (size_t)(values + g->node_count + 1) * sizeof *out.list);
  for (int i = 0; i < use->keep_count; i++)
    if (use->keep[i] != VALUE_NONE) kept[use->keep[i]] = true;
  for (int v = 0; v < values; v++) {
    const value *x = &g->values[v];
    out.update_after[v] = -1;
    last[v] = x->producer;
    if (x->kind == VALUE_PARAM && x->gradient != VALUE_NONE) is_gradient[x->gradient] = true;
  }
  for (int v = 0; v < values; v++)
    outside[v] = g->values[v].kind == VALUE_PARAM || (is_gradient[v] && !use->consume_gradients);
  last_reads(g, last);
  /* An input that is read keeps its memory for the whole step; one that is not gets none. */
  for (int v = 0; v < values; v++)
    if (g->values[v].kind == VALUE_INPUT && last[v] >= 0) kept[v] = true;
  choose_roots(g, kept, is_gradient, last, out.values, memory);
  if (use->consume_gradients) consume_gradients(g, last, &out);
  list_values(g, use, outside, kept, last, &out);
  list_workspaces(g, use->threads, &out);
  return out;
}

static void count_alive(const lives *l, int nodes, arena *memory, size_t *alive) {
  int64_t *change = arena_alloc(memory, (size_t)(nodes + 1) * sizeof *change), now = 0;
  for (int i = 0; i < l->count; i++) {
    change[l->list[i].first < 0 ? 0 : l->list[i].first] += l->list[i].bytes;
    if (l->list[i].last < nodes) change[l->list[i].last + 1] -= l->list[i].bytes;
  }
  for (int i = 0; i < nodes; i++) alive[i] = (size_t)(now += change[i]);
}

void plan_alive(const graph *g, const plan_use *use, size_t *alive) {
  arena memory = {0};
  lives l = find_lives(g, use, &memory);
  count_alive(&l, g->node_count, &memory, alive);
  arena_free(&memory);
}

status plan_memory(const graph *g, const plan_use *use, plan *out) {
  *out = (plan){0};
  int values = g->value_count, nodes = g->node_count;
  lives l = find_lives(g, use, &out->memory);
  out->values = l.values;
  out->update_after = l.update_after;
  out->naive_bytes = l.naive_bytes;
  out->workspace = arena_alloc(&out->memory, (size_t)(nodes + 1) * sizeof *out->workspace);
  for (int i = 0; i < nodes; i++) out->workspace[i] = -1;
  size_t *alive = arena_alloc(&out->memory, (size_t)(nodes + 1) * sizeof *alive);
  count_alive(&l, nodes, &out->memory, alive);
  for (int i = 0; i < nodes; i++)
    if (alive[i] > out->lower_bound_bytes) out->lower_bound_bytes = alive[i];
  out->arena_bytes = place(l.list, l.count);
  if (l.count > 0 && out->arena_bytes == 0) {
    plan_free(out);
    return error_out_of_memory((size_t)l.count * sizeof(buffer *));
  }
  for (int i = 0; i < l.count; i++) {
    if (l.list[i].value == VALUE_NONE)
      out->workspace[l.list[i].first] = l.list[i].offset;
    else
      out->values[l.list[i].value].offset = l.list[i].offset;
  }
  for (int v = 0; v < values; v++)
    if (out->values[v].root != v) out->values[v].offset = out->values[out->values[v].root].offset;
  return OK;
}

void plan_free(plan *p) {
  arena_free(&p->memory);
  *p = (plan){0};
}

typedef struct range {
  int64_t begin, end;
} range;

static range value_range(const graph *g, const plan *p, value_id v) {
  int64_t begin = p->values[v].offset;
  return (range){begin, begin + (int64_t)tensor_bytes(&g->values[v].type)};
}

static bool ranges_meet(range a, range b) {
  return a.begin < b.end && b.begin < a.end;
}

/* What a node writes: its outputs, then its workspace. Returns how many. */
static int written_ranges(const graph *g, const plan *p, int index, int threads, range *list,
                          value_id *roots) {
  const node *n = &g->nodes[index];
  int count = 0;
  for (int k = 0; k < n->out_count && !(n->op->traits & OP_VIEW); k++) {
    if (p->values[n->out[k]].offset < 0) continue;
    roots[count] = p->values[n->out[k]].root;
    list[count++] = value_range(g, p, n->out[k]);
  }
  if (p->workspace[index] >= 0) {
    roots[count] = VALUE_NONE;
    list[count++] = (range){p->workspace[index], p->workspace[index] + workspace_of(g, n, threads)};
  }
  return count;
}

/* The buffers that nothing has been written over yet. */
typedef struct intact_buffers {
  bool *is;       /* by root value */
  value_id *list; /* those in the arena */
  int count;
} intact_buffers;

static void become_intact(intact_buffers *b, value_id root) {
  if (!b->is[root]) b->list[b->count++] = root;
  b->is[root] = true;
}

static void spoil(const graph *g, const plan *p, intact_buffers *b, range written) {
  int kept = 0;
  for (int i = 0; i < b->count; i++) {
    value_id v = b->list[i];
    b->is[v] = !ranges_meet(written, value_range(g, p, v));
    if (b->is[v]) b->list[kept++] = v;
  }
  b->count = kept;
}

static status verify_node(const graph *g, const plan *p, int index, int threads,
                          intact_buffers *intact) {
  range written[MAX_PORTS];
  value_id roots[MAX_PORTS];
  const node *n = &g->nodes[index];
  int count = written_ranges(g, p, index, threads, written, roots);
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < i; k++)
      if (ranges_meet(written[i], written[k]))
        return error_new(ERROR_INTERNAL, n->at, "%s writes two results to one place", n->name);
    for (int k = 0; k < n->in_count; k++) {
      value_id v = n->in[k];
      if (v == VALUE_NONE || p->values[v].offset < 0 || p->values[v].root == roots[i]) continue;
      if (ranges_meet(written[i], value_range(g, p, v)))
        return error_new(ERROR_INTERNAL, n->at, "%s overwrites its input %s", n->name,
                         g->values[v].name);
    }
    spoil(g, p, intact, written[i]);
  }
  for (int i = 0; i < count; i++)
    if (roots[i] != VALUE_NONE) become_intact(intact, roots[i]);
  return OK;
}

static status verify_reads(const graph *g, const plan *p, const value_id *reads, int count,
                           const bool *intact) {
  for (int k = 0; k < count; k++) {
    value_id v = reads[k];
    if (v == VALUE_NONE || p->values[v].offset < 0 || intact[p->values[v].root]) continue;
    return error_new(ERROR_INTERNAL, NOWHERE, "value %s is overwritten before its last reader",
                     g->values[v].name);
  }
  return OK;
}

/* The updates between node `index` and the next. */
static status verify_updates(const graph *g, const plan *p, int index, const bool *intact) {
  for (int v = 0; v < g->value_count; v++)
    if (p->update_after[v] == index) TRY(verify_reads(g, p, &g->values[v].gradient, 1, intact));
  const node *n = &g->nodes[index];
  for (int k = 0; k < n->in_count; k++) {
    int32_t after = n->in[k] == VALUE_NONE ? -1 : p->update_after[p->values[n->in[k]].root];
    if (after >= 0 && after < index)
      return error_new(ERROR_INTERNAL, n->at, "%s reads %s after its update", n->name,
                       g->values[n->in[k]].name);
  }
  return OK;
}

/* Replays the step: a write claims its range and spoils whatever else lay there; a read finds its
 * buffer unspoilt. */
status plan_verify(const graph *g, const plan *p, const plan_use *use) {
  arena memory = {0};
  intact_buffers intact = {
      .is = arena_alloc(&memory, (size_t)g->value_count + 1),
      .list = arena_alloc(&memory, (size_t)(g->value_count + 1) * sizeof *intact.list)};
  for (int v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_INPUT && p->values[v].offset >= 0) become_intact(&intact, v);
  status error = OK;
  for (int i = 0; i < g->node_count && !error; i++) {
    error = verify_reads(g, p, g->nodes[i].in, g->nodes[i].in_count, intact.is);
    if (!error) error = verify_node(g, p, i, use->threads, &intact);
    if (!error) error = verify_updates(g, p, i, intact.is);
  }
  if (!error) error = verify_reads(g, p, use->keep, use->keep_count, intact.is);
  arena_free(&memory);
  return error;
}
