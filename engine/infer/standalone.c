#include "infer/standalone.h"

#include <stdlib.h>
#include <string.h>

/* Gradients live in the buffer that an optimizer reads; at a rate of 0 it changes no weight. */
static status still_optimizer(pipeline *p, optimizer_use *out) {
  const op *sgd = op_find("sgd");
  *out = (optimizer_use){.op = sgd, .attrs = arena_alloc(&p->memory, sgd->attrs_bytes)};
  op_defaults(sgd, out->attrs);
  *attr_number(sgd, out->attrs, "lr") = 0;
  return OK;
}

status standalone_open(const standalone_options *o, device *d, standalone *out) {
  *out = (standalone){0};
  status error = pipeline_load_model(o->path, o->overrides, o->override_count, &out->p);
  if (!error) error = model_expand(out->p, &o->input, o->loss, &out->graph);
  if (!error) error = parameters_create(out->graph.g, d, &out->parameters);
  if (!error) error = parameters_initialize(&out->parameters, 0);
  optimizer_use optimizer = {0};
  if (!error && o->loss != MODEL_LOSS_NONE) error = still_optimizer(out->p, &optimizer);
  if (!error)
    error = program_create(out->graph.g, d, &out->parameters, out->graph.keep,
                           out->graph.keep_count, o->input.batch, &optimizer, &out->program);
  if (error) standalone_close(out);
  return error;
}

void standalone_close(standalone *s) {
  program_free(&s->program);
  parameters_free(&s->parameters);
  stage_graph_free(&s->graph);
  pipeline_free(s->p);
  *s = (standalone){0};
}

status standalone_run(standalone *s, uint64_t seed) {
  int64_t batch = s->program.batch;
  rng_key *keys = calloc((size_t)batch, sizeof *keys);
  if (!keys) return error_out_of_memory((size_t)batch * sizeof *keys);
  for (int64_t n = 0; n < batch; n++) keys[n] = rng_key_of(seed, "forward", 0, "input", n);
  status error = program_set_keys(&s->program, keys);
  free(keys);
  return error ? error : program_run(&s->program);
}

const float *standalone_gradient(const standalone *s, const parameter *which) {
  return s->program.gradients && which->trained ? s->program.gradients + which->offset : NULL;
}

static bool is_volume(const shape *s) {
  return s->rank == 5;
}

shape shape_in_torch(const shape *ours) {
  const int64_t *d = ours->dim;
  return is_volume(ours) ? SHAPE(d[0], d[4], d[1], d[2], d[3]) : *ours;
}

/* `batch` matrices of rows × columns, each turned. */
static void turn(const float *from, float *to, int64_t batch, int64_t rows, int64_t columns) {
  for (int64_t n = 0; n < batch; n++, from += rows * columns, to += rows * columns)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

static int64_t voxels_of(const shape *ours) {
  return ours->dim[1] * ours->dim[2] * ours->dim[3];
}

void tensor_from_torch(const shape *ours, const float *from, float *to) {
  if (is_volume(ours))
    turn(from, to, ours->dim[0], ours->dim[4], voxels_of(ours));
  else
    memcpy(to, from, (size_t)shape_elements(ours) * sizeof *to);
}

void tensor_to_torch(const shape *ours, const float *from, float *to) {
  if (is_volume(ours))
    turn(from, to, ours->dim[0], voxels_of(ours), ours->dim[4]);
  else
    memcpy(to, from, (size_t)shape_elements(ours) * sizeof *to);
}
