/* Numbers in memory that are stored as f32 or as bf16, as graph/storage.h has chosen: kernels read and
 * write them by index, like arrays of float. All threads take the same way at the branch. A kernel
 * whose ports say that it can (PORT_ROUNDED, PORT_SIGN, PORT_CARRIED, PORT_STORABLE) takes its
 * tensors by source_of and target_of; in() and out() are for what is always f32. */
#ifndef STRATA_DEVICE_CUDA_STORED_CUH
#define STRATA_DEVICE_CUDA_STORED_CUH

#include "device/cuda/bf16.cuh"

/* What 16 bits stand for. */
static __device__ inline float bf16_number(uint32_t bits) {
  return __int_as_float((int)(bits << 16));
}

static __host__ __device__ inline int64_t stored_bytes(bool bf16, int64_t elements) {
  return elements * (int64_t)(bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* To be read. */
struct source {
  const void *at; /* NULL: absent */
  bool bf16;

  __device__ float operator[](int64_t i) const {
    if (!bf16) return static_cast<const float *>(at)[i];
    return bf16_number(static_cast<const uint16_t *>(at)[i]);
  }
  /* From element `first` on. */
  __host__ __device__ source from(int64_t first) const {
    return {static_cast<const char *>(at) + stored_bytes(bf16, first), bf16};
  }
};

/* One number to be written. */
struct stored_place {
  void *at;
  int64_t index;
  bool bf16;

  __device__ void operator=(float x) const {
    if (bf16)
      static_cast<uint16_t *>(at)[index] = (uint16_t)bf16_bits(x);
    else
      static_cast<float *>(at)[index] = x;
  }
};

/* To be written. */
struct target {
  void *at; /* NULL: absent */
  bool bf16;

  __device__ stored_place operator[](int64_t i) const {
    return {at, i, bf16};
  }
  __host__ __device__ target from(int64_t first) const {
    return {static_cast<char *>(at) + stored_bytes(bf16, first), bf16};
  }
};

static inline source source_of(const launch *l, int i) {
  return {in<void>(l, i), i < l->call->in_count && l->call->in[i].dtype == PLUGIN_BF16};
}
static inline target target_of(const launch *l, int i) {
  return {out<void>(l, i), i < l->call->out_count && l->call->out[i].dtype == PLUGIN_BF16};
}

#endif
