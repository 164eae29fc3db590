/* From the index of an element to indices along axes, and to offsets in tensors of other layouts. */
#ifndef STRATA_DEVICE_CUDA_INDEX_CUH
#define STRATA_DEVICE_CUDA_INDEX_CUH

#include "device/cuda/kernel.cuh"

/* Axes of a tensor, outermost first, with the distance (in elements) that a step along each makes
 * in another tensor; 0 repeats it. */
struct strides {
  int rank;
  int64_t extent[PLUGIN_DIMS], step[PLUGIN_DIMS];

  __device__ int64_t offset(int64_t index) const {
    int64_t at = 0;
    for (int a = rank - 1; a >= 0; a--) {
      at += index % extent[a] * step[a];
      index /= extent[a];
    }
    return at;
  }
};

/* How `x` repeats to `whole`, by NumPy's rule: aligned at the last axis. */
static inline strides broadcast_strides(const plugin_shape *whole, const plugin_shape *x) {
  strides s = {};
  s.rank = whole->rank;
  int64_t next = 1;
  for (int a = whole->rank - 1; a >= 0; a--) {
    int own = a - (whole->rank - x->rank);
    bool moves = own >= 0 && x->dim[own] == whole->dim[a];
    s.extent[a] = whole->dim[a];
    s.step[a] = moves && whole->dim[a] > 1 ? next : 0;
    if (own >= 0) next *= x->dim[own];
  }
  return s;
}

static inline bool same_shape(const plugin_shape *a, const plugin_shape *b) {
  bool same = a->rank == b->rank;
  for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
  return same;
}

#endif
