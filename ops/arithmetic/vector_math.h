/* Elementary functions that compilers vectorize, and the means to compile a loop for every
 * instruction set.
 *
 * The functions are branch-free polynomials on plain floats: in a loop over an array they become
 * vector code, where a call to libm would stay one call per element. Coefficients are weighted
 * minimax fits; the errors stated were measured over the whole range against double precision. */
#ifndef STRATA_OPS_VECTOR_MATH_H
#define STRATA_OPS_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

/* Marks a function to be compiled for AVX-512, AVX2 and the baseline, chosen when the program
 * starts. Results do not depend on the choice: contraction is off, and reductions name their lanes.
 * Sanitizers and clang 14 do not cope with the dispatch and get the baseline. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FOR_EACH_ISA                                                                               \
  __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_ISA __attribute__((noinline))
#endif

/* Before a loop whose iteration i touches only elements i: lets it run on vectors even where source
 * and destination are the same memory. */
#if defined(__GNUC__) && !defined(__clang__)
#define ELEMENTWISE _Pragma("GCC ivdep")
#else
#define ELEMENTWISE
#endif

#define VECTOR_INLINE static inline __attribute__((always_inline, unused))

/* Asks memory for `count` floats that will be read or written soon: a core looks ahead only so far, in few
 * arrays at a time. Of places beyond an array nothing comes. */
VECTOR_INLINE void ask_for(const float *p, int64_t count) {
  enum { LINE = 64 / sizeof *p };
  for (int64_t i = 0; i < count; i += LINE) __builtin_prefetch(p + i);
}

/* A sum over an array is kept in this many partial sums, whatever the vector width, so that it has
 * the same rounding on every machine. */
enum { LANES = 32 };

/* By halves: additions of one half do not wait for each other. */
VECTOR_INLINE double lanes_total(const float lanes[LANES]) {
  double sums[LANES / 2];
  for (int l = 0; l < LANES / 2; l++) sums[l] = (double)lanes[l] + (double)lanes[l + LANES / 2];
#pragma GCC unroll 4
  for (int half = LANES / 4; half > 0; half /= 2)
    for (int l = 0; l < half; l++) sums[l] += sums[l + half];
  return sums[0];
}

VECTOR_INLINE uint32_t float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

VECTOR_INLINE float bits_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

VECTOR_INLINE float vector_abs(float x) {
  return bits_float(float_bits(x) & 0x7fffffffu);
}

VECTOR_INLINE float vector_copysign(float magnitude, float sign) {
  return bits_float((float_bits(magnitude) & 0x7fffffffu) | (float_bits(sign) & 0x80000000u));
}

/* e^r − 1 for |r| ≤ ½ ln 2. */
VECTOR_INLINE float expm1_of_rest(float r) {
  float q = 1.3951718e-3f;
  q = q * r + 8.3695986e-3f;
  q = q * r + 4.16661873e-2f;
  q = q * r + 1.666651289e-1f;
  q = q * r + 5.000000101e-1f;
  return q * (r * r) + r;
}

/* e^r for |r| ≤ ½ ln 2. */
VECTOR_INLINE float exp_of_rest(float r) {
  return expm1_of_rest(r) + 1.0f;
}

/* e^x, within 1.1 ulp where the result is normal; 0 and infinity at the ends; NaN stays NaN. */
VECTOR_INLINE float vector_exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  /* Adding 1.5·2^23 rounds x / ln 2 to an integer n and leaves n in the low bits. */
  const float magic = 12582912.0f;
  float shifted = x * 1.44269504f + magic;
  float n = shifted - magic;
  uint32_t n_bits = float_bits(shifted) - 0x4b400000u;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = exp_of_rest(r);
  /* 2^n in two factors, each a normal number even where the result is subnormal. */
  uint32_t half = (uint32_t)((int32_t)n_bits >> 1);
  float low = bits_float((half + 127u) << 23);
  float high = bits_float((n_bits - half + 127u) << 23);
  return p * low * high;
}

/* e^x − 1, within 3.5 ulp; infinity at the end; NaN stays NaN. */
VECTOR_INLINE float vector_expm1(float x) {
  float far = vector_exp(x) - 1.0f;
  return vector_abs(x) < 0.34f ? expm1_of_rest(x) : far;
}

/* e^x for x ≤ 88, within 1.1 ulp, but 0 where the result is not a normal number; NaN stays NaN. For a
 * softmax, whose largest term is e^0, in two thirds of the instructions. */
VECTOR_INLINE float vector_exp_normal(float x) {
  /* As above, with n + 127 in the low bits: the exponent's of 2^n. */
  const float magic = 12583039.0f;
  float shifted = x * 1.44269504f + magic;
  float n = shifted - magic;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float result = exp_of_rest(r) * bits_float(float_bits(shifted) << 23);
  return x < -87.0f ? 0.0f : result;
}

/* Natural logarithm of a positive normal number, within 1.1 ulp. */
VECTOR_INLINE float vector_log(float x) {
  uint32_t bits = float_bits(x);
  int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23;
  float f = bits_float(bits - ((uint32_t)exponent << 23)) - 1.0f; /* √½ − 1 … √2 − 1 */
  float e = (float)exponent;
  float q = -7.85955421e-2f;
  q = q * f + 1.288163513e-1f;
  q = q * f - 1.312877029e-1f;
  q = q * f + 1.418119451e-1f;
  q = q * f - 1.662455274e-1f;
  q = q * f + 2.000228614e-1f;
  q = q * f - 2.500081044e-1f;
  q = q * f + 3.333331673e-1f;
  float square = f * f;
  float tail = square * f * q - 0.5f * square;
  tail = tail - e * 2.12194440e-4f;
  return (tail + f) + e * 0.693359375f;
}

/* Error function, within 2 ulp. */
VECTOR_INLINE float vector_erf(float x) {
  float t = vector_abs(x), s = x * x;
  float near = 7.8891198e-5f;
  near = near * s - 8.0208416e-4f;
  near = near * s + 5.1895354089e-3f;
  near = near * s - 2.6854444651e-2f;
  near = near * s + 1.1283600178e-1f;
  near = near * s - 3.7612627136e-1f;
  near = near * s + 1.2837916591e-1f;
  near = near * x + x;
  /* From 1 on: 1 − exp(q(t)), q fitted to log erfc; beyond 4 the result rounds to 1. */
  t = t > 4.0f ? 4.0f : t;
  float q = 4.9103726879e-7f;
  q = q * t - 2.8553979812e-5f;
  q = q * t + 4.8258075900e-4f;
  q = q * t - 4.3435480050e-3f;
  q = q * t + 2.5495762478e-2f;
  q = q * t - 1.0879255920e-1f;
  q = q * t - 6.3292103189e-1f;
  q = q * t - 1.1297126370f;
  q = q * t + 2.1398602074e-4f;
  float far = vector_copysign(1.0f - vector_exp(q), x);
  return t < 1.0f ? near : far;
}

/* Hyperbolic tangent, within 2 ulp. */
VECTOR_INLINE float vector_tanh(float x) {
  float t = vector_abs(x), s = x * x;
  float near = -5.7170325e-3f;
  near = near * s + 2.06505756e-2f;
  near = near * s - 5.37434943e-2f;
  near = near * s + 1.333149124e-1f;
  near = near * s - 3.333328392e-1f;
  near = near * (s * x) + x;
  float far = vector_copysign(1.0f - 2.0f / (vector_exp(2.0f * t) + 1.0f), x);
  return t < 0.625f ? near : far;
}

/* Logistic function 1 / (1 + e^−x), within 3 ulp where the result is normal. */
VECTOR_INLINE float vector_sigmoid(float x) {
  return 1.0f / (1.0f + vector_exp(-x));
}

#endif
