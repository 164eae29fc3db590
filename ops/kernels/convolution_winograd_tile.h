/* convolution_winograd_parts.h written once with vector extensions. The including file sets
 *   WINOGRAD_LANES   floats in a vector
 *   WINOGRAD_SET     the symbol of the set
 * A row that does not fill vectors ends in one that overlaps the vector before: it is computed twice, where
 * a shorter one would take a loop of its own. */
#include "ops/kernels/convolution_winograd_parts.h"

#include "ops/kernels/vector_type.h"

VECTOR_TYPE(vec, float, WINOGRAD_LANES);
typedef uint32_t words __attribute__((vector_size(WINOGRAD_LANES * 4)));

#define INLINE static inline __attribute__((always_inline))

enum { LANES = WINOGRAD_LANES, SIDE = WINOGRAD_SIDE, POINTS = WINOGRAD_POINTS };

INLINE vec load(const float *p) {
  return *(const vec *)p;
}

INLINE void store(float *p, vec v) {
  *(vec *)p = v;
}

/* As bf16_round does. */
INLINE vec load_factors(const float *p, bool rounds) {
  vec v = load(p);
  if (!rounds) return v;
  words bits = (words)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  words is_nan = (words)((bits & 0x7fffffff) > 0x7f800000);
  return (vec)((rounded & ~is_nan) | ((bits | 0x400000) & 0xffff0000 & is_nan));
}

INLINE int64_t vector_begin(int64_t i, int64_t n) {
  return i < n - LANES ? i : n - LANES;
}

INLINE void input_rows(const float *const d[POINTS], int64_t n, const bool rounds, float *to,
                       int64_t point) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t at = vector_begin(i, n);
    vec t[POINTS];
    for (int j = 0; j < SIDE; j++) {
      vec a = load_factors(d[j] + at, rounds), b = load_factors(d[SIDE + j] + at, rounds);
      vec c = load_factors(d[2 * SIDE + j] + at, rounds),
          e = load_factors(d[3 * SIDE + j] + at, rounds);
      t[j] = a - c;
      t[SIDE + j] = b + c;
      t[2 * SIDE + j] = c - b;
      t[3 * SIDE + j] = b - e;
    }
    for (int p = 0; p < POINTS; p += SIDE) {
      float *u = to + p * point + at;
      store(u, t[p] - t[p + 2]);
      store(u + point, t[p + 1] + t[p + 2]);
      store(u + 2 * point, t[p + 2] - t[p + 1]);
      store(u + 3 * point, t[p + 1] - t[p + 3]);
    }
  }
}

static void input(const float *const d[POINTS], int64_t n, bool rounds, float *to, int64_t point) {
  if (rounds)
    input_rows(d, n, true, to, point);
  else
    input_rows(d, n, false, to, point);
}

static void output(const float *m, int64_t point, int64_t n, float *const y[4]) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t at = vector_begin(i, n);
    vec t[2 * SIDE];
    for (int j = 0; j < SIDE; j++) {
      const float *from = m + j * point + at;
      vec a = load(from), b = load(from + SIDE * point), c = load(from + 2 * SIDE * point);
      vec d = load(from + 3 * SIDE * point);
      t[j] = a + b + c;
      t[SIDE + j] = b - c - d;
    }
    for (int r = 0; r < 2; r++) {
      const vec *row = t + SIDE * r;
      store(y[2 * r] + at, row[0] + row[1] + row[2]);
      store(y[2 * r + 1] + at, row[1] - row[2] - row[3]);
    }
  }
}

INLINE void gradient_rows(const float *const dy[4], int64_t n, const bool rounds, float *to,
                          int64_t point) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t at = vector_begin(i, n);
    vec t[2 * SIDE];
    for (int j = 0; j < 2; j++) {
      vec a = load_factors(dy[j] + at, rounds), b = load_factors(dy[2 + j] + at, rounds);
      t[j] = a;
      t[2 + j] = a + b;
      t[4 + j] = a - b;
      t[6 + j] = -b;
    }
    for (int s = 0; s < SIDE; s++) {
      float *v = to + s * SIDE * point + at;
      store(v, t[2 * s]);
      store(v + point, t[2 * s] + t[2 * s + 1]);
      store(v + 2 * point, t[2 * s] - t[2 * s + 1]);
      store(v + 3 * point, -t[2 * s + 1]);
    }
  }
}

static void gradient(const float *const dy[4], int64_t n, bool rounds, float *to, int64_t point) {
  if (rounds)
    gradient_rows(dy, n, true, to, point);
  else
    gradient_rows(dy, n, false, to, point);
}

const winograd_transforms WINOGRAD_SET = {LANES, input, output, gradient};
