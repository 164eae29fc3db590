#include "ops/kernels/philox.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROUNDS = 10 };
static const uint32_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t key_step[2] = {0x9E3779B9u, 0xBB67AE85u};

static void make_blocks(const uint32_t counter[4], const uint32_t key[2],
                        uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
  for (int i = 0; i < PHILOX_BLOCKS; i++) {
    uint32_t c0 = counter[0] + (uint32_t)i, c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
      uint64_t p0 = (uint64_t)multiplier[0] * c0, p1 = (uint64_t)multiplier[1] * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c1 = (uint32_t)p1;
      c3 = (uint32_t)p0;
      k0 += key_step[0];
      k1 += key_step[1];
    }
    bits[0][i] = c0;
    bits[1][i] = c1;
    bits[2][i] = c2;
    bits[3][i] = c3;
  }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))

/* The low halves of eight 64-bit lanes. */
AVX2 static inline void store_low_halves(uint32_t *to, __m256i first, __m256i second) {
  __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0x88);
  _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8));
}

/* Four blocks a vector, each number in the low half of a 64-bit lane: so the processor's 32 × 32 → 64
 * bit product needs no shuffles, and what gathers in the high halves is never looked at. */
AVX2 static void make_blocks_avx2(const uint32_t counter[4], const uint32_t key[2],
                                  uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
  enum { VECTORS = 4, LANES = 4 };
  const __m256i m0 = _mm256_set1_epi64x(multiplier[0]), m1 = _mm256_set1_epi64x(multiplier[1]);
  for (int i = 0; i < PHILOX_BLOCKS; i += VECTORS * LANES) {
    __m256i c[4][VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      c[0][v] = _mm256_add_epi32(_mm256_set1_epi64x(counter[0] + (uint32_t)(i + v * LANES)),
                                 _mm256_set_epi64x(3, 2, 1, 0));
#pragma GCC unroll 3
      for (int n = 1; n < 4; n++) c[n][v] = _mm256_set1_epi64x(counter[n]);
    }
    uint32_t k0 = key[0], k1 = key[1];
#pragma GCC unroll 10
    for (int round = 0; round < ROUNDS; round++) {
      const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        __m256i p0 = _mm256_mul_epu32(m0, c[0][v]), p1 = _mm256_mul_epu32(m1, c[2][v]);
        c[0][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c[1][v]), key0);
        c[2][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c[3][v]), key1);
        c[1][v] = p1;
        c[3][v] = p0;
      }
      k0 += key_step[0];
      k1 += key_step[1];
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v += 2)
        store_low_halves(&bits[n][i + v * LANES], c[n][v], c[n][v + 1]);
  }
}
#endif

void philox_blocks(const uint32_t counter[4], const uint32_t key[2],
                   uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    make_blocks_avx2(counter, key, bits);
    return;
  }
#endif
  make_blocks(counter, key, bits);
}
