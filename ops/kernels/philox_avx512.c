#if defined(__AVX512F__)
#include <immintrin.h>
#include <stdint.h>

static inline void store_low_halves(uint32_t *to, __m512i first, __m512i second) {
  const __m512i low = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi32(first, low, second));
}

#define PHILOX_NAME philox_blocks_avx512
#define PHILOX_LANES 8
#define VECTOR __m512i
#define EVERY(x) _mm512_set1_epi64(x)
#define COUNT _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0)
#define ADD(a, b) _mm512_add_epi32(a, b)
#define MULTIPLY(a, b) _mm512_mul_epu32(a, b)
#define HIGH(x) _mm512_srli_epi64(x, 32)
#define XOR(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#include "ops/kernels/philox_lanes.h"
#endif
