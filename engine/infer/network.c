#include "infer/network.h"

#include "base/memory.h"
#include "data/postprocess.h"
#include "graph/passes.h"
#include "run/weights.h"

#include <stdlib.h>
#include <string.h>

static status run_windows(void *context, scores_fn take, void *taker) {
  network *n = context;
  program *p = &n->program;
  if (n->image) TRY(program_write(p, n->graph.image, n->image));
  return program_run_by_planes(p, n->output, n->scores, take, taker);
}

static status host_copy_of(const network *n, value_id v, float **out) {
  size_t bytes = tensor_bytes(&n->graph.g->values[v].type);
  *out = malloc(bytes);
  return *out ? OK : error_out_of_memory(bytes);
}

/* Where windows are put and where their scores come: the program's own memory, if it can be. */
static status place_windows(network *n, const device *d) {
  if (!d->is_host) TRY(host_copy_of(n, n->graph.image, &n->image));
  if (!d->is_host) TRY(host_copy_of(n, n->output, &n->scores));
  n->inferer.image = n->image ? n->image : program_data(&n->program, n->graph.image);
  return OK;
}

static status check_output(const network *n, const stage_spec *stage, const char *output,
                           const window_spec *w, int64_t channels, bool are_regions) {
  const graph_name *name = stage_graph_find(&n->graph, output);
  if (!name || name->count != 1)
    return error_new(ERROR_PIPELINE, stage->at, "stage \"%s\" has no single result called \"%s\"",
                     stage->name, output);
  const tensor *t = &n->graph.g->values[name->values[0]].type;
  shape expected = SHAPE(w->batch, w->size[0], w->size[1], w->size[2], channels);
  char have[96], want[96];
  if (t->dtype != DTYPE_F32 || !shape_equal(&t->shape, &expected))
    return error_new(
        ERROR_PIPELINE, stage->at,
        "\"%s\" of stage \"%s\" is %s for %s; a segmentation needs %s (one channel a %s)", output,
        stage->name, shape_format(have, &t->shape),
        w->batch == 1 ? "one window" : "a batch of windows", shape_format(want, &expected),
        are_regions ? "region: outputs: \"${regions}\"" : "class");
  return OK;
}

static bool acts_at_random(const op *o) {
  for (const attr *a = o->attrs; a && a->name; a++)
    if (a->flags & ATTR_TRAINING) return false; /* dropout, which is off here */
  return o->traits & OP_RANDOM;
}

/* What hides or turns parts of an image for a pretext would do so to every case that is segmented. */
static status check_no_chance(const graph *g, value_id output, const char *name) {
  bool *needed = memory_take((size_t)g->value_count * sizeof *needed);
  status error = OK;
  needed[output] = true;
  for (int i = g->node_count - 1; i >= 0 && !error; i--) {
    const node *n = &g->nodes[i];
    bool is_needed = false;
    for (int k = 0; k < n->out_count; k++)
      is_needed |= n->out[k] != VALUE_NONE && needed[n->out[k]];
    if (!is_needed) continue;
    if (acts_at_random(n->op))
      error = error_new(ERROR_PIPELINE, n->at,
                        "\"%s\" depends on \"%s\", and %s would change at random what is validated "
                        "and predicted; sample operators act in training alone",
                        name, n->name, n->op->name);
    for (int k = 0; k < n->in_count; k++)
      if (n->in[k] != VALUE_NONE) needed[n->in[k]] = true;
  }
  free(needed);
  return error;
}

/* What the output's channels stand for. */
static void say_regions(network *n, const data_spec *data) {
  for (int r = 0; r < data->region_count; r++)
    n->region_labels[r] = (uint8_t)data->regions[r].label;
  n->inferer.classes = data->region_count;
  n->inferer.region_labels = n->region_labels;
}

status network_open(pipeline *p, const stage_spec *stage, const char *output, int64_t channels,
                    int64_t classes, device *d, parameters *shared, network *out) {
  memset(out, 0, sizeof *out);
  const window_spec *w = &p->evaluate.windows;
  expand_options options = {.batch = w->batch,
                            .size = {w->size[0], w->size[1], w->size[2]},
                            .channels = channels,
                            .classes = classes,
                            .only = output};
  TRY(postprocess_check(p->evaluate.postprocess, p->evaluate.postprocess_count, classes));
  TRY(stage_expand(p, stage, &options, &out->graph));
  bool are_regions = p->data.region_count > 0;
  status error = check_output(out, stage, output, w, are_regions ? p->data.region_count : classes,
                              are_regions);
  if (!error) {
    out->output = stage_graph_find(&out->graph, output)->values[0];
    error = check_no_chance(out->graph.g, out->output, output);
  }
  if (!error) {
    if (!shared && d->is_host) graph_pack(out->graph.g, out->graph.keep, out->graph.keep_count);
    if (!shared) error = parameters_create(out->graph.g, d, &out->own);
  }
  if (!error)
    error = program_create(out->graph.g, d, shared ? shared : &out->own, out->graph.keep,
                           out->graph.keep_count, w->batch, NULL, &out->program);
  if (error_code_of(error) == ERROR_MEMORY)
    error = error_prefix(error, "the network in windows of %lld × %lld × %lld",
                         (long long)w->size[0], (long long)w->size[1], (long long)w->size[2]);
  out->inferer = (inferer){
      .windows = *w, .classes = classes, .run = run_windows, .context = out, .pool = d->pool};
  if (are_regions) say_regions(out, &p->data);
  out->postprocess = p->evaluate.postprocess;
  out->postprocess_count = p->evaluate.postprocess_count;
  if (!error) error = place_windows(out, d);
  if (error) network_close(out);
  return error;
}

void network_close(network *n) {
  program_free(&n->program);
  parameters_free(&n->own);
  stage_graph_free(&n->graph);
  free(n->image);
  free(n->scores);
}

static status load_one(const parameters *p, const parameter *to, const weights *w,
                       const char *path) {
  const named_tensor *t = weights_find(w, to->name);
  char want[96], have[96];
  shape_format(want, &to->shape);
  if (!t) return error_new(ERROR_DATA, NOWHERE, "%s lacks %s (%s)", path, to->name, want);
  if (t->tensor.dtype != DTYPE_F32 || !shape_equal(&t->tensor.shape, &to->shape))
    return error_new(ERROR_DATA, NOWHERE, "%s: %s is %s, this network needs %s", path, to->name,
                     shape_format(have, &t->tensor.shape), want);
  return p->device->upload(p->device, p->data + to->offset, t->tensor.data,
                           tensor_bytes(&t->tensor));
}

status parameters_load(parameters *p, const char *path) {
  weights w;
  TRY(weights_read(path, &w));
  problems found = {0};
  p->packed = false;
  for (int i = 0; i < p->count; i++) problems_add(&found, load_one(p, &p->list[i], &w, path));
  weights_close(&w);
  return problems_take(&found);
}

static status choose_member(void *context, int member) {
  network *n = context;
  return parameters_load(&n->own, n->member_paths[member]);
}

status network_load(network *n, const char *const *paths, int count) {
  for (int i = 0; i < count; i++) TRY(parameters_load(&n->own, paths[i]));
  n->member_paths = paths;
  n->inferer.members = count > 1 ? count : 0; /* one is in place */
  n->inferer.choose = choose_member;
  return OK;
}

static status check_channels(const network *n, const volume *prepared) {
  int64_t channels = n->graph.g->values[n->graph.image].type.shape.dim[4];
  if (prepared->channels == channels) return OK;
  return error_new(ERROR_DATA, NOWHERE, "the image has %lld channel%s; the network takes %lld%s",
                   (long long)prepared->channels, prepared->channels == 1 ? "" : "s",
                   (long long)channels,
                   channels > 1 ? ". Files of its channels go with commas between them, in the "
                                  "order of training: a_0000.nii.gz,a_0001.nii.gz"
                                : "");
}

/* Onto any grid. */
static status segment(network *n, const volume *prepared, const int64_t size[3],
                      const double affine[4][4], labels *out, nifti_values *probabilities) {
  label_export e;
  TRY(check_channels(n, prepared));
  TRY(export_open(prepared, n->inferer.classes, size, affine, n->inferer.pool, out, &e));
  export_like(&e, prepared, &n->inferer.windows);
  if (probabilities) export_keep_probabilities(&e, n->inferer.region_labels, probabilities);
  score_reader reader = export_reader(&e);
  status error = sliding_window(&n->inferer, prepared, &reader);
  if (error) labels_free(out);
  return error;
}

status network_segment(network *n, volume *prepared, const char *image_path, labels *out,
                       nifti_values *probabilities) {
  volume target = {0};
  *out = (labels){0};
  if (probabilities) *probabilities = (nifti_values){0};
  status error = nifti_read_grid(image_path, &target);
  if (!error && probabilities)
    error = nifti_values_begin(image_path, n->inferer.classes, window_budget(&n->inferer.windows),
                               probabilities);
  if (!error) error = segment(n, prepared, target.size, target.affine, out, probabilities);
  volume_free(prepared);
  if (!error) error = postprocess(n->postprocess, n->postprocess_count, out);
  if (error && probabilities) nifti_values_close(probabilities);
  return error_prefix(error, "%s", image_path);
}

status network_segment_prepared(network *n, const volume *prepared, labels *out) {
  TRY(segment(n, prepared, prepared->size, prepared->affine, out, NULL));
  return postprocess(n->postprocess, n->postprocess_count, out);
}
