/* philox_blocks (philox.h) in vectors. Include once with PHILOX_NAME; PHILOX_LANES, the blocks of a vector;
 * VECTOR, of that many 64-bit lanes, and its functions: EVERY(x) x in every lane, COUNT 0, 1, 2 … in the
 * lanes, ADD, MULTIPLY of the low halves, HIGH the high halves moved down, XOR of three, and
 * store_low_halves of two.
 *
 * A number lies in the low half of a lane: so the processor's 32 × 32 → 64 bit product needs no shuffles,
 * and what gathers in the high halves is never looked at. */
#include "ops/kernels/philox_parts.h"

void PHILOX_NAME(const uint32_t counter[4], const uint32_t key[2],
                 uint32_t bits[PHILOX_BLOCK][PHILOX_BLOCKS]) {
  enum { VECTORS = 4, LANES = PHILOX_LANES };
  const VECTOR m0 = EVERY(philox_multiplier[0]), m1 = EVERY(philox_multiplier[1]);
  for (int i = 0; i < PHILOX_BLOCKS; i += VECTORS * LANES) {
    VECTOR c[4][VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      c[0][v] = ADD(EVERY(counter[0] + (uint32_t)(i + v * LANES)), COUNT);
#pragma GCC unroll 3
      for (int n = 1; n < 4; n++) c[n][v] = EVERY(counter[n]);
    }
    uint32_t k0 = key[0], k1 = key[1];
#pragma GCC unroll 10
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
      const VECTOR key0 = EVERY(k0), key1 = EVERY(k1);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        VECTOR p0 = MULTIPLY(m0, c[0][v]), p1 = MULTIPLY(m1, c[2][v]);
        c[0][v] = XOR(HIGH(p1), c[1][v], key0);
        c[2][v] = XOR(HIGH(p0), c[3][v], key1);
        c[1][v] = p1;
        c[3][v] = p0;
      }
      k0 += philox_key_step[0];
      k1 += philox_key_step[1];
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v += 2)
        store_low_halves(&bits[n][i + v * LANES], c[n][v], c[n][v + 1]);
  }
}
