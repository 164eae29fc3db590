/* How convolutions are cut into tiles for tensor cores, and which voxels their taps read. */
#include "ops/conv/tiles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- windows ------------------------------------------------------------------------------------------- */

enum { MOST = 32 };

/* read[o][k]: the voxel that tap k reads for voxel o of the result; −1: none is asked for. */
typedef struct reading {
  int voxel[MOST][MOST];
} reading;

static void nothing_read(reading *r) {
  for (int o = 0; o < MOST; o++)
    for (int k = 0; k < MOST; k++) r->voxel[o][k] = -1;
}

/* Every tap of a window, once. */
static void read_window(const axis_window *w, int extent, reading *r) {
  for (int i = 0; i < w->count; i++)
    for (int j = 0; j < w->taps; j++) {
      int from = w->begin + i * w->row_step + j * w->tap_step;
      int *to = &r->voxel[w->first + i * w->step][w->tap_first + j * w->tap_stride];
      if (from < 0 || from >= extent) continue;
      assert_int_equal(*to, -1);
      *to = from;
    }
}

/* By the definition: image voxel o · stride + k · dilation − padding belongs to voxel o of the result. */
static void check_axis(const tile_axis *a) {
  reading forward, backward, defined, defined_backward;
  nothing_read(&forward);
  nothing_read(&backward);
  nothing_read(&defined);
  nothing_read(&defined_backward);
  for (int o = 0; o < a->out; o++)
    for (int k = 0; k < a->kernel; k++) {
      int voxel = o * a->stride + k * a->dilation - a->padding;
      if (voxel < 0 || voxel >= a->image) continue;
      defined.voxel[o][k] = voxel;
      defined_backward.voxel[voxel][k] = o;
    }
  axis_window w = forward_window(a);
  read_window(&w, a->image, &forward);
  int covered = 0;
  for (int residue = 0; residue < backward_windows(a); residue++) {
    w = backward_window(a, residue);
    read_window(&w, a->out, &backward);
    covered += w.count;
  }
  assert_int_equal(covered, a->image);
  assert_memory_equal(&forward, &defined, sizeof forward);
  assert_memory_equal(&backward, &defined_backward, sizeof backward);
}

static void windows_read_what_the_definition_says_once(void **state) {
  (void)state;
  int checked = 0;
  for (int image = 1; image <= 13; image++)
    for (int kernel = 1; kernel <= 5; kernel++)
      for (int stride = 1; stride <= 7; stride++)
        for (int dilation = 1; dilation <= 6; dilation++)
          for (int padding = 0; padding <= 9; padding += 3) {
            int spare = image + 2 * padding - dilation * (kernel - 1) - 1;
            if (spare < 0 || dilation * (kernel - 1) >= MOST) continue;
            tile_axis a = {image, spare / stride + 1, kernel, stride, padding, dilation};
            check_axis(&a);
            checked++;
          }
  assert_true(checked > 3000);
}

/* ---- tilings ------------------------------------------------------------------------------------------- */

static convolution cubic(convolution_pass pass, int64_t channels, int64_t features, int64_t extent,
                         int64_t kernel, int64_t stride) {
  convolution c = {
      .pass = pass, .batch = 2, .channels = channels, .features = features, .groups = 1, .bf16 = 1};
  for (int a = 0; a < 3; a++) {
    c.image[a] = extent;
    c.kernel[a] = kernel;
    c.stride[a] = stride;
    c.dilation[a] = 1;
    c.padding[a] = (kernel - 1) / 2;
    c.out[a] = (extent + 2 * c.padding[a] - kernel) / stride + 1;
  }
  return c;
}

static void only_rounded_factors_and_groups_of_eight_channels_fit(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 3, 1);
  assert_true(tiling_of(&c).fits);
  c.bf16 = 0;
  assert_false(tiling_of(&c).fits);
  c.tf32 = 1;
  assert_true(tiling_of(&c).fits);
  c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 3, 1);
  c.groups = 4;
  assert_true(tiling_of(&c).fits);
  c.groups = 8; /* four channels a group */
  assert_false(tiling_of(&c).fits);
  c = cubic(CONVOLUTION_FORWARD, 1, 2, 16, 3, 1);
  assert_true(tiling_of(&c).fits);
  c.batch = (int64_t)1 << 32;
  assert_false(tiling_of(&c).fits);
}

static void columns_follow_the_width_of_the_result(void **state) {
  (void)state;
  static const struct {
    int64_t features;
    int columns;
    int64_t tiles;
  } widths[] = {{1, 32, 1},    {32, 32, 1},  {33, 64, 1},   {64, 64, 1},  {65, 128, 1},
                {128, 128, 1}, {192, 64, 3}, {320, 128, 3}, {384, 128, 3}};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    convolution c = cubic(CONVOLUTION_FORWARD, 32, widths[i].features, 16, 3, 1);
    conv_tiling t = tiling_of(&c);
    assert_int_equal(t.columns, widths[i].columns);
    assert_int_equal(t.column_tiles, widths[i].tiles);
    c = cubic(CONVOLUTION_BACKWARD_DATA, widths[i].features, 32, 16, 3, 1);
    assert_int_equal(tiling_of(&c).columns, widths[i].columns);
  }
}

static void strided_gradients_of_the_data_have_a_window_for_each_residue(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_BACKWARD_DATA, 32, 64, 17, 3, 2);
  conv_tiling t = tiling_of(&c);
  assert_int_equal(t.windows, 8);
  assert_int_equal(t.rows, 2 * 9 * 9 * 9);
  assert_int_equal(t.row_tiles, (2 * 9 * 9 * 9 + 127) / 128);
  c.pass = CONVOLUTION_FORWARD;
  assert_int_equal(tiling_of(&c).windows, 1);
  c = cubic(CONVOLUTION_BACKWARD_DATA, 32, 64, 3, 3, 8);
  assert_int_equal(tiling_of(&c).windows, 27); /* no voxel has another residue */
}

static void a_window_for_every_voxel_stays_with_the_plain_kernels(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_BACKWARD_DATA, 8, 8, 64, 3, 64);
  c.batch = 1;
  assert_false(tiling_of(&c).fits);
  c.pass = CONVOLUTION_FORWARD;
  assert_true(tiling_of(&c).fits);
  c = cubic(CONVOLUTION_BACKWARD_DATA, 8, 8, 64, 3, 4);
  assert_true(tiling_of(&c).fits);
}

static void narrow_inputs_share_a_step_between_taps(void **state) {
  (void)state;
  static const int widths[][2] = {{1, 8}, {8, 8}, {9, 16}, {16, 16}, {17, 32}, {320, 32}};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    convolution c = cubic(CONVOLUTION_FORWARD, widths[i][0], 32, 16, 3, 1);
    assert_int_equal(tiling_of(&c).width, widths[i][1]);
    c.bf16 = 0, c.tf32 = 1;
    assert_int_equal(tiling_of(&c).width, widths[i][1] < TF32_DEPTH ? widths[i][1] : TF32_DEPTH);
  }
}

static void what_is_read_often_or_has_odd_channels_is_rounded_first(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 3, 1);
  assert_true(tiling_of(&c).copies_gathered);
  c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 1, 1);
  assert_false(tiling_of(&c).copies_gathered);
  assert_int_equal(tiling_of(&c).gathered_width, 32);
  c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 3, 1);
  c.bf16 = 0, c.tf32 = 1;
  assert_false(tiling_of(&c).copies_gathered); /* it would be as large */
  c.channels = 33;
  assert_true(tiling_of(&c).copies_gathered);
  c = cubic(CONVOLUTION_FORWARD, 30, 64, 16, 1, 1);
  assert_true(tiling_of(&c).copies_gathered);
  assert_int_equal(tiling_of(&c).gathered_width, 32);
  /* Every voxel under one tap. */
  c = cubic(CONVOLUTION_FORWARD, 32, 64, 16, 2, 2);
  assert_false(tiling_of(&c).copies_gathered);
  c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 12, 20, 16, 3, 1);
  assert_true(tiling_of(&c).copies_gathered);
  assert_true(tiling_of(&c).copies_other); /* 27 · 16 rows are four tiles, which all read it */
  c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 8, 20, 16, 3, 1);
  assert_false(tiling_of(&c).copies_other); /* 27 · 8 rows are two */
}

static void pieces_fill_the_card_and_stay_in_memory(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_FORWARD, 32, 32, 128, 3, 1);
  assert_int_equal(tiling_of(&c).pieces, 1);
  c = cubic(CONVOLUTION_FORWARD, 320, 320, 4, 3, 1);
  conv_tiling t = tiling_of(&c);
  assert_int_equal(t.row_tiles * t.column_tiles, 3);
  assert_int_equal(t.pieces, 27 * 10 / 8); /* eight steps each */
  c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 32, 32, 128, 3, 1);
  t = tiling_of(&c);
  assert_int_equal(t.rows, 27 * 32);
  assert_true(t.pieces * t.row_tiles * t.column_tiles >= 528);
  c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 1024, 1024, 8, 3, 1);
  t = tiling_of(&c);
  assert_int_equal(t.pieces, 1);
}

static void what_a_library_is_slower_at(void **state) {
  (void)state;
  convolution c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 32, 32, 48, 3, 1);
  assert_true(tiles_are_faster(&c));
  c.bf16 = 0;
  assert_false(tiles_are_faster(&c));
  c = cubic(CONVOLUTION_BACKWARD_WEIGHT, 128, 128, 12, 3, 1); /* few voxels */
  assert_false(tiles_are_faster(&c));
  c = cubic(CONVOLUTION_BACKWARD_DATA, 32, 16, 96, 3, 1);
  assert_true(tiles_are_faster(&c));
  c = cubic(CONVOLUTION_BACKWARD_DATA, 16, 32, 96, 3, 1);
  assert_false(tiles_are_faster(&c));
  c = cubic(CONVOLUTION_FORWARD, 1, 48, 96, 3, 1);
  assert_true(tiles_are_faster(&c) && tiling_of(&c).fits);
  c = cubic(CONVOLUTION_FORWARD, 16, 16, 96, 3, 1);
  assert_false(tiles_are_faster(&c));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(windows_read_what_the_definition_says_once),
      cmocka_unit_test(only_rounded_factors_and_groups_of_eight_channels_fit),
      cmocka_unit_test(columns_follow_the_width_of_the_result),
      cmocka_unit_test(strided_gradients_of_the_data_have_a_window_for_each_residue),
      cmocka_unit_test(a_window_for_every_voxel_stays_with_the_plain_kernels),
      cmocka_unit_test(narrow_inputs_share_a_step_between_taps),
      cmocka_unit_test(what_is_read_often_or_has_odd_channels_is_rounded_first),
      cmocka_unit_test(pieces_fill_the_card_and_stay_in_memory),
      cmocka_unit_test(what_a_library_is_slower_at),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
