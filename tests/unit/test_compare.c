/* Evaluations read back and compared, against SciPy (tests/golden/make_statistics.py). */
#include "data_folder.h"

#include "statistics/compare.h"

#include <jansson.h>
#include <sys/stat.h>

#define GOLDEN TEST_DATA "/golden/statistics/"

/* The error says all of the texts. */
static void assert_says(status error, const char *const *texts) {
  if (!error) fail_msg("there is no error, which should say: %s", texts[0]);
  for (int i = 0; texts[i]; i++)
    if (!strstr(error_message(error), texts[i]))
      fail_msg("\"%s\" does not say \"%s\"", error_message(error), texts[i]);
  error_free(error);
}
#define SAYS(error, ...) assert_says((error), (const char *const[]){__VA_ARGS__, NULL})

static const char *write_file(const char *name, const char *text) {
  const char *path = inside(name);
  write_text(path, text);
  return path;
}

/* An evaluation with one metric of one class. */
static const char *write_dice(const char *name, const char *const *cases, const double *dice,
                              int count) {
  json_t *list = json_array();
  for (int i = 0; i < count; i++)
    json_array_append_new(list, json_pack("{s:s, s:{s:o}}", "name", cases[i], "dice", "liver",
                                          isnan(dice[i]) ? json_null() : json_real(dice[i])));
  json_t *root = json_pack("{s:{s:{s:f}}, s:s, s:o}", "dice", "per_class", "liver", 0.0,
                           "empty_policy", "skip", "cases", list);
  char *text = json_dumps(root, 0);
  const char *path = write_file(name, text);
  free(text);
  json_decref(root);
  return path;
}

static void assert_near(double got, double wanted, const char *what, const contrast *of) {
  bool near = isnan(wanted) ? isnan(got) : fabs(got - wanted) <= 1e-9 * fabs(wanted) + 1e-14;
  if (!near)
    fail_msg("%s of %s, %s is %.17g, not %.17g", what, of->metric, of->class_name, got, wanted);
}

static double number_in(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  assert_non_null(value);
  return json_is_null(value) ? (double)NAN : json_number_value(value);
}

static double number_at(const json_t *object, const char *key, size_t i) {
  const json_t *value = json_array_get(json_object_get(object, key), i);
  assert_true(json_is_number(value));
  return json_number_value(value);
}

typedef struct pair_of_arms {
  results runs[7];
  arm arms[2];
} pair_of_arms;

static void open_golden(pair_of_arms *p) {
  static const char *const files[] = {"a1", "a2", "a3", "b1", "b2", "b3", "b4"};
  for (int i = 0; i < 7; i++) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s.json", files[i]);
    expect_ok(results_read(path, &p->runs[i]));
  }
  p->arms[0] = (arm){"a", p->runs, 3};
  p->arms[1] = (arm){"b", p->runs + 3, 4};
}

static void close_golden(pair_of_arms *p) {
  for (int i = 0; i < 7; i++) results_free(&p->runs[i]);
}

static void check_summary(const contrast *x, const json_t *wanted, const char *key,
                          const summary *got) {
  assert_near(got->mean, number_at(wanted, key, 0), key, x);
  assert_near(got->deviation, number_at(wanted, key, 1), key, x);
  assert_near(got->median, number_at(wanted, key, 2), key, x);
}

static void check_contrast(const contrast *x, const json_t *wanted, zero_method zeros) {
  assert_string_equal(x->metric, json_string_value(json_object_get(wanted, "metric")));
  assert_string_equal(x->class_name, json_string_value(json_object_get(wanted, "class")));
  assert_int_equal(x->pairs, number_in(wanted, "pairs"));
  check_summary(x, wanted, "baseline", &x->baseline);
  check_summary(x, wanted, "arm", &x->other);
  check_summary(x, wanted, "difference", &x->difference);
  const json_t *wilcoxon = json_object_get(wanted, "wilcoxon");
  assert_near(x->wilcoxon.p, number_in(wilcoxon, zeros == ZERO_PRATT ? "pratt" : "wilcox"),
              "Wilcoxon p", x);
  assert_true(x->wilcoxon.exact);
  assert_near(x->t.t, number_at(wanted, "t", 0), "t", x);
  assert_near(x->t.p, number_at(wanted, "t", 1), "t p", x);
  assert_near(x->t_holm, number_in(wanted, "t_holm"), "t p, Holm", x);
  assert_near(x->t.cohen_dz, number_in(wanted, "cohen_dz"), "Cohen's d", x);
  assert_int_equal(x->wins, number_at(wanted, "cases", 0));
  assert_int_equal(x->losses, number_at(wanted, "cases", 1));
  assert_int_equal(x->ties, number_at(wanted, "cases", 2));
  assert_string_equal(x->best.name, json_string_value(json_object_get(wanted, "best")));
  assert_string_equal(x->worst.name, json_string_value(json_object_get(wanted, "worst")));
  const json_t *seeds = json_object_get(wanted, "seeds");
  for (size_t i = 0; i < 3; i++)
    assert_near(x->baseline_seeds.means[i],
                json_number_value(json_array_get(json_array_get(seeds, 0), i)), "a run's mean", x);
  for (size_t i = 0; i < 4; i++)
    assert_near(x->other_seeds.means[i],
                json_number_value(json_array_get(json_array_get(seeds, 1), i)), "a run's mean", x);
  assert_near(x->brown_forsythe.statistic, number_at(wanted, "brown_forsythe", 0), "BF", x);
  assert_near(x->brown_forsythe.p, number_at(wanted, "brown_forsythe", 1), "BF p", x);
  assert_near(x->variance_ratio.statistic, number_at(wanted, "variance_ratio", 0), "F", x);
  assert_near(x->variance_ratio.p, number_at(wanted, "variance_ratio", 1), "F p", x);
  /* BCa is not SciPy's here, as the draws are not; test_statistics compares that. */
  assert_true(x->interval.low < x->difference.mean && x->difference.mean < x->interval.high);
}

static void arms_of_several_seeds_compare_as_scipy_does(void **state) {
  (void)state;
  pair_of_arms p;
  open_golden(&p);
  json_t *wanted = json_load_file(GOLDEN "compare.json", 0, NULL);
  assert_true(json_is_array(wanted));
  for (int zeros = ZERO_WILCOX; zeros <= ZERO_PRATT; zeros++) {
    comparison c;
    expect_ok(compare_arms(p.arms, 2,
                           &(compare_options){.resamples = 500, .zeros = (zero_method)zeros}, &c));
    assert_int_equal(c.contrast_count, json_array_size(wanted));
    assert_int_equal(c.case_count, 18);
    for (int i = 0; i < c.contrast_count; i++) {
      const json_t *entry = json_array_get(wanted, (size_t)i);
      check_contrast(&c.contrasts[i], entry, (zero_method)zeros);
      if (zeros == ZERO_WILCOX)
        assert_near(c.contrasts[i].wilcoxon_holm, number_in(entry, "wilcoxon_holm"), "Holm",
                    &c.contrasts[i]);
    }
    comparison_free(&c);
  }
  json_decref(wanted);
  close_golden(&p);
}

static void undefined_values_are_paired_out_and_counted(void **state) {
  (void)state;
  pair_of_arms p;
  open_golden(&p);
  comparison c;
  static const char *const metrics[] = {"hd95"}, *const classes[] = {"liver", "mean"};
  expect_ok(compare_arms(p.arms, 2,
                         &(compare_options){.resamples = 200,
                                            .metrics = metrics,
                                            .metric_count = 1,
                                            .classes = classes,
                                            .class_count = 2},
                         &c));
  assert_int_equal(c.contrast_count, 2);
  const contrast *liver = &c.contrasts[0], *mean = &c.contrasts[1];
  assert_string_equal(liver->metric, "hd95_mm");
  assert_int_equal(liver->undefined_in_both, 1);
  assert_int_equal(liver->undefined_in_arm, 1);
  assert_int_equal(liver->undefined_in_baseline, 0);
  assert_int_equal(liver->pairs, 16);
  assert_string_equal(mean->class_name, COMPARE_MEAN);
  assert_int_equal(mean->pairs, 17);
  assert_int_equal(mean->undefined_in_arm, 1);
  assert_int_equal(mean->undefined_classes, 2);
  assert_int_equal(liver->better, BETTER_LOWER);
  comparison_free(&c);
  close_golden(&p);
}

static void what_only_some_runs_have_is_listed_and_an_error_unless_asked_for(void **state) {
  (void)state;
  static const char *const first[] = {"x", "y", "z"}, *const second[] = {"w", "z", "x"};
  results runs[2];
  expect_ok(results_read(write_dice("a.json", first, (double[]){0.5, 0.6, 0.7}, 3), &runs[0]));
  expect_ok(results_read(write_dice("b.json", second, (double[]){0.5, 0.9, 0.5}, 3), &runs[1]));
  const arm arms[] = {{"a", &runs[0], 1}, {"b", &runs[1], 1}};
  comparison c;
  compare_options options = {.resamples = 100};
  SAYS(compare_arms(arms, 2, &options, &c), "case w is in", "b.json, not in", "case y is in",
       "a.json, not in", "--common compares the 2 cases and 1 classes");
  options.common = true;
  expect_ok(compare_arms(arms, 2, &options, &c));
  assert_int_equal(c.case_count, 2);
  assert_int_equal(c.left_out_count, 2);
  assert_int_equal(c.contrasts[0].pairs, 2);
  assert_int_equal(c.contrasts[0].wins, 1); /* z; x is the same */
  assert_int_equal(c.contrasts[0].ties, 1);
  assert_string_equal(c.contrasts[0].best.name, "z");
  comparison_free(&c);
  results_free(&runs[0]);
  results_free(&runs[1]);
}

static void a_run_against_itself_has_no_p_and_breaks_nothing(void **state) {
  (void)state;
  static const char *const cases[] = {"x", "y"};
  for (int count = 0; count <= 2; count++) {
    results run;
    status error = results_read(write_dice("same.json", cases, (double[]){0.5, NAN}, count), &run);
    expect_ok(error);
    const arm arms[] = {{"a", &run, 1}, {"b", &run, 1}};
    comparison c;
    error = compare_arms(arms, 2, &(compare_options){.resamples = 100}, &c);
    if (count == 0) {
      SAYS(error, "no case in common");
    } else {
      expect_ok(error);
      assert_int_equal(c.contrasts[0].pairs, 1);
      assert_int_equal(c.contrasts[0].undefined_in_both, count - 1);
      assert_true(isnan(c.contrasts[0].wilcoxon.p) && isnan(c.contrasts[0].wilcoxon_holm));
      assert_true(isnan(c.contrasts[0].t.p) && isnan(c.contrasts[0].interval.low));
      assert_int_equal(c.contrasts[0].ties, 1);
      FILE *nowhere = fopen("/dev/null", "w");
      comparison_print(&c, nowhere);
      comparison_print_markdown(&c, nowhere);
      fclose(nowhere);
      comparison_free(&c);
    }
    results_free(&run);
  }
}

static void equal_differences_are_ties_in_spite_of_rounding(void **state) {
  (void)state;
  /* +0.1, −0.1, +0.1, +0.1 in decimals, four different numbers in binary */
  static const char *const cases[] = {"a", "b", "c", "d"};
  results runs[2];
  expect_ok(results_read(write_dice("a.json", cases, (double[]){0.1, 0.8, 0.7, 0.3}, 4), &runs[0]));
  expect_ok(results_read(write_dice("b.json", cases, (double[]){0.2, 0.7, 0.8, 0.4}, 4), &runs[1]));
  const arm arms[] = {{"a", &runs[0], 1}, {"b", &runs[1], 1}};
  comparison c;
  expect_ok(compare_arms(arms, 2, &(compare_options){.resamples = 100}, &c));
  assert_true(c.contrasts[0].wilcoxon.plus == 7.5);
  assert_true(c.contrasts[0].wilcoxon.minus == 2.5);
  assert_true(fabs(c.contrasts[0].wilcoxon.p - 0.625) < 1e-12); /* 10 of 16 */
  comparison_free(&c);
  results_free(&runs[0]);
  results_free(&runs[1]);
}

static void names_that_do_not_exist_are_refused_with_the_nearest(void **state) {
  (void)state;
  pair_of_arms p;
  open_golden(&p);
  comparison c;
  static const char *const metric[] = {"hd96_mm"}, *const class_name[] = {"livr"};
  SAYS(compare_arms(p.arms, 2, &(compare_options){.metrics = metric, .metric_count = 1}, &c),
       "no metric \"hd96_mm\"", "did you mean hd95_mm", "b4.json");
  SAYS(compare_arms(p.arms, 2, &(compare_options){.classes = class_name, .class_count = 1}, &c),
       "no class \"livr\"", "did you mean liver");
  SAYS(compare_arms(p.arms, 1, &(compare_options){0}, &c), "a baseline and one arm");
  close_golden(&p);
}

#define HEAD "{\"dice\": {\"per_class\": {\"liver\": 0.5}}, \"empty_policy\": \"skip\", "

static void metrics_of_different_definitions_are_not_compared(void **state) {
  (void)state;
  results runs[2];
  expect_ok(results_read(write_file("skip.json", HEAD "\"cases\": []}"), &runs[0]));
  expect_ok(results_read(write_file("one.json", "{\"dice\": {\"per_class\": {\"liver\": 1}}, "
                                                "\"empty_policy\": \"one\", \"cases\": []}"),
                         &runs[1]));
  const arm arms[] = {{"a", &runs[0], 1}, {"b", &runs[1], 1}};
  comparison c;
  SAYS(compare_arms(arms, 2, &(compare_options){0}, &c), "dice means something else in",
       "empty: skip", "empty: one");
  results_free(&runs[0]);
  results_free(&runs[1]);
}

static void hostile_evaluations_are_errors_that_name_the_file(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
  } files[] = {
      {"", "it is not JSON"},
      {"{\"dice\": ", "line 1"},
      {"[1, 2]", "it holds no JSON object"},
      {"{}", "no metric"},
      {"{\"dice\": {\"per_class\": {}}, \"cases\": []}", "no metric with values"},
      {"{\"dice\": {\"per_class\": 3}, \"cases\": []}", "has no values per class"},
      {"{\"dice\": 1, \"dice\": 2}", "duplicate"},
      {HEAD "\"cases\": 3}", "no list of cases"},
      {HEAD "\"hd\": {\"per_class\": {\"spleen\": 1}}, \"cases\": []}", "other classes"},
      {HEAD "\"cases\": [3]}", "case 1 has no usable name"},
      {HEAD "\"cases\": [{\"name\": \"\"}]}", "case 1 has no usable name"},
      {HEAD "\"cases\": [{\"name\": \"a\\nb\"}]}", "case 1 has no usable name"},
      {HEAD "\"cases\": [{\"name\": \"a\"}]}", "case a does not have \"dice\""},
      {HEAD "\"cases\": [{\"name\": \"a\", \"dice\": {}}]}", "case a does not have \"dice\""},
      {HEAD "\"cases\": [{\"name\": \"a\", \"dice\": {\"spleen\": 1}}]}", "does not have \"dice\""},
      {HEAD "\"cases\": [{\"name\": \"a\", \"dice\": {\"liver\": \"1\"}}]}",
       "neither a number nor null"},
      {HEAD "\"cases\": [{\"name\": \"a\", \"dice\": {\"liver\": 1e999}}]}", "it is not JSON"},
      {HEAD "\"cases\": [{\"name\": \"a\", \"dice\": {\"liver\": 1}}, "
            "{\"name\": \"a\", \"dice\": {\"liver\": 0}}]}",
       "case a stands in it twice"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    results r;
    SAYS(results_read(write_file("hostile.json", files[i].text), &r), files[i].says,
         "hostile.json");
  }
  results r;
  char deep[20001];
  memset(deep, '[', sizeof deep - 1);
  deep[sizeof deep - 1] = 0;
  SAYS(results_read(write_file("hostile.json", deep), &r), "it is not JSON");
  SAYS(results_read("/nowhere/at/all", &r), "/nowhere/at/all");
  SAYS(results_read(folder, &r), "holds no evaluation.json");
}

static void a_run_folder_says_where_its_figures_come_from(void **state) {
  (void)state;
  static const char *const cases[] = {"x", "y"};
  results runs[2];
  for (int i = 0; i < 2; i++) {
    char name[64], description[256];
    snprintf(name, sizeof name, "run%d", i);
    const char *path = inside(name);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(name, sizeof name, "run%d/evaluation.json", i);
    write_dice(name, cases, (double[]){0.5 + 0.1 * i, 0.7}, 2);
    snprintf(name, sizeof name, "run%d/run.json", i);
    snprintf(description, sizeof description,
             "{\"name\": \"n\", \"data_identity\": \"%d\", \"seed\": 17}", i);
    write_file(name, description);
    expect_ok(results_read(path, &runs[i]));
    assert_int_equal(runs[i].seed, 17);
    assert_string_equal(runs[i].name, "n");
  }
  const arm arms[] = {{"a", &runs[0], 1}, {"b", runs, 2}};
  comparison c;
  expect_ok(compare_arms(arms, 2, &(compare_options){.resamples = 100}, &c));
  assert_int_equal(c.note_count, 2);
  assert_non_null(strstr(c.notes[0], "saw different data (identities 0 and 1)"));
  assert_non_null(strstr(c.notes[1], "have the same seed 17"));
  assert_true(isnan(c.contrasts[0].brown_forsythe.p)); /* of one run and two */
  comparison_free(&c);
  results_free(&runs[0]);
  results_free(&runs[1]);
}

static void what_is_written_can_be_read(void **state) {
  (void)state;
  pair_of_arms p;
  open_golden(&p);
  comparison c;
  expect_ok(compare_arms(p.arms, 2, &(compare_options){.resamples = 200}, &c));
  const char *path = inside("compare.json");
  expect_ok(comparison_write_json(&c, path));
  json_t *root = json_load_file(path, 0, NULL);
  const json_t *list = json_object_get(root, "comparisons");
  assert_int_equal(json_array_size(list), c.contrast_count);
  for (int i = 0; i < c.contrast_count; i++) {
    const contrast *x = &c.contrasts[i];
    const json_t *entry = json_array_get(list, (size_t)i);
    assert_near(number_in(json_object_get(entry, "wilcoxon"), "p"), x->wilcoxon.p, "p", x);
    assert_near(number_in(json_object_get(entry, "difference"), "mean"), x->difference.mean, "mean",
                x);
    assert_near(number_in(json_object_get(entry, "interval"), "low"), x->interval.low, "low", x);
  }
  json_decref(root);
  path = inside("compare.csv");
  expect_ok(comparison_write_csv(&c, path));
  char *text;
  size_t length;
  expect_ok(file_read(path, 1 << 20, &text, &length));
  int lines = 0, commas = 0, first = -1;
  for (const char *at = text; *at; at++) {
    commas += *at == ',';
    if (*at != '\n') continue;
    if (first < 0) first = commas;
    assert_int_equal(commas, first);
    commas = 0;
    lines++;
  }
  assert_int_equal(lines, c.contrast_count + 1);
  free(text);
  comparison_free(&c);
  close_golden(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(arms_of_several_seeds_compare_as_scipy_does, begin, end),
      cmocka_unit_test_setup_teardown(undefined_values_are_paired_out_and_counted, begin, end),
      cmocka_unit_test_setup_teardown(
          what_only_some_runs_have_is_listed_and_an_error_unless_asked_for, begin, end),
      cmocka_unit_test_setup_teardown(a_run_against_itself_has_no_p_and_breaks_nothing, begin, end),
      cmocka_unit_test_setup_teardown(equal_differences_are_ties_in_spite_of_rounding, begin, end),
      cmocka_unit_test_setup_teardown(names_that_do_not_exist_are_refused_with_the_nearest, begin,
                                      end),
      cmocka_unit_test_setup_teardown(metrics_of_different_definitions_are_not_compared, begin,
                                      end),
      cmocka_unit_test_setup_teardown(hostile_evaluations_are_errors_that_name_the_file, begin,
                                      end),
      cmocka_unit_test_setup_teardown(a_run_folder_says_where_its_figures_come_from, begin, end),
      cmocka_unit_test_setup_teardown(what_is_written_can_be_read, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
