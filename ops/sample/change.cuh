/* What the kernels of sample operators share. Each makes one change of one sample (data/recipe.h):
 *
 *   in[0], out[0]   image, (X, Y, Z, C) f32; the same memory where intensities change
 *   in[1], out[1]   label, (X, Y, Z), a byte a voxel, which `dtype` has no name for; absent where
 *                   there is none
 *   attributes      not the operator's but the change's struct
 *
 * These files are compiled without fused multiply-adds: labels then are the host's to the bit, and
 * so is all that libm has no part in. */
#ifndef STRATA_OPS_SAMPLE_CHANGE_CUH
#define STRATA_OPS_SAMPLE_CHANGE_CUH

#include "device/cuda/kernel.cuh"

#define VOXEL_RULE static __host__ __device__ inline

template <typename T> static inline const T &change_of(const launch *l) {
  return *(const T *)l->call->attrs;
}

/* The grid of an image. */
struct sample_grid {
  int64_t size[3], channels, voxels;

  __device__ void place(int64_t voxel, int64_t index[3]) const {
    index[2] = voxel % size[2];
    index[1] = voxel / size[2] % size[1];
    index[0] = voxel / size[2] / size[1];
  }
};

static inline sample_grid grid_of(const plugin_shape *s) {
  sample_grid g = {{s->dim[0], s->dim[1], s->dim[2]}, s->dim[3], s->dim[0] * s->dim[1] * s->dim[2]};
  return g;
}

#endif
