#include "ops/kernels/attention.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/attention_parts.h"
#include "ops/kernels/bf16.h"
#include "ops/kernels/gemm.h"
#include "ops/kernels/philox.h"

#include <float.h>
#include <math.h>

enum {
  QUERIES = ATTENTION_QUERIES,
  KEYS = ATTENTION_KEYS,
  DIM_MAX = ATTENTION_DIM_MAX,
  /* A bias gathers its gradient over all sequences. Sequences are cut into groups that gather for
   * themselves, as many as make about this many tasks; the groups are added in order. */
  BIAS_TASKS = 32,
  /* Long sequences of queries with few keys are cut into slabs that gather dk and dv for themselves, so
   * that heads and samples need not be as many as threads, and heads that pass over the same lines of
   * tokens find them in the cache. */
  SLABS = 16,
  SLAB_BLOCKS = 16 /* least of a slab */
};

/* A vector of the tiles lies in one line of the cache. */
#define ALIGNED _Alignas(64)

/* ---- small matrix products ------------------------------------------------------------------- */

typedef attention_left left;
typedef attention_right right;

/* Room for a copy of an operand, or its pairs. */
enum { ROOM = KEYS * DIM_MAX };

/* Whether products are of pairs; the factors are rounded in bf16 otherwise. */
static bool pairs(bool bf16) {
  return bf16 && gemm_best_bf16();
}

static const gemm_kernels *kernels_for(bool bf16) {
  return pairs(bf16) ? gemm_best_bf16() : gemm_best();
}

/* The loops of these vectors. */
static const attention_kernels *loops_of(int lanes) {
#if defined(__x86_64__)
  const attention_kernels *sets[] = {&attention_avx512, &attention_avx2};
  for (int i = 0; i < 2; i++)
    if (sets[i]->lanes <= lanes) return sets[i];
#else
  (void)lanes;
#endif
  return &attention_portable;
}

static const attention_kernels *loops_for(bool bf16) {
  return loops_of(kernels_for(bf16)->lanes);
}

/* Those for products with n columns: of vectors that are not wider, for heads narrower than a vector. */
static const attention_kernels *products_for(bool bf16, int64_t n) {
  int lanes = kernels_for(bf16)->lanes;
  return loops_of(n < lanes ? (int)n : lanes);
}

/* Columns of a right operand with n of them, in full vectors. */
static int64_t padded_columns(bool bf16, int64_t n) {
  int64_t lanes = pairs(bf16) ? gemm_best_bf16()->lanes : products_for(bf16, n)->lanes;
  return divide_up(n, lanes) * lanes;
}

/* a (m×depth) as the tiles read it: where it lies, or in `room` rounded, or its pairs along the depth. One
 * of its distances is 1. */
static left left_operand(bool bf16, left a, int64_t m, int64_t depth, float room[ROOM]) {
  if (!bf16) return a;
  if (!pairs(bf16)) {
    int64_t rows = a.k == 1 ? m : depth, width = a.k == 1 ? depth : m;
    for (int64_t r = 0; r < rows; r++)
      bf16_round_copy(room + r * width, a.at + r * (a.k == 1 ? a.row : a.k), width);
    return a.k == 1 ? (left){room, width, 1} : (left){room, 1, width};
  }
  if (a.k == 1) {
    bf16_pair_neighbours((bf16_pair *)room, a.at, a.row, m, depth);
    return (left){room, bf16_pairs(depth), 1};
  }
  bf16_pair_columns((bf16_pair *)room, m, a.at, a.k, depth, m);
  return (left){room, 1, m};
}

/* b (depth×n) as the tiles read it: where it lies, when its rows can be read in full vectors, a
 * padded copy, rounded in bf16, or its pairs along the depth. */
static right right_operand(bool bf16, const float *b, int64_t row, int64_t depth, int64_t n,
                           float room[ROOM]) {
  int64_t padded = padded_columns(bf16, n);
  if (!bf16 && padded == n) return (right){b, row};
  int64_t rows = pairs(bf16) ? bf16_pairs(depth) : depth;
  if (pairs(bf16)) bf16_pair_columns((bf16_pair *)room, padded, b, row, depth, n);
  for (int64_t k = 0; k < rows; k++) {
    if (!bf16)
      copy_row(room + k * padded, b + k * row, n);
    else if (!pairs(bf16))
      bf16_round_copy(room + k * padded, b + k * row, n);
    for (int64_t d = n; d < padded; d++) room[k * padded + d] = 0;
  }
  return (right){room, padded};
}

/* c (m×n) = or += a (m×depth) · b (depth×n). */
static void product(bool bf16, float *c, int64_t c_row, left a, right b, int64_t m, int64_t n,
                    int64_t depth, bool accumulate) {
  if (!pairs(bf16)) {
    products_for(bf16, n)->product(c, c_row, a, b, m, n, depth, accumulate);
    return;
  }
  static const float zeros[GEMM_MAX_VECTORS * GEMM_MAX_LANES];
  const gemm_kernels *kernels = kernels_for(bf16);
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
                              .b = b.at + j,
                              .ahead = b.at + j};
      gemm_tile tile = {.segments = &segment,
                        .segment_count = 1,
                        .k = bf16_pairs(depth),
                        .a_row = a.row * (ptrdiff_t)sizeof(float),
                        .a_k = a.k * (ptrdiff_t)sizeof(float),
                        .b_k = b.row * (ptrdiff_t)sizeof(float),
                        .c = c + begin * c_row + j,
                        .c_row = c_row * (ptrdiff_t)sizeof(float),
                        .columns = columns,
                        .accumulate = accumulate,
                        .bias = zeros};
      kernels->tile[vectors][rows](&tile);
    }
  }
}

static void clear(float *x, int64_t count) {
  memset(x, 0, (size_t)count * sizeof *x);
}

/* to (width × QUERIES, rows to_row apart) = fromᵀ; places of absent queries hold zeros. */
static void turn_rows(float *restrict to, int64_t to_row, const float *restrict from, int64_t row,
                      int64_t queries, int64_t width) {
  gemm_transpose(to, to_row, from, row, queries, width);
  for (int64_t d = 0; d < width && queries < QUERIES; d++)
    for (int64_t k = queries; k < QUERIES; k++) to[d * to_row + k] = 0;
}

FOR_EACH_ISA static void scale_block(float *restrict x, float factor, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

/* ---- blocks of scores ------------------------------------------------------------------------ */

/* The place of a task in the problem. */
typedef struct place {
  const attention_problem *p;
  int64_t sequence, head;
  const float *bias_t; /* of the head, or NULL */
} place;

static int64_t query_blocks(const attention_problem *p) {
  return divide_up(p->queries, QUERIES);
}

/* A bias turned over, as it is added to blocks of scores: query blocks × keys × QUERIES. */
static int64_t bias_plane(const attention_problem *p) {
  return query_blocks(p) * p->keys * QUERIES;
}

static int64_t bias_block(const attention_problem *p, span queries, span keys) {
  return queries.first * p->keys + keys.first * QUERIES;
}

static place place_of(const attention_problem *p, int64_t sequence, int64_t head,
                      const float *bias_t) {
  return (place){p, sequence, head, bias_t ? bias_t + head * bias_plane(p) : NULL};
}

FOR_EACH_ISA static void add_block(float *restrict sum, const float *restrict terms,
                                   int64_t count) {
  for (int64_t i = 0; i < count; i++) sum[i] += terms[i];
}

FOR_EACH_ISA static void drop_factors(float *restrict factors,
                                      uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS], uint32_t limit,
                                      float kept, int64_t keys) {
  enum { RUN = QUERIES / PHILOX_BLOCK };
  for (int64_t j = 0; j < keys; j++)
    for (int r = 0; r < PHILOX_BLOCK; r++)
      for (int i = 0; i < RUN; i++)
        factors[j * QUERIES + r * RUN + i] = bits[r][j * RUN + i] < limit ? 0.0f : kept;
}

/* 0 for the weights of a block that are dropped, 1 / (1 − rate) for the others. A number is
 * addressed by sample, operator, window and head, and the places of query and key, so forward and
 * backward draw the same ones. */
static void draw_factors(const place *at, span queries, span keys, float *factors) {
  const attention_problem *p = at->p;
  enum { RUN = QUERIES / PHILOX_BLOCK, KEYS_AT_ONCE = PHILOX_BLOCKS / RUN };
  rng stream = rng_open(p->rng_keys[at->sequence / p->windows], p->node_id);
  uint32_t plane = (uint32_t)(at->sequence % p->windows * p->heads + at->head);
  uint32_t limit = (uint32_t)(p->dropout * 0x1p32), bits[PHILOX_BLOCK][PHILOX_BLOCKS];
  float kept = (float)(1.0 / (1.0 - p->dropout));
  for (int64_t j = 0; j < keys.count; j += KEYS_AT_ONCE) {
    int64_t count = keys.count - j < KEYS_AT_ONCE ? keys.count - j : KEYS_AT_ONCE;
    int64_t block = (queries.first / QUERIES * p->keys + keys.first + j) * RUN;
    uint32_t counter[4] = {(uint32_t)block, stream.counter[1] + plane, stream.counter[2],
                           stream.counter[3]};
    philox_blocks(counter, stream.key, bits);
    drop_factors(factors + j * QUERIES, bits, limit, kept, count);
  }
}

/* Adds the mask, which few networks have, to the scores of a block, and says what else they meet.
 * `own` is room for the regions of the queries, `factors` for those of dropout. */
static attention_terms terms_of(const place *at, span queries, span keys, float *scores,
                                int32_t own[QUERIES], float *factors) {
  const attention_problem *p = at->p;
  attention_terms terms = {.bias = at->bias_t ? at->bias_t + bias_block(p, queries, keys) : NULL};
  int64_t window = at->sequence % p->windows;
  if (p->mask) {
    float block[KEYS * QUERIES];
    int64_t plane = window % p->mask_windows * p->queries;
    turn_rows(block, QUERIES, p->mask + (plane + queries.first) * p->keys + keys.first, p->keys,
              queries.count, keys.count);
    add_block(scores, block, keys.count * QUERIES);
  }
  if (p->regions) {
    const int32_t *regions = p->regions + window % p->region_windows * p->keys;
    const int32_t *others = regions + keys.first;
    int32_t one = others[0], differ = 0;
    for (int64_t i = 0; i < QUERIES; i++)
      own[i] = i < queries.count ? regions[queries.first + i] : one;
    for (int64_t i = 0; i < QUERIES; i++) differ |= own[i] ^ one;
    for (int64_t j = 0; j < keys.count; j++) differ |= others[j] ^ one;
    /* Most windows do not lie at the border and are one region. */
    if (differ) {
      terms.query_regions = own;
      terms.key_regions = others;
    }
  }
  if (p->dropout > 0) {
    draw_factors(at, queries, keys, factors);
    terms.factors = factors;
  }
  return terms;
}

/* ---- the bias, turned over -------------------------------------------------------------------
 */

typedef struct turn_job {
  const attention_problem *p;
  float *bias_t; /* heads × query blocks × keys × QUERIES */
} turn_job;

static void turn_bias_task(void *context, int64_t task) {
  const turn_job *job = context;
  const attention_problem *p = job->p;
  int64_t head = task / query_blocks(p);
  span queries = piece_of(p->queries, QUERIES, task % query_blocks(p));
  turn_rows(job->bias_t + task * p->keys * QUERIES, QUERIES,
            p->bias + (head * p->queries + queries.first) * p->keys, p->keys, queries.count,
            p->keys);
}

/* NULL without a bias. */
static const float *turn_bias(const attention_problem *p, float *bias_t, thread_pool *pool) {
  if (!p->bias) return NULL;
  turn_job job = {p, bias_t};
  parallel_for(pool, p->heads * query_blocks(p), turn_bias_task, &job);
  return bias_t;
}

static int64_t bias_floats(const attention_problem *p) {
  return p->bias ? p->heads * bias_plane(p) : 0;
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct forward_job {
  const attention_problem *p;
  const float *bias_t;
  float *y, *lse;
} forward_job;

/* Each of `rows` rows of QUERIES numbers, times the factors of the queries. */
FOR_EACH_ISA static void scale_queries(float *restrict x, const float *restrict factors,
                                       int64_t rows) {
  for (int64_t d = 0; d < rows; d++)
    for (int64_t i = 0; i < QUERIES; i++) x[d * QUERIES + i] *= factors[i];
}

/* After the last block: `kept` becomes 1 / sum. What is no number stays none. */
FOR_EACH_ISA static void finish_queries(attention_running *run, float log_sums[QUERIES]) {
  for (int i = 0; i < QUERIES; i++) {
    float sum = run->sum[i];
    run->kept[i] = 1.0f / sum;
    log_sums[i] = run->largest[i] + vector_log(sum) + (sum - sum);
  }
}

/* One block of queries of one head of one sequence. */
static void forward_task(void *context, int64_t task) {
  const forward_job *job = context;
  const attention_problem *p = job->p;
  int64_t blocks = query_blocks(p);
  const attention_kernels *loops = loops_for(p->bf16);
  place at = place_of(p, task / blocks / p->heads, task % p->heads, job->bias_t);
  span queries = piece_of(p->queries, QUERIES, task / p->heads % blocks);
  int64_t first_query = at.sequence * p->queries + queries.first, channel = at.head * p->dim;
  const float *q = p->q + first_query * p->q_row + channel;

  ALIGNED float queries_t[DIM_MAX * QUERIES], scores[KEYS * QUERIES], out_t[DIM_MAX * QUERIES];
  ALIGNED float query_room[ROOM], weight_room[ROOM], left_room[ROOM];
  ALIGNED float factors[KEYS * QUERIES];
  int32_t own[QUERIES];
  attention_running run = {.sum = {0}};
  /* Finite, so that a block in which a mask of −∞ leaves a query no key adds nothing. */
  for (int i = 0; i < QUERIES; i++) run.largest[i] = -FLT_MAX / 2;
  turn_rows(queries_t, QUERIES, q, p->q_row, queries.count, p->dim);
  scale_block(queries_t, p->scale, p->dim * QUERIES);
  right query = right_operand(p->bf16, queries_t, QUERIES, p->dim, QUERIES, query_room);
  clear(out_t, p->dim * QUERIES);
  for (int64_t block = 0; block < divide_up(p->keys, KEYS); block++) {
    span keys = piece_of(p->keys, KEYS, block);
    int64_t first_key = at.sequence * p->keys + keys.first;
    left key = {p->k + first_key * p->k_row + channel, p->k_row, 1};
    key = left_operand(p->bf16, key, keys.count, p->dim, left_room);
    product(p->bf16, scores, QUERIES, key, query, keys.count, QUERIES, p->dim, false);
    attention_terms terms = terms_of(&at, queries, keys, scores, own, factors);
    loops->absorb(scores, keys.count, terms, &run);
    if (block > 0) scale_queries(out_t, run.kept, p->dim);
    left value = {p->v + first_key * p->v_row + channel, 1, p->v_row};
    value = left_operand(p->bf16, value, p->dim, keys.count, left_room);
    right weights = right_operand(p->bf16, scores, QUERIES, keys.count, QUERIES, weight_room);
    product(p->bf16, out_t, QUERIES, value, weights, p->dim, QUERIES, keys.count, true);
  }
  float log_sums[QUERIES];
  finish_queries(&run, log_sums);
  scale_queries(out_t, run.kept, p->dim);
  int64_t y_row = p->heads * p->dim;
  gemm_transpose(job->y + first_query * y_row + channel, y_row, out_t, QUERIES, p->dim,
                 queries.count);
  if (job->lse)
    copy_row(job->lse + (at.sequence * p->heads + at.head) * p->queries + queries.first, log_sums,
             queries.count);
}

size_t attention_forward_workspace(const attention_problem *p) {
  return (size_t)bias_floats(p) * sizeof(float);
}

void attention_forward(const attention_problem *p, float *y, float *lse, void *workspace,
                       thread_pool *pool) {
  forward_job job = {p, turn_bias(p, workspace, pool), y, lse};
  int64_t sequences = p->samples * p->windows;
  parallel_for(pool, sequences * p->heads * query_blocks(p), forward_task, &job);
}

/* ---- gradient --------------------------------------------------------------------------------
 * With P the weights, M the factors of dropout, D = Σ dy·y per query:
 *     dv = (P ∘ M)ᵀ dy    dS = P ∘ (M ∘ (dy vᵀ) − D)    dq = scale · dS k    dk = scale · dSᵀ q
 * and the bias gets Σ dS over the sequences. Queries outside, keys inside; dk and dv gather in the
 * result, or those of slabs in rows of their own, which are added in order. */

typedef struct backward_job {
  const attention_problem *p;
  const float *bias_t, *y, *lse, *dy;
  const attention_gradients *d;
  float *d_bias_t; /* groups × heads × keys × padded queries, or NULL */
  int64_t groups;
  int64_t slabs;  /* of the queries of a sequence */
  float *partial; /* dk and dv of slabs 1, 2 …: for each, twice sequences·keys × heads·dim */
} backward_job;

/* Where dk and dv of a slab gather. */
typedef struct key_gradients {
  float *k, *v;
  int64_t k_row, v_row;
} key_gradients;

static int64_t slab_count(const attention_problem *p) {
  int64_t most = query_blocks(p) / SLAB_BLOCKS, fit = p->queries / p->keys;
  if (most > fit) most = fit;
  return p->bias || most < 1 ? 1 : most < SLABS ? most : SLABS;
}

static int64_t key_floats(const attention_problem *p) {
  return p->samples * p->windows * p->keys * p->heads * p->dim;
}

static key_gradients gathered_in(const backward_job *job, int64_t slab) {
  const attention_problem *p = job->p;
  if (slab == 0) return (key_gradients){job->d->k, job->d->v, p->k_row, p->v_row};
  int64_t width = p->heads * p->dim;
  float *k = job->partial + (slab - 1) * 2 * key_floats(p);
  return (key_gradients){k, k + key_floats(p), width, width};
}

/* Σ over d of a[d][i] · b[d][i] for every query i. */
FOR_EACH_ISA static void dot_queries(float dots[QUERIES], const float *restrict a,
                                     const float *restrict b, int64_t dim) {
  for (int64_t i = 0; i < QUERIES; i++) dots[i] = 0;
  for (int64_t d = 0; d < dim; d++)
    for (int64_t i = 0; i < QUERIES; i++) dots[i] += a[d * QUERIES + i] * b[d * QUERIES + i];
}

/* One head of one sequence, or of a slab of it. */
static void sequence_gradients(const backward_job *job, place at, int64_t slab, float *d_bias_t) {
  const attention_problem *p = at.p;
  int64_t channel = at.head * p->dim, y_row = p->heads * p->dim;
  int64_t first_query = at.sequence * p->queries, first_key = at.sequence * p->keys;
  const attention_kernels *loops = loops_for(p->bf16);
  const float *y = job->y + first_query * y_row + channel;
  const float *dy = job->dy + first_query * y_row + channel;
  const float *lse = job->lse + (at.sequence * p->heads + at.head) * p->queries;
  ALIGNED float queries_t[DIM_MAX * QUERIES], dy_t[DIM_MAX * QUERIES];
  ALIGNED float y_t[DIM_MAX * QUERIES], dq_t[DIM_MAX * QUERIES];
  ALIGNED float query_room[ROOM], query_t_room[ROOM], dy_room[ROOM];
  ALIGNED float dy_t_room[ROOM], weight_room[ROOM], left_room[ROOM];
  ALIGNED float weights[KEYS * QUERIES], d_weights[KEYS * QUERIES], factors[KEYS * QUERIES];
  float block_lse[QUERIES], block_dots[QUERIES];
  int32_t own[QUERIES];

  key_gradients to = gathered_in(job, slab);
  int64_t first_block = gemm_tile_begin(query_blocks(p), job->slabs, slab);
  int64_t end_block = gemm_tile_begin(query_blocks(p), job->slabs, slab + 1);
  for (int64_t b = first_block; b < end_block; b++) {
    span queries = piece_of(p->queries, QUERIES, b);
    const float *q = p->q + (first_query + queries.first) * p->q_row + channel;
    float *dq = job->d->q + (first_query + queries.first) * p->q_row + channel;
    const float *dy_block = dy + queries.first * y_row;
    /* Absent queries get weights of e^−∞. */
    for (int64_t i = 0; i < QUERIES; i++)
      block_lse[i] = i < queries.count ? lse[queries.first + i] : INFINITY;
    turn_rows(queries_t, QUERIES, q, p->q_row, queries.count, p->dim);
    scale_block(queries_t, p->scale, p->dim * QUERIES);
    turn_rows(dy_t, QUERIES, dy_block, y_row, queries.count, p->dim);
    turn_rows(y_t, QUERIES, y + queries.first * y_row, y_row, queries.count, p->dim);
    dot_queries(block_dots, dy_t, y_t, p->dim);
    right query = right_operand(p->bf16, q, p->q_row, queries.count, p->dim, query_room);
    right query_t = right_operand(p->bf16, queries_t, QUERIES, p->dim, QUERIES, query_t_room);
    right out_gradient = right_operand(p->bf16, dy_block, y_row, queries.count, p->dim, dy_room);
    right out_gradient_t = right_operand(p->bf16, dy_t, QUERIES, p->dim, QUERIES, dy_t_room);
    for (int64_t block = 0; block < divide_up(p->keys, KEYS); block++) {
      span keys = piece_of(p->keys, KEYS, block);
      int64_t key = first_key + keys.first;
      const float *k = p->k + key * p->k_row + channel, *v = p->v + key * p->v_row + channel;
      left a = left_operand(p->bf16, (left){k, p->k_row, 1}, keys.count, p->dim, left_room);
      product(p->bf16, weights, QUERIES, a, query_t, keys.count, QUERIES, p->dim, false);
      attention_terms terms = terms_of(&at, queries, keys, weights, own, factors);
      a = left_operand(p->bf16, (left){v, p->v_row, 1}, keys.count, p->dim, left_room);
      product(p->bf16, d_weights, QUERIES, a, out_gradient_t, keys.count, QUERIES, p->dim, false);
      loops->gradients(weights, d_weights, keys.count, terms, block_lse, block_dots, p->scale,
                       d_bias_t ? d_bias_t + bias_block(p, queries, keys) : NULL);
      a = left_operand(p->bf16, (left){weights, QUERIES, 1}, keys.count, queries.count, left_room);
      product(p->bf16, to.v + key * to.v_row + channel, to.v_row, a, out_gradient, keys.count,
              p->dim, queries.count, b > first_block);
      a = left_operand(p->bf16, (left){d_weights, QUERIES, 1}, keys.count, queries.count,
                       left_room);
      product(p->bf16, to.k + key * to.k_row + channel, to.k_row, a, query, keys.count, p->dim,
              queries.count, b > first_block);
      a = left_operand(p->bf16, (left){k, 1, p->k_row}, p->dim, keys.count, left_room);
      product(p->bf16, dq_t, QUERIES, a,
              right_operand(p->bf16, d_weights, QUERIES, keys.count, QUERIES, weight_room), p->dim,
              QUERIES, keys.count, block > 0);
    }
    gemm_transpose(dq, p->q_row, dq_t, QUERIES, p->dim, queries.count);
  }
}

/* One head of a group of sequences, or of a slab of a sequence. */
static void backward_task(void *context, int64_t task) {
  const backward_job *job = context;
  const attention_problem *p = job->p;
  int64_t head = task % p->heads, slab = task / p->heads % job->slabs;
  int64_t group = task / p->heads / job->slabs;
  int64_t sequences = p->samples * p->windows, plane = bias_plane(p);
  float *d_bias_t = job->d_bias_t ? job->d_bias_t + task * plane : NULL;
  if (d_bias_t) clear(d_bias_t, plane);
  int64_t end = gemm_tile_begin(sequences, job->groups, group + 1);
  for (int64_t s = gemm_tile_begin(sequences, job->groups, group); s < end; s++)
    sequence_gradients(job, place_of(p, s, head, job->bias_t), slab, d_bias_t);
}

/* One key of a sequence: dk and dv of the slabs added in order. */
static void add_slabs_task(void *context, int64_t key) {
  const backward_job *job = context;
  int64_t width = job->p->heads * job->p->dim;
  key_gradients sum = gathered_in(job, 0);
  for (int64_t slab = 1; slab < job->slabs; slab++) {
    key_gradients own = gathered_in(job, slab);
    add_block(sum.k + key * sum.k_row, own.k + key * own.k_row, width);
    add_block(sum.v + key * sum.v_row, own.v + key * own.v_row, width);
  }
}

/* One block of queries of one head: the groups added in order, and turned back. */
static void gather_bias_task(void *context, int64_t task) {
  const backward_job *job = context;
  const attention_problem *p = job->p;
  int64_t blocks = query_blocks(p), head = task / blocks;
  span queries = piece_of(p->queries, QUERIES, task % blocks);
  float *to = job->d->bias + (head * p->queries + queries.first) * p->keys;
  for (int64_t block = 0; block < divide_up(p->keys, KEYS); block++) {
    span keys = piece_of(p->keys, KEYS, block);
    float sum[KEYS * QUERIES] = {0};
    for (int64_t g = 0; g < job->groups; g++)
      add_block(
          sum, job->d_bias_t + (g * p->heads + head) * bias_plane(p) + bias_block(p, queries, keys),
          keys.count * QUERIES);
    for (int64_t i = 0; i < queries.count; i++)
      for (int64_t j = 0; j < keys.count; j++)
        to[i * p->keys + keys.first + j] = sum[j * QUERIES + i];
  }
}

static int64_t bias_groups(const attention_problem *p) {
  int64_t groups = divide_up(BIAS_TASKS, p->heads), sequences = p->samples * p->windows;
  return groups < sequences ? groups : sequences;
}

size_t attention_backward_workspace(const attention_problem *p) {
  int64_t partial = (slab_count(p) - 1) * 2 * key_floats(p);
  return (size_t)(bias_floats(p) * (1 + bias_groups(p)) + partial) * sizeof(float);
}

void attention_backward(const attention_problem *p, const float *y, const float *lse,
                        const float *dy, const attention_gradients *d, void *workspace,
                        thread_pool *pool) {
  backward_job job = {.p = p,
                      .bias_t = turn_bias(p, workspace, pool),
                      .y = y,
                      .lse = lse,
                      .dy = dy,
                      .d = d,
                      .groups = p->samples * p->windows,
                      .slabs = slab_count(p),
                      .partial = workspace};
  if (p->bias && d->bias) {
    job.d_bias_t = (float *)workspace + bias_floats(p);
    job.groups = bias_groups(p);
  }
  parallel_for(pool, job.groups * job.slabs * p->heads, backward_task, &job);
  if (job.slabs > 1) parallel_for(pool, p->samples * p->windows * p->keys, add_slabs_task, &job);
  if (job.d_bias_t) parallel_for(pool, p->heads * query_blocks(p), gather_bias_task, &job);
}
