#include "execute/program.h"

#include "base/clock.h"
#include "base/text.h"
#include "graph/passes.h"
#include "language/pipeline.h"

#include <stdlib.h>
#include <string.h>

typedef struct bound_call {
  const op *op;
  const node *node; /* NULL: clipping or the optimizer */
  call call;
} bound_call;

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

/* Of the weight that the call's kernel reads packed; 0: there is none. */
static size_t packed_bytes(const bound_call *b) {
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
  size_t packed = packed_bytes(bound);
  if (packed > p->packing_bytes) p->packing_bytes = packed;
}

static status device_floats(program *p, int64_t n, float **out) {
  void *memory = NULL;
  TRY(p->device->allocate(p->device, (size_t)n * sizeof(float), &memory));
  *out = memory;
  return OK;
}

static tensor flat_tensor(float *data, int64_t n) {
  return (tensor){.dtype = DTYPE_F32, .shape = SHAPE(n), .data = data};
}

/* What changes from one update to the next: attributes of the calls after the last node. */
struct updates {
  const op *op;
  const void *base_attrs; /* the optimizer's, borrowed */
  const group_spec *const *groups;
  void **group_attrs; /* a copy per group, which the group's numbers then change */
  int group_count;
  void *accumulate_attrs, *average_attrs;
  int accumulate_call; /* −1: there is none */
  double average_decay;
  bool average_warmup;
};

static int64_t flat_count(const program *p) {
  return p->parameters->trained_elements;
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
  float *number = NULL;
  TRY(device_floats(p, 16, &number));
  p->step_number = (int32_t *)number;
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

/* Every node, and where gradients are consumed the updates between them; then what is left. */
static void bind_calls(program *p, const optimizer_use *o) {
  const graph *g = p->g;
  /* Accumulation, both clippings, average; of a consumed gradient, clamp and optimizer. */
  enum { UPDATE_CALLS = 4, CONSUMER_CALLS = 2 };
  int room = g->node_count + UPDATE_CALLS + p->parameters->group_count +
             CONSUMER_CALLS * p->parameters->count;
  p->calls = arena_alloc(&p->memory, (size_t)room * sizeof *p->calls);
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
  out->consumes_gradients = trains && optimizer->consume_gradients && device_updates_between(d);
  plan_use use = {.keep = keep,
                  .keep_count = keep_count,
                  .threads = device_plan_threads(d),
                  .consume_gradients = out->consumes_gradients};
  status error = OK;
  if (out->consumes_gradients && (optimizer->clip_norm > 0 || optimizer->accumulate > 1))
    error = error_new(ERROR_INTERNAL, NOWHERE,
                      "clipping by norm and accumulation need all gradients at once");
  if (!error) error = plan_memory(g, &use, &out->plan);
  for (int i = 0; !error && i < g->value_count; i++)
    if (g->values[i].kind == VALUE_PARAM && value_is_read(g, i) && !parameter_of(out, i))
      error = error_new(ERROR_INTERNAL, NOWHERE, "parameter %s has no storage", g->values[i].name);
  if (!error) error = program_check(g, d);
  if (!error && trains) error = check_update(optimizer, d);
  void *memory = NULL;
  if (!error) error = d->allocate(d, out->plan.arena_bytes, &memory);
  out->arena = memory;
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
  error = reserve_scratch(out);
  if (error) program_free(out);
  return error;
}

static void forget_recording(program *p) {
  if (p->recording) p->device->forget(p->device, p->recording);
  p->recording = NULL;
}

void program_free(program *p) {
  device *d = p->device;
  if (d) {
    size_t flat = p->parameters ? (size_t)p->parameters->trained_elements * sizeof(float) : 0;
    forget_recording(p);
    if (p->arena) d->release(d, p->arena, p->plan.arena_bytes);
    if (p->gradients) d->release(d, p->gradients, flat);
    if (p->gradient_sum) d->release(d, p->gradient_sum, flat);
    if (p->average) d->release(d, p->average, flat);
    for (int i = 0; i < p->state_count; i++) d->release(d, p->states[i], flat);
    if (p->step_number) d->release(d, p->step_number, 64);
    if (p->gradient_norm) d->release(d, p->gradient_norm, 64);
    if (p->update_workspace) d->release(d, p->update_workspace, p->update_workspace_bytes);
    if (p->rng_keys) d->release(d, p->rng_keys, (size_t)p->batch * sizeof(rng_key));
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
    for (int64_t i = 0; i < n; i++) wide[i] = from[done + i];
    TRY(p->device->upload(p->device, to + done, wide, (size_t)n * sizeof *wide));
  }
  return OK;
}

status program_read(program *p, value_id v, void *to) {
  return p->device->download(p->device, to, program_data(p, v),
                             tensor_bytes(&p->g->values[v].type));
}

status program_set_keys(program *p, const rng_key *keys) {
  return p->device->upload(p->device, p->rng_keys, keys, (size_t)p->batch * sizeof *keys);
}

static status run_call(program *p, int i) {
  double begin = p->profile_seconds ? clock_now_s() : 0;
  TRY(p->device->launch(p->device, p->calls[i].op, &p->calls[i].call));
  if (p->profile_seconds) {
    TRY(p->device->synchronize(p->device));
    p->profile_seconds[i] += clock_now_s() - begin;
  }
  return OK;
}

/* ---- the nodes of a step ------------------------------------------------------------------- */

/* Each packed weight takes the place of the weight it is made of. */
static status pack_weights(program *p) {
  if (p->packing_bytes == 0 || p->parameters->packed) return OK;
  void *packed = NULL;
  if (posix_memalign(&packed, 64, p->packing_bytes)) return error_out_of_memory(p->packing_bytes);
  status error = OK;
  for (int i = 0; !error && i < p->call_count; i++) {
    const bound_call *b = &p->calls[i];
    size_t bytes = packed_bytes(b);
    if (bytes == 0) continue;
    b->op->packing->pack(&b->call, packed);
    error = p->device->upload(p->device, b->call.in[b->op->packing->input].data, packed, bytes);
  }
  free(packed);
  p->parameters->packed = !error;
  return error;
}

static status launch_nodes(program *p) {
  for (int i = 0; i < p->update_first; i++) TRY(run_call(p, i));
  return OK;
}

/* Of everything that launches of nodes take from the host. */
static uint64_t attributes_hash(const program *p) {
  uint64_t hash = 0;
  for (int i = 0; i < p->update_first; i++)
    if (p->calls[i].op->attrs_bytes > 0)
      hash = hash_mix(hash, bytes_hash(p->calls[i].call.attrs, p->calls[i].op->attrs_bytes));
  return hash;
}

static status record_nodes(program *p) {
  device *d = p->device;
  forget_recording(p);
  TRY(d->record(d));
  status error = launch_nodes(p), end = d->recorded(d, &p->recording);
  if (!error) return end;
  error_free(end);
  return error;
}

/* Where the device can record launches, a step that comes a second time with the attributes of the
 * one before is recorded, and replayed as long as they stay. */
static status run_nodes(program *p) {
  device *d = p->device;
  if (!d->record || p->profile_seconds) return launch_nodes(p);
  uint64_t attributes = attributes_hash(p);
  bool as_before = p->has_run && attributes == p->last_attributes, is_stale = true;
  p->has_run = true;
  p->last_attributes = attributes;
  if (!as_before) {
    forget_recording(p);
    return launch_nodes(p);
  }
  if (p->recording) TRY(d->replay(d, p->recording, &is_stale));
  if (!is_stale) return OK;
  TRY(record_nodes(p));
  return d->replay(d, p->recording, &is_stale);
}

/* ---- the update ------------------------------------------------------------------------------ */

/* What a group says about the optimizer's attributes. */
static void group_apply(const group_spec *group, const op *o, void *attrs) {
  *attr_number(o, attrs, "lr") *= group->lr_scale;
  for (int i = 0; i < group->number_count; i++)
    *attr_number(o, attrs, group->numbers[i].name) = group->numbers[i].value;
}

/* Schedules and hooks change the optimizer's attributes between updates; the groups follow. */
static status prepare_update(program *p) {
  struct updates *u = p->update;
  int32_t number = (int32_t)++p->updates;
  TRY(p->device->upload(p->device, p->step_number, &number, sizeof number));
  for (int i = 0; i < u->group_count; i++) {
    memcpy(u->group_attrs[i], u->base_attrs, u->op->attrs_bytes);
    if (u->groups && u->groups[i]) group_apply(u->groups[i], u->op, u->group_attrs[i]);
  }
  if (p->average) {
    double t = (double)p->updates, early = (1 + t) / (10 + t);
    *attr_number(op_find("weight_average"), u->average_attrs, "decay") =
        u->average_warmup && early < u->average_decay ? early : u->average_decay;
  }
  return OK;
}

status program_run_part(program *p, int64_t part, int64_t parts) {
  bool updates = p->update && part == parts - 1;
  if (updates) TRY(prepare_update(p));
  TRY(pack_weights(p));
  TRY(run_nodes(p));
  if (p->update && parts > 1) {
    const op *accumulate = op_find("gradient_accumulate");
    *attr_integer(accumulate, p->update->accumulate_attrs, "part") = part;
    *attr_integer(accumulate, p->update->accumulate_attrs, "parts") = parts;
    TRY(run_call(p, p->update->accumulate_call));
  }
  for (int i = p->update_first; updates && i < p->call_count; i++)
    if (i != p->update->accumulate_call) TRY(run_call(p, i));
  return p->device->synchronize(p->device);
}

status program_run(program *p) {
  return program_run_part(p, 0, 1);
}

/* ---- the last node, a few planes at a time ---------------------------------------------------- */

enum {
  PLANES_BYTES = 1 << 22, /* made at a time: they stay in the cache until they are read */
  PLANES_INPUTS = 4       /* of an operator that makes them, at most */
};

/* The last call, for `planes` planes of one sample. */
typedef struct plane_call {
  call call;
  tensor in[PLANES_INPUTS], out;
  size_t in_bytes, out_bytes; /* of a plane */
} plane_call;

static size_t plane_of(tensor *t, int64_t planes) {
  t->shape.dim[0] = t->shape.dim[1] = 1;
  size_t bytes = tensor_bytes(t);
  t->shape.dim[1] = planes;
  return bytes;
}

/* False where the last node does not make v, or not plane by plane, or would need more workspace for
 * some planes than for all. */
static bool open_plane_call(const program *p, value_id v, int64_t planes, plane_call *out) {
  const bound_call *last = &p->calls[p->update_first - 1];
  const call *whole = &last->call;
  if (last->node->out_count != 1 || last->node->out[0] != v || !last->op->by_plane ||
      !last->op->by_plane(whole->attrs) || whole->in_count > PLANES_INPUTS)
    return false;
  out->call = *whole;
  memcpy(out->in, whole->in, (size_t)whole->in_count * sizeof *whole->in);
  out->out = whole->out[0];
  out->call.in = out->in;
  out->call.out = &out->out;
  out->in_bytes = plane_of(&out->in[0], planes);
  out->out_bytes = plane_of(&out->out, planes);
  if (!last->op->workspace_bytes) return true;
  int threads = pool_threads(p->device->pool);
  return last->op->workspace_bytes(whole->attrs, out->in, whole->in_count, &out->out, threads) <=
         last->op->workspace_bytes(whole->attrs, whole->in, whole->in_count, whole->out, threads);
}

static int64_t planes_at_a_time(const program *p, const shape *s) {
  int64_t bytes = s->dim[2] * s->dim[3] * s->dim[4] * (int64_t)sizeof(float);
  int64_t planes = PLANES_BYTES / bytes, threads = pool_threads(p->device->pool);
  if (planes < threads) planes = threads;
  return planes < s->dim[1] ? planes : s->dim[1];
}

status program_run_by_planes(program *p, value_id v, float *room, program_reader read,
                             void *context) {
  const shape *s = &p->g->values[v].type.shape;
  int64_t batch = s->dim[0], extent = s->dim[1], step = planes_at_a_time(p, s);
  plane_call c;
  if (room || !open_plane_call(p, v, step, &c)) {
    TRY(program_run(p));
    if (room) TRY(program_read(p, v, room));
    const float *data = room ? room : program_data(p, v);
    for (int64_t n = 0; n < batch; n++)
      TRY(read(context, n, 0, extent, data + n * shape_elements(s) / batch));
    return OK;
  }
  const op *head = p->calls[p->update_first - 1].op;
  const char *from = c.in[0].data;
  TRY(pack_weights(p));
  for (int i = 0; i < p->update_first - 1; i++) TRY(run_call(p, i));
  for (int64_t plane = 0, planes; plane < batch * extent; plane += planes) {
    int64_t n = plane / extent, x = plane % extent;
    planes = extent - x < step ? extent - x : step;
    c.in[0].shape.dim[1] = c.out.shape.dim[1] = planes;
    c.in[0].data = (char *)from + (size_t)plane * c.in_bytes;
    TRY(p->device->launch(p->device, head, &c.call));
    TRY(read(context, n, x, x + planes, c.out.data));
  }
  return OK;
}

status program_run_forward(program *p, program_visit visit, void *context) {
  TRY(pack_weights(p));
  for (int i = 0; i < p->update_first; i++) {
    const node *n = p->calls[i].node;
    if (!n || n->backward) continue;
    bool again;
    do {
      again = false;
      TRY(run_call(p, i));
      TRY(p->device->synchronize(p->device));
      TRY(visit(context, p, n, &again));
    } while (again);
  }
  return OK;
}

/* One call of an operator on averaged and trained weights, outside of a step. */
static status run_on_average(program *p, const char *op_name, const void *attrs) {
  tensor in[] = {flat_tensor(p->average, flat_count(p)),
                 flat_tensor(p->parameters->data, flat_count(p))};
  call c = {.attrs = attrs, .in = in, .in_count = 2, .pool = p->device->pool};
  TRY(p->device->launch(p->device, op_find(op_name), &c));
  return p->device->synchronize(p->device);
}

status program_start_average(program *p) {
  if (!p->average) return OK;
  /* The average is all zeros yet, so that with nothing of it kept it becomes the parameters. */
  *attr_number(op_find("weight_average"), p->update->average_attrs, "decay") = 0;
  return run_on_average(p, "weight_average", p->update->average_attrs);
}

status program_exchange_average(program *p) {
  return p->average ? run_on_average(p, "weight_exchange", NULL) : OK;
}

void program_profile(program *p, double *seconds_per_call) {
  p->profile_seconds = seconds_per_call;
}

const node *program_call_node(const program *p, int call) {
  return p->calls[call].node;
}
