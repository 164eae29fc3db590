/* The register tile, written once with vector extensions. The including file sets
 *   GEMM_LANES            floats in a vector
 *   GEMM_SET, GEMM_NAME   the symbol and the name of the kernel set
 *   GEMM_ROWS_1 … _4      most rows of a tile 1 … 4 vectors wide (0: no such tile)
 * so that rows × vectors accumulators, one row of B and one broadcast fill the register file:
 * 24 + 4 + 1 of 32 with AVX-512, 12 + 2 + 1 of 16 with AVX2 or SSE. */
#include "ops/kernels/gemm.h"

typedef float vec __attribute__((vector_size(GEMM_LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const void *p) {
  return *(const vec *)p;
}

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

INLINE void tile_body(const gemm_tile *t, const int rows, const int vectors) {
  enum { BYTES = GEMM_LANES * 4, BASES = (GEMM_MAX_ROWS + 4) / 5 };
  vec acc[GEMM_MAX_ROWS][GEMM_MAX_VECTORS];
  float edge[GEMM_MAX_ROWS * GEMM_MAX_VECTORS * GEMM_LANES];
  bool whole = t->columns == vectors * GEMM_LANES;

  const char *start = (const char *)t->bias;
  ptrdiff_t start_row = 0;
  if (t->accumulate) {
    start = (const char *)t->c;
    start_row = t->c_row;
    if (!whole) {
      for (int m = 0; m < rows; m++)
        for (int j = 0; j < vectors * GEMM_LANES; j++)
          edge[m * vectors * GEMM_LANES + j] =
              j < t->columns ? ((const float *)(start + m * start_row))[j] : 0;
      start = (const char *)edge;
      start_row = vectors * BYTES;
    }
  }
#pragma GCC unroll 24
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) acc[m][j] = load(start + m * start_row + j * BYTES);

  ptrdiff_t row = t->a_row, row3 = 3 * row, a_k = t->a_k, b_k = t->b_k;
  const gemm_segment *end = t->segments + t->segment_count;
  for (const gemm_segment *s = t->segments; s < end; s++) {
    const char *first = (const char *)s->first, *last = (const char *)s->last;
    const char *b = (const char *)s->b;
    const char *base[BASES];
#pragma GCC unroll 5
    for (int i = 0; i * 5 < rows; i++) base[i] = (const char *)s->middle + 5 * i * row;
    int64_t k = t->k;
    do {
      vec w[GEMM_MAX_VECTORS];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; j++) w[j] = load(b + j * BYTES);
#pragma GCC unroll 24
      for (int m = 0; m < rows; m++) {
        vec a = *row_address(m, rows, base, first, last, row, row3) - (vec){0};
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) acc[m][j] += a * w[j];
      }
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

  char *out = whole ? (char *)t->c : (char *)edge;
  ptrdiff_t out_row = whole ? t->c_row : vectors * BYTES;
#pragma GCC unroll 24
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) *(vec *)(out + m * out_row + j * BYTES) = acc[m][j];
  if (!whole)
    for (int m = 0; m < rows; m++)
      for (int j = 0; j < t->columns; j++)
        ((float *)((char *)t->c + m * t->c_row))[j] = edge[m * vectors * GEMM_LANES + j];
}

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

UP_TO(GEMM_ROWS_1)
(TILE, 1) UP_TO(GEMM_ROWS_2)(TILE, 2)
#if GEMM_ROWS_3
    UP_TO(GEMM_ROWS_3)(TILE, 3)
#endif
#if GEMM_ROWS_4
        UP_TO(GEMM_ROWS_4)(TILE, 4)
#endif

            extern const gemm_kernels GEMM_SET;
const gemm_kernels GEMM_SET = {
    .name = GEMM_NAME,
    .lanes = GEMM_LANES,
    .max_vectors = GEMM_ROWS_4   ? 4
                   : GEMM_ROWS_3 ? 3
                                 : 2,
    .max_rows = {0, GEMM_ROWS_1, GEMM_ROWS_2, GEMM_ROWS_3, GEMM_ROWS_4},
    .tile =
        {
            [1] = {UP_TO(GEMM_ROWS_1)(ENTRY, 1)},
            [2] = {UP_TO(GEMM_ROWS_2)(ENTRY, 2)},
#if GEMM_ROWS_3
            [3] = {UP_TO(GEMM_ROWS_3)(ENTRY, 3)},
#endif
#if GEMM_ROWS_4
            [4] = {UP_TO(GEMM_ROWS_4)(ENTRY, 4)},
#endif
        },
};
