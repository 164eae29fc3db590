/* Attention with rounded factors, by tensor cores: the kernels of `precision: bf16`. Its gradients are in
 * tensor_cores_backward.cuh.
 *
 * A block of four warps has 64 rows, a warp 16 of them: queries, or keys for the gradients of keys and
 * values. They stay in registers as factors, while the block goes through the other side in tiles, of which
 * the next is copied to shared memory while one is worked on. Scores stay in registers, and rounded they
 * are the A of the next product (device/cuda/mma.cuh), so they never leave a warp.
 *
 * What is rounded is what the CPU rounds (docs/precision.md): scaled queries, keys, values, weights before
 * they are divided by their sum, the gradient of the result, and that of the scores times the scale. */
#ifndef STRATA_OPS_ATTENTION_TENSOR_CORES_CUH
#define STRATA_OPS_ATTENTION_TENSOR_CORES_CUH

#include "ops/attention/warp_scores.cuh"

namespace attention_kernels {

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

  static __device__ inline void begin(uint16_t *tiles, const rounded_head &k, const rounded_head &v,
                                      int step, int buffer) {
    uint16_t *keys = tiles + buffer * 2 * TILE<DIM>;
    begin_tile<DIM>(keys, k, step * ROWS);
    begin_tile<DIM>(keys + TILE<DIM>, v, step * ROWS);
  }
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
  auto begin = [&](int step, int buffer) { key_tiles<DIM>::begin(tiles, k, v, step, buffer); };
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

} // namespace attention_kernels

#endif
