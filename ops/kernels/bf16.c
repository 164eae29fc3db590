#include "ops/kernels/bf16.h"

#include "ops/arithmetic/vector_math.h"

#include <stddef.h>

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

FOR_EACH_ISA static void pair_neighbours(bf16_pair *restrict to, const float *restrict from,
                                         int64_t count) {
  for (int64_t i = 0; i < count; i++)
    to[i] = bf16_bits(from[2 * i]) | bf16_bits(from[2 * i + 1]) << 16;
}

void bf16_pair_neighbours(bf16_pair *to, const float *from, int64_t rows, int64_t width) {
  if (width % 2 == 0) {
    pair_neighbours(to, from, rows * (width / 2));
    return;
  }
  for (int64_t r = 0; r < rows; r++, from += width) {
    pair_neighbours(to, from, width / 2);
    to += width / 2;
    *to++ = bf16_bits(from[width - 1]);
  }
}

void bf16_set_first(bf16_pair *to, const float *from, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (to[i] & 0xffff0000) | bf16_bits(from[i]);
}

void bf16_set_second(bf16_pair *to, const float *from, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = (to[i] & 0x0000ffff) | bf16_bits(from[i]) << 16;
}
