/* differentiate: appends the backward nodes of a scalar loss.
 *
 * Reverse-mode: nodes are visited last to first; each operator's gradient rule emits nodes that
 * turn the gradients of its outputs into gradients of its inputs. Several contributions to one
 * value are added by one variadic `add`, in the order the consumers stand in the graph, so results
 * do not depend on how the graph was assembled. Only what all slices of a value give back is joined. */
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

typedef struct contributions {
  value_id *list;
  int count, capacity;
} contributions;

typedef struct pass {
  graph *g;
  builder b;
  bool *needed;         /* per value: some parameter is upstream */
  contributions *parts; /* per value of the forward graph */
  int values;
  bool *owned; /* per value of before parameters were given theirs: it is a parameter's gradient */
  int made;    /* values of then */
} pass;

/* Are they gradients of slices, among zeros, that side by side are the whole of a value? Then `parts` receives
 * them without the zeros, as they lie, and the result is the axis of the slices; otherwise −1. */
static int side_by_side(const graph *g, const contributions *c, value_id *parts) {
  int axis = -1;
  int64_t end = 0, total = 1;
  for (int placed = 0; placed < c->count; placed++) {
    const node *next = NULL;
    for (int i = 0; i < c->count && !next; i++) {
      int32_t producer = g->values[c->list[i]].producer;
      const node *n = producer < 0 ? NULL : &g->nodes[producer];
      if (!n || strcmp(n->op->name, "slice_backward") != 0) return -1;
      if (*attr_integer(n->op, n->attrs, "start") == end) next = n;
    }
    if (!next || (placed > 0 && *attr_choice(next->op, next->attrs, "axis") != axis)) return -1;
    axis = *attr_choice(next->op, next->attrs, "axis");
    total = *attr_integer(next->op, next->attrs, "total");
    int64_t one = shape_elements(&g->values[next->out[0]].type.shape) / total;
    end += shape_elements(&g->values[next->in[0]].type.shape) / one;
    parts[placed] = next->in[0];
  }
  return end == total ? axis : -1;
}

static status join(pass *p, const value_id *parts, int count, int axis, value_id *out) {
  const op *concat = op_find("concat");
  void *attrs = arena_alloc(&p->g->memory, concat->attrs_bytes);
  op_defaults(concat, attrs);
  *attr_choice(concat, attrs, "axis") = axis;
  return build_node(&p->b, "concat", attrs, parts, count, out);
}

/* The gradient of v, all contributions together, or VALUE_NONE. */
static status total_gradient(pass *p, value_id v, value_id *out) {
  contributions *c = &p->parts[v];
  *out = c->count ? c->list[0] : VALUE_NONE;
  if (c->count <= 1) return OK;
  value_id parts[MAX_PORTS];
  int axis = c->count <= MAX_PORTS ? side_by_side(p->g, c, parts) : -1;
  if (axis >= 0) return join(p, parts, c->count, axis, out);
  for (int i = 0; i < c->count / 2; i++) {
    value_id swapped = c->list[i];
    c->list[i] = c->list[c->count - 1 - i];
    c->list[c->count - 1 - i] = swapped;
  }
  while (c->count > 1) {
    int together = c->count < MAX_PORTS ? c->count : MAX_PORTS;
    TRY(build_node(&p->b, "add", NULL, c->list, together, out));
    c->list[0] = *out;
    memmove(c->list + 1, c->list + together, (size_t)(c->count - together) * sizeof *c->list);
    c->count -= together - 1;
  }
  return OK;
}

static status node_backward(pass *p, int index) {
  graph *g = p->g;
  node n = g->nodes[index]; /* a copy: the table moves as nodes are added */
  bool any = false;
  bool *wanted = arena_alloc(&g->memory, (size_t)n.in_count + 1);
  for (int i = 0; i < n.in_count; i++) {
    wanted[i] = n.in[i] != VALUE_NONE && p->needed[n.in[i]];
    any |= wanted[i];
  }
  if (!any) return OK;
  p->b.at = n.at;
  p->b.prefix = n.name;
  p->b.use = n.use;
  value_id *dy = arena_alloc(&g->memory, (size_t)(n.out_count + 1) * sizeof *dy);
  bool reached = false;
  for (int i = 0; i < n.out_count; i++) {
    TRY(total_gradient(p, n.out[i], &dy[i]));
    reached |= dy[i] != VALUE_NONE;
  }
  if (!reached) return OK;
  if (!n.op->grad)
    return error_new(ERROR_PIPELINE, n.at,
                     "%s: operator %s has no gradient, but the loss depends on parameters through "
                     "it; compute it outside the path from the parameters to the loss",
                     n.name, n.op->name);
  value_id *dx = arena_alloc(&g->memory, (size_t)(n.in_count + 1) * sizeof *dx);
  for (int i = 0; i < n.in_count; i++) dx[i] = VALUE_NONE;
  grad rule = {.b = &p->b,
               .attrs = n.attrs,
               .in = n.in,
               .out = n.out,
               .in_count = n.in_count,
               .out_count = n.out_count,
               .dy = dy,
               .wanted = wanted,
               .dx = dx};
  TRY(error_locate(n.op->grad(&rule), n.at));
  for (int i = 0; i < n.in_count; i++) {
    if (!wanted[i] || dx[i] == VALUE_NONE) continue;
    if (!shape_equal(&value_type(&p->b, dx[i])->shape, &value_type(&p->b, n.in[i])->shape))
      return error_new(ERROR_INTERNAL, n.at, "%s: the gradient rule of %s returns a wrong shape",
                       n.name, n.op->name);
    contributions *c = &p->parts[n.in[i]];
    ARENA_PUSH(&g->memory, c->list, c->count, c->capacity, dx[i]);
  }
  return OK;
}

/* A parameter's gradient needs memory of its own that outlives the step's temporaries, so one that
 * is a view, a forward value, or already another parameter's is copied. */
static status own_gradient(pass *p, value_id param, value_id gradient) {
  graph *g = p->g;
  int32_t producer = g->values[gradient].producer;
  bool is_shared = gradient < p->made && p->owned[gradient];
  bool copy = producer < 0 || (g->nodes[producer].op->traits & OP_VIEW) || gradient < p->values ||
              is_shared;
  if (copy) TRY(build_node(&p->b, "add", NULL, &gradient, 1, &gradient));
  if (gradient < p->made) p->owned[gradient] = true;
  g->values[param].gradient = gradient;
  return OK;
}

status graph_differentiate_from(graph *g, const value_id *outputs, const value_id *seeds,
                                int count) {
  pass p = {.g = g, .b = {.g = g, .backward = true}, .values = g->value_count};
  int nodes = g->node_count;
  p.needed = calloc((size_t)p.values, sizeof *p.needed);
  p.parts = calloc((size_t)p.values, sizeof *p.parts);
  if (!p.needed || !p.parts) {
    free(p.needed);
    free(p.parts);
    return error_out_of_memory((size_t)p.values * sizeof *p.parts);
  }
  for (int v = 0; v < p.values; v++)
    p.needed[v] = g->values[v].kind == VALUE_PARAM && !g->values[v].state;
  for (int i = 0; i < nodes; i++) {
    const node *n = &g->nodes[i];
    bool any = false;
    for (int k = 0; k < n->in_count; k++) any |= n->in[k] != VALUE_NONE && p.needed[n->in[k]];
    for (int k = 0; k < n->out_count; k++)
      p.needed[n->out[k]] = any && g->values[n->out[k]].type.dtype == DTYPE_F32;
  }
  status error = OK;
  bool reachable = false;
  for (int i = 0; i < count; i++) {
    reachable |= p.needed[outputs[i]];
    contributions *c = &p.parts[outputs[i]];
    ARENA_PUSH(&g->memory, c->list, c->count, c->capacity, seeds[i]);
  }
  if (!reachable)
    error = error_new(ERROR_PIPELINE, NOWHERE, "the loss does not depend on any parameter");
  for (int i = nodes - 1; i >= 0 && !error; i--) error = node_backward(&p, i);
  p.made = g->value_count;
  p.owned = arena_alloc(&g->memory, (size_t)p.made);
  for (value_id v = 0; v < p.values && !error; v++) {
    if (g->values[v].kind != VALUE_PARAM) continue;
    value_id gradient;
    p.b.prefix = g->values[v].name;
    error = total_gradient(&p, v, &gradient);
    if (!error && gradient != VALUE_NONE) error = own_gradient(&p, v, gradient);
  }
  free(p.needed);
  free(p.parts);
  return error;
}

status graph_differentiate(graph *g, value_id loss) {
  if (g->values[loss].type.shape.rank != 0)
    return error_new(ERROR_INTERNAL, NOWHERE, "the loss is not a scalar");
  builder b = {.g = g, .prefix = "loss", .backward = true};
  value_id one;
  TRY(build_node(&b, "constant", NULL, NULL, 0, &one));
  return graph_differentiate_from(g, &loss, &one, 1);
}
