/* How a study's figures are shown: terminal, Markdown, CSV, JSON; report_page.c has the page. */
#include "ablate/report.h"
#include "ablate/report_parts.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/text.h"
#include "evaluate/metric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Were all arms made by levels of factors? Then a column for each says more than their names. */
static bool has_factors(const study *s) {
  for (int i = 0; i < s->arm_count; i++)
    if (!s->arms[i].levels) return false;
  return s->factor_count > 0;
}

static int compared_arms(const study_report *r, int metric) {
  int count = 0;
  for (int i = 0; i < r->s->arm_count; i++) count += report_cell(r, i, metric)->is_compared;
  return count;
}

static int most_compared(const study_report *r) {
  int most = 0;
  for (int m = 0; m < r->metric_count; m++)
    if (compared_arms(r, m) > most) most = compared_arms(r, m);
  return most;
}

/* ---- the table for people -------------------------------------------------------------------- */

static void add_p(table *t, double p) {
  if (isnan(p))
    table_cell(t, "–");
  else if (p < 0.001)
    table_cell(t, "%.1e", p);
  else
    table_cell(t, "%.3f", p);
}

static void add_mean(table *t, const moments *m, int decimals) {
  if (m->count == 0)
    table_cell(t, "–");
  else if (m->count == 1)
    table_cell(t, "%.*f", decimals, moments_mean(m));
  else
    table_cell(t, "%.*f ± %.*f", decimals, moments_mean(m), decimals, moments_deviation(m));
}

static void add_difference(table *t, const arm_metric *cell, int decimals) {
  if (!cell->is_compared) {
    table_cell(t, "–");
    return;
  }
  const contrast *c = &cell->compare.contrasts[0];
  if (isnan(c->difference.mean)) /* no case has a value in both */
    table_cell(t, "–");
  else if (isnan(c->interval.low))
    table_cell(t, "%+.*f", decimals, c->difference.mean);
  else
    table_cell(t, "%+.*f [%+.*f, %+.*f]", decimals, c->difference.mean, decimals, c->interval.low,
               decimals, c->interval.high);
}

static void add_headings(const study_report *r, table *t) {
  const study *s = r->s;
  if (has_factors(s))
    for (int i = 0; i < s->factor_count; i++) table_column(t, s->factors[i], false);
  else
    table_column(t, "arm", false);
  table_column(t, "trials", true);
  for (int m = 0; m < r->metric_count; m++) {
    char text[200];
    const char *heading = metric_heading(r->metrics[m].key);
    table_column(t, heading, true);
    if (compared_arms(r, m) == 0) continue;
    snprintf(text, sizeof text, "Δ %s [95 %% CI]", heading);
    table_column(t, text, true);
    table_column(t, compared_arms(r, m) > 1 ? "p (Holm)" : "p", true);
  }
}

static void add_row(const study_report *r, int index, table *t) {
  const study *s = r->s;
  const study_arm *a = &s->arms[index];
  if (has_factors(s))
    for (int i = 0; i < s->factor_count; i++) table_cell(t, "%s", a->levels[i]);
  else
    table_cell(t, "%s", a->label);
  int done = arm_trials(s, index, TRIAL_DONE);
  if (done == study_repeats(s))
    table_cell(t, "%d", done);
  else
    table_cell(t, "%d of %d", done, study_repeats(s));
  for (int m = 0; m < r->metric_count; m++) {
    const arm_metric *cell = report_cell(r, index, m);
    int decimals = metric_decimals(r->metrics[m].key);
    /* One run has no spread of its own; its cases have. */
    add_mean(t, cell->cases.count > 0 ? &cell->cases : &cell->runs, decimals);
    if (compared_arms(r, m) == 0) continue;
    add_difference(t, cell, decimals);
    add_p(t, cell->holm);
  }
}

table report_main_table(const study_report *r) {
  table t = {0};
  add_headings(r, &t);
  for (int i = 0; i < r->s->arm_count; i++) add_row(r, i, &t);
  return t;
}

table report_failure_table(const study *s) {
  table t = {0};
  table_column(&t, "failed trial", false);
  table_column(&t, "error", false);
  table_column(&t, "log", false);
  for (int i = 0; i < s->trial_count; i++) {
    const trial *one = &s->trials[i];
    if (one->state != TRIAL_FAILED) continue;
    table_cell(&t, "%s", one->label);
    table_cell(&t, "%s", one->error ? one->error : "");
    table_cell(&t, "%s/log.txt", one->folder);
  }
  return t;
}

static void print_pairs(const study_report *r, FILE *out) {
  int64_t least = INT64_MAX, most = 0;
  for (int i = 0; i < r->s->arm_count * r->metric_count; i++) {
    if (!r->cells[i].is_compared) continue;
    int64_t pairs = r->cells[i].compare.contrasts[0].pairs;
    if (pairs < least) least = pairs;
    if (pairs > most) most = pairs;
  }
  if (least == most)
    fprintf(out, "%lld cases", (long long)most);
  else
    fprintf(out, "%lld to %lld cases", (long long)least, (long long)most);
}

/* Sentences of the comparisons, each once. */
static void print_notes(const study_report *r, FILE *out) {
  const char *said[64];
  int count = 0;
  for (int i = 0; i < r->s->arm_count * r->metric_count; i++) {
    const comparison *c = &r->cells[i].compare;
    for (int k = 0; r->cells[i].is_compared && k < c->note_count; k++) {
      bool is_new = count < 64;
      for (int j = 0; j < count; j++) is_new &= strcmp(said[j], c->notes[k]) != 0;
      if (!is_new) continue;
      said[count++] = c->notes[k];
      fprintf(out, "%s\n", c->notes[k]);
    }
  }
}

/* What the numbers are. */
void report_legend(const study_report *r, FILE *out) {
  const study *s = r->s;
  int compared = most_compared(r);
  if (r->metric_count == 0) return;
  if (s->folds > 0) fprintf(out, "A run is a seed with its %lld folds. ", (long long)s->folds);
  fprintf(out, "Mean%s over the foreground classes of a case, then over the cases.\n",
          s->seed_count > 1 ? " ± standard deviation over seeds, each" : "");
  if (s->seed_count == 1)
    fprintf(out, "±: standard deviation over the cases of the one seed, which says nothing about "
                 "another.\n");
  if (compared == 0) return;
  fprintf(out, "Δ: against ");
  if (s->baseline_levels) {
    fputs("the arm with", out);
    for (int i = 0; i < s->factor_count; i++)
      if (s->baseline_levels[i]) fprintf(out, " %s %s", s->factors[i], s->baseline_levels[i]);
    fputs(" and else the same", out);
  } else {
    fprintf(out, "\"%s\"", s->baseline_label ? s->baseline_label : s->arms[0].label);
  }
  fprintf(out, ", the mean over ");
  print_pairs(r, out);
  fprintf(out,
          "%s, with a bootstrap interval. p: Wilcoxon's signed-rank test over the "
          "cases%s.\n",
          s->seed_count > 1 ? ", each with its mean over the seeds" : "",
          compared > 1 ? ", adjusted by Holm for the arms compared" : "");
  print_notes(r, out);
}

char *report_text(const study_report *r) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = memory_stream(&text, &length);
  table t = report_main_table(r), failures = report_failure_table(r->s);
  fprintf(out, "\n%s\n\n", r->s->name);
  table_print(&t, out);
  fputc('\n', out);
  report_legend(r, out);
  if (table_rows(&failures) > 0) {
    fputc('\n', out);
    table_print(&failures, out);
  }
  table_free(&failures);
  table_free(&t);
  memory_stream_close(out);
  return text;
}

/* ---- Markdown -------------------------------------------------------------------------------- */

table report_trial_table(const study_report *r) {
  const study *s = r->s;
  table t = {0};
  table_column(&t, "trial", false);
  for (int m = 0; m < r->metric_count; m++)
    table_column(&t, metric_heading(r->metrics[m].key), true);
  table_column(&t, "time", true);
  table_column(&t, "folder", false);
  for (int i = 0; i < s->trial_count; i++) {
    const trial *one = &s->trials[i];
    char took[24];
    table_cell(&t, "%s", one->label);
    for (int m = 0; m < r->metric_count; m++) {
      moments mean = {0};
      double value = report_run_mean(s->results[i], r->metrics[m].key);
      if (!isnan(value)) moments_add(&mean, value);
      add_mean(&t, &mean, metric_decimals(r->metrics[m].key));
    }
    table_cell(&t, "%s", one->state == TRIAL_DONE ? format_duration(took, one->seconds) : "failed");
    table_cell(&t, "%s", one->folder);
  }
  return t;
}

static void write_markdown(const study_report *r, FILE *out) {
  table t = report_main_table(r), failures = report_failure_table(r->s),
        trials = report_trial_table(r);
  fprintf(out, "# %s\n\n```sh\n%s\n```\n\n", r->s->name, r->s->o->command);
  table_markdown(&t, out);
  fputc('\n', out);
  report_legend(r, out);
  if (table_rows(&failures) > 0) {
    fputc('\n', out);
    table_markdown(&failures, out);
  }
  fputs("\n## Trials\n\n", out);
  table_markdown(&trials, out);
  table_free(&trials);
  table_free(&failures);
  table_free(&t);
}

/* ---- CSV and JSON: every figure --------------------------------------------------------------- */

static void add_contrast(const arm_metric *cell, json_t *to, const char *baseline) {
  const contrast *c = cell->is_compared ? &cell->compare.contrasts[0] : NULL;
  const struct {
    const char *name;
    double value;
  } figures[] = {{"difference", c ? c->difference.mean : (double)NAN},
                 {"ci_low", c ? c->interval.low : (double)NAN},
                 {"ci_high", c ? c->interval.high : (double)NAN},
                 {"p_wilcoxon", c ? c->wilcoxon.p : (double)NAN},
                 {"p_holm", c ? cell->holm : (double)NAN},
                 {"p_t", c ? c->t.p : (double)NAN},
                 {"rank_biserial", c ? c->wilcoxon.rank_biserial : (double)NAN},
                 {"cohen_dz", c ? c->t.cohen_dz : (double)NAN}};
  json_object_set_new(to, "baseline", c ? json_text(baseline) : json_null());
  json_object_set_new(to, "pairs", c ? json_integer(c->pairs) : json_null());
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
    json_object_set_new(to, figures[i].name, json_number(figures[i].value));
}

json_t *report_row(const study_report *r, int index) {
  const study *s = r->s;
  const study_arm *a = &s->arms[index];
  json_t *row = json_pack("{s:o}", "arm", json_text(a->label));
  for (int i = 0; a->levels && i < s->factor_count; i++)
    json_object_set_new(row, s->factors[i], json_string(a->levels[i]));
  json_object_set_new(row, "trials", json_integer(study_repeats(s)));
  json_object_set_new(row, "done", json_integer(arm_trials(s, index, TRIAL_DONE)));
  json_object_set_new(row, "failed", json_integer(arm_trials(s, index, TRIAL_FAILED)));
  for (int m = 0; m < r->metric_count; m++) {
    const arm_metric *cell = report_cell(r, index, m);
    json_t *figures = json_pack("{s:o, s:o, s:I}", "mean", json_number(moments_mean(&cell->runs)),
                                "sd", json_number(moments_deviation(&cell->runs)), "runs",
                                (json_int_t)cell->runs.count);
    add_contrast(cell, figures, a->baseline >= 0 ? s->arms[a->baseline].label : "");
    json_object_set_new(row, r->metrics[m].key, figures);
  }
  return row;
}

static json_t *case_rows(const results *r) {
  json_t *rows = json_array();
  for (int i = 0; i < r->case_count; i++) {
    json_t *row = json_pack("{s:o}", "name", json_text(r->cases[i]));
    for (int m = 0; m < r->metric_count; m++)
      json_object_set_new(row, r->metrics[m].key, json_number(results_case_mean(r, i, m)));
    json_array_append_new(rows, row);
  }
  return rows;
}

static json_t *trial_row(const study *s, int index) {
  static const char *const states[] = {[TRIAL_NEW] = "new",
                                       [TRIAL_BEGUN] = "begun",
                                       [TRIAL_FAILED] = "failed",
                                       [TRIAL_DONE] = "done"};
  const trial *t = &s->trials[index];
  const study_arm *a = &s->arms[index / study_repeats(s)];
  const results *r = s->results[index];
  json_t *row = json_pack("{s:s, s:I, s:s, s:s, s:f, s:s*}", "arm", a->label, "seed",
                          (json_int_t)t->seed, "state", states[t->state], "folder", t->folder,
                          "seconds", t->seconds, "error", t->error);
  for (int i = 0; a->levels && i < s->factor_count; i++)
    json_object_set_new(row, s->factors[i], json_string(a->levels[i]));
  if (s->trial_folds[index] >= 0)
    json_object_set_new(row, "fold", json_integer(s->trial_folds[index]));
  for (int m = 0; r && m < r->metric_count; m++)
    json_object_set_new(row, r->metrics[m].key, json_number(report_run_mean(r, r->metrics[m].key)));
  if (r) json_object_set_new(row, "cases", case_rows(r));
  if (t->state == TRIAL_DONE) json_object_set_new(row, "measured", trial_measured(t));
  return row;
}

json_t *trial_rows(const study *s) {
  json_t *rows = json_array();
  for (int i = 0; i < s->trial_count; i++) json_array_append_new(rows, trial_row(s, i));
  return rows;
}

static json_t *arm_rows(const study_report *r) {
  json_t *rows = json_array();
  for (int i = 0; i < r->s->arm_count; i++) json_array_append_new(rows, report_row(r, i));
  return rows;
}

/* Columns of a row that holds mappings: dice_mean, dice_sd, … */
static void add_fields(table *t, const json_t *row, bool headings) {
  const char *key, *inner;
  json_t *value, *figure;
  json_object_foreach((json_t *)row, key, value) {
    if (!json_is_object(value)) {
      if (headings)
        table_column(t, key, false);
      else if (json_is_string(value))
        table_cell(t, "%s", json_string_value(value));
      else
        table_cell(t, "%lld", (long long)json_integer_value(value));
      continue;
    }
    json_object_foreach(value, inner, figure) {
      char name[300];
      snprintf(name, sizeof name, "%s_%s", key, inner);
      if (headings)
        table_column(t, name, false);
      else if (json_is_string(figure))
        table_cell(t, "%s", json_string_value(figure));
      else if (json_is_number(figure))
        table_cell(t, "%.9g", json_number_value(figure));
      else
        table_cell(t, "%s", "");
    }
  }
}

static void write_csv(const json_t *rows, FILE *out) {
  table t = {0};
  for (size_t i = 0; i < json_array_size(rows); i++) {
    const json_t *row = json_array_get(rows, i);
    if (i == 0) add_fields(&t, row, true);
    add_fields(&t, row, false);
  }
  table_csv(&t, out);
  table_free(&t);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Heap. */
static char *file_of(const study *s, const char *ending) {
  char name[300];
  snprintf(name, sizeof name, "%.200s%s", s->name, ending);
  return path_join(s->o->out, name);
}

static status begin_file(const study *s, const char *ending, atomic_file *file) {
  char *path = file_of(s, ending);
  status error = atomic_begin(path, file);
  free(path);
  return error;
}

static status write_json(const study_report *r, const json_t *rows) {
  json_t *root = json_pack("{s:s, s:s, s:O, s:o}", "study", r->s->name, "command", r->s->o->command,
                           "arms", rows, "trials", trial_rows(r->s));
  char *path = file_of(r->s, ".json");
  status error = json_write(path, root, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "\n");
  free(path);
  json_decref(root);
  return error;
}

status report_write(study_report *r) {
  atomic_file file;
  TRY(folder_create(r->s->o->out));
  TRY(begin_file(r->s, ".md", &file));
  write_markdown(r, file.stream);
  TRY(atomic_commit(&file));
  json_t *rows = arm_rows(r);
  char *page = file_of(r->s, ".html");
  status error = report_page(r, page);
  free(page);
  if (!error) error = begin_file(r->s, ".csv", &file);
  if (!error) {
    write_csv(rows, file.stream);
    error = atomic_commit(&file);
  }
  if (!error) error = write_json(r, rows);
  json_decref(rows);
  return error;
}
