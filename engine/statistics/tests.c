/* Paired t, Holm's adjustment, comparisons of variances. */
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>

static moments moments_of(number_list list) {
  moments all = {0};
  for (int64_t i = 0; i < list.count; i++) moments_add(&all, list.values[i]);
  return all;
}

t_result paired_t(const double *differences, int64_t count) {
  const double nan = (double)NAN;
  t_result out = {.t = nan, .p = nan, .cohen_dz = nan};
  moments all = moments_of((number_list){differences, count});
  if (count < 2 || !isfinite(all.mean)) return out;
  double deviation = moments_deviation(&all);
  out.freedom = count - 1;
  out.cohen_dz = all.mean / deviation; /* ±infinity, or NaN for 0 / 0 */
  out.t = out.cohen_dz * sqrt((double)count);
  out.p = student_outside(out.t, (double)out.freedom);
  return out;
}

typedef struct placed {
  double p;
  int64_t at;
} placed;

static int by_p(const void *a, const void *b) {
  double x = ((const placed *)a)->p, y = ((const placed *)b)->p;
  return (x > y) - (x < y);
}

status holm_adjust(const double *p, int64_t count, double *adjusted) {
  if (count < 1) return OK;
  placed *list = malloc((size_t)count * sizeof *list);
  if (!list) return error_out_of_memory((size_t)count * sizeof *list);
  int64_t compared = 0;
  for (int64_t i = 0; i < count; i++) {
    if (isnan(p[i]))
      adjusted[i] = p[i];
    else
      list[compared++] = (placed){p[i], i};
  }
  qsort(list, (size_t)compared, sizeof *list, by_p);
  double so_far = 0;
  for (int64_t k = 0; k < compared; k++) {
    so_far = fmax(so_far, fmin(1, (double)(compared - k) * list[k].p));
    adjusted[list[k].at] = so_far;
  }
  free(list);
  return OK;
}

static status center_of(number_list group, levene_center center, double *out) {
  if (center == CENTER_MEAN) {
    moments all = moments_of(group);
    *out = moments_mean(&all);
    return OK;
  }
  summary all;
  TRY(summarize(group.values, group.count, &all));
  *out = all.median;
  return OK;
}

status levene_test(const number_list *groups, int group_count, levene_center center,
                   variance_result *out) {
  *out = (variance_result){(double)NAN, (double)NAN, {(double)NAN, (double)NAN}};
  if (group_count < 2) return OK;
  for (int g = 0; g < group_count; g++)
    if (groups[g].count < 3) return OK;
  moments all = {0}, *of_group = calloc((size_t)group_count, sizeof *of_group);
  if (!of_group) return error_out_of_memory((size_t)group_count * sizeof *of_group);
  status error = OK;
  for (int g = 0; g < group_count && !error; g++) {
    double middle;
    error = center_of(groups[g], center, &middle);
    for (int64_t i = 0; i < groups[g].count && !error; i++) {
      moments_add(&of_group[g], fabs(groups[g].values[i] - middle));
      moments_add(&all, fabs(groups[g].values[i] - middle));
    }
  }
  double between = 0, within = 0;
  for (int g = 0; g < group_count; g++) {
    double away = of_group[g].mean - all.mean;
    between += (double)of_group[g].count * away * away;
    within += of_group[g].squares;
  }
  free(of_group);
  TRY(error);
  out->freedom[0] = group_count - 1;
  out->freedom[1] = (double)(all.count - group_count);
  out->statistic = between / out->freedom[0] / (within / out->freedom[1]);
  out->p = f_above(out->statistic, out->freedom[0], out->freedom[1]);
  return OK;
}

variance_result variance_ratio_test(number_list a, number_list b) {
  variance_result out = {(double)NAN, (double)NAN, {(double)NAN, (double)NAN}};
  moments of_a = moments_of(a), of_b = moments_of(b);
  if (a.count < 2 || b.count < 2) return out;
  double deviation = moments_deviation(&of_a) / moments_deviation(&of_b);
  out.freedom[0] = (double)(a.count - 1);
  out.freedom[1] = (double)(b.count - 1);
  out.statistic = deviation * deviation;
  double above = f_above(out.statistic, out.freedom[0], out.freedom[1]);
  double below = f_above(1 / out.statistic, out.freedom[1], out.freedom[0]);
  out.p = fmin(1, 2 * fmin(above, below));
  if (isnan(out.statistic)) out.p = (double)NAN; /* fmin drops it */
  return out;
}
