#include "statistics/compare.h"

#include "base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_RESAMPLES = 10000, LISTED_MAX = 20, DIGITS = 8 };

better metric_better(const char *key) {
  const metric_info *info = metric_of_key(key);
  return info ? info->better : BETTER_UNKNOWN;
}

/* A run, and where in it stands what is compared. */
typedef struct view {
  const results *run;
  int *metrics, *classes, *cases;
} view;

typedef struct work {
  comparison *c;
  view *views; /* arm by arm */
  int view_count;
  int *first_view; /* of an arm; one more than there are arms */
  const char **metrics, **classes;
  int metric_count, class_count; /* without the mean */
  int left_out_capacity, note_capacity;
} work;

static void add_left_out(work *w, const char *sentence) {
  comparison *c = w->c;
  ARENA_PUSH(&c->memory, c->left_out, c->left_out_count, w->left_out_capacity, sentence);
}

static void add_note(work *w, const char *sentence) {
  comparison *c = w->c;
  ARENA_PUSH(&c->memory, c->notes, c->note_count, w->note_capacity, sentence);
}

/* ---- what all runs have -------------------------------------------------------------------- */

typedef const char *(*name_at)(const results *r, int i);
typedef int (*count_in)(const results *r);
typedef int (*index_of)(const results *r, const char *name);

static const char *class_at(const results *r, int i) {
  return r->classes[i];
}
static int classes_in(const results *r) {
  return r->class_count;
}
static const char *case_at(const results *r, int i) {
  return r->cases[i];
}
static int cases_in(const results *r) {
  return r->case_count;
}
static const char *metric_at(const results *r, int i) {
  return r->metrics[i].key;
}
static int metrics_in(const results *r) {
  return r->metric_count;
}

/* Names that every run has, in the order of the first run; a sentence in `missing` for each other
 * one. */
static const char **shared_names(work *w, const char *what, name_at at, count_in count,
                                 index_of find, int *shared,
                                 void (*missing)(work *, const char *)) {
  arena *memory = &w->c->memory;
  size_t total = 0, filled = 0;
  for (int v = 0; v < w->view_count; v++) total += (size_t)count(w->views[v].run);
  const char **all = arena_alloc(memory, (total + 1) * sizeof *all);
  for (int v = 0; v < w->view_count; v++)
    for (int i = 0; i < count(w->views[v].run); i++) all[filled++] = at(w->views[v].run, i);
  if (total > 1) qsort(all, total, sizeof *all, by_text);
  for (size_t i = 0, next; i < total; i = next) {
    for (next = i + 1; next < total && strcmp(all[i], all[next]) == 0;) next++;
    if (next - i == (size_t)w->view_count) continue;
    int in = -1, not_in = -1;
    for (int v = w->view_count; v-- > 0;) *(find(w->views[v].run, all[i]) >= 0 ? &in : &not_in) = v;
    missing(w, arena_printf(memory, "%s %s is in %s, not in %s", what, all[i],
                            w->views[in].run->path, w->views[not_in].run->path));
  }
  const results *first = w->views[0].run;
  const char **names = arena_alloc(memory, ((size_t)count(first) + 1) * sizeof *names);
  for (int i = 0; i < count(first); i++) {
    bool everywhere = true;
    for (int v = 1; v < w->view_count && everywhere; v++)
      everywhere = find(w->views[v].run, at(first, i)) >= 0;
    if (everywhere) names[(*shared)++] = at(first, i);
  }
  return names;
}

static status differing_sets(const work *w) {
  const comparison *c = w->c;
  text_buffer text = {0};
  for (int i = 0; i < c->left_out_count && i < LISTED_MAX; i++)
    text_add(&text, "\n  %s", c->left_out[i]);
  if (c->left_out_count > LISTED_MAX)
    text_add(&text, "\n  … and %d more", c->left_out_count - LISTED_MAX);
  status error = error_new(ERROR_DATA, NOWHERE,
                           "these runs were not evaluated on the same cases and classes:%s\n"
                           "--common compares the %d cases and %d classes that all have",
                           text.data, c->case_count, w->class_count);
  text_free(&text);
  return error;
}

static status choose_cases_and_classes(work *w) {
  comparison *c = w->c;
  w->classes = shared_names(w, "class", class_at, classes_in, results_class_index, &w->class_count,
                            add_left_out);
  c->cases =
      shared_names(w, "case", case_at, cases_in, results_case_index, &c->case_count, add_left_out);
  if (w->class_count == 0)
    return error_new(ERROR_DATA, NOWHERE,
                     "%s and the other runs have no class in common (\"strata evaluate\" names "
                     "classes by their number, a run by their name)",
                     w->views[0].run->path);
  if (c->case_count == 0)
    return error_new(ERROR_DATA, NOWHERE, "%s and the other runs have no case in common",
                     w->views[0].run->path);
  return c->left_out_count > 0 && !c->options.common ? differing_sets(w) : OK;
}

/* ---- metrics ------------------------------------------------------------------------------- */

static status no_such(const results *r, const char *what, const char *name, const char *const *has,
                      int count) {
  text_buffer list = {0};
  for (int i = 0; i < count; i++) text_add(&list, "%s%s", i ? ", " : "", has[i]);
  const char *near = nearest_name(name, has, count);
  status error =
      error_new(ERROR_USAGE, NOWHERE, "%s has no %s \"%s\"%s%s%s; it has %s", r->path, what, name,
                near ? ": did you mean " : "", near ? near : "", near ? "?" : "", list.data);
  text_free(&list);
  return error;
}

static status choose_named_metrics(work *w) {
  comparison *c = w->c;
  const compare_options *o = &c->options;
  w->metrics = arena_alloc(&c->memory, (size_t)o->metric_count * sizeof *w->metrics);
  for (int i = 0; i < o->metric_count; i++) {
    for (int v = w->view_count; v-- > 0;) {
      const results *r = w->views[v].run;
      int at = results_metric_index(r, o->metrics[i]);
      if (at < 0) {
        const char **keys = arena_alloc(&c->memory, (size_t)r->metric_count * sizeof *keys);
        for (int k = 0; k < r->metric_count; k++) keys[k] = r->metrics[k].key;
        return no_such(r, "metric", o->metrics[i], keys, r->metric_count);
      }
      w->metrics[w->metric_count] = r->metrics[at].key;
    }
    for (int k = 0; k < w->metric_count; k++)
      if (strcmp(w->metrics[k], w->metrics[w->metric_count]) == 0)
        return error_new(ERROR_USAGE, NOWHERE, "metric \"%s\" is named twice", o->metrics[i]);
    w->metric_count++;
  }
  return OK;
}

static status choose_metrics(work *w) {
  if (w->c->options.metrics)
    TRY(choose_named_metrics(w));
  else
    w->metrics = shared_names(w, "metric", metric_at, metrics_in, results_metric_index,
                              &w->metric_count, add_note);
  if (w->metric_count == 0)
    return error_new(ERROR_DATA, NOWHERE, "%s and the other runs have no metric in common",
                     w->views[0].run->path);
  for (int m = 0; m < w->metric_count; m++) {
    const results *first = w->views[0].run;
    const char *definition = first->metrics[results_metric_index(first, w->metrics[m])].definition;
    for (int v = 1; v < w->view_count; v++) {
      const results *r = w->views[v].run;
      const char *other = r->metrics[results_metric_index(r, w->metrics[m])].definition;
      if (strcmp(definition, other) != 0)
        return error_new(ERROR_DATA, NOWHERE,
                         "%s means something else in %s (%s) than in %s (%s). Evaluate both alike "
                         "(strata evaluate), or compare other --metrics",
                         w->metrics[m], first->path, definition, r->path, other);
    }
  }
  return OK;
}

/* Is a class, or the mean, wanted? */
static bool is_wanted(const compare_options *o, const char *class_name) {
  if (!o->classes) return true;
  for (int i = 0; i < o->class_count; i++)
    if (strcmp(o->classes[i], class_name) == 0) return true;
  return false;
}

static status check_named_classes(const work *w) {
  const compare_options *o = &w->c->options;
  for (int i = 0; i < o->class_count && o->classes; i++) {
    bool known = strcmp(o->classes[i], COMPARE_MEAN) == 0;
    for (int k = 0; k < w->class_count && !known; k++)
      known = strcmp(o->classes[i], w->classes[k]) == 0;
    if (!known) return no_such(w->views[0].run, "class", o->classes[i], w->classes, w->class_count);
  }
  return OK;
}

/* ---- views and notes ----------------------------------------------------------------------- */

static int *indices(work *w, const results *r, const char **names, int count, index_of find) {
  int *list = arena_alloc(&w->c->memory, ((size_t)count + 1) * sizeof *list);
  for (int i = 0; i < count; i++) list[i] = find(r, names[i]);
  return list;
}

static void note_data_sets(work *w) {
  const results *first = w->views[0].run;
  for (int v = 1; v < w->view_count; v++) {
    const results *r = w->views[v].run;
    if (!first->data_identity || !r->data_identity) continue;
    if (strcmp(first->data_identity, r->data_identity) == 0) continue;
    add_note(w, arena_printf(&w->c->memory,
                             "%s and %s saw different data (identities %s and %s): their cases, "
                             "roles or files are not the same",
                             first->path, r->path, first->data_identity, r->data_identity));
  }
}

static void note_seeds(work *w) {
  for (int a = 0; a < w->c->arm_count; a++)
    for (int v = w->first_view[a]; v < w->first_view[a + 1]; v++)
      for (int u = w->first_view[a]; u < v; u++) {
        const results *x = w->views[u].run, *y = w->views[v].run;
        if (x->seed < 0 || x->seed != y->seed) continue;
        add_note(w, arena_printf(&w->c->memory,
                                 "%s and %s, both of arm %s, have the same seed %" PRId64
                                 ": their spread says nothing of seeds",
                                 x->path, y->path, w->c->arms[a].name, x->seed));
      }
}

static status open_views(work *w) {
  comparison *c = w->c;
  w->first_view = arena_alloc(&c->memory, ((size_t)c->arm_count + 1) * sizeof *w->first_view);
  for (int a = 0; a < c->arm_count; a++)
    w->first_view[a + 1] = w->first_view[a] + c->arms[a].run_count;
  w->view_count = w->first_view[c->arm_count];
  w->views = arena_alloc(&c->memory, (size_t)w->view_count * sizeof *w->views);
  for (int a = 0; a < c->arm_count; a++)
    for (int i = 0; i < c->arms[a].run_count; i++)
      w->views[w->first_view[a] + i].run = &c->arms[a].runs[i];
  TRY(choose_metrics(w));
  TRY(choose_cases_and_classes(w));
  TRY(check_named_classes(w));
  for (int v = 0; v < w->view_count; v++) {
    view *one = &w->views[v];
    one->metrics = indices(w, one->run, w->metrics, w->metric_count, results_metric_index);
    one->classes = indices(w, one->run, w->classes, w->class_count, results_class_index);
    one->cases = indices(w, one->run, c->cases, c->case_count, results_case_index);
  }
  note_data_sets(w);
  note_seeds(w);
  return OK;
}

/* ---- values -------------------------------------------------------------------------------- */

enum { MEAN = -1 }; /* as a class index */

static double value_in(const view *v, int case_index, int metric, int class_index) {
  return results_value(v->run, v->cases[case_index], v->metrics[metric], v->classes[class_index]);
}

/* Is a value defined in every run of an arm? */
static bool is_defined(const work *w, int a, int case_index, int metric, int class_index) {
  for (int v = w->first_view[a]; v < w->first_view[a + 1]; v++)
    if (isnan(value_in(&w->views[v], case_index, metric, class_index))) return false;
  return true;
}

/* A run's value; of the mean: over the classes that are defined throughout both arms. */
static double paired_value(const work *w, const view *v, int a, int case_index, int metric,
                           int class_index) {
  if (class_index != MEAN) return value_in(v, case_index, metric, class_index);
  moments all = {0};
  for (int k = 0; k < w->class_count; k++)
    if (is_defined(w, 0, case_index, metric, k) && is_defined(w, a, case_index, metric, k))
      moments_add(&all, value_in(v, case_index, metric, k));
  return moments_mean(&all);
}

/* The values of one contrast: [pair] for each arm, and the pair's case. */
typedef struct pair_list {
  double *baseline, *other, *difference;
  int *cases;
} pair_list;

/* Is the case a pair? If not, counts why. */
static bool is_pair(const work *w, contrast *out, int case_index, int metric, int class_index) {
  bool in_baseline = false, in_arm = false, in_both = false;
  int64_t undefined = 0;
  int first = class_index == MEAN ? 0 : class_index;
  int last = class_index == MEAN ? w->class_count : class_index + 1;
  for (int k = first; k < last; k++) {
    bool x = is_defined(w, 0, case_index, metric, k);
    bool y = is_defined(w, out->arm, case_index, metric, k);
    in_baseline |= x;
    in_arm |= y;
    in_both |= x && y;
    undefined += !(x && y);
  }
  if (in_both)
    out->undefined_classes += undefined;
  else if (in_baseline == in_arm)
    out->undefined_in_both++;
  else
    *(in_arm ? &out->undefined_in_baseline : &out->undefined_in_arm) += 1;
  return in_both;
}

/* Adds the runs' values of the pairs to `sums`, [pair], and keeps each run's mean. */
static void gather(const work *w, int a, const contrast *out, const pair_list *pairs, int metric,
                   int class_index, double *values, seed_spread *seeds, arena *memory) {
  int runs = w->c->arms[a].run_count;
  seeds->means = arena_alloc(memory, (size_t)runs * sizeof *seeds->means);
  for (int i = 0; i < runs; i++) {
    moments of_run = {0};
    for (int64_t k = 0; k < out->pairs; k++) {
      double value = paired_value(w, &w->views[w->first_view[a] + i], out->arm, pairs->cases[k],
                                  metric, class_index);
      values[k] += value;
      moments_add(&of_run, value);
    }
    seeds->means[i] = moments_mean(&of_run);
  }
  for (int64_t k = 0; k < out->pairs; k++) values[k] /= runs;
}

/* ---- figures ------------------------------------------------------------------------------- */

/* Step of the eighth digit of the largest value. */
static double tie_step(const pair_list *p, int64_t count) {
  double largest = 0;
  for (int64_t k = 0; k < count; k++)
    largest = fmax(largest, fmax(fabs(p->baseline[k]), fabs(p->other[k])));
  return largest > 0 ? pow(10, ceil(log10(largest)) - DIGITS) : 0;
}

static double rounded(double value, double step) {
  return step > 0 ? round(value / step) * step : value;
}

/* How much better the arm is, in the metric's unit. */
static double gain(const contrast *out, double baseline, double other) {
  if (out->better == BETTER_LOWER) return baseline - other;
  if (out->better == BETTER_NEAR_ZERO) return fabs(baseline) - fabs(other);
  return other - baseline;
}

static void count_wins(const work *w, contrast *out, const pair_list *p, double step) {
  double most = -(double)INFINITY, least = (double)INFINITY;
  for (int64_t k = 0; k < out->pairs; k++) {
    double gained = gain(out, p->baseline[k], p->other[k]), seen = rounded(gained, step);
    out->wins += seen > 0;
    out->losses += seen < 0;
    out->ties += seen == 0;
    case_difference one = {w->c->cases[p->cases[k]], p->baseline[k], p->other[k], p->difference[k]};
    if (gained > most) out->best = one;
    if (gained < least) out->worst = one;
    most = fmax(most, gained);
    least = fmin(least, gained);
  }
}

static status compare_seeds(const work *w, contrast *out) {
  number_list base = {out->baseline_seeds.means, w->c->arms[0].run_count};
  number_list other = {out->other_seeds.means, w->c->arms[out->arm].run_count};
  TRY(summarize(base.values, base.count, &out->baseline_seeds.over));
  TRY(summarize(other.values, other.count, &out->other_seeds.over));
  TRY(levene_test((number_list[]){base, other}, 2, CENTER_MEDIAN, &out->brown_forsythe));
  out->variance_ratio = variance_ratio_test(other, base);
  return OK;
}

static status figures(const work *w, contrast *out, pair_list *p) {
  const compare_options *o = &w->c->options;
  for (int64_t k = 0; k < out->pairs; k++) p->difference[k] = p->other[k] - p->baseline[k];
  TRY(summarize(p->baseline, out->pairs, &out->baseline));
  TRY(summarize(p->other, out->pairs, &out->other));
  TRY(summarize(p->difference, out->pairs, &out->difference));
  double step = tie_step(p, out->pairs);
  count_wins(w, out, p, step);
  out->t = paired_t(p->difference, out->pairs);
  char name[2 * 1024 + 2];
  snprintf(name, sizeof name, "%s/%s", out->metric, out->class_name);
  TRY(bootstrap_mean(p->difference, out->pairs, o->resamples, o->confidence, o->bootstrap,
                     bootstrap_stream(o->seed, name), &out->interval));
  for (int64_t k = 0; k < out->pairs; k++) p->difference[k] = rounded(p->difference[k], step);
  return wilcoxon_signed_rank(p->difference, out->pairs, o->zeros, P_AUTO, &out->wilcoxon);
}

static status contrast_of(const work *w, contrast *out, int metric, int class_index) {
  comparison *c = w->c;
  arena scratch = {0};
  size_t bytes = (size_t)c->case_count * sizeof(double);
  pair_list p = {arena_alloc(&scratch, bytes), arena_alloc(&scratch, bytes),
                 arena_alloc(&scratch, bytes),
                 arena_alloc(&scratch, (size_t)c->case_count * sizeof *p.cases)};
  for (int i = 0; i < c->case_count; i++)
    if (is_pair(w, out, i, metric, class_index)) p.cases[out->pairs++] = i;
  gather(w, 0, out, &p, metric, class_index, p.baseline, &out->baseline_seeds, &c->memory);
  gather(w, out->arm, out, &p, metric, class_index, p.other, &out->other_seeds, &c->memory);
  status error = figures(w, out, &p);
  if (!error) error = compare_seeds(w, out);
  arena_free(&scratch);
  return error;
}

static status add_contrast(const work *w, int a, int metric, int class_index) {
  const char *class_name = class_index == MEAN ? COMPARE_MEAN : w->classes[class_index];
  if (!is_wanted(&w->c->options, class_name)) return OK;
  contrast *out = &w->c->contrasts[w->c->contrast_count++];
  *out = (contrast){.metric = w->metrics[metric],
                    .class_name = class_name,
                    .better = metric_better(w->metrics[metric]),
                    .arm = a};
  return contrast_of(w, out, metric, class_index);
}

static status adjust(comparison *c) {
  double *p = arena_alloc(&c->memory, ((size_t)c->contrast_count + 1) * sizeof *p);
  for (int i = 0; i < c->contrast_count; i++) p[i] = c->contrasts[i].wilcoxon.p;
  TRY(holm_adjust(p, c->contrast_count, p));
  for (int i = 0; i < c->contrast_count; i++) {
    c->contrasts[i].wilcoxon_holm = p[i];
    p[i] = c->contrasts[i].t.p;
  }
  TRY(holm_adjust(p, c->contrast_count, p));
  for (int i = 0; i < c->contrast_count; i++) c->contrasts[i].t_holm = p[i];
  return OK;
}

static status compare_all(comparison *c) {
  work w = {.c = c};
  TRY(open_views(&w));
  size_t most = (size_t)(c->arm_count - 1) * (size_t)w.metric_count * ((size_t)w.class_count + 1);
  c->contrasts = arena_alloc(&c->memory, most * sizeof *c->contrasts);
  for (int a = 1; a < c->arm_count; a++)
    for (int m = 0; m < w.metric_count; m++) {
      for (int k = 0; k < w.class_count; k++) TRY(add_contrast(&w, a, m, k));
      TRY(add_contrast(&w, a, m, MEAN));
    }
  return adjust(c);
}

status compare_arms(const arm *arms, int arm_count, const compare_options *options,
                    comparison *out) {
  *out = (comparison){.arms = arms, .arm_count = arm_count, .options = *options};
  if (arm_count < 2)
    return error_new(ERROR_USAGE, NOWHERE, "a comparison needs a baseline and one arm at least");
  if (out->options.resamples == 0) out->options.resamples = DEFAULT_RESAMPLES;
  if (out->options.confidence == 0) out->options.confidence = 0.95;
  status error = compare_all(out);
  if (error) comparison_free(out);
  return error;
}

void comparison_free(comparison *c) {
  arena_free(&c->memory);
  *c = (comparison){0};
}
