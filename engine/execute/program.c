#include "execute/bound.h"

#include "data/label.h"
#include "graph/passes.h"
#include "graph/storage.h"

#include <stdlib.h>
#include <string.h>

static const parameter *parameter_of(const program *p, value_id v) {
  return parameters_find(p->parameters, p->g->values[v].name);
}

/* Values that live in the gradient buffer: value → parameter. */
static const parameter *gradient_owner(const program *p, value_id v) {
  for (int i = 0; i < p->g->value_count; i++)
    if (p->g->values[i].kind == VALUE_PARAM && p->g->values[i].gradient == v)
      return parameter_of(p, i);
  return NULL;
}

void *program_data(const program *p, value_id v) {
  if (v == VALUE_NONE) return NULL;
  v = p->plan.values[v].root; /* a view of a parameter has the parameter's memory */
  if (p->g->values[v].kind == VALUE_PARAM) return p->parameters->data + parameter_of(p, v)->offset;
  if (p->plan.values[v].offset >= 0) return (char *)p->arena + p->plan.values[v].offset;
  const parameter *owner = p->gradients ? gradient_owner(p, v) : NULL;
  return owner ? p->gradients + owner->offset : NULL;
}

static tensor bound_tensor(const program *p, value_id v) {
  if (v == VALUE_NONE) return (tensor){.shape = {.rank = -1}};
  tensor t = p->g->values[v].type;
  t.data = program_data(p, v);
  return t;
}

size_t bound_packed_bytes(const bound_call *b) {
  const bool *packed = b->node ? node_packed(b->node) : NULL;
  if (!packed || !*packed) return 0;
  return b->op->packing->bytes(b->call.attrs, b->call.in, b->call.in_count, b->call.out);
}

static void bind_node(program *p, int index, bound_call *bound) {
  const node *n = &p->g->nodes[index];
  tensor *in = arena_alloc(&p->memory, (size_t)(n->in_count + 1) * sizeof *in);
  tensor *out = arena_alloc(&p->memory, (size_t)(n->out_count + 1) * sizeof *out);
  for (int k = 0; k < n->in_count; k++) in[k] = bound_tensor(p, n->in[k]);
  for (int k = 0; k < n->out_count; k++) out[k] = bound_tensor(p, n->out[k]);
  int64_t workspace = p->plan.workspace[index];
  bound->op = n->op;
  bound->node = n;
  bound->call = (call){.attrs = n->attrs,
                       .in = in,
                       .out = out,
                       .in_count = n->in_count,
                       .out_count = n->out_count,
                       .workspace = workspace < 0 ? NULL : (char *)p->arena + workspace,
                       .pool = p->device->pool,
                       .rng_keys = p->rng_keys,
                       .node_id = node_stream(n)};
  size_t packed = bound_packed_bytes(bound);
  if (packed > p->packing_bytes) p->packing_bytes = packed;
}

static status device_floats(program *p, int64_t n, float **out) {
  void *memory = NULL;
  TRY(p->device->allocate(p->device, (size_t)n * sizeof(float), &memory));
  *out = memory;
  return OK;
}

static status bind_optimizer(program *p, const optimizer_use *o) {
  int64_t n = flat_count(p);
  if (!p->consumes_gradients) TRY(device_floats(p, n, &p->gradients));
  p->state_count = 0;
  p->states = arena_alloc(&p->memory, (size_t)(o->op->state_buffers + 1) * sizeof *p->states);
  for (int i = 0; i < o->op->state_buffers; i++) {
    TRY(device_floats(p, n, &p->states[i]));
    p->state_count++;
  }
  if (o->accumulate > 1) TRY(device_floats(p, n, &p->gradient_sum));
  if (o->average_decay > 0) TRY(device_floats(p, n, &p->average));
  if (o->clip_norm == 0) return OK;
  TRY(device_floats(p, 16, &p->gradient_norm));
  if (p->device->reserve) return OK;
  const op *clip = op_find("gradient_clip");
  tensor gradients = flat_tensor(p->gradients, n), norm = {.shape = {.rank = 0}};
  p->update_workspace_bytes =
      clip->workspace_bytes(NULL, &gradients, 1, &norm, pool_threads(p->device->pool));
  return p->device->allocate(p->device, p->update_workspace_bytes, &p->update_workspace);
}

/* Adds a call of an operator that works on flat buffers, with default attributes. */
static bound_call *add_flat_call(program *p, const char *op_name, float *first, float *second,
                                 int64_t n) {
  const op *o = op_find(op_name);
  void *attrs = arena_alloc(&p->memory, o->attrs_bytes + 1);
  op_defaults(o, attrs);
  tensor *in = arena_alloc(&p->memory, 2 * sizeof *in);
  in[0] = flat_tensor(first, n);
  if (second) in[1] = flat_tensor(second, n);
  bound_call *bound = &p->calls[p->call_count++];
  *bound = (bound_call){
      .op = o,
      .call = {.attrs = attrs, .in = in, .in_count = second ? 2 : 1, .pool = p->device->pool}};
  return bound;
}

/* The optimizer on `n` elements of the flat buffers from `first` on, which belong to one group. */
static void bind_range(program *p, const optimizer_use *o, int group, int64_t first, int64_t n,
                       float *gradients) {
  int in_count = 3 + p->state_count;
  tensor *in = arena_alloc(&p->memory, (size_t)in_count * sizeof *in);
  in[0] = flat_tensor(p->parameters->data + first, n);
  in[1] = flat_tensor(gradients, n);
  in[2] = (tensor){.dtype = DTYPE_I32, .shape = SHAPE(1), .data = p->step_number};
  for (int i = 0; i < p->state_count; i++) in[3 + i] = flat_tensor(p->states[i] + first, n);
  p->calls[p->call_count++] = (bound_call){.op = o->op,
                                           .call = {.attrs = p->update->group_attrs[group],
                                                    .in = in,
                                                    .in_count = in_count,
                                                    .pool = p->device->pool}};
}

static void bind_group(program *p, const optimizer_use *o, int group) {
  int64_t first = p->parameters->group_first[group];
  int64_t n = p->parameters->group_first[group + 1] - first;
  if (n > 0) bind_range(p, o, group, first, n, p->gradients + first);
}

static void add_clamp(program *p, const optimizer_use *o, float *gradients, int64_t n) {
  bound_call *clamp = add_flat_call(p, "gradient_clamp", gradients, NULL, n);
  *attr_number(clamp->op, (void *)clamp->call.attrs, "max_value") = o->clip_value;
}

/* The updates of those of `consumed` parameters whose gradients are consumed after node `index`. */
static void bind_consumers(program *p, const optimizer_use *o, int index, const value_id *consumed,
                           int count) {
  for (int i = 0; i < count; i++) {
    value_id v = consumed[i];
    if (p->plan.update_after[v] != index) continue;
    const parameter *which = parameter_of(p, v);
    int64_t n = shape_elements(&which->shape);
    float *gradient = program_data(p, p->g->values[v].gradient);
    int group = 0;
    while (which->offset >= p->parameters->group_first[group + 1]) group++;
    if (o->clip_value > 0) add_clamp(p, o, gradient, n);
    bind_range(p, o, group, which->offset, n, gradient);
  }
}

static void open_update(program *p, const optimizer_use *o) {
  struct updates *u = p->update = arena_alloc(&p->memory, sizeof *u);
  *u = (struct updates){.op = o->op,
                        .base_attrs = o->attrs,
                        .groups = o->groups,
                        .group_count = p->parameters->group_count,
                        .accumulate_call = -1,
                        .average_decay = o->average_decay,
                        .average_warmup = o->average_warmup};
  u->group_attrs = arena_alloc(&p->memory, (size_t)u->group_count * sizeof *u->group_attrs);
  for (int i = 0; i < u->group_count; i++)
    u->group_attrs[i] = arena_alloc(&p->memory, o->op->attrs_bytes + 1);
}

/* Accumulation, clipping and optimizer on the flat buffers, after the last node. */
static void bind_flat_update(program *p, const optimizer_use *o) {
  struct updates *u = p->update;
  int64_t n = flat_count(p);
  if (p->gradient_sum) {
    u->accumulate_call = p->call_count;
    u->accumulate_attrs =
        (void *)add_flat_call(p, "gradient_accumulate", p->gradients, p->gradient_sum, n)
            ->call.attrs;
  }
  if (o->clip_value > 0) add_clamp(p, o, p->gradients, n);
  if (o->clip_norm > 0) {
    bound_call *clip = add_flat_call(p, "gradient_clip", p->gradients, NULL, n);
    *attr_number(clip->op, (void *)clip->call.attrs, "max_norm") = o->clip_norm;
    tensor *out = arena_alloc(&p->memory, sizeof *out);
    *out = (tensor){.dtype = DTYPE_F32, .shape = {.rank = 0}, .data = p->gradient_norm};
    clip->call.out = out;
    clip->call.out_count = 1;
    clip->call.workspace = p->update_workspace;
  }
  for (int i = 0; i < u->group_count; i++) bind_group(p, o, i);
}

static int call_room(const program *p) {
  /* Accumulation, both clippings, average; of a consumed gradient, clamp and optimizer. */
  enum { UPDATE_CALLS = 4, CONSUMER_CALLS = 2 };
  return p->g->node_count + UPDATE_CALLS + p->parameters->group_count +
         CONSUMER_CALLS * p->parameters->count;
}

/* Every node, and where gradients are consumed the updates between them; then what is left. */
static void bind_calls(program *p, const optimizer_use *o) {
  const graph *g = p->g;
  p->calls = arena_alloc(&p->memory, (size_t)call_room(p) * sizeof *p->calls);
  if (o) open_update(p, o);
  value_id *consumed = arena_alloc(&p->memory, (size_t)(g->value_count + 1) * sizeof *consumed);
  int consumed_count = 0;
  for (int v = 0; p->consumes_gradients && v < g->value_count; v++)
    if (p->plan.update_after[v] >= 0) consumed[consumed_count++] = v;
  for (int i = 0; i < g->node_count; i++) {
    if (!(g->nodes[i].op->traits & OP_VIEW)) bind_node(p, i, &p->calls[p->call_count++]);
    bind_consumers(p, o, i, consumed, consumed_count);
  }
  p->update_first = p->call_count;
  if (o && !p->consumes_gradients) bind_flat_update(p, o);
  if (!p->average) return;
  p->update->average_attrs =
      (void *)add_flat_call(p, "weight_average", p->average, p->parameters->data, flat_count(p))
          ->call.attrs;
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
  return a && b && (const char *)a < (const char *)b + b_bytes &&
         (const char *)b < (const char *)a + a_bytes;
}

/* Whether the next call may write while this one still reads: where it does not, or in the very place of an
 * input that is read part by part. */
static bool may_write(const bound_call *own, const tensor *out, bool by_part) {
  const call *c = &own->call;
  size_t bytes = tensor_bytes(out);
  for (int i = 0; i < c->in_count; i++) {
    bool takes_place = c->in[i].data == out->data && tensor_bytes(&c->in[i]) == bytes;
    if (overlap(c->in[i].data, tensor_bytes(&c->in[i]), out->data, bytes) &&
        !(by_part && takes_place))
      return false;
  }
  size_t room = own->op->workspace_bytes ? own->op->workspace_bytes(c->attrs, c->in, c->in_count,
                                                                    c->out, pool_threads(c->pool))
                                         : 0;
  return !overlap(c->workspace, room, out->data, bytes);
}

bool bound_can_chain(const bound_call *own, const bound_call *next) {
  const op_chain *chain = own->op->chain;
  if (!chain || chain->next != next->op || next->call.in[0].data != own->call.out[0].data ||
      tensor_bytes(&next->call.in[0]) != tensor_bytes(&own->call.out[0]))
    return false;
  for (int k = 0; k < next->call.out_count; k++)
    if (!may_write(own, &next->call.out[k], chain->by_part && k == 0)) return false;
  return true;
}

static void chain_calls(program *p) {
  for (int i = 0; p->device->launch_chain && i + 1 < p->update_first; i++)
    if (bound_can_chain(&p->calls[i], &p->calls[i + 1])) p->calls[i++].chained = true;
}

status program_check(const graph *g, const device *d) {
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    if (!d->supports(d, n->op))
      return error_new(ERROR_PIPELINE, n->at, "%s: operator %s has no kernel for %s", n->name,
                       n->op->name, d->name);
  }
  return OK;
}

/* The kernels of the update, which are no nodes. */
static status check_update(const optimizer_use *o, const device *d) {
  const op *used[] = {o->op,
                      o->accumulate > 1 ? op_find("gradient_accumulate") : NULL,
                      o->clip_value > 0 ? op_find("gradient_clamp") : NULL,
                      o->clip_norm > 0 ? op_find("gradient_clip") : NULL,
                      o->average_decay > 0 ? op_find("weight_average") : NULL,
                      o->average_decay > 0 ? op_find("weight_exchange") : NULL};
  for (size_t i = 0; i < sizeof used / sizeof *used; i++)
    if (used[i] && !d->supports(d, used[i]))
      return error_new(ERROR_PIPELINE, NOWHERE, "operator %s has no kernel for %s", used[i]->name,
                       d->name);
  return OK;
}

static status reserve_scratch(program *p) {
  if (!p->device->reserve) return OK;
  for (int i = 0; i < p->call_count; i++)
    TRY(p->device->reserve(p->device, p->calls[i].op, &p->calls[i].call));
  return OK;
}

status program_create(graph *g, device *d, parameters *ps, const value_id *keep, int keep_count,
                      int64_t batch, const optimizer_use *optimizer, program *out) {
  *out = (program){.g = g, .device = d, .parameters = ps, .batch = batch};
  bool trains = optimizer && optimizer->op;
  out->consumes_gradients = trains && optimizer->consume_gradients;
  plan_use use = {.keep = keep,
                  .keep_count = keep_count,
                  .threads = device_plan_threads(d),
                  .chains = d->launch_chain != NULL,
                  .consume_gradients = out->consumes_gradients};
  if (d->is_host) graph_pass_moments(g);
  status error = d->stores_bf16 ? graph_choose_storage(g, keep, keep_count) : OK;
  if (!error && out->consumes_gradients && (optimizer->clip_norm > 0 || optimizer->accumulate > 1))
    error = error_new(ERROR_INTERNAL, NOWHERE,
                      "clipping by norm and accumulation need all gradients at once");
  if (!error) error = plan_memory(g, &use, &out->plan);
  const bool *is_read = graph_read_values(g, &out->memory);
  for (int i = 0; !error && i < g->value_count; i++) {
    if (g->values[i].kind != VALUE_PARAM || !is_read[i]) continue;
    const parameter *held = parameter_of(out, i);
    if (!held || !shape_equal(&held->shape, &g->values[i].type.shape))
      error = error_new(ERROR_INTERNAL, NOWHERE, "parameter %s has no storage%s", g->values[i].name,
                        held ? " of this shape" : "");
  }
  if (!error) error = program_check(g, d);
  if (!error && trains) error = check_update(optimizer, d);
  void *memory = NULL;
  if (!error) error = d->allocate(d, out->plan.arena_bytes, &memory);
  out->arena = memory;
  if (!error) error = scheduled_open(out, call_room(out));
  if (!error && trains) error = bind_optimizer(out, optimizer);
  if (!error && batch > 0) {
    void *keys = NULL;
    error = d->allocate(d, (size_t)batch * sizeof(rng_key), &keys);
    out->rng_keys = keys;
  }
  if (error) {
    program_free(out);
    return error;
  }
  bind_calls(out, trains ? optimizer : NULL);
  chain_calls(out);
  error = scheduled_bind(out);
  if (!error) error = reserve_scratch(out);
  if (error) program_free(out);
  return error;
}

void program_free(program *p) {
  device *d = p->device;
  if (d) {
    size_t flat = p->parameters ? (size_t)p->parameters->trained_elements * sizeof(float) : 0;
    step_forget_recordings(p);
    if (p->arena) d->release(d, p->arena, p->plan.arena_bytes);
    if (p->gradients) d->release(d, p->gradients, flat);
    if (p->gradient_sum) d->release(d, p->gradient_sum, flat);
    if (p->average) d->release(d, p->average, flat);
    for (int i = 0; i < p->state_count; i++) d->release(d, p->states[i], flat);
    if (p->gradient_norm) d->release(d, p->gradient_norm, 64);
    if (p->update_workspace) d->release(d, p->update_workspace, p->update_workspace_bytes);
    if (p->rng_keys) d->release(d, p->rng_keys, (size_t)p->batch * sizeof(rng_key));
    scheduled_close(p);
  }
  plan_free(&p->plan);
  arena_free(&p->memory);
  *p = (program){0};
}

status program_write(program *p, value_id v, const void *from) {
  return p->device->upload(p->device, program_data(p, v), from,
                           tensor_bytes(&p->g->values[v].type));
}

status program_write_classes(program *p, value_id v, const uint8_t *from) {
  enum { PART = 8192 };
  int32_t wide[PART];
  int32_t *to = program_data(p, v);
  int64_t count = shape_elements(&p->g->values[v].type.shape);
  for (int64_t done = 0; done < count; done += PART) {
    int64_t n = count - done < PART ? count - done : PART;
    for (int64_t i = 0; i < n; i++)
      wide[i] = from[done + i] == LABEL_UNKNOWN ? TARGET_UNKNOWN : from[done + i];
    TRY(p->device->upload(p->device, to + done, wide, (size_t)n * sizeof *wide));
  }
  return OK;
}

status program_read(program *p, value_id v, void *to) {
  if (p->g->values[v].type.dtype == DTYPE_BF16)
    return error_new(ERROR_INTERNAL, NOWHERE, "value %s is read from outside and not kept",
                     p->g->values[v].name);
  return p->device->download(p->device, to, program_data(p, v),
                             tensor_bytes(&p->g->values[v].type));
}

status program_note(program *p, const value_id *values, int count, void **note) {
  enum { MOST = 256 };
  const void *pieces[MOST];
  size_t bytes[MOST];
  if (count > MOST)
    return error_new(ERROR_INTERNAL, NOWHERE, "%d values are too many for a note", count);
  for (int i = 0; i < count; i++) {
    pieces[i] = program_data(p, values[i]);
    bytes[i] = tensor_bytes(&p->g->values[values[i]].type);
  }
  return p->device->note(p->device, pieces, bytes, count, note);
}

status program_set_keys(program *p, const rng_key *keys) {
  return p->device->upload(p->device, p->rng_keys, keys, (size_t)p->batch * sizeof *keys);
}
