/* Wilcoxon's signed-rank test. */
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>

typedef struct ranked {
  double magnitude;
  int sign;      /* −1, 0, 1 */
  int64_t twice; /* twice the rank: mean ranks are whole or half */
} ranked;

static int by_magnitude(const void *a, const void *b) {
  double x = ((const ranked *)a)->magnitude, y = ((const ranked *)b)->magnitude;
  return (x > y) - (x < y);
}

/* Mean ranks from 1, ties sharing theirs; returns Σ (t³ − t) over the ties of magnitudes above 0. */
static double rank_all(ranked *list, int64_t count) {
  double ties = 0;
  for (int64_t start = 0, end; start < count; start = end) {
    for (end = start + 1; end < count && list[end].magnitude == list[start].magnitude;) end++;
    for (int64_t i = start; i < end; i++) list[i].twice = start + 1 + end;
    double t = (double)(end - start);
    if (list[start].magnitude > 0) ties += t * t * t - t;
  }
  return ties;
}

/* P(sum of the ranks with a positive sign ≤ the smaller of the two sums), twice, every sign being a
 * fair coin. Element s of the distribution is P(twice the sum = s); what lies above the wanted sum
 * never comes back below it, so it is not kept. */
static status exact_p(const ranked *list, int64_t count, int64_t smaller_twice, double *p) {
  size_t bytes = (size_t)(smaller_twice + 1) * sizeof(double);
  double *probability = calloc(1, bytes);
  if (!probability) return error_out_of_memory(bytes);
  probability[0] = 1;
  for (int64_t i = 0; i < count; i++) {
    int64_t rank = list[i].twice;
    for (int64_t s = smaller_twice; s >= 0; s--)
      probability[s] = 0.5 * (probability[s] + (s >= rank ? probability[s - rank] : 0));
  }
  double below = 0;
  for (int64_t s = 0; s <= smaller_twice; s++) below += probability[s];
  *p = fmin(1, 2 * below);
  free(probability);
  return OK;
}

/* `n` counts the ranked pairs and `zeros` those of them without a difference. */
static void normal_p(int64_t n, int64_t zeros, double ties, wilcoxon_result *out) {
  double a = (double)n, b = (double)zeros;
  double mean = (a * (a + 1) - b * (b + 1)) / 4;
  double variance = (a * (a + 1) * (2 * a + 1) - b * (b + 1) * (2 * b + 1) - ties / 2) / 24;
  double away = out->plus - mean;
  double correction = away > 0 ? 0.5 : away < 0 ? -0.5 : 0;
  out->z = (away - correction) / sqrt(variance);
  out->p = fmin(1, 2 * normal_above(fabs(out->z)));
}

status wilcoxon_signed_rank(const double *differences, int64_t count, zero_method zeros,
                            p_method method, wilcoxon_result *out) {
  const double nan = (double)NAN;
  *out = (wilcoxon_result){
      .pairs = count, .plus = nan, .minus = nan, .p = nan, .z = nan, .rank_biserial = nan};
  if (count < 1) return OK;
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(differences[i])) return OK;
    out->zeros += differences[i] == 0;
  }
  int64_t differ = count - out->zeros, ranked_zeros = zeros == ZERO_PRATT ? out->zeros : 0;
  if (method == P_EXACT && differ > WILCOXON_EXACT_MAX)
    return error_new(ERROR_USAGE, NOWHERE,
                     "the exact Wilcoxon test is for %d pairs at most, and %lld differ",
                     WILCOXON_EXACT_MAX, (long long)differ);
  out->plus = out->minus = 0;
  if (differ == 0) return OK;
  int64_t n = differ + ranked_zeros, kept = 0;
  ranked *list = malloc((size_t)n * sizeof *list);
  if (!list) return error_out_of_memory((size_t)n * sizeof *list);
  for (int64_t i = 0; i < count; i++) {
    double d = differences[i];
    if (d != 0 || zeros == ZERO_PRATT)
      list[kept++] = (ranked){.magnitude = fabs(d), .sign = (d > 0) - (d < 0)};
  }
  qsort(list, (size_t)n, sizeof *list, by_magnitude);
  double ties = rank_all(list, n);
  int64_t plus_twice = 0, minus_twice = 0;
  for (int64_t i = ranked_zeros; i < n; i++) { /* zeros come first */
    if (list[i].sign > 0) plus_twice += list[i].twice;
    if (list[i].sign < 0) minus_twice += list[i].twice;
  }
  out->plus = 0.5 * (double)plus_twice;
  out->minus = 0.5 * (double)minus_twice;
  out->rank_biserial = (out->plus - out->minus) / (out->plus + out->minus);
  out->exact = method == P_EXACT || (method == P_AUTO && differ <= WILCOXON_EXACT_MAX);
  status error = OK;
  if (out->exact)
    error = exact_p(list + ranked_zeros, differ,
                    plus_twice < minus_twice ? plus_twice : minus_twice, &out->p);
  else
    normal_p(n, ranked_zeros, ties, out);
  free(list);
  return error;
}
