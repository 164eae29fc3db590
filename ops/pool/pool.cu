/* avg_pool3d, max_pool3d and their gradients; ops/pool/pool.h has the geometry. */
#include "device/cuda/index.cuh"

namespace pool_kernels {

struct range {
  int64_t first, end;
};

struct pooling {
  volume_shape image, windows;
  int64_t kernel[3], stride[3], padding[3];
  bool count_padding;

  /* The voxels of x that window o covers along an axis. */
  __device__ range window_of(int axis, int64_t o) const {
    int64_t first = o * stride[axis] - padding[axis], end = first + kernel[axis];
    return {first < 0 ? 0 : first, end < image.dim[1 + axis] ? end : image.dim[1 + axis]};
  }
  /* The windows that cover voxel i along an axis. */
  __device__ range windows_over(int axis, int64_t i) const {
    int64_t reach = i + padding[axis];
    int64_t first = reach < kernel[axis] ? 0 : (reach - kernel[axis]) / stride[axis] + 1;
    int64_t end = reach / stride[axis] + 1;
    return {first, end < windows.dim[1 + axis] ? end : windows.dim[1 + axis]};
  }
  /* What the window's sum is divided by, one factor an axis; ops/pool/avg_pool3d.c. */
  __device__ double share_of(int axis, int64_t o) const {
    int64_t first = o * stride[axis] - padding[axis], last = first + kernel[axis];
    int64_t limit = image.dim[1 + axis] + padding[axis];
    range w = window_of(axis, o);
    return 1 / (double)(count_padding ? (last < limit ? last : limit) - first : w.end - w.first);
  }
};

static pooling pooling_of(const launch *l, const plugin_shape *image, const plugin_shape *windows,
                          bool average) {
  pooling p = {};
  p.image = volume_of(image);
  p.windows = volume_of(windows);
  for (int a = 0; a < 3; a++) {
    p.kernel[a] = integer_at(l, "kernel", a);
    int64_t stride = integer_at(l, "stride", a);
    p.stride[a] = stride > 0 ? stride : p.kernel[a];
    p.padding[a] = integer_at(l, "padding", a);
  }
  p.count_padding = average && flag(l, "count_include_pad");
  return p;
}

struct average_f {
  float *y;
  const float *x;
  pooling p;
  __device__ void operator()(int64_t i) const {
    voxel v = p.windows.locate(i);
    range w[3];
    double share = 1;
    for (int a = 0; a < 3; a++) {
      w[a] = p.window_of(a, v.at[a]);
      share *= p.share_of(a, v.at[a]);
    }
    float sum = 0;
    for (int64_t a = w[0].first; a < w[0].end; a++)
      for (int64_t b = w[1].first; b < w[1].end; b++)
        for (int64_t c = w[2].first; c < w[2].end; c++) sum += x[p.image.index(v.n, a, b, c, v.c)];
    y[i] = sum * (float)share;
  }
};

struct average_backward_f {
  float *dx;
  const float *dy;
  pooling p;
  __device__ void operator()(int64_t i) const {
    voxel v = p.image.locate(i);
    range w[3];
    for (int a = 0; a < 3; a++) w[a] = p.windows_over(a, v.at[a]);
    float sum = 0;
    for (int64_t a = w[0].first; a < w[0].end; a++)
      for (int64_t b = w[1].first; b < w[1].end; b++) {
        double share = p.share_of(0, a) * p.share_of(1, b);
        for (int64_t c = w[2].first; c < w[2].end; c++)
          sum += (float)(share * p.share_of(2, c)) * dy[p.windows.index(v.n, a, b, c, v.c)];
      }
    dx[i] = sum;
  }
};

CUDA_OP(avg_pool3d) {
  return for_each_index(
      l, elements(out_shape(l, 0)),
      average_f{out(l, 0), in(l, 0), pooling_of(l, in_shape(l, 0), out_shape(l, 0), true)});
}
CUDA_OP(avg_pool3d_backward) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        average_backward_f{out(l, 0), in(l, 0),
                                           pooling_of(l, out_shape(l, 0), in_shape(l, 0), true)});
}

/* The first of several equal values counts, and NaN is larger than any number. `at` may be NULL. */
struct largest_f {
  float *y;
  int32_t *at;
  const float *x;
  pooling p;
  __device__ void operator()(int64_t i) const {
    voxel v = p.windows.locate(i);
    range w[3];
    for (int a = 0; a < 3; a++) w[a] = p.window_of(a, v.at[a]);
    float most = -INFINITY;
    int64_t best = (w[0].first * p.image.dim[2] + w[1].first) * p.image.dim[3] + w[2].first;
    for (int64_t a = w[0].first; a < w[0].end; a++)
      for (int64_t b = w[1].first; b < w[1].end; b++)
        for (int64_t c = w[2].first; c < w[2].end; c++) {
          float value = x[p.image.index(v.n, a, b, c, v.c)];
          if (!(value > most || value != value)) continue;
          most = value;
          best = (a * p.image.dim[2] + b) * p.image.dim[3] + c;
        }
    y[i] = most;
    if (at) at[i] = (int32_t)best;
  }
};

struct largest_backward_f {
  float *dx;
  const float *dy;
  const int32_t *at;
  pooling p;
  __device__ void operator()(int64_t i) const {
    voxel v = p.image.locate(i);
    int64_t own = (v.at[0] * p.image.dim[2] + v.at[1]) * p.image.dim[3] + v.at[2];
    range w[3];
    for (int a = 0; a < 3; a++) w[a] = p.windows_over(a, v.at[a]);
    float sum = 0;
    for (int64_t a = w[0].first; a < w[0].end; a++)
      for (int64_t b = w[1].first; b < w[1].end; b++)
        for (int64_t c = w[2].first; c < w[2].end; c++) {
          int64_t o = p.windows.index(v.n, a, b, c, v.c);
          if (at[o] == own) sum += dy[o];
        }
    dx[i] = sum;
  }
};

CUDA_OP(max_pool3d) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        largest_f{out(l, 0), out<int32_t>(l, 1), in(l, 0),
                                  pooling_of(l, in_shape(l, 0), out_shape(l, 0), false)});
}
CUDA_OP(max_pool3d_backward) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        largest_backward_f{out(l, 0), in(l, 0), in<int32_t>(l, 1),
                                           pooling_of(l, out_shape(l, 0), in_shape(l, 0), false)});
}

} // namespace pool_kernels
