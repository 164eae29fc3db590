/* Scores of a warp: 16 rows of them as pieces of D (device/cuda/mma.cuh), their products, what is added to
 * them, dropout. A thread has two rows, eight apart, and of each two columns side by side of every piece. */
#ifndef STRATA_OPS_ATTENTION_WARP_SCORES_CUH
#define STRATA_OPS_ATTENTION_WARP_SCORES_CUH

#include "ops/attention/rounded_tokens.cuh"

namespace attention_kernels {

/* ---- products -------------------------------------------------------------------------------------- */

/* A warp's 16 rows as the A of products: kept in registers, or read from their tile each time where
 * registers are short. */
template <int DIM, bool KEPT> struct factor_rows {
  const uint16_t *rows;
  uint32_t kept[KEPT ? DIM / 16 : 1][4];

  __device__ void take(const uint16_t *tile) {
    rows = tile + (int)threadIdx.x / WARP * WARP_ROWS * PITCH<DIM>;
    if constexpr (KEPT) {
      UNROLL
      for (int k = 0; k < DIM / 16; k++) load_a(kept[k], rows, PITCH<DIM>, k * 16);
    }
  }
  __device__ void at(int k, uint32_t a[4]) const {
    if constexpr (KEPT) {
      UNROLL
      for (int i = 0; i < 4; i++) a[i] = kept[k][i];
    } else {
      load_a(a, rows, PITCH<DIM>, k * 16);
    }
  }
};

/* d[n] = the rows times tokens 8n … 8n + 7 of `tokens`. */
template <int DIM, bool KEPT, int PIECES>
static __device__ inline void
multiply_tokens(float (&d)[PIECES][4], const factor_rows<DIM, KEPT> &rows, const uint16_t *tokens) {
  UNROLL
  for (int n = 0; n < PIECES; n++) {
    UNROLL
    for (int e = 0; e < 4; e++) d[n][e] = 0;
  }
  UNROLL
  for (int k = 0; k < DIM / 16; k++) {
    uint32_t a[4], b[4];
    rows.at(k, a);
    UNROLL
    for (int n = 0; n < PIECES; n += 2) {
      load_b_of_rows(b, tokens + n * 8 * PITCH<DIM>, PITCH<DIM>, k * 16);
      multiply_add(d[n], a, b);
      multiply_add(d[n + 1], a, b + 2);
    }
  }
}

/* sums += weights · tokens: as many tokens as there are columns of weights, which are rounded here. */
template <int DIM, int PIECES>
static __device__ inline void
add_weighted(float (&sums)[DIM / 8][4], const float (&weights)[PIECES][4], const uint16_t *tokens) {
  UNROLL
  for (int n = 0; n < PIECES; n += 2) {
    uint32_t a[4] = {bf16_pair(weights[n][0], weights[n][1]),
                     bf16_pair(weights[n][2], weights[n][3]),
                     bf16_pair(weights[n + 1][0], weights[n + 1][1]),
                     bf16_pair(weights[n + 1][2], weights[n + 1][3])};
    uint32_t b[4];
    UNROLL
    for (int d = 0; d < DIM / 8; d += 2) {
      load_b(b, tokens + n * 8 * PITCH<DIM>, PITCH<DIM>, d * 8);
      multiply_add(sums[d], a, b);
      multiply_add(sums[d + 1], a, b + 2);
    }
  }
}

/* 2^x; what is below 2^-126 is 0. */
static __device__ inline float power_of_two(float x) {
#ifdef STRATA_EMULATE_CUDA
  return exp2f(x);
#else
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#endif
}

/* ---- places ---------------------------------------------------------------------------------------- */

/* The first of a thread's two rows of a block, the other is eight further; its first column of a piece,
 * the other is the next. */
static __device__ inline int own_row() {
  return (int)threadIdx.x / WARP * WARP_ROWS + (int)threadIdx.x % WARP / 4;
}
static __device__ inline int own_column() {
  return (int)threadIdx.x % 4 * 2;
}

/* Whether the warp has any row; not all have in the last block. */
static __device__ inline bool has_rows(int first, int64_t tokens) {
  return first + (int)threadIdx.x / WARP * WARP_ROWS < tokens;
}

/* A warp's pieces of scores: a thread's first row and column, and how many tokens there are that way.
 * Rows are queries and columns keys, or with KEY_ROWS the other way round. */
struct score_place {
  int row, column, rows, columns;
  __device__ bool has(int n, int e) const {
    return row + e / 2 * 8 < rows && column + n * 8 + e % 2 < columns;
  }
  /* Whether all the warp's scores of so many pieces are there; the same for all lanes. */
  __device__ bool has_all(int pieces) const {
    return row - own_row() % WARP_ROWS + WARP_ROWS <= rows &&
           column - own_column() + pieces * 8 <= columns;
  }
};

/* Adds what stands in a table of queries × keys; ALL: has_all. */
template <bool KEY_ROWS, bool ALL, int PIECES>
static __device__ inline void add_table(float (&s)[PIECES][4], const float *table, int keys,
                                        const score_place &at) {
  int row_step = KEY_ROWS ? 1 : keys, column_step = KEY_ROWS ? keys : 1;
  const float *own = table + (int64_t)at.row * row_step + (int64_t)at.column * column_step;
  UNROLL
  for (int n = 0; n < PIECES; n++) {
    UNROLL
    for (int e = 0; e < 4; e++)
      if (ALL || at.has(n, e))
        s[n][e] += __ldg(own + (e / 2 * 8 * row_step + (n * 8 + e % 2) * column_step));
  }
}

template <bool ALL, int PIECES>
static __device__ inline void add_regions(float (&s)[PIECES][4], const int32_t *regions,
                                          const score_place &at) {
  int32_t of_rows[2];
  UNROLL
  for (int h = 0; h < 2; h++)
    of_rows[h] = ALL || at.row + 8 * h < at.rows ? __ldg(regions + at.row + 8 * h) : 0;
  UNROLL
  for (int n = 0; n < PIECES; n++) {
    UNROLL
    for (int e = 0; e < 4; e++)
      if (ALL || at.has(n, e))
        s[n][e] += of_rows[e / 2] != __ldg(regions + at.column + n * 8 + e % 2) ? APART : 0.0f;
  }
}

/* Columns beyond the last get no weight. */
template <int PIECES>
static __device__ inline void close_columns(float (&s)[PIECES][4], const score_place &at) {
  UNROLL
  for (int n = 0; n < PIECES; n++) {
    UNROLL
    for (int e = 0; e < 4; e++)
      if (at.column + n * 8 + e % 2 >= at.columns) s[n][e] = -INFINITY;
  }
}

template <bool KEY_ROWS, bool ALL, int PIECES>
static __device__ inline void add_terms(float (&s)[PIECES][4], const score_terms &t,
                                        const score_place &at) {
  int keys = (int)t.keys;
  if (t.bias) add_table<KEY_ROWS, ALL>(s, t.bias, keys, at);
  if (t.mask) add_table<KEY_ROWS, ALL>(s, t.mask, keys, at);
  if (t.regions) add_regions<ALL>(s, t.regions, at);
}

/* Most pieces lie within the table: they do without conditions. */
template <bool KEY_ROWS, int PIECES>
static __device__ inline void finish_scores(float (&s)[PIECES][4], const score_terms &t,
                                            const score_place &at) {
  if (at.has_all(PIECES)) {
    add_terms<KEY_ROWS, true>(s, t, at);
  } else {
    add_terms<KEY_ROWS, false>(s, t, at);
    close_columns(s, at);
  }
}

/* ---- dropout --------------------------------------------------------------------------------------- */

/* Which weights are kept, a bit for each of a thread's pairs: 4n + e. Rows are queries. Of key j, numbers 0 to 3 of a random block belong to queries i, i + 8, i + 16, i + 24;
 * i % 32 < 8. */
template <int PIECES>
static __device__ inline uint32_t kept_of_queries(const drops &d, const score_place &at) {
  uint32_t kept = 0;
  int first = at.row - at.row % 32 + at.row % 8, second_half = at.row % 32 / 16;
  KEEP_LOOP
  for (int k = 0; k < 2 * PIECES; k++) {
    uint32_t bits[4];
    drop_block(d, first, at.column + k / 2 * 8 + k % 2, bits);
    uint32_t upper = (second_half ? bits[2] : bits[0]) >= d.limit;
    uint32_t lower = (second_half ? bits[3] : bits[1]) >= d.limit;
    kept |= (upper | lower << 2) << (k / 2 * 4 + k % 2);
  }
  return kept;
}

/* Rows are keys, columns PART queries from a multiple of 32 on. */
static __device__ inline uint32_t kept_of_keys(const drops &d, const score_place &at) {
  uint32_t kept = 0;
  KEEP_LOOP
  for (int e = 0; e < 4; e++) {
    uint32_t bits[4];
    drop_block(d, at.column + e % 2, at.row + e / 2 * 8, bits);
    for (int n = 0; n < 4; n++) kept |= (uint32_t)(bits[n] >= d.limit) << (4 * n + e);
  }
  return kept;
}

/* Weights that are not kept become 0, the others grow by as much as is lost. */
template <int PIECES>
static __device__ inline void drop_weights(float (&w)[PIECES][4], const drops &d, uint32_t kept) {
  UNROLL
  for (int n = 0; n < PIECES; n++) {
    UNROLL
    for (int e = 0; e < 4; e++) w[n][e] *= kept >> (4 * n + e) & 1 ? d.kept : 0.0f;
  }
}

/* ---- results --------------------------------------------------------------------------------------- */

/* Rows of D, times `factors`, as numbers of a head of a token; tokens are `row` apart in memory. */
template <int DIM>
static __device__ inline void store_rows(target to, int64_t row, const float (&sums)[DIM / 8][4],
                                         const float factors[2], int first, int64_t count,
                                         int dim) {
  UNROLL
  for (int h = 0; h < 2; h++) {
    int token = first + own_row() + 8 * h;
    if (token >= count) continue;
    target own = to.from(token * row + own_column());
    UNROLL
    for (int n = 0; n < DIM / 8; n++) {
      UNROLL
      for (int e = 0; e < 2; e++)
        if (n * 8 + own_column() + e < dim) own[n * 8 + e] = sums[n][2 * h + e] * factors[h];
    }
  }
}

} // namespace attention_kernels

#endif
