/* attention, cross_attention, self_attention and their gradients: tiles of queries and keys in
 * shared memory, weights never stored (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
 * 2205.14135). ops/kernels/attention.h has the definition.
 *
 * A block of 128 threads works on tiles of 32 × 32: four threads share a row of the tile, each with
 * every fourth column and every fourth channel. */
#include "device/cuda/bf16.cuh"

namespace attention_kernels {

constexpr int SIDE = 32, TEAM = 4, BLOCK = SIDE * TEAM, DIM_MAX = 128, OWN = DIM_MAX / TEAM;

struct problem {
  int64_t samples, windows, heads, dim, queries, keys, q_row, k_row, v_row;
  const float *q, *k, *v, *bias, *mask;
  const int32_t *regions;
  int64_t mask_windows, region_windows;
  /* The scale, before a product where factors are rounded (so that what is rounded is what the CPU
   * rounds), otherwise after it. */
  float scale_before, scale_after;
  bool bf16; /* factors are rounded */
  uint32_t drop_limit;
  float kept;
  const rng_key *rng_keys;
  uint64_t node;
};

enum { TERM_BIAS, TERM_MASK, TERM_REGIONS, TERMS };

static int64_t tokens_of(const plugin_shape *s) {
  return s->dim[s->rank - 2];
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
  p.q = in(l, 0);
  p.k = operands == 1 ? p.q + channels : in(l, 1);
  p.v = operands == 3 ? in(l, 2) : p.k + channels;
  p.bias = in(l, operands + TERM_BIAS);
  p.mask = in(l, operands + TERM_MASK);
  p.regions = in<int32_t>(l, operands + TERM_REGIONS);
  p.mask_windows = p.mask ? in_shape(l, operands + TERM_MASK)->dim[0] : 1;
  p.region_windows = p.regions ? in_shape(l, operands + TERM_REGIONS)->dim[0] : 1;
  double scale = number(l, "scale"), dropout = number(l, "dropout");
  float factor = (float)(scale > 0 ? scale : 1.0 / sqrt((double)p.dim));
  p.bf16 = is_bf16(l);
  p.scale_before = p.bf16 ? factor : 1.0f;
  p.scale_after = p.bf16 ? 1.0f : factor;
  p.drop_limit = (uint32_t)(dropout * 4294967296.0);
  p.kept = (float)(1.0 / (1.0 - dropout));
  p.rng_keys = l->call->rng_keys;
  p.node = l->call->node_id;
  return p;
}

/* ---- tiles ---------------------------------------------------------------------------------------- */

/* Rows first … of a matrix with `dim` columns, `row` apart, into shared memory with an odd distance
 * from row to row, rounded when the problem says so; rows beyond `count` are zeros. All threads of
 * the block. */
static __device__ inline void load_tile(const problem &p, float *tile, const float *from,
                                        int64_t row, int64_t first, int64_t count,
                                        float factor = 1.0f) {
  int dim = (int)p.dim;
  for (int i = (int)threadIdx.x; i < SIDE * dim; i += BLOCK) {
    int r = i / dim, d = i % dim;
    float x = first + r < count ? from[(first + r) * row + d] : 0.0f;
    tile[r * (dim + 1) + d] = rounded_if(p.bf16, x * factor);
  }
}

/* Queries as they are multiplied with keys. */
static __device__ inline void load_queries(const problem &p, float *tile, int64_t sequence,
                                           int64_t head, int64_t first) {
  load_tile(p, tile, p.q + sequence * p.queries * p.q_row + head * p.dim, p.q_row, first, p.queries,
            p.scale_before);
}

static __device__ inline float dot_rows(const float *a, const float *b, int dim) {
  float sum = 0;
  for (int d = 0; d < dim; d++) sum += a[d] * b[d];
  return sum;
}

/* The score of a query and a key, from their product. */
static __device__ inline float score_of(const problem &p, int64_t sequence, int64_t head, int64_t i,
                                        int64_t j, float product) {
  int64_t window = sequence % p.windows;
  float s = p.scale_after * product;
  if (p.bias) s += p.bias[(head * p.queries + i) * p.keys + j];
  if (p.mask) s += p.mask[(window % p.mask_windows * p.queries + i) * p.keys + j];
  if (p.regions) {
    const int32_t *r = p.regions + window % p.region_windows * p.keys;
    if (r[i] != r[j]) s += -100.0f;
  }
  return s;
}

/* 0 or 1 / (1 − rate): the number of the pair, addressed as ops/kernels/attention.c does: queries in
 * blocks of 32, a block's 32 queries as 4 numbers of 8 random blocks for each key. */
static __device__ inline float drop_factor(const problem &p, int64_t sequence, int64_t head,
                                           int64_t i, int64_t j) {
  if (p.drop_limit == 0) return 1.0f;
  rng stream = open_stream(p.rng_keys[sequence / p.windows], p.node);
  stream.counter[1] += (uint32_t)(sequence % p.windows * p.heads + head);
  int64_t within = i % 32;
  uint32_t bits[4];
  random_block(stream, (uint32_t)((i / 32 * p.keys + j) * 8 + within % 8), bits);
  return bits[within / 8] < p.drop_limit ? 0.0f : p.kept;
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

/* ---- forward ---------------------------------------------------------------------------------------- */

/* Grid: (tiles of queries, heads, sequences). */
static __global__ void __launch_bounds__(BLOCK) attend(float *out, float *lse, problem p) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *kv = q + SIDE * pad, *weights = kv + SIDE * pad;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  int64_t sequence = blockIdx.z, head = blockIdx.y, first = (int64_t)blockIdx.x * SIDE;
  int64_t query = first + row;
  load_queries(p, q, sequence, head, first);
  const float *keys = p.k + sequence * p.keys * p.k_row + head * dim;
  const float *values = p.v + sequence * p.keys * p.v_row + head * dim;
  float largest = -INFINITY, sum = 0, result[OWN] = {};
  for (int64_t k0 = 0; k0 < p.keys; k0 += SIDE) {
    __syncthreads();
    load_tile(p, kv, keys, p.k_row, k0, p.keys);
    __syncthreads();
    float scores[SIDE / TEAM], best = -INFINITY;
    for (int c = 0; c < SIDE / TEAM; c++) {
      int64_t key = k0 + own + c * TEAM;
      scores[c] = -INFINITY;
      if (key < p.keys && query < p.queries)
        scores[c] = score_of(p, sequence, head, query, key,
                             dot_rows(q + row * pad, kv + (own + c * TEAM) * pad, dim));
      best = scores[c] > best ? scores[c] : best;
    }
    best = team_max(best);
    float next = best > largest ? best : largest;
    float shrink = largest == next ? 1.0f : expf(largest - next), added = 0;
    for (int c = 0; c < SIDE / TEAM; c++) {
      int64_t key = k0 + own + c * TEAM;
      float w = scores[c] == -INFINITY ? 0.0f : expf(scores[c] - next);
      added += w;
      w *= query < p.queries && key < p.keys ? drop_factor(p, sequence, head, query, key) : 0;
      weights[row * (SIDE + 1) + own + c * TEAM] = rounded_if(p.bf16, w);
    }
    sum = sum * shrink + team_sum(added);
    largest = next;
    __syncthreads();
    load_tile(p, kv, values, p.v_row, k0, p.keys);
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++) {
      float total = result[n] * shrink;
      for (int j = 0; j < SIDE; j++)
        total += weights[row * (SIDE + 1) + j] * kv[j * pad + own + n * TEAM];
      result[n] = total;
    }
  }
  if (query >= p.queries) return;
  float *to = out + ((sequence * p.queries + query) * p.heads + head) * dim;
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++) to[own + n * TEAM] = result[n] / sum;
  if (lse && own == 0) lse[(sequence * p.heads + head) * p.queries + query] = largest + logf(sum);
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

static size_t tiles_bytes(const problem &p, int tiles, int squares) {
  return (size_t)(tiles * SIDE * (p.dim + 1) + squares * SIDE * (SIDE + 1)) * sizeof(float);
}

static unsigned tiles_of(int64_t n) {
  return (unsigned)((n + SIDE - 1) / SIDE);
}

static dim3 grid_of(const problem &p, int64_t tokens) {
  return dim3(tiles_of(tokens), (unsigned)p.heads, (unsigned)(p.samples * p.windows));
}

static status run_forward(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  size_t bytes = tiles_bytes(p, 2, 1);
  allow_shared(attend, bytes);
  return LAUNCH(l, attend, grid_of(p, p.queries), BLOCK, bytes, out(l, 0), out(l, 1), p);
}

CUDA_OP(self_attention) {
  return run_forward(l, 1);
}
CUDA_OP(cross_attention) {
  return run_forward(l, 2);
}
CUDA_OP(attention) {
  return run_forward(l, 3);
}

/* ---- gradient ----------------------------------------------------------------------------------------
 * With w the weights, f the dropout's factors and δ_i = Σ_d dy_i · out_i:
 *   g_ij = w_ij (f_ij dy_i·v_j − δ_i),  dq = scale Σ_j g k,  dk = scale Σ_i g q,  dv = Σ_i w f dy,
 *   dbias = Σ over sequences of g. */

struct gradients {
  const float *out, *lse, *dy, *delta; /* delta: sequences × heads × queries */
  float *dq, *dk, *dv, *dbias;
};

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

/* g as a factor of dq and dk. */
static __device__ inline float as_factor(const problem &p, float gradient) {
  return rounded_if(p.bf16, p.scale_before * gradient);
}

static __device__ inline pair_terms pair_of(const problem &p, const gradients &g, int64_t sequence,
                                            int64_t head, int64_t i, int64_t j, const float *q,
                                            const float *k, const float *v, const float *dy) {
  if (i >= p.queries || j >= p.keys) return {0, 0};
  int dim = (int)p.dim;
  int64_t at = (sequence * p.heads + head) * p.queries + i;
  float w = expf(score_of(p, sequence, head, i, j, dot_rows(q, k, dim)) - g.lse[at]);
  float f = drop_factor(p, sequence, head, i, j);
  return {w * f, w * (f * dot_rows(dy, v, dim) - g.delta[at])};
}

/* dq: grid (tiles of queries, heads, sequences). */
static __global__ void __launch_bounds__(BLOCK) query_gradients(problem p, gradients g) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *dy = q + SIDE * pad, *k = dy + SIDE * pad, *v = k + SIDE * pad;
  float *pairs = v + SIDE * pad;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  int64_t sequence = blockIdx.z, head = blockIdx.y, first = (int64_t)blockIdx.x * SIDE;
  int64_t channels = p.heads * p.dim;
  load_queries(p, q, sequence, head, first);
  load_tile(p, dy, g.dy + sequence * p.queries * channels + head * dim, channels, first, p.queries);
  float result[OWN] = {};
  for (int64_t k0 = 0; k0 < p.keys; k0 += SIDE) {
    __syncthreads();
    load_tile(p, k, p.k + sequence * p.keys * p.k_row + head * dim, p.k_row, k0, p.keys);
    load_tile(p, v, p.v + sequence * p.keys * p.v_row + head * dim, p.v_row, k0, p.keys);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) {
      int j = own + c * TEAM;
      pair_terms t = pair_of(p, g, sequence, head, first + row, k0 + j, q + row * pad, k + j * pad,
                             v + j * pad, dy + row * pad);
      pairs[row * (SIDE + 1) + j] = as_factor(p, t.gradient);
    }
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++)
      for (int j = 0; j < SIDE; j++)
        result[n] += pairs[row * (SIDE + 1) + j] * k[j * pad + own + n * TEAM];
  }
  if (first + row >= p.queries) return;
  float *to = g.dq + (sequence * p.queries + first + row) * p.q_row + head * dim;
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++)
    to[own + n * TEAM] = p.scale_after * result[n];
}

/* dk and dv: grid (tiles of keys, heads, sequences). */
static __global__ void __launch_bounds__(BLOCK) key_gradients(problem p, gradients g) {
  SHARED_MEMORY(float, memory);
  int dim = (int)p.dim, pad = dim + 1;
  float *q = memory, *dy = q + SIDE * pad, *k = dy + SIDE * pad, *v = k + SIDE * pad;
  float *pairs = v + SIDE * pad, *weights = pairs + SIDE * (SIDE + 1);
  /* dk has the queries as they are, the scores have them scaled: rounded, these are two tiles. */
  float *unscaled = p.bf16 ? weights + SIDE * (SIDE + 1) : q;
  int row = (int)threadIdx.x / TEAM, own = (int)threadIdx.x % TEAM;
  int64_t sequence = blockIdx.z, head = blockIdx.y, first = (int64_t)blockIdx.x * SIDE;
  int64_t channels = p.heads * p.dim;
  load_tile(p, k, p.k + sequence * p.keys * p.k_row + head * dim, p.k_row, first, p.keys);
  load_tile(p, v, p.v + sequence * p.keys * p.v_row + head * dim, p.v_row, first, p.keys);
  float dk[OWN] = {}, dv[OWN] = {};
  for (int64_t q0 = 0; q0 < p.queries; q0 += SIDE) {
    __syncthreads();
    load_queries(p, q, sequence, head, q0);
    if (p.bf16)
      load_tile(p, unscaled, p.q + sequence * p.queries * p.q_row + head * dim, p.q_row, q0,
                p.queries);
    load_tile(p, dy, g.dy + sequence * p.queries * channels + head * dim, channels, q0, p.queries);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) { /* the tile's rows are keys here */
      int i = own + c * TEAM;
      pair_terms t = pair_of(p, g, sequence, head, q0 + i, first + row, q + i * pad, k + row * pad,
                             v + row * pad, dy + i * pad);
      pairs[row * (SIDE + 1) + i] = as_factor(p, t.gradient);
      weights[row * (SIDE + 1) + i] = rounded_if(p.bf16, t.weight);
    }
    __syncthreads();
    for (int n = 0; n < OWN && own + n * TEAM < dim; n++)
      for (int i = 0; i < SIDE; i++) {
        dk[n] += pairs[row * (SIDE + 1) + i] * unscaled[i * pad + own + n * TEAM];
        dv[n] += weights[row * (SIDE + 1) + i] * dy[i * pad + own + n * TEAM];
      }
  }
  if (first + row >= p.keys) return;
  float *to_k = g.dk + (sequence * p.keys + first + row) * p.k_row + head * dim;
  float *to_v = g.dv + (sequence * p.keys + first + row) * p.v_row + head * dim;
  for (int n = 0; n < OWN && own + n * TEAM < dim; n++) {
    to_k[own + n * TEAM] = p.scale_after * dk[n];
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
  int64_t channels = p.heads * p.dim;
  float sums[SIDE / TEAM] = {};
  for (int64_t sequence = 0; sequence < p.samples * p.windows; sequence++) {
    __syncthreads();
    load_queries(p, q, sequence, head, first);
    load_tile(p, dy, g.dy + sequence * p.queries * channels + head * dim, channels, first,
              p.queries);
    load_tile(p, k, p.k + sequence * p.keys * p.k_row + head * dim, p.k_row, k0, p.keys);
    load_tile(p, v, p.v + sequence * p.keys * p.v_row + head * dim, p.v_row, k0, p.keys);
    __syncthreads();
    for (int c = 0; c < SIDE / TEAM; c++) {
      int j = own + c * TEAM;
      sums[c] += pair_of(p, g, sequence, head, first + row, k0 + j, q + row * pad, k + j * pad,
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

static size_t backward_scratch(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  return (size_t)(p.samples * p.windows * p.heads * p.queries) * sizeof(float);
}

static status run_backward(const launch *l, int operands) {
  problem p = problem_of(l, operands);
  int backs = operands + TERMS;
  int64_t channels = p.heads * p.dim;
  float *delta = (float *)l->scratch;
  gradients g = {in(l, backs + BACK_OUT),
                 in(l, backs + BACK_LSE),
                 in(l, backs + BACK_DY),
                 delta,
                 out(l, 0),
                 nullptr,
                 nullptr,
                 out(l, operands)};
  g.dk = operands == 1 ? g.dq + channels : out(l, 1);
  g.dv = operands == 3 ? out(l, 2) : g.dk + channels;
  status error = for_each_index(l, p.samples * p.windows * p.heads * p.queries,
                                delta_f{delta, g.out, g.dy, p.queries, p.heads, p.dim});
  if (error) return error;
  size_t queries = tiles_bytes(p, 4, 1), keys = tiles_bytes(p, p.bf16 ? 5 : 4, 2),
         bias = tiles_bytes(p, 4, 0);
  allow_shared(query_gradients, queries);
  error = LAUNCH(l, query_gradients, grid_of(p, p.queries), BLOCK, queries, p, g);
  if (error) return error;
  allow_shared(key_gradients, keys);
  error = LAUNCH(l, key_gradients, grid_of(p, p.keys), BLOCK, keys, p, g);
  if (error || !p.bias || !g.dbias) return error;
  allow_shared(bias_gradients, bias);
  return LAUNCH(l, bias_gradients, dim3(tiles_of(p.queries), tiles_of(p.keys), (unsigned)p.heads),
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
