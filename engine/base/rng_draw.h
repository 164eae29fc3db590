/* How numbers are drawn from a stream, for the host (rng.c) and for CUDA kernels, which define
 * RNG_DRAW before: one source, so that both draw the same. */
#ifndef STRATA_BASE_RNG_DRAW_H
#define STRATA_BASE_RNG_DRAW_H

#include "base/rng.h"

#include <math.h>

#ifndef RNG_DRAW
#define RNG_DRAW static inline
#endif

RNG_DRAW void draw_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* `run` is the key's run mixed with the operator's name (hash_mix). */
RNG_DRAW rng draw_open(uint64_t run, uint64_t sample, uint64_t operator_id) {
  /* The operator's 64 bits do not fit the counter beside the sample's, so it enters both. */
  rng r = {{(uint32_t)run, (uint32_t)(run >> 32)},
           {0, (uint32_t)operator_id, (uint32_t)sample, (uint32_t)(sample >> 32)},
           {0, 0, 0, 0},
           4};
  return r;
}

RNG_DRAW uint32_t draw_u32(rng *r) {
  if (r->used == 4) {
    draw_block(r->counter, r->key, r->block);
    r->counter[0]++;
    r->used = 0;
  }
  return r->block[r->used++];
}

/* Of 32 random bits, as rng_uniform. */
RNG_DRAW float draw_unit(uint32_t bits) {
  return (float)(bits >> 8) * (1.0f / 16777216.0f);
}

/* What the n-th next call of draw_u32 would give (n from 0), without drawing: so many threads draw
 * from one stream. */
RNG_DRAW uint32_t draw_ahead(const rng *r, uint64_t n) {
  uint64_t at = (uint64_t)r->counter[0] * 4 + (uint64_t)r->used - 4 + n;
  uint32_t counter[4] = {(uint32_t)(at / 4), r->counter[1], r->counter[2], r->counter[3]};
  uint32_t block[4];
  draw_block(counter, r->key, block);
  return block[at % 4];
}

/* Of two random numbers of 32 bits, as rng_normal. */
RNG_DRAW float draw_normal(uint32_t first, uint32_t second) {
  double u = 1.0 - (double)draw_unit(first), v = (double)draw_unit(second);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

RNG_DRAW float draw_uniform(rng *r) {
  return draw_unit(draw_u32(r));
}

RNG_DRAW double draw_range(rng *r, double low, double high) {
  uint64_t bits = (uint64_t)draw_u32(r) << 21;
  bits ^= draw_u32(r) >> 11;
  return low + (high - low) * ((double)bits * (1.0 / 9007199254740992.0));
}

RNG_DRAW uint32_t draw_below(rng *r, uint32_t n) {
  /* Lemire's multiply-shift with rejection. */
  uint32_t threshold = (0u - n) % n;
  for (;;) {
    uint64_t product = (uint64_t)draw_u32(r) * n;
    if ((uint32_t)product >= threshold) return (uint32_t)(product >> 32);
  }
}

RNG_DRAW void draw_permutation(rng *r, int32_t *order, int32_t n) {
  for (int32_t i = 0; i < n; i++) order[i] = i;
  for (int32_t i = n - 1; i > 0; i--) {
    int32_t j = (int32_t)draw_below(r, (uint32_t)i + 1), swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

#endif
