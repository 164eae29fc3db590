/* Whole volumes prepared and scored, against MONAI, nibabel and SciPy (make_volumes.py).
 *
 *     test_volumes                  the phantom in tests/golden/volumes
 *     test_volumes FOLDER           real volumes in FOLDER; status 77 where they are not
 *
 * The fixtures hold samples and means of the results. Values agree to 1e-4 of 1 or of themselves,
 * overlap exactly, distances to 1e-6 mm. */
#include "../unit/data_fixture.h"

#include "evaluate/metrics.h"

#include <jansson.h>

static const char *folder = TEST_DATA "/golden/volumes", *fixture_name = "phantom.json";
static json_t *fixture;

static double number_at(const json_t *array, size_t i) {
  return json_number_value(json_array_get(array, i));
}

static int64_t voxels_of(const int64_t size[3]) {
  return size[0] * size[1] * size[2];
}

static case_entry entry_of(arena *memory, const json_t *v) {
  return (case_entry){.name = json_string_value(json_object_get(v, "image")),
                      .image = arena_printf(memory, "%s/%s", folder,
                                            json_string_value(json_object_get(v, "image"))),
                      .label = arena_printf(memory, "%s/%s", folder,
                                            json_string_value(json_object_get(v, "label")))};
}

/* ---- preparing ---- */

static void check_grid(const char *what, const int64_t size[3], const double affine[4][4],
                       const json_t *expected) {
  const json_t *wanted = json_object_get(expected, "size");
  for (size_t a = 0; a < 3; a++)
    if (size[a] != (int64_t)number_at(wanted, a))
      fail_msg("%s: %lld voxels along %c, expected %g", what, (long long)size[a], "xyz"[a],
               number_at(wanted, a));
  wanted = json_object_get(expected, "affine");
  for (size_t i = 0; i < 12; i++)
    if (!(fabs(affine[i / 4][i % 4] - number_at(wanted, i)) <= 1e-4))
      fail_msg("%s: affine entry %zu is %.9g, expected %.9g", what, i, affine[i / 4][i % 4],
               number_at(wanted, i));
}

static void check_number(const char *what, const char *which, int64_t at, double value,
                         double wanted) {
  if (!(fabs(value - wanted) <= 1e-4 * fmax(1, fabs(wanted))))
    fail_msg("%s: %s %lld is %.9g, expected %.9g", what, which, (long long)at, value, wanted);
}

static void check_image(const char *what, const volume *v, const json_t *expected) {
  check_grid(what, v->size, (const double(*)[4])v->affine, expected);
  const json_t *samples = json_object_get(expected, "samples");
  const int64_t n = voxels_of(v->size),
                stride = json_integer_value(json_object_get(expected, "stride"));
  assert_int_equal(json_array_size(samples), (n + stride - 1) / stride);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) {
    double value = (double)v->data[i];
    if (i % stride == 0)
      check_number(what, "voxel", i, value, number_at(samples, (size_t)(i / stride)));
    sum += value;
    squares += value * value;
  }
  check_number(what, "the mean of voxels", n, sum / (double)n,
               json_number_value(json_object_get(expected, "mean")));
  check_number(what, "the mean square of voxels", n, squares / (double)n,
               json_number_value(json_object_get(expected, "mean_square")));
}

/* Where a voxel lies in the middle between two, or two classes have the same share, rounding
 * decides: in one voxel of a thousand at most. */
static void check_label(const char *what, const labels *l, const json_t *expected) {
  check_grid(what, l->size, (const double(*)[4])l->affine, expected);
  const json_t *samples = json_object_get(expected, "samples"),
               *voxels = json_object_get(expected, "voxels");
  const int64_t n = voxels_of(l->size),
                stride = json_integer_value(json_object_get(expected, "stride"));
  assert_int_equal(json_array_size(samples), (n + stride - 1) / stride);
  int64_t counts[LABEL_VALUES] = {0}, wrong = 0, apart = 0;
  for (int64_t i = 0; i < n; i++) {
    counts[l->data[i]]++;
    if (i % stride == 0) wrong += l->data[i] != (int)number_at(samples, (size_t)(i / stride));
  }
  for (int c = 0; c < LABEL_VALUES; c++) {
    char key[8];
    snprintf(key, sizeof key, "%d", c);
    int64_t wanted = json_integer_value(json_object_get(voxels, key)); /* absent: 0 */
    apart += llabs(counts[c] - wanted);
  }
  if (wrong * 200 > (int64_t)json_array_size(samples) || apart * 1000 > n)
    fail_msg("%s: %lld of %zu label samples differ, class volumes by %lld voxels of %lld", what,
             (long long)wrong, json_array_size(samples), (long long)apart, (long long)n);
}

static op_use operator_of(arena *memory, const json_t *c) {
  const char *attributes[32] = {0}, *name;
  int count = 0;
  json_t *value;
  json_object_foreach(json_object_get(c, "attributes"), name, value) {
    assert_true(count + 2 < 32);
    attributes[count++] = name;
    attributes[count++] = json_string_value(value);
  }
  return use_operator(memory, json_string_value(json_object_get(c, "operator")), attributes);
}

static void volumes_are_prepared_as_monai_nibabel_and_scipy_do(void **state) {
  (void)state;
  size_t i, k;
  json_t *v, *c;
  json_array_foreach(fixture, i, v) {
    json_array_foreach(json_object_get(v, "prepared"), k, c) {
      arena memory = {0};
      case_entry entry = entry_of(&memory, v);
      op_use use = operator_of(&memory, c);
      data_spec spec = {.prepare = &use, .prepare_count = 1};
      char *attributes = json_dumps(json_object_get(c, "attributes"), JSON_COMPACT);
      char *what = arena_printf(&memory, "%s: %s %s", entry.name, use.op->name, attributes);
      medical_case made;
      expect_ok(case_prepare(&spec, &entry, NULL, &made));
      check_image(what, &made.image, json_object_get(c, "image"));
      if (json_object_get(c, "label")) check_label(what, &made.label, json_object_get(c, "label"));
      case_free(&made);
      free(attributes);
      arena_free(&memory);
    }
    assert_int_equal(k, 11);
  }
  assert_true(i > 0);
}

/* ---- scoring ---- */

/* A prediction that is made of the reference: moved by (2, −1, 1) voxels, with holes, and one voxel
 * far from the rest. */
static void predict_from(const labels *r, labels *p) {
  const int64_t *n = r->size;
  expect_ok(labels_allocate(p, n));
  memcpy(p->affine, r->affine, sizeof p->affine);
  uint8_t largest = 0;
  for (int64_t i = 0; i < voxels_of(n); i++) largest = r->data[i] > largest ? r->data[i] : largest;
  for (int64_t x = 2; x < n[0]; x++)
    for (int64_t y = 0; y < n[1] - 1; y++)
      for (int64_t z = 1; z < n[2]; z++)
        if ((7 * x + 5 * y + 3 * z) % 97 != 0)
          p->data[(x * n[1] + y) * n[2] + z] = r->data[((x - 2) * n[1] + y + 1) * n[2] + z - 1];
  p->data[voxels_of(n) - 1] = largest;
}

static void check_scores(const char *name, const json_t *expected, const case_score *score,
                         bool pooled) {
  const char *key;
  json_t *values;
  json_object_foreach(json_object_get(expected, "classes"), key, values) {
    const class_score *got = &score->classes[atoi(key)];
    for (int m = 0; m < METRIC_COUNT; m++) {
      const char *metric = m == METRIC_HD95 && pooled ? "hd95_pooled" : metric_table[m].name;
      const json_t *value = json_object_get(values, metric);
      assert_non_null(value);
      double wanted = json_is_null(value) ? (double)NAN : json_number_value(value);
      /* Fractions of counts have nothing to round but their last bit. */
      double tolerance = METRICS_OF_SURFACES & METRIC_BIT(m) ? 1e-6
                         : m == METRIC_VOLUME_DIFFERENCE     ? 1e-9
                                                             : 0;
      bool same = isnan(wanted) ? isnan(got->value[m]) : fabs(got->value[m] - wanted) <= tolerance;
      if (!same)
        fail_msg("%s: class %s: %s is %.17g, expected %.17g", name, key, metric, got->value[m],
                 wanted);
    }
  }
}

static void label_maps_are_scored_as_scipy_and_monai_do(void **state) {
  (void)state;
  size_t i, k;
  json_t *v, *c;
  json_array_foreach(fixture, i, v) {
    arena memory = {0};
    case_entry entry = entry_of(&memory, v);
    labels reference, prediction = {0};
    expect_ok(nifti_read_labels(entry.label, &reference));
    predict_from(&reference, &prediction);
    json_array_foreach(json_object_get(v, "metrics"), k, c) {
      double tolerance_mm = json_number_value(json_object_get(c, "tolerance_mm"));
      memset(reference.affine, 0, sizeof reference.affine);
      for (int a = 0; a < 3; a++)
        reference.affine[a][a] = number_at(json_object_get(c, "spacing_mm"), (size_t)a);
      reference.affine[3][3] = 1;
      for (int pooled = 0; pooled < 2; pooled++) {
        evaluate_spec spec = {.metrics = METRIC_BIT(METRIC_COUNT) - 1,
                              .tolerance_mm = &tolerance_mm,
                              .tolerance_count = 1,
                              .hd95_pooled = pooled};
        case_score score;
        expect_ok(
            score_case(&prediction, &reference, LABEL_VALUES, &spec, entry.name, NULL, &score));
        check_scores(entry.name, c, &score, pooled);
        case_score_free(&score);
      }
    }
    assert_int_equal(k, 2);
    labels_free(&reference);
    labels_free(&prediction);
    arena_free(&memory);
  }
}

/* The first volume that is not in the folder, or NULL. */
static const char *missing_volume(void) {
  static char path[4096];
  size_t i;
  json_t *v;
  json_array_foreach(fixture, i, v) {
    static const char *const keys[] = {"image", "label"};
    for (int k = 0; k < 2; k++) {
      snprintf(path, sizeof path, "%s/%s", folder, json_string_value(json_object_get(v, keys[k])));
      if (access(path, R_OK) != 0) return path;
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc > 1) {
    folder = argv[1];
    fixture_name = "real.json";
  }
  char path[4096];
  snprintf(path, sizeof path, TEST_DATA "/golden/volumes/%s", fixture_name);
  json_error_t error;
  fixture = json_load_file(path, 0, &error);
  if (!fixture) {
    printf("%s: %s\n", path, error.text);
    return 1;
  }
  const char *missing = argc > 1 ? missing_volume() : NULL;
  if (missing) {
    printf("SKIPPED: there is no %s, so nothing is compared on real volumes\n", missing);
    json_decref(fixture);
    return 77;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(volumes_are_prepared_as_monai_nibabel_and_scipy_do),
      cmocka_unit_test(label_maps_are_scored_as_scipy_and_monai_do),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  json_decref(fixture);
  return failed;
}
