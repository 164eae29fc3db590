/* attention, cross_attention, self_attention and their gradients: tiles of queries and keys in
 * shared memory, weights never stored (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
 * 2205.14135). ops/kernels/attention.h has the definition.
 *
 * The kernels here are those of f32; tensor_cores.cuh and tensor_cores_backward.cuh have those of bf16. A
 * block of 128 threads works on tiles of 32 × 32: four threads share a row of the tile, each with every
 * fourth column and every fourth channel. */
#include "ops/attention/tensor_cores_backward.cuh"

namespace attention_kernels {

constexpr int SIDE = 32, TEAM = BLOCK / SIDE, OWN = DIM_MAX / TEAM;

/* ---- tiles ---------------------------------------------------------------------------------------- */

/* Tokens first … into shared memory, with an odd distance from row to row; rows beyond the last token
 * are zeros. All threads of the block. */
static __device__ inline void load_tile(float *tile, const head_tokens &from, int dim,
                                        int64_t first) {
  for (int i = (int)threadIdx.x; i < SIDE * dim; i += BLOCK) {
    int r = i / dim, d = i % dim;
    tile[r * (dim + 1) + d] =
        first + r < from.count ? from.first[(first + r) * from.row + d] : 0.0f;
  }
}

static __device__ inline float dot_rows(const float *a, const float *b, int dim) {
  float sum = 0;
  for (int d = 0; d < dim; d++) sum += a[d] * b[d];
  return sum;
}

static __device__ inline float drop_factor(const drops &d, int64_t i, int64_t j) {
  if (d.limit == 0) return 1.0f;
  uint32_t bits[4];
  drop_block(d, i / 32 * 32 + i % 8, j, bits);
  return bits[i % 32 / 8] < d.limit ? 0.0f : d.kept;
}

/* ---- forward ---------------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(BLOCK) attend(target out, float *lse, problem p) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *kv = q + SIDE * pad, *weights = kv + SIDE * pad;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  auto [sequence, head, first] = place_of_block<SIDE>(p, p.queries);
  int64_t query = first + row;
  head_problem of = head_of(p, sequence, head);
  load_tile(q, of.q, dim, first);
  float largest = -INFINITY, sum = 0, result[OWN] = {};
  for (int64_t k0 = 0; k0 < p.keys; k0 += SIDE) {
    __syncthreads();
    load_tile(kv, of.k, dim, k0);
    __syncthreads();
    float scores[SIDE / TEAM], best = -INFINITY;
    for (int c = 0; c < SIDE / TEAM; c++) {
      int64_t key = k0 + own + c * TEAM;
      scores[c] = -INFINITY;
      if (key < p.keys && query < p.queries)
        scores[c] = p.scale * dot_rows(q + row * pad, kv + (own + c * TEAM) * pad, dim) +
                    added_to_score(of.terms, query, key);
      best = scores[c] > best ? scores[c] : best;
    }
    best = team_max(best);
    float next = best > largest ? best : largest;
    float shrink = largest == next ? 1.0f : expf(largest - next), added = 0;
    for (int c = 0; c < SIDE / TEAM; c++) {
      int64_t key = k0 + own + c * TEAM;
      float w = scores[c] == -INFINITY ? 0.0f : expf(scores[c] - next);
      added += w;
      w *= query < p.queries && key < p.keys ? drop_factor(of.drop, query, key) : 0;
      weights[row * (SIDE + 1) + own + c * TEAM] = w;
    }
    sum = sum * shrink + team_sum(added);
    largest = next;
    __syncthreads();
    load_tile(kv, of.v, dim, k0);
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++) {
      float total = result[n] * shrink;
      for (int j = 0; j < SIDE; j++)
        total += weights[row * (SIDE + 1) + j] * kv[j * pad + own + n * TEAM];
      result[n] = total;
    }
  }
  if (query >= p.queries) return;
  target to = out.from(((sequence * p.queries + query) * p.heads + head) * dim);
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++) to[own + n * TEAM] = result[n] / sum;
  if (lse && own == 0) lse[(sequence * p.heads + head) * p.queries + query] = largest + logf(sum);
}

static size_t tiles_bytes(const problem &p, int tiles, int squares) {
  return (size_t)(tiles * SIDE * (p.dim + 1) + squares * SIDE * (SIDE + 1)) * sizeof(float);
}

static status run_forward(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  if (is_bf16(l)) return attend_rounded(l, p);
  size_t bytes = tiles_bytes(p, 2, 1);
  allow_shared(attend, bytes);
  return LAUNCH(l, attend, block_count<SIDE>(p, p.queries), BLOCK, bytes, target_of(l, 0),
                out(l, 1), p);
}

static size_t forward_scratch(const launch *l, int operands) {
  return is_bf16(l) ? rounded_scratch(problem_of(l, operands)) : 0;
}

CUDA_SCRATCH(self_attention) {
  return forward_scratch(l, 1);
}
CUDA_OP(self_attention) {
  return run_forward(l, 1);
}
CUDA_SCRATCH(cross_attention) {
  return forward_scratch(l, 2);
}
CUDA_OP(cross_attention) {
  return run_forward(l, 2);
}
CUDA_SCRATCH(attention) {
  return forward_scratch(l, 3);
}
CUDA_OP(attention) {
  return run_forward(l, 3);
}

/* δ, a thread for each query of a head. */
struct delta_f {
  float *delta;
  const float *out, *dy;
  int64_t queries, heads, dim;
  __device__ void operator()(int64_t i) const {
    int64_t query = i % queries, head = i / queries % heads, sequence = i / (queries * heads);
    int64_t at = ((sequence * queries + query) * heads + head) * dim;
    float sum = 0;
    for (int64_t d = 0; d < dim; d++) sum += out[at + d] * dy[at + d];
    delta[i] = sum;
  }
};

/* w and g of one pair. */
struct pair_terms {
  float weight, gradient; /* w·f and g */
};

static __device__ inline pair_terms pair_of(const problem &p, const gradients &g,
                                            const head_problem &of, int64_t sequence, int64_t head,
                                            int64_t i, int64_t j, const float *q, const float *k,
                                            const float *v, const float *dy) {
  if (i >= p.queries || j >= p.keys) return {0, 0};
  int dim = (int)p.dim;
  int64_t at = (sequence * p.heads + head) * p.queries + i;
  float score = p.scale * dot_rows(q, k, dim) + added_to_score(of.terms, i, j);
  float w = expf(score - g.lse[at]);
  float f = drop_factor(of.drop, i, j);
  return {w * f, w * (f * dot_rows(dy, v, dim) - g.delta[at])};
}

/* dq */
static __global__ void __launch_bounds__(BLOCK) query_gradients(problem p, gradients g) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *dy = q + SIDE * pad, *k = dy + SIDE * pad, *v = k + SIDE * pad;
  float *pairs = v + SIDE * pad;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  auto [sequence, head, first] = place_of_block<SIDE>(p, p.queries);
  head_problem of = head_of(p, sequence, head);
  load_tile(q, of.q, dim, first);
  load_tile(dy, result_of(p, g.dy, sequence, head), dim, first);
  float result[OWN] = {};
  for (int64_t k0 = 0; k0 < p.keys; k0 += SIDE) {
    __syncthreads();
    load_tile(k, of.k, dim, k0);
    load_tile(v, of.v, dim, k0);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) {
      int j = own + c * TEAM;
      pair_terms t = pair_of(p, g, of, sequence, head, first + row, k0 + j, q + row * pad,
                             k + j * pad, v + j * pad, dy + row * pad);
      pairs[row * (SIDE + 1) + j] = t.gradient;
    }
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++)
      for (int j = 0; j < SIDE; j++)
        result[n] += pairs[row * (SIDE + 1) + j] * k[j * pad + own + n * TEAM];
  }
  if (first + row >= p.queries) return;
  target to = g.dq.from((sequence * p.queries + first + row) * p.q_row + head * dim);
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++) to[own + n * TEAM] = p.scale * result[n];
}

/* dk and dv */
static __global__ void __launch_bounds__(BLOCK) key_gradients(problem p, gradients g) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *dy = q + SIDE * pad, *k = dy + SIDE * pad, *v = k + SIDE * pad;
  float *pairs = v + SIDE * pad, *weights = pairs + SIDE * (SIDE + 1);
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  auto [sequence, head, first] = place_of_block<SIDE>(p, p.keys);
  head_problem of = head_of(p, sequence, head);
  head_tokens of_dy = result_of(p, g.dy, sequence, head);
  load_tile(k, of.k, dim, first);
  load_tile(v, of.v, dim, first);
  float dk[OWN] = {}, dv[OWN] = {};
  for (int64_t q0 = 0; q0 < p.queries; q0 += SIDE) {
    __syncthreads();
    load_tile(q, of.q, dim, q0);
    load_tile(dy, of_dy, dim, q0);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) { /* the tile's rows are keys here */
      int i = own + c * TEAM;
      pair_terms t = pair_of(p, g, of, sequence, head, q0 + i, first + row, q + i * pad,
                             k + row * pad, v + row * pad, dy + i * pad);
      pairs[row * (SIDE + 1) + i] = t.gradient;
      weights[row * (SIDE + 1) + i] = t.weight;
    }
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++)
      for (int i = 0; i < SIDE; i++) {
        dk[n] += pairs[row * (SIDE + 1) + i] * q[i * pad + own + n * TEAM];
        dv[n] += weights[row * (SIDE + 1) + i] * dy[i * pad + own + n * TEAM];
      }
  }
  if (first + row >= p.keys) return;
  target to_k = g.dk.from((sequence * p.keys + first + row) * p.k_row + head * dim);
  target to_v = g.dv.from((sequence * p.keys + first + row) * p.v_row + head * dim);
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++) {
    to_k[own + n * TEAM] = p.scale * dk[n];
    to_v[own + n * TEAM] = dv[n];
  }
}

/* dbias, added over the sequences in order: grid (tiles of queries, tiles of keys, heads). */
static __global__ void __launch_bounds__(BLOCK) bias_gradients(problem p, gradients g) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *dy = q + SIDE * pad, *k = dy + SIDE * pad, *v = k + SIDE * pad;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  int64_t head = blockIdx.z, first = (int64_t)blockIdx.x * SIDE, k0 = (int64_t)blockIdx.y * SIDE;
  float sums[SIDE / TEAM] = {};
  for (int64_t sequence = 0; sequence < p.samples * p.windows; sequence++) {
    head_problem of = head_of(p, sequence, head);
    __syncthreads();
    load_tile(q, of.q, dim, first);
    load_tile(dy, result_of(p, g.dy, sequence, head), dim, first);
    load_tile(k, of.k, dim, k0);
    load_tile(v, of.v, dim, k0);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) {
      int j = own + c * TEAM;
      sums[c] += pair_of(p, g, of, sequence, head, first + row, k0 + j, q + row * pad, k + j * pad,
                         v + j * pad, dy + row * pad)
                     .gradient;
    }
  }
  for (int c = 0; c < SIDE / TEAM; c++) {
    int64_t i = first + row, j = k0 + own + c * TEAM;
    if (i < p.queries && j < p.keys) g.dbias[(head * p.queries + i) * p.keys + j] = sums[c];
  }
}

enum { BACK_OUT, BACK_LSE, BACK_DY };

static size_t delta_bytes(const problem &p) {
  return ((size_t)(p.samples * p.windows * p.heads * p.queries) * sizeof(float) + 255) / 256 * 256;
}

/* By shapes, for scratch memory may be asked for before there is other memory. */
static bool has_bias_gradient(const launch *l, int operands) {
  return is_there(in_shape(l, operands + TERM_BIAS)) && is_there(out_shape(l, operands));
}

static size_t backward_scratch(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  return is_bf16(l) ? rounded_gradients_scratch(p, has_bias_gradient(l, operands)) : delta_bytes(p);
}

static status run_backward(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  int backs = operands + TERMS;
  int64_t channels = p.heads * p.dim;
  gradients g = {in(l, backs + BACK_OUT),
                 in(l, backs + BACK_LSE),
                 in(l, backs + BACK_DY),
                 NULL,
                 target_of(l, 0),
                 {},
                 {},
                 out(l, operands)};
  g.dk = operands == 1 ? g.dq.from(channels) : target_of(l, 1);
  g.dv = operands == 3 ? target_of(l, 2) : g.dk.from(channels);
  if (is_bf16(l)) return rounded_gradients(l, p, g, has_bias_gradient(l, operands));
  float *delta = (float *)l->scratch;
  g.delta = delta;
  status error = for_each_index(l, p.samples * p.windows * p.heads * p.queries,
                                delta_f{delta, g.out, g.dy, p.queries, p.heads, p.dim});
  if (error) return error;
  size_t queries = tiles_bytes(p, 4, 1), keys = tiles_bytes(p, 4, 2), bias = tiles_bytes(p, 4, 0);
  allow_shared(query_gradients, queries);
  error = LAUNCH(l, query_gradients, block_count<SIDE>(p, p.queries), BLOCK, queries, p, g);
  if (error) return error;
  allow_shared(key_gradients, keys);
  error = LAUNCH(l, key_gradients, block_count<SIDE>(p, p.keys), BLOCK, keys, p, g);
  if (error || !has_bias_gradient(l, operands)) return error;
  allow_shared(bias_gradients, bias);
  return LAUNCH(l, bias_gradients,
                dim3((unsigned)tiles_of<SIDE>(p.queries), (unsigned)tiles_of<SIDE>(p.keys),
                     (unsigned)p.heads),
                BLOCK, bias, p, g);
}

CUDA_SCRATCH(self_attention_backward) {
  return backward_scratch(l, 1);
}
CUDA_OP(self_attention_backward) {
  return run_backward(l, 1);
}
CUDA_SCRATCH(cross_attention_backward) {
  return backward_scratch(l, 2);
}
CUDA_OP(cross_attention_backward) {
  return run_backward(l, 2);
}
CUDA_SCRATCH(attention_backward) {
  return backward_scratch(l, 3);
}
CUDA_OP(attention_backward) {
  return run_backward(l, 3);
}

} // namespace attention_kernels
