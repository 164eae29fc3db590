#include "execute/bound.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static status launch_call(program *p, const bound_call *b, bool chained) {
  device *d = p->device;
  return chained ? d->launch_chain(d, b->op, &b->call, &b[1].call) : d->launch(d, b->op, &b->call);
}

/* `chained`: the next call, too. */
static status run_call(program *p, int i, bool chained) {
  double begin = p->profile_seconds ? clock_now_s() : 0;
  TRY(launch_call(p, &p->calls[i], chained));
  if (p->profile_seconds) {
    TRY(p->device->synchronize(p->device));
    p->profile_seconds[i] += clock_now_s() - begin;
  }
  return OK;
}

/* Each packed weight takes the place of the weight it is made of. */
static status pack_weights(program *p) {
  if (p->packing_bytes == 0 || p->parameters->packed) return OK;
  void *packed = NULL;
  if (posix_memalign(&packed, 64, p->packing_bytes)) return error_out_of_memory(p->packing_bytes);
  status error = OK;
  for (int i = 0; !error && i < p->call_count; i++) {
    const bound_call *b = &p->calls[i];
    size_t bytes = bound_packed_bytes(b);
    if (bytes == 0) continue;
    b->op->packing->pack(&b->call, packed);
    error = p->device->upload(p->device, b->call.in[b->op->packing->input].data, packed, bytes);
  }
  free(packed);
  p->parameters->packed = !error;
  return error;
}

/* ---- what changes from step to step ---------------------------------------------------------- */

/* What a group says about the optimizer's attributes. */
static void group_apply(const group_spec *group, const op *o, void *attrs) {
  *attr_number(o, attrs, "lr") *= group->lr_scale;
  for (int i = 0; i < group->number_count; i++)
    *attr_number(o, attrs, group->numbers[i].name) = group->numbers[i].value;
}

/* Schedules and hooks change the optimizer's attributes between updates; the groups follow. */
static void prepare_update(program *p) {
  struct updates *u = p->update;
  p->updates++;
  for (int i = 0; i < u->group_count; i++) {
    memcpy(u->group_attrs[i], u->base_attrs, u->op->attrs_bytes);
    if (u->groups && u->groups[i]) group_apply(u->groups[i], u->op, u->group_attrs[i]);
  }
  if (p->average) {
    double t = (double)p->updates, early = (1 + t) / (10 + t);
    *attr_number(op_find("weight_average"), u->average_attrs, "decay") =
        u->average_warmup && early < u->average_decay ? early : u->average_decay;
  }
}

static void prepare_part(program *p, int64_t part, int64_t parts) {
  if (p->update->accumulate_call < 0) return;
  const op *accumulate = op_find("gradient_accumulate");
  *attr_integer(accumulate, p->update->accumulate_attrs, "part") = part;
  *attr_integer(accumulate, p->update->accumulate_attrs, "parts") = parts;
}

/* ---- a step ------------------------------------------------------------------------------------ */

/* A profile has a time for every node. */
static bool chains(const program *p, int i) {
  return p->calls[i].chained && !p->profile_seconds;
}

static status launch_step(program *p, bool updates) {
  for (int i = 0; i < p->call_count; i++) {
    bool gathers = p->update && i == p->update->accumulate_call;
    if (i < p->update_first || gathers || updates) TRY(run_call(p, i, chains(p, i)));
    i += chains(p, i);
  }
  return OK;
}

static void forget_recording(program *p, bool updates) {
  if (p->recordings[updates]) p->device->forget(p->device, p->recordings[updates]);
  p->recordings[updates] = NULL;
}

void step_forget_recordings(program *p) {
  forget_recording(p, false);
  forget_recording(p, true);
}

static status record_step(program *p, bool updates) {
  device *d = p->device;
  forget_recording(p, updates);
  TRY(d->record(d));
  status error = launch_step(p, updates), end = d->recorded(d, &p->recordings[updates]);
  if (!error) return end;
  error_free(end);
  return error;
}

/* Where the device can record launches, a step is recorded when it comes a second time: what changes
 * from then on, kernels read on the device. Parts of an update before its last are a recording of
 * their own. */
static status run_step(program *p, bool updates) {
  device *d = p->device;
  bool first = !p->has_run[updates], is_stale = true;
  p->has_run[updates] = true;
  if (!d->record || p->profile_seconds || first) return launch_step(p, updates);
  if (p->recordings[updates]) TRY(d->replay(d, p->recordings[updates], &is_stale));
  if (!is_stale) return OK;
  TRY(record_step(p, updates));
  return d->replay(d, p->recordings[updates], &is_stale);
}

status program_start_part(program *p, int64_t part, int64_t parts) {
  bool updates = p->update && part == parts - 1;
  if (updates) prepare_update(p);
  if (p->update) prepare_part(p, part, parts);
  TRY(pack_weights(p));
  TRY(scheduled_send(p));
  return run_step(p, updates);
}

status program_run_part(program *p, int64_t part, int64_t parts) {
  TRY(program_start_part(p, part, parts));
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
  TRY(scheduled_send(p));
  for (int i = 0; i < p->update_first - 1; i++) {
    bool chained = chains(p, i) && i + 1 < p->update_first - 1;
    TRY(run_call(p, i, chained));
    i += chained;
  }
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
  TRY(scheduled_send(p));
  for (int i = 0; i < p->update_first; i++) {
    const node *n = p->calls[i].node;
    if (!n || n->backward) continue;
    bool again;
    do {
      again = false;
      TRY(run_call(p, i, false));
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
