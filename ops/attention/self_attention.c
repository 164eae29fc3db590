/* self_attention: softmax(q kᵀ / √D) v for every head (Vaswani et al., arXiv 1706.03762).
 *
 * The T×T weights are never stored: a task walks the keys in blocks and keeps, per query, the
 * largest score and the sum of exponentials so far (Milakov and Gimelshein, arXiv 1805.02867). What
 * the gradient needs of them is one number per query, log Σ e^score, from which a block of weights
 * is computed again (Dao et al., arXiv 2205.14135). */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/gemm.h"

#include "graph/graph.h"

#include <math.h>

typedef struct self_attention_attrs {
  int64_t heads;
} self_attention_attrs;

static const attr self_attention_attr_list[] = {
    {"heads", ATTR_INT, offsetof(self_attention_attrs, heads), NULL, 1, 1024, NULL, 0,
     "number of heads; divides the channels"},
    {0},
};

enum { BACK_QKV, BACK_OUT, BACK_LSE, BACK_DY };

enum {
  QUERIES = 32, /* a block of scores is 8 KiB and stays in the first-level cache */
  KEYS = 64,
  DIM_MAX = 128 /* channels of a head */
};

typedef struct sizes {
  int64_t samples, tokens, heads, dim, channels;
  int64_t row; /* floats of a token of qkv: 3 · channels */
} sizes;

static sizes sizes_of(const self_attention_attrs *attrs, const tensor *qkv) {
  sizes s = {.samples = qkv->shape.dim[0],
             .tokens = qkv->shape.dim[1],
             .heads = attrs->heads,
             .row = qkv->shape.dim[2]};
  s.channels = s.row / 3;
  s.dim = s.channels / s.heads;
  return s;
}

static status self_attention_infer(infer *rule) {
  const self_attention_attrs *attrs = rule->attrs;
  const shape *qkv = &rule->in[0].shape;
  char have[96];
  if (qkv->rank != 3 || qkv->dim[2] % 3)
    return shape_error("qkv must be tokens with queries, keys and values side by side "
                       "(N × T × 3·C), but is %s",
                       shape_format(have, qkv));
  int64_t channels = qkv->dim[2] / 3;
  if (channels % attrs->heads)
    return shape_error("%lld heads do not divide %lld channels", (long long)attrs->heads,
                       (long long)channels);
  if (channels / attrs->heads > DIM_MAX)
    return shape_error("%lld channels on %lld heads make %lld channels a head; at most %d are "
                       "supported, so use more heads",
                       (long long)channels, (long long)attrs->heads,
                       (long long)(channels / attrs->heads), DIM_MAX);
  rule->out[0].shape = SHAPE(qkv->dim[0], qkv->dim[1], channels);
  rule->out[1].shape = SHAPE(qkv->dim[0], attrs->heads, qkv->dim[1]);
  return OK;
}

static status self_attention_grad(grad *rule) {
  value_id in[] = {rule->in[0], rule->out[0], rule->out[1], rule->dy[0]};
  return build_node(rule->b, "self_attention_backward", rule->attrs, in, 4, rule->dx);
}

static cost self_attention_cost(const void *attrs, const tensor *in, int in_count,
                                const tensor *out) {
  (void)in_count, (void)out;
  sizes s = sizes_of(attrs, &in[0]);
  double scores = (double)(s.samples * s.heads) * (double)s.tokens * (double)s.tokens;
  return (cost){.flops = scores * (4.0 * (double)s.dim + 20.0)};
}

static cost self_attention_backward_cost(const void *attrs, const tensor *in, int in_count,
                                         const tensor *out) {
  (void)in_count, (void)out;
  sizes s = sizes_of(attrs, &in[0]);
  double scores = (double)(s.samples * s.heads) * (double)s.tokens * (double)s.tokens;
  return (cost){.flops = scores * (10.0 * (double)s.dim + 20.0)};
}

/* ---- small matrix products ------------------------------------------------------------------- */

/* A matrix operand read element by element: rows and k steps may lie any distance apart, so a
 * transposed matrix needs no copy. Distances count floats. */
typedef struct left {
  const float *at;
  int64_t row, k;
} left;

/* c (m×n) = or += a (m×depth) · b (depth×n). Rows of b are read in full vectors: they must be
 * readable up to a multiple of 16 floats. */
static void product(float *c, int64_t c_row, left a, const float *b, int64_t b_row, int64_t m,
                    int64_t n, int64_t depth, bool accumulate) {
  static const float zeros[GEMM_MAX_VECTORS * GEMM_MAX_LANES];
  const gemm_kernels *kernels = gemm_best();
  int widest = gemm_vectors(kernels, m, n);
  for (int64_t j = 0; j < n; j += (int64_t)widest * kernels->lanes) {
    int64_t left_over = n - j, full = (int64_t)widest * kernels->lanes;
    int columns = (int)(left_over < full ? left_over : full);
    int vectors = (columns + kernels->lanes - 1) / kernels->lanes;
    int64_t tiles = gemm_tile_count(m, kernels->max_rows[vectors]);
    for (int64_t t = 0; t < tiles; t++) {
      int64_t begin = gemm_tile_begin(m, tiles, t), rows = gemm_tile_begin(m, tiles, t + 1) - begin;
      const float *first = a.at + begin * a.row;
      gemm_segment segment = {.first = first,
                              .middle = first,
                              .last = first + (rows - 1) * a.row,
                              .b = b + j,
                              .ahead = b + j};
      gemm_tile tile = {.segments = &segment,
                        .segment_count = 1,
                        .k = depth,
                        .a_row = a.row * (ptrdiff_t)sizeof(float),
                        .a_k = a.k * (ptrdiff_t)sizeof(float),
                        .b_k = b_row * (ptrdiff_t)sizeof(float),
                        .c = c + begin * c_row + j,
                        .c_row = c_row * (ptrdiff_t)sizeof(float),
                        .columns = columns,
                        .accumulate = accumulate,
                        .bias = zeros};
      kernels->tile[vectors][rows](&tile);
    }
  }
}

/* to (dim × QUERIES) = fromᵀ; places of absent queries hold zeros. */
FOR_EACH_ISA static void turn_queries(float *restrict to, const float *restrict from, int64_t row,
                                      int64_t queries, int64_t dim) {
  for (int64_t d = 0; d < dim; d++) {
    for (int64_t i = 0; i < queries; i++) to[d * QUERIES + i] = from[i * row + d];
    for (int64_t i = queries; i < QUERIES; i++) to[d * QUERIES + i] = 0;
  }
}

static int64_t padded_dim(int64_t dim) {
  return (dim + 15) / 16 * 16;
}

/* Rows that `product` may read in full vectors: those given, or where the last vector of a row
 * would reach beyond it, a padded copy. */
static const float *readable_rows(const float *rows, int64_t *row, int64_t count, int64_t dim,
                                  float *copy) {
  int64_t padded = padded_dim(dim);
  if (padded == dim) return rows;
  for (int64_t i = 0; i < count; i++) {
    copy_row(copy + i * padded, rows + i * *row, dim);
    for (int64_t d = dim; d < padded; d++) copy[i * padded + d] = 0;
  }
  *row = padded;
  return copy;
}

static void clear(float *x, int64_t count) {
  memset(x, 0, (size_t)count * sizeof *x);
}

/* ---- forward ---------------------------------------------------------------------------------
 * Blocks of scores are kept key-major, keys × QUERIES, so that the softmax of all queries of a
 * block runs in vector lanes and the keys are used as they lie in memory. */

typedef struct running {
  float largest[QUERIES], sum[QUERIES], kept[QUERIES];
} running;

/* Takes in one block of scores: turns them into e^(score − largest); `kept` is the factor of what
 * came before. */
FOR_EACH_ISA static void absorb_scores(float *restrict scores, running *restrict run, float scale,
                                       int64_t keys) {
  float largest[QUERIES];
  for (int i = 0; i < QUERIES; i++) largest[i] = run->largest[i];
  for (int64_t j = 0; j < keys; j++)
    for (int i = 0; i < QUERIES; i++) {
      float s = scores[j * QUERIES + i] * scale;
      scores[j * QUERIES + i] = s;
      largest[i] = s > largest[i] ? s : largest[i];
    }
  for (int i = 0; i < QUERIES; i++) {
    run->kept[i] = vector_exp(run->largest[i] - largest[i]);
    run->sum[i] *= run->kept[i];
    run->largest[i] = largest[i];
  }
  for (int64_t j = 0; j < keys; j++)
    for (int i = 0; i < QUERIES; i++) {
      float p = vector_exp(scores[j * QUERIES + i] - largest[i]);
      scores[j * QUERIES + i] = p;
      run->sum[i] += p;
    }
}

FOR_EACH_ISA static void scale_rows(float *restrict out, int64_t row, const float *restrict factors,
                                    int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t d = 0; d < dim; d++) out[i * row + d] *= factors[i];
}

static void attention_task(void *context, int64_t task) {
  const call *c = context;
  sizes s = sizes_of(c->attrs, &c->in[0]);
  int64_t blocks = divide_up(s.tokens, QUERIES), padded = padded_dim(s.dim);
  int64_t head = task / blocks % s.heads, sample = task / blocks / s.heads;
  span queries = piece_of(s.tokens, QUERIES, task % blocks);
  const float *qkv = (const float *)c->in[0].data + sample * s.tokens * s.row + head * s.dim;
  float scale = (float)(1.0 / sqrt((double)s.dim));

  float queries_t[DIM_MAX * QUERIES], scores[KEYS * QUERIES], out[QUERIES * DIM_MAX];
  float copy[KEYS * DIM_MAX];
  running run = {.sum = {0}};
  for (int i = 0; i < QUERIES; i++) run.largest[i] = -INFINITY;
  turn_queries(queries_t, qkv + queries.first * s.row, s.row, queries.count, s.dim);
  clear(out, queries.count * padded);
  for (int64_t block = 0; block < divide_up(s.tokens, KEYS); block++) {
    span keys = piece_of(s.tokens, KEYS, block);
    const float *k = qkv + keys.first * s.row + s.channels;
    product(scores, QUERIES, (left){k, s.row, 1}, queries_t, QUERIES, keys.count, QUERIES, s.dim,
            false);
    absorb_scores(scores, &run, scale, keys.count);
    if (block > 0) scale_rows(out, padded, run.kept, queries.count, padded);
    int64_t v_row = s.row;
    const float *v = readable_rows(k + s.channels, &v_row, keys.count, s.dim, copy);
    product(out, padded, (left){scores, 1, QUERIES}, v, v_row, queries.count, padded, keys.count,
            true);
  }
  float *y = (float *)c->out[0].data + sample * s.tokens * s.channels + head * s.dim;
  float *lse = (float *)c->out[1].data + (sample * s.heads + head) * s.tokens;
  for (int64_t i = 0; i < queries.count; i++) {
    float factor = 1.0f / run.sum[i];
    for (int64_t d = 0; d < s.dim; d++)
      y[(queries.first + i) * s.channels + d] = out[i * padded + d] * factor;
    lse[queries.first + i] = run.largest[i] + logf(run.sum[i]);
  }
}

static status self_attention_cpu(const call *c) {
  sizes s = sizes_of(c->attrs, &c->in[0]);
  parallel_for(c->pool, s.samples * s.heads * divide_up(s.tokens, QUERIES), attention_task,
               (void *)c);
  return OK;
}

/* ---- gradient --------------------------------------------------------------------------------
 * With P the weights, D = Σ dy·y per query:
 *     dv = Pᵀ dy    dS = P ∘ (dy vᵀ − D)    dq = dS k / √D    dk = dSᵀ q / √D
 * A task is one head of one sample: queries outside, keys inside; dk and dv gather in the result.
 */

/* weights = e^(scores · scale − lse); d_weights becomes dS · scale. Both key-major. */
FOR_EACH_ISA static void score_gradients(float *restrict weights, float *restrict d_weights,
                                         const float *restrict lse, const float *restrict dots,
                                         int64_t keys, float scale) {
  for (int64_t j = 0; j < keys; j++)
    for (int i = 0; i < QUERIES; i++) {
      float p = vector_exp(weights[j * QUERIES + i] * scale - lse[i]);
      weights[j * QUERIES + i] = p;
      d_weights[j * QUERIES + i] = p * (d_weights[j * QUERIES + i] - dots[i]) * scale;
    }
}

static void attention_backward_task(void *context, int64_t task) {
  const call *c = context;
  sizes s = sizes_of(c->attrs, &c->in[BACK_QKV]);
  int64_t head = task % s.heads, sample = task / s.heads;
  int64_t in_start = sample * s.tokens * s.row + head * s.dim;
  int64_t out_start = sample * s.tokens * s.channels + head * s.dim;
  const float *qkv = (const float *)c->in[BACK_QKV].data + in_start;
  const float *y = (const float *)c->in[BACK_OUT].data + out_start;
  const float *dy = (const float *)c->in[BACK_DY].data + out_start;
  const float *lse = (const float *)c->in[BACK_LSE].data + task * s.tokens;
  float *d_qkv = (float *)c->out[0].data + in_start;
  float scale = (float)(1.0 / sqrt((double)s.dim));
  float queries_t[DIM_MAX * QUERIES], dy_t[DIM_MAX * QUERIES];
  float query_copy[QUERIES * DIM_MAX], dy_copy[QUERIES * DIM_MAX], key_copy[KEYS * DIM_MAX];
  float weights[KEYS * QUERIES], d_weights[KEYS * QUERIES];
  float block_lse[QUERIES], block_dots[QUERIES];

  for (int64_t start = 0; start < s.tokens; start += QUERIES) {
    int64_t queries = s.tokens - start < QUERIES ? s.tokens - start : QUERIES;
    const float *q = qkv + start * s.row, *dy_block = dy + start * s.channels;
    for (int64_t i = 0; i < QUERIES; i++) {
      float dot = 0;
      for (int64_t d = 0; i < queries && d < s.dim; d++)
        dot += dy_block[i * s.channels + d] * y[(start + i) * s.channels + d];
      block_dots[i] = dot;
      /* Absent queries get weights of e^−∞. */
      block_lse[i] = i < queries ? lse[start + i] : INFINITY;
    }
    turn_queries(queries_t, q, s.row, queries, s.dim);
    turn_queries(dy_t, dy_block, s.channels, queries, s.dim);
    int64_t q_row = s.row, dy_row = s.channels;
    q = readable_rows(q, &q_row, queries, s.dim, query_copy);
    dy_block = readable_rows(dy_block, &dy_row, queries, s.dim, dy_copy);
    for (int64_t block = 0; block < divide_up(s.tokens, KEYS); block++) {
      span keys = piece_of(s.tokens, KEYS, block);
      const float *k = qkv + keys.first * s.row + s.channels, *v = k + s.channels;
      float *dk = d_qkv + keys.first * s.row + s.channels, *dv = dk + s.channels;
      product(weights, QUERIES, (left){k, s.row, 1}, queries_t, QUERIES, keys.count, QUERIES, s.dim,
              false);
      product(d_weights, QUERIES, (left){v, s.row, 1}, dy_t, QUERIES, keys.count, QUERIES, s.dim,
              false);
      score_gradients(weights, d_weights, block_lse, block_dots, keys.count, scale);
      product(dv, s.row, (left){weights, QUERIES, 1}, dy_block, dy_row, keys.count, s.dim, queries,
              start > 0);
      product(dk, s.row, (left){d_weights, QUERIES, 1}, q, q_row, keys.count, s.dim, queries,
              start > 0);
      int64_t k_row = s.row;
      k = readable_rows(k, &k_row, keys.count, s.dim, key_copy);
      product(d_qkv + start * s.row, s.row, (left){d_weights, 1, QUERIES}, k, k_row, queries, s.dim,
              keys.count, block > 0);
    }
  }
}

static status self_attention_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[BACK_QKV].shape;
  return OK;
}

static status self_attention_backward_cpu(const call *c) {
  sizes s = sizes_of(c->attrs, &c->in[BACK_QKV]);
  parallel_for(c->pool, s.samples * s.heads, attention_backward_task, (void *)c);
  return OK;
}

const op op_self_attention = {
    .name = "self_attention",
    .family = "attention",
    .summary = "Scaled dot-product attention of every token to every token.",
    .doc = "out = softmax(q kᵀ / √D) v for each head, D = C / heads (Vaswani et al., arXiv "
           "1706.03762). qkv holds queries, keys and values side by side along the channels, each "
           "with the heads in order, as one linear layer makes them. Memory grows with T, not T².",
    .torch =
        "(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, "
        "2).flatten(2))(*qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4))",
    .version = 1,
    .inputs = (const port[]){{"qkv", "N T 3·C", DTYPE_F32, 0, "queries, keys and values"}, {0}},
    .outputs = (const port[]){{"out", "N T C", DTYPE_F32, 0, "attended values"},
                              {"lse", "N H T", DTYPE_F32, PORT_SAVED, "log Σ e^score"},
                              {0}},
    .attrs = self_attention_attr_list,
    .attrs_bytes = sizeof(self_attention_attrs),
    .infer = self_attention_infer,
    .grad = self_attention_grad,
    .cost = self_attention_cost,
    .cpu = self_attention_cpu,
    .cases = (const op_case[]){{"{heads: 2}", "[1..2, 3..9, 12|24|36]", 0},
                               {"{heads: 1}", "[1, 70, 51]", 0},
                               {"{heads: 3}", "[2, 33, 144]", 0},
                               {0}},
};

const op op_self_attention_backward = {
    .name = "self_attention_backward",
    .family = "attention",
    .summary = "Gradient of self_attention.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"qkv", "N T 3·C", DTYPE_F32, 0, "queries, keys and values"},
                             {"out", "N T C", DTYPE_F32, 0, "result of self_attention"},
                             {"lse", "N H T", DTYPE_F32, 0, "saved log Σ e^score"},
                             {"dy", "N T C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dqkv", "N T 3·C", DTYPE_F32, 0, "gradient of qkv"}, {0}},
    .attrs = self_attention_attr_list,
    .attrs_bytes = sizeof(self_attention_attrs),
    .infer = self_attention_backward_infer,
    .cost = self_attention_backward_cost,
    .cpu = self_attention_backward_cpu,
};
