/* Tests, intervals and distributions, against SciPy (tests/golden/make_statistics.py). */
#include "statistics/statistics.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double nan_value = (double)NAN, infinity = (double)INFINITY;
static json_t *fixture;

static int load_fixture(void **state) {
  (void)state;
  fixture = json_load_file(TEST_DATA "/golden/statistics/statistics.json", 0, NULL);
  return fixture ? 0 : -1;
}

static int free_fixture(void **state) {
  (void)state;
  json_decref(fixture);
  return 0;
}

static void assert_ok(status error) {
  if (error) fail_msg("%s", error_message(error));
}

/* null is NaN; infinities are texts. */
static double number_of(const json_t *value) {
  const char *text = json_string_value(value);
  if (text) return text[0] == '-' ? -infinity : infinity;
  return json_is_number(value) ? json_number_value(value) : nan_value;
}

static double number_in(const json_t *object, const char *key) {
  assert_non_null(json_object_get(object, key));
  return number_of(json_object_get(object, key));
}

static double number_at(const json_t *array, size_t i) {
  assert_non_null(json_array_get(array, i));
  return number_of(json_array_get(array, i));
}

/* Relative 1e-9, however small the number. */
static void assert_near(double got, double wanted, const char *what, const char *of) {
  bool near = isnan(wanted)   ? isnan(got)
              : isinf(wanted) ? got == wanted
                              : fabs(got - wanted) <= 1e-9 * fabs(wanted) + 1e-300;
  if (!near) fail_msg("%s of %s is %.17g, not %.17g", what, of, got, wanted);
}

/* Near 0 by cancellation, so no relative figure holds: 1e-12 of the values' size. */
static void assert_near_zero_too(double got, double wanted, const char *what, const char *of) {
  if (fabs(got - wanted) > 1e-12) assert_near(got, wanted, what, of);
}

static double *read_numbers(const json_t *array, int64_t *count) {
  assert_true(json_is_array(array));
  *count = (int64_t)json_array_size(array);
  double *values = malloc(((size_t)*count + 1) * sizeof *values);
  for (int64_t i = 0; i < *count; i++) values[i] = number_at(array, (size_t)i);
  return values;
}

static void check_wilcoxon(const json_t *wanted, const double *d, int64_t count, zero_method zeros,
                           const char *name) {
  wilcoxon_result r;
  assert_ok(wilcoxon_signed_rank(d, count, zeros, P_NORMAL, &r));
  assert_near(r.p, number_in(wanted, "p_normal"), "normal p", name);
  assert_near_zero_too(-fabs(r.z), number_in(wanted, "z"), "z", name);
  assert_false(r.exact);
  if (json_object_get(wanted, "plus")) {
    assert_near(r.plus, number_in(wanted, "plus"), "plus", name);
    assert_near(r.minus, number_in(wanted, "minus"), "minus", name);
    assert_near((r.plus - r.minus) / (r.plus + r.minus), r.rank_biserial, "rank-biserial", name);
  } else {
    assert_true(isnan(r.rank_biserial));
  }
  const json_t *exact = json_object_get(wanted, "p_exact");
  status error = wilcoxon_signed_rank(d, count, zeros, P_EXACT, &r);
  if (exact) {
    assert_ok(error);
    assert_near(r.p, number_of(exact), "exact p", name);
  } else { /* too many */
    assert_int_equal(error_code_of(error), ERROR_USAGE);
    error_free(error);
  }
  wilcoxon_result automatic;
  assert_ok(wilcoxon_signed_rank(d, count, zeros, P_AUTO, &automatic));
  assert_near(automatic.p, exact ? number_of(exact) : number_in(wanted, "p_normal"), "p", name);
}

static void wilcoxon_equals_scipy_with_ties_and_zeros(void **state) {
  (void)state;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(fixture, "lists"), i, entry) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    int64_t count;
    double *d = read_numbers(json_object_get(entry, "differences"), &count);
    check_wilcoxon(json_object_get(entry, "wilcox"), d, count, ZERO_WILCOX, name);
    check_wilcoxon(json_object_get(entry, "pratt"), d, count, ZERO_PRATT, name);
    free(d);
  }
  assert_true(i > 20);
}

static void summaries_and_t_equal_scipy(void **state) {
  (void)state;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(fixture, "lists"), i, entry) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    int64_t count;
    double *d = read_numbers(json_object_get(entry, "differences"), &count);
    summary s;
    assert_ok(summarize(d, count, &s));
    assert_near_zero_too(s.mean, number_in(entry, "mean"), "mean", name);
    assert_near(s.deviation, number_in(entry, "deviation"), "deviation", name);
    const json_t *quartiles = json_object_get(entry, "quartiles");
    const double got[] = {s.min, s.lower_quartile, s.median, s.upper_quartile, s.max};
    for (size_t k = 0; k < 5; k++) assert_near(got[k], number_at(quartiles, k), "quartile", name);
    t_result t = paired_t(d, count);
    assert_near_zero_too(t.t, number_in(entry, "t"), "t", name);
    assert_near(t.p, number_in(entry, "t_p"), "p of t", name);
    assert_near_zero_too(t.cohen_dz, number_in(entry, "cohen_dz"), "Cohen's d", name);
    free(d);
  }
}

static rng read_stream(const json_t *entry) {
  rng r = {.used = 4};
  for (size_t k = 0; k < 2; k++) r.key[k] = (uint32_t)number_at(json_object_get(entry, "key"), k);
  for (size_t k = 0; k < 4; k++)
    r.counter[k] = (uint32_t)number_at(json_object_get(entry, "counter"), k);
  return r;
}

static void bootstrap_equals_scipy_on_the_same_draws(void **state) {
  (void)state;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(fixture, "bootstraps"), i, entry) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    int64_t count, resamples = (int64_t)number_in(entry, "resamples");
    double *values = read_numbers(json_object_get(entry, "values"), &count);
    double confidence = number_in(entry, "confidence");
    static const char *const keys[] = {
        [BOOTSTRAP_BCA] = "bca", [BOOTSTRAP_PERCENTILE] = "percentile"};
    for (int method = BOOTSTRAP_BCA; method <= BOOTSTRAP_PERCENTILE; method++) {
      interval got;
      assert_ok(bootstrap_mean(values, count, resamples, confidence, (bootstrap_method)method,
                               read_stream(entry), &got));
      const json_t *wanted = json_object_get(entry, keys[method]);
      assert_near_zero_too(got.low, number_at(wanted, 0), keys[method], name);
      assert_near_zero_too(got.high, number_at(wanted, 1), keys[method], name);
      assert_int_equal(got.method, method);
    }
    free(values);
  }
  assert_true(i > 4);
}

static void bootstrap_is_named_by_seed_and_comparison(void **state) {
  (void)state;
  const double values[] = {0.1, 0.4, -0.2, 0.3, 0.25, 0.05, 0.7};
  interval one, same, seed, name;
  assert_ok(bootstrap_mean(values, 7, 500, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, "a"), &one));
  assert_ok(bootstrap_mean(values, 7, 500, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, "a"), &same));
  assert_ok(bootstrap_mean(values, 7, 500, 0.95, BOOTSTRAP_BCA, bootstrap_stream(2, "a"), &seed));
  assert_ok(bootstrap_mean(values, 7, 500, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, "b"), &name));
  assert_memory_equal(&one.low, &same.low, sizeof one.low);
  assert_memory_equal(&one.high, &same.high, sizeof one.high);
  assert_true(one.low != seed.low || one.high != seed.high);
  assert_true(one.low != name.low || one.high != name.high);
}

static void bootstrap_has_no_interval_of_too_little(void **state) {
  (void)state;
  const double values[] = {0.1, 0.1, 0.1}, undefined[] = {0.1, nan_value, 0.3};
  interval got;
  for (int64_t count = 0; count < 2; count++) {
    assert_ok(
        bootstrap_mean(values, count, 100, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, ""), &got));
    assert_true(isnan(got.low) && isnan(got.high));
  }
  assert_ok(bootstrap_mean(values, 3, 100, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, ""), &got));
  assert_true(got.low == 0.1 && got.high == 0.1);
  assert_int_equal(got.method, BOOTSTRAP_PERCENTILE); /* BCa is 0 / 0 here */
  assert_ok(bootstrap_mean(undefined, 3, 100, 0.95, BOOTSTRAP_BCA, bootstrap_stream(1, ""), &got));
  assert_true(isnan(got.low) && isnan(got.high));
  status error = bootstrap_mean(values, 3, INT64_C(1) << 40, 0.95, BOOTSTRAP_BCA,
                                bootstrap_stream(1, ""), &got);
  assert_int_equal(error_code_of(error), ERROR_USAGE);
  error_free(error);
  error = bootstrap_mean(values, 3, 100, 1, BOOTSTRAP_BCA, bootstrap_stream(1, ""), &got);
  assert_int_equal(error_code_of(error), ERROR_USAGE);
  error_free(error);
}

static void holm_equals_statsmodels_and_leaves_nan_out(void **state) {
  (void)state;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(fixture, "holm"), i, entry) {
    int64_t count;
    double *p = read_numbers(json_object_get(entry, "p"), &count);
    assert_ok(holm_adjust(p, count, p)); /* in place */
    for (int64_t k = 0; k < count; k++)
      assert_near(p[k], number_at(json_object_get(entry, "adjusted"), (size_t)k), "Holm's p", "");
    free(p);
  }
  assert_true(i > 5);
  assert_ok(holm_adjust(NULL, 0, NULL));
}

static void variances_equal_scipy(void **state) {
  (void)state;
  size_t i;
  json_t *entry;
  json_array_foreach(json_object_get(fixture, "variances"), i, entry) {
    const json_t *wanted = json_object_get(entry, "groups");
    number_list groups[3];
    double *values[3];
    int count = (int)json_array_size(wanted);
    for (int g = 0; g < count; g++) {
      values[g] = read_numbers(json_array_get(wanted, (size_t)g), &groups[g].count);
      groups[g].values = values[g];
    }
    variance_result r;
    assert_ok(levene_test(groups, count, CENTER_MEDIAN, &r));
    assert_near(r.statistic, number_at(json_object_get(entry, "median"), 0), "Brown–Forsythe", "");
    assert_near(r.p, number_at(json_object_get(entry, "median"), 1), "p of Brown–Forsythe", "");
    assert_ok(levene_test(groups, count, CENTER_MEAN, &r));
    assert_near(r.statistic, number_at(json_object_get(entry, "mean"), 0), "Levene", "");
    assert_near(r.p, number_at(json_object_get(entry, "mean"), 1), "p of Levene", "");
    r = variance_ratio_test(groups[0], groups[1]);
    assert_near(r.statistic, number_at(json_object_get(entry, "ratio"), 0), "F", "");
    assert_near(r.p, number_at(json_object_get(entry, "ratio"), 1), "p of F", "");
    for (int g = 0; g < count; g++) free(values[g]);
  }
  assert_true(i > 3);
}

static void variances_of_too_few_values_are_not_compared(void **state) {
  (void)state;
  const double two[] = {1, 2}, three[] = {1, 2, 4}, alike[] = {3, 3, 3},
               undefined[] = {1, nan_value, 2};
  variance_result r;
  assert_ok(levene_test((number_list[]){{two, 2}, {three, 3}}, 2, CENTER_MEDIAN, &r));
  assert_true(isnan(r.statistic) && isnan(r.p));
  assert_ok(levene_test((number_list[]){{alike, 3}, {alike, 3}}, 2, CENTER_MEDIAN, &r));
  assert_true(isnan(r.p)); /* 0 / 0 */
  assert_ok(levene_test((number_list[]){{three, 3}, {undefined, 3}}, 2, CENTER_MEDIAN, &r));
  assert_true(isnan(r.p));
  assert_true(isnan(variance_ratio_test((number_list){two, 1}, (number_list){three, 3}).p));
  assert_true(isnan(variance_ratio_test((number_list){alike, 3}, (number_list){alike, 3}).p));
  r = variance_ratio_test((number_list){three, 3}, (number_list){alike, 3});
  assert_true(isinf(r.statistic) && r.p == 0);
}

static void a_nan_makes_every_figure_nan(void **state) {
  (void)state;
  double d[] = {0.2, -0.1, nan_value, 0.4};
  for (int k = 0; k < 2; k++) {
    wilcoxon_result w;
    assert_ok(wilcoxon_signed_rank(d, 4, ZERO_WILCOX, P_AUTO, &w));
    assert_true(isnan(w.p) && isnan(w.plus) && isnan(w.rank_biserial));
    t_result t = paired_t(d, 4);
    assert_true(isnan(t.p) && isnan(t.t) && isnan(t.cohen_dz));
    summary s;
    assert_ok(summarize(d, 4, &s));
    assert_true(isnan(s.mean) && isnan(s.median) && isnan(s.max));
    d[2] = infinity;
  }
}

static void distributions_equal_scipy(void **state) {
  (void)state;
  const json_t *all = json_object_get(fixture, "distributions");
  size_t i;
  json_t *row;
  json_array_foreach(json_object_get(all, "normal_above"), i, row)
      assert_near(normal_above(number_at(row, 0)), number_at(row, 1), "P(Z > z)", "normal");
  json_array_foreach(json_object_get(all, "normal_quantile"), i, row) assert_near_zero_too(
      normal_quantile(number_at(row, 0)), number_at(row, 1), "quantile", "normal");
  json_array_foreach(json_object_get(all, "student_outside"), i, row) {
    char of[64];
    snprintf(of, sizeof of, "t %g, %g degrees of freedom", number_at(row, 0), number_at(row, 1));
    assert_near(student_outside(number_at(row, 0), number_at(row, 1)), number_at(row, 2), "p", of);
  }
  assert_true(i > 90);
  json_array_foreach(json_object_get(all, "f_above"), i, row) {
    char of[64];
    snprintf(of, sizeof of, "F %g (%g, %g)", number_at(row, 0), number_at(row, 1),
             number_at(row, 2));
    assert_near(f_above(number_at(row, 0), number_at(row, 1), number_at(row, 2)), number_at(row, 3),
                "p", of);
  }
  assert_true(i > 60);
}

static void the_incomplete_beta_function_keeps_its_symmetry(void **state) {
  (void)state;
  for (int i = 1; i < 40; i++)
    for (int k = 1; k < 40; k++) {
      double a = 0.35 * i * i, b = 0.2 * k * k * k, x = a / (a + b);
      assert_near(beta_regularized(a, b, x, 1 - x) + beta_regularized(b, a, 1 - x, x), 1, "sum",
                  "I and its complement");
      /* I_x(a, 1) = x^a */
      assert_near(beta_regularized(a, 1, x, 1 - x), pow(x, a), "I_x(a, 1)", "beta");
    }
  assert_true(isnan(beta_regularized(0, 1, 0.5, 0.5)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wilcoxon_equals_scipy_with_ties_and_zeros),
      cmocka_unit_test(summaries_and_t_equal_scipy),
      cmocka_unit_test(bootstrap_equals_scipy_on_the_same_draws),
      cmocka_unit_test(bootstrap_is_named_by_seed_and_comparison),
      cmocka_unit_test(bootstrap_has_no_interval_of_too_little),
      cmocka_unit_test(holm_equals_statsmodels_and_leaves_nan_out),
      cmocka_unit_test(variances_equal_scipy),
      cmocka_unit_test(variances_of_too_few_values_are_not_compared),
      cmocka_unit_test(a_nan_makes_every_figure_nan),
      cmocka_unit_test(distributions_equal_scipy),
      cmocka_unit_test(the_incomplete_beta_function_keeps_its_symmetry),
  };
  return cmocka_run_group_tests(tests, load_fixture, free_fixture);
}
