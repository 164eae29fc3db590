/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A stream is named, not advanced: the same (seed, stage, epoch, case,
 * operator) gives the same numbers on any number of threads or ranks, and after a resume. */
#ifndef STRATA_BASE_RNG_H
#define STRATA_BASE_RNG_H

#include <stdint.h>

typedef struct rng_key {
  uint64_t run;    /* seed, stage and epoch */
  uint64_t sample; /* case and crop */
} rng_key;

/* `stage` and `case_name` are hashed; `crop` numbers the crops of a case within an epoch. */
rng_key rng_key_of(uint64_t seed, const char *stage, int64_t epoch, const char *case_name,
                   int64_t crop);

typedef struct rng {
  uint32_t key[2];
  uint32_t counter[4]; /* [0] block, [1] operator, [2..3] sample */
  uint32_t block[4];
  int used;
} rng;

/* The stream of one operator for one sample. `operator_id` is text_hash of the node's full name. */
rng rng_open(rng_key key, uint64_t operator_id);

uint32_t rng_u32(rng *r);
/* Uniform in [0, 1), 24 bits. */
float rng_uniform(rng *r);
/* Uniform in [low, high). */
double rng_range(rng *r, double low, double high);
/* Uniform integer in [0, n), unbiased; n ≥ 1. */
uint32_t rng_below(rng *r, uint32_t n);
/* Standard normal (Box–Muller). */
float rng_normal(rng *r);
/* Fisher–Yates permutation of 0..n-1. */
void rng_permutation(rng *r, int32_t *order, int32_t n);

/* The bare block function, for kernels that address numbers directly. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
