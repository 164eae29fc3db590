#include "graph/graph.h"

#include "base/memory.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

graph *graph_new(bool training) {
  graph *g = memory_take(sizeof *g);
  g->training = training;
  return g;
}

void graph_free(graph *g) {
  if (!g) return;
  arena_free(&g->memory);
  free(g);
}

const tensor *value_type(const builder *b, value_id v) {
  return &b->g->values[v].type;
}

status shape_error(const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_PIPELINE, NOWHERE, format, args);
  va_end(args);
  return error;
}

static value_id add_value(graph *g, value_kind kind, const char *name, dtype type, shape s,
                          int32_t producer) {
  value v = {.name = name,
             .type = {.dtype = type, .shape = s},
             .kind = kind,
             .producer = producer,
             .gradient = VALUE_NONE};
  ARENA_PUSH(&g->memory, g->values, g->value_count, g->value_capacity, v);
  return g->value_count - 1;
}

value_id build_input(builder *b, const char *name, dtype type, shape s) {
  return add_value(b->g, VALUE_INPUT, arena_strdup(&b->g->memory, name), type, s, -1);
}

status build_param(builder *b, const char *name, param_spec spec, value_id *out) {
  graph *g = b->g;
  *out = index_find(&g->parameters, name);
  if (*out < 0) {
    const char *own_name = arena_strdup(&g->memory, name);
    *out = add_value(g, VALUE_PARAM, own_name, DTYPE_F32, spec.shape, -1);
    g->values[*out].init = spec;
    index_add(&g->memory, &g->parameters, own_name, *out);
    return OK;
  }
  const shape *known = &g->values[*out].type.shape;
  if (shape_equal(known, &spec.shape)) return OK;
  char have[96], want[96];
  return error_new(ERROR_PIPELINE, b->at,
                   "parameter %s is used twice with different shapes, %s and %s", name,
                   shape_format(have, known), shape_format(want, &spec.shape));
}

static const char *joined(builder *b, const char *prefix, const char *name) {
  if (!name[0]) return prefix;
  if (!prefix[0]) return arena_strdup(&b->g->memory, name);
  return arena_printf(&b->g->memory, "%s.%s", prefix, name);
}

static status node_error(const builder *b, const op *o, status error) {
  const char *name = b->prefix && b->prefix[0] ? b->prefix : o->name;
  const char *what = b->composite ? b->composite->name : o->name;
  return error_locate(error_prefix(error, "%s (%s)", name, what), b->at);
}

/* What is wrong with an operator's inputs, and, of several, which they are in which order. */
static status input_error(builder *b, const op *o, status error) {
  const char *names = "";
  int count = 0;
  for (const port *p = o->inputs; p && p->name; p++)
    if (!(p->flags & PORT_PARAM))
      names = arena_printf(&b->g->memory, "%s%s%s%s", names, count++ > 0 ? ", " : "", p->name,
                           p->flags & PORT_VARIADIC ? " …" : "");
  b->bad_input = true;
  if (count > 1) error = error_suffix(error, "; its inputs are %s", names);
  return node_error(b, o, error);
}

static bool is_variadic(const op *o, int *fixed) {
  int ports = port_count(o->inputs);
  bool variadic = ports > 0 && (o->inputs[ports - 1].flags & PORT_VARIADIC);
  *fixed = variadic ? ports - 1 : ports;
  return variadic;
}

const port *input_port(const op *o, int index) {
  int fixed;
  is_variadic(o, &fixed);
  return &o->inputs[index < fixed ? index : fixed];
}

static const char *contents_of(dtype type) {
  return type == DTYPE_F32   ? "real numbers (f32)"
         : type == DTYPE_I32 ? "class numbers (i32)"
                             : "sets of regions";
}

/* Arity and element types; absent inputs only where the port allows them. */
static status check_inputs(const builder *b, const op *o, const value_id *in, int in_count) {
  int fixed;
  bool variadic = is_variadic(o, &fixed);
  if (in_count > MAX_PORTS) return shape_error("takes at most %d inputs", MAX_PORTS);
  if (in_count < fixed || (in_count > fixed && !variadic) || (variadic && in_count == fixed))
    return shape_error("takes %s%d input%s, but %d %s given", variadic ? "at least " : "",
                       variadic ? fixed + 1 : fixed, fixed == 1 && !variadic ? "" : "s", in_count,
                       in_count == 1 ? "is" : "are");
  for (int i = 0; i < in_count; i++) {
    const port *p = input_port(o, i);
    if (in[i] == VALUE_NONE) {
      if (!(p->flags & (PORT_OPTIONAL | PORT_PARAM)))
        return shape_error("input \"%s\" is missing", p->name);
      continue;
    }
    const tensor *t = value_type(b, in[i]);
    bool fits = t->dtype == p->dtype || (t->dtype == DTYPE_REGIONS && p->flags & PORT_OR_REGIONS);
    if (!fits)
      return shape_error("input \"%s\" must hold %s, but %s holds %s", p->name,
                         contents_of(p->dtype), b->g->values[in[i]].name, contents_of(t->dtype));
  }
  return OK;
}

static void input_types(const builder *b, const value_id *in, int in_count, tensor *types) {
  for (int i = 0; i < in_count; i++) {
    if (in[i] == VALUE_NONE)
      types[i] = (tensor){.shape = {.rank = -1}};
    else
      types[i] = *value_type(b, in[i]);
  }
}

/* A loss of labels or regions needs an output for each. */
static status check_classes(const builder *b, const op *o, const value_id *in, int in_count) {
  if (b->backward || strcmp(o->family, "loss") != 0 || in_count < 2 || in[1] == VALUE_NONE)
    return OK;
  const value *target = &b->g->values[in[1]], *scores = &b->g->values[in[0]];
  const shape *s = &scores->type.shape;
  long long outputs = s->rank > 0 ? (long long)s->dim[s->rank - 1] : 0;
  long long classes = (long long)target->classes;
  if (classes == 0) return OK;
  if (target->type.dtype == DTYPE_REGIONS)
    return outputs == classes ? OK
                              : shape_error("%s has %lld outputs, but the data have %lld regions: "
                                            "outputs: \"${regions}\"",
                                            scores->name, outputs, classes);
  return outputs >= classes
             ? OK
             : shape_error("%s has %lld outputs, but labels are of %lld classes, 0 to %lld: "
                           "outputs: \"${classes}\"",
                           scores->name, outputs, classes, classes - 1);
}

/* What an operator makes of one label map tells apart as many classes. */
static int64_t classes_of_result(const builder *b, const op *o, const value_id *in, int in_count,
                                 dtype type) {
  bool keeps = in_count == 1 && o->inputs[0].flags & PORT_OR_REGIONS;
  const value *label = keeps ? &b->g->values[in[0]] : NULL;
  return label && label->type.dtype == type ? label->classes : 0;
}

/* A dimension product that overflows, or a dimension below 1, would poison every later size. */
static status check_extent(const shape *s) {
  double elements = 1;
  for (int i = 0; i < s->rank; i++) {
    if (s->dim[i] < 1) {
      char have[96];
      return shape_error("would produce an empty result of shape %s", shape_format(have, s));
    }
    elements *= (double)s->dim[i];
  }
  if (elements > 1e12) {
    char have[96];
    return shape_error("would produce %s, more than 10^12 elements", shape_format(have, s));
  }
  return OK;
}

static status infer_outputs(const graph *g, const op *o, const void *attrs, const tensor *in,
                            int in_count, tensor *out) {
  int outputs = port_count(o->outputs);
  for (int i = 0; i < outputs; i++)
    out[i] = (tensor){.dtype = o->outputs[i].dtype, .shape = {.rank = 0}};
  infer rule = {
      .attrs = attrs, .in = in, .in_count = in_count, .out = out, .training = g->training};
  TRY(o->infer(&rule));
  for (int i = 0; i < outputs; i++) TRY(check_extent(&out[i].shape));
  return OK;
}

/* `rate: 0` of dropout and its kin costs nothing. */
static bool is_switched_off(const op *o, void *attrs) {
  const double *rate = attr_number(o, attrs, "rate");
  return rate && *rate == 0;
}

/* Dropout inside an operator: off outside training. */
static void leave_training(const op *o, void *attrs) {
  for (const attr *a = o->attrs; a && a->name; a++)
    if (a->flags & ATTR_TRAINING) *attr_number(o, attrs, a->name) = 0;
}

status build_node(builder *b, const char *op_name, const void *attrs, const value_id *in,
                  int in_count, value_id *out) {
  graph *g = b->g;
  const op *o = op_find(op_name);
  if (!o) return error_new(ERROR_INTERNAL, b->at, "no operator is called %s", op_name);
  void *own_attrs = arena_alloc(&g->memory, o->attrs_bytes ? o->attrs_bytes : 1);
  if (attrs)
    memcpy(own_attrs, attrs, o->attrs_bytes);
  else
    op_defaults(o, own_attrs);
  if (!g->training) leave_training(o, own_attrs);
  status error = check_inputs(b, o, in, in_count);
  if (error) return input_error(b, o, error);
  if (o->lower) {
    lower composite = {.b = b, .attrs = own_attrs, .in = in, .in_count = in_count, .out = out};
    const op *outer = b->composite;
    if (!outer) b->composite = o;
    error = o->lower(&composite);
    /* What the nodes inside say has its place already. */
    if (error && error_position(error).line == 0) error = node_error(b, o, error);
    b->composite = outer;
    return error;
  }
  if ((o->traits & OP_TRAIN_ONLY) && (!g->training || is_switched_off(o, own_attrs))) {
    out[0] = in[0];
    return OK;
  }
  tensor *types = arena_alloc(&g->memory, (size_t)(in_count + 1) * sizeof *types);
  input_types(b, in, in_count, types);
  int outputs = port_count(o->outputs);
  tensor *out_types = arena_alloc(&g->memory, (size_t)(outputs + 1) * sizeof *out_types);
  error = infer_outputs(g, o, own_attrs, types, in_count, out_types);
  if (!error) error = check_classes(b, o, in, in_count);
  if (error) return node_error(b, o, error);

  node n = {.op = o,
            .attrs = own_attrs,
            .in = arena_copy(&g->memory, in, (size_t)in_count * sizeof *in),
            .out = arena_alloc(&g->memory, (size_t)(outputs + 1) * sizeof *n.out),
            .in_count = in_count,
            .out_count = outputs,
            .name = b->prefix ? b->prefix : "",
            .at = b->at,
            .backward = b->backward,
            .use = b->use};
  for (int i = 0; i < outputs; i++) {
    const char *name =
        i == 0 ? n.name : arena_printf(&g->memory, "%s.%s", n.name, o->outputs[i].name);
    n.out[i] =
        add_value(g, VALUE_TEMP, name, out_types[i].dtype, out_types[i].shape, g->node_count);
    out[i] = n.out[i];
    g->values[out[i]].classes = classes_of_result(b, o, in, in_count, out_types[i].dtype);
  }
  ARENA_PUSH(&g->memory, g->nodes, g->node_count, g->node_capacity, n);
  return OK;
}

status build_apply(builder *b, const char *name, const op *o, const void *attrs, const value_id *in,
                   int in_count, value_id *out) {
  const char *outer = b->prefix ? b->prefix : "", *owner = b->owner;
  b->prefix = joined(b, outer, name);
  if (!owner) owner = b->prefix;
  b->owner = NULL; /* what a composite builds inside is named after itself */
  int params = 0, plain = 0, fixed;
  for (const port *p = o->inputs; p && p->name; p++) {
    params += (p->flags & PORT_PARAM) != 0;
    plain += !(p->flags & PORT_PARAM);
  }
  bool variadic = is_variadic(o, &fixed);
  /* Trailing optional inputs may be left out. */
  int total = fixed + (variadic ? in_count - (plain - 1) : 0);
  if (total < fixed) total = fixed;
  value_id *all = arena_alloc(&b->g->memory, (size_t)(total + 1) * sizeof *all);
  status error = OK;
  param_spec *specs = arena_alloc(&b->g->memory, (size_t)(params + 1) * sizeof *specs);
  if (in_count > plain && !variadic)
    error = input_error(
        b, o,
        shape_error("takes %d input%s, but %d are given", plain, plain == 1 ? "" : "s", in_count));
  int seen = 0;
  for (const port *p = o->inputs; !error && p && p->name && seen < in_count; p++) {
    if (p->flags & PORT_PARAM) continue;
    /* A missing required input must not reach the parameter rule. */
    if (in[seen++] == VALUE_NONE && !(p->flags & PORT_OPTIONAL))
      error = input_error(b, o, shape_error("input %d is missing", seen));
  }
  int required = 0;
  for (const port *p = o->inputs; p && p->name; p++)
    required += !(p->flags & (PORT_PARAM | PORT_OPTIONAL));
  if (!error && in_count < required)
    error =
        input_error(b, o,
                    shape_error("takes %d input%s, but %d %s given", required,
                                required == 1 ? "" : "s", in_count, in_count == 1 ? "is" : "are"));
  if (!error && params > 0) {
    tensor *types = arena_alloc(&b->g->memory, (size_t)(in_count + 1) * sizeof *types);
    input_types(b, in, in_count, types);
    error = o->params(attrs, types, in_count, specs);
    if (error) error = node_error(b, o, error);
  }
  int next_in = 0, next_param = 0;
  for (int i = 0; !error && i < total; i++) {
    const port *p = input_port(o, i);
    if (!(p->flags & PORT_PARAM)) {
      all[i] = next_in < in_count ? in[next_in++] : VALUE_NONE;
      continue;
    }
    const param_spec *spec = &specs[next_param++];
    if (spec->shape.rank < 0) {
      all[i] = VALUE_NONE;
      continue;
    }
    error = check_extent(&spec->shape);
    if (error) {
      error = node_error(b, o, error);
      break;
    }
    const char *own_name = p->flags & PORT_OF_ITEM ? "" : p->name;
    error = build_param(b, joined(b, owner, own_name), *spec, &all[i]);
    if (!error) b->g->values[all[i]].state = p->flags & PORT_STATE;
  }
  if (!error) error = build_node(b, o->name, attrs, all, total, out);
  b->prefix = outer;
  return error;
}

uint64_t node_stream(const node *n) {
  uint64_t named = text_hash(n->name);
  return n->use == 0 ? named : hash_mix(named, (uint64_t)n->use);
}

status graph_verify(const graph *g) {
  builder b = {.g = (graph *)g};
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    for (int k = 0; k < n->in_count; k++) {
      value_id v = n->in[k];
      if (v == VALUE_NONE) continue;
      if (v < 0 || v >= g->value_count || g->values[v].producer >= i)
        return error_new(ERROR_INTERNAL, n->at, "%s (%s) reads a value before it is made", n->name,
                         n->op->name);
    }
    for (int k = 0; k < n->out_count; k++)
      if (g->values[n->out[k]].producer != i)
        return error_new(ERROR_INTERNAL, n->at, "%s (%s) does not own its output", n->name,
                         n->op->name);
    tensor in[MAX_PORTS], out[MAX_PORTS / 4];
    input_types(&b, n->in, n->in_count, in);
    TRY(error_locate(infer_outputs(g, n->op, n->attrs, in, n->in_count, out), n->at));
    for (int k = 0; k < n->out_count; k++)
      if (!shape_equal(&out[k].shape, &g->values[n->out[k]].type.shape))
        return error_new(ERROR_INTERNAL, n->at, "%s (%s) changed shape after it was built", n->name,
                         n->op->name);
  }
  return OK;
}

bool value_is_read(const graph *g, value_id v) {
  for (int i = 0; i < g->node_count; i++)
    for (int k = 0; k < g->nodes[i].in_count; k++)
      if (g->nodes[i].in[k] == v) return true;
  return false;
}

bool *graph_read_values(const graph *g, arena *memory) {
  bool *is_read = arena_alloc(memory, (size_t)g->value_count + 1);
  for (int i = 0; i < g->node_count; i++)
    for (int k = 0; k < g->nodes[i].in_count; k++)
      if (g->nodes[i].in[k] != VALUE_NONE) is_read[g->nodes[i].in[k]] = true;
  return is_read;
}

int64_t graph_param_elements(const graph *g) {
  arena memory = {0};
  const bool *is_read = graph_read_values(g, &memory);
  int64_t total = 0;
  for (int i = 0; i < g->value_count; i++)
    if (g->values[i].kind == VALUE_PARAM && !g->values[i].state && is_read[i])
      total += shape_elements(&g->values[i].type.shape);
  arena_free(&memory);
  return total;
}

int *graph_reader_counts(const graph *g, const value_id *keep, int keep_count) {
  int *readers = memory_take((size_t)g->value_count * sizeof *readers);
  for (int i = 0; i < keep_count; i++)
    if (keep[i] != VALUE_NONE) readers[keep[i]]++;
  for (int i = 0; i < g->node_count; i++)
    for (int k = 0; k < g->nodes[i].in_count; k++)
      if (g->nodes[i].in[k] != VALUE_NONE) readers[g->nodes[i].in[k]]++;
  return readers;
}

void node_types(const graph *g, const node *n, tensor *in, tensor *out) {
  for (int k = 0; k < n->in_count; k++)
    in[k] = n->in[k] == VALUE_NONE ? (tensor){.shape = {.rank = -1}} : g->values[n->in[k]].type;
  for (int k = 0; k < n->out_count; k++) out[k] = g->values[n->out[k]].type;
}
