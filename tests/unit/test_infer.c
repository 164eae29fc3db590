/* Sliding-window inference and export against MONAI and SciPy (tests/golden/make_metrics.py). */
#include "infer/infer.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *fixture;

static int load_fixture(void **state) {
  (void)state;
  json_error_t error;
  fixture = json_load_file(TEST_DATA "/golden/metrics/infer.json", 0, &error);
  return fixture ? 0 : -1;
}

static int free_fixture(void **state) {
  (void)state;
  json_decref(fixture);
  return 0;
}

static double number_at(const json_t *array, size_t i) {
  return json_number_value(json_array_get(array, i));
}

static void read_size(const json_t *object, const char *key, int64_t size[3]) {
  for (size_t a = 0; a < 3; a++) size[a] = (int64_t)number_at(json_object_get(object, key), a);
}

static void read_affine(const json_t *object, double affine[4][4]) {
  for (size_t r = 0; r < 4; r++)
    for (size_t c = 0; c < 4; c++)
      affine[r][c] = number_at(json_array_get(json_object_get(object, "affine"), r), c);
}

static void assert_ok(status error) {
  if (error) fail_msg("%s", error_message(error));
}

/* ---- windows ---- */

static void window_positions_are_those_of_monai(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "positions"), i, c) {
    int64_t start[64] = {0};
    const json_t *expected = json_object_get(c, "start");
    int count = window_positions(json_integer_value(json_object_get(c, "size")),
                                 json_integer_value(json_object_get(c, "window")),
                                 json_number_value(json_object_get(c, "overlap")), start, 64);
    assert_int_equal(count, json_array_size(expected));
    for (int k = 0; k < count; k++)
      assert_int_equal(start[k], (int64_t)number_at(expected, (size_t)k));
  }
}

static void positions_beyond_the_limit_are_counted_but_not_written(void **state) {
  (void)state;
  int64_t start[3] = {-1, -1, -1};
  assert_int_equal(window_positions(96, 16, 0.5, NULL, 0), 11);
  assert_int_equal(window_positions(96, 16, 0.5, start, 2), 11);
  assert_int_equal(start[1], 8);
  assert_int_equal(start[2], -1);
}

static void a_window_larger_than_the_volume_has_one_position(void **state) {
  (void)state;
  int64_t start[2] = {-1, -1};
  assert_int_equal(window_positions(10, 16, 0.5, start, 2), 1);
  assert_int_equal(start[0], 0);
}

static void gaussian_importance_is_that_of_monai(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "importance"), i, c) {
    int64_t window[3];
    read_size(c, "window", window);
    const json_t *expected = json_object_get(c, "weight");
    size_t voxels = (size_t)(window[0] * window[1] * window[2]);
    float *weight = malloc(voxels * sizeof *weight);
    window_importance(window, BLEND_GAUSSIAN, weight);
    for (size_t v = 0; v < voxels; v++) assert_float_equal(weight[v], number_at(expected, v), 3e-7);
    window_importance(window, BLEND_CONSTANT, weight);
    for (size_t v = 0; v < voxels; v++) assert_float_equal(weight[v], 1, 0);
    free(weight);
  }
}

typedef struct fake_network {
  int64_t window[3], channels;
  int windows;  /* how often it ran */
  float poison; /* added to every logit */
  int fail_at;  /* window at which it returns an error; 0 never */
} fake_network;

/* The network of make_metrics.py: three classes. */
static status run_fake(void *context, const float *image, float *logits) {
  fake_network *n = context;
  if (++n->windows == n->fail_at) return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped");
  for (int64_t x = 0; x < n->window[0]; x++)
    for (int64_t y = 0; y < n->window[1]; y++)
      for (int64_t z = 0; z < n->window[2]; z++) {
        double ramp[3] = {(double)x / (double)n->window[0], (double)y / (double)n->window[1] - 0.3,
                          0.5 - (double)z / (double)n->window[2]};
        double total = 0;
        for (int64_t c = 0; c < n->channels; c++) total += (double)image[c];
        for (int c = 0; c < 3; c++)
          *logits++ = n->poison + (float)((c + 1) * total * 0.5 + 2 * ramp[c] -
                                          (double)image[n->channels - 1] * c);
        image += n->channels;
      }
  return OK;
}

static void read_volume(const json_t *c, const char *key, int64_t channels, volume *out) {
  int64_t size[3];
  read_size(c, "size", size);
  assert_ok(volume_allocate(out, size, channels));
  const json_t *values = json_object_get(c, key);
  assert_int_equal(json_array_size(values), size[0] * size[1] * size[2] * channels);
  for (size_t v = 0; v < json_array_size(values); v++) out->data[v] = (float)number_at(values, v);
  for (int a = 0; a < 4; a++) out->affine[a][a] = 1;
}

static void blended_windows_equal_monai(void **state) {
  (void)state;
  size_t i;
  json_t *c;
  json_array_foreach(json_object_get(fixture, "sliding_window"), i, c) {
    fake_network network = {.channels = json_integer_value(json_object_get(c, "channels"))};
    inferer f = {.classes = 3, .run = run_fake, .context = &network};
    read_size(c, "window", f.window);
    memcpy(network.window, f.window, sizeof f.window);
    f.overlap = json_number_value(json_object_get(c, "overlap"));
    const char *kind = json_string_value(json_object_get(c, "blend"));
    f.blend = strcmp(kind, "gaussian") == 0 ? BLEND_GAUSSIAN : BLEND_CONSTANT;
    volume image = {0}, expected = {0}, made = {0};
    read_volume(c, "image", network.channels, &image);
    read_volume(c, "probabilities", 3, &expected);
    image.affine[1][3] = -7;
    assert_ok(sliding_window(&f, &image, &made));
    assert_int_equal(made.channels, 3);
    assert_memory_equal(made.size, image.size, sizeof made.size);
    assert_memory_equal(made.affine, image.affine, sizeof made.affine);
    for (int64_t v = 0; v < made.size[0] * made.size[1] * made.size[2] * 3; v++)
      assert_float_equal(made.data[v], expected.data[v], 5e-6);
    volume_free(&image);
    volume_free(&expected);
    volume_free(&made);
  }
}

static void a_network_that_diverged_or_failed_is_an_error(void **state) {
  (void)state;
  volume image = {0}, made = {0};
  assert_ok(volume_allocate(&image, (const int64_t[3]){6, 5, 4}, 1));
  fake_network network = {.channels = 1, .window = {4, 4, 4}, .poison = NAN};
  inferer f = {
      .window = {4, 4, 4}, .classes = 3, .overlap = 0.5, .run = run_fake, .context = &network};
  status error = sliding_window(&f, &image, &made);
  assert_int_equal(error_code_of(error), ERROR_NUMERIC);
  assert_non_null(strstr(error_message(error), "(0, 0, 0)"));
  assert_null(made.data);
  error_free(error);
  network = (fake_network){.channels = 1, .window = {4, 4, 4}, .fail_at = 2};
  error = sliding_window(&f, &image, &made);
  assert_int_equal(error_code_of(error), ERROR_INTERRUPTED);
  assert_null(made.data);
  assert_int_equal(network.windows, 2);
  error_free(error);
  volume_free(&image);
}

/* ---- export ---- */

static void multiply(const double a[4][4], const double b[4][4], double out[4][4]) {
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      out[r][c] = 0;
      for (int k = 0; k < 4; k++) out[r][c] += a[r][k] * b[k][c];
    }
}

static uint32_t random_state = 1;

static float random_float(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return (float)(random_state >> 8) / 16777216.0f;
}

static void make_probabilities(const int64_t size[3], int64_t classes, volume *out) {
  assert_ok(volume_allocate(out, size, classes));
  for (int64_t v = 0; v < size[0] * size[1] * size[2] * classes; v++) out->data[v] = random_float();
  /* Oblique, anisotropic: what an export has to see through. */
  const double affine[4][4] = {
      {-0.68, 0.21, 0.9, 101.5}, {0.17, 0.7, -1.7, -80.25}, {-0.1, 0.11, 4.6, 12.0}, {0, 0, 0, 1}};
  memcpy(out->affine, affine, sizeof affine);
}

static int32_t class_at(const volume *p, int64_t x, int64_t y, int64_t z) {
  if (x < 0 || x >= p->size[0] || y < 0 || y >= p->size[1] || z < 0 || z >= p->size[2]) return 0;
  const float *values = p->data + ((x * p->size[1] + y) * p->size[2] + z) * p->channels;
  int32_t best = 0;
  for (int32_t c = 1; c < p->channels; c++)
    if (values[c] > values[best]) best = c;
  return best;
}

static void every_signed_axis_permutation_is_an_exact_copy(void **state) {
  (void)state;
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  static const int64_t offsets[3][3] = {{0, 0, 0}, {2, -1, 3}, {-4, 40, 0}};
  const int64_t size[3] = {5, 6, 7}, target_size[3] = {9, 8, 6};
  volume p = {0};
  make_probabilities(size, 4, &p);
  for (int k = 0; k < 48 * 3; k++) {
    const int *order = orders[k % 6];
    const int64_t *offset = offsets[k / 48];
    int64_t sign[3], shift[3];
    double to_prepared[4][4] = {{0}}, affine[4][4];
    for (int r = 0; r < 3; r++) {
      bool flip = k % 48 / 6 >> r & 1;
      sign[r] = flip ? -1 : 1;
      shift[r] = offset[r] + (flip ? size[r] - 1 : 0);
      to_prepared[r][order[r]] = (double)sign[r];
      to_prepared[r][3] = (double)shift[r];
    }
    to_prepared[3][3] = 1;
    multiply(p.affine, to_prepared, affine);
    for (int r = 0; r < 3; r++)
      for (int c = 0; c < 4; c++)
        affine[r][c] = (double)(float)affine[r][c]; /* as a header has it */
    labels made = {0};
    assert_ok(export_labels(&p, target_size, affine, &made));
    assert_memory_equal(made.size, target_size, sizeof made.size);
    assert_memory_equal(made.affine, affine, sizeof made.affine);
    int64_t t[3];
    const int32_t *label = made.data;
    for (t[0] = 0; t[0] < target_size[0]; t[0]++)
      for (t[1] = 0; t[1] < target_size[1]; t[1]++)
        for (t[2] = 0; t[2] < target_size[2]; t[2]++)
          assert_int_equal(*label++, class_at(&p, sign[0] * t[order[0]] + shift[0],
                                              sign[1] * t[order[1]] + shift[1],
                                              sign[2] * t[order[2]] + shift[2]));
    labels_free(&made);
  }
  volume_free(&p);
}

static void resampled_probabilities_equal_scipy(void **state) {
  (void)state;
  json_t *c = json_object_get(fixture, "export"), *target;
  volume p = {0};
  read_volume(c, "probabilities", 3, &p);
  read_affine(c, p.affine);
  size_t i;
  json_array_foreach(json_object_get(c, "targets"), i, target) {
    int64_t size[3];
    double affine[4][4];
    labels made = {0};
    read_size(target, "size", size);
    read_affine(target, affine);
    assert_ok(export_labels(&p, size, affine, &made));
    const json_t *expected = json_object_get(target, "label");
    for (size_t v = 0; v < json_array_size(expected); v++) {
      int32_t wanted = (int32_t)number_at(expected, v);
      if (wanted >= 0 && made.data[v] != wanted)
        fail_msg("%s: voxel %zu is %d, expected %d",
                 json_string_value(json_object_get(target, "name")), v, (int)made.data[v],
                 (int)wanted);
    }
    labels_free(&made);
  }
  volume_free(&p);
}

static void equal_probabilities_give_the_lowest_class(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){3, 3, 3}, 4, &p);
  for (int v = 0; v < 27; v++)
    memcpy(p.data + (ptrdiff_t)v * 4, (const float[4]){0.1f, 0.4f, 0.1f, 0.4f}, 4 * sizeof(float));
  double half[4][4] = {{0.5, 0, 0, 0.1}, {0, 0.5, 0, 0}, {0, 0, 0.5, 0}, {0, 0, 0, 1}},
         affine[4][4];
  multiply(p.affine, half, affine);
  assert_ok(export_labels(&p, (const int64_t[3]){5, 5, 5}, affine, &made));
  for (int v = 0; v < 125; v++) assert_int_equal(made.data[v], 1);
  labels_free(&made);
  assert_ok(export_labels(&p, p.size, p.affine, &made));
  for (int v = 0; v < 27; v++) assert_int_equal(made.data[v], 1);
  labels_free(&made);
  volume_free(&p);
}

static void a_grid_far_away_is_background(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){3, 3, 3}, 2, &p);
  double affine[4][4];
  memcpy(affine, p.affine, sizeof affine);
  affine[0][3] = 1e30;
  affine[0][0] *= 1.1;
  assert_ok(export_labels(&p, (const int64_t[3]){4, 4, 4}, affine, &made));
  for (int v = 0; v < 64; v++) assert_int_equal(made.data[v], 0);
  labels_free(&made);
  volume_free(&p);
}

static void a_singular_affine_and_too_many_classes_are_errors(void **state) {
  (void)state;
  volume p = {0};
  labels made = {0};
  make_probabilities((const int64_t[3]){2, 2, 2}, 2, &p);
  double flat[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 1}};
  status error = export_labels(&p, p.size, flat, &made);
  assert_int_equal(error_code_of(error), ERROR_DATA);
  assert_non_null(strstr(error_message(error), "target"));
  error_free(error);
  p.channels = 300;
  error = export_labels(&p, p.size, p.affine, &made);
  assert_int_equal(error_code_of(error), ERROR_DATA);
  error_free(error);
  assert_null(made.data);
  volume_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(window_positions_are_those_of_monai),
      cmocka_unit_test(positions_beyond_the_limit_are_counted_but_not_written),
      cmocka_unit_test(a_window_larger_than_the_volume_has_one_position),
      cmocka_unit_test(gaussian_importance_is_that_of_monai),
      cmocka_unit_test(blended_windows_equal_monai),
      cmocka_unit_test(a_network_that_diverged_or_failed_is_an_error),
      cmocka_unit_test(every_signed_axis_permutation_is_an_exact_copy),
      cmocka_unit_test(resampled_probabilities_equal_scipy),
      cmocka_unit_test(equal_probabilities_give_the_lowest_class),
      cmocka_unit_test(a_grid_far_away_is_background),
      cmocka_unit_test(a_singular_affine_and_too_many_classes_are_errors),
  };
  return cmocka_run_group_tests(tests, load_fixture, free_fixture);
}
