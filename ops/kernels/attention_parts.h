/* The inner loops of attention (attention.c), compiled for every instruction set from
 * attention_tile.h. Blocks of scores are key-major, keys × ATTENTION_QUERIES, so that the softmax of
 * all queries of a block runs in vector lanes and the keys are used as they lie in memory. */
#ifndef STRATA_OPS_KERNELS_ATTENTION_PARTS_H
#define STRATA_OPS_KERNELS_ATTENTION_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  ATTENTION_QUERIES = 32, /* a block of scores is 8 KiB and stays in the first-level cache */
  ATTENTION_KEYS = 64
};

/* A matrix operand read element by element: rows and k steps may lie any distance apart, so a
 * transposed matrix needs no copy. Distances count floats. */
typedef struct attention_left {
  const float *at;
  int64_t row, k;
} attention_left;

/* The right operand: rows are read in full vectors. */
typedef struct attention_right {
  const float *at;
  int64_t row;
} attention_right;

/* What a block of scores meets beside the products. */
typedef struct attention_terms {
  const float *bias;                          /* laid out like the scores, or NULL */
  const int32_t *query_regions, *key_regions; /* ATTENTION_APART where they differ; or NULL */
  const float *factors; /* of the weights after softmax, laid out like the scores; or NULL */
} attention_terms;

/* Of each query of a block, over the keys so far: the largest score and Σ e^(score − largest).
 * `kept` is what the last block made of one e^(score − largest) before it. */
typedef struct attention_running {
  float largest[ATTENTION_QUERIES], sum[ATTENTION_QUERIES], kept[ATTENTION_QUERIES];
} attention_running;

typedef struct attention_kernels {
  int lanes; /* floats in a vector */
  /* c (m×n) = or += a (m×depth) · b (depth×n), in f32; where n does not fill vectors, m ≤
   * ATTENTION_KEYS. */
  void (*product)(float *c, int64_t c_row, attention_left a, attention_right b, int64_t m,
                  int64_t n, int64_t depth, bool accumulate);
  /* Takes in a block of products: turns them into e^(score − largest), times their factors. */
  void (*absorb)(float *scores, int64_t keys, attention_terms terms, attention_running *run);
  /* Products become weights, e^(score − lse), times their factors; d_weights become scale · dS with
   * dS = weight · (factor · d_weight − dot), and dS is added to d_bias, laid out like the scores,
   * unless that is NULL. */
  void (*gradients)(float *weights, float *d_weights, int64_t keys, attention_terms terms,
                    const float *lse, const float *dots, float scale, float *d_bias);
} attention_kernels;

extern const attention_kernels attention_portable;
#if defined(__x86_64__)
extern const attention_kernels attention_avx2, attention_avx512;
#endif

#endif
