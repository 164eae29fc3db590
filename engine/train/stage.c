/* One training stage: batches in, optimizer steps, epoch ends (log, validation, hook, checkpoint).
 */
#include "base/clock.h"
#include "base/files.h"
#include "base/text.h"
#include "evaluate/metrics.h"
#include "infer/network.h"
#include "run/run.h"
#include "run/state.h"
#include "train/controls.h"
#include "train/groups.h"
#include "train/initialize.h"
#include "train/transfer.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LOGGED = STATE_MAX_VALUES, NAME_BYTES = 96 };

/* Named numbers of a pass over some batches: loss, its terms, metrics. */
typedef struct tally {
  named_number sums[MAX_LOGGED];
  int count;
  double batches;
} tally;

typedef struct trainer {
  run *r;
  const stage_spec *stage;
  int index;
  stage_graph graph;
  parameters parameters;
  program program;
  controls controls;
  stage_graph check_graph; /* the same graph without dropout and backward, for validation */
  program check;
  int64_t check_batch; /* samples in its step */
  network network;     /* the segmentation, when the stage names its output */
  bool has_check, has_network;
  loader *loader;
  run_state state;
  tally epoch;
  named_number results[MAX_LOGGED]; /* of the last finished epoch, for the hook and the log */
  int result_count;
  double started_s, saved_s, step_started_s;
  int64_t steps_per_epoch, steps_here; /* steps (updates) done by this process */
  int64_t batches_per_epoch;
  double last_dice;
  char *weights_path, *state_path;
} trainer;

/* ---- numbers ----------------------------------------------------------------------------- */

static void tally_add(tally *t, const char *name, double value) {
  for (int i = 0; i < t->count; i++)
    if (strcmp(t->sums[i].name, name) == 0) {
      t->sums[i].value += value;
      return;
    }
  if (t->count == MAX_LOGGED) return;
  snprintf(t->sums[t->count].name, NAME_BYTES, "%s", name);
  t->sums[t->count++].value = value;
}

static void add_result(trainer *t, const char *prefix, const char *name, double value) {
  if (t->result_count == MAX_LOGGED) return;
  named_number *n = &t->results[t->result_count++];
  snprintf(n->name, NAME_BYTES, "%s%s", prefix, name);
  n->value = value;
}

/* Reads the loss, its terms and the metrics of the batch just run. */
static status read_batch(program *p, const stage_graph *g, tally *t, double *loss) {
  float value = 0;
  TRY(program_read(p, g->loss, &value));
  *loss = (double)value;
  tally_add(t, "loss", *loss);
  for (int i = 0; i < g->term_count; i++) {
    char name[NAME_BYTES];
    if (g->term_count == 1 && strcmp(g->term_names[i], "loss") == 0) break;
    snprintf(name, sizeof name, "loss.%s", g->term_names[i]);
    TRY(program_read(p, g->terms[i], &value));
    tally_add(t, name, (double)value);
  }
  for (int i = 0; i < g->metric_count; i++) {
    float values[LIST_MAX];
    int64_t n = shape_elements(&g->g->values[g->metrics[i]].type.shape);
    TRY(program_read(p, g->metrics[i], values));
    for (int64_t k = 0; k < n; k++) {
      char name[NAME_BYTES];
      if (n == 1)
        snprintf(name, sizeof name, "%s", g->metric_names[i]);
      else
        snprintf(name, sizeof name, "%s.%lld", g->metric_names[i], (long long)k);
      tally_add(t, name, (double)values[k]);
    }
  }
  t->batches += 1;
  return OK;
}

/* ---- opening ----------------------------------------------------------------------------- */

static expand_options options_for(const trainer *t, int64_t batch, bool training) {
  const run *r = t->r;
  return (expand_options){.batch = batch,
                          .size = {r->size[0], r->size[1], r->size[2]},
                          .channels = r->channels,
                          .classes = r->data->class_count,
                          .training = training};
}

/* Samples in a step of the validation of losses: one, unless a loss compares samples. 0: there are
 * too few for that. */
static int64_t check_batch(const trainer *t) {
  int64_t cases = dataset_role_count(t->r->data, ROLE_VALIDATION);
  bool across = false;
  for (int i = 0; i < t->graph.g->node_count; i++)
    across |= (t->graph.g->nodes[i].op->traits & OP_ACROSS_SAMPLES) != 0;
  if (!across) return cases > 0 ? 1 : 0;
  return cases < 2 ? 0 : cases < t->stage->batch ? cases : t->stage->batch;
}

static status open_graphs(trainer *t) {
  run *r = t->r;
  expand_options options = options_for(t, t->stage->batch, true);
  TRY(stage_expand(r->p, t->stage, &options, &t->graph));
  initialize_choose(&t->stage->initialize, t->graph.g);
  parameter_groups groups;
  TRY(parameter_groups_open(t->stage, t->graph.g, &groups));
  TRY(parameters_create_in_groups(t->graph.g, groups.of, groups.count, r->device, &t->parameters));
  optimizer_use optimizer = stage_optimizer(t->stage, &groups);
  TRY(program_create(t->graph.g, r->device, &t->parameters, t->graph.keep, t->graph.keep_count,
                     t->stage->batch, &optimizer, &t->program));
  TRY(controls_open(t->stage, &t->graph, &t->controls));
  if (dataset_role_count(r->data, ROLE_VALIDATION) == 0) return OK;
  if (t->stage->output) {
    TRY(network_open(r->p, t->stage, t->stage->output, r->channels, r->data->class_count, r->device,
                     &t->parameters, &t->network));
    t->has_network = true;
    return OK;
  }
  t->check_batch = check_batch(t);
  if (t->check_batch == 0) return OK;
  options = options_for(t, t->check_batch, false);
  TRY(stage_expand(r->p, t->stage, &options, &t->check_graph));
  TRY(program_create(t->check_graph.g, r->device, &t->parameters, t->check_graph.keep,
                     t->check_graph.keep_count, t->check_batch, NULL, &t->check));
  t->has_check = true;
  t->controls.check_graph = &t->check_graph;
  return OK;
}

static char *weights_path_of(const run *r, const char *stage) {
  char name[256];
  snprintf(name, sizeof name, "weights/%s.safetensors", stage);
  return path_join(r->folder, name);
}

static status fill_parameters(trainer *t) {
  run *r = t->r;
  const stage_spec *s = t->stage;
  TRY(parameters_initialize(&t->parameters, r->p->seed));
  if (s->init_skipped)
    report_line(&r->report, "stage %s starts from fresh weights: stage %s is switched off", s->name,
                s->init_skipped);
  if (!s->init_from) return OK;
  char *path = s->init_is_file ? strdup(s->init_from) : weights_path_of(r, s->init_from);
  status error = transfer_weights(path, &t->graph, s, &t->parameters, &r->report);
  free(path);
  return error;
}

/* The stage's batches from its first on. */
static loader_options training_batches(const trainer *t) {
  const run *r = t->r;
  return (loader_options){.spec = &r->p->data,
                          .data = r->data,
                          .cache = r->cache,
                          .seed = r->p->seed,
                          .stage = t->stage->name,
                          .role = ROLE_TRAIN,
                          .shuffle = true,
                          .label_free = t->graph.label == VALUE_NONE && !t->stage->use_labels,
                          .batch = t->stage->batch,
                          .steps_per_epoch = t->stage->steps_per_epoch * t->stage->accumulate,
                          .epochs = t->stage->epochs,
                          .size = {r->size[0], r->size[1], r->size[2]},
                          .channels = r->channels,
                          .world = 1};
}

static status write_batch(trainer *t, const batch *b) {
  TRY(program_write(&t->program, t->graph.image, b->image));
  if (t->graph.label != VALUE_NONE)
    TRY(program_write_classes(&t->program, t->graph.label, b->label));
  return program_set_keys(&t->program, b->keys);
}

/* Fresh layers that are scaled by what they make of the first batch. */
static status initialize_on_data(trainer *t) {
  if (!initialize_needs_data(&t->stage->initialize)) return OK;
  loader_options o = training_batches(t);
  o.epochs = 1;
  loader *l;
  TRY(loader_open(&o, &l));
  batch *b = NULL;
  status error = loader_next(l, &b);
  if (!error && !b) error = error_new(ERROR_INTERNAL, t->stage->at, "the loader has no batch");
  if (!error) error = write_batch(t, b);
  if (!error)
    error = initialize_layers(&t->stage->initialize, &t->program, t->stage->name, &t->r->report);
  loader_close(l);
  return error;
}

static status open_loader(trainer *t) {
  loader_options o = training_batches(t);
  o.first_epoch = t->state.epoch;
  o.first_step = t->state.step * t->stage->accumulate;
  TRY(loader_open(&o, &t->loader));
  t->batches_per_epoch = loader_steps_per_epoch(t->loader);
  t->steps_per_epoch = (t->batches_per_epoch + t->stage->accumulate - 1) / t->stage->accumulate;
  /* Stopped after the last step of an epoch but before its end was dealt with. */
  if (t->state.step < t->steps_per_epoch) return OK;
  loader_close(t->loader);
  o.first_epoch++;
  o.first_step = 0;
  return loader_open(&o, &t->loader);
}

static status restore(trainer *t, const run_state *from) {
  TRY(state_restore(t->state_path, &t->program));
  t->state.epoch = from->epoch;
  t->state.step = from->step;
  t->state.updates = t->program.updates = from->updates;
  t->state.elapsed_s = from->elapsed_s;
  for (int i = 0; i < from->sum_count; i++) {
    if (strcmp(from->sums[i].name, "#batches") == 0)
      t->epoch.batches = from->sums[i].value;
    else
      tally_add(&t->epoch, from->sums[i].name, from->sums[i].value);
  }
  t->state.number_count = from->number_count;
  memcpy(t->state.numbers, from->numbers, sizeof from->numbers);
  for (int i = 0; i < from->number_count; i++)
    TRY(controls_set(&t->controls, from->numbers[i].name, from->numbers[i].value));
  if (from->hook_state && t->controls.hook)
    TRY(script_state_load(t->controls.hook, from->hook_state));
  report_line(&t->r->report, "stage %s goes on at epoch %lld, step %lld", t->stage->name,
              (long long)from->epoch + 1, (long long)from->step);
  return OK;
}

/* ---- checkpoints ------------------------------------------------------------------------- */

static double elapsed_s(const trainer *t) {
  return t->state.elapsed_s + clock_now_s() - t->started_s;
}

static status save_state(trainer *t) {
  run_state s = t->state;
  s.stage = t->index;
  s.updates = t->program.updates;
  s.elapsed_s = elapsed_s(t);
  s.identity = t->r->p->identity;
  s.sum_count = 0;
  s.hook_state = NULL;
  for (int i = 0; i < t->epoch.count && s.sum_count < STATE_MAX_VALUES - 1; i++)
    s.sums[s.sum_count++] = t->epoch.sums[i];
  snprintf(s.sums[s.sum_count].name, NAME_BYTES, "#batches");
  s.sums[s.sum_count++].value = t->epoch.batches;
  if (t->controls.hook) TRY(script_state_save(t->controls.hook, &s.hook_state));
  status error = state_save(t->state_path, &s, &t->program);
  free(s.hook_state);
  t->saved_s = clock_now_s();
  return error;
}

static status write_weights(trainer *t) {
  char identity[32], seed[32];
  snprintf(identity, sizeof identity, "%016" PRIx64, t->r->p->identity);
  snprintf(seed, sizeof seed, "%" PRIu64, t->r->p->seed);
  const char *metadata[] = {"format",       "pt",           "pipeline", t->r->p->name, "stage",
                            t->stage->name, "seed",         seed,       "identity",    identity,
                            "strata",       STRATA_VERSION, NULL};
  return parameters_write(t->weights_path, &t->parameters, metadata);
}

/* ---- validation -------------------------------------------------------------------------- */

/* Loss terms and metrics on the validation cases, with the same crops and masks every time. */
static status check_losses(trainer *t) {
  run *r = t->r;
  char name[256];
  snprintf(name, sizeof name, "%s/validation", t->stage->name);
  loader_options o = {.spec = &r->p->data,
                      .data = r->data,
                      .cache = r->cache,
                      .seed = r->p->seed,
                      .stage = name,
                      .role = ROLE_VALIDATION,
                      .label_free = t->check_graph.label == VALUE_NONE && !t->stage->use_labels,
                      .batch = t->check_batch,
                      .epochs = 1,
                      .size = {r->size[0], r->size[1], r->size[2]},
                      .channels = r->channels,
                      .world = 1};
  loader *l;
  tally sums = {0};
  TRY(loader_open(&o, &l));
  status error = OK;
  for (;;) {
    batch *b = NULL;
    double loss;
    error = loader_next(l, &b);
    if (error || !b) break;
    error = program_write(&t->check, t->check_graph.image, b->image);
    if (!error && t->check_graph.label != VALUE_NONE)
      error = program_write_classes(&t->check, t->check_graph.label, b->label);
    if (error) break;
    error = program_set_keys(&t->check, b->keys);
    if (!error) error = program_run(&t->check);
    if (!error) error = read_batch(&t->check, &t->check_graph, &sums, &loss);
    if (error) break;
  }
  loader_close(l);
  for (int i = 0; i < sums.count && !error; i++)
    add_result(t, "validation.", sums.sums[i].name, sums.sums[i].value / sums.batches);
  return error;
}

/* Mean foreground Dice of whole validation cases, on the prepared grid. */
static status check_segmentation(trainer *t) {
  run *r = t->r;
  int cases = r->data->case_count;
  int *index = calloc((size_t)cases + 1, sizeof *index);
  case_score *scores = calloc((size_t)cases + 1, sizeof *scores);
  if (!index || !scores) {
    free(index);
    free(scores);
    return error_out_of_memory((size_t)cases * sizeof *scores);
  }
  int count = dataset_role(r->data, ROLE_VALIDATION, index), scored = 0;
  evaluate_spec dice_only = r->p->evaluate;
  dice_only.metrics = METRIC_BIT(METRIC_DICE);
  status error = OK;
  for (int i = 0; i < count && !error && !run_stop_requested(); i++) {
    const case_entry *entry = &r->data->cases[index[i]];
    medical_case c = {0};
    labels prediction = {0};
    error = case_prepare(&r->p->data, entry, r->cache, &c);
    if (!error && c.label.data) {
      error = network_segment_prepared(&t->network, &c.image, &prediction);
      if (!error)
        error = score_case(&prediction, &c.label, r->data->class_count, &dice_only, entry->name,
                           r->device->pool, &scores[scored]);
      if (!error) scored++;
      error = error_prefix(error, "validation case %s", entry->name);
    }
    labels_free(&prediction);
    case_free(&c);
  }
  evaluation summary = {.class_names = r->data->class_names,
                        .class_count = r->data->class_count,
                        .cases = scores,
                        .case_count = scored,
                        .spec = &dice_only};
  if (!error && scored > 0) {
    t->last_dice = evaluation_mean_dice(&summary);
    add_result(t, "validation.", "dice", t->last_dice);
  }
  for (int i = 0; i < scored; i++) case_score_free(&scores[i]);
  free(scores);
  free(index);
  return error;
}

/* With the averaged weights, where there are any. */
static status validate(trainer *t) {
  TRY(program_exchange_average(&t->program));
  status error = t->has_network ? check_segmentation(t) : OK;
  if (!error && t->has_check) error = check_losses(t);
  problems found = {0};
  problems_add(&found, error);
  problems_add(&found, program_exchange_average(&t->program));
  return problems_take(&found);
}

/* ---- epoch end --------------------------------------------------------------------------- */

static status log_epoch(trainer *t, double epoch_seconds) {
  json_t *line = json_object();
  json_object_set_new(line, "stage", json_string(t->stage->name));
  json_object_set_new(line, "epoch", json_integer(t->state.epoch));
  json_object_set_new(line, "updates", json_integer(t->program.updates));
  for (int i = 0; i < t->result_count; i++)
    json_object_set_new(line, t->results[i].name,
                        isfinite(t->results[i].value) ? json_real(t->results[i].value)
                                                      : json_null());
  json_object_set_new(line, "seconds", json_real(epoch_seconds));
  char *text = json_dumps(line, JSON_COMPACT);
  json_decref(line);
  if (!text) return error_out_of_memory(1024);
  bool failed = fprintf(t->r->metrics, "%s\n", text) < 0 || fflush(t->r->metrics) != 0;
  free(text);
  return failed ? error_from_errno("write", "metrics.jsonl") : OK;
}

static void say_epoch(const trainer *t, double epoch_seconds) {
  text_buffer line = {0};
  char spent[24];
  text_add(&line, "%s  epoch %lld/%lld ", t->stage->name, (long long)t->state.epoch,
           (long long)t->stage->epochs);
  for (int i = 0; i < t->result_count; i++)
    text_add(&line, " %s %.4g", t->results[i].name, t->results[i].value);
  text_add(&line, "  (%s)", format_duration(spent, epoch_seconds));
  report_line(&t->r->report, "%s", line.data);
  text_free(&line);
}

static status hook_get(void *context, const char *name, double *out) {
  trainer *t = context;
  if (controls_get(&t->controls, name, out)) return OK;
  return error_new(ERROR_SCRIPT, t->stage->on_epoch_end.at, "stage \"%s\" has no number \"%s\"",
                   t->stage->name, name);
}

static status hook_set(void *context, const char *name, double value) {
  trainer *t = context;
  TRY(controls_set(&t->controls, name, value));
  int i = 0;
  while (i < t->state.number_count && strcmp(t->state.numbers[i].name, name) != 0) i++;
  if (i == STATE_MAX_VALUES)
    return error_new(ERROR_SCRIPT, t->stage->on_epoch_end.at, "a hook can set at most %d numbers",
                     STATE_MAX_VALUES);
  snprintf(t->state.numbers[i].name, NAME_BYTES, "%s", name);
  t->state.numbers[i].value = value;
  if (i == t->state.number_count) t->state.number_count++;
  return OK;
}

static void hook_log(void *context, const char *text) {
  trainer *t = context;
  report_line(&t->r->report, "%s: %s", t->stage->name, text);
}

static status call_hook(trainer *t, bool *stop) {
  if (!t->controls.hook) return OK;
  const char *names[MAX_LOGGED];
  double values[MAX_LOGGED];
  for (int i = 0; i < t->result_count; i++) {
    names[i] = t->results[i].name;
    values[i] = t->results[i].value;
  }
  hook_event event = {.stage = t->stage->name,
                      .epoch = t->state.epoch - 1,
                      .step = t->program.updates,
                      .metric_names = names,
                      .metric_values = values,
                      .metric_count = t->result_count,
                      .get = hook_get,
                      .set = hook_set,
                      .log = hook_log,
                      .context = t};
  TRY(error_locate(script_hook(t->controls.hook, &event), t->stage->on_epoch_end.at));
  if (event.stop)
    report_line(&t->r->report, "stage %s ended by its hook after epoch %lld: %s", t->stage->name,
                (long long)t->state.epoch, event.stop_reason);
  *stop = event.stop;
  return OK;
}

/* Everything that happens between two epochs. When the user asks to stop during the validation,
 * nothing has happened yet: the state still stands before the end of this epoch. */
static status finish_epoch(trainer *t, bool *stop) {
  const stage_spec *s = t->stage;
  int64_t finished = t->state.epoch + 1;
  bool last = finished == s->epochs;
  double epoch_seconds = clock_now_s() - t->step_started_s;
  t->result_count = 0;
  for (int i = 0; i < t->epoch.count; i++)
    add_result(t, "", t->epoch.sums[i].name, t->epoch.sums[i].value / t->epoch.batches);
  double lr;
  if (controls_get(&t->controls, "lr", &lr)) add_result(t, "", "lr", lr);
  bool due = last || (s->validate_every > 0 && finished % s->validate_every == 0);
  if (due) TRY(validate(t));
  if (run_stop_requested()) return OK;
  t->state.epoch = finished;
  t->state.step = 0;
  TRY(log_epoch(t, epoch_seconds));
  say_epoch(t, epoch_seconds);
  TRY(call_hook(t, stop));
  if (s->time_limit_s > 0 && elapsed_s(t) >= s->time_limit_s && !last) {
    report_line(&t->r->report,
                "stage %s reached its time limit after epoch %lld of %lld; where it stops depends "
                "on the machine, so this run does not reproduce to the bit",
                s->name, (long long)finished, (long long)s->epochs);
    *stop = true;
  }
  t->epoch = (tally){0};
  t->step_started_s = clock_now_s();
  return OK;
}

/* ---- steps ------------------------------------------------------------------------------- */

static void say_progress(trainer *t) {
  const stage_spec *s = t->stage;
  const char *names[8];
  double values[8];
  int count = 0;
  for (int i = 0; i < t->epoch.count && count < 7; i++) {
    if (count == 1 && t->last_dice > 0) {
      names[count] = "Dice";
      values[count++] = t->last_dice;
    }
    names[count] = t->epoch.sums[i].name;
    values[count++] = t->epoch.sums[i].value / t->epoch.batches;
  }
  double here = clock_now_s() - t->started_s;
  double total = (double)(s->epochs * t->steps_per_epoch);
  double done = (double)(t->state.epoch * t->steps_per_epoch + t->state.step);
  double rate = here > 0 ? (double)t->steps_here / here : 0;
  int64_t voxels = s->batch * s->accumulate * t->r->size[0] * t->r->size[1] * t->r->size[2];
  progress p = {.stage = s->name,
                .unit = "step",
                .epoch = t->state.epoch + 1,
                .epochs = s->epochs,
                .done = t->state.step,
                .total = t->steps_per_epoch,
                .overall = total > 0 ? done / total : 0,
                .elapsed_s = elapsed_s(t),
                .eta_s = rate > 0 ? (total - done) / rate : -1,
                .voxels_per_s = rate * (double)voxels,
                .names = names,
                .values = values,
                .value_count = count};
  if (t->r->report.update) t->r->report.update(t->r->report.context, &p);
}

static status not_finite(trainer *t, const batch *b, double loss) {
  text_buffer cases = {0};
  for (int64_t n = 0; n < t->stage->batch; n++)
    text_add(&cases, "%s%s", n ? ", " : "", b->case_names[n]);
  const char *culprit = "";
  for (int i = 0; i < t->graph.term_count; i++) {
    float value = 0;
    error_free(program_read(&t->program, t->graph.terms[i], &value));
    if (!isfinite(value)) culprit = t->graph.term_names[i];
  }
  status error = error_new(
      ERROR_NUMERIC, t->stage->at,
      "stage %s, epoch %lld, step %lld (case %s): the loss%s%s became %s. The last saved state is "
      "untouched. Try a lower learning rate, or clip_norm: 1",
      t->stage->name, (long long)b->epoch + 1, (long long)b->step + 1,
      cases.data ? cases.data : "?", culprit[0] ? " term " : "", culprit,
      isnan(loss) ? "NaN" : "infinite");
  text_free(&cases);
  return error;
}

/* One batch: part `part` of the `parts` that make an update. */
static status one_batch(trainer *t, int64_t part, int64_t parts) {
  batch *b = NULL;
  TRY(loader_next(t->loader, &b));
  if (!b) return error_new(ERROR_INTERNAL, t->stage->at, "the loader ended before the stage");
  status warning = cache_problem_take();
  if (warning) report_line(&t->r->report, "warning: %s", error_message(warning));
  error_free(warning);
  TRY(write_batch(t, b));
  TRY(program_run_part(&t->program, part, parts));
  double loss;
  TRY(read_batch(&t->program, &t->graph, &t->epoch, &loss));
  return isfinite(loss) ? OK : not_finite(t, b, loss);
}

static status stop_here(trainer *t) {
  TRY(save_state(t));
  return error_new(ERROR_INTERRUPTED, NOWHERE,
                   "stopped in stage %s, epoch %lld, step %lld; the state is saved, and the same "
                   "command with --resume goes on from there",
                   t->stage->name, (long long)t->state.epoch + 1, (long long)t->state.step);
}

/* A step is an update of the weights; the last of an epoch may have fewer batches. */
static status next_step(trainer *t) {
  int64_t parts = t->batches_per_epoch - t->state.step * t->stage->accumulate;
  if (parts > t->stage->accumulate) parts = t->stage->accumulate;
  TRY(controls_step(&t->controls, t->program.updates, t->state.epoch,
                    t->stage->epochs * t->steps_per_epoch, t->steps_per_epoch));
  for (int64_t part = 0; part < parts; part++) TRY(one_batch(t, part, parts));
  t->state.step++;
  t->steps_here++;
  say_progress(t);
  return OK;
}

static status train(trainer *t) {
  t->started_s = t->saved_s = t->step_started_s = clock_now_s();
  bool stop = false;
  while (!stop && t->state.epoch < t->stage->epochs) {
    if (t->state.step < t->steps_per_epoch) {
      TRY(next_step(t));
    } else {
      TRY(finish_epoch(t, &stop));
      bool over = stop || t->state.epoch == t->stage->epochs;
      if (!over && clock_now_s() - t->saved_s >= (double)t->stage->checkpoint_every_s)
        TRY(save_state(t));
      if (over && t->state.step == 0) return OK;
    }
    if (run_stop_requested()) return stop_here(t);
  }
  return OK;
}

static void trainer_close(trainer *t) {
  loader_close(t->loader);
  controls_close(&t->controls);
  if (t->has_network) network_close(&t->network);
  program_free(&t->check);
  stage_graph_free(&t->check_graph);
  program_free(&t->program);
  parameters_free(&t->parameters);
  stage_graph_free(&t->graph);
  free(t->weights_path);
  free(t->state_path);
}

/* After a stop within an epoch the scheduled numbers are those of the step before it: the end of
 * the epoch may be what comes next, and it logs them and shows them to the hook. */
static status repeat_controls(trainer *t) {
  if (t->state.step == 0) return OK;
  return controls_step(&t->controls, t->program.updates - 1, t->state.epoch,
                       t->stage->epochs * t->steps_per_epoch, t->steps_per_epoch);
}

status stage_train(run *r, int stage_index, const run_state *resume_from) {
  const stage_spec *s = &r->p->stages[stage_index];
  trainer t = {.r = r,
               .stage = s,
               .index = stage_index,
               .weights_path = weights_path_of(r, s->name),
               .state_path = path_join(r->folder, "state.safetensors")};
  status error = open_graphs(&t);
  if (!error) {
    char arena_text[24], naive_text[24];
    report_line(&r->report,
                "stage %s: %.2f M parameters, step memory %s planned (%s if nothing were shared)",
                s->name, (double)graph_param_elements(t.graph.g) / 1e6,
                format_bytes(arena_text, (double)t.program.plan.arena_bytes),
                format_bytes(naive_text, (double)t.program.plan.naive_bytes));
    error = resume_from ? restore(&t, resume_from) : fill_parameters(&t);
  }
  if (!error && !resume_from) error = initialize_on_data(&t);
  if (!error && !resume_from) error = program_start_average(&t.program);
  if (!error) error = open_loader(&t);
  if (!error && resume_from) error = repeat_controls(&t);
  if (!error) error = train(&t);
  if (!error) error = program_exchange_average(&t.program);
  if (!error) error = write_weights(&t);
  if (!error) remove(t.state_path);
  trainer_close(&t);
  return error;
}
