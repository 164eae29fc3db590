/* interpolate and its gradient; ops/shape/interpolate.c has the definition. */
#include "device/cuda/index.cuh"

namespace interpolate_kernels {

enum { NEAREST, TRILINEAR };

/* Along one axis a voxel of the result reads (1 − weight) of voxel low and weight of voxel high. */
struct tap {
  int64_t low, high;
  float weight;
};

struct sampling {
  int mode;
  bool align_corners;
  double scale[3];
  volume_shape image, result;

  /* As PyTorch: the positions of `nearest` in single precision. */
  __device__ tap tap_of(int axis, int64_t o) const {
    int64_t from = image.dim[1 + axis], to = result.dim[1 + axis];
    double step = scale[axis] > 0 ? 1 / scale[axis] : (double)from / (double)to;
    if (mode == NEAREST) {
      float single = scale[axis] > 0 ? (float)step : (float)from / (float)to;
      int64_t at = (int64_t)floorf((float)o * single);
      if (at > from - 1) at = from - 1;
      return {at, at, 0};
    }
    double at = align_corners ? (to > 1 ? (double)o * ((double)(from - 1) / (double)(to - 1)) : 0)
                              : ((double)o + 0.5) * step - 0.5;
    if (at < 0) at = 0;
    int64_t low = (int64_t)at;
    if (low > from - 1) low = from - 1;
    double weight = at - (double)low;
    return {low, low < from - 1 ? low + 1 : low, (float)(weight > 1 ? 1 : weight)};
  }

  /* The positions of the result that may read voxel i: tap_of never decreases, so the first whose
   * `high` reaches i can be searched for. */
  __device__ int64_t first_reader(int axis, int64_t i) const {
    int64_t low = 0, high = result.dim[1 + axis];
    while (low < high) {
      int64_t middle = (low + high) / 2;
      if (tap_of(axis, middle).high >= i)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};

static __device__ inline float share_of(tap t, int64_t i) {
  return (t.low == i ? 1 - t.weight : 0) + (t.high == i ? t.weight : 0);
}

struct interpolate_f {
  float *y;
  const float *x;
  sampling s;
  __device__ void operator()(int64_t i) const {
    voxel v = s.result.locate(i);
    tap t[3] = {s.tap_of(0, v.at[0]), s.tap_of(1, v.at[1]), s.tap_of(2, v.at[2])};
    float sum = 0;
    for (int k = 0; k < 8; k++) {
      float weight = 1;
      int64_t at[3];
      for (int a = 0; a < 3; a++) {
        bool high = k >> (2 - a) & 1;
        weight *= high ? t[a].weight : 1 - t[a].weight;
        at[a] = high ? t[a].high : t[a].low;
      }
      if (weight != 0) sum += weight * x[s.image.index(v.n, at[0], at[1], at[2], v.c)];
    }
    y[i] = sum;
  }
};

struct interpolate_backward_f {
  float *dx;
  const float *dy;
  sampling s;
  __device__ void operator()(int64_t i) const {
    voxel v = s.image.locate(i);
    int64_t first[3];
    for (int a = 0; a < 3; a++) first[a] = s.first_reader(a, v.at[a]);
    float sum = 0;
    for (int64_t ox = first[0]; ox < s.result.dim[1]; ox++) {
      tap tx = s.tap_of(0, ox);
      if (tx.low > v.at[0]) break;
      for (int64_t oy = first[1]; oy < s.result.dim[2]; oy++) {
        tap ty = s.tap_of(1, oy);
        if (ty.low > v.at[1]) break;
        float plane = share_of(tx, v.at[0]) * share_of(ty, v.at[1]);
        for (int64_t oz = first[2]; oz < s.result.dim[3]; oz++) {
          tap tz = s.tap_of(2, oz);
          if (tz.low > v.at[2]) break;
          sum += plane * share_of(tz, v.at[2]) * dy[s.result.index(v.n, ox, oy, oz, v.c)];
        }
      }
    }
    dx[i] = sum;
  }
};

static sampling sampling_of(const launch *l, const plugin_shape *image,
                            const plugin_shape *result) {
  sampling s = {};
  s.mode = (int)integer(l, "mode");
  s.align_corners = flag(l, "align_corners");
  for (int a = 0; a < 3; a++) s.scale[a] = l->host->number_at(l->call, "scale", a);
  s.image = volume_of(image);
  s.result = volume_of(result);
  return s;
}

CUDA_OP(interpolate) {
  return for_each_index(
      l, elements(out_shape(l, 0)),
      interpolate_f{out(l, 0), in(l, 0), sampling_of(l, in_shape(l, 0), out_shape(l, 0))});
}

CUDA_OP(interpolate_backward) {
  return for_each_index(
      l, elements(out_shape(l, 0)),
      interpolate_backward_f{out(l, 0), in(l, 0), sampling_of(l, out_shape(l, 0), in_shape(l, 0))});
}

} // namespace interpolate_kernels
