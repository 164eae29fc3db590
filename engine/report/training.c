/* Curves: every number of metrics.jsonl. */
#include "base/memory.h"
#include "report/sections.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS_MAX = 2000 }; /* of a curve: more than a screen has columns */

static const char validation[] = "validation.";

static const char *without_validation(const char *name) {
  return text_starts_with(name, validation) ? name + sizeof validation - 1 : name;
}

/* Names that share a chart: all losses; learning rates; a metric and its numbered parts
 * ("structure.accuracy.0"), of training and validation. Writes the chart's name. */
static void chart_of(const char *name, char out[128]) {
  name = without_validation(name);
  if (strcmp(name, "loss") == 0 || text_starts_with(name, "loss.")) name = "loss";
  if (text_starts_with(name, "lr.")) name = "lr";
  snprintf(out, 128, "%s", name);
  char *dot = strrchr(out, '.');
  if (!dot || !dot[1]) return;
  for (const char *p = dot + 1; *p; p++)
    if (!isdigit((unsigned char)*p)) return;
  *dot = 0;
}

static json_t *points(const double *values, int count) {
  json_t *out = json_array();
  int step = (count + POINTS_MAX - 1) / POINTS_MAX;
  for (int i = 0; i < count; i += step) json_array_append_new(out, json_real(values[i]));
  if (count > 0 && (count - 1) % step != 0)
    json_array_append_new(out, json_real(values[count - 1]));
  return out;
}

static json_t *curve(const series *s, const double *values, const char *name, bool other) {
  return json_pack("{s:s, s:b, s:b, s:o, s:o}", "name", name, "validation",
                   text_starts_with(s->name, validation), "other", other, "x",
                   points(s->epoch, s->count), "y", points(values, s->count));
}

static void add_curves(json_t *list, const run_record *r, const char *stage, const char *chart,
                       bool other) {
  for (int i = 0; i < r->series_count; i++) {
    const series *s = &r->series[i];
    char of[128];
    chart_of(s->name, of);
    if (strcmp(s->stage, stage) == 0 && strcmp(of, chart) == 0)
      json_array_append_new(list, curve(s, s->value, without_validation(s->name), other));
  }
}

/* Updates a second: from the seconds of each epoch and how many updates there were before it. */
static void add_throughput(json_t *list, const run_record *r, const char *stage, bool other) {
  const series *seconds = record_series(r, stage, "seconds");
  const series *updates = record_series(r, stage, "updates");
  if (!seconds || !updates || seconds->count != updates->count) return;
  double *rate = memory_take((size_t)seconds->count * sizeof *rate);
  for (int i = 0; i < seconds->count; i++) {
    double done = updates->value[i] - (i ? updates->value[i - 1] : 0);
    rate[i] = seconds->value[i] > 0 ? done / seconds->value[i] : 0;
  }
  json_array_append_new(list, curve(seconds, rate, "updates a second", other));
  free(rate);
}

static void chart_end(page *p, json_t *curves, const char *title) {
  if (json_array_size(curves) == 0) {
    json_decref(curves);
    return;
  }
  page_chart(p, json_pack("{s:s, s:o}", "x", "epoch", "curves", curves), "curves", title);
}

static void add_chart(page *p, const char *stage, const char *chart) {
  json_t *curves = json_array();
  add_curves(curves, p->run, stage, chart, false);
  if (p->other) add_curves(curves, p->other, stage, chart, true);
  chart_end(p, curves,
            strcmp(chart, "loss") == 0   ? "Loss"
            : strcmp(chart, "lr") == 0   ? "Learning rate"
            : strcmp(chart, "dice") == 0 ? "Dice"
                                         : chart);
}

static bool is_special(const char *name) {
  return strcmp(name, "updates") == 0 || strcmp(name, "seconds") == 0;
}

static bool is_new_chart(const run_record *r, int at, const char *chart) {
  for (int i = 0; i < at; i++) {
    char of[128];
    chart_of(r->series[i].name, of);
    if (strcmp(r->series[i].stage, r->series[at].stage) == 0 && strcmp(of, chart) == 0)
      return false;
  }
  return true;
}

static void stage_facts(page *p, const char *stage) {
  const series *seconds = record_series(p->run, stage, "seconds");
  const series *updates = record_series(p->run, stage, "updates");
  double total = 0;
  for (int i = 0; seconds && i < seconds->count; i++) total += seconds->value[i];
  char spent[24];
  text_add(&p->body, "<p class=\"facts\">");
  html_format(&p->body, "%d epochs, %.0f updates, %s of training", seconds ? seconds->count : 0,
              updates && updates->count ? updates->value[updates->count - 1] : 0.0,
              format_duration(spent, total));
  const series *other = p->other ? record_series(p->other, stage, "seconds") : NULL;
  if (p->other)
    html_format(&p->body, "; %s, the faint curves: %d epochs", page_run_name(p, true),
                other ? other->count : 0);
  text_add(&p->body, "</p>\n");
}

static void add_stage(page *p, const char *stage) {
  const run_record *r = p->run;
  html_element(&p->body, "h3", NULL, stage);
  stage_facts(p, stage);
  text_add(&p->body, "<div class=\"grid\">\n");
  for (int i = 0; i < r->series_count; i++) {
    char chart[128];
    chart_of(r->series[i].name, chart);
    if (strcmp(r->series[i].stage, stage) == 0 && !is_special(chart) && is_new_chart(r, i, chart))
      add_chart(p, stage, chart);
  }
  json_t *rate = json_array();
  add_throughput(rate, r, stage, false);
  if (p->other) add_throughput(rate, p->other, stage, true);
  chart_end(p, rate, "Throughput");
  text_add(&p->body, "</div>\n");
}

void section_training(page *p) {
  const run_record *r = p->run;
  if (r->series_count == 0) return;
  page_section(p, "training", "Training");
  text_add(&p->body, "<noscript><p>The curves are drawn by a script, which is switched off here. "
                     "Their numbers are in metrics.jsonl.</p></noscript>\n");
  for (int i = 0; i < r->series_count; i++) {
    bool seen = false;
    for (int k = 0; k < i; k++) seen |= strcmp(r->series[k].stage, r->series[i].stage) == 0;
    if (!seen) add_stage(p, r->series[i].stage);
  }
  page_section_end(p);
}
