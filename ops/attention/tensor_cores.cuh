/* Attention with rounded factors, by tensor cores: the kernels of `precision: bf16`. Included by
 * attention.cu.
 *
 * A block of four warps has 64 rows, a warp 16 of them: queries, or keys for the gradients of keys and
 * values. They stay in registers as factors, while the block goes through the other side in tiles that are
 * rounded on their way to shared memory. Scores are pieces of D in registers, and rounded they are the A
 * of the next product (device/cuda/mma.cuh), so they never leave a warp. A thread has two rows of a piece,
 * eight apart, and of each two columns side by side.
 *
 * Heads are filled up with zeros to DIM channels. What is rounded is what the CPU rounds
 * (docs/precision.md): scaled queries, keys, values, weights before they are divided by their sum, the
 * gradient of the result, and that of the scores times the scale. */
#ifndef STRATA_OPS_ATTENTION_TENSOR_CORES_CUH
#define STRATA_OPS_ATTENTION_TENSOR_CORES_CUH

#include "ops/attention/problem.cuh"

#include "device/cuda/mma.cuh"

namespace attention_kernels {

constexpr int ROWS = 64, WARP_ROWS = 16, PART = 32 /* columns that are worked on at once */;

/* From row to row of a tile: rows are aligned to 16 bytes, and eight of them lie in all 32 banks. */
template <int DIM> constexpr int PITCH = DIM + 8;

/* ---- tiles ----------------------------------------------------------------------------------------- */

static __device__ inline float4 four_channels(const head_tokens &from, int64_t token, int channel,
                                              int dim, bool is_wide) {
  float4 x = {0, 0, 0, 0};
  if (token >= from.count || channel >= dim) return x;
  source at = from.first.from(token * from.row + channel);
  if (is_wide && !at.bf16) return *static_cast<const float4 *>(at.at);
  if (is_wide) {
    uint2 pairs = *static_cast<const uint2 *>(at.at);
    return {bf16_number(pairs.x & 0xffffu), bf16_number(pairs.x >> 16),
            bf16_number(pairs.y & 0xffffu), bf16_number(pairs.y >> 16)};
  }
  x.x = at[0];
  if (channel + 1 < dim) x.y = at[1];
  if (channel + 2 < dim) x.z = at[2];
  if (channel + 3 < dim) x.w = at[3];
  return x;
}

static __device__ inline void store_rounded(uint16_t *to, float4 x, float factor) {
  uint2 pairs = {bf16_pair(x.x * factor, x.y * factor), bf16_pair(x.z * factor, x.w * factor)};
  *reinterpret_cast<uint2 *>(to) = pairs;
}

/* Tokens first … first + COUNT − 1 times `factor`, rounded; as they are to `unscaled`, too, where it is
 * not NULL. Tokens and channels that are not there are zeros. All threads of the block. */
template <int DIM, int COUNT = ROWS>
static __device__ inline void load_rounded(uint16_t *tile, const problem &p,
                                           const head_tokens &from, int first, float factor = 1.0f,
                                           uint16_t *unscaled = nullptr) {
  constexpr int QUADS = DIM / 4, ROUNDS = COUNT * QUADS / BLOCK;
  constexpr int AHEAD = ROUNDS < 4 ? ROUNDS : 4; /* loads on their way at once */
  static_assert(COUNT * QUADS % (BLOCK * AHEAD) == 0, "whole rounds");
  KEEP_LOOP
  for (int round = 0; round < ROUNDS; round += AHEAD) {
    float4 x[AHEAD];
    UNROLL
    for (int k = 0; k < AHEAD; k++) {
      int at = (round + k) * BLOCK + (int)threadIdx.x;
      x[k] = four_channels(from, first + at / QUADS, at % QUADS * 4, (int)p.dim, p.is_wide);
    }
    UNROLL
    for (int k = 0; k < AHEAD; k++) {
      int at = (round + k) * BLOCK + (int)threadIdx.x;
      int to = at / QUADS * PITCH<DIM> + at % QUADS * 4;
      store_rounded(tile + to, x[k], factor);
      if (unscaled) store_rounded(unscaled + to, x[k], 1.0f);
    }
  }
}

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
    if constexpr (KEPT)
      for (int i = 0; i < 4; i++) a[i] = kept[k][i];
    else
      load_a(a, rows, PITCH<DIM>, k * 16);
  }
};

/* d[n] = the rows times tokens 8n … 8n + 7 of `tokens`. */
template <int DIM, bool KEPT, int PIECES>
static __device__ inline void
multiply_tokens(float (&d)[PIECES][4], const factor_rows<DIM, KEPT> &rows, const uint16_t *tokens) {
  UNROLL
  for (int n = 0; n < PIECES; n++)
    for (int e = 0; e < 4; e++) d[n][e] = 0;
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

/* e^x, from 2^x, which the hardware has: off by less than 1e-6 where it matters. */
static __device__ inline float exponential(float x) {
  return exp2f(x * 1.44269504088896341f);
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
};

/* Adds what stands in a table of queries × keys. */
template <bool KEY_ROWS, int PIECES>
static __device__ inline void add_table(float (&s)[PIECES][4], const float *table, int64_t keys,
                                        const score_place &at) {
  int64_t row_step = KEY_ROWS ? 1 : keys, column_step = KEY_ROWS ? keys : 1;
  const float *own = table + at.row * row_step + at.column * column_step;
  UNROLL
  for (int n = 0; n < PIECES; n++)
    for (int e = 0; e < 4; e++)
      if (at.has(n, e)) s[n][e] += own[e / 2 * 8 * row_step + (n * 8 + e % 2) * column_step];
}

template <int PIECES>
static __device__ inline void add_regions(float (&s)[PIECES][4], const int32_t *regions,
                                          const score_place &at) {
  int32_t of_rows[2];
  for (int h = 0; h < 2; h++) of_rows[h] = at.row + 8 * h < at.rows ? regions[at.row + 8 * h] : 0;
  UNROLL
  for (int n = 0; n < PIECES; n++)
    for (int e = 0; e < 4; e++)
      if (at.has(n, e) && of_rows[e / 2] != regions[at.column + n * 8 + e % 2]) s[n][e] += APART;
}

template <bool KEY_ROWS, int PIECES>
static __device__ inline void add_terms(float (&s)[PIECES][4], const score_terms &t,
                                        const score_place &at) {
  if (t.bias) add_table<KEY_ROWS>(s, t.bias, t.keys, at);
  if (t.mask) add_table<KEY_ROWS>(s, t.mask, t.keys, at);
  if (t.regions) add_regions(s, t.regions, at);
}

/* Columns beyond the last key get no weight. */
template <int PIECES>
static __device__ inline void close_columns(float (&s)[PIECES][4], const score_place &at) {
  UNROLL
  for (int n = 0; n < PIECES; n++)
    for (int e = 0; e < 4; e++)
      if (at.column + n * 8 + e % 2 >= at.columns) s[n][e] = -INFINITY;
}

/* ---- dropout --------------------------------------------------------------------------------------- */

/* Which weights are kept, a bit for each of a thread's pairs: 4n + e. */
static __device__ inline bool is_kept(uint32_t kept, int n, int e) {
  return kept >> (4 * n + e) & 1;
}

/* Rows are queries. Of key j, numbers 0 to 3 of a random block belong to queries i, i + 8, i + 16, i + 24;
 * i % 32 < 8. */
template <int PIECES>
static __device__ inline uint32_t kept_of_queries(const drops &d, const score_place &at) {
  if (d.limit == 0) return ~0u;
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
  if (d.limit == 0) return ~0u;
  uint32_t kept = 0;
  KEEP_LOOP
  for (int e = 0; e < 4; e++) {
    uint32_t bits[4];
    drop_block(d, at.column + e % 2, at.row + e / 2 * 8, bits);
    for (int n = 0; n < 4; n++) kept |= (uint32_t)(bits[n] >= d.limit) << (4 * n + e);
  }
  return kept;
}

/* ---- results --------------------------------------------------------------------------------------- */

/* Rows of D, times `factors`, as numbers of a head of a token; tokens are `row` apart in memory. */
template <int DIM>
static __device__ inline void store_rows(target to, int64_t row, const float (&sums)[DIM / 8][4],
                                         const float factors[2], int first, int64_t count,
                                         int dim) {
  for (int h = 0; h < 2; h++) {
    int token = first + own_row() + 8 * h;
    if (token >= count) continue;
    target own = to.from(token * row + own_column());
    UNROLL
    for (int n = 0; n < DIM / 8; n++)
      for (int e = 0; e < 2; e++)
        if (n * 8 + own_column() + e < dim) own[n * 8 + e] = sums[n][2 * h + e] * factors[h];
  }
}

/* ---- forward --------------------------------------------------------------------------------------- */

/* Largest score and sum of exponentials so far, of a thread's two rows. */
struct softmax_state {
  float largest[2], sum[2];
};

/* Scores of a warp's 16 queries and 64 keys become weights, and `shrink` what earlier sums have to be
 * multiplied with. */
static __device__ inline void take_scores(float (&s)[8][4], softmax_state *state, float shrink[2]) {
  UNROLL
  for (int h = 0; h < 2; h++) {
    float best = -INFINITY;
    UNROLL
    for (int n = 0; n < 8; n++) best = max(best, max(s[n][2 * h], s[n][2 * h + 1]));
    best = max(team_max(best), state->largest[h]);
    shrink[h] = state->largest[h] == best ? 1.0f : exponential(state->largest[h] - best);
    float added = 0;
    UNROLL
    for (int n = 0; n < 8; n++)
      for (int e = 2 * h; e < 2 * h + 2; e++) {
        s[n][e] = s[n][e] == -INFINITY ? 0.0f : exponential(s[n][e] - best);
        added += s[n][e];
      }
    state->sum[h] = state->sum[h] * shrink[h] + team_sum(added);
    state->largest[h] = best;
  }
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 64 ? 4 : 2)
    attend_tiles(target out, float *lse, problem p) {
  SHARED_MEMORY(uint16_t, keys);
  uint16_t *values = keys + ROWS * PITCH<DIM>;
  block_place at = place_of_block<ROWS>(p, p.queries);
  head_problem of = head_of(p, at.sequence, at.head);
  factor_rows<DIM, true> q;
  load_rounded<DIM>(keys, p, of.q, at.first, p.scale);
  __syncthreads();
  q.take(keys);
  bool is_busy = has_rows(at.first, p.queries);
  softmax_state state = {{-INFINITY, -INFINITY}, {0, 0}};
  float sums[DIM / 8][4] = {};
  for (int k0 = 0; k0 < p.keys; k0 += ROWS) {
    __syncthreads();
    load_rounded<DIM>(keys, p, of.k, k0);
    load_rounded<DIM>(values, p, of.v, k0);
    __syncthreads();
    if (!is_busy) continue;
    score_place scores = {at.first + own_row(), k0 + own_column(), (int)p.queries, (int)p.keys};
    float s[8][4], shrink[2];
    multiply_tokens(s, q, keys);
    add_terms<false>(s, of.terms, scores);
    close_columns(s, scores);
    take_scores(s, &state, shrink);
    uint32_t kept = kept_of_queries<8>(of.drop, scores);
    UNROLL
    for (int n = 0; n < 8; n++)
      for (int e = 0; e < 4; e++) s[n][e] *= is_kept(kept, n, e) ? of.drop.kept : 0.0f;
    UNROLL
    for (int n = 0; n < DIM / 8; n++)
      for (int e = 0; e < 4; e++) sums[n][e] *= shrink[e / 2];
    add_weighted<DIM>(sums, s, values);
  }
  const float factors[2] = {1 / state.sum[0], 1 / state.sum[1]};
  int64_t channels = p.heads * p.dim;
  store_rows<DIM>(out.from(at.sequence * p.queries * channels + at.head * p.dim), channels, sums,
                  factors, at.first, p.queries, (int)p.dim);
  if (!lse || own_column() > 0) return;
  float *own = lse + (at.sequence * p.heads + at.head) * p.queries;
  for (int h = 0; h < 2; h++) {
    int query = at.first + own_row() + 8 * h;
    if (query < p.queries) own[query] = state.largest[h] + logf(state.sum[h]);
  }
}

/* ---- gradient -------------------------------------------------------------------------------------- */

/* log Σ e^score and δ of a query, zeros for one that is not there. */
struct query_sums {
  float lse, delta;
};

static __device__ inline query_sums sums_of_query(const problem &p, const gradients &g,
                                                  const block_place &at, int query) {
  if (query >= p.queries) return {0, 0};
  int64_t index = (at.sequence * p.heads + at.head) * p.queries + query;
  return {g.lse[index], g.delta[index]};
}

/* The gradients of the scores of a warp's 16 queries and PART keys, times `scale`. */
template <int DIM, bool KEPT>
static __device__ inline void
score_gradients(float (&s)[PART / 8][4], const factor_rows<DIM, KEPT> &q,
                const factor_rows<DIM, KEPT> &dy, const uint16_t *keys, const uint16_t *values,
                const head_problem &of, const query_sums sums[2], const score_place &at,
                float scale) {
  float of_values[PART / 8][4];
  multiply_tokens(s, q, keys);
  multiply_tokens(of_values, dy, values);
  add_terms<false>(s, of.terms, at);
  close_columns(s, at);
  uint32_t kept = kept_of_queries<PART / 8>(of.drop, at);
  UNROLL
  for (int n = 0; n < PART / 8; n++)
    for (int e = 0; e < 4; e++) {
      float w = exponential(s[n][e] - sums[e / 2].lse);
      float f = is_kept(kept, n, e) ? of.drop.kept : 0.0f;
      s[n][e] = scale * (w * (f * of_values[n][e] - sums[e / 2].delta));
    }
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 32   ? 4
                                                : DIM <= 64 ? 3
                                                            : 2)
    query_gradient_tiles(problem p, gradients g) {
  SHARED_MEMORY(uint16_t, keys);
  uint16_t *values = keys + ROWS * PITCH<DIM>;
  block_place at = place_of_block<ROWS>(p, p.queries);
  head_problem of = head_of(p, at.sequence, at.head);
  factor_rows<DIM, true> q, dy;
  load_rounded<DIM>(keys, p, of.q, at.first, p.scale);
  load_rounded<DIM>(values, p, result_gradient_of(p, g, at.sequence, at.head), at.first);
  __syncthreads();
  q.take(keys);
  dy.take(values);
  int query = at.first + own_row();
  bool is_busy = has_rows(at.first, p.queries);
  const query_sums sums[2] = {sums_of_query(p, g, at, query), sums_of_query(p, g, at, query + 8)};
  float dq[DIM / 8][4] = {};
  for (int k0 = 0; k0 < p.keys; k0 += ROWS) {
    __syncthreads();
    load_rounded<DIM>(keys, p, of.k, k0);
    load_rounded<DIM>(values, p, of.v, k0);
    __syncthreads();
    if (!is_busy) continue;
    KEEP_LOOP
    for (int part = 0; part < ROWS; part += PART) {
      score_place scores = {query, k0 + part + own_column(), (int)p.queries, (int)p.keys};
      int in_tile = part * PITCH<DIM>;
      float s[PART / 8][4];
      score_gradients(s, q, dy, keys + in_tile, values + in_tile, of, sums, scores, p.scale);
      add_weighted<DIM>(dq, s, keys + in_tile);
    }
  }
  const float ones[2] = {1, 1};
  store_rows<DIM>(g.dq.from(at.sequence * p.queries * p.q_row + at.head * p.dim), p.q_row, dq, ones,
                  at.first, p.queries, (int)p.dim);
}

/* Of the wide heads, keys and values stay in shared memory, and queries come in smaller tiles. */
template <int DIM> struct key_tiles {
  static constexpr bool KEPT = DIM <= 64;
  static constexpr int QUERIES = KEPT ? ROWS : PART;
  static constexpr int TILE = QUERIES * PITCH<DIM>, FIXED = KEPT ? 0 : ROWS * PITCH<DIM>;
  static constexpr size_t BYTES =
      (3 * TILE + 2 * FIXED) * sizeof(uint16_t) + QUERIES * sizeof(query_sums);
};

/* The gradients of the scores of a warp's 16 keys and PART queries, times `scale`, as score_gradients; and
 * the weights, in the place of the products of values and dy. A query that is not there has zeros for
 * everything, and its weight finds only zeros. */
static __device__ inline void key_pairs(float (&s)[PART / 8][4], float (&of_values)[PART / 8][4],
                                        const head_problem &of, const query_sums *sums,
                                        const score_place &at, float scale) {
  add_terms<true>(s, of.terms, at);
  uint32_t kept = kept_of_keys(of.drop, at);
  UNROLL
  for (int n = 0; n < PART / 8; n++)
    for (int e = 0; e < 4; e++) {
      query_sums own = sums[own_column() + n * 8 + e % 2];
      float w = exponential(s[n][e] - own.lse);
      float f = is_kept(kept, n, e) ? of.drop.kept : 0.0f;
      s[n][e] = scale * (w * (f * of_values[n][e] - own.delta));
      of_values[n][e] = w * f;
    }
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 16   ? 4
                                                : DIM <= 64 ? 3
                                                            : 2)
    key_gradient_tiles(problem p, gradients g) {
  SHARED_MEMORY(uint16_t, scaled);
  using tiles = key_tiles<DIM>;
  /* dk has the queries as they are, the scores have them scaled: rounded, these are two tiles. */
  uint16_t *queries = scaled + tiles::TILE, *dy = queries + tiles::TILE;
  uint16_t *end = dy + tiles::TILE, *keys = tiles::KEPT ? scaled : end;
  uint16_t *values = tiles::KEPT ? queries : keys + tiles::FIXED;
  query_sums *sums = reinterpret_cast<query_sums *>(end + 2 * tiles::FIXED);
  block_place at = place_of_block<ROWS>(p, p.keys);
  head_problem of = head_of(p, at.sequence, at.head);
  head_tokens of_dy = result_gradient_of(p, g, at.sequence, at.head);
  factor_rows<DIM, tiles::KEPT> k, v;
  load_rounded<DIM>(keys, p, of.k, at.first);
  load_rounded<DIM>(values, p, of.v, at.first);
  __syncthreads();
  k.take(keys);
  v.take(values);
  bool is_busy = has_rows(at.first, p.keys);
  float dk[DIM / 8][4] = {}, dv[DIM / 8][4] = {};
  for (int q0 = 0; q0 < p.queries; q0 += tiles::QUERIES) {
    __syncthreads();
    load_rounded<DIM, tiles::QUERIES>(scaled, p, of.q, q0, p.scale, queries);
    load_rounded<DIM, tiles::QUERIES>(dy, p, of_dy, q0);
    if ((int)threadIdx.x < tiles::QUERIES)
      sums[threadIdx.x] = sums_of_query(p, g, at, q0 + (int)threadIdx.x);
    __syncthreads();
    if (!is_busy) continue;
    KEEP_LOOP
    for (int part = 0; part < tiles::QUERIES; part += PART) {
      int in_tile = part * PITCH<DIM>;
      score_place scores = {at.first + own_row(), q0 + part + own_column(), (int)p.keys,
                            (int)p.queries};
      float s[PART / 8][4], of_values[PART / 8][4];
      multiply_tokens(s, k, scaled + in_tile);
      multiply_tokens(of_values, v, dy + in_tile);
      key_pairs(s, of_values, of, sums + part, scores, p.scale);
      add_weighted<DIM>(dk, s, queries + in_tile);
      add_weighted<DIM>(dv, of_values, dy + in_tile);
    }
  }
  const float ones[2] = {1, 1};
  store_rows<DIM>(g.dk.from(at.sequence * p.keys * p.k_row + at.head * p.dim), p.k_row, dk, ones,
                  at.first, p.keys, (int)p.dim);
  store_rows<DIM>(g.dv.from(at.sequence * p.keys * p.v_row + at.head * p.dim), p.v_row, dv, ones,
                  at.first, p.keys, (int)p.dim);
}

/* dbias: sequences are cut into `pieces`, each added up in order by blocks of its own, so that there are
 * enough of them. pieces × heads × queries × keys. */
template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 64 ? 3 : 2)
    bias_gradient_tiles(problem p, gradients g, float *partials, int pieces) {
  SHARED_MEMORY(uint16_t, queries);
  constexpr int TILE = ROWS * PITCH<DIM>;
  uint16_t *dy = queries + TILE, *keys = dy + TILE, *values = keys + TILE;
  int64_t across = tiles_of<ROWS>(p.keys), index = blockIdx.x / across;
  int64_t down = tiles_of<ROWS>(p.queries), head = index / down % p.heads;
  int k0 = (int)(blockIdx.x % across) * ROWS, first = (int)(index % down) * ROWS;
  int64_t piece = index / (down * p.heads), sequences = p.samples * p.windows;
  int query = first + own_row();
  bool is_busy = has_rows(first, p.queries);
  float total[ROWS / 8][4] = {};
  for (int64_t n = sequences * piece / pieces; n < sequences * (piece + 1) / pieces; n++) {
    head_problem of = head_of(p, n, head);
    block_place at = {n, head, first};
    __syncthreads();
    load_rounded<DIM>(queries, p, of.q, first, p.scale);
    load_rounded<DIM>(dy, p, result_gradient_of(p, g, n, head), first);
    load_rounded<DIM>(keys, p, of.k, k0);
    load_rounded<DIM>(values, p, of.v, k0);
    __syncthreads();
    if (!is_busy) continue;
    factor_rows<DIM, false> q_rows, dy_rows;
    q_rows.take(queries);
    dy_rows.take(dy);
    const query_sums sums[2] = {sums_of_query(p, g, at, query), sums_of_query(p, g, at, query + 8)};
    UNROLL
    for (int part = 0; part < ROWS; part += PART) {
      score_place scores = {query, k0 + part + own_column(), (int)p.queries, (int)p.keys};
      int in_tile = part * PITCH<DIM>;
      float s[PART / 8][4];
      score_gradients(s, q_rows, dy_rows, keys + in_tile, values + in_tile, of, sums, scores, 1.0f);
      UNROLL
      for (int m = 0; m < PART / 8; m++)
        for (int e = 0; e < 4; e++) total[part / 8 + m][e] += s[m][e];
    }
  }
  float *to = partials + (piece * p.heads + head) * p.queries * p.keys;
  score_place tile = {query, k0 + own_column(), (int)p.queries, (int)p.keys};
  UNROLL
  for (int n = 0; n < ROWS / 8; n++)
    for (int e = 0; e < 4; e++)
      if (tile.has(n, e))
        to[(int64_t)(query + e / 2 * 8) * p.keys + tile.column + n * 8 + e % 2] = total[n][e];
}

struct add_pieces_f {
  float *to;
  const float *partials;
  int64_t count;
  int pieces;
  __device__ void operator()(int64_t i) const {
    float sum = 0;
    for (int k = 0; k < pieces; k++) sum += partials[k * count + i];
    to[i] = sum;
  }
};

/* ---- launches -------------------------------------------------------------------------------------- */

static int bias_pieces(const problem &p) {
  constexpr int64_t ENOUGH_BLOCKS = 512, MOST = 16;
  int64_t blocks = tiles_of<ROWS>(p.queries) * tiles_of<ROWS>(p.keys) * p.heads;
  int64_t pieces = ENOUGH_BLOCKS / blocks, sequences = p.samples * p.windows;
  if (pieces > sequences) pieces = sequences;
  return (int)(pieces < 1 ? 1 : pieces > MOST ? MOST : pieces);
}

/* Beside δ. */
static size_t rounded_scratch(const problem &p, bool has_bias_gradient) {
  int pieces = bias_pieces(p);
  if (!has_bias_gradient || pieces == 1) return 0;
  return (size_t)(pieces * p.heads * p.queries * p.keys) * sizeof(float);
}

template <int DIM> static status attend_with(const launch *l, const problem &p) {
  size_t bytes = 2 * ROWS * PITCH<DIM> * sizeof(uint16_t);
  allow_shared(attend_tiles<DIM>, bytes);
  return LAUNCH(l, attend_tiles<DIM>, block_count<ROWS>(p, p.queries), BLOCK, bytes,
                target_of(l, 0), out(l, 1), p);
}

template <int DIM>
static status gradients_with(const launch *l, const problem &p, const gradients &g, float *scratch,
                             bool has_bias_gradient) {
  size_t tile = ROWS * PITCH<DIM> * sizeof(uint16_t), keys = key_tiles<DIM>::BYTES;
  allow_shared(query_gradient_tiles<DIM>, 2 * tile);
  status error =
      LAUNCH(l, query_gradient_tiles<DIM>, block_count<ROWS>(p, p.queries), BLOCK, 2 * tile, p, g);
  if (error) return error;
  allow_shared(key_gradient_tiles<DIM>, keys);
  error = LAUNCH(l, key_gradient_tiles<DIM>, block_count<ROWS>(p, p.keys), BLOCK, keys, p, g);
  if (error || !has_bias_gradient) return error;
  int pieces = bias_pieces(p);
  float *partials = pieces == 1 ? g.dbias : scratch;
  unsigned blocks =
      (unsigned)(pieces * p.heads * tiles_of<ROWS>(p.queries) * tiles_of<ROWS>(p.keys));
  allow_shared(bias_gradient_tiles<DIM>, 4 * tile);
  error = LAUNCH(l, bias_gradient_tiles<DIM>, blocks, BLOCK, 4 * tile, p, g, partials, pieces);
  if (error || pieces == 1) return error;
  int64_t count = p.heads * p.queries * p.keys;
  return for_each_index(l, count, add_pieces_f{g.dbias, partials, count, pieces});
}

static status attend_rounded(const launch *l, const problem &p) {
  return p.dim <= 16   ? attend_with<16>(l, p)
         : p.dim <= 32 ? attend_with<32>(l, p)
         : p.dim <= 64 ? attend_with<64>(l, p)
                       : attend_with<128>(l, p);
}

/* `scratch` holds rounded_scratch bytes. */
static status rounded_gradients(const launch *l, problem p, const gradients &g, float *scratch,
                                bool has_bias_gradient) {
  p.is_wide &= is_aligned(source{g.dy, false});
  return p.dim <= 16   ? gradients_with<16>(l, p, g, scratch, has_bias_gradient)
         : p.dim <= 32 ? gradients_with<32>(l, p, g, scratch, has_bias_gradient)
         : p.dim <= 64 ? gradients_with<64>(l, p, g, scratch, has_bias_gradient)
                       : gradients_with<128>(l, p, g, scratch, has_bias_gradient);
}

} // namespace attention_kernels

#endif
