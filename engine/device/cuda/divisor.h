/* Division of indices by a number that is known when a kernel is launched: a processor without a
 * division instruction takes some thirty instructions for it, this takes a multiplication, an addition
 * and a shift. C and CUDA C.
 *
 * After Granlund and Montgomery, "Division by invariant integers using multiplication" (PLDI 1994), section 4:
 * with s = ⌈log2 d⌉ and m = ⌊2^b (2^s − d) / d⌋ + 1, ⌊n / d⌋ = (⌊m n / 2^b⌋ + n) >> s, where the sum
 * has no more than b bits, so for n < 2^(b − 1). */
#ifndef STRATA_DEVICE_CUDA_DIVISOR_H
#define STRATA_DEVICE_CUDA_DIVISOR_H

#include <stdint.h>

#ifdef __CUDACC__
#define ON_BOTH __host__ __device__
#else
#define ON_BOTH
#endif

typedef struct divisor {
  int64_t value;
  uint64_t wide;   /* m for b = 64 */
  uint32_t narrow; /* m for b = 32; 0: value has more bits */
  uint32_t shift;
} divisor;

/* value ≥ 1 */
static inline divisor divide_by(int64_t value) {
  divisor d = {value, 0, 0, 0};
  while (((uint64_t)1 << d.shift) < (uint64_t)value) d.shift++;
  __extension__ unsigned __int128 above = ((uint64_t)1 << d.shift) - (uint64_t)value;
  d.wide = (uint64_t)((above << 64) / (uint64_t)value) + 1;
  if (d.shift < 32) d.narrow = (uint32_t)((above << 32) / (uint64_t)value) + 1;
  return d;
}

/* n / d and n % d, for n ≥ 0. */
static ON_BOTH inline int64_t divide(int64_t n, const divisor *d, int64_t *rest) {
  if (n <= INT32_MAX && d->narrow) {
    uint32_t small = (uint32_t)n;
    uint32_t quotient = ((uint32_t)((uint64_t)small * d->narrow >> 32) + small) >> d->shift;
    *rest = small - quotient * (uint32_t)d->value;
    return quotient;
  }
#ifdef __CUDA_ARCH__
  uint64_t high = __umul64hi((uint64_t)n, d->wide);
#else
  uint64_t high = (uint64_t)(__extension__(unsigned __int128)(uint64_t) n * d->wide >> 64);
#endif
  int64_t quotient = (int64_t)((high + (uint64_t)n) >> d->shift);
  *rest = n - quotient * d->value;
  return quotient;
}

#endif
