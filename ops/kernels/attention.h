/* Scaled dot-product attention: out = softmax(scale · q kᵀ + bias + mask) v for every head of every
 * sequence (Vaswani et al., arXiv 1706.03762).
 *
 * The weights, queries × keys for each head, are never stored: a task walks the keys in blocks and
 * keeps, per query, the largest score and the sum of exponentials so far (Milakov and Gimelshein,
 * arXiv 1805.02867). What the gradient needs of them is one number per query, log Σ e^score, from
 * which a block of weights is computed again (Dao et al., arXiv 2205.14135). */
#ifndef STRATA_OPS_KERNELS_ATTENTION_H
#define STRATA_OPS_KERNELS_ATTENTION_H

#include "base/parallel.h"
#include "base/rng.h"

#include <stdbool.h>
#include <stddef.h>

enum { ATTENTION_DIM_MAX = 128 /* channels of a head */ };

/* Added to the score of a query and a key of different regions, as in Swin transformers (Liu et
 * al., arXiv 2103.14030): e^−100 is 0 beside any other weight. */
#define ATTENTION_APART (-100.0f)

/* Queries, keys and values may lie side by side in one tensor: each has its own distance from token
 * to token, in floats. Sequences follow one another without gaps. */
typedef struct attention_problem {
  int64_t samples, windows; /* sequences: samples × windows */
  int64_t heads, dim;       /* channels of a token: heads × dim, a head's together */
  int64_t queries, keys;    /* tokens of a sequence */
  int64_t q_row, k_row, v_row;
  const float *q, *k, *v;
  const float *bias;      /* heads × queries × keys, or NULL */
  const float *mask;      /* mask_windows × queries × keys, added to every head, or NULL */
  const int32_t *regions; /* region_windows × tokens (queries = keys), or NULL */
  int64_t mask_windows, region_windows; /* `windows`, or 1: the same for all */
  float scale;
  double dropout; /* share of the weights that is set to 0 */
  bool bf16;      /* factors of the products are rounded (bf16.h): queries after they are scaled,
                     weights before they are divided by their sum. Softmax and sums are f32 */
  const rng_key *rng_keys;
  uint64_t node_id;
} attention_problem;

/* Where the gradients go, laid out like q, k and v; d_bias may be NULL. */
typedef struct attention_gradients {
  float *q, *k, *v;
  float *bias;
} attention_gradients;

/* y: sequences × queries × heads·dim. lse: sequences × heads × queries, log Σ e^score. */
void attention_forward(const attention_problem *p, float *y, float *lse, void *workspace,
                       thread_pool *pool);
size_t attention_forward_workspace(const attention_problem *p);
void attention_backward(const attention_problem *p, const float *y, const float *lse,
                        const float *dy, const attention_gradients *d, void *workspace,
                        thread_pool *pool);
size_t attention_backward_workspace(const attention_problem *p);

#endif
