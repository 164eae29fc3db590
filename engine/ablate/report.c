/* Figures of a study. How they are shown is in report_text.c. */
#include "ablate/report.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int arm_trials(const study *s, int arm, trial_state state) {
  int count = 0;
  for (int k = 0; k < study_repeats(s); k++) count += study_trial(s, arm, k)->state == state;
  return count;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static const results *fold_result(const study *s, int arm, int seed, int64_t fold) {
  int64_t folds = s->folds > 0 ? s->folds : 1;
  return s->results[arm * study_repeats(s) + seed * folds + fold];
}

static bool is_complete(const study *s, int arm, int seed) {
  for (int64_t fold = 0; fold < (s->folds > 0 ? s->folds : 1); fold++)
    if (!fold_result(s, arm, seed, fold)) return false;
  return true;
}

static status check_alike(const results *a, const results *b) {
  bool same = a->metric_count == b->metric_count && a->class_count == b->class_count;
  for (int i = 0; same && i < a->metric_count; i++)
    same = strcmp(a->metrics[i].key, b->metrics[i].key) == 0;
  for (int i = 0; same && i < a->class_count; i++) same = strcmp(a->classes[i], b->classes[i]) == 0;
  if (same) return OK;
  return error_new(ERROR_DATA, NOWHERE, "%s and %s are folds with different metrics or classes",
                   a->path, b->path);
}

/* The folds of a seed as one run, in which every case was tested once. */
static status join_folds(arena *memory, const study *s, int arm, int seed, results *out) {
  *out = *fold_result(s, arm, seed, 0);
  if (s->folds < 1) return OK;
  size_t case_values = (size_t)out->metric_count * (size_t)out->class_count;
  out->case_count = 0;
  for (int64_t f = 0; f < s->folds; f++) {
    const results *fold = fold_result(s, arm, seed, f);
    TRY(check_alike(fold_result(s, arm, seed, 0), fold));
    out->case_count += fold->case_count;
  }
  out->cases = arena_alloc(memory, (size_t)(out->case_count + 1) * sizeof *out->cases);
  out->values = arena_alloc(memory, (size_t)(out->case_count + 1) * case_values * sizeof(double));
  for (int64_t f = 0, at = 0; f < s->folds; f++) {
    const results *fold = fold_result(s, arm, seed, f);
    for (int i = 0; i < fold->case_count; i++) out->cases[at++] = fold->cases[i];
  }
  qsort(out->cases, (size_t)out->case_count, sizeof *out->cases, by_text);
  for (int64_t f = 0; f < s->folds; f++) {
    const results *fold = fold_result(s, arm, seed, f);
    for (int i = 0; i < fold->case_count; i++)
      memcpy(out->values + (size_t)results_case_index(out, fold->cases[i]) * case_values,
             fold->values + (size_t)i * case_values, case_values * sizeof(double));
  }
  return OK;
}

static moments case_means(const results *r, const char *name) {
  moments all = {0};
  int metric = r ? results_metric_index(r, name) : -1;
  for (int i = 0; metric >= 0 && i < r->case_count; i++) {
    double value = results_case_mean(r, i, metric);
    if (!isnan(value)) moments_add(&all, value);
  }
  return all;
}

double report_run_mean(const results *r, const char *name) {
  moments all = case_means(r, name);
  return moments_mean(&all);
}

double report_case_mean(const study_report *r, int arm, int metric, const char *name) {
  const study *s = r->s;
  int repeats = study_repeats(s);
  moments all = {0};
  for (int k = 0; k < repeats; k++) {
    const results *one = s->results[arm * repeats + k];
    int index = one ? results_case_index(one, name) : -1;
    int column = one ? results_metric_index(one, r->metrics[metric].key) : -1;
    double value = index < 0 || column < 0 ? (double)NAN : results_case_mean(one, index, column);
    if (!isnan(value)) moments_add(&all, value);
  }
  return moments_mean(&all);
}

/* ---- metrics --------------------------------------------------------------------------------- */

static const results *first_result(const study *s) {
  for (int i = 0; i < s->trial_count; i++)
    if (s->results[i]) return s->results[i];
  return NULL;
}

static status no_such_metric(const char *name, const char *const *there, int count) {
  text_buffer list = {0};
  for (int i = 0; i < count; i++) text_add(&list, "%s%s", i > 0 ? ", " : "", there[i]);
  const char *near = nearest_name(name, there, count);
  status error =
      error_new(ERROR_SCRIPT, NOWHERE,
                "the evaluations hold no metric \"%s\"%s%s%s They hold %s; what they hold "
                "is said by `evaluate: metrics:` of the pipeline",
                name, near ? "; did you mean \"" : ".", near ? near : "", near ? "\"?" : "",
                list.data ? list.data : "none");
  text_free(&list);
  return error;
}

static status choose_metrics(study_report *r, const char *const *wanted, int count) {
  const results *any = first_result(r->s);
  if (!any) return OK;
  const char **there = arena_alloc(&r->memory, (size_t)(any->metric_count + 1) * sizeof *there);
  for (int i = 0; i < any->metric_count; i++) there[i] = any->metrics[i].key;
  bool all = count == 0;
  r->metric_count = all ? any->metric_count : count;
  results_metric *chosen = arena_alloc(&r->memory, (size_t)(r->metric_count + 1) * sizeof *chosen);
  for (int i = 0; i < r->metric_count; i++) {
    int index = all ? i : results_metric_index(any, wanted[i]);
    if (index < 0) return no_such_metric(wanted[i], there, any->metric_count);
    chosen[i].key = arena_strdup(&r->memory, any->metrics[index].key);
  }
  r->metrics = chosen;
  return OK;
}

/* ---- arms against their baselines ------------------------------------------------------------- */

/* The runs of `arm` whose seed is also complete in `other`. */
static status collect_runs(study_report *r, int arm, int other, results **runs, int *count) {
  *count = 0;
  *runs = arena_alloc(&r->memory, (size_t)r->s->seed_count * sizeof **runs);
  for (int k = 0; k < r->s->seed_count; k++)
    if (is_complete(r->s, arm, k) && is_complete(r->s, other, k))
      TRY(join_folds(&r->memory, r->s, arm, k, &(*runs)[(*count)++]));
  return OK;
}

static status compare_with_baseline(study_report *r, int index, int metric) {
  const study *s = r->s;
  int base = s->arms[index].baseline;
  arm_metric *cell = report_cell(r, index, metric);
  static const char *const mean[] = {COMPARE_MEAN};
  results *runs[2];
  int count = 0;
  TRY(collect_runs(r, base, index, &runs[0], &count));
  TRY(collect_runs(r, index, base, &runs[1], &count));
  if (count == 0) return OK;
  arm *arms = arena_alloc(&r->memory, 2 * sizeof *arms);
  arms[0] = (arm){s->arms[base].label, runs[0], count};
  arms[1] = (arm){s->arms[index].label, runs[1], count};
  compare_options options = {
      .metrics = &r->metrics[metric].key, .metric_count = 1, .classes = mean, .class_count = 1};
  TRY(error_prefix(compare_arms(arms, 2, &options, &cell->compare), "\"%s\" against \"%s\"",
                   arms[1].name, arms[0].name));
  cell->is_compared = cell->compare.contrast_count == 1;
  if (!cell->is_compared) comparison_free(&cell->compare);
  return OK;
}

/* Wilcoxon's p values of one metric over the arms. */
static status adjust(study_report *r, int metric) {
  int count = r->s->arm_count;
  double *p = arena_alloc(&r->memory, (size_t)count * sizeof *p);
  for (int i = 0; i < count; i++) {
    const arm_metric *cell = report_cell(r, i, metric);
    p[i] = cell->is_compared ? cell->compare.contrasts[0].wilcoxon.p : (double)NAN;
  }
  TRY(holm_adjust(p, count, p));
  for (int i = 0; i < count; i++) report_cell(r, i, metric)->holm = p[i];
  return OK;
}

static status fill_cell(study_report *r, int index, int metric) {
  const study *s = r->s;
  arm_metric *cell = report_cell(r, index, metric);
  for (int k = 0; k < s->seed_count; k++) {
    if (!is_complete(s, index, k)) continue;
    results run;
    TRY(join_folds(&r->memory, s, index, k, &run));
    double mean = report_run_mean(&run, r->metrics[metric].key);
    if (!isnan(mean)) moments_add(&cell->runs, mean);
    if (s->seed_count == 1) cell->cases = case_means(&run, r->metrics[metric].key);
  }
  return s->arms[index].baseline < 0 ? OK : compare_with_baseline(r, index, metric);
}

/* ---- before the trials -------------------------------------------------------------------------- */

static status check_metrics(const trial *t, const char *const *wanted, int count) {
  for (int i = 0; i < count; i++) {
    const char *key = results_metric_key(wanted[i]);
    bool is_there = false;
    for (int m = 0; m < t->metric_count && !is_there; m++)
      is_there = strcmp(t->metrics[m], key) == 0;
    if (!is_there) return no_such_metric(wanted[i], t->metrics, t->metric_count);
  }
  return OK;
}

static uint64_t tested_cases(const study *s, int arm, int seed) {
  int folds = s->folds > 0 ? (int)s->folds : 1;
  uint64_t sum = 0;
  for (int f = 0; f < folds; f++) sum += study_trial(s, arm, seed * folds + f)->tested;
  return sum;
}

static bool is_evaluated(const study *s, int arm) {
  return study_trial(s, arm, 0)->is_evaluated;
}

static status check_cases(const study *s, int index) {
  const study_arm *a = &s->arms[index];
  bool is_compared = a->baseline >= 0 && is_evaluated(s, a->baseline);
  for (int k = 0; k < s->seed_count && is_compared; k++)
    if (tested_cases(s, index, k) != tested_cases(s, a->baseline, k))
      return error_new(
          ERROR_SCRIPT, NOWHERE,
          "\"%s\" is scored on other test cases than \"%s\", which it is compared with. "
          "Where their seeds differ, data.split_seed keeps every case in its role; arms "
          "that are not to be compared belong to studies of their own",
          a->label, s->arms[a->baseline].label);
  return OK;
}

status report_ahead(const study *s, const char *const *metrics, int count, study_report *out) {
  *out = (study_report){.s = s};
  for (int i = 0; i < s->arm_count; i++) {
    if (!is_evaluated(s, i)) continue; /* without figures in the report, too */
    TRY(error_prefix(check_metrics(study_trial(s, i, 0), metrics, count), "arm \"%s\"",
                     s->arms[i].label));
    TRY(check_cases(s, i));
  }
  const trial *first = study_trial(s, 0, 0);
  out->metric_count = count > 0 ? count : first->metric_count;
  results_metric *listed =
      arena_alloc(&out->memory, (size_t)(out->metric_count + 1) * sizeof *listed);
  for (int i = 0; i < out->metric_count; i++)
    listed[i].key = count > 0 ? results_metric_key(metrics[i]) : first->metrics[i];
  out->metrics = listed;
  out->cells = arena_alloc(&out->memory,
                           (size_t)(s->arm_count * out->metric_count + 1) * sizeof *out->cells);
  return OK;
}

/* ---- all of it ---------------------------------------------------------------------------------- */

status report_make(const study *s, const char *const *metrics, int count, study_report *out) {
  *out = (study_report){.s = s};
  status error = choose_metrics(out, metrics, count);
  size_t cells = (size_t)(s->arm_count * out->metric_count);
  out->cells = arena_alloc(&out->memory, (cells + 1) * sizeof *out->cells);
  for (int m = 0; m < out->metric_count && !error; m++) {
    for (int i = 0; i < s->arm_count && !error; i++) error = fill_cell(out, i, m);
    if (!error) error = adjust(out, m);
  }
  if (error) report_free(out);
  return error;
}

void report_free(study_report *r) {
  for (int i = 0; r->cells && i < r->s->arm_count * r->metric_count; i++)
    if (r->cells[i].is_compared) comparison_free(&r->cells[i].compare);
  arena_free(&r->memory);
}
