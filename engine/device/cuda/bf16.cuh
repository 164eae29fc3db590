/* Factors of products rounded to bf16, as the attribute `precision` says; ops/kernels/bf16.h. */
#ifndef STRATA_DEVICE_CUDA_BF16_CUH
#define STRATA_DEVICE_CUDA_BF16_CUH

#include "device/cuda/kernel.cuh"

#define BF16_ROUND static __device__ inline
#include "ops/kernels/bf16_round.h"

/* Whether this call rounds the factors of its products. */
static inline bool is_bf16(const launch *l) {
  return integer(l, "precision") == PLUGIN_PRECISION_BF16;
}

/* Whether the libraries may round the factors of its products to tf32. */
static inline bool is_tf32(const launch *l) {
  return integer(l, "precision") == PLUGIN_PRECISION_TF32;
}

static __device__ inline float rounded_if(bool bf16, float x) {
  return bf16 ? bf16_round(x) : x;
}

/* N neighbours a thread: to[i] = x[i] in bf16. x and `to` are aligned to N of their numbers, and `to` has room
 * for whole groups of N. */
template <int N> struct to_bf16_f {
  struct alignas(N * sizeof(float)) given {
    float at[N];
  };
  struct alignas(N * sizeof(uint16_t)) rounded {
    uint16_t at[N];
  };
  uint16_t *to;
  const float *x;
  int64_t count;
  __device__ void operator()(int64_t group) const {
    int64_t i = N * group;
    given from = {};
    if (i + N <= count)
      from = *reinterpret_cast<const given *>(x + i);
    else
      for (int k = 0; i + k < count; k++) from.at[k] = x[i + k];
    rounded r;
    UNROLL for (int k = 0; k < N; k++) r.at[k] = (uint16_t)bf16_bits(from.at[k]);
    *reinterpret_cast<rounded *>(to + i) = r;
  }
};

/* `to`: scratch memory of bf16_bytes(count). */
static inline status to_bf16(const launch *l, uint16_t *to, const float *x, int64_t count) {
  enum { TOGETHER = 4 };
  bool is_aligned = reinterpret_cast<uintptr_t>(x) % (TOGETHER * sizeof *x) == 0;
  if (!is_aligned) return for_each_index(l, count, to_bf16_f<1>{to, x, count});
  int64_t groups = (count + TOGETHER - 1) / TOGETHER;
  return for_each_index(l, groups, to_bf16_f<TOGETHER>{to, x, count});
}

/* Of `count` numbers, with room to align what follows. */
static inline size_t bf16_bytes(int64_t count) {
  return ((size_t)count * sizeof(uint16_t) + 255) / 256 * 256;
}

#endif
