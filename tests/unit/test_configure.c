/* Spacing, crops, levels and slabs by the rules of configure.h, against plans that nnU-Net is known to make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "configure/configure.h"

static void expect_levels(const configuration *c, int levels, const int64_t (*strides)[3],
                          const int64_t (*kernels)[3]) {
  assert_int_equal(c->levels, levels);
  for (int l = 0; l < levels; l++)
    for (int a = 0; a < 3; a++)
      if (c->strides[l][a] != strides[l][a] || c->kernels[l][a] != kernels[l][a])
        fail_msg("level %d along %c: stride %lld, kernel %lld", l, "xyz"[a],
                 (long long)c -> strides[l][a], (long long)c -> kernels[l][a]);
}

/* Task04_Hippocampus: 40 × 56 × 40, four levels. */
static void cubes_are_halved_alike(void **state) {
  (void)state;
  configuration c = {.spacing_mm = {1, 1, 1}, .median_size = {36, 50, 35}, .crop = {36, 50, 35}};
  static const int64_t strides[][3] = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}, {2, 2, 2}};
  static const int64_t kernels[][3] = {{3, 3, 3}, {3, 3, 3}, {3, 3, 3}, {3, 3, 3}};
  configure_levels(&c);
  expect_levels(&c, 4, strides, kernels);
  assert_true(c.crop[0] == 40 && c.crop[1] == 56 && c.crop[2] == 40);
  configure_pretext(&c);
  assert_int_equal(c.slab_axis, 1);
  assert_int_equal(c.slabs, 7); /* places of the lowest level that tells the order */
  assert_int_equal(c.tapped, 3);
  assert_true(c.patch[0] == 8 && c.patch[1] == 8 && c.patch[2] == 8);
}

/* BTCV: 192 × 192 × 48 at 0.76 × 0.76 × 3 mm, kernels of one slice at first. */
static void thick_slices_are_halved_later(void **state) {
  (void)state;
  configuration c = {
      .spacing_mm = {0.76, 0.76, 3}, .median_size = {512, 512, 148}, .crop = {192, 192, 48}};
  static const int64_t strides[][3] = {{1, 1, 1}, {2, 2, 1}, {2, 2, 2},
                                       {2, 2, 2}, {2, 2, 2}, {2, 2, 1}};
  static const int64_t kernels[][3] = {{3, 3, 1}, {3, 3, 3}, {3, 3, 3},
                                       {3, 3, 3}, {3, 3, 3}, {3, 3, 3}};
  configure_levels(&c);
  expect_levels(&c, 6, strides, kernels);
  assert_true(c.crop[0] == 192 && c.crop[1] == 192 && c.crop[2] == 48);
}

static void a_volume_of_few_voxels_has_one_level(void **state) {
  (void)state;
  configuration c = {.spacing_mm = {1, 1, 1}, .median_size = {7, 5, 6}, .crop = {7, 5, 6}};
  configure_levels(&c);
  assert_int_equal(c.levels, 1);
  configure_pretext(&c);
  assert_int_equal(c.slabs, 0); /* no level tells an order */
}

/* Task04_Hippocampus: 260 cases, nine crops a step; fewer where the memory has no room for them. */
static void a_batch_holds_a_twentieth_of_the_voxels(void **state) {
  (void)state;
  configuration c = {.median_size = {36, 50, 35},
                     .crop = {40, 56, 40},
                     .parameters = 1 << 20,
                     .step_bytes = (size_t)216 << 20}; /* 16 MiB of them for weights and moments */
  configure_options o = {.memory_bytes = (int64_t)8 << 30, .batch = 2};
  configure_batch(&o, 260, &c);
  assert_int_equal(c.planned_batch, 9);
  o.memory_bytes = (int64_t)420 << 20;
  configure_batch(&o, 260, &c);
  assert_int_equal(c.planned_batch, 4);
  configure_batch(&o, 20, &c);
  assert_int_equal(c.planned_batch, 2);
}

static void slices_three_times_as_thick_take_the_finest_tenth(void **state) {
  (void)state;
  double spacings[11][3], sizes[11][3];
  for (int i = 0; i < 11; i++)
    for (int a = 0; a < 3; a++) {
      spacings[i][a] = a < 2 ? 0.8 : 2 + 0.5 * i; /* z: 2 … 7, the tenth percentile 2.5 */
      sizes[i][a] = a < 2 ? 512 : 60;
    }
  configuration c = {0};
  configure_spacing(spacings[0], sizes[0], 11, &c);
  assert_true(c.is_coarse && c.coarse_axis == 2);
  assert_true(c.spacing_mm[0] == 0.8 && c.spacing_mm[1] == 0.8 && c.spacing_mm[2] == 2.5);
  for (int i = 0; i < 11; i++) sizes[i][2] = 200; /* slices enough: the median stands */
  configure_spacing(spacings[0], sizes[0], 11, &c);
  assert_false(c.is_coarse);
  assert_true(c.spacing_mm[2] == 4.5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cubes_are_halved_alike),
      cmocka_unit_test(thick_slices_are_halved_later),
      cmocka_unit_test(a_volume_of_few_voxels_has_one_level),
      cmocka_unit_test(a_batch_holds_a_twentieth_of_the_voxels),
      cmocka_unit_test(slices_three_times_as_thick_take_the_finest_tenth),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
