/* Every register tile of every kernel set against the sums that define it. */
#include "ops/kernels/bf16.h"
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

/* A float, or two in bf16. */
static float random_factor(rng *r, bool bf16) {
  float x[2] = {rng_normal(r), 0}, word;
  if (!bf16) return x[0];
  x[1] = rng_normal(r);
  bf16_pair pair;
  bf16_pair_neighbours(&pair, x, 2, 1, 2);
  memcpy(&word, &pair, sizeof word);
  return word;
}

static double product_of(float x, float y, bool bf16) {
  if (!bf16) return (double)x * (double)y;
  uint32_t p, q, halves[4];
  memcpy(&p, &x, sizeof p);
  memcpy(&q, &y, sizeof q);
  halves[0] = p << 16, halves[1] = q << 16, halves[2] = p & 0xffff0000, halves[3] = q & 0xffff0000;
  float f[4];
  memcpy(f, halves, sizeof f);
  return (double)f[0] * (double)f[1] + (double)f[2] * (double)f[3];
}

static void fill_all(uint64_t trial, bool bf16) {
  rng r = rng_open((rng_key){5, trial}, 1);
  for (int i = 0; i < ROOM; i++) {
    a[i] = random_factor(&r, bf16);
    b[i] = random_factor(&r, bf16);
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
  fill_all((uint64_t)(rows * 8 + vectors), kernels->bf16);
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
          sum += product_of(row_of(&segments[s], stride, m, rows)[2 * k],
                            segments[s].b[k * width + j], kernels->bf16);
      expected[m * c_stride + j] = (float)sum;
    }
  kernels->tile[vectors][rows](&tile);
  assert_agree("tile", kernels, rows, vectors);
}

/* Of f32 and of bf16. */
static int every_set(const gemm_kernels *sets[2 * GEMM_MAX_SETS]) {
  int count = gemm_available(sets);
  return count + gemm_available_bf16(sets + count);
}

static void tiles_add_products(void **state) {
  (void)state;
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = every_set(sets);
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
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = every_set(sets);
  for (int i = 0; i < count; i++)
    for (int rows = 1; rows <= sets[i]->max_rows[1]; rows++) {
      int lanes = sets[i]->lanes, stride = 11, tap = K * lanes;
      fill_all((uint64_t)rows, sets[i]->bf16);
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
                sum += product_of(row_of(&segments[s], stride, m + t, rows + 2)[k],
                                  segments[s].b[t * tap + k * lanes + j], sets[i]->bf16);
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
        fill_all((uint64_t)rows, false);
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

static void factors_are_rounded_to_the_nearest_bf16(void **state) {
  (void)state;
  static const struct {
    uint32_t from, to;
  } cases[] = {
      {0x3f800000, 0x3f80},                       /* 1 */
      {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, /* ties go to even */
      {0x3f808001, 0x3f81}, {0x3f817fff, 0x3f81}, /* beside them */
      {0xbf808001, 0xbf81},                       /* the sign stays */
      {0x7f7fffff, 0x7f80},                       /* the largest f32 is beyond the largest bf16 */
      {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, /* infinity */
      {0x7f800001, 0x7fc0}, {0xffc12345, 0xffc1}, /* NaN stays NaN, quiet */
      {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x00018000, 0x0002}, /* zeros, subnormals */
  };
  enum { CASES = sizeof cases / sizeof *cases };
  float x[CASES];
  for (int i = 0; i < CASES; i++) {
    memcpy(&x[i], &cases[i].from, sizeof x[i]);
    assert_int_equal(bf16_bits(x[i]), cases[i].to);
  }
  bf16_pair pairs[CASES], zeros[CASES], other[CASES];
  bf16_pair_rows(pairs, x, x + 1, CASES - 1);
  bf16_pair_rows(zeros, NULL, x, CASES);
  memcpy(other, zeros, sizeof other);
  bf16_set_first(other, x, CASES);
  for (int i = 0; i < CASES; i++) {
    if (i < CASES - 1) assert_int_equal(pairs[i], cases[i].to | cases[i + 1].to << 16);
    assert_int_equal(zeros[i], cases[i].to << 16);
    assert_int_equal(other[i], cases[i].to | cases[i].to << 16);
  }
  /* An odd row ends with half a word. */
  bf16_pair_neighbours(pairs, x, 3, 2, 3);
  assert_int_equal(pairs[1], cases[2].to);
  assert_int_equal(pairs[2], cases[3].to | cases[4].to << 16);
  assert_int_equal(pairs[3], cases[5].to);
}

/* Shorter and longer than a vector, even and odd, rows side by side and apart. */
static void matrices_become_pairs_along_either_axis(void **state) {
  (void)state;
  static bf16_pair words[ROOM];
  fill_all(3, false);
  for (int rows = 1; rows <= 5; rows++)
    for (int width = 1; width <= 70; width++)
      for (int gap = 0; gap <= 3; gap += 3) {
        int row = width + gap;
        bf16_pair_neighbours(words, a, row, rows, width);
        for (int r = 0; r < rows; r++)
          for (int i = 0; i < width; i += 2) {
            uint32_t next = i + 1 < width ? bf16_bits(a[r * row + i + 1]) : 0;
            uint32_t word = words[r * bf16_pairs(width) + i / 2];
            assert_int_equal(word, bf16_bits(a[r * row + i]) | next << 16);
          }
        bf16_pair_columns(words, row, a, row, rows, width);
        for (int r = 0; r < rows; r += 2)
          for (int i = 0; i < width; i++) {
            uint32_t next = r + 1 < rows ? bf16_bits(a[(r + 1) * row + i]) : 0;
            assert_int_equal(words[r / 2 * row + i], bf16_bits(a[r * row + i]) | next << 16);
          }
      }
}

static void squares_transpose(void **state) {
  (void)state;
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = every_set(sets);
  for (int i = 0; i < count; i++) {
    int lanes = sets[i]->lanes;
    fill_all(1, false);
    for (int m = 0; m < lanes; m++)
      for (int j = 0; j < lanes; j++) expected[j * 40 + m] = a[m * 33 + j];
    sets[i]->transpose(a, 33, c, 40);
    assert_agree("transpose", sets[i], lanes, 1);
  }
}

/* No place beside the matrix may change. */
static void matrices_transpose(void **state) {
  (void)state;
  static const int extents[] = {1, 3, 4, 6, 8, 13, 16, 35};
  enum { COUNT = sizeof extents / sizeof *extents };
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = every_set(sets);
  for (int k = 0; k < COUNT * COUNT; k++) {
    int rows = extents[k / COUNT], columns = extents[k % COUNT];
    for (int i = 0; i <= count; i++) {
      fill_all(1, false);
      for (int m = 0; m < rows; m++)
        for (int j = 0; j < columns; j++) expected[j * 40 + m] = a[m * 41 + j];
      if (i < count)
        sets[i]->transpose_matrix(a, 41, c, 40, rows, columns);
      else
        gemm_transpose(c, 40, a, 41, rows, columns);
      assert_agree("transpose", sets[i < count ? i : 0], rows, columns);
    }
  }
}

static void extents_split_into_tiles_that_exist(void **state) {
  (void)state;
  const gemm_kernels *sets[2 * GEMM_MAX_SETS];
  int count = every_set(sets);
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
      cmocka_unit_test(factors_are_rounded_to_the_nearest_bf16),
      cmocka_unit_test(matrices_become_pairs_along_either_axis),
      cmocka_unit_test(squares_transpose),
      cmocka_unit_test(matrices_transpose),
      cmocka_unit_test(extents_split_into_tiles_that_exist),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
