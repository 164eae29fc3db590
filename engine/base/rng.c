#include "base/rng.h"

#include "base/rng_draw.h"
#include "base/text.h"

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  draw_block(counter, key, out);
}

rng_key rng_key_of(uint64_t seed, const char *stage, int64_t epoch, const char *case_name,
                   int64_t crop) {
  rng_key key;
  key.run = hash_mix(hash_mix(seed, text_hash(stage)), (uint64_t)epoch);
  key.sample = hash_mix(text_hash(case_name), (uint64_t)crop);
  return key;
}

rng rng_open(rng_key key, uint64_t operator_id) {
  return draw_open(hash_mix(key.run, operator_id), key.sample, operator_id);
}

uint32_t rng_u32(rng *r) {
  return draw_u32(r);
}

float rng_uniform(rng *r) {
  return draw_uniform(r);
}

double rng_range(rng *r, double low, double high) {
  return draw_range(r, low, high);
}

uint32_t rng_below(rng *r, uint32_t n) {
  return draw_below(r, n);
}

float rng_normal(rng *r) {
  uint32_t first = draw_u32(r), second = draw_u32(r);
  return draw_normal(first, second);
}

void rng_permutation(rng *r, int32_t *order, int32_t n) {
  draw_permutation(r, order, n);
}
