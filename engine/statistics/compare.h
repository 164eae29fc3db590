/* Arms of an experiment against a baseline, case by case. */
#ifndef STRATA_STATISTICS_COMPARE_H
#define STRATA_STATISTICS_COMPARE_H

#include "evaluate/metric.h"
#include "statistics/results.h"
#include "statistics/statistics.h"

/* One treatment, trained once or with several seeds. */
typedef struct arm {
  const char *name;
  const results *runs; /* borrowed, as is the name */
  int run_count;       /* ≥ 1 */
} arm;

typedef struct compare_options {
  bool common;                /* compare the cases and classes that all have, if some have more */
  const char *const *metrics; /* names or keys; NULL: all that every run has */
  int metric_count;
  const char *const *classes; /* names, COMPARE_MEAN among them; NULL: each class and the mean */
  int class_count;
  zero_method zeros;
  bootstrap_method bootstrap;
  int64_t resamples; /* 0: 10000 */
  double confidence; /* 0: 0.95 */
  uint64_t seed;     /* of the bootstrap */
} compare_options;

/* In place of a class: the mean over the classes of a case. */
#define COMPARE_MEAN "mean"

typedef struct case_difference {
  const char *name; /* NULL: there is no pair */
  double baseline, other, difference;
} case_difference;

/* Mean of each run of an arm, over the pairs: how much a result depends on the seed. */
typedef struct seed_spread {
  double *means; /* [run] */
  summary over;
} seed_spread;

/* One metric of one class in one arm against the baseline. Differences are arm − baseline. */
typedef struct contrast {
  const char *metric, *class_name;
  better better;
  int arm; /* index of the arm that is not the baseline */
  /* Pairs are the cases with a value in every run of both. The others are left out and counted. */
  int64_t pairs, undefined_in_baseline, undefined_in_arm, undefined_in_both;
  int64_t undefined_classes; /* of the mean: class values left out of the cases that are pairs */
  summary baseline, other, difference;
  interval interval; /* of the mean difference */
  wilcoxon_result wilcoxon;
  t_result t;
  double wilcoxon_holm, t_holm; /* p values adjusted over all contrasts of the comparison */
  int64_t wins, losses, ties;   /* of the arm: better is as the metric says, unknown: higher */
  case_difference best, worst;  /* the largest gain and the largest loss (or smallest gain) */
  seed_spread baseline_seeds, other_seeds;
  variance_result brown_forsythe, variance_ratio; /* of the seeds' means; NaN with too few */
} contrast;

typedef struct comparison {
  arena memory; /* of everything below */
  const arm *arms;
  int arm_count;
  compare_options options; /* with the defaults filled in */
  const char **cases;      /* compared, sorted */
  int case_count;
  const char **left_out; /* sentences: what is not in every run and therefore not compared */
  int left_out_count;
  const char **notes; /* sentences: what a reader must know, such as differing data sets */
  int note_count;
  contrast *contrasts; /* by arm, metric, class; the mean last */
  int contrast_count;
} comparison;

/* Compares every arm with the first.
 *
 * A case's value in an arm is the mean over its runs, and undefined if it is in any of them. Means
 * over classes take the classes that are defined in every run of both arms, so that both are means
 * of the same things. Differences of which the digits in evaluation.json cannot tell that they
 * differ are ties: they are rounded to the eighth digit of the largest value, for the ranks, the
 * wins and the losses. Bootstrap streams are named by seed, metric and class.
 *
 * Cases or classes that are not in every run are an error that lists them, unless `common`; metrics
 * that only some have are noted; a metric with differing definitions is an error. The arms must
 * outlive the comparison. `out` is to be freed only after success. */
status compare_arms(const arm *arms, int arm_count, const compare_options *options,
                    comparison *out);
void comparison_free(comparison *c);

/* What is better, of a metric's key; BETTER_UNKNOWN for a custom one. */
better metric_better(const char *key);

/* ---- what people read (compare_text.c, compare_json.c) -------------------------------------- */

/* Tables and what is to be known about them. */
void comparison_print(const comparison *c, FILE *out);
void comparison_print_markdown(const comparison *c, FILE *out);
/* A row for each contrast, with more digits than the tables; NaN is empty. Atomic. */
status comparison_write_csv(const comparison *c, const char *path);
/* NaN is null. Atomic. */
status comparison_write_json(const comparison *c, const char *path);

#endif
