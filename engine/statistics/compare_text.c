/* A comparison for people: tables on a terminal or in Markdown, and CSV. */
#include "base/files.h"
#include "base/table.h"
#include "statistics/compare.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef void (*table_printer)(const table *t, FILE *out);

static void add_value(table *t, double value, int decimals, bool sign) {
  if (isnan(value))
    table_cell(t, "–");
  else
    table_cell(t, sign ? "%+.*f" : "%.*f", decimals, value);
}

static void add_spread(table *t, const summary *s, int decimals) {
  if (s->count > 1)
    table_cell(t, "%.*f ± %.*f", decimals, s->mean, decimals, s->deviation);
  else
    add_value(t, s->mean, decimals, false);
}

static void add_p(table *t, double p) {
  if (isnan(p))
    table_cell(t, "–");
  else
    table_cell(t, p >= 1e-4 ? "%.4f" : p > 0 ? "%.1e" : "%.0f", p);
}

static void add_name(table *t, const contrast *x) {
  table_cell(t, "%s", metric_heading(x->metric));
  table_cell(t, "%s", x->class_name);
}

/* ---- the tables, each of one arm against the baseline ---------------------------------------- */

static void start(table *t, const char *const *numbers, int count) {
  table_column(t, "metric", false);
  table_column(t, "class", false);
  for (int i = 0; i < count; i++) table_column(t, numbers[i], true);
}

static table main_table(const comparison *c, int a) {
  table t = {0};
  char confidence[32];
  snprintf(confidence, sizeof confidence, "%g %% interval", 100 * c->options.confidence);
  const char *const heads[] = {
      "pairs",      c->arms[0].name, c->arms[a].name, "difference", confidence,
      "Wilcoxon p", "Holm",          "t p",           "Holm",       "r",
      "d",          "better",        "worse",         "same"};
  start(&t, heads, sizeof heads / sizeof *heads);
  for (int i = 0; i < c->contrast_count; i++) {
    const contrast *x = &c->contrasts[i];
    if (x->arm != a) continue;
    int decimals = metric_decimals(x->metric);
    add_name(&t, x);
    table_cell(&t, "%" PRId64, x->pairs);
    add_spread(&t, &x->baseline, decimals);
    add_spread(&t, &x->other, decimals);
    add_value(&t, x->difference.mean, decimals, true);
    if (isnan(x->interval.low))
      table_cell(&t, "–");
    else
      table_cell(&t, "%+.*f … %+.*f", decimals, x->interval.low, decimals, x->interval.high);
    add_p(&t, x->wilcoxon.p);
    add_p(&t, x->wilcoxon_holm);
    add_p(&t, x->t.p);
    add_p(&t, x->t_holm);
    add_value(&t, x->wilcoxon.rank_biserial, 2, true);
    add_value(&t, x->t.cohen_dz, 2, true);
    table_cell(&t, "%" PRId64, x->wins);
    table_cell(&t, "%" PRId64, x->losses);
    table_cell(&t, "%" PRId64, x->ties);
  }
  return t;
}

/* `count`: cases that have changed in the direction that the column is about. */
static void add_case(table *t, const case_difference *d, int64_t count, int decimals) {
  if (!d->name || count == 0) {
    table_cell(t, "–");
    table_cell(t, "–");
    return;
  }
  table_cell(t, "%s", d->name);
  table_cell(t, "%.*f → %.*f", decimals, d->baseline, decimals, d->other);
}

static table case_table(const comparison *c, int a) {
  table t = {0};
  start(&t, NULL, 0);
  table_column(&t, "largest gain", false);
  table_column(&t, "from → to", false);
  table_column(&t, "largest loss", false);
  table_column(&t, "from → to", false);
  for (int i = 0; i < c->contrast_count; i++) {
    const contrast *x = &c->contrasts[i];
    if (x->arm != a) continue;
    add_name(&t, x);
    add_case(&t, &x->best, x->wins, metric_decimals(x->metric));
    add_case(&t, &x->worst, x->losses, metric_decimals(x->metric));
  }
  return t;
}

static table seed_table(const comparison *c, int a) {
  table t = {0};
  const char *const heads[] = {
      c->arms[0].name, "runs", c->arms[a].name, "runs", "Brown–Forsythe p", "F", "F p"};
  start(&t, heads, 7);
  for (int i = 0; i < c->contrast_count; i++) {
    const contrast *x = &c->contrasts[i];
    if (x->arm != a) continue;
    add_name(&t, x);
    add_spread(&t, &x->baseline_seeds.over, metric_decimals(x->metric));
    table_cell(&t, "%d", c->arms[0].run_count);
    add_spread(&t, &x->other_seeds.over, metric_decimals(x->metric));
    table_cell(&t, "%d", c->arms[a].run_count);
    add_p(&t, x->brown_forsythe.p);
    add_value(&t, x->variance_ratio.statistic, 2, false);
    add_p(&t, x->variance_ratio.p);
  }
  return t;
}

static void print_table(table t, table_printer print, FILE *out) {
  print(&t, out);
  table_free(&t);
}

/* ---- what is to be known about them ---------------------------------------------------------- */

static void print_undefined(const comparison *c, int a, FILE *out) {
  for (int i = 0; i < c->contrast_count; i++) {
    const contrast *x = &c->contrasts[i];
    int64_t left_out = x->undefined_in_baseline + x->undefined_in_arm + x->undefined_in_both;
    if (x->arm != a || left_out + x->undefined_classes == 0) continue;
    fprintf(out, "%s of %s:", metric_heading(x->metric), x->class_name);
    if (left_out > 0)
      fprintf(out,
              " %" PRId64
              " of %d cases without a pair, as the metric is not defined in %s (%" PRId64
              "), %s (%" PRId64 ") or both (%" PRId64 ")",
              left_out, c->case_count, c->arms[0].name, x->undefined_in_baseline, c->arms[a].name,
              x->undefined_in_arm, x->undefined_in_both);
    if (x->undefined_classes > 0)
      fprintf(out, "%s left out of both means as not defined in both: %" PRId64 " (case, class)",
              left_out > 0 ? ";" : "", x->undefined_classes);
    fputs(".\n", out);
  }
}

static bool has_unknown(const comparison *c) {
  for (int i = 0; i < c->contrast_count; i++)
    if (c->contrasts[i].better == BETTER_UNKNOWN) return true;
  return false;
}

static void print_explanation(const comparison *c, FILE *out) {
  const compare_options *o = &c->options;
  fprintf(
      out,
      "Means ± standard deviation over cases; differences are arm − baseline.\n"
      "Interval of the mean difference: %s bootstrap, %" PRId64 " resamples, seed %" PRIu64 ".\n"
      "Wilcoxon: two-sided, pairs without a difference %s; r: rank-biserial; d: Cohen's d of the "
      "differences.\n"
      "Holm: over all %d comparisons%s.\n",
      o->bootstrap == BOOTSTRAP_BCA ? "BCa" : "percentile", o->resamples, o->seed,
      o->zeros == ZERO_PRATT ? "ranked first (Pratt)" : "left out", c->contrast_count,
      c->arm_count > 2 ? " of all arms" : "");
  if (has_unknown(c))
    fputs("A metric that Strata does not know counts as better when higher.\n", out);
}

static void print_list(const char *head, const char *const *list, int count, FILE *out) {
  if (count == 0) return;
  fprintf(out, "\n%s\n\n", head);
  for (int i = 0; i < count; i++) fprintf(out, "* %s\n", list[i]);
}

static void print_arm(const comparison *c, int a, bool markdown, FILE *out) {
  table_printer print = markdown ? table_markdown : table_print;
  fprintf(out, "%s%s against %s: %d cases\n\n", markdown ? "## " : "", c->arms[a].name,
          c->arms[0].name, c->case_count);
  print_table(main_table(c, a), print, out);
  fputc('\n', out);
  print_undefined(c, a, out);
  fprintf(out, "\n%sCases\n\n", markdown ? "### " : "");
  print_table(case_table(c, a), print, out);
  if (c->arms[0].run_count > 1 || c->arms[a].run_count > 1) {
    fprintf(out, "\n%sRuns: mean ± standard deviation of their means\n\n", markdown ? "### " : "");
    print_table(seed_table(c, a), print, out);
  }
  fputc('\n', out);
}

static void print_all(const comparison *c, bool markdown, FILE *out) {
  for (int a = 1; a < c->arm_count; a++) print_arm(c, a, markdown, out);
  print_explanation(c, out);
  print_list("Not compared:", c->left_out, c->left_out_count, out);
  print_list("Note:", c->notes, c->note_count, out);
}

void comparison_print(const comparison *c, FILE *out) {
  print_all(c, false, out);
}

void comparison_print_markdown(const comparison *c, FILE *out) {
  print_all(c, true, out);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

/* Twelve digits: more than the nine of evaluation.json carry. */
static void add_figure(table *t, const char *name, double value) {
  if (name)
    table_column(t, name, true);
  else if (isnan(value))
    table_cell(t, "%s", "");
  else
    table_cell(t, "%.12g", value);
}

/* With `heads` the columns, otherwise the cells: the two cannot get out of step. */
static void add_figures(table *t, bool heads, const contrast *x) {
  const struct {
    const char *name;
    double value;
  } figures[] = {
      {"pairs", (double)x->pairs},
      {"undefined_in_baseline", (double)x->undefined_in_baseline},
      {"undefined_in_arm", (double)x->undefined_in_arm},
      {"undefined_in_both", (double)x->undefined_in_both},
      {"undefined_classes", (double)x->undefined_classes},
      {"baseline_mean", x->baseline.mean},
      {"baseline_sd", x->baseline.deviation},
      {"baseline_median", x->baseline.median},
      {"arm_mean", x->other.mean},
      {"arm_sd", x->other.deviation},
      {"arm_median", x->other.median},
      {"difference_mean", x->difference.mean},
      {"difference_sd", x->difference.deviation},
      {"difference_median", x->difference.median},
      {"interval_low", x->interval.low},
      {"interval_high", x->interval.high},
      {"wilcoxon_plus", x->wilcoxon.plus},
      {"wilcoxon_minus", x->wilcoxon.minus},
      {"wilcoxon_p", x->wilcoxon.p},
      {"wilcoxon_p_holm", x->wilcoxon_holm},
      {"t", x->t.t},
      {"t_p", x->t.p},
      {"t_p_holm", x->t_holm},
      {"rank_biserial", x->wilcoxon.rank_biserial},
      {"cohen_dz", x->t.cohen_dz},
      {"better", (double)x->wins},
      {"worse", (double)x->losses},
      {"same", (double)x->ties},
      {"baseline_runs_sd", x->baseline_seeds.over.deviation},
      {"arm_runs_sd", x->other_seeds.over.deviation},
      {"brown_forsythe_p", x->brown_forsythe.p},
      {"variance_ratio", x->variance_ratio.statistic},
      {"variance_ratio_p", x->variance_ratio.p},
  };
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
    add_figure(t, heads ? figures[i].name : NULL, figures[i].value);
}

status comparison_write_csv(const comparison *c, const char *path) {
  atomic_file file;
  TRY(atomic_begin(path, &file));
  table t = {0};
  static const char *const names[] = {"baseline", "arm", "metric", "class"};
  for (int i = 0; i < 4; i++) table_column(&t, names[i], false);
  add_figures(&t, true, &(contrast){0});
  for (int i = 0; i < c->contrast_count; i++) {
    const contrast *x = &c->contrasts[i];
    table_cell(&t, "%s", c->arms[0].name);
    table_cell(&t, "%s", c->arms[x->arm].name);
    table_cell(&t, "%s", x->metric);
    table_cell(&t, "%s", x->class_name);
    add_figures(&t, false, x);
  }
  table_csv(&t, file.stream);
  table_free(&t);
  return atomic_commit(&file);
}
