/* Four neighbouring numbers a thread. A thread that reads 16 bytes at a time keeps four times as much
 * of the memory's bandwidth busy as one that reads 4, and finds its indices once for all four.
 *
 * A functor has `template <int N> __device__ void at(int64_t i)` for elements i … i + N − 1, N being 4,
 * or 1 where groups of four would straddle what belongs together. */
#ifndef STRATA_DEVICE_CUDA_GROUPS_CUH
#define STRATA_DEVICE_CUDA_GROUPS_CUH

#include "device/cuda/stored.cuh"

constexpr int GROUP = 4;

template <int N> struct alignas(N * sizeof(float)) numbers { float at[N]; };
template <int N> struct alignas(N * sizeof(uint16_t)) numbers_bf16 { uint16_t at[N]; };

/* Elements i … i + N − 1; i is a multiple of N. */
template <int N> static __device__ inline numbers<N> load(const float *x, int64_t i) {
  return *reinterpret_cast<const numbers<N> *>(x + i);
}
template <int N> static __device__ inline numbers<N> load(const source &x, int64_t i) {
  if (!x.bf16) return load<N>(static_cast<const float *>(x.at), i);
  numbers_bf16<N> bits =
      *reinterpret_cast<const numbers_bf16<N> *>(static_cast<const uint16_t *>(x.at) + i);
  numbers<N> found;
  UNROLL for (int k = 0; k < N; k++) found.at[k] = bf16_number(bits.at[k]);
  return found;
}

template <int N> static __device__ inline void store(float *y, int64_t i, const numbers<N> &x) {
  *reinterpret_cast<numbers<N> *>(y + i) = x;
}
template <int N>
static __device__ inline void store(const target &y, int64_t i, const numbers<N> &x) {
  if (!y.bf16) return store(static_cast<float *>(y.at), i, x);
  numbers_bf16<N> bits;
  UNROLL for (int k = 0; k < N; k++) bits.at[k] = (uint16_t)bf16_bits(x.at[k]);
  *reinterpret_cast<numbers_bf16<N> *>(static_cast<uint16_t *>(y.at) + i) = bits;
}

template <int N, typename F> __global__ void each_group(int64_t groups, F f) {
  FOR_EACH_INDEX(i, groups) f.template at<N>(i * N);
}

/* All of `count` elements, of which each `row` in turn belong together. */
template <typename F>
static inline status for_each_group(const launch *l, int64_t count, int64_t row, F f) {
  if (count <= 0) return OK;
  if (row % GROUP != 0)
    return LAUNCH(l, (each_group<1, F>), blocks_of(count), THREADS, 0, count, f);
  return LAUNCH(l, (each_group<GROUP, F>), blocks_of(count / GROUP), THREADS, 0, count / GROUP, f);
}

#endif
