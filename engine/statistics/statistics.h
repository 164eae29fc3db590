/* Statistics of paired measurements: summaries, tests, intervals, effect sizes. Pure functions.
 *
 * Every list must be finite. A list that holds a NaN or an infinity is not an error: each figure that
 * would depend on it is NaN, so nothing is left out in silence. Leave undefined pairs out before, and
 * count them (compare.h does). A figure that a short or constant list does not define is NaN too.
 *
 * All p values are two-sided. Results equal SciPy's to 1e-9 (tests/golden/make_statistics.py). */
#ifndef STRATA_STATISTICS_STATISTICS_H
#define STRATA_STATISTICS_STATISTICS_H

#include "base/rng.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- summaries ----------------------------------------------------------------------------- */

/* Count, mean and sum of squared deviations, value by value (Welford 1962). Zero-initialise. */
typedef struct moments {
  int64_t count;
  double mean, squares;
} moments;

void moments_add(moments *m, double value);
/* NaN of nothing. */
double moments_mean(const moments *m);
/* Sample standard deviation (n − 1); NaN for fewer than two values. */
double moments_deviation(const moments *m);

typedef struct summary {
  int64_t count;
  double mean, deviation; /* deviation: sample (n − 1), NaN for n < 2 */
  double min, lower_quartile, median, upper_quartile, max;
} summary;

/* Quartiles interpolate linearly (type 7 of Hyndman and Fan 1996, NumPy's default). */
status summarize(const double *values, int64_t count, summary *out);
/* Quantile of values in ascending order, `share` in 0…1, interpolated as above. NaN of nothing. */
double quantile_of_sorted(const double *sorted, int64_t count, double share);
void sort_numbers(double *values, int64_t count);

/* ---- tests of paired differences ----------------------------------------------------------- */

typedef enum zero_method {
  ZERO_WILCOX, /* pairs without a difference are left out (Wilcoxon 1945); the default */
  ZERO_PRATT   /* they take part in the ranking, then their ranks are dropped (Pratt 1959) */
} zero_method;

typedef enum p_method {
  P_AUTO,  /* exact up to WILCOXON_EXACT_MAX pairs that differ, else normal */
  P_EXACT, /* asking for it beyond that is an error */
  P_NORMAL /* normal approximation, tie and continuity corrected */
} p_method;

/* Work and memory of the exact distribution grow with the cube and the square of the pairs. */
enum { WILCOXON_EXACT_MAX = 200 };

typedef struct wilcoxon_result {
  int64_t pairs, zeros;
  double plus, minus;   /* sums of the ranks of positive and of negative differences */
  double p;             /* NaN: no pair differs */
  double z;             /* of the normal approximation; NaN when the p value is exact */
  bool exact;           /* p is from the exact permutation distribution */
  double rank_biserial; /* (plus − minus) / (plus + minus), −1…1 (Kerby 2014) */
} wilcoxon_result;

/* Wilcoxon's signed-rank test of differences being symmetric around 0. Ties share their mean rank.
 *
 * The exact p value is that of the permutation distribution given the ranks as they are, ties and
 * dropped zeros included: every difference may have either sign, all 2^n equally likely. Without
 * ties it is the tabulated one (SciPy's method="exact"); with ties it is what enumerating all signs
 * gives (SciPy's PermutationMethod), which tables do not. The normal approximation corrects the
 * variance for ties and, with ZERO_PRATT, for zeros (Cureton 1967), and the statistic by 1/2 for
 * continuity (SciPy's method="asymptotic", correction=True). */
status wilcoxon_signed_rank(const double *differences, int64_t count, zero_method zeros,
                            p_method method, wilcoxon_result *out);

typedef struct t_result {
  double t, p;
  int64_t freedom; /* degrees of freedom, n − 1 */
  double cohen_dz; /* mean / standard deviation of the differences (Cohen 1988) */
} t_result;

/* Student's t test of the mean difference being 0. With equal differences that are not 0, t is
 * infinite and p is 0; with all 0, both are NaN. */
t_result paired_t(const double *differences, int64_t count);

/* Holm's step-down adjustment (1979): whoever rejects where adjusted ≤ α errs in any of the
 * comparisons with probability α at most. NaN entries are no comparison: they stay NaN and do not
 * count. `p` and `adjusted` may be the same array. */
status holm_adjust(const double *p, int64_t count, double *adjusted);

/* ---- bootstrap ----------------------------------------------------------------------------- */

typedef enum bootstrap_method {
  BOOTSTRAP_BCA, /* bias-corrected and accelerated (Efron 1987) */
  BOOTSTRAP_PERCENTILE
} bootstrap_method;

typedef struct interval {
  double low, high;
  bootstrap_method method; /* the percentile one where BCa is not defined */
} interval;

/* Interval of the mean that holds `confidence` (0…1) of the bootstrap distribution: `resamples`
 * (≥ 1) lists of `count` values, drawn with replacement by `stream`, in order, one rng_below a
 * value. Fewer than two values have no interval; equal ones have one without width. More than 2^31
 * draws are an error. */
status bootstrap_mean(const double *values, int64_t count, int64_t resamples, double confidence,
                      bootstrap_method method, rng stream, interval *out);
/* The stream of a comparison: named by the seed and by what is compared. */
rng bootstrap_stream(uint64_t seed, const char *name);

/* ---- spread -------------------------------------------------------------------------------- */

typedef struct number_list {
  const double *values;
  int64_t count;
} number_list;

typedef struct variance_result {
  double statistic, p;
  double freedom[2];
} variance_result;

typedef enum levene_center {
  CENTER_MEDIAN, /* Brown and Forsythe 1974: robust where values are not normal */
  CENTER_MEAN    /* Levene 1960 */
} levene_center;

/* Are the variances of two or more groups equal? An F test of |value − centre of its group|. Groups
 * need three values each: two always lie equally far from their centre. */
status levene_test(const number_list *groups, int group_count, levene_center center,
                   variance_result *out);
/* F = variance of a / variance of b, for normal values; two values each at least. */
variance_result variance_ratio_test(number_list a, number_list b);

/* ---- distributions ------------------------------------------------------------------------- */

double normal_above(double z);                    /* P(Z > z) */
double normal_quantile(double p);                 /* z with P(Z ≤ z) = p; ±infinity at 0 and 1 */
double student_outside(double t, double freedom); /* P(|T| > |t|) */
double f_above(double f, double freedom_1, double freedom_2);
/* Regularized incomplete beta function I_x(a, b); `y` is 1 − x, given apart so that an x near 1
 * keeps its digits. a, b > 0. */
double beta_regularized(double a, double b, double x, double y);

#endif
