/* From the index of an element to indices along axes, and to offsets in tensors of other layouts. */
#ifndef STRATA_DEVICE_CUDA_INDEX_CUH
#define STRATA_DEVICE_CUDA_INDEX_CUH

#include "device/cuda/divisor.h"
#include "device/cuda/kernel.cuh"

/* Axes of a tensor, outermost first, with the distance (in elements) that a step along each makes
 * in another tensor; 0 repeats it. */
struct strides {
  int rank;
  divisor extent[PLUGIN_DIMS];
  int64_t step[PLUGIN_DIMS];

  /* Of an element of the tensor: `index` lies inside. */
  __device__ int64_t offset(int64_t index) const {
    int64_t at = 0;
    for (int a = rank - 1; a > 0; a--) {
      int64_t rest;
      index = divide(index, &extent[a], &rest);
      at += rest * step[a];
    }
    return rank > 0 ? at + index * step[0] : 0;
  }
  /* A number that 4 divides where elements 4 i … 4 i + 3 are neighbours in both tensors. */
  int64_t rows() const {
    if (rank == 0 || step[rank - 1] != 1) return 1;
    int64_t bits = extent[rank - 1].value;
    for (int a = 0; a < rank - 1; a++) bits |= step[a];
    return bits;
  }
};

/* The next axis further in. Axes that lie in the other tensor as they do in this one become one. */
static inline void add_axis(strides *s, int64_t extent, int64_t step) {
  if (extent == 1) return;
  int last = s->rank - 1;
  if (last >= 0 && s->step[last] == extent * step) {
    s->extent[last] = divide_by(s->extent[last].value * extent);
    s->step[last] = step;
    return;
  }
  s->extent[s->rank] = divide_by(extent);
  s->step[s->rank++] = step;
}

/* Elements from one position along the axis to the next, and how many such rows lie before. */
static inline int64_t elements_after(const plugin_shape *x, int axis) {
  int64_t n = 1;
  for (int d = axis + 1; d < x->rank; d++) n *= x->dim[d];
  return n;
}
static inline int64_t elements_before(const plugin_shape *x, int axis) {
  int64_t n = 1;
  for (int d = 0; d < axis; d++) n *= x->dim[d];
  return n;
}

/* How `x` repeats to `whole`, by NumPy's rule: aligned at the last axis. */
static inline strides broadcast_strides(const plugin_shape *whole, const plugin_shape *x) {
  strides s = {};
  for (int a = 0; a < whole->rank; a++) {
    int own = a - (whole->rank - x->rank);
    bool moves = own >= 0 && x->dim[own] == whole->dim[a];
    add_axis(&s, whole->dim[a], moves ? elements_after(x, own) : 0);
  }
  return s;
}

/* The axis that the attribute `axis` of ops/shape/axis.h chooses, in its order of choices: channel,
 * x, y, z, token, batch, 1, 2, … */
static inline int chosen_axis(const launch *l, const plugin_shape *x) {
  int choice = (int)integer(l, "axis");
  if (choice == 0) return x->rank - 1;
  if (choice <= 3) return choice;
  return choice == 4 ? 1 : choice == 5 ? 0 : choice - 5;
}

/* A voxel of a volume N × X × Y × Z × C and its channel, from the index of an element. */
struct voxel {
  int64_t n, at[3], c;
};

struct volume_shape {
  int64_t dim[5];
  divisor by[5];

  __device__ voxel locate(int64_t i) const {
    voxel v;
    i = divide(i, &by[4], &v.c);
    for (int a = 2; a >= 0; a--) i = divide(i, &by[1 + a], &v.at[a]);
    v.n = i;
    return v;
  }
  __device__ int64_t index(int64_t n, int64_t x, int64_t y, int64_t z, int64_t c) const {
    return (((n * dim[1] + x) * dim[2] + y) * dim[3] + z) * dim[4] + c;
  }
};

/* Of a label map N × X × Y × Z, too: one channel. */
static inline volume_shape volume_of(const plugin_shape *s) {
  volume_shape v;
  for (int d = 0; d < 5; d++) {
    v.dim[d] = d < s->rank ? s->dim[d] : 1;
    v.by[d] = divide_by(v.dim[d]);
  }
  return v;
}

static inline bool same_shape(const plugin_shape *a, const plugin_shape *b) {
  bool same = a->rank == b->rank;
  for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
  return same;
}

#endif
