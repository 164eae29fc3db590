#include "ops/kernels/philox.h"

#include "ops/arithmetic/vector_math.h"

FOR_EACH_ISA void philox_blocks(const uint32_t counter[4], const uint32_t key[2],
                                uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
  for (int i = 0; i < PHILOX_BLOCKS; i++) {
    uint32_t c0 = counter[0] + (uint32_t)i, c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c1 = (uint32_t)p1;
      c3 = (uint32_t)p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    bits[0][i] = c0;
    bits[1][i] = c1;
    bits[2][i] = c2;
    bits[3][i] = c3;
  }
}
