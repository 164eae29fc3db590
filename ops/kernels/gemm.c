#include "ops/kernels/gemm.h"

#include <pthread.h>

extern const gemm_kernels gemm_portable, gemm_portable_bf16;
#if defined(__x86_64__)
extern const gemm_kernels gemm_avx512, gemm_avx2;
extern const gemm_kernels gemm_avx512_bf16, gemm_avx512_pairs, gemm_avx2_bf16;
#endif

typedef struct choice {
  const gemm_kernels *best, *chosen;
} choice;

static choice f32, bf16;
static pthread_once_t detect_once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
/* What x86-64-v4 and -v3 promise to the compiler, as far as the kernels can come to use it. */
static bool has_v3(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

static bool has_v4(void) {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512cd");
}
#endif

int gemm_available(const gemm_kernels *out[GEMM_MAX_SETS]) {
  int n = 0;
#if defined(__x86_64__)
  if (has_v4()) out[n++] = &gemm_avx512;
  if (has_v3()) out[n++] = &gemm_avx2;
#endif
  out[n++] = &gemm_portable;
  return n;
}

int gemm_available_bf16(const gemm_kernels *out[GEMM_MAX_SETS]) {
  int n = 0;
#if defined(__x86_64__)
  if (has_v4() && __builtin_cpu_supports("avx512bf16")) out[n++] = &gemm_avx512_bf16;
  if (has_v4()) out[n++] = &gemm_avx512_pairs;
  if (has_v3()) out[n++] = &gemm_avx2_bf16;
#endif
  out[n++] = &gemm_portable_bf16;
  return n;
}

static void detect(void) {
  const gemm_kernels *all[GEMM_MAX_SETS];
  gemm_available(all);
  f32.best = all[0];
  gemm_available_bf16(all);
  bf16.best = all[0];
}

static const gemm_kernels *best_of(const choice *sort) {
  if (sort->chosen) return sort->chosen;
  pthread_once(&detect_once, detect);
  return sort->best;
}

const gemm_kernels *gemm_best(void) {
  return best_of(&f32);
}

const gemm_kernels *gemm_best_bf16(void) {
  return best_of(&bf16);
}

void gemm_choose(const gemm_kernels *kernels) {
  if (!kernels || !kernels->bf16) f32.chosen = kernels;
  if (!kernels || kernels->bf16) bf16.chosen = kernels;
}

/* Two multiply-adds and two loads a cycle, four cycles of latency: the model of a present-day core
 * that ranks tile shapes. Among equals, taller tiles read B less often and wider ones A. */
int gemm_vectors(const gemm_kernels *kernels, int64_t rows, int64_t columns) {
  int best = 1;
  double best_cost = 1e30;
  for (int v = 1; v <= kernels->max_vectors && (v - 1) * kernels->lanes < columns; v++) {
    int64_t tiles = gemm_tile_count(rows, kernels->max_rows[v]);
    double height = (double)rows / (double)tiles, work = height * v, loads = height + v;
    double cycles = work / 2 > loads / 2 ? work / 2 : loads / 2;
    if (cycles < 4) cycles = 4;
    double cost = cycles / work + 0.05 / height + 0.01 / v;
    if (cost < best_cost) {
      best_cost = cost;
      best = v;
    }
  }
  return best;
}
