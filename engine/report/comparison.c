/* The run against a second one: paired differences of the cases that both have. */
#include "report/sections.h"
#include "statistics/compare.h"

#include <math.h>
#include <string.h>

static void p_cell(text_buffer *out, double p) {
  text_add(out, "<td class=\"n\">");
  if (isnan(p))
    text_add(out, "–");
  else if (p < 1e-4)
    text_add(out, "&lt; 0.0001");
  else
    text_add(out, "%.4f", p);
  text_add(out, "</td>");
}

static void value_cell(text_buffer *out, double value) {
  if (isnan(value))
    text_add(out, "<td class=\"n\">–</td>");
  else
    text_add(out, "<td class=\"n\">%.4g</td>", value);
}

static void signed_cell(text_buffer *out, double value) {
  if (isnan(value))
    text_add(out, "<td class=\"n\">–</td>");
  else
    text_add(out, "<td class=\"n\">%+.4g</td>", value);
}

static void contrast_row(text_buffer *out, const contrast *c) {
  bool significant = c->wilcoxon_holm < 0.05;
  text_add(out, "<tr%s><th scope=\"row\">", significant ? " class=\"significant\"" : "");
  html_text(out, metric_heading(c->metric));
  text_add(out, "</th><td>");
  html_text(out, c->class_name);
  text_add(out, "</td>");
  value_cell(out, c->baseline.mean);
  value_cell(out, c->other.mean);
  signed_cell(out, c->difference.mean);
  text_add(out, "<td class=\"n\">");
  if (isnan(c->interval.low))
    text_add(out, "–");
  else
    text_add(out, "%+.4g … %+.4g", c->interval.low, c->interval.high);
  text_add(out, "</td>");
  p_cell(out, c->wilcoxon.p);
  p_cell(out, c->wilcoxon_holm);
  signed_cell(out, c->wilcoxon.rank_biserial);
  text_add(out, "<td class=\"n\">%lld</td><td class=\"n\">%lld / %lld / %lld</td></tr>\n",
           (long long)c->pairs, (long long)c->wins, (long long)c->losses, (long long)c->ties);
}

static void contrast_table(page *p, const comparison *c) {
  text_buffer *out = &p->body;
  text_add(out, "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">metric</th>"
                "<th scope=\"col\">class</th><th scope=\"col\" class=\"n\">");
  html_text(out, page_run_name(p, true));
  text_add(out, "</th><th scope=\"col\" class=\"n\">");
  html_text(out, page_run_name(p, false));
  text_add(out, "</th><th scope=\"col\" class=\"n\">difference</th>"
                "<th scope=\"col\" class=\"n\">95 %% interval</th>"
                "<th scope=\"col\" class=\"n\">p</th><th scope=\"col\" class=\"n\">p, Holm</th>"
                "<th scope=\"col\" class=\"n\">effect</th><th scope=\"col\" class=\"n\">cases</th>"
                "<th scope=\"col\" class=\"n\">better / worse / same</th></tr></thead>\n<tbody>\n");
  for (int i = 0; i < c->contrast_count; i++) contrast_row(out, &c->contrasts[i]);
  text_add(out, "</tbody></table></div>\n");
}

/* Per case: what it was in the other run, and by how much it differs here. */
static void difference_chart(page *p, const results *run, const results *other, int m) {
  json_t *cases = json_array(), *from = json_array(), *to = json_array();
  int theirs = results_metric_index(other, run->metrics[m].key);
  for (int i = 0; i < run->case_count && theirs >= 0; i++) {
    int k = results_case_index(other, run->cases[i]);
    double a = k < 0 ? NAN : results_case_mean(other, k, theirs);
    double b = results_case_mean(run, i, m);
    if (isnan(a) || isnan(b)) continue;
    json_array_append_new(cases, json_string(run->cases[i]));
    json_array_append_new(from, json_real(a));
    json_array_append_new(to, json_real(b));
  }
  if (json_array_size(cases) == 0) {
    json_decref(cases);
    json_decref(from);
    json_decref(to);
    return;
  }
  char title[128];
  snprintf(title, sizeof title, "%s, mean over the classes of a case",
           metric_heading(run->metrics[m].key));
  page_chart(p,
             json_pack("{s:o, s:o, s:o, s:b}", "cases", cases, "from", from, "to", to, "higher",
                       metric_better(run->metrics[m].key) != BETTER_LOWER),
             "differences", title);
}

static void sentences(text_buffer *out, const char *const *list, int count) {
  for (int i = 0; i < count; i++) html_element(out, "p", "facts", list[i]);
}

static void compare(page *p, const results *run, const results *other) {
  const arm arms[2] = {{page_run_name(p, true), other, 1}, {page_run_name(p, false), run, 1}};
  compare_options options = {.common = true};
  comparison c;
  status error = compare_arms(arms, 2, &options, &c);
  if (error) {
    html_element(&p->body, "p", "missing", error_message(error));
    error_free(error);
    return;
  }
  sentences(&p->body, c.notes, c.note_count);
  sentences(&p->body, c.left_out, c.left_out_count);
  contrast_table(p, &c);
  text_add(&p->body, "<p class=\"facts\">Paired by case; differences are ");
  html_format(&p->body, "%s − %s", page_run_name(p, false), page_run_name(p, true));
  text_add(
      &p->body,
      ". p: Wilcoxon signed-rank, two-sided; Holm: adjusted over all rows; interval: bootstrap "
      "(BCa) of the mean difference; effect: rank-biserial correlation. Rows below 0.05 after "
      "the adjustment are marked. strata compare has more.</p>\n<div class=\"grid\">\n");
  for (int m = 0; m < run->metric_count; m++) difference_chart(p, run, other, m);
  text_add(&p->body, "</div>\n");
  comparison_free(&c);
}

void section_comparison(page *p) {
  if (!p->other || !p->run->evaluation || !p->other->evaluation) return;
  page_section(p, "comparison", "Comparison");
  results run, other;
  status error = results_read(p->run->folder, &run);
  if (!error) {
    error = results_read(p->other->folder, &other);
    if (!error) {
      compare(p, &run, &other);
      results_free(&other);
    }
    results_free(&run);
  }
  if (error) html_element(&p->body, "p", "missing", error_message(error));
  error_free(error);
  page_section_end(p);
}
