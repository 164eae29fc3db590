/* A comparison as JSON. */
#include "base/json.h"
#include "statistics/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_number(json_t *object, const char *key, double value) {
  json_object_set_new(object, key, json_number(value));
}

static void set_count(json_t *object, const char *key, int64_t value) {
  json_object_set_new(object, key, json_integer(value));
}

static void set_text(json_t *object, const char *key, const char *text) {
  json_object_set_new(object, key, text ? json_text(text) : json_null());
}

static json_t *texts(const char *const *list, int count) {
  json_t *array = json_array();
  for (int i = 0; i < count; i++) json_array_append_new(array, json_text(list[i]));
  return array;
}

static json_t *summary_entry(const summary *s) {
  json_t *entry = json_object();
  set_number(entry, "mean", s->mean);
  set_number(entry, "standard_deviation", s->deviation);
  set_number(entry, "min", s->min);
  set_number(entry, "lower_quartile", s->lower_quartile);
  set_number(entry, "median", s->median);
  set_number(entry, "upper_quartile", s->upper_quartile);
  set_number(entry, "max", s->max);
  return entry;
}

static json_t *interval_entry(const contrast *x, double confidence) {
  json_t *entry = json_object();
  set_number(entry, "confidence", confidence);
  set_number(entry, "low", x->interval.low);
  set_number(entry, "high", x->interval.high);
  set_text(entry, "method", x->interval.method == BOOTSTRAP_BCA ? "bca" : "percentile");
  return entry;
}

static json_t *wilcoxon_entry(const contrast *x) {
  json_t *entry = json_object();
  set_number(entry, "p", x->wilcoxon.p);
  set_number(entry, "p_holm", x->wilcoxon_holm);
  json_object_set_new(entry, "exact", json_boolean(x->wilcoxon.exact));
  set_number(entry, "z", x->wilcoxon.z);
  set_number(entry, "plus", x->wilcoxon.plus);
  set_number(entry, "minus", x->wilcoxon.minus);
  set_count(entry, "zeros", x->wilcoxon.zeros);
  set_number(entry, "rank_biserial", x->wilcoxon.rank_biserial);
  return entry;
}

static json_t *t_entry(const contrast *x) {
  json_t *entry = json_object();
  set_number(entry, "p", x->t.p);
  set_number(entry, "p_holm", x->t_holm);
  set_number(entry, "t", x->t.t);
  set_count(entry, "degrees_of_freedom", x->t.freedom);
  set_number(entry, "cohen_dz", x->t.cohen_dz);
  return entry;
}

static json_t *case_entry(const case_difference *d) {
  if (!d->name) return json_null();
  json_t *entry = json_object();
  set_text(entry, "name", d->name);
  set_number(entry, "baseline", d->baseline);
  set_number(entry, "arm", d->other);
  set_number(entry, "difference", d->difference);
  return entry;
}

static json_t *spread_entry(const seed_spread *s) {
  json_t *entry = json_object(), *means = json_array();
  for (int64_t i = 0; i < s->over.count; i++)
    json_array_append_new(means, json_number(s->means[i]));
  json_object_set_new(entry, "means", means);
  set_number(entry, "mean", s->over.mean);
  set_number(entry, "standard_deviation", s->over.deviation);
  return entry;
}

static json_t *variance_entry(const variance_result *v) {
  json_t *entry = json_object();
  set_number(entry, "statistic", v->statistic);
  set_number(entry, "p", v->p);
  return entry;
}

static json_t *runs_entry(const contrast *x) {
  json_t *entry = json_object();
  json_object_set_new(entry, "baseline", spread_entry(&x->baseline_seeds));
  json_object_set_new(entry, "arm", spread_entry(&x->other_seeds));
  json_object_set_new(entry, "brown_forsythe", variance_entry(&x->brown_forsythe));
  json_object_set_new(entry, "variance_ratio", variance_entry(&x->variance_ratio));
  return entry;
}

static json_t *contrast_entry(const comparison *c, const contrast *x) {
  static const char *const words[] = {[BETTER_UNKNOWN] = NULL,
                                      [BETTER_HIGHER] = "higher",
                                      [BETTER_LOWER] = "lower",
                                      [BETTER_NEAR_ZERO] = "near zero"};
  json_t *entry = json_object(), *undefined = json_object();
  set_text(entry, "arm", c->arms[x->arm].name);
  set_text(entry, "metric", x->metric);
  set_text(entry, "class", x->class_name);
  set_text(entry, "better", words[x->better]);
  set_count(entry, "pairs", x->pairs);
  set_count(undefined, "baseline", x->undefined_in_baseline);
  set_count(undefined, "arm", x->undefined_in_arm);
  set_count(undefined, "both", x->undefined_in_both);
  set_count(undefined, "classes", x->undefined_classes);
  json_object_set_new(entry, "undefined", undefined);
  json_object_set_new(entry, "baseline_values", summary_entry(&x->baseline));
  json_object_set_new(entry, "arm_values", summary_entry(&x->other));
  json_object_set_new(entry, "difference", summary_entry(&x->difference));
  json_object_set_new(entry, "interval", interval_entry(x, c->options.confidence));
  json_object_set_new(entry, "wilcoxon", wilcoxon_entry(x));
  json_object_set_new(entry, "t", t_entry(x));
  json_object_set_new(entry, "cases",
                      json_pack("{s:I, s:I, s:I}", "better", (json_int_t)x->wins, "worse",
                                (json_int_t)x->losses, "same", (json_int_t)x->ties));
  json_object_set_new(entry, "largest_gain", case_entry(&x->best));
  json_object_set_new(entry, "largest_loss", case_entry(&x->worst));
  json_object_set_new(entry, "runs", runs_entry(x));
  return entry;
}

static json_t *arms_entry(const comparison *c) {
  json_t *list = json_array();
  for (int a = 0; a < c->arm_count; a++) {
    json_t *entry = json_object(), *runs = json_array();
    set_text(entry, "name", c->arms[a].name);
    for (int i = 0; i < c->arms[a].run_count; i++) {
      const results *r = &c->arms[a].runs[i];
      json_t *run = json_object();
      set_text(run, "path", r->path);
      set_text(run, "data_identity", r->data_identity);
      set_text(run, "pipeline_identity", r->pipeline_identity);
      json_object_set_new(run, "seed", r->seed >= 0 ? json_integer(r->seed) : json_null());
      json_array_append_new(runs, run);
    }
    json_object_set_new(entry, "runs", runs);
    json_array_append_new(list, entry);
  }
  return list;
}

static json_t *to_json(const comparison *c) {
  const compare_options *o = &c->options;
  json_t *root = json_object(), *settings = json_object(), *list = json_array();
  json_object_set_new(root, "arms", arms_entry(c));
  set_text(settings, "zeros", o->zeros == ZERO_PRATT ? "pratt" : "wilcox");
  set_text(settings, "bootstrap", o->bootstrap == BOOTSTRAP_BCA ? "bca" : "percentile");
  set_count(settings, "resamples", o->resamples);
  set_number(settings, "confidence", o->confidence);
  set_count(settings, "seed", (int64_t)o->seed);
  set_count(settings, "holm_over", c->contrast_count);
  json_object_set_new(root, "settings", settings);
  json_object_set_new(root, "cases", texts(c->cases, c->case_count));
  json_object_set_new(root, "not_compared", texts(c->left_out, c->left_out_count));
  json_object_set_new(root, "notes", texts(c->notes, c->note_count));
  for (int i = 0; i < c->contrast_count; i++)
    json_array_append_new(list, contrast_entry(c, &c->contrasts[i]));
  json_object_set_new(root, "comparisons", list);
  return root;
}

status comparison_write_json(const comparison *c, const char *path) {
  json_t *root = to_json(c);
  status error = json_write(path, root, JSON_INDENT(2) | JSON_REAL_PRECISION(15), "\n");
  json_decref(root);
  return error;
}
