#include "ops/kernels/gemm.h"

#include <pthread.h>

extern const gemm_kernels gemm_portable;
#if defined(__x86_64__)
extern const gemm_kernels gemm_avx512, gemm_avx2;
#endif

static const gemm_kernels *chosen, *widest;
static pthread_once_t detect_once = PTHREAD_ONCE_INIT;

int gemm_available(const gemm_kernels *out[3]) {
  int n = 0;
#if defined(__x86_64__)
  /* What x86-64-v4 and -v3 promise to the compiler, as far as the kernels can come to use it. */
  bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512cd"))
    out[n++] = &gemm_avx512;
  if (v3) out[n++] = &gemm_avx2;
#endif
  out[n++] = &gemm_portable;
  return n;
}

static void detect(void) {
  const gemm_kernels *all[3];
  gemm_available(all);
  widest = all[0];
}

const gemm_kernels *gemm_best(void) {
  if (chosen) return chosen;
  pthread_once(&detect_once, detect);
  return widest;
}

void gemm_choose(const gemm_kernels *kernels) {
  chosen = kernels;
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
