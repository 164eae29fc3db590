/* cell_pool and normalize_patches: statistics of boxes of a volume; ops/method/<name>.c have the
 * definitions. */
#include "device/cuda/index.cuh"

namespace pooling_kernels {

/* ---- cell_pool ---------------------------------------------------------------------------------------- */

struct cells {
  volume_shape volume;
  int64_t count[3], extent[3], voxels; /* of a cell */
};

static cells cells_of(const launch *l, const plugin_shape *volume) {
  cells c = {};
  c.volume = volume_of(volume);
  c.voxels = 1;
  for (int a = 0; a < 3; a++) {
    c.count[a] = integer_at(l, "cells", a);
    c.extent[a] = c.volume.dim[1 + a] / c.count[a];
    c.voxels *= c.extent[a];
  }
  return c;
}

/* A block for each cell and channel. */
static __global__ void pool_cells(float *y, const float *x, cells c) {
  int64_t channels = c.volume.dim[4], channel = blockIdx.x % channels, cell = blockIdx.x / channels;
  int64_t corner[3], rest = cell;
  for (int a = 2; a >= 0; a--) {
    corner[a] = rest % c.count[a] * c.extent[a];
    rest /= c.count[a];
  }
  double sum = 0;
  for (int64_t v = threadIdx.x; v < c.voxels; v += blockDim.x)
    sum += (double)x[c.volume.index(rest, corner[0] + v / (c.extent[1] * c.extent[2]),
                                    corner[1] + v / c.extent[2] % c.extent[1],
                                    corner[2] + v % c.extent[2], channel)];
  sum = block_sum(sum);
  if (threadIdx.x == 0) y[blockIdx.x] = (float)(sum / (double)c.voxels);
}

struct spread_cells {
  float *dx;
  const float *dy;
  cells c;
  __device__ void operator()(int64_t i) const {
    voxel v = c.volume.locate(i);
    int64_t cell = v.n;
    for (int a = 0; a < 3; a++) cell = cell * c.count[a] + v.at[a] / c.extent[a];
    dx[i] = dy[cell * c.volume.dim[4] + v.c] * (float)(1 / (double)c.voxels);
  }
};

CUDA_OP(cell_pool) {
  return LAUNCH(l, pool_cells, (unsigned)elements(out_shape(l, 0)), 128, 0, out(l, 0), in(l, 0),
                cells_of(l, in_shape(l, 0)));
}
CUDA_OP(cell_pool_backward) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        spread_cells{out(l, 0), in(l, 0), cells_of(l, out_shape(l, 0))});
}

/* ---- normalize_patches: a block for each patch ---------------------------------------------------------- */

struct patches {
  volume_shape volume;
  int64_t size[3], values; /* of a patch, channels included */
  double eps;

  /* Value i of patch p. */
  __device__ int64_t place(int64_t p, int64_t i) const {
    int64_t c = i % volume.dim[4], at[3];
    i /= volume.dim[4];
    for (int a = 2; a >= 0; a--) {
      int64_t grid = volume.dim[1 + a] / size[a];
      at[a] = p % grid * size[a] + i % size[a];
      p /= grid;
      i /= size[a];
    }
    return volume.index(p, at[0], at[1], at[2], c);
  }
};

static patches patches_of(const launch *l) {
  patches p = {};
  p.volume = volume_of(in_shape(l, 0));
  p.values = p.volume.dim[4];
  for (int a = 0; a < 3; a++) {
    p.size[a] = integer_at(l, "size", a);
    p.values *= p.size[a];
  }
  p.eps = number(l, "eps");
  return p;
}

static __device__ double patch_mean(const patches &p, const float *x) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.values; i += blockDim.x)
    sum += (double)x[p.place(blockIdx.x, i)];
  return block_sum(sum) / (double)p.values;
}

/* Σ (x − shift) · (z − shift_z) / (n − 1) */
static __device__ double patch_product(const patches &p, const float *x, double shift,
                                       const float *z, double shift_z) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.values; i += blockDim.x) {
    int64_t at = p.place(blockIdx.x, i);
    sum += ((double)x[at] - shift) * ((double)z[at] - shift_z);
  }
  return block_sum(sum) / (double)(p.values - 1);
}

static __global__ void normalize_kernel(float *y, const float *x, patches p) {
  double mean = patch_mean(p, x), s = sqrt(patch_product(p, x, mean, x, mean) + p.eps);
  for (int64_t i = threadIdx.x; i < p.values; i += blockDim.x) {
    int64_t at = p.place(blockIdx.x, i);
    y[at] = (float)(((double)x[at] - mean) / s);
  }
}

static __global__ void normalize_backward_kernel(float *dx, const float *x, const float *dy,
                                                 patches p) {
  double mean = patch_mean(p, x), s = sqrt(patch_product(p, x, mean, x, mean) + p.eps);
  double mean_dy = patch_mean(p, dy), product = patch_product(p, dy, 0, x, mean) / s;
  for (int64_t i = threadIdx.x; i < p.values; i += blockDim.x) {
    int64_t at = p.place(blockIdx.x, i);
    double y = ((double)x[at] - mean) / s;
    dx[at] = (float)(((double)dy[at] - mean_dy - y * product) / s);
  }
}

CUDA_OP(normalize_patches) {
  patches p = patches_of(l);
  return LAUNCH(l, normalize_kernel, (unsigned)(elements(in_shape(l, 0)) / p.values), 128, 0,
                out(l, 0), in(l, 0), p);
}
CUDA_OP(normalize_patches_backward) {
  patches p = patches_of(l);
  return LAUNCH(l, normalize_backward_kernel, (unsigned)(elements(in_shape(l, 0)) / p.values), 128,
                0, out(l, 0), in(l, 0), in(l, 1), p);
}

} // namespace pooling_kernels
