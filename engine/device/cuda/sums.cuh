/* Sums over many elements in two launches: every block leaves a partial result, then one block adds
 * the partials of each result in order. */
#ifndef STRATA_DEVICE_CUDA_SUMS_CUH
#define STRATA_DEVICE_CUDA_SUMS_CUH

#include "device/cuda/kernel.cuh"

constexpr int SUM_BLOCKS = 256; /* partials of one sum at most */

/* How many blocks share a sum over `count` elements. */
static inline int sum_blocks(int64_t count) {
  int64_t blocks = (count + 4 * THREADS - 1) / (4 * THREADS);
  return (int)(blocks < 1 ? 1 : blocks > SUM_BLOCKS ? SUM_BLOCKS : blocks);
}

/* `sums` sums side by side: sum s adds f(s, i) for i in 0 … count − 1. Grid (blocks, sums). */
template <typename F> __global__ void sum_partials(double *partials, int64_t count, F f) {
  double total = 0;
  FOR_EACH_INDEX(i, count) total += (double)f((int64_t)blockIdx.y, i);
  total = block_sum(total);
  if (threadIdx.x == 0) partials[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

template <typename G> __global__ void sum_finish(const double *partials, int blocks, G g) {
  double total = 0;
  for (int i = (int)threadIdx.x; i < blocks; i += (int)blockDim.x)
    total += partials[(int64_t)blockIdx.x * blocks + i];
  total = block_sum(total);
  if (threadIdx.x == 0) g((int64_t)blockIdx.x, total);
}

static inline size_t sum_scratch(int64_t sums, int64_t count) {
  return (size_t)(sums * sum_blocks(count)) * sizeof(double);
}

/* Calls g(s, Σ f(s, i)) for every s in 0 … sums − 1 (at most 65535), on one thread each. */
template <typename F, typename G>
static inline status sum_each(const launch *l, int64_t sums, int64_t count, F f, G g) {
  double *partials = (double *)l->scratch;
  int blocks = sum_blocks(count);
  status error = LAUNCH(l, sum_partials<F>, dim3((unsigned)blocks, (unsigned)sums), THREADS, 0,
                        partials, count, f);
  if (error) return error;
  return LAUNCH(l, sum_finish<G>, (unsigned)sums, THREADS, 0, partials, blocks, g);
}

#endif
