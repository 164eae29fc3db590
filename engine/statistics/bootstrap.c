/* Bootstrap intervals of a mean. */
#include "base/text.h"
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DRAWS_LOG2 = 31 }; /* a tenth of what one stream has, and rng_below counts to 2^32 */

rng bootstrap_stream(uint64_t seed, const char *name) {
  return rng_open(rng_key_of(seed, "bootstrap", 0, name, 0), 0);
}

/* The mean of a resample is a sum over the values in their order, so resamples that drew the same
 * values have the same mean to the bit, whatever the order of the draws: ties with the sample's own
 * mean count in BCa. `times` has `count` entries. */
static double resampled_mean(const double *values, int64_t count, rng *stream, uint32_t *times) {
  memset(times, 0, (size_t)count * sizeof *times);
  for (int64_t i = 0; i < count; i++) times[rng_below(stream, (uint32_t)count)]++;
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += times[i] * values[i];
  return sum / (double)count;
}

static double mean_of(const double *values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += values[i];
  return sum / (double)count;
}

/* Efron's acceleration from the jackknife: the mean without value i is away from the mean of those
 * means by (mean − value) / (n − 1), so that only the skewness of the values is left. */
static double acceleration(const double *values, int64_t count) {
  double mean = mean_of(values, count), cubes = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) {
    double away = values[i] - mean;
    squares += away * away;
    cubes += away * away * away;
  }
  return cubes / (6 * squares * sqrt(squares));
}

/* Share of the distribution that BCa takes in place of the normal quantile z. */
static double adjusted_share(double bias, double a, double z) {
  return 1 - normal_above(bias + (bias + z) / (1 - a * (bias + z)));
}

static interval interval_of(const double *values, int64_t count, const double *means,
                            int64_t resamples, double confidence, bootstrap_method method) {
  double shares[2] = {(1 - confidence) / 2, (1 + confidence) / 2};
  interval out = {.method = BOOTSTRAP_PERCENTILE};
  if (method == BOOTSTRAP_BCA) {
    double mean = mean_of(values, count), a = acceleration(values, count);
    int64_t below = 0, equal = 0;
    for (int64_t b = 0; b < resamples; b++) {
      below += means[b] < mean;
      equal += means[b] == mean;
    }
    double bias = normal_quantile(((double)below + 0.5 * (double)equal) / (double)resamples);
    double z = normal_quantile(shares[0]);
    double low = adjusted_share(bias, a, z), high = adjusted_share(bias, a, -z);
    if (isfinite(bias) && isfinite(low) && isfinite(high)) {
      shares[0] = low;
      shares[1] = high;
      out.method = BOOTSTRAP_BCA;
    }
  }
  out.low = quantile_of_sorted(means, resamples, shares[0]);
  out.high = quantile_of_sorted(means, resamples, shares[1]);
  return out;
}

status bootstrap_mean(const double *values, int64_t count, int64_t resamples, double confidence,
                      bootstrap_method method, rng stream, interval *out) {
  *out = (interval){(double)NAN, (double)NAN, method};
  if (resamples < 1 || !(confidence > 0 && confidence < 1))
    return error_new(ERROR_USAGE, NOWHERE,
                     "a bootstrap interval needs at least one resample and a confidence between 0 "
                     "and 1");
  if (count < 2) return OK;
  if (resamples > (INT64_C(1) << MAX_DRAWS_LOG2) / count)
    return error_new(ERROR_USAGE, NOWHERE,
                     "%lld resamples of %lld values are more than the bootstrap's 2^%d draws; take "
                     "fewer resamples",
                     (long long)resamples, (long long)count, MAX_DRAWS_LOG2);
  bool same = true;
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(values[i])) return OK;
    same &= values[i] == values[0];
  }
  if (same) { /* sums of equal values would still differ in the last bit */
    *out = (interval){values[0], values[0], BOOTSTRAP_PERCENTILE};
    return OK;
  }
  double *means = malloc((size_t)resamples * sizeof *means);
  uint32_t *times = malloc((size_t)count * sizeof *times);
  status error = OK;
  if (means && times) {
    for (int64_t b = 0; b < resamples; b++)
      means[b] = resampled_mean(values, count, &stream, times);
    sort_numbers(means, resamples);
    *out = interval_of(values, count, means, resamples, confidence, method);
  } else {
    error = error_out_of_memory((size_t)resamples * sizeof *means);
  }
  free(means);
  free(times);
  return error;
}
