/* Means, deviations, quantiles. */
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void moments_add(moments *m, double value) {
  double from_mean = value - m->mean;
  m->count++;
  m->mean += from_mean / (double)m->count;
  m->squares += from_mean * (value - m->mean);
}

double moments_mean(const moments *m) {
  return m->count > 0 ? m->mean : (double)NAN;
}

double moments_deviation(const moments *m) {
  return m->count > 1 ? sqrt(m->squares / (double)(m->count - 1)) : (double)NAN;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void sort_numbers(double *values, int64_t count) {
  if (count > 1) qsort(values, (size_t)count, sizeof *values, by_value);
}

double quantile_of_sorted(const double *sorted, int64_t count, double share) {
  if (count < 1) return (double)NAN;
  double rank = share * (double)(count - 1);
  int64_t below = (int64_t)rank, above = below + 1 < count ? below + 1 : below;
  return sorted[below] + (rank - (double)below) * (sorted[above] - sorted[below]);
}

status summarize(const double *values, int64_t count, summary *out) {
  const double nan = (double)NAN;
  moments all = {0};
  for (int64_t i = 0; i < count; i++) moments_add(&all, values[i]);
  *out = (summary){count, nan, nan, nan, nan, nan, nan, nan};
  if (count < 1 || !isfinite(all.mean)) return OK;
  double *sorted = malloc((size_t)count * sizeof *sorted);
  if (!sorted) return error_out_of_memory((size_t)count * sizeof *sorted);
  memcpy(sorted, values, (size_t)count * sizeof *sorted);
  sort_numbers(sorted, count);
  *out = (summary){.count = count,
                   .mean = all.mean,
                   .deviation = moments_deviation(&all),
                   .min = sorted[0],
                   .lower_quartile = quantile_of_sorted(sorted, count, 0.25),
                   .median = quantile_of_sorted(sorted, count, 0.5),
                   .upper_quartile = quantile_of_sorted(sorted, count, 0.75),
                   .max = sorted[count - 1]};
  free(sorted);
  return OK;
}
