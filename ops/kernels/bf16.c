#include "ops/kernels/bf16.h"

#include "ops/arithmetic/vector_math.h"

#include <stddef.h>

FOR_EACH_ISA void bf16_round_copy(float *restrict to, const float *restrict from, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = bf16_round(from[i]);
}

FOR_EACH_ISA void bf16_round_rows(float *x, int64_t row, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r++, x += row)
    for (int64_t i = 0; i < width; i++) x[i] = bf16_round(x[i]);
}

FOR_EACH_ISA static void pair_both(bf16_pair *restrict to, const float *restrict first,
                                   const float *restrict second, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = bf16_bits(first[i]) | bf16_bits(second[i]) << 16;
}

FOR_EACH_ISA static void pair_one(bf16_pair *restrict to, const float *restrict from, int shift,
                                  int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = bf16_bits(from[i]) << shift;
}

void bf16_pair_rows(bf16_pair *to, const float *first, const float *second, int64_t count) {
  if (first && second)
    pair_both(to, first, second, count);
  else if (first || second)
    pair_one(to, first ? first : second, first ? 0 : 16, count);
  else
    memset(to, 0, (size_t)count * sizeof *to);
}

FOR_EACH_ISA void bf16_pair_columns(bf16_pair *restrict to, int64_t to_row,
                                    const float *restrict from, int64_t from_row, int64_t rows,
                                    int64_t count) {
  for (; rows > 1; rows -= 2, to += to_row, from += 2 * from_row)
    for (int64_t i = 0; i < count; i++)
      to[i] = bf16_bits(from[i]) | bf16_bits(from[from_row + i]) << 16;
  for (int64_t i = 0; i < count && rows > 0; i++) to[i] = bf16_bits(from[i]);
}

FOR_EACH_ISA void bf16_pair_neighbours(bf16_pair *restrict to, const float *restrict from,
                                       int64_t from_row, int64_t rows, int64_t width) {
  if (width % 2 == 0 && from_row == width) {
    width *= rows;
    rows = 1;
  }
  for (int64_t r = 0; r < rows; r++, from += from_row) {
    for (int64_t i = 0; i < width / 2; i++)
      to[i] = bf16_bits(from[2 * i]) | bf16_bits(from[2 * i + 1]) << 16;
    to += width / 2;
    if (width % 2) *to++ = bf16_bits(from[width - 1]);
  }
}

FOR_EACH_ISA void bf16_set_first(bf16_pair *restrict to, const float *restrict from,
                                 int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (to[i] & 0xffff0000) | bf16_bits(from[i]);
}

FOR_EACH_ISA void bf16_set_second(bf16_pair *restrict to, const float *restrict from,
                                  int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (to[i] & 0x0000ffff) | bf16_bits(from[i]) << 16;
}
