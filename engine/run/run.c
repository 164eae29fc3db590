#include "run/run.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/postprocess.h"
#include "evaluate/custom.h"
#include "graph/fit.h"
#include "infer/network.h"
#include "ops/loss/distance_loss.h"
#include "report/page.h"
#include "run/lock.h"
#include "run/metrics_csv.h"
#include "run/reproduce.h"
#include "run/resume.h"
#include "run/segmented.h"
#include "train/controls.h"
#include "train/groups.h"
#include "train/memory.h"
#include "train/transfer.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested;

void run_request_stop(void) {
  stop_requested = 1;
}

bool run_stop_requested(void) {
  return stop_requested != 0;
}

/* ---- the folder -------------------------------------------------------------------------- */

static char *run_file(const run *r, const char *name) {
  return path_join(r->folder, name);
}

char *run_fresh_folder(const char *name) {
  char path[512];
  for (int n = 1; n < 10000; n++) {
    snprintf(path, sizeof path, n == 1 ? "runs/%s" : "runs/%s-%d", name, n);
    char *marker = path_join(path, "run.json");
    bool taken = marker && file_exists(marker);
    free(marker);
    if (!taken) break;
  }
  return memory_strdup(path);
}

char *run_cache_folder(const data_spec *spec, const char *folder) {
  if (spec->no_cache) return NULL;
  if (spec->cache) return memory_strdup(spec->cache);
  char *parent = path_folder(folder), *cache = path_join(parent, ".strata-cache");
  free(parent);
  return cache;
}

const char *run_numerics(const pipeline *p, const device *d) {
  return pipeline_precisions(p) >> PRECISION_BF16 & 1 ? d->numerics_bf16 : d->numerics;
}

static status write_description(const run *r) {
  char pipeline_identity[32], bare_identity[32], data_identity[32];
  snprintf(bare_identity, sizeof bare_identity, "%016" PRIx64, r->p->identity_without_scripts);
  snprintf(pipeline_identity, sizeof pipeline_identity, "%016" PRIx64, r->p->identity);
  snprintf(data_identity, sizeof data_identity, "%016" PRIx64, r->data->identity);
  json_t *classes = json_array();
  for (int i = 0; i < r->data->class_count; i++)
    json_array_append_new(classes, json_string(r->data->class_names[i]));
  json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:o}", "strata",
                           STRATA_VERSION, "name", r->p->name, "pipeline_identity",
                           pipeline_identity, "pipeline_identity_without_scripts", bare_identity,
                           "data_identity", data_identity, "seed", (json_int_t)r->p->seed, "device",
                           r->device->description, "numerics", run_numerics(r->p, r->device),
                           "channels", (json_int_t)r->data->channels, "classes", classes);
  if (root && r->data->ignore_label)
    json_object_set_new(root, "ignore_label", json_integer(r->data->ignore_label));
  json_t *command = json_array();
  for (int i = 0; r->command && r->command[i]; i++)
    json_array_append_new(command, json_text(r->command[i]));
  if (r->command) json_object_set(root, "command", command);
  json_decref(command);
  if (root && r->locked) {
    json_t *changes = json_array();
    for (int i = 0; i < r->change_count; i++)
      json_array_append_new(changes, json_text(r->changes[i]));
    json_object_set_new(root, "lock",
                        json_pack("{s:o, s:o}", "file", json_text(r->p->path), "changes", changes));
  }
  char *path = run_file(r, "run.json");
  status error = json_write(path, root, JSON_INDENT(2), "");
  free(path);
  json_decref(root);
  return error;
}

/* Drops what a stopped run logged after its last saved state: those epochs are done again. */
static status trim_metrics(const run *r, const resume_states *states) {
  char *path = run_file(r, "metrics.jsonl"), *text = NULL;
  size_t length = 0;
  if (!file_exists(path)) {
    free(path);
    return OK;
  }
  status error = file_read(path, (size_t)1 << 30, &text, &length);
  text_buffer kept = {0};
  for (char *line = text, *end; !error && line && *line; line = end + 1) {
    end = strchr(line, '\n');
    if (!end) break; /* a half-written last line */
    json_t *root = json_loadb(line, (size_t)(end - line), 0, NULL);
    const char *stage = json_string_value(json_object_get(root, "stage"));
    int64_t epoch = json_integer_value(json_object_get(root, "epoch"));
    bool keep = false;
    for (int i = 0; stage && i < r->p->stage_count; i++)
      if (strcmp(r->p->stages[i].name, stage) == 0) {
        const run_state *from;
        keep = resume_stage_is_done(r, states, i, &from) || (from && epoch <= from->epoch);
      }
    if (keep) text_append(&kept, line, (size_t)(end - line) + 1);
    json_decref(root);
  }
  if (!error) error = file_write_atomic(path, kept.data ? kept.data : "", kept.length);
  text_free(&kept);
  free(text);
  free(path);
  return error;
}

static status write_csv(run *r) {
  char *jsonl = run_file(r, "metrics.jsonl"), *csv = run_file(r, "metrics.csv");
  status error = file_exists(jsonl) ? metrics_csv_write(jsonl, csv) : OK;
  free(jsonl);
  free(csv);
  r->csv_written_s = clock_now_s();
  return error;
}

status run_csv_when_due(run *r) {
  enum { SECONDS = 30 }; /* a long run's file takes a while, an epoch may take none */
  return clock_now_s() - r->csv_written_s < SECONDS ? OK : write_csv(r);
}

/* ---- compile everything before the first voxel ------------------------------------------- */

static expand_options training_options(const run *r, const stage_spec *s) {
  return crop_options(s, r->data->channels, r->data->class_count, s->batch, true);
}

static status expand(const run *r, const stage_spec *s, stage_graph *out) {
  expand_options options = training_options(r, s);
  return stage_expand(r->p, s, &options, out);
}

/* Weights that will not fit the stage they are meant for. */
static status check_transfer(const run *r, const stage_spec *s, const stage_graph *graph) {
  if (s->init_is_file) return transfer_check_file(graph, s);
  for (int i = 0; i < r->p->stage_count; i++) {
    const stage_spec *earlier = &r->p->stages[i];
    if (strcmp(earlier->name, s->init_from) != 0) continue;
    stage_graph from;
    status error = expand(r, earlier, &from);
    if (error) { /* reported for that stage itself */
      error_free(error);
      return OK;
    }
    error = transfer_check(graph, s, &from, earlier->name);
    stage_graph_free(&from);
    return error;
  }
  return OK; /* no such stage: the loader has refused it */
}

/* Metrics that scripts compute load before anything is trained. */
static void check_measuring_scripts(const custom_metric *list, int count, problems *found) {
  custom_metrics custom;
  status error = custom_metrics_open(list, count, &custom);
  if (!error) custom_metrics_close(&custom);
  problems_add(found, error);
}

static void mark_operator(const run *r, const op *o) {
  for (int i = 0; i < op_count(); i++)
    if (op_at(i) == o) r->operators[i] = true;
}

static void mark_operators(const run *r, const graph *g) {
  for (int i = 0; i < g->node_count && r->operators; i++) mark_operator(r, g->nodes[i].op);
}

/* Those that stand in no graph. */
static void mark_listed_operators(const run *r) {
  const data_spec *d = &r->p->data;
  if (!r->operators) return;
  for (int i = 0; i < d->prepare_count; i++) mark_operator(r, d->prepare[i].op);
  for (int i = 0; i < r->p->evaluate.postprocess_count; i++)
    mark_operator(r, r->p->evaluate.postprocess[i].op);
  for (int i = 0; i < r->p->stage_count; i++) {
    const stage_spec *s = &r->p->stages[i];
    if (!s->enabled) continue;
    for (int k = 0; k < s->data->sample_count; k++) mark_operator(r, s->data->sample[k].op);
    mark_operator(r, s->optimizer.op);
    mark_operator(r, s->initialize.op);
  }
}

static void check_distance_losses(const graph *g, problems *found) {
  for (int i = 0; i < g->node_count; i++)
    if (distance_loss_is(g->nodes[i].op))
      problems_add_new_places(found, distance_loss_refuse(g->nodes[i].at));
}

/* A schedule that fails at a stage's first step fails now, not after the stages before it. */
static status try_schedules(const run *r, const stage_spec *s, const stage_graph *graph,
                            const controls *c) {
  bool label_free = graph->label == VALUE_NONE && !s->use_labels;
  int64_t steps = stage_updates(s, r->data, &r->p->data, label_free);
  number_view view;
  int64_t epochs = s->epochs > 0 ? s->epochs : 1; /* a mistake shows without epochs, too */
  return controls_try(c, (schedule_point){.total = epochs * steps,
                                          .steps_per_epoch = steps,
                                          .metrics = controls_numbers(c, NULL, 0, &view)});
}

static status check_cases(const run *r, const stage_spec *s, const stage_graph *graph) {
  bool label_free = graph->label == VALUE_NONE && !s->use_labels;
  if (s->epochs == 0 || dataset_role_usable(r->data, ROLE_TRAIN, label_free) > 0) return OK;
  bool has_any = dataset_role_count(r->data, ROLE_TRAIN) > 0;
  return error_new(ERROR_DATA, r->p->data.split_at,
                   has_any ? "stage %s learns from labels, and no training case has one"
                           : "no case has the role train, so stage %s has nothing to learn from",
                   s->name);
}

/* False: its graph does not expand. */
static bool compile_stage(const run *r, const stage_spec *s, problems *found) {
  stage_graph graph;
  status error = expand(r, s, &graph);
  if (error) { /* a mistake in the model is every stage's */
    problems_add_new_places(found, error);
    return false;
  }
  mark_operators(r, graph.g);
  controls c = {0};
  error = controls_open(s, &graph, &c);
  if (!error) error = try_schedules(r, s, &graph, &c);
  controls_close(&c);
  problems_add(found, error);
  problems_add(found, check_cases(r, s, &graph));
  check_measuring_scripts(s->validate_custom, s->validate_custom_count, found);
  if (s->case_weights.path) {
    script *weights;
    error = script_open(SCRIPT_CASE_WEIGHT, &s->case_weights, &weights);
    if (!error) script_close(weights);
    problems_add(found, error);
  }
  parameter_groups groups;
  problems_add(found, parameter_groups_open(s, graph.g, &groups));
  problems_add(found, program_check(graph.g, r->device));
  if (s->best && dataset_role_count(r->data, ROLE_VALIDATION) == 0)
    problems_add_new_places(found,
                            error_new(ERROR_PIPELINE, s->best_at,
                                      "keep_best chooses by the validation cases, and no case has "
                                      "the role validation"));
  if (r->data->ignore_label) check_distance_losses(graph.g, found);
  if (s->init_from) problems_add(found, check_transfer(r, s, &graph));
  step_memory memory;
  status unfit = stage_fit_memory(s, r->device, &graph, &memory);
  problems_add(found, unfit);
  if (!unfit && s->memory_bytes > 0 && r->fitted)
    r->fitted[s - r->p->stages] = (fitted_stage){true, graph, memory};
  else
    stage_graph_free(&graph);
  return true;
}

/* `key`: of what, "evaluate: groups". */
static void check_group(const run *r, const char *key, const class_group *g, problems *found) {
  for (int k = 0; k < g->count; k++)
    if (g->classes[k] >= r->data->class_count)
      problems_add(found, error_new(ERROR_PIPELINE, g->at,
                                    "%s: %s has class %d, but the classes of the data "
                                    "set end with %d.",
                                    key, g->name, g->classes[k], r->data->class_count - 1));
}

/* Classes of `evaluate:` that the data set does not have. */
static void check_classes(const run *r, problems *found) {
  const evaluate_spec *e = &r->p->evaluate;
  const data_spec *d = &r->p->data;
  problems_add(found,
               postprocess_check(e->postprocess, e->postprocess_count, r->data->class_count));
  for (int i = 0; i < d->region_count; i++) check_group(r, "data: regions", &d->regions[i], found);
  for (int i = 0; i < e->group_count; i++) check_group(r, "evaluate: groups", &e->groups[i], found);
  for (int i = 0; i < e->region_count && e->regions != d->regions; i++)
    check_group(r, "evaluate: regions", &e->regions[i], found);
}

/* Weights whose shape goes with the size of the image, a place of its own for each patch, are those of the
 * crops they were trained on. */
static status check_window_weights(const run *r, const stage_spec *s, const graph *windows) {
  const evaluate_spec *e = &r->p->evaluate;
  const int64_t *w = e->windows.size;
  stage_graph crops;
  TRY(expand(r, s, &crops));
  status error = OK;
  for (int i = 0; i < windows->value_count && !error; i++) {
    const value *v = &windows->values[i];
    int found = v->kind == VALUE_PARAM ? index_find(&crops.g->parameters, v->name) : -1;
    const value *trained = found >= 0 ? &crops.g->values[found] : NULL;
    char have[96], want[96];
    if (trained && !shape_equal(&trained->type.shape, &v->type.shape))
      error = error_new(ERROR_PIPELINE, e->at,
                        "%s is %s for crops of %lld × %lld × %lld and would be %s for windows of "
                        "%lld × %lld × %lld: this network takes windows of the crops' size",
                        v->name, shape_format(have, &trained->type.shape), (long long)s->crop[0],
                        (long long)s->crop[1], (long long)s->crop[2],
                        shape_format(want, &v->type.shape), (long long)w[0], (long long)w[1],
                        (long long)w[2]);
  }
  stage_graph_free(&crops);
  return error;
}

/* The network of the evaluation, in windows that may have another size than crops. */
static void compile_windows(const run *r, const stage_spec *s, problems *found) {
  const evaluate_spec *e = &r->p->evaluate;
  network n;
  status error = network_open(r->p, s, e->output, r->data->channels, r->data->class_count,
                              r->device, NULL, &n);
  if (!error) {
    mark_operators(r, n.graph.g);
    problems_add(found, check_window_weights(r, s, n.graph.g));
    network_close(&n);
    return;
  }
  const window_spec *w = &e->windows;
  expand_options options = {.batch = w->batch,
                            .size = {w->size[0], w->size[1], w->size[2]},
                            .channels = r->data->channels,
                            .classes = r->data->class_count,
                            .only = e->output};
  stage_graph graph;
  status size = stage_expand(r->p, s, &options, &graph);
  if (!size) stage_graph_free(&graph);
  problems_add(found, error);
  if (size) problems_add_new_places(found, size_advice(r->p, s, &options, "window", e->at));
  error_free(size);
}

/* `s`: the stage whose graph does not take its crop, one of a list of its own or of data: sample. */
static void advise_crop(const run *r, const stage_spec *s, problems *found) {
  expand_options options = training_options(r, s);
  const stage_spec *alone = s->data == &r->p->data ? NULL : s;
  problems_add_new_places(found, size_advice(r->p, alone, &options, "crop",
                                             sample_size_at(s->data, r->data->channels)));
}

status run_compile(const run *r) {
  problems found = {0};
  check_classes(r, &found);
  check_measuring_scripts(r->p->evaluate.custom, r->p->evaluate.custom_count, &found);
  mark_listed_operators(r);
  for (int i = 0; i < r->p->stage_count; i++) {
    const stage_spec *s = &r->p->stages[i];
    if (s->enabled && !compile_stage(r, s, &found)) advise_crop(r, s, &found);
  }
  const stage_spec *last = pipeline_stage(r->p, r->p->evaluate.stage);
  if (found.count == 0 && r->p->evaluate.enabled && last) compile_windows(r, last, &found);
  return problems_take(&found);
}

/* ---- evaluation -------------------------------------------------------------------------- */

/* What evaluates the test cases of a run. */
typedef struct evaluator {
  run *r;
  network network;
  custom_metrics custom;
  segmented done;
} evaluator;

static status open_record(const run *r, const char *stage, segmented *out) {
  char *path = run_file(r, "state.evaluation.jsonl");
  text_buffer by = {0};
  text_add(&by, "%s %016" PRIx64 " %s %s %s", STRATA_VERSION, r->p->identity, r->lock->data,
           lock_weights(r->lock, stage), run_numerics(r->p, r->device));
  status error = segmented_open(path, by.data, r->resume, out);
  text_free(&by);
  free(path);
  return error;
}

/* The segmentation on the file's own grid, written to `path`; or read from there where the run that is
 * resumed had got so far. */
static status segment_case(evaluator *v, const case_entry *entry, const char *path, labels *out) {
  if (segmented_has(&v->done, entry->name, path)) return nifti_read_labels(path, out);
  medical_case c = {0};
  status error = case_prepare(&v->r->p->data, entry, v->r->cache, &c);
  if (!error)
    error = error_prefix(network_segment(&v->network, &c.image, entry->image, out, NULL), "case %s",
                         entry->name);
  if (!error) error = nifti_write_labels(path, out, entry->image);
  if (!error) error = segmented_add(&v->done, entry->name, path);
  case_free(&c);
  return error;
}

/* One test case, segmented and scored. */
static status evaluate_case(evaluator *v, const case_entry *entry, case_score *score,
                            bool *scored) {
  run *r = v->r;
  labels prediction = {0}, reference = {0};
  char name[512];
  snprintf(name, sizeof name, "predictions/%s.nii.gz", entry->name);
  char *path = run_file(r, name);
  status error = segment_case(v, entry, path, &prediction);
  *scored = false;
  if (!error && entry->label) {
    error = nifti_read_labels(entry->label, &reference);
    if (!error)
      error = score_case(&prediction, &reference, r->data->class_count, &r->p->evaluate,
                         entry->name, r->device->pool, score);
    if (!error) {
      error = custom_metrics_score(&v->custom, &reference, r->scored_names, r->scored_count, score);
      if (error) case_score_free(score);
    }
    *scored = !error;
  }
  labels_free(&prediction);
  labels_free(&reference);
  free(path);
  return error;
}

status run_after_windows(void *context, int64_t done, int64_t windows) {
  const case_progress *c = context;
  report_cases(c, (double)done / (double)windows);
  if (done == windows || !run_stop_requested()) return OK;
  return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped after %lld of %lld windows",
                   (long long)done, (long long)windows);
}

static status stopped_evaluating(const case_progress *e) {
  return error_new(ERROR_INTERRUPTED, NOWHERE,
                   "stopped during the evaluation, after %d of %d cases; the same command with "
                   "--resume goes on from there",
                   e->done, e->count);
}

/* A case whose files are broken is named, and the others are still segmented; but a mean over fewer
 * cases than asked for would pass for another number, so there is none. */
static status evaluate_cases(evaluator *v, const int *index, int count, case_score *scores,
                             int *scored) {
  run *r = v->r;
  problems found = {0};
  case_progress e = {
      .report = &r->report, .stage = "evaluate", .count = count, .started_s = clock_now_s()};
  v->network.inferer.after = run_after_windows;
  v->network.inferer.after_context = &e;
  for (; e.done < count; e.done++) {
    bool counts = false;
    const case_entry *entry = &r->data->cases[index[e.done]];
    status error = run_stop_requested() ? stopped_evaluating(&e)
                                        : evaluate_case(v, entry, &scores[*scored], &counts);
    if (error && error_code_of(error) == ERROR_INTERRUPTED) {
      problems_free(&found);
      error_free(error); /* it speaks of windows */
      return stopped_evaluating(&e);
    }
    bool is_bad_file = error && error_code_of(error) == ERROR_DATA;
    problems_add(&found, error);
    if (error && !is_bad_file) break;
    if (counts) ++*scored;
  }
  return problems_take(&found);
}

status run_evaluate(run *r) {
  const stage_spec *stage = pipeline_stage(r->p, r->p->evaluate.stage);
  if (!stage) return error_new(ERROR_PIPELINE, r->p->evaluate.at, "there is no stage to evaluate");
  char weights_name[256];
  snprintf(weights_name, sizeof weights_name, "weights/%s.safetensors", stage->name);
  char *weights = run_file(r, weights_name), *folder = run_file(r, "predictions");
  char *json = run_file(r, "evaluation.json"), *csv = run_file(r, "evaluation.csv");
  evaluator v = {.r = r};
  int *index = calloc((size_t)r->data->case_count + 1, sizeof *index);
  case_score *scores = calloc((size_t)r->data->case_count + 1, sizeof *scores);
  int count = index ? dataset_role(r->data, ROLE_TEST, index) : 0, scored = 0;
  status error = index && scores ? OK : error_out_of_memory(4096);
  if (!error) error = folder_create(folder);
  if (!error)
    error = network_open(r->p, stage, r->p->evaluate.output, r->data->channels,
                         r->data->class_count, r->device, NULL, &v.network);
  const char *const members[] = {weights};
  if (!error) error = network_load(&v.network, members, 1);
  if (!error)
    error = custom_metrics_open(r->p->evaluate.custom, r->p->evaluate.custom_count, &v.custom);
  if (!error) error = open_record(r, stage->name, &v.done);
  if (!error) error = evaluate_cases(&v, index, count, scores, &scored);
  evaluation e = {.class_names = r->scored_names,
                  .class_count = r->scored_count,
                  .cases = scores,
                  .case_count = scored,
                  .spec = &r->p->evaluate};
  if (!error && scored > 0) {
    error = evaluation_write(&e, json);
    if (!error) error = evaluation_write_csv(&e, csv);
    char *table = NULL;
    size_t length = 0;
    FILE *out = memory_stream(&table, &length);
    evaluation_print(&e, out);
    memory_stream_close(out);
    report_line(&r->report, "%s", table);
    free(table);
  }
  if (!error && count == 0)
    report_line(&r->report, "evaluation:  none, for no case has the role test");
  else if (!error)
    report_line(&r->report, "predictions: %s (%d cases)%s%s", folder, count,
                scored > 0 ? "\nevaluation:  " : "; no labels to score them with",
                scored > 0 ? json : "");
  segmented_close(&v.done, false); /* a run that is asked for once more only scores */
  custom_metrics_close(&v.custom);
  network_close(&v.network);
  for (int i = 0; i < scored; i++) case_score_free(&scores[i]);
  free(scores);
  free(index);
  free(csv);
  free(json);
  free(folder);
  free(weights);
  return error;
}

/* ---- the run ----------------------------------------------------------------------------- */

/* Two programs in one folder would write over each other's state and records. */
static status take_folder(run *r) {
  char *path = run_file(r, ".in-use");
  bool has_locks = true;
  status error = folder_create(r->folder);
  if (!error) error = file_lock(path, &r->in_use, &has_locks);
  if (!error && !has_locks)
    report_line(&r->report,
                "warning: the file system has no locks: nothing keeps a second program out of %s",
                r->folder);
  if (!error && r->in_use < 0)
    error = error_new(ERROR_USAGE, NOWHERE,
                      "another program is at work in %s: wait until it has ended or stop it, or "
                      "choose another --out",
                      r->folder);
  free(path);
  return error;
}

/* Of programs that were killed while they wrote, on file systems where a file has a name from its
 * beginning: in the folder, which is this program's, and in the cache, where others may be writing. */
static void remove_left(const run *r) {
  enum { SURELY_DEAD_S = 24 * 3600 };
  static const char *const inside[] = {"", "weights", "predictions"};
  for (int i = 0; i < 3; i++) {
    char *folder = run_file(r, inside[i]);
    atomic_remove_left(folder, 0);
    free(folder);
  }
  if (r->cache) atomic_remove_left(r->cache, SURELY_DEAD_S);
}

static bool holds_run(const run *r) {
  char *description = run_file(r, "run.json");
  bool holds = file_exists(description);
  free(description);
  return holds;
}

static status prepare_folder(run *r, resume_states *states) {
  char *description = run_file(r, "run.json"), *weights = run_file(r, "weights");
  status error = OK;
  if (r->resume && !holds_run(r))
    error = error_new(ERROR_USAGE, NOWHERE, "%s holds no run to resume", r->folder);
  if (!error) error = take_folder(r);
  if (!error && r->resume) error = resume_check(r, description, states);
  if (!error && !r->resume && holds_run(r))
    error = error_new(ERROR_USAGE, NOWHERE,
                      "%s already holds a run; add --resume (in a script that begins it, too: "
                      "--resume-if-any) to go on with it, or choose another --out",
                      r->folder);
  if (!error) remove_left(r);
  if (!error) error = folder_create(weights);
  if (!error && !r->resume) error = reproduce_write(r);
  if (!error && !r->resume) error = write_description(r);
  free(weights);
  free(description);
  return error;
}

static status train_stages(run *r, const resume_states *states) {
  status error = OK;
  if (r->resume) error = trim_metrics(r, states);
  if (!error && r->resume) error = write_csv(r);
  char *metrics_path = run_file(r, "metrics.jsonl");
  if (!error) {
    r->metrics = fopen(metrics_path, "ab");
    if (!r->metrics) error = error_from_errno("open", metrics_path);
  }
  for (int i = 0; i < r->p->stage_count && !error; i++) {
    const stage_spec *s = &r->p->stages[i];
    const run_state *from = NULL;
    if (!s->enabled)
      report_line(&r->report, "stage %s: switched off", s->name);
    else if (r->resume && resume_stage_is_done(r, states, i, &from))
      report_line(&r->report, "stage %s: done before", s->name);
    else
      error = stage_train(r, i, from);
    if (!error && s->enabled) error = reproduce_stage(r, s);
  }
  if (r->metrics && fclose(r->metrics) != 0 && !error)
    error = error_from_errno("write", metrics_path);
  r->metrics = NULL;
  status csv = write_csv(r);
  if (error)
    error_free(csv);
  else
    error = csv;
  free(metrics_path);
  return error;
}

static void say_start(run *r, const char *why) {
  char cases[160];
  report_line(&r->report, "%s: %s, seed %" PRIu64, r->p->name, r->p->path, r->p->seed);
  report_line(&r->report, "data: %s, %s", r->data->name, dataset_describe(r->data, cases));
  report_line(&r->report, "device: %s%s%s", r->device->description, why[0] ? "; " : "", why);
  for (int p = 0; p < PRECISIONS; p++) {
    const char *text = device_precision_note(r->device, (precision)p);
    if (text && pipeline_precisions(r->p) >> p & 1) report_line(&r->report, "%s", text);
  }
  report_line(&r->report, "run folder: %s", r->folder);
}

/* What the data say about the scoring: the ignore label, and where `evaluate` asks for neither regions nor
 * groups, the regions that are segmented, or else those that the data set's own json names. */
static void set_scoring(pipeline *p, const dataset *d) {
  evaluate_spec *e = &p->evaluate;
  bool has_own = p->data.region_count > 0;
  e->ignore_label = d->ignore_label;
  if (e->region_count > 0 || e->group_count > 0) return;
  e->regions = has_own ? p->data.regions : d->regions;
  e->region_count = has_own ? p->data.region_count : d->region_count;
}

status run_load(const char *path, const override *overrides, int override_count, pipeline **p,
                dataset **data) {
  TRY(pipeline_load(path, overrides, override_count, p));
  TRY(dataset_open(&(*p)->data, (*p)->seed, data));
  set_scoring(*p, *data);
  return stages_infer_crops(*p, (*data)->channels);
}

static status open_run(run *r, const run_options *o, char *why) {
  TRY(run_load(o->pipeline_path, o->overrides, o->override_count, &r->p, &r->data));
  r->scored_names = evaluate_row_names(&r->p->evaluate, (const char *const *)r->data->class_names,
                                       &r->data->memory);
  r->scored_count = evaluate_rows(&r->p->evaluate, r->data->class_count);
  return device_open(o->device ? o->device : r->p->device,
                     (int)(o->threads > 0 ? o->threads : r->p->threads), &r->device, why);
}

/* The results are what the run is for: they stay when this fails. */
static void write_report(const run *r) {
  char *path = run_file(r, "report.html");
  status error = report_page_write(r->folder, NULL, path);
  if (error)
    report_line(&r->report, "warning: there is no report: %s", error_message(error));
  else
    report_line(&r->report, "report:      %s", path);
  error_free(error);
  free(path);
}

status run_pipeline(const run_options *o, char **folder_out) {
  run r = {.resume = o->resume,
           .changed_scripts = o->changed_scripts,
           .allow_changes = o->allow_changes,
           .report = o->report,
           .command = o->command,
           .in_use = -1};
  char why[200] = "", *folder = NULL, *cache = NULL;
  resume_states states = {.unfinished.stage = -1, .final.stage = -1};
  status error = open_run(&r, o, why);
  r.operators = calloc((size_t)op_count(), sizeof *r.operators);
  if (!error) r.fitted = calloc((size_t)r.p->stage_count + 1, sizeof *r.fitted);
  if (!error && (!r.operators || !r.fitted)) error = error_out_of_memory((size_t)op_count());
  if (!error) error = run_compile(&r);
  if (!error) error = dataset_read_headers(r.data, r.device->pool, NULL);
  if (!error) {
    folder = o->folder ? memory_strdup(o->folder) : run_fresh_folder(r.p->name);
    r.folder = folder;
    r.resume |= o->resume_if_any && holds_run(&r);
    r.cache = cache = run_cache_folder(&r.p->data, folder);
    error = reproduce_begin(&r);
  }
  if (!error) error = prepare_folder(&r, &states);
  if (!error) {
    say_start(&r, why);
    error = train_stages(&r, &states);
  }
  if (!error && r.p->evaluate.enabled) error = run_evaluate(&r);
  if (!error) reproduce_end(&r);
  if (!error) write_report(&r);
  if (r.in_use >= 0) close(r.in_use);
  if (folder_out)
    *folder_out = folder;
  else
    free(folder);
  free(cache);
  resume_states_free(&states);
  free(r.operators);
  fitted_free(r.fitted, r.p ? r.p->stage_count : 0);
  reproduce_free(&r);
  device_close(r.device);
  dataset_free(r.data);
  pipeline_free(r.p);
  return error;
}
