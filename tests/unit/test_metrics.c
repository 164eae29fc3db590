/* Distances, scores and their summary, against MONAI and SciPy (tests/golden/make_metrics.py). */
#include "base/files.h"
#include "evaluate/folders.h"
#include "evaluate/metrics.h"
#include "ops/kernels/distance_transform.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *fixture, *label_maps;

static int load_fixture(void **state) {
  (void)state;
  json_error_t error;
  fixture = json_load_file(TEST_DATA "/golden/metrics/metrics.json", 0, &error);
  label_maps = json_load_file(TEST_DATA "/golden/metrics/label_maps.json", 0, &error);
  return fixture && label_maps ? 0 : -1;
}

static int free_fixture(void **state) {
  (void)state;
  json_decref(fixture);
  json_decref(label_maps);
  return 0;
}

static void assert_ok(status error) {
  if (error) fail_msg("%s", error_message(error));
}

static double number_at(const json_t *array, size_t i) {
  return json_number_value(json_array_get(array, i));
}

static size_t read_grid(const json_t *c, int64_t size[3], double spacing_mm[3]) {
  size_t voxels = 1;
  for (size_t a = 0; a < 3; a++) {
    size[a] = (int64_t)number_at(json_object_get(c, "size"), a);
    spacing_mm[a] = number_at(json_object_get(c, "spacing_mm"), a);
    voxels *= (size_t)size[a];
  }
  return voxels;
}

/* Run lengths, zeros first. */
static uint8_t *read_mask(const json_t *c, const char *key, size_t voxels) {
  uint8_t *mask = malloc(voxels);
  size_t i, at = 0;
  json_t *run;
  json_array_foreach(json_object_get(c, key), i, run) {
    size_t length = (size_t)json_integer_value(run);
    assert_true(at + length <= voxels);
    memset(mask + at, (int)(i % 2), length);
    at += length;
  }
  assert_int_equal(at, voxels);
  return mask;
}

/* `expected` is null where the value must be NaN. */
static void check_value(const char *what, double value, const json_t *expected, double tolerance) {
  double wanted = json_is_null(expected) ? (double)NAN : json_number_value(expected);
  bool same = isnan(wanted) ? isnan(value) : fabs(value - wanted) <= tolerance;
  if (!same) fail_msg("%s is %.9g, expected %.9g", what, value, wanted);
}

/* ---- distances ---- */

static void squared_distances(const uint8_t *mask, const int64_t size[3],
                              const double spacing_mm[3], float *squared_mm) {
  int64_t voxels = size[0] * size[1] * size[2];
  for (int64_t v = 0; v < voxels; v++) squared_mm[v] = mask[v] ? 0.0f : INFINITY;
  void *scratch = malloc(distance_transform_scratch(size));
  distance_transform(squared_mm, size, spacing_mm, scratch);
  free(scratch);
}

static void distances_equal_scipy(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "distance"), i, c) {
    int64_t size[3];
    double spacing_mm[3];
    size_t voxels = read_grid(c, size, spacing_mm);
    uint8_t *mask = read_mask(c, "mask", voxels);
    float *squared_mm = malloc(voxels * sizeof *squared_mm);
    squared_distances(mask, size, spacing_mm, squared_mm);
    const json_t *expected = json_object_get(c, "squared_mm");
    assert_int_equal(json_array_size(expected), voxels);
    for (size_t v = 0; v < voxels; v++) {
      double wanted = number_at(expected, v);
      if (!(fabs((double)squared_mm[v] - wanted) <= 1e-6 * wanted + 1e-12))
        fail_msg("grid %zu, voxel %zu: %.9g mm², expected %.9g", i, v, (double)squared_mm[v],
                 wanted);
    }
    free(mask);
    free(squared_mm);
  }
}

static void an_empty_mask_is_infinitely_far(void **state) {
  (void)state;
  const uint8_t mask[24] = {0};
  const int64_t size[3] = {2, 3, 4};
  const double spacing_mm[3] = {1, 1, 1};
  float squared_mm[24];
  squared_distances(mask, size, spacing_mm, squared_mm);
  for (int v = 0; v < 24; v++) assert_true(isinf(squared_mm[v]));
}

/* ---- scores ---- */

static const evaluate_spec skip_empty = {.metrics = METRICS_DEFAULT, .empty = EMPTY_SKIP};

static labels make_labels(const int64_t size[3], const double spacing_mm[3]) {
  labels l = {0};
  assert_ok(labels_allocate(&l, size));
  for (int a = 0; a < 3; a++) l.affine[a][a] = spacing_mm[a];
  l.affine[3][3] = 1;
  return l;
}

static void fill_box(labels *l, const int64_t from[3], const int64_t to[3], uint8_t class_number) {
  for (int64_t x = from[0]; x < to[0]; x++)
    for (int64_t y = from[1]; y < to[1]; y++)
      for (int64_t z = from[2]; z < to[2]; z++)
        l->data[(x * l->size[1] + y) * l->size[2] + z] = class_number;
}

static void scores_of_two_maps_equal_monai(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "hausdorff"), i, c) {
    int64_t size[3];
    double spacing_mm[3];
    size_t voxels = read_grid(c, size, spacing_mm);
    uint8_t *a = read_mask(c, "a", voxels), *b = read_mask(c, "b", voxels);
    labels prediction = make_labels(size, spacing_mm), reference = make_labels(size, spacing_mm);
    for (size_t v = 0; v < voxels; v++) {
      prediction.data[v] = a[v] ? 2 : 0;
      reference.data[v] = b[v] ? 2 : 0;
    }
    case_score score;
    const char *name = json_string_value(json_object_get(c, "name"));
    assert_ok(score_case(&prediction, &reference, 4, &skip_empty, name, NULL, &score));
    const class_score *s = &score.classes[2];
    if (s->reference_voxels > 0)
      check_value(name, s->value[METRIC_DICE], json_object_get(c, "dice"), 1e-6);
    check_value(name, s->value[METRIC_HD95], json_object_get(c, "max"), 2e-5);
    for (int m = 0; m < METRIC_COUNT; m++) assert_true(isnan(score.classes[1].value[m]));
    assert_int_equal(score.classes[0].reference_voxels + s->reference_voxels, voxels);
    assert_int_equal(s->missed, s->reference_voxels > 0 && s->predicted_voxels == 0);
    assert_int_equal(s->hallucinated, s->reference_voxels == 0 && s->predicted_voxels > 0);
    case_score_free(&score);
    evaluate_spec pooled = skip_empty;
    pooled.hd95_pooled = true;
    assert_ok(score_case(&prediction, &reference, 4, &pooled, name, NULL, &score));
    check_value(name, score.classes[2].value[METRIC_HD95], json_object_get(c, "pooled"), 1e-6);
    case_score_free(&score);
    labels_free(&prediction);
    labels_free(&reference);
    free(a);
    free(b);
  }
}

/* [value, length, …] with z fastest. */
static labels read_map(const json_t *c, const char *key) {
  int64_t size[3], at = 0;
  double spacing_mm[3];
  int64_t voxels = (int64_t)read_grid(c, size, spacing_mm);
  labels l = make_labels(size, spacing_mm);
  const json_t *runs = json_object_get(c, key);
  for (size_t i = 0; i + 1 < json_array_size(runs); i += 2) {
    int64_t length = (int64_t)number_at(runs, i + 1);
    assert_true(at + length <= voxels);
    for (int64_t k = 0; k < length; k++) l.data[at++] = (uint8_t)number_at(runs, i);
  }
  assert_int_equal(at, voxels);
  return l;
}

static void check_classes(const json_t *c, const case_score *score, bool pooled) {
  const json_t *classes = json_object_get(c, "classes");
  for (int i = 0; i < (int)json_array_size(classes); i++) {
    const json_t *expected = json_array_get(classes, (size_t)i);
    for (int m = 0; m < METRIC_COUNT; m++) {
      const char *key = m == METRIC_HD95 && pooled ? "hd95_pooled" : metric_table[m].name;
      char what[160];
      snprintf(what, sizeof what, "%s: class %d: %s", score->name, i + 1, key);
      const json_t *value = json_object_get(expected, key);
      assert_non_null(value);
      /* Dice and its like are fractions of counts: nothing to round. Distances are in mm. */
      check_value(what, score->classes[i + 1].value[m], value,
                  METRICS_OF_SURFACES & METRIC_BIT(m) ? 1e-9 : 1e-15);
    }
  }
}

static void every_metric_equals_scipy_on_any_number_of_threads(void **state) {
  (void)state;
  thread_pool *three;
  assert_ok(pool_create(3, &three));
  size_t i;
  json_t *c;
  json_array_foreach(label_maps, i, c) {
    labels prediction = read_map(c, "prediction"), reference = read_map(c, "reference");
    double tolerance_mm = json_number_value(json_object_get(c, "tolerance_mm"));
    const char *name = json_string_value(json_object_get(c, "name"));
    evaluate_spec spec = {.metrics = METRIC_BIT(METRIC_COUNT) - 1,
                          .tolerance_mm = &tolerance_mm,
                          .tolerance_count = 1};
    case_score score, threaded;
    assert_ok(score_case(&prediction, &reference, 5, &spec, name, NULL, &score));
    check_classes(c, &score, false);
    assert_ok(score_case(&prediction, &reference, 5, &spec, name, three, &threaded));
    for (int k = 0; k < 5; k++)
      assert_memory_equal(score.classes[k].value, threaded.classes[k].value,
                          sizeof score.classes[k].value);
    case_score_free(&threaded);
    case_score_free(&score);
    spec.hd95_pooled = true;
    assert_ok(score_case(&prediction, &reference, 5, &spec, name, NULL, &score));
    check_classes(c, &score, true);
    case_score_free(&score);
    labels_free(&prediction);
    labels_free(&reference);
  }
  pool_destroy(three);
}

/* 1 where the map has a class of the region; the ignore label stays. */
static labels union_of(const labels *map, const class_group *region, int ignored) {
  labels out = *map;
  int64_t voxels = map->size[0] * map->size[1] * map->size[2];
  out.data = malloc((size_t)voxels);
  assert_non_null(out.data);
  for (int64_t v = 0; v < voxels; v++) {
    out.data[v] = map->data[v] == ignored ? (uint8_t)ignored : 0;
    for (int i = 0; i < region->count; i++)
      if (map->data[v] == region->classes[i]) out.data[v] = 1;
  }
  return out;
}

static void a_region_scores_as_the_union_of_its_classes(void **state) {
  (void)state;
  class_group regions[] = {{.name = "whole", .classes = (int[]){1, 2, 3}, .count = 3},
                           {.name = "core", .classes = (int[]){3, 2}, .count = 2},
                           {.name = "one", .classes = (int[]){1}, .count = 1},
                           {.name = "none", .classes = (int[]){200}, .count = 1}};
  double tolerance_mm[] = {1.2, 2, 0.6};
  size_t i;
  json_t *c;
  json_array_foreach(label_maps, i, c) {
    labels prediction = read_map(c, "prediction"), reference = read_map(c, "reference");
    const char *name = json_string_value(json_object_get(c, "name"));
    for (int ignored = 0; ignored <= 4; ignored += 4) {
      evaluate_spec spec = {.metrics = METRIC_BIT(METRIC_COUNT) - 1,
                            .regions = regions,
                            .region_count = 4,
                            .ignore_label = ignored,
                            .tolerance_mm = tolerance_mm,
                            .tolerance_count = 3};
      assert_int_equal(evaluate_rows(&spec, 5), 5);
      case_score score;
      assert_ok(score_case(&prediction, &reference, 5, &spec, name, NULL, &score));
      for (int r = 0; r < 4; r++) {
        labels p = union_of(&prediction, &regions[r], ignored),
               q = union_of(&reference, &regions[r], ignored);
        evaluate_spec alone = {.metrics = spec.metrics,
                               .ignore_label = ignored,
                               .tolerance_mm = &tolerance_mm[r < 3 ? r : 2],
                               .tolerance_count = 1};
        case_score one;
        assert_ok(score_case(&p, &q, 5, &alone, name, NULL, &one));
        assert_memory_equal(&score.classes[r + 1], &one.classes[1], sizeof *one.classes);
        case_score_free(&one);
        free(p.data);
        free(q.data);
      }
      case_score_free(&score);
    }
    labels_free(&prediction);
    labels_free(&reference);
  }
}

static void the_tolerance_may_differ_by_class(void **state) {
  (void)state;
  const int64_t size[3] = {12, 6, 6};
  labels prediction = make_labels(size, (const double[3]){0.1, 1, 1}),
         reference = make_labels(size, (const double[3]){0.1, 1, 1});
  for (int32_t c = 1; c <= 3; c++) { /* three planes, three voxels off: 0.3 mm and its rounding */
    int64_t y = c - 1;
    fill_box(&reference, (const int64_t[3]){2, 2 * y, 0}, (const int64_t[3]){3, 2 * y + 1, 6}, c);
    fill_box(&prediction, (const int64_t[3]){5, 2 * y, 0}, (const int64_t[3]){6, 2 * y + 1, 6}, c);
  }
  double tolerance_mm[] = {0.29, 0.3};
  evaluate_spec spec = {
      .metrics = METRIC_BIT(METRIC_NSD), .tolerance_mm = tolerance_mm, .tolerance_count = 2};
  case_score score;
  assert_ok(score_case(&prediction, &reference, 4, &spec, "case", NULL, &score));
  assert_float_equal(score.classes[1].value[METRIC_NSD], 0, 0);
  assert_float_equal(score.classes[2].value[METRIC_NSD], 1, 0);
  assert_float_equal(score.classes[3].value[METRIC_NSD], 1, 0); /* the last one holds on */
  case_score_free(&score);
  spec.tolerance_count = 0;
  assert_ok(score_case(&prediction, &reference, 4, &spec, "case", NULL, &score));
  assert_float_equal(score.classes[1].value[METRIC_NSD], 1, 0); /* 1 mm */
  case_score_free(&score);
  labels_free(&prediction);
  labels_free(&reference);
}

/* Two voxels at the ends of a long axis, so far apart that every bound is put to the test. */
static void distances_hold_in_sparse_and_in_full_volumes(void **state) {
  (void)state;
  const int64_t size[3] = {2000, 3, 2};
  labels prediction = make_labels(size, (const double[3]){1, 1, 1}),
         reference = make_labels(size, (const double[3]){1, 1, 1});
  prediction.data[0] = 1;
  reference.data[1999 * 6] = 1;
  evaluate_spec spec = {.metrics = METRICS_OF_SURFACES};
  case_score score;
  assert_ok(score_case(&prediction, &reference, 2, &spec, "case", NULL, &score));
  assert_float_equal(score.classes[1].value[METRIC_HD], 1999, 0);
  assert_float_equal(score.classes[1].value[METRIC_ASSD], 1999, 0);
  case_score_free(&score);
  for (int64_t v = 0; v < 2000 * 6; v++) prediction.data[v] = 1; /* all of it surface */
  assert_ok(score_case(&prediction, &reference, 2, &spec, "case", NULL, &score));
  assert_float_equal(score.classes[1].value[METRIC_HD], sqrt(1999.0 * 1999 + 5), 0);
  case_score_free(&score);
  labels_free(&prediction);
  labels_free(&reference);
}

static void the_policy_decides_on_classes_absent_from_both(void **state) {
  (void)state;
  const int64_t size[3] = {4, 4, 4};
  const double spacing_mm[3] = {1, 1, 1};
  labels prediction = make_labels(size, spacing_mm), reference = make_labels(size, spacing_mm);
  fill_box(&prediction, (const int64_t[3]){0, 0, 0}, (const int64_t[3]){2, 2, 2}, 1);
  fill_box(&reference, (const int64_t[3]){3, 3, 3}, (const int64_t[3]){4, 4, 4}, 2);
  static const struct {
    empty_policy policy;
    double dice, mean;
  } cases[] = {{EMPTY_SKIP, NAN, 0}, {EMPTY_ONE, 1, 1.0 / 3}, {EMPTY_ZERO, 0, 0}};
  static const char *const names[] = {"background", "a", "b", "c"};
  for (int i = 0; i < 3; i++) {
    evaluate_spec spec = skip_empty;
    spec.empty = cases[i].policy;
    case_score score;
    assert_ok(score_case(&prediction, &reference, 4, &spec, "case", NULL, &score));
    if (isnan(cases[i].dice))
      assert_true(isnan(score.classes[3].value[METRIC_DICE]));
    else
      assert_float_equal(score.classes[3].value[METRIC_DICE], cases[i].dice, 0);
    /* Present on one side only: 0 under every policy, and counted. */
    assert_float_equal(score.classes[1].value[METRIC_DICE], 0, 0);
    assert_float_equal(score.classes[2].value[METRIC_DICE], 0, 0);
    assert_true(score.classes[1].hallucinated && !score.classes[1].missed);
    assert_true(score.classes[2].missed && !score.classes[2].hallucinated);
    assert_true(isnan(score.classes[1].value[METRIC_HD95]) &&
                isnan(score.classes[2].value[METRIC_HD95]));
    evaluation e = {
        .class_names = names, .class_count = 4, .cases = &score, .case_count = 1, .spec = &spec};
    assert_float_equal(evaluation_mean(&e, METRIC_DICE), cases[i].mean, 1e-7);
    case_score_free(&score);
  }
  labels_free(&prediction);
  labels_free(&reference);
}

static void maps_that_cannot_be_scored_are_named(void **state) {
  (void)state;
  const double spacing_mm[3] = {1, 1, 1};
  labels prediction = make_labels((const int64_t[3]){4, 4, 4}, spacing_mm),
         other = make_labels((const int64_t[3]){4, 4, 5}, spacing_mm),
         reference = make_labels((const int64_t[3]){4, 4, 4}, spacing_mm), none = {0};
  memcpy(none.size, reference.size, sizeof none.size);
  case_score score;
  status error = score_case(&prediction, &other, 2, &skip_empty, "liver_3", NULL, &score);
  assert_non_null(strstr(error_message(error), "liver_3"));
  assert_non_null(strstr(error_message(error), "4 × 4 × 5"));
  error_free(error);
  reference.data[21] = 7;
  error = score_case(&prediction, &reference, 2, &skip_empty, "liver_3", NULL, &score);
  assert_non_null(strstr(error_message(error), "class 7 at voxel (1, 1, 1)"));
  error_free(error);
  reference.data[21] = 255;
  error = score_case(&reference, &prediction, 2, &skip_empty, "liver_3", NULL, &score);
  assert_non_null(strstr(error_message(error), "prediction has class 255"));
  error_free(error);
  error = score_case(&prediction, &none, 2, &skip_empty, "liver_3", NULL, &score);
  assert_int_equal(error_code_of(error), ERROR_DATA);
  error_free(error);
  labels_free(&prediction);
  labels_free(&other);
  labels_free(&reference);
}

/* ---- summary ---- */

static class_score scored(double dice, double hd95_mm, bool missed) {
  return (class_score){.value = {[METRIC_DICE] = dice, [METRIC_HD95] = hd95_mm},
                       .reference_voxels = 10,
                       .predicted_voxels = missed ? 0 : 12,
                       .overlap_voxels = 5,
                       .missed = missed};
}

/* Two cases, two foreground classes, one of them skipped in the second case. */
static const char *const summary_names[] = {"background", "Antérieur", "lower\tlobe"};

static void with_summary(const evaluate_spec *spec, void (*body)(const evaluation *)) {
  class_score first[] = {{.missed = false}, scored(0.8, 2, false), scored(0.4, 4, false)};
  class_score second[] = {{.missed = false}, scored(NAN, NAN, false), scored(0, NAN, true)};
  case_score cases[] = {{.name = "hippocampus_001", .classes = first},
                        {.name = "bad\xff", .classes = second}};
  evaluation e = {.class_names = summary_names,
                  .class_count = 3,
                  .cases = cases,
                  .case_count = 2,
                  .spec = spec};
  body(&e);
}

static void check_mean(const evaluation *e) {
  /* ((0.8 + 0.4) / 2 + 0) / 2: the class skipped in the second case does not weigh in. */
  assert_float_equal(evaluation_mean(e, METRIC_DICE), 0.3, 1e-7);
}

static void the_mean_is_over_classes_then_cases(void **state) {
  (void)state;
  with_summary(&skip_empty, check_mean);
}

static void nothing_counted_has_no_mean(void **state) {
  (void)state;
  evaluation e = {.class_names = summary_names, .class_count = 3, .spec = &skip_empty};
  assert_true(isnan(evaluation_mean(&e, METRIC_DICE)));
}

static char *in_temporary_folder(const char *name) {
  static char folder[256];
  if (!folder[0]) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/strata-metrics-XXXXXX", base ? base : P_tmpdir);
    assert_non_null(mkdtemp(folder));
  }
  return path_join(folder, name);
}

static double number_in(const json_t *root, const char *a, const char *b, const char *c) {
  const json_t *value = json_object_get(json_object_get(root, a), b);
  if (c) value = json_object_get(value, c);
  assert_true(json_is_number(value));
  return json_number_value(value);
}

static void check_json(const evaluation *e) {
  char *path = in_temporary_folder("evaluation.json"), *text, *again;
  size_t length;
  assert_ok(evaluation_write(e, path));
  assert_ok(file_read(path, 1 << 20, &text, &length));
  assert_ok(evaluation_write(e, path));
  assert_ok(file_read(path, 1 << 20, &again, &length));
  assert_string_equal(text, again);
  assert_int_equal(text[length - 1], '\n');

  json_error_t error;
  json_t *root = json_loads(text, 0, &error);
  assert_non_null(root);
  assert_float_equal(number_in(root, "dice", "mean", NULL), 0.3, 1e-7);
  assert_float_equal(number_in(root, "dice", "per_class", "Antérieur"), 0.8, 1e-7);
  assert_float_equal(number_in(root, "dice", "per_class", "lower\tlobe"), 0.2, 1e-7);
  assert_float_equal(number_in(root, "hd95_mm", "mean", NULL), 3, 1e-7);
  assert_float_equal(number_in(root, "missed", "lower\tlobe", NULL), 1, 0);
  assert_float_equal(number_in(root, "hallucinated", "lower\tlobe", NULL), 0, 0);
  const json_t *cases = json_object_get(root, "cases"), *second = json_array_get(cases, 1);
  assert_int_equal(json_array_size(cases), 2);
  assert_string_equal(json_string_value(json_object_get(second, "name")), "bad?");
  assert_true(json_is_null(json_object_get(json_object_get(second, "dice"), "Antérieur")));
  assert_true(json_is_null(json_object_get(second, "hd95_mm_mean")));
  assert_string_equal(json_string_value(json_array_get(json_object_get(second, "missed"), 0)),
                      "lower\tlobe");
  assert_string_equal(json_string_value(json_object_get(root, "empty_policy")), "skip");
  const json_t *hd95 = json_object_get(root, "hd95_mm");
  assert_string_equal(json_string_value(json_object_get(hd95, "definition")), "max");
  json_decref(root);
  free(text);
  free(again);
  unlink(path);
  free(path);
}

static void evaluation_json_holds_means_counts_and_cases(void **state) {
  (void)state;
  with_summary(&skip_empty, check_json);
}

static void print_table(const evaluation *e, char text[2048]) {
  FILE *out = fmemopen(text, 2048, "w");
  evaluation_print(e, out);
  fclose(out);
}

static void check_table(const evaluation *e) {
  char text[2048];
  print_table(e, text);
  static const char expected[] = "class                  Dice  HD95 mm  missed  hallucinated\n"
                                 "Antérieur            0.8000     2.00       0             0\n"
                                 "lower?lobe  0.2000 ± 0.2828     4.00       1             0\n"
                                 "mean        0.3000 ± 0.4243     3.00       1             0\n";
  char *end = strstr(text, "2 cases;");
  assert_non_null(end);
  assert_non_null(strstr(end, "(empty: skip)"));
  assert_non_null(strstr(end, "MONAI"));
  *end = 0;
  assert_string_equal(text, expected);
}

static void check_dice_only(const evaluation *e) {
  char text[2048];
  print_table(e, text);
  assert_null(strstr(text, "HD95"));
  assert_non_null(strstr(text, "Dice"));
}

static void the_table_is_aligned(void **state) {
  (void)state;
  with_summary(&skip_empty, check_table);
  evaluate_spec dice_only = skip_empty;
  dice_only.metrics = METRIC_BIT(METRIC_DICE);
  with_summary(&dice_only, check_dice_only);
}

/* ---- folders ---- */

static void write_map(const char *folder, const char *name, const labels *l) {
  char *inside = in_temporary_folder(folder);
  assert_ok(folder_create(inside));
  char *path = path_join(inside, name);
  assert_ok(nifti_write_labels(path, l, NULL));
  free(path);
  free(inside);
}

static void remove_map(const char *folder, const char *name) {
  char *inside = in_temporary_folder(folder), *path = path_join(inside, name);
  assert_int_equal(unlink(path), 0);
  free(path);
  free(inside);
}

static void folders_are_paired_by_name_and_every_problem_is_told(void **state) {
  (void)state;
  const int64_t size[3] = {8, 7, 6};
  const double spacing_mm[3] = {1, 2, 3};
  labels a = make_labels(size, spacing_mm), b = make_labels(size, spacing_mm),
         shifted = make_labels(size, spacing_mm),
         small = make_labels((const int64_t[3]){3, 3, 3}, spacing_mm);
  fill_box(&a, (const int64_t[3]){1, 1, 1}, (const int64_t[3]){5, 5, 5}, 1);
  fill_box(&b, (const int64_t[3]){1, 1, 1}, (const int64_t[3]){5, 5, 3}, 1);
  fill_box(&b, (const int64_t[3]){6, 6, 5}, (const int64_t[3]){7, 7, 6}, 9);
  shifted.affine[0][3] = 0.5;
  char *predictions = in_temporary_folder("predictions"),
       *references = in_temporary_folder("references");
  char *json_path = in_temporary_folder("folders.json");
  write_map("predictions", "one.nii.gz", &a);
  write_map("predictions", "two.nii", &b);
  write_map("references", "one.nii", &b);
  write_map("references", "two.nii.gz", &b);
  write_map("references", "three.nii.gz", &b);

  char *table = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&table, &length);
  class_group groups[] = {{.name = "nines, \"quoted\"", .classes = (int[]){9, 12}, .count = 2}};
  evaluate_spec spec = skip_empty;
  spec.groups = groups;
  spec.group_count = 1;
  char *csv_path = in_temporary_folder("folders.csv");
  evaluate_outputs to = {.table = out, .json_path = json_path, .csv_path = csv_path},
                   nowhere = {.table = NULL};
  assert_ok(evaluate_folders(predictions, references, NULL, 0, &spec, NULL, &to));
  fclose(out);
  assert_non_null(strstr(table, "1 of 3 references have no prediction"));
  json_error_t error;
  json_t *root = json_load_file(json_path, 0, &error);
  assert_non_null(root);
  assert_float_equal(number_in(root, "dice", "per_class", "1"), (2.0 * 32 / 96 + 1) / 2, 1e-7);
  assert_float_equal(number_in(root, "dice", "per_class", "9"), 0.5, 1e-7);
  assert_float_equal(number_in(root, "missed", "9", NULL), 1, 0);
  assert_int_equal(json_object_size(json_object_get(root, "missed")), 2);
  assert_float_equal(number_in(root, "hd95_mm", "per_class", "1"), 3, 1e-6); /* 6 and 0 */
  const json_t *nines = json_object_get(json_object_get(root, "groups"), groups[0].name);
  assert_float_equal(number_in(nines, "dice", "mean", NULL), 0.5, 1e-7);
  assert_non_null(strstr(table, "nines"));
  json_decref(root);
  free(table);
  char *csv;
  assert_ok(file_read(csv_path, 1 << 16, &csv, &length));
  assert_string_equal(csv, "case,class,dice,hd95_mm,reference_voxels,predicted_voxels,"
                           "overlap_voxels,missed,hallucinated\n"
                           "one,1,0.666666667,6,32,64,32,0,0\n"
                           "one,9,0,,1,0,0,1,0\n"
                           "two,1,1,0,32,32,32,0,0\n"
                           "two,9,1,0,1,1,1,0,0\n");
  free(csv);
  unlink(csv_path);
  free(csv_path);
  to = (evaluate_outputs){.json_path = json_path};

  write_map("predictions", "alone.nii", &a);
  write_map("predictions", "moved.nii", &a);
  write_map("references", "moved.nii", &shifted);
  write_map("predictions", "small.nii", &small);
  write_map("references", "small.nii", &b);
  write_map("references", "two.nii", &b);
  unlink(json_path);
  table = NULL;
  out = to.table = open_memstream(&table, &length);
  status problem = evaluate_folders(predictions, references, NULL, 0, &skip_empty, NULL, &to);
  fclose(out);
  assert_int_equal(error_count(problem), 4);
  /* What could be scored is, and the table says what is missing. */
  assert_non_null(strstr(table, "4 of 5 predictions could not be scored"));
  assert_non_null(strstr(table, "2 of 6 references have no prediction"));
  free(table);
  root = json_load_file(json_path, 0, &error);
  assert_non_null(root);
  assert_int_equal(json_array_size(json_object_get(root, "cases")), 1);
  assert_float_equal(number_in(root, "dice", "per_class", "1"), 2.0 * 32 / 96, 1e-7);
  json_decref(root);
  char *text = NULL;
  out = open_memstream(&text, &length);
  error_print(out, problem);
  fclose(out);
  assert_non_null(strstr(text, "alone.nii: no reference"));
  assert_non_null(strstr(text, "moved: the prediction and the reference"));
  assert_non_null(strstr(text, "small: the prediction has 3 × 3 × 3"));
  assert_non_null(strstr(text, "have the same name"));
  error_free(problem);
  free(text);

  static const char *const made[][2] = {
      {"predictions", "one.nii.gz"}, {"predictions", "two.nii"},     {"predictions", "alone.nii"},
      {"predictions", "moved.nii"},  {"predictions", "small.nii"},   {"references", "one.nii"},
      {"references", "two.nii.gz"},  {"references", "three.nii.gz"}, {"references", "moved.nii"},
      {"references", "small.nii"},   {"references", "two.nii"}};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) remove_map(made[i][0], made[i][1]);
  problem = evaluate_folders(predictions, references, NULL, 0, &skip_empty, NULL, &nowhere);
  assert_non_null(strstr(error_message(problem), "there is no .nii or .nii.gz file in"));
  error_free(problem);
  rmdir(predictions);
  rmdir(references);
  problem = evaluate_folders(predictions, references, NULL, 0, &skip_empty, NULL, &nowhere);
  assert_int_equal(error_code_of(problem), ERROR_IO);
  error_free(problem);
  char *folder = path_folder(json_path);
  rmdir(folder);
  free(folder);
  free(predictions);
  free(references);
  free(json_path);
  labels_free(&a);
  labels_free(&b);
  labels_free(&shifted);
  labels_free(&small);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(distances_equal_scipy),
      cmocka_unit_test(an_empty_mask_is_infinitely_far),
      cmocka_unit_test(every_metric_equals_scipy_on_any_number_of_threads),
      cmocka_unit_test(a_region_scores_as_the_union_of_its_classes),
      cmocka_unit_test(the_tolerance_may_differ_by_class),
      cmocka_unit_test(distances_hold_in_sparse_and_in_full_volumes),
      cmocka_unit_test(scores_of_two_maps_equal_monai),
      cmocka_unit_test(the_policy_decides_on_classes_absent_from_both),
      cmocka_unit_test(maps_that_cannot_be_scored_are_named),
      cmocka_unit_test(the_mean_is_over_classes_then_cases),
      cmocka_unit_test(nothing_counted_has_no_mean),
      cmocka_unit_test(evaluation_json_holds_means_counts_and_cases),
      cmocka_unit_test(the_table_is_aligned),
      cmocka_unit_test(folders_are_paired_by_name_and_every_problem_is_told),
  };
  return cmocka_run_group_tests(tests, load_fixture, free_fixture);
}
