/* Attention with rounded factors, by tensor cores: the kernels of `precision: bf16`. Included by
 * attention.cu.
 *
 * A block of four warps has 64 rows, a warp 16 of them: queries, or keys for the gradients of keys and
 * values. They stay in registers as factors, while the block goes through the other side in tiles, of which
 * the next is copied to shared memory while one is worked on. Scores are pieces of D in registers, and
 * rounded they are the A of the next product (device/cuda/mma.cuh), so they never leave a warp. A thread has
 * two rows of a piece, eight apart, and of each two columns side by side.
 *
 * Tiles are copied from tensors that are stored as bf16; what is not is rounded first, once, into scratch
 * memory. Heads are filled up with zeros to DIM channels. What is rounded is what the CPU rounds
 * (docs/precision.md): scaled queries, keys, values, weights before they are divided by their sum, the
 * gradient of the result, and that of the scores times the scale. */
#ifndef STRATA_OPS_ATTENTION_TENSOR_CORES_CUH
#define STRATA_OPS_ATTENTION_TENSOR_CORES_CUH

#include "ops/attention/problem.cuh"

#include "device/cuda/async_copy.cuh"
#include "device/cuda/mma.cuh"

namespace attention_kernels {

constexpr int ROWS = 64, WARP_ROWS = 16, PART = 32 /* columns that are worked on at once */;
constexpr int CHUNK = 8 /* channels that are copied at once, 16 bytes */;

/* From row to row of a tile: rows are aligned to 16 bytes, and eight of them lie in all 32 banks. */
template <int DIM> constexpr int PITCH = DIM + 8;
template <int DIM> constexpr int TILE = ROWS *PITCH<DIM>;

/* ---- tokens that are stored as bf16 ------------------------------------------------------------------ */

/* Aligned to 16 bytes, as are all distances. */
struct rounded_tokens {
  const uint16_t *first;
  int64_t sequence, head; /* from one to the next */
  int row, channels;      /* from token to token; a head's, the others up to DIM are zeros */
  int count;              /* of a sequence */
};

/* The same of a head of a sequence. */
struct rounded_head {
  const uint16_t *first;
  int row, channels, count;
};

static __device__ inline rounded_head head_of(const rounded_tokens &t, int sequence, int head) {
  return {t.first + sequence * t.sequence + head * t.head, t.row, t.channels, t.count};
}

/* A copy of tokens first … first + COUNT − 1 to shared memory begins; zeros for tokens and channels that
 * are not there. All threads of the block. */
template <int DIM, int COUNT = ROWS>
static __device__ inline void begin_tile(uint16_t *tile, const rounded_head &from, int first) {
  constexpr int CHUNKS = DIM / CHUNK;
  static_assert(COUNT * CHUNKS % BLOCK == 0, "whole rounds");
  UNROLL
  for (int i = 0; i < COUNT * CHUNKS; i += BLOCK) {
    int at = i + (int)threadIdx.x, row = at / CHUNKS, channel = at % CHUNKS * CHUNK;
    bool is_there = first + row < from.count && channel < from.channels;
    int64_t place = is_there ? (int64_t)(first + row) * from.row + channel : 0;
    copy_async(tile + row * PITCH<DIM> + channel, from.first + place, is_there);
  }
}

/* begin(step, buffer) begins the copies that a step needs, work(step, buffer) follows when they are there:
 * with two buffers, those of the next step run meanwhile. All threads of the block. */
template <int BUFFERS, typename Begin, typename Work>
static __device__ inline void run_steps(int steps, Begin begin, Work work) {
  constexpr int AHEAD = BUFFERS - 1;
  if (AHEAD) begin(0, 0);
  commit_copies();
  KEEP_LOOP
  for (int i = 0; i < steps; i++) {
    if (i + AHEAD < steps) begin(i + AHEAD, (i + AHEAD) % BUFFERS);
    commit_copies();
    wait_for_copies<AHEAD>();
    __syncthreads();
    work(i, i % BUFFERS);
    __syncthreads();
  }
}

/* ---- rounding ---------------------------------------------------------------------------------------- */

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

/* CHUNK channels of a token; zeros for those that are not there. */
struct chunk {
  float4 low, high;
};

static __device__ inline chunk chunk_of(const problem &p, const head_tokens &from, int64_t token,
                                        int channel) {
  return {four_channels(from, token, channel, (int)p.dim, p.is_wide),
          four_channels(from, token, channel + 4, (int)p.dim, p.is_wide)};
}

/* Times `factor`. */
static __device__ inline void store_rounded(uint16_t *to, const chunk &x, float factor = 1.0f) {
  *reinterpret_cast<uint4 *>(to) = {bf16_pair(x.low.x * factor, x.low.y * factor),
                                    bf16_pair(x.low.z * factor, x.low.w * factor),
                                    bf16_pair(x.high.x * factor, x.high.y * factor),
                                    bf16_pair(x.high.z * factor, x.high.w * factor)};
}

static __device__ inline float dot_of(const chunk &a, const chunk &b) {
  return a.low.x * b.low.x + a.low.y * b.low.y + a.low.z * b.low.z + a.low.w * b.low.w +
         a.high.x * b.high.x + a.high.y * b.high.y + a.high.z * b.high.z + a.high.w * b.high.w;
}

/* A tile of scaled queries. All threads of the block. */
template <int DIM>
static __device__ inline void load_queries(uint16_t *tile, const problem &p,
                                           const head_tokens &from, int first) {
  constexpr int CHUNKS = DIM / CHUNK;
  UNROLL
  for (int i = 0; i < ROWS * CHUNKS; i += BLOCK) {
    int at = i + (int)threadIdx.x, row = at / CHUNKS, channel = at % CHUNKS * CHUNK;
    store_rounded(tile + row * PITCH<DIM> + channel, chunk_of(p, from, first + row, channel),
                  p.scale);
  }
}

/* Where a thread's chunk of rounded tokens goes: sequences × heads × tokens × DIM. */
template <int DIM>
static __device__ inline uint16_t *packed_place(uint16_t *to, const problem &p,
                                                const block_place &at, int64_t tokens, int token,
                                                int channel) {
  return to + ((at.sequence * p.heads + at.head) * tokens + token) * DIM + channel;
}

/* Keys and values, where they are not stored as bf16; NULL: those that are. */
template <int DIM>
static __global__ void __launch_bounds__(BLOCK) pack_keys(problem p, uint16_t *k, uint16_t *v) {
  constexpr int CHUNKS = DIM / CHUNK;
  block_place at = place_of_block<ROWS>(p, p.keys);
  head_problem of = head_of(p, at.sequence, at.head);
  for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += BLOCK) {
    int token = at.first + i / CHUNKS, channel = i % CHUNKS * CHUNK;
    if (token >= p.keys) return;
    if (k)
      store_rounded(packed_place<DIM>(k, p, at, p.keys, token, channel),
                    chunk_of(p, of.k, token, channel));
    if (v)
      store_rounded(packed_place<DIM>(v, p, at, p.keys, token, channel),
                    chunk_of(p, of.v, token, channel));
  }
}

/* log2 of Σ e^score, and δ, of a query; of one that is not there such that its weights are 0. */
struct query_sums {
  float log2_sum, delta;
};

/* What the kernels of gradients read of queries: sums of whole tiles, tiles × ROWS for each head. */
struct packed_queries {
  uint16_t *scaled, *as_they_are, *dy; /* as_they_are: NULL where they are stored so */
  query_sums *sums;
};

static __host__ __device__ inline int64_t padded_queries(const problem &p) {
  return tiles_of<ROWS>(p.queries) * ROWS;
}

static __device__ inline query_sums *sums_of_head(const packed_queries &q, const problem &p,
                                                  const block_place &at) {
  return q.sums + (at.sequence * p.heads + at.head) * padded_queries(p);
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK)
    pack_queries(problem p, gradients g, packed_queries to) {
  constexpr int CHUNKS = DIM / CHUNK;
  block_place at = place_of_block<ROWS>(p, p.queries);
  head_tokens of_q = head_of(p, at.sequence, at.head).q;
  head_tokens of_out = result_of(p, g.out, at.sequence, at.head);
  head_tokens of_dy = result_of(p, g.dy, at.sequence, at.head);
  const float *lse = g.lse + (at.sequence * p.heads + at.head) * p.queries;
  for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += BLOCK) {
    int token = at.first + i / CHUNKS, channel = i % CHUNKS * CHUNK;
    bool is_there = token < p.queries;
    chunk dy = chunk_of(p, of_dy, token, channel);
    float delta = dot_of(dy, chunk_of(p, of_out, token, channel));
    for (int step = CHUNKS / 2; step > 0; step /= 2)
      delta += __shfl_xor_sync(0xffffffffu, delta, step);
    if (channel == 0)
      sums_of_head(to, p, at)[token] = {is_there ? lse[token] * LOG2_E : INFINITY, delta};
    if (!is_there) continue;
    chunk q = chunk_of(p, of_q, token, channel);
    store_rounded(packed_place<DIM>(to.scaled, p, at, p.queries, token, channel), q, p.scale);
    store_rounded(packed_place<DIM>(to.dy, p, at, p.queries, token, channel), dy);
    if (to.as_they_are)
      store_rounded(packed_place<DIM>(to.as_they_are, p, at, p.queries, token, channel), q);
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

/* ---- forward --------------------------------------------------------------------------------------- */

/* Of a thread's two rows: the largest score so far, log2 of what exponentials are divided by, and their
 * sum. */
struct softmax_state {
  float largest[2], shift[2], sum[2];
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
    float shift = best * LOG2_E, by = best == -INFINITY ? 0.0f : shift, added = 0;
    shrink[h] = power_of_two(state->shift[h] - by);
    UNROLL
    for (int n = 0; n < 8; n++) {
      UNROLL
      for (int e = 2 * h; e < 2 * h + 2; e++) {
        s[n][e] = power_of_two(fmaf(s[n][e], LOG2_E, -by));
        added += s[n][e];
      }
    }
    state->sum[h] = state->sum[h] * shrink[h] + team_sum(added);
    state->largest[h] = best;
    state->shift[h] = shift;
  }
}

/* Keys and values on their way through shared memory. */
template <int DIM> struct key_tiles {
  static constexpr int BUFFERS = DIM <= 64 ? 2 : 1;
  static constexpr size_t BYTES = BUFFERS * 2 * TILE<DIM> * sizeof(uint16_t);
};

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 64 ? 4 : 2)
    attend_tiles(target out, float *lse, problem p, rounded_tokens of_k, rounded_tokens of_v) {
  SHARED_MEMORY(uint16_t, tiles);
  block_place at = place_of_block<ROWS>(p, p.queries);
  head_problem of = head_of(p, at.sequence, at.head);
  rounded_head k = head_of(of_k, at.sequence, at.head), v = head_of(of_v, at.sequence, at.head);
  factor_rows<DIM, true> q;
  load_queries<DIM>(tiles, p, of.q, at.first);
  __syncthreads();
  q.take(tiles);
  __syncthreads();
  softmax_state state = {{-INFINITY, -INFINITY}, {-INFINITY, -INFINITY}, {0, 0}};
  float sums[DIM / 8][4] = {};
  auto begin = [&](int step, int buffer) {
    uint16_t *keys = tiles + buffer * 2 * TILE<DIM>;
    begin_tile<DIM>(keys, k, step * ROWS);
    begin_tile<DIM>(keys + TILE<DIM>, v, step * ROWS);
  };
  auto work = [&](int step, int buffer) {
    if (!has_rows(at.first, p.queries)) return;
    const uint16_t *keys = tiles + buffer * 2 * TILE<DIM>;
    score_place scores = {at.first + own_row(), step * ROWS + own_column(), (int)p.queries,
                          (int)p.keys};
    float s[8][4], shrink[2];
    multiply_tokens(s, q, keys);
    finish_scores<false>(s, of.terms, scores);
    take_scores(s, &state, shrink);
    if (of.drop.limit) drop_weights(s, of.drop, kept_of_queries<8>(of.drop, scores));
    UNROLL
    for (int n = 0; n < DIM / 8; n++) {
      UNROLL
      for (int e = 0; e < 4; e++) sums[n][e] *= shrink[e / 2];
    }
    add_weighted<DIM>(sums, s, keys + TILE<DIM>);
  };
  run_steps<key_tiles<DIM>::BUFFERS>((int)tiles_of<ROWS>(p.keys), begin, work);
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

/* What the kernels of gradients read. */
struct rounded_problem {
  rounded_tokens scaled /* queries */, q, k, v, dy;
  packed_queries packed;
};

/* The gradients of the scores of a warp's 16 queries and PART keys, times `scale`. */
template <int DIM, bool KEPT>
static __device__ inline void
score_gradients(float (&s)[PART / 8][4], const factor_rows<DIM, KEPT> &q,
                const factor_rows<DIM, KEPT> &dy, const uint16_t *keys, const uint16_t *values,
                const score_terms &terms, const drops &drop, const query_sums sums[2],
                const score_place &at, float scale) {
  float of_values[PART / 8][4];
  multiply_tokens(s, q, keys);
  multiply_tokens(of_values, dy, values);
  finish_scores<false>(s, terms, at);
  if (drop.limit) drop_weights(of_values, drop, kept_of_queries<PART / 8>(drop, at));
  UNROLL
  for (int n = 0; n < PART / 8; n++) {
    UNROLL
    for (int e = 0; e < 4; e++) {
      float w = power_of_two(fmaf(s[n][e], LOG2_E, -sums[e / 2].log2_sum));
      s[n][e] = scale * (w * (of_values[n][e] - sums[e / 2].delta));
    }
  }
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 32   ? 4
                                                : DIM <= 64 ? 3
                                                            : 2)
    query_gradient_tiles(problem p, rounded_problem r, target to) {
  SHARED_MEMORY(uint16_t, tiles);
  block_place at = place_of_block<ROWS>(p, p.queries);
  score_terms terms = terms_of(p, at.sequence, at.head);
  drops drop = drops_of(p, at.sequence, at.head);
  rounded_head k = head_of(r.k, at.sequence, at.head), v = head_of(r.v, at.sequence, at.head);
  factor_rows<DIM, true> q, dy;
  begin_tile<DIM>(tiles, head_of(r.scaled, at.sequence, at.head), at.first);
  begin_tile<DIM>(tiles + TILE<DIM>, head_of(r.dy, at.sequence, at.head), at.first);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  q.take(tiles);
  dy.take(tiles + TILE<DIM>);
  __syncthreads();
  int query = at.first + own_row();
  const query_sums *all = sums_of_head(r.packed, p, at), sums[2] = {all[query], all[query + 8]};
  float dq[DIM / 8][4] = {};
  auto begin = [&](int step, int buffer) {
    uint16_t *keys = tiles + buffer * 2 * TILE<DIM>;
    begin_tile<DIM>(keys, k, step * ROWS);
    begin_tile<DIM>(keys + TILE<DIM>, v, step * ROWS);
  };
  auto work = [&](int step, int buffer) {
    if (!has_rows(at.first, p.queries)) return;
    KEEP_LOOP
    for (int part = 0; part < ROWS; part += PART) {
      const uint16_t *keys = tiles + buffer * 2 * TILE<DIM> + part * PITCH<DIM>;
      score_place scores = {query, step * ROWS + part + own_column(), (int)p.queries, (int)p.keys};
      float s[PART / 8][4];
      score_gradients(s, q, dy, keys, keys + TILE<DIM>, terms, drop, sums, scores, p.scale);
      add_weighted<DIM>(dq, s, keys);
    }
  };
  run_steps<key_tiles<DIM>::BUFFERS>((int)tiles_of<ROWS>(p.keys), begin, work);
  const float ones[2] = {1, 1};
  store_rows<DIM>(to.from(at.sequence * p.queries * p.q_row + at.head * p.dim), p.q_row, dq, ones,
                  at.first, p.queries, (int)p.dim);
}

/* Queries as factors of scores (scaled) and of gradients, dy, and the sums, on their way through shared
 * memory. Of the wide heads, keys and values stay there, too, and queries come in smaller tiles. */
template <int DIM> struct query_tiles {
  static constexpr bool KEPT = DIM <= 64;
  static constexpr int BUFFERS = DIM <= 64 ? 2 : 1;
  static constexpr int QUERIES = KEPT ? ROWS : PART, NUMBERS = QUERIES * PITCH<DIM>;
  static constexpr size_t SUMS = QUERIES * sizeof(query_sums);
  static constexpr size_t BUFFER = 3 * NUMBERS * sizeof(uint16_t) + SUMS;
  static constexpr size_t FIXED = KEPT ? 0 : 2 * TILE<DIM> * sizeof(uint16_t);
  static constexpr size_t BYTES = BUFFERS * BUFFER + FIXED;
};

/* The weights of a warp's 16 keys and PART queries, in the place of the scores without what is added to them,
 * and in that of the products of values and dy the gradients of the scores, times `scale`. */
static __device__ inline void key_pairs(float (&s)[PART / 8][4], float (&of_values)[PART / 8][4],
                                        const score_terms &terms, const drops &drop,
                                        const query_sums *sums, const score_place &at,
                                        float scale) {
  finish_scores<true>(s, terms, at);
  uint32_t kept = 0;
  if (drop.limit) {
    kept = kept_of_keys(drop, at);
    drop_weights(of_values, drop, kept);
  }
  UNROLL
  for (int n = 0; n < PART / 8; n++) {
    /* Of two columns. */
    float4 of_pair = *reinterpret_cast<const float4 *>(sums + own_column() + n * 8);
    const query_sums own[2] = {{of_pair.x, of_pair.y}, {of_pair.z, of_pair.w}};
    UNROLL
    for (int e = 0; e < 4; e++) {
      s[n][e] = power_of_two(fmaf(s[n][e], LOG2_E, -own[e % 2].log2_sum));
      of_values[n][e] = scale * (s[n][e] * (of_values[n][e] - own[e % 2].delta));
    }
  }
  if (drop.limit) drop_weights(s, drop, kept);
}

template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 16   ? 4
                                                : DIM <= 64 ? 3
                                                            : 2)
    key_gradient_tiles(problem p, rounded_problem r, target to_k, target to_v) {
  SHARED_MEMORY(char, memory);
  using tiles = query_tiles<DIM>;
  block_place at = place_of_block<ROWS>(p, p.keys);
  score_terms terms = terms_of(p, at.sequence, at.head);
  drops drop = drops_of(p, at.sequence, at.head);
  rounded_head scaled = head_of(r.scaled, at.sequence, at.head);
  rounded_head q = head_of(r.q, at.sequence, at.head), dy = head_of(r.dy, at.sequence, at.head);
  const query_sums *sums = sums_of_head(r.packed, p, at);
  factor_rows<DIM, tiles::KEPT> k, v;
  /* Where they do not stay they lie at the beginning. */
  uint16_t *keys =
      reinterpret_cast<uint16_t *>(memory + (tiles::KEPT ? 0 : tiles::BUFFERS * tiles::BUFFER));
  begin_tile<DIM>(keys, head_of(r.k, at.sequence, at.head), at.first);
  begin_tile<DIM>(keys + TILE<DIM>, head_of(r.v, at.sequence, at.head), at.first);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  k.take(keys);
  v.take(keys + TILE<DIM>);
  __syncthreads();
  float dk[DIM / 8][4] = {}, dv[DIM / 8][4] = {};
  auto begin = [&](int step, int buffer) {
    uint16_t *to = reinterpret_cast<uint16_t *>(memory + buffer * tiles::BUFFER);
    int first = step * tiles::QUERIES, bytes = (int)threadIdx.x * 16;
    begin_tile<DIM, tiles::QUERIES>(to, scaled, first);
    begin_tile<DIM, tiles::QUERIES>(to + tiles::NUMBERS, q, first);
    begin_tile<DIM, tiles::QUERIES>(to + 2 * tiles::NUMBERS, dy, first);
    if (bytes < (int)tiles::SUMS)
      copy_async(reinterpret_cast<char *>(to + 3 * tiles::NUMBERS) + bytes,
                 reinterpret_cast<const char *>(sums + first) + bytes, true);
  };
  auto work = [&](int step, int buffer) {
    if (!has_rows(at.first, p.keys)) return;
    KEEP_LOOP
    for (int part = 0; part < tiles::QUERIES; part += PART) {
      const uint16_t *all = reinterpret_cast<const uint16_t *>(memory + buffer * tiles::BUFFER);
      const uint16_t *rows = all + part * PITCH<DIM>, *of_dy = rows + 2 * tiles::NUMBERS;
      const query_sums *of_part =
          reinterpret_cast<const query_sums *>(all + 3 * tiles::NUMBERS) + part;
      score_place scores = {at.first + own_row(), step * tiles::QUERIES + part + own_column(),
                            (int)p.keys, (int)p.queries};
      float s[PART / 8][4], of_values[PART / 8][4];
      multiply_tokens(s, k, rows);
      multiply_tokens(of_values, v, of_dy);
      key_pairs(s, of_values, terms, drop, of_part, scores, p.scale);
      add_weighted<DIM>(dk, of_values, rows + tiles::NUMBERS);
      add_weighted<DIM>(dv, s, of_dy);
    }
  };
  run_steps<tiles::BUFFERS>((int)tiles_of<tiles::QUERIES>(p.queries), begin, work);
  const float ones[2] = {1, 1};
  store_rows<DIM>(to_k.from(at.sequence * p.keys * p.k_row + at.head * p.dim), p.k_row, dk, ones,
                  at.first, p.keys, (int)p.dim);
  store_rows<DIM>(to_v.from(at.sequence * p.keys * p.v_row + at.head * p.dim), p.v_row, dv, ones,
                  at.first, p.keys, (int)p.dim);
}

/* Of a sequence: scaled queries, dy, keys and values. */
template <int DIM> struct bias_tiles {
  static constexpr bool KEPT = DIM <= 32;
  static constexpr int BUFFERS = DIM <= 32 ? 2 : 1;
  static constexpr size_t BYTES = BUFFERS * 4 * TILE<DIM> * sizeof(uint16_t);
};

/* dbias: sequences are cut into `pieces`, each added up in order by blocks of its own, so that there are
 * enough of them. pieces × heads × queries × keys. */
template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 64 ? 3 : 2)
    bias_gradient_tiles(problem p, rounded_problem r, float *partials, int pieces) {
  SHARED_MEMORY(uint16_t, memory);
  using tiles = bias_tiles<DIM>;
  unsigned across = (unsigned)tiles_of<ROWS>(p.keys), index = blockIdx.x / across;
  unsigned down = (unsigned)tiles_of<ROWS>(p.queries), heads = (unsigned)p.heads;
  int k0 = (int)(blockIdx.x % across) * ROWS, first = (int)(index % down) * ROWS;
  int head = (int)(index / down % heads), piece = (int)(index / down / heads);
  int64_t sequences = p.samples * p.windows;
  int from = (int)(sequences * piece / pieces), end = (int)(sequences * (piece + 1) / pieces);
  int query = first + own_row();
  float total[ROWS / 8][4] = {};
  auto begin = [&](int step, int buffer) {
    uint16_t *to = memory + buffer * 4 * TILE<DIM>;
    begin_tile<DIM>(to, head_of(r.scaled, from + step, head), first);
    begin_tile<DIM>(to + TILE<DIM>, head_of(r.dy, from + step, head), first);
    begin_tile<DIM>(to + 2 * TILE<DIM>, head_of(r.k, from + step, head), k0);
    begin_tile<DIM>(to + 3 * TILE<DIM>, head_of(r.v, from + step, head), k0);
  };
  auto work = [&](int step, int buffer) {
    if (!has_rows(first, p.queries)) return;
    const uint16_t *all = memory + buffer * 4 * TILE<DIM>;
    block_place at = {from + step, head, first};
    score_terms terms = terms_of(p, at.sequence, head);
    drops drop = drops_of(p, at.sequence, head);
    factor_rows<DIM, tiles::KEPT> q, dy;
    q.take(all);
    dy.take(all + TILE<DIM>);
    const query_sums *of_head = sums_of_head(r.packed, p, at);
    const query_sums sums[2] = {of_head[query], of_head[query + 8]};
    UNROLL
    for (int part = 0; part < ROWS; part += PART) {
      score_place scores = {query, k0 + part + own_column(), (int)p.queries, (int)p.keys};
      const uint16_t *keys = all + 2 * TILE<DIM> + part * PITCH<DIM>;
      float s[PART / 8][4];
      score_gradients(s, q, dy, keys, keys + TILE<DIM>, terms, drop, sums, scores, 1.0f);
      UNROLL
      for (int m = 0; m < PART / 8; m++) {
        UNROLL
        for (int e = 0; e < 4; e++) total[part / 8 + m][e] += s[m][e];
      }
    }
  };
  run_steps<tiles::BUFFERS>(end - from, begin, work);
  float *to = partials + ((int64_t)piece * p.heads + head) * p.queries * p.keys;
  score_place tile = {query, k0 + own_column(), (int)p.queries, (int)p.keys};
  UNROLL
  for (int n = 0; n < ROWS / 8; n++) {
    UNROLL
    for (int e = 0; e < 4; e++)
      if (tile.has(n, e))
        to[(int64_t)(query + e / 2 * 8) * p.keys + tile.column + n * 8 + e % 2] = total[n][e];
  }
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

/* Memory is taken piece by piece; from NULL, to find out how much it is. */
struct scratch_memory {
  char *start;
  size_t used;
  template <typename T> T *take(int64_t count) {
    T *at = reinterpret_cast<T *>(start + used);
    used += ((size_t)count * sizeof(T) + 255) / 256 * 256;
    return start ? at : nullptr;
  }
};

static int filled_dim(const problem &p) {
  return p.dim <= 16 ? 16 : p.dim <= 32 ? 32 : p.dim <= 64 ? 64 : 128;
}

/* Tokens where they are packed. */
static rounded_tokens packed_tokens(const problem &p, const uint16_t *at, int64_t count) {
  int dim = filled_dim(p);
  return {at, p.heads * count * dim, count * dim, dim, dim, (int)count};
}

/* Whether copies of 16 bytes can take them from where they are stored: the memory plan aligns all that
 * is stored to 64. */
static bool is_copied(const problem &p, const source &x, int64_t row) {
  return x.bf16 && p.dim % CHUNK == 0 && row % CHUNK == 0;
}

/* Tokens where they are stored, or where they will be packed, which `packed` says then. */
static rounded_tokens rounded_of(const problem &p, const source &x, int64_t row, int64_t count,
                                 scratch_memory *scratch, uint16_t **packed) {
  *packed = nullptr;
  if (is_copied(p, x, row))
    return {
        static_cast<const uint16_t *>(x.at), count * row, p.dim, (int)row, (int)p.dim, (int)count};
  *packed = scratch->take<uint16_t>(p.samples * p.windows * p.heads * count * filled_dim(p));
  return packed_tokens(p, *packed, count);
}

struct rounded_keys {
  rounded_tokens k, v;
  uint16_t *packed_k, *packed_v;
};

static rounded_keys keys_of(const problem &p, scratch_memory *scratch) {
  rounded_keys r;
  r.k = rounded_of(p, p.k, p.k_row, p.keys, scratch, &r.packed_k);
  r.v = rounded_of(p, p.v, p.v_row, p.keys, scratch, &r.packed_v);
  return r;
}

template <int DIM>
static status pack_keys_of(const launch *l, const problem &p, const rounded_keys &r) {
  if (!r.packed_k && !r.packed_v) return OK;
  return LAUNCH(l, pack_keys<DIM>, block_count<ROWS>(p, p.keys), BLOCK, 0, p, r.packed_k,
                r.packed_v);
}

template <int DIM>
static status attend_with(const launch *l, const problem &p, const rounded_keys &r) {
  status error = pack_keys_of<DIM>(l, p, r);
  if (error) return error;
  size_t bytes = key_tiles<DIM>::BYTES;
  allow_shared(attend_tiles<DIM>, bytes);
  return LAUNCH(l, attend_tiles<DIM>, block_count<ROWS>(p, p.queries), BLOCK, bytes,
                target_of(l, 0), out(l, 1), p, r.k, r.v);
}

static size_t rounded_scratch(const problem &p) {
  scratch_memory scratch = {};
  keys_of(p, &scratch);
  return scratch.used;
}

static status attend_rounded(const launch *l, const problem &p) {
  scratch_memory scratch = {static_cast<char *>(l->scratch), 0};
  rounded_keys r = keys_of(p, &scratch);
  switch (filled_dim(p)) {
  case 16:
    return attend_with<16>(l, p, r);
  case 32:
    return attend_with<32>(l, p, r);
  case 64:
    return attend_with<64>(l, p, r);
  default:
    return attend_with<128>(l, p, r);
  }
}

struct gradient_memory {
  rounded_keys keys;
  rounded_problem r;
  float *partials; /* of bias_gradient_tiles; NULL where there is one piece, or no such gradient */
};

static gradient_memory gradient_memory_of(const problem &p, bool has_bias_gradient,
                                          scratch_memory *scratch) {
  gradient_memory m = {};
  int64_t heads = p.samples * p.windows * p.heads, tokens = heads * p.queries * filled_dim(p);
  m.keys = keys_of(p, scratch);
  m.r.k = m.keys.k;
  m.r.v = m.keys.v;
  packed_queries &packed = m.r.packed;
  m.r.q = rounded_of(p, p.q, p.q_row, p.queries, scratch, &packed.as_they_are);
  packed.scaled = scratch->take<uint16_t>(tokens);
  packed.dy = scratch->take<uint16_t>(tokens);
  packed.sums = scratch->take<query_sums>(heads * padded_queries(p));
  m.r.scaled = packed_tokens(p, packed.scaled, p.queries);
  m.r.dy = packed_tokens(p, packed.dy, p.queries);
  int pieces = bias_pieces(p);
  if (has_bias_gradient && pieces > 1)
    m.partials = scratch->take<float>(pieces * p.heads * p.queries * p.keys);
  return m;
}

static size_t rounded_gradients_scratch(const problem &p, bool has_bias_gradient) {
  scratch_memory scratch = {};
  gradient_memory_of(p, has_bias_gradient, &scratch);
  return scratch.used;
}

template <int DIM>
static status bias_gradient_with(const launch *l, const problem &p, const gradients &g,
                                 const gradient_memory &m) {
  int pieces = bias_pieces(p);
  size_t bytes = bias_tiles<DIM>::BYTES;
  unsigned blocks =
      (unsigned)(pieces * p.heads * tiles_of<ROWS>(p.queries) * tiles_of<ROWS>(p.keys));
  allow_shared(bias_gradient_tiles<DIM>, bytes);
  status error = LAUNCH(l, bias_gradient_tiles<DIM>, blocks, BLOCK, bytes, p, m.r,
                        m.partials ? m.partials : g.dbias, pieces);
  if (error || !m.partials) return error;
  int64_t count = p.heads * p.queries * p.keys;
  return for_each_index(l, count, add_pieces_f{g.dbias, m.partials, count, pieces});
}

template <int DIM>
static status gradients_with(const launch *l, const problem &p, const gradients &g,
                             const gradient_memory &m, bool has_bias_gradient) {
  unsigned blocks = block_count<ROWS>(p, p.queries);
  status error = pack_keys_of<DIM>(l, p, m.keys);
  if (!error) error = LAUNCH(l, pack_queries<DIM>, blocks, BLOCK, 0, p, g, m.r.packed);
  if (error) return error;
  size_t bytes = key_tiles<DIM>::BYTES;
  allow_shared(query_gradient_tiles<DIM>, bytes);
  error = LAUNCH(l, query_gradient_tiles<DIM>, blocks, BLOCK, bytes, p, m.r, g.dq);
  if (error) return error;
  bytes = query_tiles<DIM>::BYTES;
  allow_shared(key_gradient_tiles<DIM>, bytes);
  error = LAUNCH(l, key_gradient_tiles<DIM>, block_count<ROWS>(p, p.keys), BLOCK, bytes, p, m.r,
                 g.dk, g.dv);
  if (error || !has_bias_gradient) return error;
  return bias_gradient_with<DIM>(l, p, g, m);
}

/* Scratch memory: rounded_gradients_scratch. */
static status rounded_gradients(const launch *l, problem p, const gradients &g,
                                bool has_bias_gradient) {
  p.is_wide &= is_aligned(source{g.dy, false}) && is_aligned(source{g.out, false});
  scratch_memory scratch = {static_cast<char *>(l->scratch), 0};
  gradient_memory m = gradient_memory_of(p, has_bias_gradient, &scratch);
  switch (filled_dim(p)) {
  case 16:
    return gradients_with<16>(l, p, g, m, has_bias_gradient);
  case 32:
    return gradients_with<32>(l, p, g, m, has_bias_gradient);
  case 64:
    return gradients_with<64>(l, p, g, m, has_bias_gradient);
  default:
    return gradients_with<128>(l, p, g, m, has_bias_gradient);
  }
}

} // namespace attention_kernels

#endif
