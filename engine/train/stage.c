/* One training stage: batches in, optimizer steps, epoch ends (log, validation, hook, checkpoint).
 */
#include "base/clock.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "run/resume.h"
#include "train/case_weights.h"
#include "train/groups.h"
#include "train/initialize.h"
#include "train/sample.h"
#include "train/trainer.h"
#include "train/transfer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ----------------------------------------------------------------------------- */

static expand_options options_for(const trainer *t, int64_t batch, bool training) {
  const dataset *d = t->r->data;
  return crop_options(t->stage, d->channels, d->class_count, batch, training);
}

static bool is_label_free(const trainer *t) {
  return t->graph.label == VALUE_NONE && !t->stage->use_labels;
}

/* Samples in a step of the validation of losses: one, unless a loss compares samples. 0: there are
 * too few for that. */
static int64_t check_batch(const trainer *t) {
  int64_t cases = dataset_role_usable(t->r->data, ROLE_VALIDATION, is_label_free(t));
  bool across = false;
  for (int i = 0; i < t->graph.g->node_count; i++)
    across |= (t->graph.g->nodes[i].op->traits & OP_ACROSS_SAMPLES) != 0;
  if (!across) return cases > 0 ? 1 : 0;
  return cases < 2 ? 0 : cases < t->stage->batch ? cases : t->stage->batch;
}

static status open_graphs(trainer *t) {
  run *r = t->r;
  if (!r->fitted || !fitted_take(&r->fitted[t->index], &t->graph, &t->memory)) {
    expand_options options = options_for(t, t->stage->batch, true);
    TRY(stage_expand(r->p, t->stage, &options, &t->graph));
    TRY(stage_fit_memory(t->stage, r->device, &t->graph, &t->memory));
  }
  initialize_choose(&t->stage->initialize, t->graph.g);
  parameter_groups groups;
  TRY(parameter_groups_open(t->stage, t->graph.g, &groups));
  TRY(parameters_create_in_groups(t->graph.g, groups.of, groups.count, r->device, &t->parameters));
  optimizer_use optimizer = stage_optimizer(t->stage, r->device, &groups);
  TRY(stage_lacks_memory(t->stage, program_create(t->graph.g, r->device, &t->parameters,
                                                  t->graph.keep, t->graph.keep_count,
                                                  t->stage->batch, &optimizer, &t->program)));
  TRY(controls_open(t->stage, &t->graph, &t->controls));
  if (dataset_role_count(r->data, ROLE_VALIDATION) == 0) return OK;
  if (t->stage->output) {
    TRY(network_open(r->p, t->stage, t->stage->output, r->data->channels, r->data->class_count,
                     r->device, &t->parameters, &t->network));
    t->has_network = true;
    return OK;
  }
  t->check_batch = check_batch(t);
  if (t->check_batch == 0) return OK;
  expand_options options = options_for(t, t->check_batch, false);
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
  char *path = s->init_is_file ? memory_strdup(s->init_from) : weights_path_of(r, s->init_from);
  status error = transfer_weights(path, &t->graph, s, &t->parameters, &r->report);
  free(path);
  return error;
}

/* The stage's batches from its first on. */
static loader_options training_batches(const trainer *t) {
  const run *r = t->r;
  const int64_t *crop = t->stage->crop;
  return (loader_options){.spec = t->stage->data,
                          .data = r->data,
                          .cache = r->cache,
                          .seed = r->p->seed,
                          .stage = t->stage->name,
                          .role = ROLE_TRAIN,
                          .shuffle = true,
                          .weights = t->case_weights,
                          .label_free = is_label_free(t),
                          .batch = t->stage->batch,
                          .steps_per_epoch = t->stage->steps_per_epoch * t->stage->accumulate,
                          .epochs = t->stage->epochs,
                          .by_epoch = t->by_epoch,
                          .size = {crop[0], crop[1], crop[2]},
                          .channels = r->data->channels,
                          .drawn_case_bytes = feed_case_bytes(&t->feed),
                          .world = 1};
}

static status write_batch(trainer *t, const batch *b) {
  return feed_write(&t->feed, b, &t->program, t->graph.image, t->graph.label);
}

/* ---- scheduled numbers -------------------------------------------------------------------- */

static schedule_point point_at(const trainer *t, int64_t step, int64_t epochs, number_view *view) {
  return (schedule_point){
      .step = step,
      .epoch = t->state.epoch,
      .total = epochs * t->steps_per_epoch,
      .steps_per_epoch = t->steps_per_epoch,
      .metrics = controls_numbers(&t->controls, t->state.measured, t->state.measured_count, view)};
}

static status apply_schedules(trainer *t, int64_t step, int64_t epochs) {
  number_view view;
  return controls_step(&t->controls, point_at(t, step, epochs, &view));
}

/* Those of sample operators, for the epoch that is to come or has been stopped. */
static status set_samples(trainer *t, int64_t epochs) {
  number_view view;
  int64_t first = t->state.epoch * t->steps_per_epoch;
  return controls_epoch(&t->controls, point_at(t, first, epochs, &view));
}

/* ---- where a stage begins ---------------------------------------------------------------- */

/* Fresh layers that are scaled by what they make of the first batch. */
static status initialize_on_data(trainer *t) {
  if (!initialize_needs_data(&t->stage->initialize)) return OK;
  TRY(set_samples(t, t->stage->epochs));
  loader_options o = training_batches(t);
  o.epochs = 1;
  o.by_epoch = false;
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
  /* Stopped after the last step of an epoch but before its end was dealt with. */
  if (t->state.step < t->steps_per_epoch) return OK;
  loader_close(t->loader);
  o.first_epoch++;
  o.first_step = 0;
  return loader_open(&o, &t->loader);
}

static status restore_best(trainer *t, const run_state *from, const char *path) {
  size_t bytes = (size_t)t->parameters.elements * sizeof(float);
  if (!t->stage->best || strcmp(from->best.name, t->stage->best) != 0) return OK;
  t->state.best = from->best;
  t->state.best_epoch = from->best_epoch;
  t->state.best_weights = malloc(bytes);
  if (!t->state.best_weights) return error_out_of_memory(bytes);
  return state_restore_best(path, &t->parameters, t->state.best_weights);
}

static status restore(trainer *t, const run_state *from) {
  const char *path = from->is_final ? t->final_state_path : t->state_path;
  TRY(state_restore(path, &t->program));
  TRY(restore_best(t, from, path));
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
  t->state.measured_count = from->measured_count;
  memcpy(t->state.measured, from->measured, sizeof from->measured);
  if (!resume_is_longer(from, t->stage)) {
    t->state.end = from->end;
    memcpy(t->state.ended, from->ended, sizeof from->ended);
  }
  for (int i = 0; i < HOOK_COUNT; i++)
    if (from->hook_states[i] && t->controls.hooks[i])
      TRY(script_state_load(t->controls.hooks[i], from->hook_states[i]));
  report_line(&t->r->report, "stage %s goes on at epoch %lld, step %lld", t->stage->name,
              (long long)from->epoch + 1, (long long)from->step);
  return OK;
}

/* ---- checkpoints ------------------------------------------------------------------------- */

double trainer_elapsed_s(const trainer *t) {
  return t->state.elapsed_s + clock_now_s() - t->started_s;
}

static const char when_it_diverges[] =
    "The last saved state is untouched. Try a lower learning rate, or clip_norm: 1";

/* Of what is about to be written: which update, and what to do. */
static status diverged(const trainer *t, status error) {
  if (error_code_of(error) != ERROR_NUMERIC) return error;
  error = error_prefix(error, "stage %s, epoch %lld, update %lld", t->stage->name,
                       (long long)(t->state.epoch + (t->state.step > 0)),
                       (long long)t->program.updates);
  return error_locate(error_suffix(error, ". %s", when_it_diverges), t->stage->at);
}

static status settle(trainer *t);

static status save_state(trainer *t) {
  TRY(settle(t));
  run_state s = t->state;
  s.stage = t->index;
  s.epochs = t->stage->epochs;
  s.updates = t->program.updates;
  s.elapsed_s = trainer_elapsed_s(t);
  s.identity = t->r->p->identity;
  s.sum_count = 0;
  for (int i = 0; i < t->epoch.count; i++) s.sums[s.sum_count++] = t->epoch.sums[i];
  snprintf(s.sums[s.sum_count].name, TALLY_NAME_BYTES, "#batches");
  s.sums[s.sum_count++].value = t->epoch.batches;
  status error = OK;
  for (int i = 0; i < HOOK_COUNT && !error; i++)
    if (t->controls.hooks[i]) error = script_state_save(t->controls.hooks[i], &s.hook_states[i]);
  if (!error) error = diverged(t, state_save(t->state_path, &s, &t->program));
  state_free(&s);
  t->saved_s = clock_now_s();
  return error;
}

/* In the place of the last ones, after the state has been saved with those. */
static status take_best(trainer *t) {
  const parameters *p = &t->parameters;
  if (!t->stage->best) return OK;
  if (!t->state.best_weights) {
    report_line(&t->r->report, "stage %s: no validation gave a %s: the last weights are kept",
                t->stage->name, t->stage->best);
    return OK;
  }
  report_line(&t->r->report, "stage %s: the weights of epoch %lld, whose %s of %.4g is the best",
              t->stage->name, (long long)t->state.best_epoch, t->state.best.name,
              t->state.best.value);
  return p->device->upload(p->device, p->data, t->state.best_weights,
                           (size_t)p->elements * sizeof *p->data);
}

static status write_weights(trainer *t) {
  char identity[32], seed[32];
  snprintf(identity, sizeof identity, "%016" PRIx64, t->r->p->identity);
  snprintf(seed, sizeof seed, "%" PRIu64, t->r->p->seed);
  const char *metadata[] = {"format",       "pt",           "pipeline", t->r->p->name, "stage",
                            t->stage->name, "seed",         seed,       "identity",    identity,
                            "strata",       STRATA_VERSION, NULL};
  return diverged(t, parameters_write(t->weights_path, &t->parameters, metadata));
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
  int64_t voxels = s->batch * s->accumulate * s->crop[0] * s->crop[1] * s->crop[2];
  progress p = {.stage = s->name,
                .unit = "step",
                .epoch = t->state.epoch + 1,
                .epochs = s->epochs,
                .done = t->state.step,
                .total = t->steps_per_epoch,
                .overall = total > 0 ? done / total : 0,
                .elapsed_s = trainer_elapsed_s(t),
                .eta_s = rate > 0 ? (total - done) / rate : -1,
                .voxels_per_s = rate * (double)voxels,
                .names = names,
                .values = values,
                .value_count = count};
  if (t->r->report.update) t->r->report.update(t->r->report.context, &p);
}

static status not_finite(const trainer *t, const running_batch *which, double loss,
                         const char *culprit) {
  text_buffer cases = {0};
  for (int64_t n = 0; n < t->stage->batch; n++)
    text_add(&cases, "%s%s", n ? ", " : "", which->case_names[n]);
  status error = error_new(ERROR_NUMERIC, t->stage->at,
                           "stage %s, epoch %lld, step %lld (case %s): the loss%s%s became %s. %s",
                           t->stage->name, (long long)which->epoch + 1, (long long)which->step + 1,
                           cases.data ? cases.data : "?", culprit[0] ? " term " : "", culprit,
                           isnan(loss) ? "NaN" : "infinite", when_it_diverges);
  text_free(&cases);
  return error;
}

static status read_results(trainer *t, running_batch *which) {
  double loss;
  const char *culprit;
  if (!which->is_there) return OK;
  which->is_there = false;
  TRY(tally_read(&t->epoch, &t->program, &t->graph, which->note, &loss, &culprit));
  return isfinite(loss) ? OK : not_finite(t, which, loss, culprit);
}

/* Waits for the steps that still run, and reads what they have left. */
static status settle(trainer *t) {
  TRY(read_results(t, &t->running[t->turn]));
  return read_results(t, &t->running[1 - t->turn]);
}

/* Ahead of its step where the feed can make it beside the one that runs. */
static status take_batch(trainer *t) {
  TRY(loader_next(t->loader, &t->next));
  status warning = cache_problem_take();
  if (warning) report_line(&t->r->report, "warning: %s", error_message(warning));
  error_free(warning);
  if (!t->next || !feed_works_ahead(&t->feed)) return OK;
  return feed_ahead(&t->feed, t->next, &t->program, t->graph.image, t->graph.label);
}

/* Whatever goes wrong is the next step's. */
static void look_ahead(trainer *t) {
  t->next_error = take_batch(t);
}

/* The next batch, into the program's inputs. */
static status give_batch(trainer *t) {
  status error = t->next_error;
  t->next_error = OK;
  if (!error && !t->next) error = take_batch(t);
  if (error) return error;
  if (!t->next) return error_new(ERROR_INTERNAL, t->stage->at, "the loader ended before the stage");
  if (!feed_works_ahead(&t->feed)) return write_batch(t, t->next);
  return feed_deliver(&t->feed, t->next, &t->program, t->graph.image, t->graph.label);
}

static status note_batch(trainer *t, running_batch *out) {
  const batch *b = t->next;
  size_t names = (size_t)t->stage->batch * sizeof *out->case_names;
  if (!out->case_names) out->case_names = malloc(names);
  if (!out->case_names) return error_out_of_memory(names);
  memcpy(out->case_names, b->case_names, names);
  out->epoch = b->epoch;
  out->step = b->step;
  TRY(tally_note(&t->program, &t->graph, &out->note));
  out->is_there = true;
  return OK;
}

/* One batch: part `part` of the `parts` that make an update. Where batches are made ahead, the device goes
 * from step to step without waiting for the host: this one is started, the next batch is made beside
 * it, and only then does the host look at the step before, which is over or nearly so. */
static status one_batch(trainer *t, int64_t part, int64_t parts) {
  TRY(give_batch(t));
  TRY(program_start_part(&t->program, part, parts));
  TRY(note_batch(t, &t->running[t->turn]));
  t->turn = 1 - t->turn;
  t->next = NULL;
  if (!feed_works_ahead(&t->feed)) return settle(t);
  const bool ends_epoch = part + 1 == parts && t->state.step + 1 == t->steps_per_epoch;
  if (!ends_epoch || !t->by_epoch) look_ahead(t);
  return read_results(t, &t->running[t->turn]);
}

static status stop_here(trainer *t) {
  TRY(save_state(t));
  return error_new(ERROR_INTERRUPTED, NOWHERE,
                   "stopped in stage %s, epoch %lld, step %lld; the state is saved, and the same "
                   "command with --resume goes on from there",
                   t->stage->name, (long long)t->state.epoch + 1, (long long)t->state.step);
}

static status begin_epoch(trainer *t) {
  if (!t->by_epoch || t->begun_epoch == t->state.epoch) return OK;
  TRY(set_samples(t, t->stage->epochs));
  t->begun_epoch = t->state.epoch;
  loader_begin_epoch(t->loader, t->begun_epoch);
  return OK;
}

/* A step is an update of the weights; the last of an epoch may have fewer batches. */
static status next_step(trainer *t) {
  int64_t parts = t->batches_per_epoch - t->state.step * t->stage->accumulate;
  if (parts > t->stage->accumulate) parts = t->stage->accumulate;
  TRY(begin_epoch(t));
  TRY(apply_schedules(t, t->program.updates, t->stage->epochs));
  for (int64_t part = 0; part < parts; part++) TRY(one_batch(t, part, parts));
  t->state.step++;
  t->steps_here++;
  say_progress(t);
  return OK;
}

/* Between two steps only where an epoch is longer than that, and never at each of them. */
static bool is_time_to_save(const trainer *t, bool is_epoch_end) {
  int64_t every_s = t->stage->checkpoint_every_s;
  return (is_epoch_end || every_s > 0) && clock_now_s() - t->saved_s >= (double)every_s;
}

static status train(trainer *t) {
  if (t->stage->epochs == 0) trainer_note_end(t);
  bool stop = t->state.ended[0] != 0;
  while (!stop && t->state.epoch < t->stage->epochs) {
    if (t->state.step < t->steps_per_epoch) {
      TRY(next_step(t));
      if (is_time_to_save(t, false) && !run_stop_requested()) TRY(save_state(t));
    } else {
      TRY(settle(t));
      TRY(trainer_finish_epoch(t, &stop));
      bool over = stop || t->state.epoch == t->stage->epochs;
      if (!over && is_time_to_save(t, true)) TRY(save_state(t));
      if (over && t->state.step == 0) return OK;
    }
    if (run_stop_requested()) return stop_here(t);
  }
  return OK;
}

/* With it the stage can be made longer. The weights are what the run is for, and they need less room: they
 * are written although the state does not fit. */
static status save_final_state(trainer *t) {
  if (!t->keeps_state) return OK;
  status error = save_state(t);
  if (error_code_of(error) != ERROR_IO) return error;
  report_line(&t->r->report, "warning: %s; without this state stage %s cannot be made longer",
              error_message(error), t->stage->name);
  error_free(error);
  t->keeps_state = false;
  return OK;
}

/* A script fails between two steps or two epochs, where the state is whole: it is saved, so that
 * nothing is lost. */
static status train_to_the_end(trainer *t) {
  t->started_s = t->saved_s = t->step_started_s = clock_now_s();
  status error = train(t);
  /* Before the hook of the end, which a longer stage would not have called here. */
  if (!error) error = save_final_state(t);
  if (!error) error = trainer_end_stage(t);
  if (error_code_of(error) != ERROR_SCRIPT) return error;
  status saving = save_state(t);
  if (!saving)
    return error_suffix(error, "\nThe state before it is saved: mend the script, and the same "
                               "command with --resume --changed-scripts goes on from there");
  problems both = {0};
  problems_add(&both, error);
  problems_add(&both, saving);
  return problems_take(&both);
}

static void trainer_close(trainer *t) {
  feed_close(&t->feed);
  loader_close(t->loader);
  error_free(t->next_error);
  for (int i = 0; i < 2; i++) {
    t->r->device->forget_note(t->r->device, t->running[i].note);
    free(t->running[i].case_names);
  }
  controls_close(&t->controls);
  if (t->has_network) network_close(&t->network);
  program_free(&t->check);
  stage_graph_free(&t->check_graph);
  program_free(&t->program);
  parameters_free(&t->parameters);
  stage_graph_free(&t->graph);
  free(t->case_weights);
  free(t->state.best_weights);
  error_free(event_file_close(t->events)); /* every event was flushed */
  free(t->classes);
  free(t->class_values);
  free(t->weights_path);
  free(t->state_path);
  free(t->final_state_path);
}

/* After a stop within an epoch the scheduled numbers are those of the step before it: the end of
 * the epoch may be what comes next, and it logs them and shows them to the hook. */
static status repeat_controls(trainer *t) {
  if (t->state.step == 0) return OK;
  TRY(set_samples(t, t->stage->epochs));
  return apply_schedules(t, t->program.updates - 1, t->stage->epochs);
}

/* For the report. The weights are what the run is for: they stay when this fails. */
static void keep_sample(trainer *t) {
  status error = sample_write(t->r, t->stage, &t->parameters);
  if (error) report_line(&t->r->report, "warning: %s", error_message(error));
  error_free(error);
}

/* A folder for each stage: TensorBoard then shows stages beside each other, by their own epochs. */
static status open_events(trainer *t) {
  char name[256];
  snprintf(name, sizeof name, "tensorboard/%s", t->stage->name);
  char *folder = path_join(t->r->folder, name);
  status error = event_file_open(folder, t->state.epoch, &t->events);
  free(folder);
  return error;
}

static void say_memory(const trainer *t) {
  char arena_text[24], naive_text[24];
  text_buffer again = {0};
  step_memory_describe(&t->memory, &again);
  report_line(&t->r->report,
              "stage %s: %.2f M parameters, step memory %s planned (%s if nothing were shared)%s%s",
              t->stage->name, (double)graph_param_elements(t->graph.g) / 1e6,
              format_bytes(arena_text, (double)t->program.plan.arena_bytes),
              format_bytes(naive_text, (double)t->program.plan.naive_bytes), again.data ? "; " : "",
              again.data ? again.data : "");
  text_free(&again);
}

/* No stage has begun from the weights of the last one: it can be made longer. */
static bool keeps_state(const run *r, int stage_index) {
  for (int i = stage_index + 1; i < r->p->stage_count; i++)
    if (r->p->stages[i].enabled) return false;
  return r->p->stages[stage_index].checkpoint_final;
}

/* What the schedules make of the last step that was done, in the stage's length of then and of now. */
static status say_new_length(trainer *t, const run_state *from) {
  const stage_spec *s = t->stage;
  if (from->epochs <= 0 || from->epochs == s->epochs) return OK;
  text_buffer line = {0};
  double *then = calloc((size_t)s->schedule_count + 1, sizeof *then), now;
  status error = then ? OK : error_out_of_memory(sizeof *then);
  if (!error && from->updates > 0) error = apply_schedules(t, from->updates - 1, from->epochs);
  if (!error) error = set_samples(t, from->epochs);
  for (int i = 0; i < s->schedule_count && !error; i++)
    controls_get(&t->controls, s->schedules[i].target, &then[i]);
  if (!error && from->updates > 0) error = apply_schedules(t, from->updates - 1, s->epochs);
  if (!error) error = set_samples(t, s->epochs);
  for (int i = 0; i < s->schedule_count && !error; i++)
    if (controls_get(&t->controls, s->schedules[i].target, &now) && now != then[i])
      text_add(&line, "%s %s jumps from %.4g to %.4g",
               line.length ? "," : "; scheduled for the new length,", s->schedules[i].target,
               then[i], now);
  if (!error)
    report_line(&t->r->report, "stage %s has %lld epochs from here on, it had %lld%s", s->name,
                (long long)s->epochs, (long long)from->epochs, line.data ? line.data : "");
  text_free(&line);
  free(then);
  return error;
}

static void say_feed(const trainer *t) {
  char bytes[24], ahead[24];
  if (t->feed.makes_samples)
    report_line(
        &t->r->report,
        "stage %s: crops and augmentation on the device, with up to %s of prepared cases in "
        "its memory",
        t->stage->name, format_bytes(bytes, (double)feed_case_bytes(&t->feed)));
  else if (t->feed.why_not[0])
    report_line(&t->r->report, "stage %s: crops and augmentation on the host: %s", t->stage->name,
                t->feed.why_not);
  size_t room = feed_ahead_bytes(&t->feed, &t->program, t->graph.image, t->graph.label);
  if (room > 0)
    report_line(&t->r->report, "stage %s: the next batch is made beside the step, in %s of its own",
                t->stage->name, format_bytes(ahead, (double)room));
}

status stage_train(run *r, int stage_index, const run_state *resume_from) {
  const stage_spec *s = &r->p->stages[stage_index];
  trainer t = {.r = r,
               .stage = s,
               .begun_epoch = -1,
               .index = stage_index,
               .weights_path = weights_path_of(r, s->name),
               .keeps_state = keeps_state(r, stage_index),
               .state_path = path_join(r->folder, RUN_STATE_FILE),
               .final_state_path = path_join(r->folder, RUN_FINAL_STATE_FILE)};
  status error = open_graphs(&t);
  if (!error) {
    say_memory(&t);
    t.by_epoch = controls_change_samples(&t.controls);
    t.steps_per_epoch = stage_updates(s, r->data, s->data, is_label_free(&t));
    error = feed_open(s->data, r->device, &t.feed);
  }
  if (!error) {
    say_feed(&t);
    error = resume_from ? restore(&t, resume_from) : fill_parameters(&t);
  }
  if (!error) error = case_weights_compute(r, s, is_label_free(&t), &t.case_weights);
  if (!error && !resume_from) error = initialize_on_data(&t);
  if (!error && !resume_from) error = program_start_average(&t.program);
  if (!error) error = open_loader(&t);
  if (!error && resume_from) error = say_new_length(&t, resume_from);
  if (!error && resume_from) error = repeat_controls(&t);
  if (!error && r->p->tensorboard) error = open_events(&t);
  if (!error) error = train_to_the_end(&t);
  if (!error) error = program_exchange_average(&t.program);
  if (!error) error = take_best(&t);
  if (!error) error = write_weights(&t);
  feed_close(&t.feed); /* what follows may want the memory */
  if (!error) keep_sample(&t);
  if (!error && t.keeps_state && rename(t.state_path, t.final_state_path) != 0)
    error = error_from_errno("rename", t.state_path);
  if (!error) remove(t.state_path);
  trainer_close(&t);
  return error;
}
