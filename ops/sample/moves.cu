/* Crops, flips and turns with a change of intensity, turned and bent crops, and class numbers for
 * the step. */
#include "data/label.h"
#include "data/recipe.h"
#include "ops/sample/lines.cuh"

#include "ops/sample/warp_rules.h"

namespace moves_changes {

/* Image and label before and after. */
struct moved {
  sample_grid from, to;
  const float *image;
  const uint8_t *label;
  float *new_image;
  uint8_t *new_label;
};

moved moved_of(const launch *l) {
  moved m = {
      grid_of(in_shape(l, 0)), grid_of(out_shape(l, 0)), in(l, 0), in<uint8_t>(l, 1), out(l, 0),
      out<uint8_t>(l, 1)};
  return m;
}

/* ---- data/grid.h ---- */

struct regrid_f {
  moved m;
  move_change change;

  __device__ void operator()(int64_t voxel) const {
    int64_t index[3], from[3];
    m.to.place(voxel, index);
    for (int a = 0; a < 3; a++) {
      int64_t i = change.map.flip[a] ? -index[a] : index[a];
      from[change.map.axis[a]] = change.map.start[a] + i;
    }
    bool within = true;
    for (int a = 0; a < 3; a++) within = within && from[a] >= 0 && from[a] < m.from.size[a];
    int64_t old = (from[0] * m.from.size[1] + from[1]) * m.from.size[2] + from[2];
    for (int64_t c = 0; c < m.to.channels; c++) {
      float v = within ? m.image[old * m.to.channels + c] : change.fill;
      m.new_image[voxel * m.to.channels + c] = v * change.intensity.scale + change.intensity.shift;
    }
    if (m.new_label) m.new_label[voxel] = within ? m.label[old] : 0;
  }
};

CUDA_OP(move_voxels) {
  moved m = moved_of(l);
  return for_each_index(l, m.to.voxels, regrid_f{m, change_of<move_change>(l)});
}

/* ---- warp_case of ops/sample/warp.c ---- */

__device__ void read_at(const moved &m, int64_t voxel, int outside, double at[3]) {
  if (outside == OUTSIDE_EDGE) warp_move_inside(m.from.size, at);
  warp_read_image(m.image, m.from.size, m.from.channels, at, m.new_image + voxel * m.to.channels);
  if (m.new_label) m.new_label[voxel] = warp_read_label(m.label, m.from.size, at);
}

struct turn_f {
  moved m;
  turn_change change;

  __device__ void operator()(int64_t voxel) const {
    int64_t index[3];
    double at[3];
    m.to.place(voxel, index);
    turn_rule(&change, index, at);
    read_at(m, voxel, change.outside, at);
  }
};

CUDA_OP(random_affine) {
  moved m = moved_of(l);
  return for_each_index(l, m.to.voxels, turn_f{m, change_of<turn_change>(l)});
}

struct noise_field_f {
  float *field;
  rng random;

  __device__ void operator()(int64_t i) const {
    field[i] = elastic_noise(draw_unit(draw_ahead(&random, (uint64_t)i)));
  }
};

struct bend_f {
  moved m;
  sample_grid grid; /* of the field */
  const float *field;
  float magnitude;
  int normal, outside;

  __device__ void operator()(int64_t voxel) const {
    int64_t index[3], place = 0;
    double at[3];
    m.to.place(voxel, index);
    for (int a = 0; a < 3; a++)
      if (a != normal) place = place * grid.size[a] + index[a];
    elastic_rule(field + place * grid.channels, magnitude, normal, index, at);
    read_at(m, voxel, outside, at);
  }
};

/* A value for each axis that voxels are displaced along. */
sample_grid field_grid(const launch *l) {
  sample_grid g = grid_of(in_shape(l, 0));
  int normal = change_of<elastic_change>(l).normal;
  g.channels = normal < 0 ? 3 : 2;
  if (normal >= 0) {
    g.voxels /= g.size[normal];
    g.size[normal] = 1;
  }
  return g;
}

CUDA_SCRATCH(random_elastic) {
  sample_grid g = field_grid(l);
  return (size_t)(2 * g.voxels * g.channels) * sizeof(float); /* and another for the filter */
}
CUDA_OP(random_elastic) {
  const elastic_change &change = change_of<elastic_change>(l);
  sample_grid g = field_grid(l);
  const int64_t values = g.voxels * g.channels;
  float *field = (float *)l->scratch;
  unsigned axes = change.normal < 0 ? 7 : 7 & ~(1u << change.normal);
  status error = for_each_index(l, values, noise_field_f{field, change.random});
  if (!error)
    error = filter_axes(l, field, field + values, &g, ALL_CHANNELS, axes,
                        [&](float *to, const float *from, int axis) {
                          return smooth_f{to, from, line_along(&g, axis), change.smoothing};
                        });
  if (error) return error;
  moved m = moved_of(l);
  return for_each_index(l, m.to.voxels,
                        bend_f{m, g, field, change.magnitude, change.normal, change.outside});
}

/* ---- a byte a voxel becomes what the step reads ---- */

struct widen_f {
  int32_t *to;
  const uint8_t *from;
  __device__ void operator()(int64_t i) const {
    to[i] = from[i] == LABEL_UNKNOWN ? (int32_t)TARGET_UNKNOWN : from[i];
  }
};

CUDA_OP(widen_classes) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        widen_f{out<int32_t>(l, 0), in<uint8_t>(l, 0)});
}

} // namespace moves_changes
