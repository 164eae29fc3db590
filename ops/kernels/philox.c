#include "ops/kernels/gemm.h"
#include "ops/kernels/philox_parts.h"

static void make_blocks(const uint32_t counter[4], const uint32_t key[2],
                        uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
  for (int i = 0; i < PHILOX_BLOCKS; i++) {
    uint32_t c0 = counter[0] + (uint32_t)i, c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
      uint64_t p0 = (uint64_t)philox_multiplier[0] * c0, p1 = (uint64_t)philox_multiplier[1] * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c1 = (uint32_t)p1;
      c3 = (uint32_t)p0;
      k0 += philox_key_step[0];
      k1 += philox_key_step[1];
    }
    bits[0][i] = c0;
    bits[1][i] = c1;
    bits[2][i] = c2;
    bits[3][i] = c3;
  }
}

/* With the vectors that matrix products have. */
void philox_blocks(const uint32_t counter[4], const uint32_t key[2],
                   uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
#if defined(__x86_64__)
  int lanes = gemm_best()->lanes;
  if (lanes >= 16) {
    philox_blocks_avx512(counter, key, bits);
    return;
  }
  if (lanes >= 8) {
    philox_blocks_avx2(counter, key, bits);
    return;
  }
#endif
  make_blocks(counter, key, bits);
}
