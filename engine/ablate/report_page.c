/* A study as a page to look at: the table, a box plot of the cases of every arm and the intervals of the
 * differences, for each metric. */
#include "ablate/report_parts.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "evaluate/metrics.h"
#include "report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- charts ------------------------------------------------------------------------------------ */

/* Names of all test cases of the study, sorted, each once; in r's memory. */
static int list_cases(study_report *r, const char ***out) {
  const study *s = r->s;
  int count = 0, capacity = 0, kept = 0;
  const char **names = NULL;
  for (int i = 0; i < s->trial_count; i++)
    for (int k = 0; s->results[i] && k < s->results[i]->case_count; k++)
      ARENA_PUSH(&r->memory, names, count, capacity, s->results[i]->cases[k]);
  if (count > 1) qsort(names, (size_t)count, sizeof *names, by_text);
  for (int i = 0; i < count; i++)
    if (i == 0 || strcmp(names[i], names[kept - 1]) != 0) names[kept++] = names[i];
  *out = names;
  return kept;
}

static json_t *arm_values(const study_report *r, int arm, int metric, const char *const *cases,
                          int count) {
  json_t *values = json_array();
  for (int i = 0; i < count; i++)
    json_array_append_new(values, json_number(report_case_mean(r, arm, metric, cases[i])));
  return values;
}

static void box_plot(page *p, const study_report *r, int metric, const char *const *cases,
                     int count) {
  json_t *names = json_array(), *values = json_array(), *list = json_array();
  for (int i = 0; i < count; i++) json_array_append_new(list, json_text(cases[i]));
  for (int i = 0; i < r->s->arm_count; i++) {
    json_array_append_new(names, json_text(r->s->arms[i].label));
    json_array_append_new(values, arm_values(r, i, metric, cases, count));
  }
  const char *key = r->metrics[metric].key;
  const metric_info *info = metric_of_key(key);
  json_t *run = json_pack("{s:s, s:o, s:o}", "name", r->s->name, "cases", list, "values", values);
  bool share = info && metric_is_share((int)(info - metric_table));
  char title[200];
  snprintf(title, sizeof title, "%s of the test cases%s", metric_heading(key),
           r->s->seed_count > 1 ? ", each its mean over the seeds" : "");
  page_chart(p,
             json_pack("{s:o, s:[o], s:b, s:i}", "classes", names, "runs", run, "share", share,
                       "decimals", metric_decimals(key)),
             "boxes", title);
}

static json_t *interval_row(const study_report *r, int arm, int metric) {
  const arm_metric *cell = report_cell(r, arm, metric);
  const contrast *c = &cell->compare.contrasts[0];
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "name", json_text(r->s->arms[arm].label),
                   "baseline", json_text(r->s->arms[r->s->arms[arm].baseline].label), "mean",
                   json_number(c->difference.mean), "low", json_number(c->interval.low), "high",
                   json_number(c->interval.high), "p", json_number(cell->holm), "pairs",
                   (json_int_t)c->pairs);
}

static void interval_plot(page *p, const study_report *r, int metric) {
  json_t *rows = json_array();
  for (int i = 0; i < r->s->arm_count; i++) {
    const arm_metric *cell = report_cell(r, i, metric);
    if (cell->is_compared && isfinite(cell->compare.contrasts[0].difference.mean))
      json_array_append_new(rows, interval_row(r, i, metric));
  }
  if (json_array_size(rows) == 0) {
    json_decref(rows);
    return;
  }
  const char *key = r->metrics[metric].key;
  better good = metric_better(key);
  char title[200];
  snprintf(title, sizeof title, "Δ %s and its 95 %% interval", metric_heading(key));
  page_chart(p,
             json_pack("{s:o, s:i}", "rows", rows, "better",
                       good == BETTER_HIGHER  ? 1
                       : good == BETTER_LOWER ? -1
                                              : 0),
             "intervals", title);
}

/* ---- sections ---------------------------------------------------------------------------------- */

static void add_legend(page *p, const study_report *r) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = memory_stream(&text, &length);
  report_legend(r, out);
  memory_stream_close(out);
  html_element(&p->body, "p", "facts", text);
  text_add(&p->body, "\n");
  free(text);
}

static void section_arms(page *p, study_report *r) {
  table t = report_main_table(r);
  page_section(p, "arms", "Arms");
  page_table(p, &t, "arms-table");
  add_legend(p, r);
  const char **cases;
  int count = list_cases(r, &cases);
  text_add(&p->body, "<div class=\"grid\">\n");
  for (int m = 0; m < r->metric_count; m++) {
    box_plot(p, r, m, cases, count);
    interval_plot(p, r, m);
  }
  text_add(&p->body, "</div>\n");
  page_section_end(p);
  table_free(&t);
}

static void section_trials(page *p, const study_report *r) {
  table t = report_trial_table(r), failures = report_failure_table(r->s);
  if (table_rows(&failures) > 0) {
    page_section(p, "failures", "Failed trials");
    page_table(p, &failures, "failures-table");
    page_section_end(p);
  }
  page_section(p, "trials", "Trials");
  page_table(p, &t, "trials-table");
  page_section_end(p);
  table_free(&failures);
  table_free(&t);
}

status report_page(study_report *r, const char *path) {
  page p = {.charts = json_array()};
  text_buffer out = {0}, about = {0};
  html_element(&about, "code", NULL, r->s->o->command);
  section_arms(&p, r);
  section_trials(&p, r);
  page_assemble(&p, r->s->name, &about, json_pack("[s]", r->s->name), &out);
  status error = file_write_atomic(path, out.data, out.length);
  text_free(&about);
  text_free(&out);
  page_free(&p);
  return error;
}
