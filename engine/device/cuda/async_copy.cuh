/* Copies to shared memory that run while the thread works on: PTX ISA, cp.async; sm_80 and later.
 *
 *     copy_async(to, from, is_there);  …  any number of them
 *     commit_copies();                    they are a group now
 *     wait_for_copies<N>();               until all groups but the last N are there
 *     __syncthreads();                    and those of the other threads */
#ifndef STRATA_DEVICE_CUDA_ASYNC_COPY_CUH
#define STRATA_DEVICE_CUDA_ASYNC_COPY_CUH

#include "device/cuda/kernel.cuh"

/* 16 bytes; both places are aligned to that. Where nothing is there, zeros are written, and `from` is any
 * address that could be read. */
static __device__ inline void copy_async(void *to, const void *from, bool is_there) {
#ifdef STRATA_EMULATE_CUDA
  emulator_copy_async(to, from, is_there);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(is_there ? 16 : 0)
               : "memory");
#endif
}

static __device__ inline void commit_copies() {
#ifdef STRATA_EMULATE_CUDA
  emulator_commit_copies();
#else
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

template <int LEFT> static __device__ inline void wait_for_copies() {
#ifdef STRATA_EMULATE_CUDA
  emulator_wait_for_copies(LEFT);
#else
  asm volatile("cp.async.wait_group %0;" : : "n"(LEFT) : "memory");
#endif
}

#endif
