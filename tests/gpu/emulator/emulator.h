/* CUDA kernels on the host, thread by thread, so that they can be tested without a GPU.
 *
 * The kernel files are compiled as C++ against this header in the place of cuda_runtime.h. Blocks
 * run one after the other; the threads of a block are fibers that change at barriers and shuffles.
 * What this finds: wrong index arithmetic, wrong results, memory out of bounds (with the address
 * sanitizer), barriers and shuffles that not all threads reach, host code that touches device
 * memory (it is protected except while a kernel or a copy runs), launches that no card takes, and
 * races that show when the order of threads is turned round (STRATA_EMULATOR_ORDER=reverse); compiled
 * with races.cpp, all others between two barriers. What it cannot find: timing, limits of registers.
 *
 * Streams are lazy: nothing runs before the host waits, and then in an order that only streams and
 * events constrain, by STRATA_EMULATOR_STREAMS: `late`, the default, runs other streams' work only
 * where it is waited for; `early` runs other streams as far as they go before the one that the host
 * waits for; `mixed` draws from the streams. So work that lacks a wait gives wrong results under one of
 * them, and so does host memory that changes while a copy of it is still to come. */
#ifndef STRATA_EMULATOR_H
#define STRATA_EMULATOR_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#ifdef STRATA_WATCH /* which overlooks what a function returns into memory, unless it is inlined */
#define __device__ __attribute__((always_inline))
#else
#define __device__
#endif
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
/* One block runs at a time, so what its threads share may be static. */
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

/* ---- threads -------------------------------------------------------------------------------- */

typedef struct emulated_stream *cudaStream_t;
/* Counts launches by the kernel's name, for tests. */
void emulate(const char *name, cudaStream_t stream, dim3 blocks, dim3 threads, size_t shared_bytes,
             const std::function<void()> &body);
/* Arguments are taken now: a launch runs later. */
template <typename... P, typename... A>
static inline void emulate_kernel(const char *name, cudaStream_t stream, dim3 blocks, dim3 threads,
                                  size_t shared_bytes, void (*kernel)(P...), A... arguments) {
  emulate(name, stream, blocks, threads, shared_bytes, [=] { kernel(arguments...); });
}
void *emulator_shared_memory();
void emulator_block_barrier();
/* Leaves `value` (at most 32 bytes) where the warp's lanes of `mask` can read it, waits for all of
 * them, and takes what lane `from` left; `from` outside of the warp: its own. */
void emulator_exchange(uint32_t mask, const void *value, size_t bytes, int from, void *result);
/* Leaves `value` (at most 32 bytes), waits for the whole warp, and takes what all 32 lanes left. */
void emulator_gather(const void *value, size_t bytes, void *all);
int emulator_lane();
[[noreturn]] void emulator_fail(const char *what);

/* Copies to shared memory that run beside the thread (device/cuda/async_copy.cuh). They may arrive at any
 * time between their beginning and the wait, so NaN stands there first and what is copied at last; a kernel
 * that reads early, or begins a copy to what others still read, is found. */
void emulator_begin_copy(uint4 *to, const uint4 &value);
void emulator_commit_copies();
/* Where the next copy goes of those that all groups but the last `left` hold, or NULL. */
uint4 *emulator_end_copy(int left, uint4 *value);

static inline void emulator_copy_async(void *to, const void *from, bool is_there) {
  if (((uintptr_t)to | (uintptr_t)from) % 16) emulator_fail("cp.async wants 16-byte alignment");
  emulator_begin_copy(static_cast<uint4 *>(to),
                      is_there ? *static_cast<const uint4 *>(from) : uint4{0, 0, 0, 0});
  *static_cast<uint4 *>(to) = {~0u, ~0u, ~0u, ~0u};
}

static inline void emulator_wait_for_copies(int left) {
  uint4 value;
  while (uint4 *to = emulator_end_copy(left, &value)) *to = value;
}

#define LAUNCH(l, kernel, blocks, threads, shared, ...)                                            \
  (emulate_kernel(#kernel, (l)->stream, (blocks), (threads), (shared), kernel, __VA_ARGS__),       \
   launched((l), #kernel))
#define SHARED_MEMORY(type, name) type *name = static_cast<type *>(emulator_shared_memory())

static inline void __syncthreads() {
  emulator_block_barrier();
}
static inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  char none = 0;
  emulator_exchange(mask, &none, 0, -1, &none);
}
template <typename T> static inline T __shfl_sync(uint32_t mask, T value, int lane) {
  T result;
  emulator_exchange(mask, &value, sizeof value, lane & 31, &result);
  return result;
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T value, int bits) {
  return __shfl_sync(mask, value, emulator_lane() ^ bits);
}
template <typename T> static inline T __shfl_down_sync(uint32_t mask, T value, int by) {
  int from = emulator_lane() + by;
  return __shfl_sync(mask, value, from < 32 ? from : emulator_lane());
}

/* ---- device functions ------------------------------------------------------------------------- */

static inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return (uint64_t)(((unsigned __int128)a * b) >> 64);
}
static inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return (uint32_t)(((uint64_t)a * b) >> 32);
}
static inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
static inline float __int_as_float(int bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
static inline int __float_as_int(float f) {
  int bits;
  std::memcpy(&bits, &f, sizeof bits);
  return bits;
}
template <typename T> static inline T __ldg(const T *at) {
  return *at;
}
template <typename T> static inline T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b) {
  return a < b ? b : a;
}

/* ---- the part of the runtime that device/cuda uses ---------------------------------------------- */

typedef enum cudaError {
  cudaSuccess,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101
} cudaError_t;
typedef enum {
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice
} cudaMemcpyKind;
typedef enum { cudaDevAttrMemoryPoolsSupported = 115 } cudaDeviceAttr;
typedef struct emulated_event *cudaEvent_t;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  size_t totalGlobalMem, sharedMemPerBlockOptin;
};

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int index); /* of this thread, which may use no other card's streams */
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int index);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int index);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *memory); /* at once: work that still uses the memory fails */
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemGetInfo(size_t *left, size_t *all);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
/* What is asked of the stream from now on waits for the event as it was recorded last. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);

/* A stream is captured and replayed as the runtime does it: what is launched meanwhile does not run,
 * and waiting for the stream, events, and taking or giving back memory are mistakes. */
typedef struct emulated_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
/* Runs `work` when its turn comes on the stream, or in what is being captured. */
void emulator_enqueue(cudaStream_t stream, std::function<void()> work);

/* Device memory may be touched between these; LAUNCH and the copies do it by themselves, the
 * emulated libraries with these. */
void emulator_unprotect();
void emulator_protect();

#endif
