/* l2_normalize and its gradient; ops/norm/l2_normalize.c has the definition. One warp for each
 * vector where it is contiguous, one thread elsewhere. */
#include "device/cuda/index.cuh"

namespace l2_normalize_kernels {

/* Vectors of `extent` numbers, `stride` apart; vector v begins at begin(v). */
struct vectors {
  int64_t count, extent, stride;
  __device__ int64_t begin(int64_t v) const {
    return v / stride * extent * stride + v % stride;
  }
};

static vectors vectors_of(const launch *l) {
  const plugin_shape *x = in_shape(l, 0);
  int axis = chosen_axis(l, x);
  return {elements(x) / x->dim[axis], x->dim[axis], elements_after(x, axis)};
}

/* f(vector, place of its first number, first, step): the numbers first, first + step, … are the
 * caller's, and `total` adds over all callers of the vector. */
struct alone {
  static __device__ float total(float v) {
    return v;
  }
};
struct with_warp {
  static __device__ float total(float v) {
    return warp_sum(v);
  }
};

struct normalize_f {
  float *y, *factor;
  const float *x;
  float eps;
  template <typename Team>
  __device__ void run(const vectors &vs, int64_t v, int64_t first, int64_t step) const {
    int64_t base = vs.begin(v);
    float sum = 0;
    for (int64_t i = first; i < vs.extent; i += step)
      sum += x[base + i * vs.stride] * x[base + i * vs.stride];
    float length = sqrtf(Team::total(sum)), scale = 1.0f / (length > eps ? length : eps);
    for (int64_t i = first; i < vs.extent; i += step)
      y[base + i * vs.stride] = x[base + i * vs.stride] * scale;
    if (first == 0 && factor) factor[v] = scale;
  }
};

/* dx = (dy − y Σ y·dy) · factor; a vector shorter than eps was only multiplied. */
struct normalize_backward_f {
  float *dx;
  const float *y, *factor, *dy;
  float longest; /* 1 / eps */
  template <typename Team>
  __device__ void run(const vectors &vs, int64_t v, int64_t first, int64_t step) const {
    int64_t base = vs.begin(v);
    float dot = 0;
    for (int64_t i = first; i < vs.extent; i += step)
      dot += y[base + i * vs.stride] * dy[base + i * vs.stride];
    dot = Team::total(dot);
    if (!(factor[v] < longest)) dot = 0;
    for (int64_t i = first; i < vs.extent; i += step) {
      int64_t at = base + i * vs.stride;
      dx[at] = (dy[at] - y[at] * dot) * factor[v];
    }
  }
};

template <typename F> __global__ void by_thread(vectors vs, F f) {
  FOR_EACH_INDEX(v, vs.count) f.template run<alone>(vs, v, 0, 1);
}

template <typename F> __global__ void by_warp(vectors vs, F f) {
  int64_t per_block = blockDim.x / WARP;
  for (int64_t v = blockIdx.x * per_block + threadIdx.x / WARP; v < vs.count;
       v += gridDim.x * per_block)
    f.template run<with_warp>(vs, v, threadIdx.x % WARP, WARP);
}

template <typename F> static status for_each_vector(const launch *l, F f) {
  vectors vs = vectors_of(l);
  if (vs.stride == 1)
    return LAUNCH(l, by_warp<F>, blocks_of(vs.count, THREADS / WARP), THREADS, 0, vs, f);
  return LAUNCH(l, by_thread<F>, blocks_of(vs.count), THREADS, 0, vs, f);
}

CUDA_OP(l2_normalize) {
  return for_each_vector(l, normalize_f{out(l, 0), out(l, 1), in(l, 0), number_f(l, "eps")});
}

CUDA_OP(l2_normalize_backward) {
  return for_each_vector(
      l, normalize_backward_f{out(l, 0), in(l, 0), in(l, 1), in(l, 2), 1.0f / number_f(l, "eps")});
}

} // namespace l2_normalize_kernels
