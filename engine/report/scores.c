/* Tables and box plots of evaluation.json. */
#include "report/sections.h"
#include "view/image.h"

#include <math.h>
#include <string.h>

bool metric_is_share(int metric) {
  return metric == METRIC_DICE || metric == METRIC_JACCARD || metric == METRIC_PRECISION ||
         metric == METRIC_RECALL || metric == METRIC_NSD;
}

int scored_metrics(const run_record *r, scored_metric out[SCORED_MAX]) {
  int count = 0;
  for (int m = 0; r->evaluation && m < METRIC_COUNT; m++) {
    const json_t *summary = json_object_get(r->evaluation, metric_table[m].key);
    if (json_is_object(summary))
      out[count++] = (scored_metric){metric_table[m], metric_is_share(m), summary};
  }
  const char *key;
  json_t *summary;
  json_object_foreach(r->evaluation, key, summary) {
    if (count == SCORED_MAX || metric_of_key(key)) continue;
    if (!json_is_object(json_object_get(summary, "per_class"))) continue;
    metric_info info = {.name = key, .key = key, .heading = key, .decimals = 4, .doc = key};
    out[count++] = (scored_metric){info, false, summary};
  }
  return count;
}

/* ---- per class ------------------------------------------------------------------------------ */

static void number_cell(text_buffer *out, const json_t *mean, const json_t *deviation,
                        int decimals) {
  text_add(out, "<td class=\"n\">");
  if (!json_is_number(mean))
    text_add(out, "–");
  else if (json_is_number(deviation))
    text_add(out, "%.*f <small>± %.*f</small>", decimals, json_number_value(mean), decimals,
             json_number_value(deviation));
  else
    text_add(out, "%.*f", decimals, json_number_value(mean));
  text_add(out, "</td>");
}

static void count_cell(text_buffer *out, int64_t count) {
  text_add(out, "<td class=\"n%s\">%lld</td>", count > 0 ? " bad" : "", (long long)count);
}

static void class_rows(text_buffer *out, const run_record *r, const scored_metric *metrics,
                       int count) {
  const json_t *missed = json_object_get(r->evaluation, "missed");
  const json_t *hallucinated = json_object_get(r->evaluation, "hallucinated");
  const char *class;
  json_t *ignored;
  int number = 0;
  json_object_foreach(json_object_get(metrics[0].summary, "per_class"), class, ignored) {
    text_add(out, "<tr><th scope=\"row\"><i class=\"swatch c%d\"></i>",
             number++ % PALETTE_SIZE + 1);
    html_text(out, class);
    text_add(out, "</th>");
    for (int m = 0; m < count; m++)
      number_cell(out, json_object_get(json_object_get(metrics[m].summary, "per_class"), class),
                  json_object_get(
                      json_object_get(metrics[m].summary, "per_class_standard_deviation"), class),
                  metrics[m].info.decimals);
    count_cell(out, json_integer_value(json_object_get(missed, class)));
    count_cell(out, json_integer_value(json_object_get(hallucinated, class)));
    text_add(out, "</tr>\n");
  }
}

static void mean_row(text_buffer *out, const char *name, const json_t *const *summaries,
                     const scored_metric *metrics, int count) {
  text_add(out, "<tr><th scope=\"row\">");
  html_text(out, name);
  text_add(out, "</th>");
  for (int m = 0; m < count; m++)
    number_cell(out, json_object_get(summaries[m], "mean"),
                json_object_get(summaries[m], "standard_deviation"), metrics[m].info.decimals);
  text_add(out, "<td></td><td></td></tr>\n");
}

static void class_table(page *p, const scored_metric *metrics, int count) {
  text_buffer *out = &p->body;
  text_add(out,
           "<div class=\"scroll\"><table id=\"classes\"><thead><tr><th scope=\"col\">class</th>");
  for (int m = 0; m < count; m++) {
    text_add(out, "<th scope=\"col\" class=\"n\" title=\"");
    html_text(out, metrics[m].info.doc);
    text_add(out, "\">");
    html_text(out, metrics[m].info.heading);
    text_add(out, "</th>");
  }
  text_add(out, "<th scope=\"col\" class=\"n\">missed</th>"
                "<th scope=\"col\" class=\"n\">hallucinated</th></tr></thead>\n<tbody>\n");
  class_rows(out, p->run, metrics, count);
  text_add(out, "</tbody>\n<tfoot>\n");
  const json_t *summaries[SCORED_MAX];
  const char *group;
  json_t *entry;
  json_object_foreach(json_object_get(p->run->evaluation, "groups"), group, entry) {
    for (int m = 0; m < count; m++) summaries[m] = json_object_get(entry, metrics[m].info.key);
    mean_row(out, group, summaries, metrics, count);
  }
  for (int m = 0; m < count; m++) summaries[m] = metrics[m].summary;
  mean_row(out, "mean", summaries, metrics, count);
  text_add(out, "</tfoot></table></div>\n");
}

/* ---- box plots ------------------------------------------------------------------------------ */

/* Values of every case for one class, null where the metric is not defined. */
static json_t *values_of(const json_t *cases, const char *key, const char *class) {
  json_t *out = json_array(), *entry;
  size_t i;
  json_array_foreach(cases, i, entry) {
    json_t *value = json_object_get(json_object_get(entry, key), class);
    json_array_append(out, json_is_number(value) ? value : json_null());
  }
  return out;
}

static json_t *boxes_of(const run_record *r, const json_t *classes, const char *key,
                        const char *name) {
  const json_t *cases = json_object_get(r->evaluation, "cases");
  json_t *names = json_array(), *values = json_array(), *entry;
  size_t i;
  json_array_foreach(cases, i, entry) json_array_append(names, json_object_get(entry, "name"));
  const char *class;
  json_t *ignored;
  json_object_foreach((json_t *)classes, class, ignored)
      json_array_append_new(values, values_of(cases, key, class));
  return json_pack("{s:s, s:o, s:o}", "name", name, "cases", names, "values", values);
}

static void box_plot(page *p, const scored_metric *m) {
  const json_t *classes = json_object_get(m->summary, "per_class");
  const metric_info *info = &m->info;
  json_t *names = json_array(), *runs = json_array(), *ignored;
  const char *class;
  json_object_foreach((json_t *)classes, class, ignored)
      json_array_append_new(names, json_string(class));
  json_array_append_new(runs, boxes_of(p->run, classes, info->key, page_run_name(p, false)));
  if (p->other && p->other->evaluation)
    json_array_append_new(runs, boxes_of(p->other, classes, info->key, page_run_name(p, true)));
  page_chart(p,
             json_pack("{s:o, s:o, s:b, s:i}", "classes", names, "runs", runs, "share", m->share,
                       "decimals", info->decimals),
             "boxes", info->heading);
}

/* ---- per case ------------------------------------------------------------------------------- */

static void case_row(text_buffer *out, const json_t *entry, const scored_metric *metrics,
                     int count) {
  text_add(out, "<tr><th scope=\"row\">");
  html_text(out, json_member(entry, "name"));
  text_add(out, "</th>");
  for (int m = 0; m < count; m++) {
    char key[64];
    snprintf(key, sizeof key, "%s_mean", metrics[m].info.key);
    number_cell(out, json_object_get(entry, key), NULL, metrics[m].info.decimals);
  }
  static const char *const lists[] = {"missed", "hallucinated"};
  for (int k = 0; k < 2; k++) {
    const json_t *list = json_object_get(entry, lists[k]);
    text_add(out, "<td%s>", json_array_size(list) ? " class=\"bad\"" : "");
    for (size_t i = 0; i < json_array_size(list); i++) {
      const char *name = json_string_value(json_array_get(list, i));
      html_format(out, "%s%s", i ? ", " : "", name ? name : "?");
    }
    text_add(out, "</td>");
  }
  text_add(out, "</tr>\n");
}

static void case_table(page *p, const scored_metric *metrics, int count) {
  text_buffer *out = &p->body;
  const json_t *cases = json_object_get(p->run->evaluation, "cases");
  text_add(out,
           "<details id=\"cases-table\"><summary>All %zu cases</summary>\n<div class=\"scroll\">"
           "<table class=\"sortable\"><thead><tr><th scope=\"col\">case</th>",
           json_array_size(cases));
  for (int m = 0; m < count; m++) {
    text_add(out, "<th scope=\"col\" class=\"n\">");
    html_text(out, metrics[m].info.heading);
    text_add(out, "</th>");
  }
  text_add(out, "<th scope=\"col\">missed</th><th scope=\"col\">hallucinated</th></tr></thead>\n"
                "<tbody>\n");
  for (size_t i = 0; i < json_array_size(cases); i++)
    case_row(out, json_array_get(cases, i), metrics, count);
  text_add(out, "</tbody></table></div></details>\n");
}

static void definitions(page *p, const scored_metric *metrics, int count) {
  text_buffer *out = &p->body;
  text_add(out, "<p class=\"facts\">");
  html_format(out, "%zu cases; mean ± standard deviation over cases (%s). Empty classes: %s.",
              json_array_size(json_object_get(p->run->evaluation, "cases")),
              json_member(p->run->evaluation, "aggregation"),
              json_member(p->run->evaluation, "empty_policy"));
  for (int m = 0; m < count; m++) {
    const char *words = json_member(metrics[m].summary, "definition_in_words");
    if (words[0]) html_format(out, " %s: %s.", metrics[m].info.heading, words);
  }
  text_add(out, "</p>\n");
}

void section_scores(page *p) {
  scored_metric metrics[SCORED_MAX];
  int count = scored_metrics(p->run, metrics);
  if (count == 0) return;
  page_section(p, "scores", "Test cases");
  class_table(p, metrics, count);
  definitions(p, metrics, count);
  text_add(&p->body, "<div class=\"grid\">\n");
  for (int m = 0; m < count; m++) box_plot(p, &metrics[m]);
  text_add(&p->body, "</div>\n");
  case_table(p, metrics, count);
  page_section_end(p);
}
