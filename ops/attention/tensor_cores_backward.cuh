/* The gradients of attention with rounded factors, by tensor cores (tensor_cores.cuh): weights are computed
 * again from the scores and log Σ e^score. Queries and the gradient of the result are rounded first; then
 * a kernel each for dq, for dk and dv, and for dbias. */
#ifndef STRATA_OPS_ATTENTION_TENSOR_CORES_BACKWARD_CUH
#define STRATA_OPS_ATTENTION_TENSOR_CORES_BACKWARD_CUH

#include "ops/attention/tensor_cores.cuh"

namespace attention_kernels {

/* ---- queries ---------------------------------------------------------------------------------------- */

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

/* ---- gradients ------------------------------------------------------------------------------------- */

/* What the kernels of gradients read. */
struct rounded_problem {
  rounded_tokens scaled /* queries */, q, k, v, dy;
  packed_queries packed;
};

/* The warp's rows of two operands; `tiles` has room for both. All threads of the block. */
template <int DIM, bool KEPT>
static __device__ inline void take_rows(factor_rows<DIM, KEPT> &a, factor_rows<DIM, KEPT> &b,
                                        uint16_t *tiles, const rounded_head &of_a,
                                        const rounded_head &of_b, int first) {
  begin_tile<DIM>(tiles, of_a, first);
  begin_tile<DIM>(tiles + TILE<DIM>, of_b, first);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  a.take(tiles);
  b.take(tiles + TILE<DIM>);
  __syncthreads();
}

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
  take_rows(q, dy, tiles, head_of(r.scaled, at.sequence, at.head),
            head_of(r.dy, at.sequence, at.head), at.first);
  int query = at.first + own_row();
  const query_sums *all = sums_of_head(r.packed, p, at), sums[2] = {all[query], all[query + 8]};
  float dq[DIM / 8][4] = {};
  auto begin = [&](int step, int buffer) { key_tiles<DIM>::begin(tiles, k, v, step, buffer); };
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

/* Where key_gradient_tiles writes. Few keys and many queries, as in attention to projected tokens, would
 * be few blocks with long ways: then the queries are cut into `pieces`, of which each leaves sums of its own,
 * pieces × sequences × heads × keys × DIM, for add_key_pieces_f. */
struct key_results {
  target dk, dv;
  float *k_partials, *v_partials;
  int pieces; /* 1: dk and dv themselves are written */
};

/* dk and dv. Grid: tiles of keys of heads of sequences; pieces. */
template <int DIM>
static __global__ void __launch_bounds__(BLOCK, DIM <= 16   ? 4
                                                : DIM <= 64 ? 3
                                                            : 2)
    key_gradient_tiles(problem p, rounded_problem r, key_results to) {
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
  take_rows(k, v, keys, head_of(r.k, at.sequence, at.head), head_of(r.v, at.sequence, at.head),
            at.first);
  float dk[DIM / 8][4] = {}, dv[DIM / 8][4] = {};
  int64_t steps = tiles_of<tiles::QUERIES>(p.queries), piece = blockIdx.y;
  int from = (int)(steps * piece / to.pieces), end = (int)(steps * (piece + 1) / to.pieces);
  auto begin = [&](int step, int buffer) {
    uint16_t *all = reinterpret_cast<uint16_t *>(memory + buffer * tiles::BUFFER);
    int first = (from + step) * tiles::QUERIES, bytes = (int)threadIdx.x * 16;
    begin_tile<DIM, tiles::QUERIES>(all, scaled, first);
    begin_tile<DIM, tiles::QUERIES>(all + tiles::NUMBERS, q, first);
    begin_tile<DIM, tiles::QUERIES>(all + 2 * tiles::NUMBERS, dy, first);
    if (bytes < (int)tiles::SUMS)
      copy_async(reinterpret_cast<char *>(all + 3 * tiles::NUMBERS) + bytes,
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
      score_place scores = {at.first + own_row(),
                            (from + step) * tiles::QUERIES + part + own_column(), (int)p.keys,
                            (int)p.queries};
      float s[PART / 8][4], of_values[PART / 8][4];
      multiply_tokens(s, k, rows);
      multiply_tokens(of_values, v, of_dy);
      key_pairs(s, of_values, terms, drop, of_part, scores, p.scale);
      add_weighted<DIM>(dk, of_values, rows + tiles::NUMBERS);
      add_weighted<DIM>(dv, s, of_dy);
    }
  };
  run_steps<tiles::BUFFERS>(end - from, begin, work);
  const float ones[2] = {1, 1};
  if (to.pieces == 1) {
    store_rows<DIM>(to.dk.from(at.sequence * p.keys * p.k_row + at.head * p.dim), p.k_row, dk, ones,
                    at.first, p.keys, (int)p.dim);
    store_rows<DIM>(to.dv.from(at.sequence * p.keys * p.v_row + at.head * p.dim), p.v_row, dv, ones,
                    at.first, p.keys, (int)p.dim);
    return;
  }
  int64_t sequences = p.samples * p.windows;
  int64_t own = ((piece * sequences + at.sequence) * p.heads + at.head) * p.keys * DIM;
  store_rows<DIM>(target{to.k_partials + own, false}, DIM, dk, ones, at.first, p.keys, (int)p.dim);
  store_rows<DIM>(target{to.v_partials + own, false}, DIM, dv, ones, at.first, p.keys, (int)p.dim);
}

/* dk or dv of key_gradient_tiles' pieces: a thread for each channel of each key. */
struct add_key_pieces_f {
  target to;
  const float *partials;
  int64_t row, keys, heads, dim, filled_dim, sequences;
  int pieces;
  __device__ void operator()(int64_t i) const {
    int64_t channel = i % dim, head = i / dim % heads, key = i / (dim * heads) % keys;
    int64_t sequence = i / (dim * heads * keys);
    const float *at = partials + ((sequence * heads + head) * keys + key) * filled_dim + channel;
    float sum = 0;
    for (int k = 0; k < pieces; k++) sum += at[k * sequences * heads * keys * filled_dim];
    to.from((sequence * keys + key) * row)[head * dim + channel] = sum;
  }
};

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

/* Into how many pieces of its `steps` the work of so few blocks is cut. */
static int pieces_of(int64_t blocks, int64_t steps, int64_t most) {
  constexpr int64_t ENOUGH_BLOCKS = 512;
  int64_t pieces = ENOUGH_BLOCKS / blocks;
  if (pieces > steps) pieces = steps;
  return (int)(pieces < 1 ? 1 : pieces > most ? most : pieces);
}

static int bias_pieces(const problem &p) {
  int64_t blocks = tiles_of<ROWS>(p.queries) * tiles_of<ROWS>(p.keys) * p.heads;
  return pieces_of(blocks, p.samples * p.windows, 16);
}

/* Each is worth its sums from 256 queries on. */
static int key_pieces(const problem &p) {
  int64_t blocks = tiles_of<ROWS>(p.keys) * p.heads * p.samples * p.windows;
  return pieces_of(blocks, tiles_of<4 * ROWS>(p.queries), 64);
}

struct gradient_memory {
  rounded_keys keys;
  rounded_problem r;
  float *k_partials, *v_partials; /* of key_gradient_tiles; NULL where there is one piece */
  float *bias_partials;           /* of bias_gradient_tiles; the same, or no such gradient */
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
  int pieces = key_pieces(p);
  if (pieces > 1) {
    m.k_partials = scratch->take<float>(pieces * heads * p.keys * filled_dim(p));
    m.v_partials = scratch->take<float>(pieces * heads * p.keys * filled_dim(p));
  }
  pieces = bias_pieces(p);
  if (has_bias_gradient && pieces > 1)
    m.bias_partials = scratch->take<float>(pieces * p.heads * p.queries * p.keys);
  return m;
}

static size_t rounded_gradients_scratch(const problem &p, bool has_bias_gradient) {
  scratch_memory scratch = {};
  gradient_memory_of(p, has_bias_gradient, &scratch);
  return scratch.used;
}

template <int DIM>
static status key_gradient_with(const launch *l, const problem &p, const gradients &g,
                                const gradient_memory &m) {
  size_t bytes = query_tiles<DIM>::BYTES;
  int pieces = key_pieces(p);
  allow_shared(key_gradient_tiles<DIM>, bytes);
  status error =
      LAUNCH(l, key_gradient_tiles<DIM>, dim3(block_count<ROWS>(p, p.keys), (unsigned)pieces),
             BLOCK, bytes, p, m.r, key_results{g.dk, g.dv, m.k_partials, m.v_partials, pieces});
  if (error || pieces == 1) return error;
  int64_t sequences = p.samples * p.windows, count = sequences * p.keys * p.heads * p.dim;
  error = for_each_index(l, count,
                         add_key_pieces_f{g.dk, m.k_partials, p.k_row, p.keys, p.heads, p.dim, DIM,
                                          sequences, pieces});
  if (error) return error;
  return for_each_index(l, count,
                        add_key_pieces_f{g.dv, m.v_partials, p.v_row, p.keys, p.heads, p.dim, DIM,
                                         sequences, pieces});
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
                        m.bias_partials ? m.bias_partials : g.dbias, pieces);
  if (error || !m.bias_partials) return error;
  int64_t count = p.heads * p.queries * p.keys;
  return for_each_index(l, count, add_pieces_f{g.dbias, m.bias_partials, count, pieces});
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
  error = key_gradient_with<DIM>(l, p, g, m);
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
