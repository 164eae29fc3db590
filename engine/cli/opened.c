#include "cli/opened.h"

#include "base/text.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

status open_pipeline(const arguments *a, opened *o) {
  *o = (opened){0};
  TRY(run_load(a->operands[0], a->overrides, a->override_count, &o->p, &o->data));
  return device_open(a->device ? a->device : "cpu",
                     (int)(a->threads > 0 ? a->threads : o->p->threads), &o->device, NULL);
}

void close_pipeline(opened *o) {
  device_close(o->device);
  dataset_free(o->data);
  pipeline_free(o->p);
}

status choose_stage(const opened *o, const char *name, const stage_spec **out) {
  const char *names[256];
  int count = 0;
  *out = NULL;
  for (int i = 0; i < o->p->stage_count; i++) {
    if (count < 256) names[count++] = o->p->stages[i].name;
    if (name ? strcmp(o->p->stages[i].name, name) == 0 : o->p->stages[i].enabled)
      *out = &o->p->stages[i];
  }
  if (*out) return OK;
  const char *near = name ? nearest_name(name, names, count) : NULL;
  return error_new(ERROR_USAGE, NOWHERE, "%s has no stage \"%s\"%s%s%s", o->p->path,
                   name ? name : "", near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "");
}

status expand_stage(opened *o, const stage_spec *s, int64_t batch, stage_graph *out) {
  expand_options options = crop_options(s, o->data->channels, o->data->class_count, batch, true);
  return stage_expand(o->p, s, &options, out);
}

cost graph_cost(const graph *g) {
  cost sum = {0};
  for (int i = 0; i < g->node_count; i++) {
    cost c = node_cost(g, &g->nodes[i]);
    sum.flops += c.flops;
    sum.bytes += c.bytes;
  }
  return sum;
}

bool describe_precision(const graph *g, const device *d, char out[PRECISION_TEXT_BYTES]) {
  precision_share share = graph_precision(g);
  text_buffer line = {0}, notes = {0};
  for (int p = PRECISION_F32 + 1; p < PRECISIONS; p++) {
    if (share.nodes[p] == 0) continue;
    text_add(&line, "%s %sin %d of %d operators with products, %.3g %% of the GFLOP; ",
             precision_choices[p], p == PRECISION_TF32 ? "allowed " : "", share.nodes[p],
             share.all_nodes, 100 * share.flops[p] / share.all_flops);
    const char *note = device_precision_note(d, (precision)p);
    if (note) text_add(&notes, "; %s", note);
  }
  bool said = line.length > 0;
  if (said)
    snprintf(out, PRECISION_TEXT_BYTES, "%sthe rest is f32%s", line.data,
             notes.data ? notes.data : "");
  text_free(&line);
  text_free(&notes);
  return said;
}

/* ---- a training step, ready to run on random voxels --------------------------------------- */

static status fill_inputs(program *p, const stage_graph *g, int classes) {
  rng r = rng_open(rng_key_of(1, "bench", 0, "bench", 0), 0);
  int64_t voxels = shape_elements(&g->g->values[g->image].type.shape);
  float *image = malloc((size_t)voxels * sizeof *image);
  uint8_t *label = calloc((size_t)voxels, sizeof *label);
  status error = image && label ? OK : error_out_of_memory((size_t)voxels * sizeof *image);
  for (int64_t i = 0; !error && i < voxels; i++) {
    image[i] = rng_normal(&r);
    label[i] = (uint8_t)rng_below(&r, (uint32_t)classes);
  }
  if (!error) error = program_write(p, g->image, image);
  if (!error && g->label != VALUE_NONE) error = program_write_classes(p, g->label, label);
  rng_key *keys = calloc((size_t)p->batch, sizeof *keys);
  if (!error && !keys) error = error_out_of_memory((size_t)p->batch * sizeof *keys);
  for (int64_t n = 0; !error && n < p->batch; n++) keys[n] = rng_key_of(1, "bench", 0, "bench", n);
  if (!error) error = program_set_keys(p, keys);
  free(keys);
  free(image);
  free(label);
  return error;
}

void close_step(compiled *c) {
  program_free(&c->program);
  parameters_free(&c->parameters);
  stage_graph_free(&c->graph);
}

status compile_step(opened *o, const stage_spec *s, int64_t batch, compiled *c) {
  *c = (compiled){0};
  TRY(expand_stage(o, s, batch, &c->graph));
  status error = stage_fit_memory(s, o->device, &c->graph, &c->memory);
  if (!error) error = parameter_groups_open(s, c->graph.g, &c->groups);
  optimizer_use optimizer = stage_optimizer(s, o->device, &c->groups);
  if (!error)
    error = parameters_create_in_groups(c->graph.g, c->groups.of, c->groups.count, o->device,
                                        &c->parameters);
  if (!error) error = parameters_initialize(&c->parameters, o->p->seed);
  if (!error)
    error =
        stage_lacks_memory(s, program_create(c->graph.g, o->device, &c->parameters, c->graph.keep,
                                             c->graph.keep_count, batch, &optimizer, &c->program));
  if (!error) error = fill_inputs(&c->program, &c->graph, o->data->class_count);
  if (error) close_step(c);
  return error;
}

status compile_inference(opened *o, const stage_spec *s, network *n) {
  TRY(network_open(o->p, s, o->p->evaluate.output, o->data->channels, o->data->class_count,
                   o->device, NULL, n));
  status error = parameters_initialize(&n->own, o->p->seed);
  if (!error) error = fill_inputs(&n->program, &n->graph, o->data->class_count);
  if (error) network_close(n);
  return error;
}

void print_groups(const parameter_groups *groups) {
  text_buffer lines = {0};
  parameter_groups_describe(groups, &lines);
  if (lines.length) fputs(lines.data, stdout);
  text_free(&lines);
}
