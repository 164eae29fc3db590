/* What every CUDA kernel file includes. A file ops/<family>/<name>.cu holds kernels and, per
 * operator,
 *
 *     CUDA_OP(leaky_relu) { … return LAUNCH(l, kernel, blocks, threads, shared, arguments…); }
 *     CUDA_SCRATCH(conv3d) { return bytes; }      only where the kernel needs scratch memory
 *
 * which the build finds and lists. `l` is a const launch *. All of it stands in a namespace of the
 * file's own: structs of one name in two files would be taken for one. Shapes have been checked when the graph
 * was built; kernels check nothing.
 *
 * A number that schedules may change (ATTR_SCHEDULABLE) is read by `scheduled` here and by its kernel on
 * the device: a step is recorded once and played again with other numbers.
 *
 * Rule for identical results from run to run: what a thread computes depends only on its index and
 * the problem; no floating-point atomics; a reduction leaves one partial result per block, and the
 * partials are added in index order.
 *
 * The same files are compiled for the host by tests/gpu/emulator, which runs kernels thread by
 * thread. So launches go through LAUNCH, and shared memory of run-time size through SHARED_MEMORY. */
#ifndef STRATA_DEVICE_CUDA_KERNEL_CUH
#define STRATA_DEVICE_CUDA_KERNEL_CUH

#include "device/cuda/plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef STRATA_EMULATE_CUDA
#include "gpu/emulator/emulator.h"
#define UNROLL
#define KEEP_LOOP
#else
#include <cuda_runtime.h>
/* Before a loop of a fixed count: its array indices become those of registers. */
#define UNROLL _Pragma("unroll")
/* Before a loop that would be too much code unrolled. */
#define KEEP_LOOP _Pragma("unroll 1")
#define LAUNCH(l, kernel, blocks, threads, shared, ...)                                            \
  (kernel<<<(blocks), (threads), (shared), (l)->stream>>>(__VA_ARGS__), launched((l), #kernel))
#define SHARED_MEMORY(type, name)                                                                  \
  extern __shared__ __align__(16) double strata_shared_memory[];                                   \
  type *name = reinterpret_cast<type *>(strata_shared_memory)
#endif

struct launch {
  const plugin_call *call;
  const plugin_host *host;
  cudaStream_t stream;
  void *scratch; /* as many bytes as CUDA_SCRATCH asked for, 256-byte aligned, contents undefined */
  struct libraries *libraries; /* cuBLASLt; device/cuda/libraries.cuh */
  struct fault *faults;        /* device memory: what kernels found wrong with the data */
};

/* A label that is no class, or a region without an output, cannot be reported while the step runs on: the
 * kernel notes it, and the next synchronization turns it into an error. */
enum fault_kind { NO_FAULT, FAULT_LABEL, FAULT_REGIONS };
struct fault {
  int kind;
  int label; /* or the set of regions */
  int classes;
};

/* Any of several threads' notes will do, which is what `volatile` says here. */
static __device__ inline void note_label(volatile struct fault *f, int label, int64_t classes,
                                         fault_kind kind = FAULT_LABEL) {
  f->label = label;
  f->classes = (int)classes;
  f->kind = kind;
}

#define CUDA_OP(name) extern "C" status cuda_op_##name(const launch *l)
#define CUDA_SCRATCH(name) extern "C" size_t cuda_scratch_##name(const launch *l)

/* The error of a launch that did not start, e.g. for want of registers. */
status launched(const launch *l, const char *kernel);

/* ---- a launch's tensors and attributes ------------------------------------------------------- */

static inline double number(const launch *l, const char *name) {
  return l->host->number(l->call, name);
}
static inline float number_f(const launch *l, const char *name) {
  return (float)number(l, name);
}
static inline int64_t integer(const launch *l, const char *name) {
  return (int64_t)number(l, name);
}
static inline bool flag(const launch *l, const char *name) {
  return number(l, name) != 0;
}
static inline int64_t integer_at(const launch *l, const char *name, int index) {
  return (int64_t)l->host->number_at(l->call, name, index);
}

/* A number that the run changes between steps, for kernels to read. */
struct scheduled_number {
  const double *at; /* NULL: the call is of no step, and `value` counts */
  double value;
  __device__ operator double() const {
    return at ? *at : value;
  }
};
static inline scheduled_number scheduled(const launch *l, const char *name) {
  scheduled_number n = {nullptr, 0};
  int index = l->host->scheduled(l->call, name, &n.value);
  if (l->call->scheduled) n.at = l->call->scheduled + index;
  return n;
}
static inline scheduled_number always(double value) {
  return {nullptr, value};
}

static inline bool has_in(const launch *l, int i) {
  return i < l->call->in_count && l->call->in[i].data != nullptr;
}
template <typename T> struct is_float { static constexpr bool value = false; };
template <> struct is_float<float> { static constexpr bool value = true; };

/* Memory taken for f32. Where it is stored as bf16 (device/cuda/stored.cuh), a port says of its kernel
 * what the kernel cannot do: a bug, which ends the program. */
template <typename T> static inline T *memory_of(const plugin_tensor *t) {
  if (is_float<T>::value && t->dtype == PLUGIN_BF16) {
    fprintf(stderr, "strata: a CUDA kernel takes for f32 what is stored as bf16\n");
    abort();
  }
  return (T *)t->data;
}

/* The memory of input or output i; NULL where it is absent. */
template <typename T = float> static inline const T *in(const launch *l, int i) {
  return i < l->call->in_count ? memory_of<T>(&l->call->in[i]) : nullptr;
}
template <typename T = float> static inline T *out(const launch *l, int i) {
  return i < l->call->out_count ? memory_of<T>(&l->call->out[i]) : nullptr;
}
static inline const plugin_shape *in_shape(const launch *l, int i) {
  return &l->call->in[i].shape;
}
static inline const plugin_shape *out_shape(const launch *l, int i) {
  return &l->call->out[i].shape;
}
static inline int64_t elements(const plugin_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}
static inline int64_t last_extent(const plugin_shape *s) {
  return s->rank > 0 ? s->dim[s->rank - 1] : 1;
}
/* An output that was pruned, or an input that is absent, has no memory and rank −1. */
static inline bool is_there(const plugin_shape *s) {
  return s->rank >= 0;
}

/* ---- one thread per element -------------------------------------------------------------------- */

constexpr int THREADS = 256, MOST_BLOCKS = 1 << 16;

static inline unsigned blocks_of(int64_t count, int64_t per_block = THREADS) {
  int64_t blocks = (count + per_block - 1) / per_block;
  return (unsigned)(blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks);
}

/* for (int64_t i : every index of this thread below count) */
#define FOR_EACH_INDEX(i, count)                                                                   \
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                    \
       i += (int64_t)gridDim.x * blockDim.x)

template <typename F> __global__ void each_index(int64_t count, F f) {
  FOR_EACH_INDEX(i, count) f(i);
}

/* Runs f(i) for every i in 0 … count − 1, in any order. `f` is a struct with a __device__ operator(),
 * so that its members are the kernel's arguments. */
template <typename F> static inline status for_each_index(const launch *l, int64_t count, F f) {
  if (count <= 0) return OK;
  return LAUNCH(l, each_index<F>, blocks_of(count), THREADS, 0, count, f);
}

/* ---- sums of a block --------------------------------------------------------------------------- */

constexpr int WARP = 32;

template <typename T> static __device__ inline T warp_sum(T value) {
  for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

template <typename T> static __device__ inline T warp_max(T value) {
  for (int step = WARP / 2; step > 0; step /= 2) {
    T other = __shfl_xor_sync(0xffffffffu, value, step);
    value = other > value ? other : value;
  }
  return value;
}

struct sum_of {
  template <typename T> static __device__ inline T warp(T v) {
    return warp_sum(v);
  }
  template <typename T> static __device__ inline T start(T) {
    return T(0);
  }
};

struct max_of {
  template <typename T> static __device__ inline T warp(T v) {
    return warp_max(v);
  }
  template <typename T> static __device__ inline T start(T v) {
    return v; /* of the first warp's first lane, which always takes part */
  }
};

/* The block's total, in every thread. All threads of the block call it; blockDim.x is a multiple of
 * 32 and at most 1024. The same order of adding on every run. */
template <typename How, typename T> static __device__ inline T block_total(T value) {
  __shared__ T warps[WARP];
  value = How::warp(value);
  __syncthreads(); /* `warps` may still be read from the call before */
  if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = value;
  __syncthreads();
  int count = (int)(blockDim.x / WARP), lane = (int)(threadIdx.x % WARP);
  T total = lane < count ? warps[lane] : How::start(warps[0]);
  return How::warp(total);
}

template <typename T> static __device__ inline T block_sum(T value) {
  return block_total<sum_of>(value);
}
template <typename T> static __device__ inline T block_max(T value) {
  return block_total<max_of>(value);
}

/* ---- random numbers: base/rng.h on the device ---------------------------------------------------- */

#define RNG_DRAW static __device__ inline
#include "base/rng_draw.h"

static __device__ inline uint64_t swap_bytes(uint64_t v) {
  v = (v >> 32) | (v << 32);
  v = ((v >> 16) & 0x0000ffff0000ffffull) | ((v & 0x0000ffff0000ffffull) << 16);
  return ((v >> 8) & 0x00ff00ff00ff00ffull) | ((v & 0x00ff00ff00ff00ffull) << 8);
}

/* hash_mix of base/text.h: XXH3's 64-bit hash of 16 bytes with its default secret
 * (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). */
static __device__ inline uint64_t mix_hash(uint64_t a, uint64_t b) {
  uint64_t low = a ^ 0x6782737bea4239b9ull, high = b ^ 0xaf56bc3b0996523aull;
  uint64_t h = 16 + swap_bytes(low) + high + (low * high ^ __umul64hi(low, high));
  h = (h ^ (h >> 37)) * 0x165667919E3779F9ull;
  return h ^ (h >> 32);
}

/* rng_open. */
static __device__ inline rng open_stream(rng_key key, uint64_t operator_id) {
  return draw_open(mix_hash(key.run, operator_id), key.sample, operator_id);
}

/* Block `index` of a fresh stream: its numbers 4 · index … 4 · index + 3. */
static __device__ inline void random_block(const rng &stream, uint32_t index, uint32_t bits[4]) {
  uint32_t counter[4] = {stream.counter[0] + index, stream.counter[1], stream.counter[2],
                         stream.counter[3]};
  draw_block(counter, stream.key, bits);
}

#endif
