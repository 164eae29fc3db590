#include "execute/orthogonal.h"

#include "ops/arithmetic/vector_math.h"

#include <math.h>

enum { BLOCK = 16, SUMS = 16 }; /* a block of vectors stays in the second-level cache */

FOR_EACH_ISA static double dot(const double *restrict a, const double *restrict b, int64_t n) {
  double sums[SUMS] = {0}, total = 0;
  int64_t i = 0;
  for (; i + SUMS <= n; i += SUMS)
    for (int l = 0; l < SUMS; l++) sums[l] += a[i + l] * b[i + l];
  for (; i < n; i++) total += a[i] * b[i];
  for (int l = 0; l < SUMS; l++) total += sums[l];
  return total;
}

FOR_EACH_ISA static void subtract(double *restrict a, const double *restrict b, double share,
                                  int64_t n) {
  for (int64_t i = 0; i < n; i++) a[i] -= share * b[i];
}

typedef struct job {
  double *vectors;
  int64_t first, end, length; /* the block that is done */
} job;

/* Takes the block out of one of the vectors behind it. */
static void project_task(void *context, int64_t task) {
  const job *j = context;
  double *own = j->vectors + (j->end + task) * j->length;
  for (int64_t i = j->first; i < j->end; i++) {
    const double *other = j->vectors + i * j->length;
    subtract(own, other, dot(own, other, j->length), j->length);
  }
}

static void finish_block(const job *j) {
  for (int64_t i = j->first; i < j->end; i++) {
    double *own = j->vectors + i * j->length;
    double scale = 1 / sqrt(dot(own, own, j->length));
    for (int64_t x = 0; x < j->length; x++) own[x] *= scale;
    for (int64_t k = i + 1; k < j->end; k++) {
      double *next = j->vectors + k * j->length;
      subtract(next, own, dot(next, own, j->length), j->length);
    }
  }
}

void orthonormalize(double *vectors, int64_t count, int64_t length, thread_pool *pool) {
  for (int64_t first = 0; first < count; first += BLOCK) {
    job j = {vectors, first, first + BLOCK < count ? first + BLOCK : count, length};
    finish_block(&j);
    parallel_for(pool, count - j.end, project_task, &j);
  }
}
