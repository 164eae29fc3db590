/* What the kernels of attention share: the problem, what is added to scores, dropout.
 * ops/kernels/attention.h has the definition. Included by attention.cu. */
#ifndef STRATA_OPS_ATTENTION_PROBLEM_CUH
#define STRATA_OPS_ATTENTION_PROBLEM_CUH

#include "device/cuda/stored.cuh"

namespace attention_kernels {

constexpr int BLOCK = 128, DIM_MAX = 128;
constexpr float APART = -100.0f; /* between tokens of different regions */
constexpr float LOG2_E = 1.44269504088896341f;

struct problem {
  int64_t samples, windows, heads, dim, queries, keys, q_row, k_row, v_row;
  source q, k, v;
  const float *bias, *mask;
  const int32_t *regions;
  int64_t mask_windows, region_windows;
  float scale;
  bool is_wide; /* tokens may be read four numbers at a time */
  uint32_t drop_limit;
  float kept;
  const rng_key *rng_keys;
  uint64_t node;
};

enum { TERM_BIAS, TERM_MASK, TERM_REGIONS, TERMS };

static int64_t tokens_of(const plugin_shape *s) {
  return s->dim[s->rank - 2];
}

/* For four numbers at a time. */
static bool is_aligned(const source &x) {
  return (uintptr_t)x.at % (size_t)stored_bytes(x.bf16, 4) == 0;
}

/* `operands` tensors hold queries, keys and values; the last of them what is left, side by side. */
static problem problem_of(const launch *l, int operands) {
  const plugin_shape *q = in_shape(l, 0), *key = in_shape(l, operands > 1 ? 1 : 0);
  const plugin_shape *last = in_shape(l, operands - 1);
  problem p = {};
  p.samples = q->dim[0];
  p.windows = q->rank == 4 ? q->dim[1] : 1;
  p.heads = integer(l, "heads");
  p.queries = tokens_of(q);
  p.keys = tokens_of(key);
  p.q_row = last_extent(q);
  p.k_row = last_extent(key);
  p.v_row = last_extent(last);
  int64_t channels = p.v_row / (4 - operands);
  p.dim = channels / p.heads;
  p.q = source_of(l, 0);
  p.k = operands == 1 ? p.q.from(channels) : source_of(l, 1);
  p.v = operands == 3 ? source_of(l, 2) : p.k.from(channels);
  p.bias = in(l, operands + TERM_BIAS);
  p.mask = in(l, operands + TERM_MASK);
  p.regions = in<int32_t>(l, operands + TERM_REGIONS);
  p.mask_windows = p.mask ? in_shape(l, operands + TERM_MASK)->dim[0] : 1;
  p.region_windows = p.regions ? in_shape(l, operands + TERM_REGIONS)->dim[0] : 1;
  double scale = number(l, "scale"), dropout = number(l, "dropout");
  p.scale = (float)(scale > 0 ? scale : 1.0 / sqrt((double)p.dim));
  p.is_wide = p.dim % 4 == 0 && (p.q_row | p.k_row | p.v_row) % 4 == 0 && is_aligned(p.q) &&
              is_aligned(p.k) && is_aligned(p.v);
  p.drop_limit = (uint32_t)(dropout * 4294967296.0);
  p.kept = (float)(1.0 / (1.0 - dropout));
  p.rng_keys = l->call->rng_keys;
  p.node = l->call->node_id;
  return p;
}

/* Queries, keys, values or the gradient of the result, of a head of a sequence. */
struct head_tokens {
  source first;
  int64_t row, count; /* from token to token; tokens */
};

/* What is added to the scores of a head of a sequence. */
struct score_terms {
  const float *bias, *mask; /* queries × keys, or NULL */
  const int32_t *regions;   /* of the tokens, or NULL */
  int64_t keys;
};

/* Random numbers of a head of a sequence, addressed as ops/kernels/attention.c does: queries in blocks
 * of 32, a block's 32 queries as 4 numbers of 8 random blocks for each key. */
struct drops {
  rng stream;
  uint32_t limit; /* 0: nothing is dropped */
  float kept;
  int64_t keys;
};

struct head_problem {
  head_tokens q, k, v;
  score_terms terms;
  drops drop;
};

static __device__ inline drops drops_of(const problem &p, int sequence, int head) {
  drops d = {{}, p.drop_limit, p.kept, p.keys};
  if (d.limit == 0) return d;
  int windows = (int)p.windows;
  d.stream = open_stream(p.rng_keys[sequence / windows], p.node);
  d.stream.counter[1] += (uint32_t)(sequence % windows * (int)p.heads + head);
  return d;
}

static __device__ inline score_terms terms_of(const problem &p, int sequence, int head) {
  score_terms t = {nullptr, nullptr, nullptr, p.keys};
  int64_t pairs = p.queries * p.keys;
  if (p.bias) t.bias = p.bias + head * pairs;
  if (!p.mask && !p.regions) return t;
  int window = sequence % (int)p.windows;
  if (p.mask) t.mask = p.mask + window % (int)p.mask_windows * pairs;
  if (p.regions) t.regions = p.regions + window % (int)p.region_windows * p.keys;
  return t;
}

static __device__ inline head_problem head_of(const problem &p, int sequence, int head) {
  int64_t channel = head * p.dim;
  return {{p.q.from(sequence * p.queries * p.q_row + channel), p.q_row, p.queries},
          {p.k.from(sequence * p.keys * p.k_row + channel), p.k_row, p.keys},
          {p.v.from(sequence * p.keys * p.v_row + channel), p.v_row, p.keys},
          terms_of(p, sequence, head),
          drops_of(p, sequence, head)};
}

static __device__ inline float added_to_score(const score_terms &t, int64_t i, int64_t j) {
  float s = 0;
  if (t.bias) s += t.bias[i * t.keys + j];
  if (t.mask) s += t.mask[i * t.keys + j];
  if (t.regions && t.regions[i] != t.regions[j]) s += APART;
  return s;
}

/* The numbers of key j and queries i, i + 8, i + 16, i + 24, where i % 32 < 8; those below the limit are
 * dropped, the others multiplied with `kept`. */
static __device__ inline void drop_block(const drops &d, int64_t i, int64_t j, uint32_t bits[4]) {
  random_block(d.stream, (uint32_t)((i / 32 * d.keys + j) * 8 + i % 8), bits);
}

/* Sum, or largest, over the four threads of a row. */
static __device__ inline float team_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
static __device__ inline float team_max(float v) {
  float other = __shfl_xor_sync(0xffffffffu, v, 1);
  v = other > v ? other : v;
  other = __shfl_xor_sync(0xffffffffu, v, 2);
  return other > v ? other : v;
}

/* ---- places ----------------------------------------------------------------------------------------- */

template <int ROWS> static __host__ __device__ inline int64_t tiles_of(int64_t tokens) {
  return (tokens + ROWS - 1) / ROWS;
}

/* Where the block is: blocks are counted along tiles of ROWS tokens, heads, sequences, all of them along
 * one axis of the grid, for the others end at 65535. */
struct block_place {
  int sequence, head;
  int first; /* token */
};

template <int ROWS>
static __device__ inline block_place place_of_block(const problem &p, int64_t tokens) {
  unsigned tiles = (unsigned)tiles_of<ROWS>(tokens), heads = (unsigned)p.heads;
  unsigned of_head = blockIdx.x / tiles;
  return {(int)(of_head / heads), (int)(of_head % heads), (int)(blockIdx.x % tiles * ROWS)};
}

template <int ROWS> static unsigned block_count(const problem &p, int64_t tokens) {
  return (unsigned)(tiles_of<ROWS>(tokens) * p.heads * p.samples * p.windows);
}

/* ---- gradient ----------------------------------------------------------------------------------------
 * With w the weights, f the dropout's factors and δ_i = Σ_d dy_i · out_i:
 *   g_ij = w_ij (f_ij dy_i·v_j − δ_i),  dq = scale Σ_j g k,  dk = scale Σ_i g q,  dv = Σ_i w f dy,
 *   dbias = Σ over sequences of g. */

struct gradients {
  const float *out, *lse, *dy, *delta; /* delta (f32 alone): sequences × heads × queries */
  target dq, dk, dv;
  float *dbias;
};

/* Of the result or its gradient. */
static __device__ inline head_tokens result_of(const problem &p, const float *result, int sequence,
                                               int head) {
  int64_t channels = p.heads * p.dim;
  source all = {result, false};
  return {all.from(sequence * p.queries * channels + head * p.dim), channels, p.queries};
}

/* More shared memory than a kernel gets unasked. */
template <typename K> static void allow_shared(K kernel, size_t bytes) {
#ifdef STRATA_EMULATE_CUDA
  (void)kernel, (void)bytes;
#else
  if (bytes > 48 << 10)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
#endif
}

} // namespace attention_kernels

#endif
