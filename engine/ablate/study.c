#include "ablate/study.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { CHANGES_MAX = 250 }; /* --set options that a command takes */
static const double validation_share = 0.1;

/* ---- pipelines with changes ------------------------------------------------------------------ */

void variant_set(arena *memory, variant *v, const char *key, const char *value) {
  override change = {arena_strdup(memory, key), arena_strdup(memory, value)};
  ARENA_PUSH(memory, v->changes, v->count, v->capacity, change);
}

variant variant_copy(arena *memory, const variant *v) {
  variant copy = {.path = arena_strdup(memory, v->path)};
  for (int i = 0; i < v->count; i++)
    variant_set(memory, &copy, v->changes[i].key, v->changes[i].value);
  return copy;
}

/* --set first, so that what a script varies is varied. `extra` of room. */
static status all_changes(arena *memory, const ablation_options *o, const variant *v, int extra,
                          override **out, int *count) {
  *out = NULL;
  *count = 0;
  if (o->override_count + v->count + extra > CHANGES_MAX)
    return error_new(ERROR_SCRIPT, NOWHERE, "%s has more than %d changes", v->path, CHANGES_MAX);
  *out = arena_alloc(memory, CHANGES_MAX * sizeof **out);
  for (int i = 0; i < o->override_count; i++) (*out)[i] = o->overrides[i];
  for (int i = 0; i < v->count; i++) (*out)[o->override_count + i] = v->changes[i];
  *count = o->override_count + v->count;
  return OK;
}

status variant_load(const ablation_options *o, const variant *v, pipeline **out) {
  arena memory = {0};
  override *changes;
  int count;
  *out = NULL;
  status error = all_changes(&memory, o, v, 0, &changes, &count);
  if (!error) error = pipeline_load(v->path, changes, count, out);
  arena_free(&memory);
  return error;
}

/* ---- arms ------------------------------------------------------------------------------------ */

status study_create(const ablation_options *o, const char *name, study **out) {
  *out = calloc(1, sizeof **out);
  if (!*out) return error_out_of_memory(sizeof **out);
  (*out)->o = o;
  (*out)->name = arena_strdup(&(*out)->memory, name);
  (*out)->seed_count = 1;
  return OK;
}

static void free_trials(study *s) {
  for (int i = 0; i < s->trial_count; i++) {
    trial_free(&s->trials[i]);
    if (s->results[i]) results_free(s->results[i]);
    free(s->results[i]);
  }
  s->trial_count = 0;
}

void study_free(study *s) {
  if (!s) return;
  free_trials(s);
  arena_free(&s->memory);
  free(s);
}

static int find_arm(const study *s, const char *label) {
  for (int i = 0; i < s->arm_count; i++)
    if (strcmp(s->arms[i].label, label) == 0) return i;
  return -1;
}

int study_factor(study *s, const char *name) {
  for (int i = 0; i < s->factor_count; i++)
    if (strcmp(s->factors[i], name) == 0) return i;
  const char *copy = arena_strdup(&s->memory, name);
  ARENA_PUSH(&s->memory, s->factors, s->factor_count, s->factor_capacity, copy);
  return s->factor_count - 1;
}

status study_add_arm(study *s, const char *label, const char *const *levels, const variant *v) {
  if (find_arm(s, label) >= 0)
    return error_new(ERROR_SCRIPT, NOWHERE, "there are two arms called \"%s\"", label);
  study_arm a = {.label = arena_strdup(&s->memory, label),
                 .pipeline = variant_copy(&s->memory, v),
                 .baseline = -1};
  if (levels) {
    a.levels = arena_alloc(&s->memory, (size_t)s->factor_count * sizeof *a.levels);
    for (int i = 0; i < s->factor_count; i++) a.levels[i] = arena_strdup(&s->memory, levels[i]);
  }
  ARENA_PUSH(&s->memory, s->arms, s->arm_count, s->arm_capacity, a);
  return OK;
}

int study_repeats(const study *s) {
  return s->seed_count * (int)(s->folds > 0 ? s->folds : 1);
}

/* ---- baselines ------------------------------------------------------------------------------- */

static status no_such_arm(const study *s, const char *label) {
  const char **names = memory_take((size_t)s->arm_count * sizeof *names);
  text_buffer list = {0};
  for (int i = 0; i < s->arm_count; i++) {
    names[i] = s->arms[i].label;
    text_add(&list, "%s\"%s\"", i > 0 ? ", " : "", names[i]);
  }
  const char *near = nearest_name(label, names, s->arm_count);
  status error =
      error_new(ERROR_SCRIPT, NOWHERE, "the baseline \"%s\" is no arm of \"%s\"%s%s%s Its arms: %s",
                label, s->name, near ? "; did you mean \"" : ".", near ? near : "",
                near ? "\"?" : "", list.data ? list.data : "none");
  text_free(&list);
  free(names);
  return error;
}

/* The same levels as arm `of`, but for those that make the baseline. */
static bool is_its_baseline(const study *s, const study_arm *of, const study_arm *other) {
  if (!of->levels || !other->levels) return false;
  for (int i = 0; i < s->factor_count; i++) {
    const char *wanted = s->baseline_levels[i] ? s->baseline_levels[i] : of->levels[i];
    if (strcmp(other->levels[i], wanted) != 0) return false;
  }
  return true;
}

static status choose_baselines(study *s) {
  int chosen = s->baseline_label ? find_arm(s, s->baseline_label) : 0;
  if (chosen < 0) return no_such_arm(s, s->baseline_label);
  bool any = !s->baseline_levels;
  for (int i = 0; i < s->arm_count; i++) {
    study_arm *a = &s->arms[i];
    a->baseline = s->baseline_levels || i == chosen ? -1 : chosen;
    for (int k = 0; s->baseline_levels && k < s->arm_count; k++)
      if (k != i && is_its_baseline(s, a, &s->arms[k])) {
        a->baseline = k;
        any = true;
      }
  }
  if (any) return OK;
  return error_new(ERROR_SCRIPT, NOWHERE, "no arm of \"%s\" has the levels of the baseline",
                   s->name);
}

/* ---- the plan -------------------------------------------------------------------------------- */

static const char *fold_split(arena *memory, const study *s, const pipeline *p, int64_t fold) {
  double validation = validation_share;
  bool has_share = p->data.split_kind == SPLIT_NAMES && p->data.split[1] > 0;
  if (p->data.split_kind == SPLIT_FOLDS || has_share) validation = p->data.split[1];
  if (p->data.split_kind == SPLIT_FRACTIONS)
    validation = p->data.split[1] / (p->data.split[0] + p->data.split[1]);
  return arena_printf(memory, "{folds: %" PRId64 ", fold: %" PRId64 ", validation: %.6g}", s->folds,
                      fold, validation);
}

/* The cases stay in their roles, so that a case can be compared over all seeds. */
static void set_seed(arena *memory, const pipeline *p, int64_t seed, override *changes,
                     int *count) {
  uint64_t split = p->data.has_split_seed ? p->data.split_seed : p->seed;
  changes[(*count)++] = (override){"seed", arena_printf(memory, "%" PRId64, seed)};
  changes[(*count)++] = (override){"data.split_seed", arena_printf(memory, "%" PRIu64, split)};
}

static status plan_arm(study *s, int index) {
  study_arm *a = &s->arms[index];
  arena *memory = &s->memory;
  pipeline *p = NULL;
  TRY(error_prefix(variant_load(s->o, &a->pipeline, &p), "arm \"%s\"", a->label));
  int64_t folds = s->folds > 0 ? s->folds : 1;
  status error = OK;
  for (int k = 0; k < study_repeats(s) && !error; k++) {
    int64_t seed = s->seeds ? s->seeds[k / folds] : (int64_t)p->seed + k / folds, fold = k % folds;
    override *changes;
    int count;
    text_buffer label = {0};
    error = all_changes(memory, s->o, &a->pipeline, 3, &changes, &count);
    if (error) break;
    text_add(&label, "%s", a->label);
    if (seed != (int64_t)p->seed) set_seed(memory, p, seed, changes, &count);
    if (s->seeds || s->seed_count > 1) text_add(&label, ", seed %" PRId64, seed);
    if (s->folds > 0) {
      changes[count++] = (override){"data.split", fold_split(memory, s, p, fold)};
      text_add(&label, ", fold %" PRId64, fold);
    }
    trial *t = study_trial(s, index, k);
    s->trial_folds[index * study_repeats(s) + k] = s->folds > 0 ? fold : -1;
    *t = (trial){.label = arena_strdup(memory, label.data),
                 .pipeline = a->pipeline.path,
                 .overrides = changes,
                 .override_count = count};
    text_free(&label);
    error = error_prefix(trial_resolve(memory, t), "%s", t->label);
    if (!error) error = trial_find(memory, s->o->out, t);
  }
  pipeline_free(p);
  return error;
}

static status check_different(const study *s) {
  for (int i = 0; i < s->trial_count; i++)
    for (int k = 0; k < i; k++)
      if (s->trials[i].key == s->trials[k].key)
        return error_new(
            ERROR_SCRIPT, NOWHERE,
            "\"%s\" and \"%s\" are the same pipeline, seed and data: nothing to compare",
            s->trials[k].label, s->trials[i].label);
  return OK;
}

status study_plan(study *s) {
  free_trials(s);
  if (s->arm_count == 0)
    return error_new(ERROR_SCRIPT, NOWHERE, "the study \"%s\" has no arm", s->name);
  int64_t count = (int64_t)s->arm_count * study_repeats(s);
  s->trials = arena_alloc(&s->memory, (size_t)count * sizeof *s->trials);
  s->trial_folds = arena_alloc(&s->memory, (size_t)count * sizeof *s->trial_folds);
  s->results = arena_alloc(&s->memory, (size_t)count * sizeof *s->results);
  s->trial_count = (int)count;
  TRY(choose_baselines(s));
  problems all = {0};
  for (int i = 0; i < s->arm_count; i++) problems_add(&all, plan_arm(s, i));
  TRY(problems_take(&all));
  TRY(check_different(s));
  s->is_planned = true;
  return OK;
}

status study_compile(const study *s) {
  enum { SECONDS = 30 };
  double started = clock_now_s();
  problems found = {0};
  for (int i = 0; i < s->arm_count && clock_now_s() - started < SECONDS; i++) {
    const trial *first = NULL;
    for (int k = 0; k < study_repeats(s) && !first; k++)
      if (study_trial(s, i, k)->state != TRIAL_DONE) first = study_trial(s, i, k);
    if (first)
      problems_add_new_places(&found, error_prefix(trial_compile(first), "%s", s->arms[i].label));
  }
  return problems_take(&found);
}

char *study_describe(const study *s) {
  static const char *const words[] = {[TRIAL_NEW] = "to do",
                                      [TRIAL_BEGUN] = "begun",
                                      [TRIAL_FAILED] = "failed before",
                                      [TRIAL_DONE] = "done"};
  text_buffer text = {0};
  const trial **list = memory_take((size_t)s->trial_count * sizeof *list);
  for (int i = 0; i < s->trial_count; i++) {
    list[i] = &s->trials[i];
    text_add(&text, "%-13s  %s  (%s)\n", words[list[i]->state], list[i]->label, list[i]->folder);
  }
  char counted[160];
  text_add(&text, "%s: %s", s->name,
           trials_describe((trial *const *)list, s->trial_count, counted));
  free(list);
  return text.data;
}

/* ---- running --------------------------------------------------------------------------------- */

/* Results that cannot be read make a trial a failed one. */
static status read_results(study *s) {
  for (int i = 0; i < s->trial_count; i++) {
    trial *t = &s->trials[i];
    if (t->state != TRIAL_DONE || !t->is_evaluated || s->results[i]) continue;
    s->results[i] = calloc(1, sizeof **s->results);
    if (!s->results[i]) return error_out_of_memory(sizeof **s->results);
    status error = results_read(t->folder, s->results[i]);
    if (!error) continue;
    free(s->results[i]);
    s->results[i] = NULL;
    t->state = TRIAL_FAILED;
    free(t->error);
    t->error = memory_strdup(error_message(error));
    error_free(error);
  }
  return OK;
}

status study_run(study *s) {
  trial **list = calloc((size_t)s->trial_count + 1, sizeof *list);
  if (!list) return error_out_of_memory(sizeof *list);
  for (int i = 0; i < s->trial_count; i++) list[i] = &s->trials[i];
  status error = trials_run(list, s->trial_count, &s->o->jobs);
  free(list);
  return error ? error : read_results(s);
}
