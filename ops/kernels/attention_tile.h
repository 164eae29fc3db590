/* attention_parts.h written once with vector extensions. The including file sets
 *   ATTENTION_LANES           floats in a vector
 *   ATTENTION_SET             the symbol of the kernel set
 *   ATTENTION_ROWS_1, _2      most rows of a register tile one and two vectors wide
 * Heads are narrow: most products here are only 8 to 64 steps deep, and a register tile of gemm.h,
 * described and called by itself, takes longer to start and to end than to sum. Here a call runs
 * over a column of tiles. */
#include "ops/kernels/attention_parts.h"

#include "ops/kernels/attention.h"
#include "ops/kernels/vector_type.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

VECTOR_TYPE(vec, float, ATTENTION_LANES);
VECTOR_TYPE(ints, int32_t, ATTENTION_LANES);

#define INLINE static inline __attribute__((always_inline))

enum { VECTORS = ATTENTION_QUERIES / ATTENTION_LANES /* of the queries of one key */ };

INLINE vec load(const float *p) {
  return *(const vec *)p;
}

INLINE void store(float *p, vec v) {
  *(vec *)p = v;
}

INLINE vec repeat(float x) {
  return x - (vec){0};
}

/* a where it is larger; b where a is not a number. */
INLINE vec larger(vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  ints mask = a > b;
  return (vec)((mask & (ints)a) | (~mask & (ints)b));
#endif
}

/* ---- products -------------------------------------------------------------------------------- */

/* Tiles one below the other. Distances count bytes. */
typedef struct strip {
  const char *a, *b;
  char *c;
  ptrdiff_t a_row, a_k, b_row, c_row;
  int64_t depth, tiles;
  bool accumulate;
} strip;

INLINE void strip_body(const strip *s, const int rows, const int vectors) {
  enum { BYTES = ATTENTION_LANES * 4, BASES = (ATTENTION_ROWS_1 + 2) / 3 };
  ptrdiff_t row = s->a_row, a_k = s->a_k, b_row = s->b_row, c_row = s->c_row;
  const char *a = s->a;
  char *c = s->c;
  for (int64_t t = 0; t < s->tiles; t++) {
    vec acc[ATTENTION_ROWS_1][2];
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++)
        acc[m][j] = s->accumulate ? load((const float *)(c + m * c_row + j * BYTES)) : (vec){0};
    /* Three rows are reached from one address. */
    const char *base[BASES], *b = s->b;
#pragma GCC unroll 4
    for (int i = 0; i * 3 < rows; i++) base[i] = a + 3 * i * row;
    int64_t k = s->depth;
    do {
      vec w[2];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++) w[j] = load((const float *)(b + j * BYTES));
#pragma GCC unroll 12
      for (int m = 0; m < rows; m++) {
        vec x = repeat(*(const float *)(base[m / 3] + m % 3 * row));
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) acc[m][j] += x * w[j];
      }
      b += b_row;
      /* Opaque to the compiler, which would otherwise keep an address per row and spill. */
#pragma GCC unroll 4
      for (int i = 0; i * 3 < rows; i++) {
        base[i] += a_k;
        __asm__("" : "+r"(base[i]));
      }
      __asm__("" : "+r"(row));
    } while (--k);
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++)
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++) store((float *)(c + m * c_row + j * BYTES), acc[m][j]);
    a += rows * row;
    c += rows * c_row;
  }
}

#define STRIP(rows, vectors)                                                                       \
  static void strip_##rows##_##vectors(const strip *s) {                                           \
    strip_body(s, rows, vectors);                                                                  \
  }
#define ENTRY(rows, vectors) [rows] = strip_##rows##_##vectors,
#define UP_TO_4(do, v)                                                                             \
  do (1, v) do(2, v) do(3, v) do(4, v)
#define UP_TO_6(do, v) UP_TO_4(do, v) do(5, v) do(6, v)
#define UP_TO_8(do, v) UP_TO_6(do, v) do(7, v) do(8, v)
#define UP_TO_12(do, v) UP_TO_8(do, v) do(9, v) do(10, v) do(11, v) do(12, v)
#define JOIN(a, b) a##b
#define UP_TO(n) JOIN(UP_TO_, n)

/* clang-format off */
UP_TO(ATTENTION_ROWS_1)(STRIP, 1)
UP_TO(ATTENTION_ROWS_2)(STRIP, 2)

static void (*const strips[3][ATTENTION_ROWS_1 + 1])(const strip *) = {
    [1] = {UP_TO(ATTENTION_ROWS_1)(ENTRY, 1)},
    [2] = {UP_TO(ATTENTION_ROWS_2)(ENTRY, 2)},
};
/* clang-format on */

/* m rows in the fewest tiles, as equal as can be. */
static void run_strips(strip *s, uint32_t m, int vectors) {
  uint32_t tiles = vectors == 2 ? (m + ATTENTION_ROWS_2 - 1) / ATTENTION_ROWS_2
                                : (m + ATTENTION_ROWS_1 - 1) / ATTENTION_ROWS_1;
  uint32_t rows = m / tiles, taller = m % tiles;
  if (taller > 0) {
    s->tiles = taller;
    strips[vectors][rows + 1](s);
    s->a += taller * (rows + 1) * s->a_row;
    s->c += taller * (rows + 1) * s->c_row;
  }
  s->tiles = tiles - taller;
  strips[vectors][rows](s);
}

static void product(float *c, int64_t c_row, attention_left a, attention_right b, int64_t m,
                    int64_t n, int64_t depth, bool accumulate) {
  enum { FLOAT = sizeof(float) };
  float whole[ATTENTION_KEYS * 2 * ATTENTION_LANES];
  int vectors;
  for (int64_t j = 0; j < n; j += (int64_t)vectors * ATTENTION_LANES) {
    vectors = n - j > ATTENTION_LANES ? 2 : 1;
    int64_t wide = (int64_t)vectors * ATTENTION_LANES, columns = n - j < wide ? n - j : wide;
    bool fits = columns == wide;
    strip s = {.a = (const char *)a.at,
               .b = (const char *)(b.at + j),
               .c = (char *)(fits ? c + j : whole),
               .a_row = a.row * FLOAT,
               .a_k = a.k * FLOAT,
               .b_row = b.row * FLOAT,
               .c_row = (fits ? c_row : wide) * FLOAT,
               .depth = depth,
               .accumulate = fits && accumulate};
    run_strips(&s, (uint32_t)m, vectors);
    if (fits) continue;
    for (int64_t i = 0; i < m; i++)
      for (int64_t k = 0; k < columns; k++) {
        float *to = c + i * c_row + j + k, x = whole[i * wide + k];
        *to = accumulate ? *to + x : x;
      }
  }
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* e^x for x ≤ 88 as in vector_math.h, but 0 where the result is not a normal number; NaN stays
 * NaN. */
INLINE vec exponential(vec x) {
  /* Adding 1.5·2^23 + 127 rounds x / ln 2 to an integer n and leaves n + 127 in the low bits. */
  vec magic = repeat(12583039.0f);
  vec shifted = x * 1.44269504f + magic;
  vec n = shifted - magic;
  vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vec q = r * 1.3951718e-3f + 8.3695986e-3f;
  q = q * r + 4.16661873e-2f;
  q = q * r + 1.666651289e-1f;
  q = q * r + 5.000000101e-1f;
  vec p = (q * (r * r) + r) + 1.0f;
  vec result = p * (vec)((ints)shifted << 23);
  ints small = x < repeat(-87.0f);
  return (vec)((ints)result & ~small);
}

/* Vector v of the scores of a key. */
INLINE vec with_terms(vec score, int64_t key, int v, attention_terms t) {
  int64_t at = (int64_t)v * ATTENTION_LANES;
  if (t.bias) score += load(t.bias + key * ATTENTION_QUERIES + at);
  if (t.query_regions) {
    ints own = *(const ints *)(t.query_regions + at);
    ints apart = own != t.key_regions[key] - (ints){0};
    score += (vec)(apart & (ints)repeat(ATTENTION_APART));
  }
  return score;
}

static void absorb(float *scores, int64_t keys, attention_terms t, attention_running *run) {
  vec top[VECTORS];
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; v++) top[v] = load(run->largest + v * ATTENTION_LANES);
  for (int64_t j = 0; j < keys; j++)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
      float *at = scores + j * ATTENTION_QUERIES + v * ATTENTION_LANES;
      vec score = with_terms(load(at), j, v, t);
      if (t.bias || t.query_regions) store(at, score);
      top[v] = larger(score, top[v]);
    }
  for (int v = 0; v < VECTORS; v++) {
    int64_t at = (int64_t)v * ATTENTION_LANES;
    vec largest = top[v], kept = exponential(load(run->largest + at) - largest);
    vec sum = load(run->sum + at) * kept;
    for (int64_t j = 0; j < keys; j++) {
      float *score = scores + j * ATTENTION_QUERIES + at;
      vec weight = exponential(load(score) - largest);
      sum += weight;
      if (t.factors) weight *= load(t.factors + j * ATTENTION_QUERIES + at);
      store(score, weight);
    }
    store(run->largest + at, largest);
    store(run->kept + at, kept);
    store(run->sum + at, sum);
  }
}

static void gradients(float *weights, float *d_weights, int64_t keys, attention_terms t,
                      const float *lse, const float *dots, float scale, float *d_bias) {
  for (int v = 0; v < VECTORS; v++) {
    int64_t at = (int64_t)v * ATTENTION_LANES;
    vec log_sum = load(lse + at), dot = load(dots + at);
    for (int64_t j = 0; j < keys; j++, at += ATTENTION_QUERIES) {
      vec score = with_terms(load(weights + at), j, v, t);
      vec weight = exponential(score - log_sum);
      vec factor = t.factors ? load(t.factors + at) : repeat(1);
      vec gradient = weight * (load(d_weights + at) * factor - dot);
      store(weights + at, weight * factor);
      store(d_weights + at, gradient * scale);
      if (d_bias) store(d_bias + at, load(d_bias + at) + gradient);
    }
  }
}

const attention_kernels ATTENTION_SET = {
    .lanes = ATTENTION_LANES, .product = product, .absorb = absorb, .gradients = gradients};
