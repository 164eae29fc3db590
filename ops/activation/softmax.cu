/* softmax over the last axis, a warp or a block for each row. */
#include "device/cuda/kernel.cuh"

namespace softmax_kernels {

constexpr int WARP_ROW = 1024; /* wider rows get a block */

/* One warp per row; rows of a block follow one another. */
static __global__ void softmax_warp(float *y, const float *x, int64_t rows, int64_t width) {
  int lane = (int)(threadIdx.x % WARP);
  int64_t per_block = blockDim.x / WARP;
  for (int64_t r = blockIdx.x * per_block + threadIdx.x / WARP; r < rows;
       r += gridDim.x * per_block) {
    const float *from = x + r * width;
    float largest = -INFINITY, sum = 0;
    for (int64_t i = lane; i < width; i += WARP) largest = from[i] > largest ? from[i] : largest;
    largest = warp_max(largest);
    for (int64_t i = lane; i < width; i += WARP) sum += expf(from[i] - largest);
    float factor = 1.0f / warp_sum(sum);
    for (int64_t i = lane; i < width; i += WARP)
      y[r * width + i] = expf(from[i] - largest) * factor;
  }
}

static __global__ void softmax_block(float *y, const float *x, int64_t rows, int64_t width) {
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const float *from = x + r * width;
    float largest = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
      largest = from[i] > largest ? from[i] : largest;
    largest = block_max(largest);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += expf(from[i] - largest);
    float factor = 1.0f / block_sum(sum);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
      y[r * width + i] = expf(from[i] - largest) * factor;
  }
}

/* Few classes per voxel: one thread per row. */
static __global__ void softmax_narrow(float *y, const float *x, int64_t rows, int64_t width) {
  FOR_EACH_INDEX(r, rows) {
    const float *from = x + r * width;
    float largest = from[0], sum = 0;
    for (int64_t i = 1; i < width; i++) largest = from[i] > largest ? from[i] : largest;
    for (int64_t i = 0; i < width; i++) sum += expf(from[i] - largest);
    float factor = 1.0f / sum;
    for (int64_t i = 0; i < width; i++) y[r * width + i] = expf(from[i] - largest) * factor;
  }
}

CUDA_OP(softmax) {
  int64_t width = last_extent(in_shape(l, 0)), rows = elements(in_shape(l, 0)) / width;
  if (width <= 16)
    return LAUNCH(l, softmax_narrow, blocks_of(rows), THREADS, 0, out(l, 0), in(l, 0), rows, width);
  if (width <= WARP_ROW)
    return LAUNCH(l, softmax_warp, blocks_of(rows, THREADS / WARP), THREADS, 0, out(l, 0), in(l, 0),
                  rows, width);
  return LAUNCH(l, softmax_block, blocks_of(rows, 1), THREADS, 0, out(l, 0), in(l, 0), rows, width);
}

/* dx = y (dy − Σ y·dy) */
static __global__ void softmax_backward_rows(float *dx, const float *y, const float *dy,
                                             int64_t rows, int64_t width) {
  int lane = (int)(threadIdx.x % WARP);
  int64_t per_block = blockDim.x / WARP;
  for (int64_t r = blockIdx.x * per_block + threadIdx.x / WARP; r < rows;
       r += gridDim.x * per_block) {
    float dot = 0;
    for (int64_t i = lane; i < width; i += WARP) dot += y[r * width + i] * dy[r * width + i];
    dot = warp_sum(dot);
    for (int64_t i = lane; i < width; i += WARP)
      dx[r * width + i] = y[r * width + i] * (dy[r * width + i] - dot);
  }
}

CUDA_OP(softmax_backward) {
  int64_t width = last_extent(in_shape(l, 0)), rows = elements(in_shape(l, 0)) / width;
  return LAUNCH(l, softmax_backward_rows, blocks_of(rows, THREADS / WARP), THREADS, 0, out(l, 0),
                in(l, 0), in(l, 1), rows, width);
}

} // namespace softmax_kernels
