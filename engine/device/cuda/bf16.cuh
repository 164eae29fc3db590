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

/* Two neighbours a thread: to[i] = x[i] in bf16. `to` is aligned to 4 bytes and holds an even number. */
struct to_bf16_f {
  uint16_t *to;
  const float *x;
  int64_t count;
  __device__ void operator()(int64_t pair) const {
    int64_t i = 2 * pair;
    uint32_t second = i + 1 < count ? bf16_bits(x[i + 1]) : 0;
    reinterpret_cast<uint32_t *>(to)[pair] = bf16_bits(x[i]) | second << 16;
  }
};

static inline status to_bf16(const launch *l, uint16_t *to, const float *x, int64_t count) {
  return for_each_index(l, (count + 1) / 2, to_bf16_f{to, x, count});
}

/* Of `count` numbers, with room to align what follows. */
static inline size_t bf16_bytes(int64_t count) {
  return ((size_t)count * sizeof(uint16_t) + 255) / 256 * 256;
}

#endif
