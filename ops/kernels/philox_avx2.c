#if defined(__AVX2__)
#include <immintrin.h>
#include <stdint.h>

static inline void store_low_halves(uint32_t *to, __m256i first, __m256i second) {
  __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0x88);
  _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8));
}

#define PHILOX_NAME philox_blocks_avx2
#define PHILOX_LANES 4
#define VECTOR __m256i
#define EVERY(x) _mm256_set1_epi64x(x)
#define COUNT _mm256_set_epi64x(3, 2, 1, 0)
#define ADD(a, b) _mm256_add_epi32(a, b)
#define MULTIPLY(a, b) _mm256_mul_epu32(a, b)
#define HIGH(x) _mm256_srli_epi64(x, 32)
#define XOR(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#include "ops/kernels/philox_lanes.h"
#endif
