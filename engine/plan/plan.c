#include "plan/plan.h"

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

static bool in_arena(const graph *g, const bool *is_gradient, value_id v) {
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
                         placement *values) {
  for (int v = 0; v < g->value_count; v++) values[v] = (placement){.offset = -1, .root = v};
  /* Views first: they have no choice, and they lengthen the life of what they look at. */
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (n->op->traits & OP_VIEW) values[n->out[0]].root = values[n->in[0]].root;
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
    if (g->values[root].kind != VALUE_TEMP || !in_arena(g, is_gradient, root) ||
        !in_arena(g, is_gradient, out) || values[out].root != out || last[root] != i ||
        tensor_bytes(&g->values[root].type) != tensor_bytes(&g->values[out].type))
      continue;
    bool read_twice = false;
    for (int k = 1; k < n->in_count; k++)
      read_twice |= n->in[k] != VALUE_NONE && values[n->in[k]].root == root;
    if (read_twice) continue;
    /* `out` may already be the root of later views, so every alias moves. */
    for (int v = 0; v < g->value_count; v++)
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

static int by_offset(const void *a, const void *b) {
  const buffer *x = *(const buffer *const *)a, *y = *(const buffer *const *)b;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t place(buffer *list, int count) {
  const buffer **alive = calloc((size_t)count + 1, sizeof *alive);
  int64_t peak = 0;
  if (!alive) return 0;
  qsort(list, (size_t)count, sizeof *list, largest_first);
  for (int i = 0; i < count; i++) {
    int overlapping = 0;
    for (int j = 0; j < i; j++)
      if (list[j].first <= list[i].last && list[i].first <= list[j].last)
        alive[overlapping++] = &list[j];
    qsort(alive, (size_t)overlapping, sizeof *alive, by_offset);
    int64_t at = 0;
    for (int j = 0; j < overlapping; j++) {
      if (alive[j]->offset - at >= list[i].bytes) break;
      int64_t end = alive[j]->offset + alive[j]->bytes;
      if (end > at) at = end;
    }
    list[i].offset = at;
    if (at + list[i].bytes > peak) peak = at + list[i].bytes;
  }
  free(alive);
  return (size_t)peak;
}

static size_t most_alive(const buffer *list, int count, int nodes) {
  size_t most = 0;
  for (int i = -1; i <= nodes; i++) {
    size_t now = 0;
    for (int j = 0; j < count; j++)
      if (list[j].first <= i && i <= list[j].last) now += (size_t)list[j].bytes;
    if (now > most) most = now;
  }
  return most;
}

static int64_t workspace_of(const graph *g, const node *n, int threads) {
  if (!n->op->workspace_bytes || threads == 0) return 0;
  tensor in[MAX_PORTS], out[MAX_PORTS / 4];
  for (int k = 0; k < n->in_count; k++)
    in[k] = n->in[k] == VALUE_NONE ? (tensor){.shape = {.rank = -1}} : g->values[n->in[k]].type;
  for (int k = 0; k < n->out_count; k++) out[k] = g->values[n->out[k]].type;
  return (int64_t)n->op->workspace_bytes(n->attrs, in, n->in_count, out, threads);
}

status plan_memory(const graph *g, const value_id *keep, int keep_count, int threads, plan *out) {
  *out = (plan){0};
  int values = g->value_count, nodes = g->node_count;
  bool *kept = arena_alloc(&out->memory, (size_t)values + 1);
  bool *is_gradient = arena_alloc(&out->memory, (size_t)values + 1);
  int32_t *last = arena_alloc(&out->memory, (size_t)(values + 1) * sizeof *last);
  for (int i = 0; i < keep_count; i++)
    if (keep[i] != VALUE_NONE) kept[keep[i]] = true;
  for (int v = 0; v < values; v++) {
    last[v] = g->values[v].producer;
    if (g->values[v].kind == VALUE_PARAM && g->values[v].gradient != VALUE_NONE)
      is_gradient[g->values[v].gradient] = true;
  }
  last_reads(g, last);
  /* An input that is read keeps its memory for the whole step; one that is not gets none. */
  for (int v = 0; v < values; v++)
    if (g->values[v].kind == VALUE_INPUT && last[v] >= 0) kept[v] = true;
  out->values = arena_alloc(&out->memory, (size_t)(values + 1) * sizeof *out->values);
  out->workspace = arena_alloc(&out->memory, (size_t)(nodes + 1) * sizeof *out->workspace);
  choose_roots(g, kept, is_gradient, last, out->values);

  buffer *list = arena_alloc(&out->memory, (size_t)(values + nodes + 1) * sizeof *list);
  int count = 0;
  for (int v = 0; v < values; v++) {
    int32_t producer = g->values[v].producer;
    bool made = producer >= 0 && producer < nodes;
    for (int k = 0; made && k <= g->nodes[producer].out_count; k++) {
      if (k == g->nodes[producer].out_count)
        made = false; /* left behind by a pass that dropped its node */
      else if (g->nodes[producer].out[k] == v)
        break;
    }
    if (!made && g->values[v].kind == VALUE_TEMP) continue;
    if (!in_arena(g, is_gradient, v) || (!made && !kept[v])) continue;
    int64_t bytes = align_up((int64_t)tensor_bytes(&g->values[v].type));
    bool is_view = made && (g->nodes[producer].op->traits & OP_VIEW);
    if (!is_view) out->naive_bytes += (size_t)bytes;
    if (out->values[v].root != v) continue;
    list[count++] = (buffer){.bytes = bytes,
                             .first = g->values[v].kind == VALUE_INPUT ? -1 : producer,
                             .last = last[v],
                             .value = v};
  }
  for (int i = 0; i < nodes; i++) {
    int64_t bytes = align_up(workspace_of(g, &g->nodes[i], threads));
    out->workspace[i] = -1;
    if (bytes == 0) continue;
    out->naive_bytes += (size_t)bytes;
    list[count++] = (buffer){.bytes = bytes, .first = i, .last = i, .value = VALUE_NONE};
  }
  out->lower_bound_bytes = most_alive(list, count, nodes);
  out->arena_bytes = place(list, count);
  if (count > 0 && out->arena_bytes == 0) {
    plan_free(out);
    return error_out_of_memory((size_t)count * sizeof(buffer *));
  }
  for (int i = 0; i < count; i++) {
    if (list[i].value == VALUE_NONE)
      out->workspace[list[i].first] = list[i].offset;
    else
      out->values[list[i].value].offset = list[i].offset;
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

static status verify_node(const graph *g, const plan *p, int index, int threads, bool *intact) {
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
    for (int v = 0; v < g->value_count; v++)
      if (intact[v] && v != roots[i] && p->values[v].offset >= 0 &&
          ranges_meet(written[i], value_range(g, p, v)))
        intact[v] = false;
  }
  for (int i = 0; i < count; i++)
    if (roots[i] != VALUE_NONE) intact[roots[i]] = true;
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

/* Replays the step: a write claims its range and spoils whatever else lay there; a read finds its
 * buffer unspoilt. */
status plan_verify(const graph *g, const plan *p, const value_id *keep, int keep_count,
                   int threads) {
  bool *intact = calloc((size_t)g->value_count + 1, sizeof *intact);
  if (!intact) return error_out_of_memory((size_t)g->value_count);
  for (int v = 0; v < g->value_count; v++) intact[v] = g->values[v].kind == VALUE_INPUT;
  status error = OK;
  for (int i = 0; i < g->node_count && !error; i++) {
    error = verify_reads(g, p, g->nodes[i].in, g->nodes[i].in_count, intact);
    if (!error) error = verify_node(g, p, i, threads, intact);
  }
  if (!error) error = verify_reads(g, p, keep, keep_count, intact);
  free(intact);
  return error;
}
