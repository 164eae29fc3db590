#include "base/rng.h"

#include "base/text.h"

#include <math.h>

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
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

rng_key rng_key_of(uint64_t seed, const char *stage, int64_t epoch, const char *case_name,
                   int64_t crop) {
  rng_key key;
  key.run = hash_mix(hash_mix(seed, text_hash(stage)), (uint64_t)epoch);
  key.sample = hash_mix(text_hash(case_name), (uint64_t)crop);
  return key;
}

rng rng_open(rng_key key, uint64_t operator_id) {
  rng r = {.used = 4};
  /* The operator's 64 bits do not fit the counter beside the sample's, so it enters both. */
  uint64_t run = hash_mix(key.run, operator_id);
  r.key[0] = (uint32_t)run;
  r.key[1] = (uint32_t)(run >> 32);
  r.counter[1] = (uint32_t)operator_id;
  r.counter[2] = (uint32_t)key.sample;
  r.counter[3] = (uint32_t)(key.sample >> 32);
  return r;
}

uint32_t rng_u32(rng *r) {
  if (r->used == 4) {
    philox4x32(r->counter, r->key, r->block);
    r->counter[0]++;
    r->used = 0;
  }
  return r->block[r->used++];
}

float rng_uniform(rng *r) {
  return (float)(rng_u32(r) >> 8) * 0x1p-24f;
}

double rng_range(rng *r, double low, double high) {
  uint64_t bits = (uint64_t)rng_u32(r) << 21;
  bits ^= rng_u32(r) >> 11;
  return low + (high - low) * ((double)bits * 0x1p-53);
}

uint32_t rng_below(rng *r, uint32_t n) {
  /* Lemire's multiply-shift with rejection. */
  uint32_t threshold = (0u - n) % n;
  for (;;) {
    uint64_t product = (uint64_t)rng_u32(r) * n;
    if ((uint32_t)product >= threshold) return (uint32_t)(product >> 32);
  }
}

float rng_normal(rng *r) {
  double u = 1.0 - (double)rng_uniform(r), v = (double)rng_uniform(r);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void rng_permutation(rng *r, int32_t *order, int32_t n) {
  for (int32_t i = 0; i < n; i++) order[i] = i;
  for (int32_t i = n - 1; i > 0; i--) {
    int32_t j = (int32_t)rng_below(r, (uint32_t)i + 1), swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}
