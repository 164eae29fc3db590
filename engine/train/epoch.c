/* The end of an epoch: numbers, validation, log, hook. */
#include "base/clock.h"
#include "base/text.h"
#include "train/trainer.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* The same numbers for TensorBoard. */
static status log_event(trainer *t, double epoch_seconds) {
  if (!t->events) return OK;
  const char *names[STATE_MAX_VALUES + 1];
  double values[STATE_MAX_VALUES + 1];
  int count = t->result_count;
  for (int i = 0; i < count; i++) {
    names[i] = t->results[i].name;
    values[i] = t->results[i].value;
  }
  names[count] = "seconds";
  values[count++] = epoch_seconds;
  return event_file_add(t->events, t->state.epoch, names, values, count);
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

/* ---- hooks ------------------------------------------------------------------------------- */

static status hook_get(void *context, const char *name, double *out) {
  const trainer *t = context;
  if (controls_get(&t->controls, name, out)) return OK;
  return controls_no_number(&t->controls, "get", name);
}

static named_number *find_number(named_number *list, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (strcmp(list[i].name, name) == 0) return &list[i];
  return NULL;
}

static status hook_set(void *context, const char *name, double value) {
  trainer *t = context;
  run_state *s = &t->state;
  TRY(controls_set(&t->controls, name, value));
  named_number *n = find_number(s->numbers, s->number_count, name);
  if (!n && s->number_count == STATE_MAX_VALUES)
    return error_new(ERROR_SCRIPT, NOWHERE, "a hook can set at most %d numbers", STATE_MAX_VALUES);
  if (!n) n = &s->numbers[s->number_count++];
  snprintf(n->name, sizeof n->name, "%s", name);
  n->value = value;
  return OK;
}

/* Beside what the epoch has measured. */
static status hook_record(void *context, const char *name, double value) {
  trainer *t = context;
  char full[TALLY_NAME_BYTES];
  snprintf(full, sizeof full, "own.%s", name);
  named_number *n = find_number(t->results, t->result_count, full);
  if (n) {
    n->value = value;
    return OK;
  }
  if (t->result_count == STATE_MAX_VALUES)
    return error_new(ERROR_SCRIPT, NOWHERE, "an epoch has at most %d numbers", STATE_MAX_VALUES);
  trainer_add_result(t, "", full, value);
  return OK;
}

static void hook_log(void *context, const char *text) {
  trainer *t = context;
  report_line(&t->r->report, "%s: %s", t->stage->name, text);
}

/* With the numbers of the epoch, or at the end of the stage with the last of each. */
static status call_hook(trainer *t, stage_hook which, bool *stop) {
  script *hook = t->controls.hooks[which];
  if (!hook) return OK;
  bool is_end = which == HOOK_STAGE_END;
  number_view view;
  hook_event event = {
      .stage = t->stage->name,
      .epoch = t->state.epoch - 1,
      .step = t->program.updates,
      .metrics =
          is_end ? controls_numbers(&t->controls, t->state.measured, t->state.measured_count, &view)
                 : controls_numbers(&t->controls, t->results, t->result_count, &view),
      .classes = t->classes,
      .class_count = t->class_count,
      .class_metrics = t->class_metrics,
      .class_metric_count = t->class_metric_count,
      .reason = t->state.ended,
      .get = hook_get,
      .set = hook_set,
      .record = hook_record,
      .log = hook_log,
      .context = t};
  TRY(script_hook(hook, &event));
  if (!event.stop || *stop) return OK;
  *stop = true;
  t->state.end = END_HOOK;
  snprintf(t->state.ended, sizeof t->state.ended, "%s", event.stop_reason);
  report_line(&t->r->report, "stage %s ended by its hook after epoch %lld: %s", t->stage->name,
              (long long)t->state.epoch, event.stop_reason);
  return OK;
}

status trainer_end_stage(trainer *t) {
  bool stop = false;
  return call_hook(t, HOOK_STAGE_END, &stop);
}

/* ---- the end of an epoch ----------------------------------------------------------------- */

/* What the hooks may change, as it stands: what call_hook does not do to the end, it does not do. */
static status remember(const trainer *t, run_state *out) {
  *out = t->state;
  for (int i = 0; i < HOOK_COUNT; i++)
    if (t->controls.hooks[i]) TRY(script_state_save(t->controls.hooks[i], &out->hook_states[i]));
  return OK;
}

static status go_back(trainer *t, const run_state *to) {
  t->state = *to;
  for (int i = 0; i < HOOK_COUNT; i++) {
    t->state.hook_states[i] = NULL;
    if (to->hook_states[i]) TRY(script_state_load(t->controls.hooks[i], to->hook_states[i]));
  }
  return OK;
}

/* The last value of everything, for schedules. */
static void note_results(trainer *t) {
  run_state *s = &t->state;
  for (int i = 0; i < t->result_count; i++) {
    named_number *n = find_number(s->measured, s->measured_count, t->results[i].name);
    if (!n && s->measured_count == STATE_MAX_VALUES) continue;
    if (!n) n = &s->measured[s->measured_count++];
    *n = t->results[i];
  }
}

void trainer_note_end(trainer *t) {
  t->state.end = END_EPOCHS;
  snprintf(t->state.ended, sizeof t->state.ended, "epochs");
}

static status finish_epoch(trainer *t, bool *stop) {
  const stage_spec *s = t->stage;
  int64_t finished = t->state.epoch + 1;
  bool last = finished == s->epochs;
  double epoch_seconds = clock_now_s() - t->step_started_s;
  t->result_count = 0;
  for (int i = 0; i < t->epoch.count; i++)
    trainer_add_result(t, "", t->epoch.sums[i].name, t->epoch.sums[i].value / t->epoch.batches);
  double lr;
  if (controls_get(&t->controls, "lr", &lr)) trainer_add_result(t, "", "lr", lr);
  bool due = last || (s->validate_every > 0 && finished % s->validate_every == 0);
  if (due) TRY(trainer_validate(t));
  if (run_stop_requested()) return OK;
  t->state.epoch = finished;
  t->state.step = 0;
  say_epoch(t, epoch_seconds);
  if (due && (t->has_network || t->has_check)) TRY(call_hook(t, HOOK_VALIDATION, stop));
  TRY(call_hook(t, HOOK_EPOCH_END, stop));
  note_results(t);
  TRY(log_epoch(t, epoch_seconds));
  TRY(log_event(t, epoch_seconds));
  TRY(run_csv_when_due(t->r));
  if (s->time_limit_s > 0 && trainer_elapsed_s(t) >= s->time_limit_s && !last && !*stop) {
    report_line(&t->r->report,
                "stage %s reached its time limit after epoch %lld of %lld; where it stops depends "
                "on the machine, so this run does not reproduce to the bit",
                s->name, (long long)finished, (long long)s->epochs);
    t->state.end = END_TIME_LIMIT;
    snprintf(t->state.ended, sizeof t->state.ended, "time limit");
    *stop = true;
  }
  if (last && !*stop) trainer_note_end(t);
  t->epoch = (tally){0};
  t->step_started_s = clock_now_s();
  return OK;
}

/* The parameters as they are validated, onto the host. */
static status copy_weights(trainer *t, float *to) {
  const parameters *p = &t->parameters;
  TRY(program_exchange_average(&t->program));
  status error = p->device->download(p->device, to, p->data, (size_t)p->elements * sizeof *p->data);
  problems found = {0};
  problems_add(&found, error);
  problems_add(&found, program_exchange_average(&t->program));
  return problems_take(&found);
}

/* When this epoch's validation was better than all before it. */
static status keep_best(trainer *t) {
  const stage_spec *s = t->stage;
  named_number *best = &t->state.best;
  const named_number *now = NULL;
  for (int i = 0; i < t->result_count && s->best; i++)
    if (strcmp(t->results[i].name, s->best) == 0) now = &t->results[i];
  if (!now || isnan(now->value)) return OK;
  bool better = s->best_is_lowest ? now->value < best->value : now->value > best->value;
  if (t->state.best_weights && !better) return OK;
  size_t bytes = (size_t)t->parameters.elements * sizeof(float);
  float *weights = t->state.best_weights;
  if (!weights) weights = malloc(bytes);
  if (!weights) return error_out_of_memory(bytes);
  t->state.best_weights = weights;
  *best = *now;
  t->state.best_epoch = t->state.epoch;
  return copy_weights(t, weights);
}

status trainer_finish_epoch(trainer *t, bool *stop) {
  run_state before = {0};
  status error = remember(t, &before);
  if (!error) error = finish_epoch(t, stop);
  if (!error && t->state.epoch > before.epoch) error = keep_best(t);
  if (error_code_of(error) == ERROR_SCRIPT) {
    status worse = go_back(t, &before);
    if (worse) {
      error_free(error);
      error = worse;
    }
  }
  state_free(&before);
  return error;
}
