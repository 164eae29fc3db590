/* self_attention: softmax(q kᵀ / √D) v for every head (Vaswani et al., arXiv 1706.03762).
 *
 * The T×T weights are never stored: a task walks the keys in blocks and keeps, per query, the
 * largest score and the sum of exponentials so far (Milakov and Gimelshein, arXiv 1805.02867). What
 * the gradient needs of them is one number per query, log Σ e^score, from which a block of weights
 * is computed again (Dao et al., arXiv 2205.14135). */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

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
  QUERIES = 32, /* rows and columns of a block of scores: 8 KiB, beside the packed keys in L1 */
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

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));

/* R×16 block of c += a·b; the sums stay in registers. */
#define PRODUCT_BLOCK(R)                                                                           \
  do {                                                                                             \
    v8 sum[R][2];                                                                                  \
    for (int r = 0; r < (R); r++) {                                                                \
      sum[r][0] = *(const v8 *)(c + (i + r) * ldc + j);                                            \
      sum[r][1] = *(const v8 *)(c + (i + r) * ldc + j + 8);                                        \
    }                                                                                              \
    for (int64_t k = 0; k < depth; k++) {                                                          \
      v8 left = *(const v8 *)(b + k * ldb + j), right = *(const v8 *)(b + k * ldb + j + 8);        \
      for (int r = 0; r < (R); r++) {                                                              \
        sum[r][0] += left * a[(i + r) * lda + k];                                                  \
        sum[r][1] += right * a[(i + r) * lda + k];                                                 \
      }                                                                                            \
    }                                                                                              \
    for (int r = 0; r < (R); r++) {                                                                \
      *(v8 *)(c + (i + r) * ldc + j) = sum[r][0];                                                  \
      *(v8 *)(c + (i + r) * ldc + j + 8) = sum[r][1];                                              \
    }                                                                                              \
  } while (0)

/* c (m×n) += a (m×depth) · b (depth×n), row-major with the given row lengths. */
FOR_EACH_ISA static void add_product(float *restrict c, int64_t ldc, const float *restrict a,
                                     int64_t lda, const float *restrict b, int64_t ldb, int64_t m,
                                     int64_t n, int64_t depth) {
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    int64_t i = 0;
    for (; i + 4 <= m; i += 4) PRODUCT_BLOCK(4);
    for (; i < m; i++) PRODUCT_BLOCK(1);
  }
  for (int64_t i = 0; j < n && i < m; i++)
    for (int64_t k = 0; k < depth; k++)
      for (int64_t l = j; l < n; l++) c[i * ldc + l] += a[i * lda + k] * b[k * ldb + l];
}

/* to (columns × ld) = fromᵀ; columns beyond `rows` up to `padded` become 0. */
FOR_EACH_ISA static void transpose(float *restrict to, int64_t ld, const float *restrict from,
                                   int64_t row, int64_t rows, int64_t padded, int64_t columns) {
  for (int64_t c = 0; c < columns; c++) {
    for (int64_t r = 0; r < rows; r++) to[c * ld + r] = from[r * row + c];
    for (int64_t r = rows; r < padded; r++) to[c * ld + r] = 0;
  }
}

static void clear(float *x, int64_t count) {
  memset(x, 0, (size_t)count * sizeof *x);
}

static int64_t round_up_16(int64_t n) {
  return (n + 15) / 16 * 16;
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct running {
  float largest[QUERIES], sum[QUERIES];
} running;

/* Takes in one block of scores: turns them into e^(score − largest) and rescales what came before.
 */
FOR_EACH_ISA static void absorb_scores(float *restrict scores, running *restrict run,
                                       float *restrict out, int64_t queries, int64_t keys,
                                       int64_t dim) {
  for (int64_t i = 0; i < queries; i++) {
    float *row = scores + i * KEYS;
    float largest = run->largest[i];
    for (int64_t j = 0; j < keys; j++) largest = row[j] > largest ? row[j] : largest;
    for (int64_t j = 0; j < keys; j++) row[j] = vector_exp(row[j] - largest);
    for (int64_t j = keys; j < KEYS; j++) row[j] = 0;
    float lanes[LANES] = {0};
    for (int64_t j = 0; j < KEYS; j += LANES)
      for (int l = 0; l < LANES; l++) lanes[l] += row[j + l];
    float kept = vector_exp(run->largest[i] - largest);
    run->sum[i] = run->sum[i] * kept + (float)lanes_total(lanes);
    run->largest[i] = largest;
    for (int64_t d = 0; d < dim; d++) out[i * DIM_MAX + d] *= kept;
  }
}

static void attention_task(void *context, int64_t task) {
  const call *c = context;
  sizes s = sizes_of(c->attrs, &c->in[0]);
  int64_t blocks = divide_up(s.tokens, QUERIES);
  int64_t head = task / blocks % s.heads, sample = task / blocks / s.heads;
  span queries = piece_of(s.tokens, QUERIES, task % blocks);
  const float *qkv = (const float *)c->in[0].data + sample * s.tokens * s.row + head * s.dim;
  float scale = (float)(1.0 / sqrt((double)s.dim));

  float query[QUERIES * DIM_MAX], out[QUERIES * DIM_MAX], scores[QUERIES * KEYS];
  float keys_t[DIM_MAX * KEYS];
  running run;
  for (int64_t i = 0; i < queries.count; i++) {
    const float *q = qkv + (queries.first + i) * s.row;
    for (int64_t d = 0; d < s.dim; d++) query[i * DIM_MAX + d] = q[d] * scale;
    clear(out + i * DIM_MAX, s.dim);
    run.largest[i] = -INFINITY;
    run.sum[i] = 0;
  }
  for (int64_t block = 0; block < divide_up(s.tokens, KEYS); block++) {
    span keys = piece_of(s.tokens, KEYS, block);
    int64_t padded = round_up_16(keys.count);
    const float *k = qkv + keys.first * s.row + s.channels;
    transpose(keys_t, KEYS, k, s.row, keys.count, padded, s.dim);
    clear(scores, queries.count * KEYS);
    add_product(scores, KEYS, query, DIM_MAX, keys_t, KEYS, queries.count, padded, s.dim);
    absorb_scores(scores, &run, out, queries.count, keys.count, s.dim);
    add_product(out, DIM_MAX, scores, KEYS, k + s.channels, s.row, queries.count, s.dim,
                keys.count);
  }
  float *y = (float *)c->out[0].data + sample * s.tokens * s.channels + head * s.dim;
  float *lse = (float *)c->out[1].data + (sample * s.heads + head) * s.tokens;
  for (int64_t i = 0; i < queries.count; i++) {
    float factor = 1.0f / run.sum[i];
    for (int64_t d = 0; d < s.dim; d++)
      y[(queries.first + i) * s.channels + d] = out[i * DIM_MAX + d] * factor;
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
 * A task is one head of one sample: keys outside, queries inside; dq gathers in the result. */

/* weights = e^(scores − lse); d_weights becomes dS · scale. Columns from `keys` on become 0. */
FOR_EACH_ISA static void score_gradients(float *restrict weights, float *restrict d_weights,
                                         const float *restrict lse, const float *restrict dots,
                                         int64_t queries, int64_t keys, float scale) {
  for (int64_t i = 0; i < queries; i++) {
    float *p = weights + i * KEYS, *d = d_weights + i * KEYS;
    for (int64_t j = 0; j < keys; j++) {
      p[j] = vector_exp(p[j] * scale - lse[i]);
      d[j] = p[j] * (d[j] - dots[i]) * scale;
    }
    for (int64_t j = keys; j < KEYS; j++) p[j] = d[j] = 0;
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
  float *dots = (float *)c->workspace + task * s.tokens;
  float scale = (float)(1.0 / sqrt((double)s.dim));

  for (int64_t t = 0; t < s.tokens; t++) {
    float dot = 0;
    for (int64_t d = 0; d < s.dim; d++) dot += dy[t * s.channels + d] * y[t * s.channels + d];
    dots[t] = dot;
    clear(d_qkv + t * s.row, s.dim);
  }
  float keys_t[DIM_MAX * KEYS], values_t[DIM_MAX * KEYS];
  float weights[QUERIES * KEYS], d_weights[QUERIES * KEYS], turned[KEYS * QUERIES];
  for (int64_t block = 0; block < divide_up(s.tokens, KEYS); block++) {
    span keys = piece_of(s.tokens, KEYS, block);
    int64_t padded = round_up_16(keys.count);
    const float *k = qkv + keys.first * s.row + s.channels, *v = k + s.channels;
    float *dk = d_qkv + keys.first * s.row + s.channels, *dv = dk + s.channels;
    transpose(keys_t, KEYS, k, s.row, keys.count, padded, s.dim);
    transpose(values_t, KEYS, v, s.row, keys.count, padded, s.dim);
    for (int64_t j = 0; j < keys.count; j++) {
      clear(dk + j * s.row, s.dim);
      clear(dv + j * s.row, s.dim);
    }
    for (int64_t start = 0; start < s.tokens; start += QUERIES) {
      int64_t queries = s.tokens - start < QUERIES ? s.tokens - start : QUERIES;
      const float *q = qkv + start * s.row, *dy_block = dy + start * s.channels;
      clear(weights, queries * KEYS);
      clear(d_weights, queries * KEYS);
      add_product(weights, KEYS, q, s.row, keys_t, KEYS, queries, padded, s.dim);
      add_product(d_weights, KEYS, dy_block, s.channels, values_t, KEYS, queries, padded, s.dim);
      score_gradients(weights, d_weights, lse + start, dots + start, queries, keys.count, scale);
      add_product(d_qkv + start * s.row, s.row, d_weights, KEYS, k, s.row, queries, s.dim,
                  keys.count);
      transpose(turned, QUERIES, weights, KEYS, queries, queries, keys.count);
      add_product(dv, s.row, turned, QUERIES, dy_block, s.channels, keys.count, s.dim, queries);
      transpose(turned, QUERIES, d_weights, KEYS, queries, queries, keys.count);
      add_product(dk, s.row, turned, QUERIES, q, s.row, keys.count, s.dim, queries);
    }
  }
}

static status self_attention_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[BACK_QKV].shape;
  return OK;
}

static size_t self_attention_backward_workspace(const void *attrs, const tensor *in, int in_count,
                                                const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  sizes s = sizes_of(attrs, &in[BACK_QKV]);
  return (size_t)(s.samples * s.heads * s.tokens) * sizeof(float);
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
           "1706.03762). "
           "qkv holds queries, keys and values side by side along the channels, each with the "
           "heads in "
           "order, as one linear layer makes them. Memory grows with T, not T².",
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
    .workspace_bytes = self_attention_backward_workspace,
    .cpu = self_attention_backward_cpu,
};
