/* Every register tile of every kernel set against the sums that define it. */
#include "ops/kernels/gemm.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS = 3, K = 7, ROOM = 8192 };

static float a[ROOM], b[ROOM], c[ROOM], expected[ROOM], bias[64];

static void fill_all(uint64_t trial) {
  rng r = rng_open((rng_key){5, trial}, 1);
  for (int i = 0; i < ROOM; i++) {
    a[i] = rng_normal(&r);
    b[i] = rng_normal(&r);
    c[i] = expected[i] = rng_normal(&r);
  }
  for (int i = 0; i < 64; i++) bias[i] = rng_normal(&r);
}

static void assert_agree(const char *what, const gemm_kernels *kernels, int rows, int vectors) {
  for (int i = 0; i < ROOM; i++)
    if (fabsf(c[i] - expected[i]) > 2e-4f)
      fail_msg("%s %s, %d rows × %d vectors: C[%d] is %g, expected %g", kernels->name, what, rows,
               vectors, i, (double)c[i], (double)expected[i]);
}

/* First and last row from elsewhere, as at the border of a volume. */
static const float *row_of(const gemm_segment *s, ptrdiff_t stride, int row, int rows) {
  if (row == 0) return s->first;
  if (row == rows - 1) return s->last;
  return s->middle + row * stride;
}

static void one_tile(const gemm_kernels *kernels, int rows, int vectors, int columns,
                     bool accumulate) {
  int width = vectors * kernels->lanes, stride = 11, c_stride = width + 3;
  fill_all((uint64_t)(rows * 8 + vectors));
  gemm_segment segments[SEGMENTS];
  for (int s = 0; s < SEGMENTS; s++)
    segments[s] =
        (gemm_segment){a + 1000 * s + 500, a + 1000 * s, a + 1000 * s + 600, b + 1000 * s, a, 64};
  gemm_tile tile = {.segments = segments,
                    .segment_count = SEGMENTS,
                    .k = K,
                    .a_row = stride * 4,
                    .a_k = 8,
                    .b_k = width * 4,
                    .c = c,
                    .c_row = c_stride * 4,
                    .columns = columns,
                    .accumulate = accumulate,
                    .bias = bias};
  for (int m = 0; m < rows; m++)
    for (int j = 0; j < columns; j++) {
      double sum = accumulate ? expected[m * c_stride + j] : bias[j];
      for (int s = 0; s < SEGMENTS; s++)
        for (int k = 0; k < K; k++)
          sum +=
              (double)row_of(&segments[s], stride, m, rows)[2 * k] * segments[s].b[k * width + j];
      expected[m * c_stride + j] = (float)sum;
    }
  kernels->tile[vectors][rows](&tile);
  assert_agree("tile", kernels, rows, vectors);
}

static void tiles_add_products(void **state) {
  (void)state;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int i = 0; i < count; i++)
    for (int vectors = 1; vectors <= sets[i]->max_vectors; vectors++)
      for (int rows = 1; rows <= sets[i]->max_rows[vectors]; rows++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
          one_tile(sets[i], rows, vectors, vectors * sets[i]->lanes, accumulate);
          one_tile(sets[i], rows, vectors, vectors * sets[i]->lanes - 3, accumulate);
        }
}

static void sliding_tiles_add_three_taps(void **state) {
  (void)state;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int i = 0; i < count; i++)
    for (int rows = 1; rows <= sets[i]->max_rows[1]; rows++) {
      int lanes = sets[i]->lanes, stride = 11, tap = K * lanes;
      fill_all((uint64_t)rows);
      gemm_segment segments[SEGMENTS];
      for (int s = 0; s < SEGMENTS; s++)
        segments[s] = (gemm_segment){
            a + 1000 * s + 500, a + 1000 * s, a + 1000 * s + 600, b + 1000 * s, a, 64};
      gemm_tile tile = {.segments = segments,
                        .segment_count = SEGMENTS,
                        .k = K,
                        .a_row = stride * 4,
                        .c = c,
                        .c_row = lanes * 4,
                        .columns = lanes,
                        .tap = tap * 4,
                        .bias = bias};
      for (int m = 0; m < rows; m++)
        for (int j = 0; j < lanes; j++) {
          double sum = bias[j];
          for (int s = 0; s < SEGMENTS; s++)
            for (int t = 0; t < 3; t++)
              for (int k = 0; k < K; k++)
                sum += (double)row_of(&segments[s], stride, m + t, rows + 2)[k] *
                       segments[s].b[t * tap + k * lanes + j];
          expected[m * lanes + j] = (float)sum;
        }
      sets[i]->slide[rows](&tile);
      assert_agree("slide", sets[i], rows, 1);
    }
}

static void sliding_sums_add_three_taps(void **state) {
  (void)state;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int i = 0; i < count; i++)
    for (int rows = 1; rows <= sets[i]->slide_sum_rows; rows++)
      for (int accumulate = 0; accumulate < 2; accumulate++) {
        int lanes = sets[i]->lanes, a_k = 13, b_k = lanes + 1, tap = rows * lanes + 5;
        fill_all((uint64_t)rows);
        gemm_segment segments[SEGMENTS];
        for (int s = 0; s < SEGMENTS; s++)
          segments[s] = (gemm_segment){
              b + 1000 * s + 800, a + 1000 * s, b + 1000 * s + 900, b + 1000 * s, a, 64};
        gemm_tile tile = {.segments = segments,
                          .segment_count = SEGMENTS,
                          .k = K,
                          .a_k = a_k * 4,
                          .b_k = b_k * 4,
                          .c = c,
                          .c_row = lanes * 4,
                          .columns = lanes,
                          .accumulate = accumulate,
                          .tap = tap * 4};
        for (int t = 0; t < 3; t++)
          for (int m = 0; m < rows; m++)
            for (int j = 0; j < lanes; j++) {
              double sum = accumulate ? expected[t * tap + m * lanes + j] : 0;
              for (int s = 0; s < SEGMENTS; s++)
                for (int k = 0; k < K; k++) {
                  int at = k + 1 - t;
                  const float *row = at < 0    ? segments[s].first
                                     : at == K ? segments[s].last
                                               : segments[s].b + at * b_k;
                  sum += (double)segments[s].middle[k * a_k + m] * row[j];
                }
              expected[t * tap + m * lanes + j] = (float)sum;
            }
        sets[i]->slide_sum[rows](&tile);
        assert_agree("sliding sum", sets[i], rows, 1);
      }
}

static void squares_transpose(void **state) {
  (void)state;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int i = 0; i < count; i++) {
    int lanes = sets[i]->lanes;
    fill_all(1);
    for (int m = 0; m < lanes; m++)
      for (int j = 0; j < lanes; j++) expected[j * 40 + m] = a[m * 33 + j];
    sets[i]->transpose(a, 33, c, 40);
    assert_agree("transpose", sets[i], lanes, 1);
  }
}

static void extents_split_into_tiles_that_exist(void **state) {
  (void)state;
  const gemm_kernels *sets[GEMM_MAX_SETS];
  int count = gemm_available(sets);
  for (int i = 0; i < count; i++)
    for (int64_t rows = 1; rows < 100; rows++)
      for (int64_t columns = 1; columns < 100; columns++) {
        int vectors = gemm_vectors(sets[i], rows, columns);
        assert_in_range(vectors, 1, sets[i]->max_vectors);
        assert_true((vectors - 1) * sets[i]->lanes < columns);
        int64_t tiles = gemm_tile_count(rows, sets[i]->max_rows[vectors]);
        assert_int_equal(gemm_tile_begin(rows, tiles, 0), 0);
        assert_int_equal(gemm_tile_begin(rows, tiles, tiles), rows);
        for (int64_t t = 0; t < tiles; t++) {
          int64_t height = gemm_tile_begin(rows, tiles, t + 1) - gemm_tile_begin(rows, tiles, t);
          assert_in_range(height, 1, sets[i]->max_rows[vectors]);
          assert_non_null(sets[i]->tile[vectors][height]);
        }
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tiles_add_products),
      cmocka_unit_test(sliding_tiles_add_three_taps),
      cmocka_unit_test(sliding_sums_add_three_taps),
      cmocka_unit_test(squares_transpose),
      cmocka_unit_test(extents_split_into_tiles_that_exist),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
