/* bf16, "brain floating point": the upper half of an f32, so its 8 bits of exponent and 8 of the 24
 * of its fraction (the leading 1 counted). Factors of products are rounded to it, to the nearest,
 * ties to even; NaN stays NaN. What a product of two adds to is f32: the product is exact there.
 *
 * The tiles (gemm.h) read factors that were rounded and stay f32, or pairs: one 32-bit word holds two
 * numbers that are neighbours along k, the first in its lower half. */
#ifndef STRATA_OPS_KERNELS_BF16_H
#define STRATA_OPS_KERNELS_BF16_H

#include "ops/kernels/bf16_round.h"

/* A word of workspace that tiles address as they address floats. */
typedef uint32_t bf16_pair __attribute__((may_alias));

void bf16_round_copy(float *to, const float *from, int64_t count);
/* In place: `rows` rows of `width` numbers, `row` apart. */
void bf16_round_rows(float *x, int64_t row, int64_t rows, int64_t width);

static inline int64_t bf16_pairs(int64_t numbers) {
  return (numbers + 1) / 2;
}

/* to[i] = (first[i], second[i]); where one of them is NULL, it is zeros. */
void bf16_pair_rows(bf16_pair *to, const float *first, const float *second, int64_t count);
/* Of `rows` rows of `count` numbers, those that are neighbours become one row of words; an odd last row
 * pairs with zeros. Distances count numbers and words. */
void bf16_pair_columns(bf16_pair *to, int64_t to_row, const float *from, int64_t from_row,
                       int64_t rows, int64_t count);
/* Each of `rows` rows of `width` numbers becomes bf16_pairs(width) words of neighbours, one row after the
 * other in `to`; an odd last number pairs with 0. */
void bf16_pair_neighbours(bf16_pair *to, const float *from, int64_t from_row, int64_t rows,
                          int64_t width);
/* Fills one half of `count` words and keeps the other: numbers that pair, but come one at a time. */
void bf16_set_first(bf16_pair *to, const float *from, int64_t count);
void bf16_set_second(bf16_pair *to, const float *from, int64_t count);

#endif
