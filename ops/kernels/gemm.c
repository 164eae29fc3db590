#include "ops/kernels/gemm.h"

#include <pthread.h>

extern const gemm_kernels gemm_portable, gemm_portable_bf16;
#if defined(__x86_64__)
extern const gemm_kernels gemm_avx512, gemm_avx2;
extern const gemm_kernels gemm_avx512_bf16;
#endif

typedef struct choice {
  const gemm_kernels *best, *chosen;
} choice;

static choice f32, pairs;
static const gemm_kernels *sets[GEMM_MAX_SETS]; /* gemm_available's */
static int set_count;
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

static bool has_pairs(void) {
  return has_v4() && __builtin_cpu_supports("avx512bf16");
}

/* Zen multiplies twice as many numbers in pairs as in f32. Intel's cores since Sapphire Rapids half as
 * many: 0.46 vdpbf16ps a cycle beside 1.9 multiply-adds, measured; their bf16 is in AMX. */
static bool pairs_are_faster(void) {
  return has_pairs() && !__builtin_cpu_is("intel");
}
#else
static bool pairs_are_faster(void) {
  return false;
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
  if (has_pairs()) out[n++] = &gemm_avx512_bf16;
#endif
  out[n++] = &gemm_portable_bf16;
  return n;
}

static void detect(void) {
  const gemm_kernels *in_pairs[GEMM_MAX_SETS];
  set_count = gemm_available(sets);
  f32.best = sets[0];
  gemm_available_bf16(in_pairs);
  if (pairs_are_faster()) pairs.best = in_pairs[0];
}

const gemm_kernels *gemm_best(void) {
  if (f32.chosen) return f32.chosen;
  pthread_once(&detect_once, detect);
  return f32.best;
}

const gemm_kernels *gemm_best_bf16(void) {
  if (pairs.chosen || f32.chosen) return pairs.chosen;
  pthread_once(&detect_once, detect);
  return pairs.best;
}

void gemm_choose(const gemm_kernels *kernels) {
  f32.chosen = kernels && !kernels->bf16 ? kernels : NULL;
  pairs.chosen = kernels && kernels->bf16 ? kernels : NULL;
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

void gemm_transpose(float *restrict to, ptrdiff_t to_row, const float *restrict from,
                    ptrdiff_t from_row, int64_t rows, int64_t columns) {
  pthread_once(&detect_once, detect);
  int64_t shorter = rows < columns ? rows : columns;
  int set = set_count - 1;
  if (shorter < sets[set]->lanes) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) to[j * to_row + i] = from[i * from_row + j];
    return;
  }
  while (set > 0 && sets[set]->lanes < shorter) set--;
  sets[set]->transpose_matrix(from, from_row, to, to_row, rows, columns);
}
