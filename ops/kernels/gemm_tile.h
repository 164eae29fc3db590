/* The register tile, written once with vector extensions. The including file sets
 *   GEMM_LANES            floats in a vector
 *   GEMM_SET, GEMM_NAME   the symbol and the name of the kernel set
 *   GEMM_ROWS_1 … _4      most rows of a tile 1 … 4 vectors wide (0: no such tile)
 *   GEMM_SLIDE_SUM        most rows of a sliding weight-gradient tile
 *   GEMM_BF16             1: A and B are pairs of bf16, 2: and the processor multiplies them itself
 * so that rows × vectors accumulators, one row of B and one broadcast fill the register file:
 * 24 + 4 + 1 of 32 with AVX-512, 12 + 2 + 1 of 16 with AVX2 or SSE. */
#include "ops/kernels/gemm.h"
#include "ops/kernels/vector_type.h"

#if !defined(GEMM_BF16)
#define GEMM_BF16 0
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

VECTOR_TYPE(vec, float, GEMM_LANES);

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const void *p) {
  return *(const vec *)p;
}

/* What the tiles multiply: a vector of B, or a word of A in every lane. */
#if GEMM_BF16 == 2
typedef __m512bh factors;

INLINE factors load_factors(const void *p) {
  return (factors)_mm512_loadu_si512(p);
}

INLINE factors repeat_factor(const float *p) {
  int word;
  __builtin_memcpy(&word, p, sizeof word);
  return (factors)_mm512_set1_epi32(word);
}

INLINE vec multiply_add(vec sum, factors a, factors b) {
  return (vec)_mm512_dpbf16_ps((__m512)sum, a, b);
}
#elif GEMM_BF16
/* A bf16 is the upper half of a float. The product of two is exact in f32, so it makes no difference
 * whether the compiler fuses multiplication and addition. The upper number comes first, as it does
 * in vdpbf16ps. */
VECTOR_TYPE(words, uint32_t, GEMM_LANES);
typedef struct factors {
  vec upper, lower;
} factors;

INLINE factors split_words(words w) {
  return (factors){(vec)(w & 0xffff0000u), (vec)(w << 16)};
}

INLINE factors load_factors(const void *p) {
  return split_words(*(const words *)p);
}

INLINE factors repeat_factor(const float *p) {
  uint32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return split_words(word - (words){0});
}

INLINE vec multiply_add(vec sum, factors a, factors b) {
  sum += a.upper * b.upper;
  return sum + a.lower * b.lower;
}
#else
typedef vec factors;

INLINE factors load_factors(const void *p) {
  return load(p);
}

INLINE factors repeat_factor(const float *p) {
  return *p - (vec){0};
}

INLINE vec multiply_add(vec sum, factors a, factors b) {
  return sum + a * b;
}
#endif

/* Row m of A. Rows are addressed from a base every five rows, so that base + {0, 1, 2, 4}·stride
 * and base + 3·stride are single x86 addressing modes and 24 rows need 9 address registers. */
INLINE const float *row_address(int m, int rows, const char *const *base, const char *first,
                                const char *last, ptrdiff_t row, ptrdiff_t row3) {
  if (m == 0) return (const float *)first;
  if (m == rows - 1) return (const float *)last;
  const char *b = base[m / 5];
  switch (m % 5) {
  case 0:
    return (const float *)b;
  case 1:
    return (const float *)(b + row);
  case 2:
    return (const float *)(b + 2 * row);
  case 3:
    return (const float *)(b + row3);
  default:
    return (const float *)(b + 4 * row);
  }
}

#if defined(__AVX512F__)
typedef __mmask16 lane_mask;
INLINE lane_mask mask_of(int count) {
  return (lane_mask)((1u << count) - 1);
}
#elif defined(__AVX2__)
typedef __m256i lane_mask;
INLINE lane_mask mask_of(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#else
typedef int lane_mask;
INLINE lane_mask mask_of(int count) {
  return count;
}
#endif

/* The first lanes, the others zero. */
INLINE vec load_part(const void *p, lane_mask mask) {
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps(mask, p);
#elif defined(__AVX2__)
  return (vec)_mm256_maskload_ps(p, mask);
#else
  float lane[GEMM_LANES] = {0};
  for (int i = 0; i < mask; i++) lane[i] = ((const float *)p)[i];
  return load(lane);
#endif
}

INLINE void store_part(void *p, vec v, lane_mask mask) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, mask, (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, mask, (__m256)v);
#else
  float lane[GEMM_LANES];
  *(vec *)lane = v;
  for (int i = 0; i < mask; i++) ((float *)p)[i] = lane[i];
#endif
}

/* How many of the columns vector j holds. */
INLINE int part_of(const gemm_tile *t, int j) {
  int left = t->columns - j * GEMM_LANES;
  return left < 0 ? 0 : left < GEMM_LANES ? left : GEMM_LANES;
}

INLINE void load_accumulators(const gemm_tile *t, const int rows, const int vectors,
                              vec acc[GEMM_MAX_ROWS][GEMM_MAX_VECTORS]) {
  const char *start = (const char *)(t->accumulate ? t->c : t->bias);
  ptrdiff_t row = t->accumulate ? t->c_row : 0;
  bool whole = !t->accumulate || t->columns == vectors * GEMM_LANES;
#pragma GCC unroll 24
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
      const char *at = start + m * row + j * GEMM_LANES * 4;
      acc[m][j] = whole ? load(at) : load_part(at, mask_of(part_of(t, j)));
    }
}

INLINE void store_accumulators(const gemm_tile *t, const int rows, const int vectors,
                               vec acc[GEMM_MAX_ROWS][GEMM_MAX_VECTORS]) {
  bool whole = t->columns == vectors * GEMM_LANES;
#pragma GCC unroll 24
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
      char *at = (char *)t->c + m * t->c_row + j * GEMM_LANES * 4;
      if (whole)
        *(vec *)at = acc[m][j];
      else
        store_part(at, acc[m][j], mask_of(part_of(t, j)));
    }
}

INLINE void tile_body(const gemm_tile *t, const int rows, const int vectors) {
  enum { BYTES = GEMM_LANES * 4, BASES = (GEMM_MAX_ROWS + 4) / 5 };
  vec acc[GEMM_MAX_ROWS][GEMM_MAX_VECTORS];
  load_accumulators(t, rows, vectors, acc);

  ptrdiff_t row = t->a_row, row3 = 3 * row, a_k = t->a_k, b_k = t->b_k;
  const gemm_segment *end = t->segments + t->segment_count;
  for (const gemm_segment *s = t->segments; s < end; s++) {
    const char *first = (const char *)s->first, *last = (const char *)s->last;
    const char *b = (const char *)s->b, *ahead = (const char *)s->ahead;
    const char *base[BASES];
#pragma GCC unroll 5
    for (int i = 0; i * 5 < rows; i++) base[i] = (const char *)s->middle + 5 * i * row;
    int64_t k = t->k;
    do {
      factors w[GEMM_MAX_VECTORS];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; j++) w[j] = load_factors(b + j * BYTES);
#pragma GCC unroll 24
      for (int m = 0; m < rows; m++) {
        factors a = repeat_factor(row_address(m, rows, base, first, last, row, row3));
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) acc[m][j] = multiply_add(acc[m][j], a, w[j]);
      }
      __builtin_prefetch(ahead);
      ahead += s->ahead_k;
      first += a_k;
      last += a_k;
      b += b_k;
      /* Opaque to the compiler, which would otherwise keep an address register per row and spill.
       */
#pragma GCC unroll 5
      for (int i = 0; i * 5 < rows; i++) {
        base[i] += a_k;
        __asm__("" : "+r"(base[i]));
      }
      __asm__("" : "+r"(row), "+r"(row3));
    } while (--k);
  }

  store_accumulators(t, rows, vectors, acc);
}

/* The sliding tile, one vector wide: outputs m = 0 … rows − 1 of a three-tap filter along the rows
 * of A, C[m] += Σ_k Σ_t A[m + t][k] · B_t[k]. Each broadcast serves three multiply-adds, so the
 * load ports, which bind the plain tile at this width, are half idle. */
INLINE void slide_body(const gemm_tile *t, const int rows) {
  enum { BYTES = GEMM_LANES * 4, BASES = (GEMM_MAX_ROWS + 2 + 4) / 5 };
  vec acc[GEMM_MAX_ROWS][GEMM_MAX_VECTORS];
  load_accumulators(t, rows, 1, acc);

  ptrdiff_t row = t->a_row, row3 = 3 * row, tap = t->tap;
  const gemm_segment *end = t->segments + t->segment_count;
  for (const gemm_segment *s = t->segments; s < end; s++) {
    const char *first = (const char *)s->first, *last = (const char *)s->last;
    const char *b = (const char *)s->b, *ahead = (const char *)s->ahead;
    const char *base[BASES];
#pragma GCC unroll 6
    for (int i = 0; i * 5 < rows + 2; i++) base[i] = (const char *)s->middle + 5 * i * row;
    int64_t k = t->k;
    do {
      factors w[3] = {load_factors(b), load_factors(b + tap), load_factors(b + 2 * tap)};
#pragma GCC unroll 26
      for (int p = 0; p < rows + 2; p++) {
        factors a = repeat_factor(row_address(p, rows + 2, base, first, last, row, row3));
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++)
          if (p - i >= 0 && p - i < rows) acc[p - i][0] = multiply_add(acc[p - i][0], a, w[i]);
      }
      __builtin_prefetch(ahead);
      ahead += s->ahead_k;
      first += sizeof(float);
      last += sizeof(float);
      b += BYTES;
#pragma GCC unroll 6
      for (int i = 0; i * 5 < rows + 2; i++) {
        base[i] += sizeof(float);
        __asm__("" : "+r"(base[i]));
      }
      __asm__("" : "+r"(row), "+r"(row3));
    } while (--k);
  }
  store_accumulators(t, rows, 1, acc);
}

#if !GEMM_BF16
/* The sliding tile of a weight gradient: C_t[row] += Σ_k A[k][row] · B[k + 1 − t], t = 0, 1, 2,
 * with A's rows side by side. B before and after the run is the segment's `first` and `last`. Where
 * rows are few, neighbouring k go to sums of their own, so that no addition waits for the one
 * before. */
INLINE void slide_sum_body(const gemm_tile *t, const int rows) {
  enum { MAX_SETS = 4 };
  const int sets = rows == 1 ? 4 : rows == 2 ? 2 : 1;
  vec acc[MAX_SETS][3][GEMM_MAX_ROWS];
#pragma GCC unroll 4
  for (int u = 0; u < sets; u++)
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++)
#pragma GCC unroll 8
      for (int m = 0; m < rows; m++)
        acc[u][i][m] = t->accumulate && u == 0
                           ? load((const char *)t->c + i * t->tap + m * t->c_row)
                           : (vec){0};
  ptrdiff_t a_k = t->a_k, b_k = t->b_k;
  const gemm_segment *end = t->segments + t->segment_count;
  for (const gemm_segment *s = t->segments; s < end; s++) {
    const char *a = (const char *)s->middle, *b = (const char *)s->b;
    const char *ahead = (const char *)s->ahead;
    vec before = load(s->first), now = load(b), after;
    int64_t k = t->k;
    for (; k > sets; k -= sets) {
#pragma GCC unroll 4
      for (int u = 0; u < sets; u++) {
        b += b_k;
        after = load(b);
#pragma GCC unroll 8
        for (int m = 0; m < rows; m++) {
          vec x = ((const float *)a)[m] - (vec){0};
          acc[u][0][m] += x * after;
          acc[u][1][m] += x * now;
          acc[u][2][m] += x * before;
        }
        __builtin_prefetch(ahead);
        ahead += s->ahead_k;
        before = now;
        now = after;
        a += a_k;
      }
    }
    for (; k > 0; k--) {
      b += b_k;
      after = load(k > 1 ? b : (const char *)s->last);
#pragma GCC unroll 8
      for (int m = 0; m < rows; m++) {
        vec x = ((const float *)a)[m] - (vec){0};
        acc[0][0][m] += x * after;
        acc[0][1][m] += x * now;
        acc[0][2][m] += x * before;
      }
      before = now;
      now = after;
      a += a_k;
    }
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; i++)
#pragma GCC unroll 8
    for (int m = 0; m < rows; m++) {
      vec sum = acc[0][i][m];
#pragma GCC unroll 4
      for (int u = 1; u < sets; u++) sum += acc[u][i][m];
      *(vec *)((char *)t->c + i * t->tap + m * t->c_row) = sum;
    }
}

#endif

/* Lanes of two vectors, those of the second counted on: of every four the first or the last two of both,
 * number by number or pair by pair, as unpack instructions have them; then whole fours and eights. */
/* clang-format off */
#define FIRST_ONES(i) i, (i) + GEMM_LANES, (i) + 1, (i) + GEMM_LANES + 1
#define LAST_ONES(i) FIRST_ONES((i) + 2)
#define FIRST_PAIRS(i) i, (i) + 1, (i) + GEMM_LANES, (i) + GEMM_LANES + 1
#define LAST_PAIRS(i) FIRST_PAIRS((i) + 2)
#define FOUR(i) i, (i) + 1, (i) + 2, (i) + 3
#define FOUR_OF_BOTH(i) FOUR(i), FOUR((i) + GEMM_LANES)
#if GEMM_LANES == 4
#define EVERY_FOUR(of) of(0)
#elif GEMM_LANES == 8
#define EVERY_FOUR(of) of(0), of(4)
#define EVEN_FOURS FOUR_OF_BOTH(0)
#define ODD_FOURS FOUR_OF_BOTH(4)
#else
#define EVERY_FOUR(of) of(0), of(4), of(8), of(12)
#define EVEN_FOURS FOUR_OF_BOTH(0), FOUR_OF_BOTH(8)
#define ODD_FOURS FOUR_OF_BOTH(4), FOUR_OF_BOTH(12)
#define FIRST_EIGHTS FOUR(0), FOUR(4), FOUR(16), FOUR(20)
#define LAST_EIGHTS FOUR(8), FOUR(12), FOUR(24), FOUR(28)
#endif
/* clang-format on */

/* Rows i and i + step become `first` and `last` of both. */
#define EXCHANGE(step, first, last)                                                                \
  _Pragma("GCC unroll 16") for (int i = 0; i < GEMM_LANES; i++) {                                  \
    if (i & (step)) continue;                                                                      \
    vec a = v[i], b = v[i | (step)];                                                               \
    v[i] = __builtin_shufflevector(a, b, first);                                                   \
    v[i | (step)] = __builtin_shufflevector(a, b, last);                                           \
  }

/* to[j][i] = from[i][j] over the first rows and columns of a square of GEMM_LANES; rows lie `from_row` and
 * `to_row` floats apart. */
INLINE void transpose_body(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row,
                           int64_t rows, int64_t columns) {
  bool high = rows == GEMM_LANES, wide = columns == GEMM_LANES;
  lane_mask row_mask = mask_of((int)rows), column_mask = mask_of((int)columns);
  vec v[GEMM_LANES];
#pragma GCC unroll 16
  for (int i = 0; i < GEMM_LANES; i++) {
    v[i] = (vec){0};
    if (i >= rows) continue;
    v[i] = wide ? load(from + i * from_row) : load_part(from + i * from_row, column_mask);
  }
  EXCHANGE(1, EVERY_FOUR(FIRST_ONES), EVERY_FOUR(LAST_ONES))
  EXCHANGE(2, EVERY_FOUR(FIRST_PAIRS), EVERY_FOUR(LAST_PAIRS))
#if GEMM_LANES > 4
  EXCHANGE(4, EVEN_FOURS, ODD_FOURS)
#endif
#if GEMM_LANES > 8
  EXCHANGE(8, FIRST_EIGHTS, LAST_EIGHTS)
#endif
#pragma GCC unroll 16
  for (int i = 0; i < GEMM_LANES; i++) {
    /* Columns 1 and 2 of every four have come to each other's place. */
    int column = (i & ~3) | (i >> 1 & 1) | (i << 1 & 2);
    if (column >= columns) continue;
    if (high)
      *(vec *)(to + column * to_row) = v[i];
    else
      store_part(to + column * to_row, v[i], row_mask);
  }
}

static void transpose_square(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row) {
  transpose_body(from, from_row, to, to_row, GEMM_LANES, GEMM_LANES);
}

static void transpose_matrix(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row,
                             int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += GEMM_LANES) {
    int64_t high = rows - i < GEMM_LANES ? rows - i : GEMM_LANES;
    for (int64_t j = 0; j < columns; j += GEMM_LANES) {
      int64_t wide = columns - j < GEMM_LANES ? columns - j : GEMM_LANES;
      transpose_body(from + i * from_row + j, from_row, to + j * to_row + i, to_row, high, wide);
    }
  }
}

#if !GEMM_BF16
/* Up to four vectors of channels; `part` of one when it is the last and not full. */
INLINE vec load_channels(const float *p, int j, int part) {
  return part < GEMM_LANES ? load_part(p, mask_of(part)) : load(p + j * GEMM_LANES);
}

INLINE void depthwise_block(const gemm_depthwise *t, gemm_taps taps, const float *start, float *y,
                            int64_t c, const int vectors, const int part) {
  vec sum[4];
#pragma GCC unroll 4
  for (int j = 0; j < vectors; j++) sum[j] = start ? load_channels(start + c, j, part) : (vec){0};
  for (int i = 0; i < t->lines; i++) {
    const float *x = t->x[i] + taps.voxel * t->channels + c;
    const float *w = t->w[i] + taps.tap * t->channels + c;
    for (int k = 0; k < taps.count; k++) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; j++)
        sum[j] += load_channels(x, j, part) * load_channels(w, j, part);
      x += t->voxel_step * t->channels;
      w += t->tap_step * t->channels;
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < vectors; j++)
    if (part < GEMM_LANES)
      store_part(y + c, sum[j], mask_of(part));
    else
      *(vec *)(y + c + j * GEMM_LANES) = sum[j];
}

static void depthwise_row(const gemm_depthwise *t) {
  float *y = t->y;
  for (int64_t r = 0; r < t->results; r++, y += t->channels) {
    const float *start = t->accumulate ? y : t->bias;
    int64_t c = 0;
    for (; c + 4 * GEMM_LANES <= t->channels; c += 4 * GEMM_LANES)
      depthwise_block(t, t->taps[r], start, y, c, 4, GEMM_LANES);
    for (; c + GEMM_LANES <= t->channels; c += GEMM_LANES)
      depthwise_block(t, t->taps[r], start, y, c, 1, GEMM_LANES);
    if (c < t->channels) depthwise_block(t, t->taps[r], start, y, c, 1, (int)(t->channels - c));
  }
}

INLINE void depthwise_sum_block(float *sum, const float *x, int64_t x_step, const float *dy,
                                int64_t dy_step, int64_t count, const int vectors, const int part) {
  vec total[4];
#pragma GCC unroll 4
  for (int j = 0; j < vectors; j++) total[j] = load_channels(sum, j, part);
  for (int64_t v = 0; v < count; v++, x += x_step, dy += dy_step)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++)
      total[j] += load_channels(x, j, part) * load_channels(dy, j, part);
#pragma GCC unroll 4
  for (int j = 0; j < vectors; j++)
    if (part < GEMM_LANES)
      store_part(sum, total[j], mask_of(part));
    else
      *(vec *)(sum + j * GEMM_LANES) = total[j];
}

static void depthwise_sum(float *sum, const float *x, int64_t x_step, const float *dy,
                          int64_t count, int64_t channels) {
  int64_t c = 0;
  for (; c + 4 * GEMM_LANES <= channels; c += 4 * GEMM_LANES)
    depthwise_sum_block(sum + c, x + c, x_step, dy + c, channels, count, 4, GEMM_LANES);
  for (; c + GEMM_LANES <= channels; c += GEMM_LANES)
    depthwise_sum_block(sum + c, x + c, x_step, dy + c, channels, count, 1, GEMM_LANES);
  if (c < channels)
    depthwise_sum_block(sum + c, x + c, x_step, dy + c, channels, count, 1, (int)(channels - c));
}

#endif

#define SLIDE(rows, unused)                                                                        \
  static void slide_##rows(const gemm_tile *t) {                                                   \
    slide_body(t, rows);                                                                           \
  }
#define SLIDE_ENTRY(rows, unused) [rows] = slide_##rows,
#define SLIDE_SUM(rows, unused)                                                                    \
  static void slide_sum_##rows(const gemm_tile *t) {                                               \
    slide_sum_body(t, rows);                                                                       \
  }
#define SLIDE_SUM_ENTRY(rows, unused) [rows] = slide_sum_##rows,

#define TILE(rows, vectors)                                                                        \
  static void tile_##rows##_##vectors(const gemm_tile *t) {                                        \
    tile_body(t, rows, vectors);                                                                   \
  }
#define ENTRY(rows, vectors) [rows] = tile_##rows##_##vectors,

#define UP_TO_2(do, v)                                                                             \
  do (1, v) do(2, v)
#define UP_TO_4(do, v) UP_TO_2(do, v) do(3, v) do(4, v)
#define UP_TO_6(do, v) UP_TO_4(do, v) do(5, v) do(6, v)
#define UP_TO_8(do, v) UP_TO_6(do, v) do(7, v) do(8, v)
#define UP_TO_12(do, v) UP_TO_8(do, v) do(9, v) do(10, v) do(11, v) do(12, v)
#define UP_TO_24(do, v)                                                                            \
  UP_TO_12(do, v)                                                                                  \
  do                                                                                               \
  (13, v) do(14, v) do(15, v) do(16, v) do(17, v) do(18, v) do(19, v) do(20, v) do(21, v) do(      \
      22, v) do(23, v) do(24, v)
#define JOIN(a, b) a##b
#define UP_TO(n) JOIN(UP_TO_, n)

/* clang-format off */
UP_TO(GEMM_ROWS_1)(TILE, 1)
UP_TO(GEMM_ROWS_2)(TILE, 2)
#if GEMM_ROWS_3
UP_TO(GEMM_ROWS_3)(TILE, 3)
#endif
#if GEMM_ROWS_4
UP_TO(GEMM_ROWS_4)(TILE, 4)
#endif
UP_TO(GEMM_ROWS_1)(SLIDE, 1)
#if !GEMM_BF16
UP_TO(GEMM_SLIDE_SUM)(SLIDE_SUM, 1)
#endif

extern const gemm_kernels GEMM_SET;
const gemm_kernels GEMM_SET = {
    .name = GEMM_NAME,
    .rounded_name = GEMM_NAME ", rounded to bf16",
    .lanes = GEMM_LANES,
    .max_vectors = GEMM_ROWS_4 ? 4 : GEMM_ROWS_3 ? 3 : 2,
    .max_rows = {0, GEMM_ROWS_1, GEMM_ROWS_2, GEMM_ROWS_3, GEMM_ROWS_4},
    .tile = {[1] = {UP_TO(GEMM_ROWS_1)(ENTRY, 1)},
             [2] = {UP_TO(GEMM_ROWS_2)(ENTRY, 2)},
#if GEMM_ROWS_3
             [3] = {UP_TO(GEMM_ROWS_3)(ENTRY, 3)},
#endif
#if GEMM_ROWS_4
             [4] = {UP_TO(GEMM_ROWS_4)(ENTRY, 4)},
#endif
    },
    .transpose = transpose_square,
    .transpose_matrix = transpose_matrix,
    .slide = {UP_TO(GEMM_ROWS_1)(SLIDE_ENTRY, 1)},
#if GEMM_BF16
    .bf16 = true,
#else
    .slide_sum_rows = GEMM_SLIDE_SUM,
    .slide_sum = {UP_TO(GEMM_SLIDE_SUM)(SLIDE_SUM_ENTRY, 1)},
    .depthwise = depthwise_row,
    .depthwise_sum = depthwise_sum,
#endif
};
/* clang-format on */
