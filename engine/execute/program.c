#include "execute/program.h"

#include "base/clock.h"
#include "base/text.h"

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
  const parameter *owner = gradient_owner(p, v);
  return owner ? p->gradients + owner->offset : NULL;
}

static tensor bound_tensor(const program *p, value_id v) {
  if (v == VALUE_NONE) return (tensor){.shape = {.rank = -1}};
  tensor t = p->g->values[v].type;
  t.data = program_data(p, v);
  return t;
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
                       .node_id = text_hash(n->name)};
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

/* Clipping and the optimizer work on the flat buffers, after the last node. */
static status bind_optimizer(program *p, const optimizer_use *o) {
  int64_t n = p->parameters->trained_elements;
  TRY(device_floats(p, n, &p->gradients));
  p->state_count = 0;
  p->states = arena_alloc(&p->memory, (size_t)(o->op->state_buffers + 1) * sizeof *p->states);
  for (int i = 0; i < o->op->state_buffers; i++) {
    TRY(device_floats(p, n, &p->states[i]));
    p->state_count++;
  }
  float *number = NULL;
  TRY(device_floats(p, 16, &number));
  p->step_number = (int32_t *)number;
  if (o->clip_norm == 0) return OK;
  TRY(device_floats(p, 16, &p->gradient_norm));
  const op *clip = op_find("gradient_clip");
  tensor gradients = flat_tensor(p->gradients, n), norm = {.shape = {.rank = 0}};
  p->update_workspace_bytes =
      clip->workspace_bytes(NULL, &gradients, 1, &norm, pool_threads(p->device->pool));
  return p->device->allocate(p->device, p->update_workspace_bytes, &p->update_workspace);
}

static void bind_update(program *p, const optimizer_use *o) {
  int64_t n = p->parameters->trained_elements;
  if (o->clip_norm > 0) {
    const op *clip = op_find("gradient_clip");
    void *attrs = arena_alloc(&p->memory, clip->attrs_bytes);
    op_defaults(clip, attrs);
    *attr_number(clip, attrs, "max_norm") = o->clip_norm;
    tensor *in = arena_alloc(&p->memory, sizeof *in), *out = arena_alloc(&p->memory, sizeof *out);
    in[0] = flat_tensor(p->gradients, n);
    out[0] = (tensor){.dtype = DTYPE_F32, .shape = {.rank = 0}, .data = p->gradient_norm};
    p->calls[p->call_count++] = (bound_call){.op = clip,
                                             .call = {.attrs = attrs,
                                                      .in = in,
                                                      .out = out,
                                                      .in_count = 1,
                                                      .out_count = 1,
                                                      .workspace = p->update_workspace,
                                                      .pool = p->device->pool}};
  }
  int in_count = 3 + p->state_count;
  tensor *in = arena_alloc(&p->memory, (size_t)in_count * sizeof *in);
  in[0] = flat_tensor(p->parameters->data, n);
  in[1] = flat_tensor(p->gradients, n);
  in[2] = (tensor){.dtype = DTYPE_I32, .shape = SHAPE(1), .data = p->step_number};
  for (int i = 0; i < p->state_count; i++) in[3 + i] = flat_tensor(p->states[i], n);
  p->calls[p->call_count++] = (bound_call){
      .op = o->op,
      .call = {.attrs = o->attrs, .in = in, .in_count = in_count, .pool = p->device->pool}};
}

status program_create(graph *g, device *d, parameters *ps, const value_id *keep, int keep_count,
                      int64_t batch, const optimizer_use *optimizer, program *out) {
  *out = (program){.g = g, .device = d, .parameters = ps, .batch = batch};
  bool trains = optimizer && optimizer->op;
  status error = plan_memory(g, keep, keep_count, pool_threads(d->pool), &out->plan);
  for (int i = 0; !error && i < g->value_count; i++)
    if (g->values[i].kind == VALUE_PARAM && value_is_read(g, i) && !parameter_of(out, i))
      error = error_new(ERROR_INTERNAL, NOWHERE, "parameter %s has no storage", g->values[i].name);
  for (int i = 0; !error && i < g->node_count; i++)
    if (!d->supports(d, g->nodes[i].op))
      error = error_new(ERROR_PIPELINE, g->nodes[i].at, "%s: operator %s has no kernel for %s",
                        g->nodes[i].name, g->nodes[i].op->name, d->name);
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
  out->calls = arena_alloc(&out->memory, (size_t)(g->node_count + 2) * sizeof *out->calls);
  for (int i = 0; i < g->node_count; i++)
    if (!(g->nodes[i].op->traits & OP_VIEW)) bind_node(out, i, &out->calls[out->call_count++]);
  if (trains) bind_update(out, optimizer);
  return OK;
}

void program_free(program *p) {
  device *d = p->device;
  if (d) {
    size_t flat = p->parameters ? (size_t)p->parameters->trained_elements * sizeof(float) : 0;
    if (p->arena) d->release(d, p->arena, p->plan.arena_bytes);
    if (p->gradients) d->release(d, p->gradients, flat);
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

status program_read(program *p, value_id v, void *to) {
  return p->device->download(p->device, to, program_data(p, v),
                             tensor_bytes(&p->g->values[v].type));
}

status program_set_keys(program *p, const rng_key *keys) {
  return p->device->upload(p->device, p->rng_keys, keys, (size_t)p->batch * sizeof *keys);
}

status program_run(program *p) {
  if (p->step_number) {
    int32_t number = (int32_t)++p->updates;
    TRY(p->device->upload(p->device, p->step_number, &number, sizeof number));
  }
  for (int i = 0; i < p->call_count; i++) {
    double begin = p->profile_seconds ? clock_now_s() : 0;
    TRY(p->device->launch(p->device, p->calls[i].op, &p->calls[i].call));
    if (p->profile_seconds) {
      TRY(p->device->synchronize(p->device));
      p->profile_seconds[i] += clock_now_s() - begin;
    }
  }
  return p->device->synchronize(p->device);
}

void program_profile(program *p, double *seconds_per_call) {
  p->profile_seconds = seconds_per_call;
}

const node *program_call_node(const program *p, int call) {
  return p->calls[call].node;
}
