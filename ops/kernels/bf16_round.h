/* A number rounded to bf16 (bf16.h), for the host and for CUDA kernels, which define BF16_ROUND before:
 * one source, so that both round the same way. */
#ifndef STRATA_OPS_KERNELS_BF16_ROUND_H
#define STRATA_OPS_KERNELS_BF16_ROUND_H

#include <stdint.h>
#include <string.h>

#ifndef BF16_ROUND
#define BF16_ROUND static inline
#endif

/* The 16 bits that stand for x. */
BF16_ROUND uint32_t bf16_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  uint32_t quiet_nan = bits >> 16 | 0x40;
  return (bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded;
}

/* x rounded. */
BF16_ROUND float bf16_round(float x) {
  uint32_t bits = bf16_bits(x) << 16;
  float rounded;
  memcpy(&rounded, &bits, sizeof rounded);
  return rounded;
}

#endif
