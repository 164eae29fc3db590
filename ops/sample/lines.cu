/* random_blur and random_low_resolution; ops/sample/<name>.c have the definitions. */
#include "ops/sample/lines.cuh"

namespace lines_changes {

struct coarsen_f {
  float *to;
  const float *from;
  line_place line;
  int64_t m;

  __device__ void operator()(int64_t i) const {
    int64_t k = line.at(i);
    to[i] = coarse_rule(from + (i - k * line.stride), line.stride, line.n, m, k);
  }
};

size_t image_bytes(const launch *l) {
  return (size_t)elements(in_shape(l, 0)) * sizeof(float);
}

CUDA_SCRATCH(random_blur) {
  return image_bytes(l);
}
CUDA_OP(random_blur) {
  sample_grid g = grid_of(in_shape(l, 0));
  const blur_change &change = change_of<blur_change>(l);
  return filter_axes(l, out(l, 0), (float *)l->scratch, &g, change.channel, 7,
                     [&](float *to, const float *from, int axis) {
                       return smooth_f{to, from, line_along(&g, axis), change.along[axis]};
                     });
}

CUDA_SCRATCH(random_low_resolution) {
  return image_bytes(l);
}
CUDA_OP(random_low_resolution) {
  sample_grid g = grid_of(in_shape(l, 0));
  const coarse_change &change = change_of<coarse_change>(l);
  return filter_axes(
      l, out(l, 0), (float *)l->scratch, &g, change.channel, change.axes,
      [&](float *to, const float *from, int axis) {
        return coarsen_f{to, from, line_along(&g, axis), coarse_count(g.size[axis], change.zoom)};
      });
}

} // namespace lines_changes
