/* Operators that only move numbers: each element of the result knows where it comes from.
 * ops/shape/<name>.c has the definitions. */
#include "device/cuda/index.cuh"
#include "device/cuda/stored.cuh"

namespace copies_kernels {

/* ---- concat, slice ------------------------------------------------------------------------------ */

/* Columns `offset` … of rows of `whole` elements, to or from rows of `part` elements of their own. */
struct put_columns {
  target whole;
  source part;
  int64_t whole_width, part_width, offset;
  __device__ void operator()(int64_t i) const {
    whole[i / part_width * whole_width + offset + i % part_width] = part[i];
  }
};

struct take_columns {
  target part;
  source whole;
  int64_t whole_width, part_width, offset;
  __device__ void operator()(int64_t i) const {
    part[i] = whole[i / part_width * whole_width + offset + i % part_width];
  }
};

struct widen_columns { /* zeros around the part */
  target whole;
  source part;
  int64_t whole_width, part_width, offset;
  __device__ void operator()(int64_t i) const {
    int64_t column = i % whole_width - offset;
    whole[i] =
        column >= 0 && column < part_width ? part[i / whole_width * part_width + column] : 0.0f;
  }
};

CUDA_OP(concat) {
  const plugin_shape *y = out_shape(l, 0);
  int axis = chosen_axis(l, y);
  int64_t width = y->dim[axis] * elements_after(y, axis), offset = 0;
  for (int k = 0; k < l->call->in_count; k++) {
    const plugin_shape *x = in_shape(l, k);
    int64_t part = x->dim[axis] * elements_after(x, axis);
    status error = for_each_index(
        l, elements(x), put_columns{target_of(l, 0), source_of(l, k), width, part, offset});
    if (error) return error;
    offset += part;
  }
  return OK;
}

CUDA_OP(slice) {
  const plugin_shape *x = in_shape(l, 0), *y = out_shape(l, 0);
  int axis = chosen_axis(l, x);
  int64_t stride = elements_after(x, axis);
  return for_each_index(l, elements(y),
                        take_columns{target_of(l, 0), source_of(l, 0), x->dim[axis] * stride,
                                     y->dim[axis] * stride, integer(l, "start") * stride});
}

CUDA_OP(slice_backward) {
  const plugin_shape *part = in_shape(l, 0), *whole = out_shape(l, 0);
  int axis = chosen_axis(l, whole);
  int64_t stride = elements_after(whole, axis);
  return for_each_index(l, elements(whole),
                        widen_columns{target_of(l, 0), source_of(l, 0), whole->dim[axis] * stride,
                                      part->dim[axis] * stride, integer(l, "start") * stride});
}

/* ---- crop_volume, pad_volume --------------------------------------------------------------------- */

struct crop_f {
  target y;
  source x;
  volume_shape from, to;
  int64_t start[3];
  __device__ void operator()(int64_t i) const {
    voxel v = to.locate(i);
    y[i] = x[from.index(v.n, v.at[0] + start[0], v.at[1] + start[1], v.at[2] + start[2], v.c)];
  }
};

CUDA_OP(crop_volume) {
  crop_f f = {
      target_of(l, 0), source_of(l, 0), volume_of(in_shape(l, 0)), volume_of(out_shape(l, 0)), {}};
  for (int a = 0; a < 3; a++) {
    int64_t start = integer_at(l, "start", a); /* −1: centred */
    f.start[a] = start >= 0 ? start : (f.from.dim[1 + a] - f.to.dim[1 + a]) / 2;
  }
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

enum { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE, PAD_CIRCULAR };

/* Where position i, counted from the first voxel of x, is read; −1: nowhere. */
static __device__ inline int64_t padding_source(int mode, int64_t i, int64_t extent) {
  if (i >= 0 && i < extent) return i;
  if (mode == PAD_REFLECT) return i < 0 ? -i : 2 * (extent - 1) - i;
  if (mode == PAD_REPLICATE) return i < 0 ? 0 : extent - 1;
  if (mode == PAD_CIRCULAR) return i < 0 ? i + extent : i - extent;
  return -1;
}

struct pad_f {
  target y;
  source x;
  volume_shape from, to;
  int64_t before[3];
  int mode;
  float value;
  __device__ void operator()(int64_t i) const {
    voxel v = to.locate(i);
    int64_t at[3];
    bool is_inside = true;
    for (int a = 0; a < 3; a++) {
      at[a] = padding_source(mode, v.at[a] - before[a], from.dim[1 + a]);
      is_inside = is_inside && at[a] >= 0;
    }
    y[i] = is_inside ? x[from.index(v.n, at[0], at[1], at[2], v.c)] : value;
  }
};

/* Everything of dy that was read from a voxel, in the order of dy. Along an axis at most three
 * positions read one voxel. */
struct pad_backward_f {
  float *dx;
  const float *dy;
  volume_shape from, to; /* dy, dx */
  int64_t before[3];
  int mode;
  __device__ void operator()(int64_t i) const {
    voxel v = to.locate(i);
    float sum = 0;
    for (int64_t x = 0; x < from.dim[1]; x++) {
      if (padding_source(mode, x - before[0], to.dim[1]) != v.at[0]) continue;
      for (int64_t y = 0; y < from.dim[2]; y++) {
        if (padding_source(mode, y - before[1], to.dim[2]) != v.at[1]) continue;
        for (int64_t z = 0; z < from.dim[3]; z++)
          if (padding_source(mode, z - before[2], to.dim[3]) == v.at[2])
            sum += dy[from.index(v.n, x, y, z, v.c)];
      }
    }
    dx[i] = sum;
  }
};

CUDA_OP(pad_volume) {
  pad_f f = {target_of(l, 0),
             source_of(l, 0),
             volume_of(in_shape(l, 0)),
             volume_of(out_shape(l, 0)),
             {},
             0,
             number_f(l, "value")};
  f.mode = (int)integer(l, "mode");
  for (int a = 0; a < 3; a++) f.before[a] = integer_at(l, "before", a);
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

CUDA_OP(pad_volume_backward) {
  pad_backward_f f = {out(l, 0), in(l, 0), volume_of(in_shape(l, 0)), volume_of(out_shape(l, 0)),
                      {},        0};
  f.mode = (int)integer(l, "mode");
  for (int a = 0; a < 3; a++) f.before[a] = integer_at(l, "before", a);
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

/* ---- roll, permute ---------------------------------------------------------------------------------- */

struct roll_f {
  target y;
  source x;
  volume_shape shape;
  int64_t origin[3]; /* the position in x of position 0 of the result */
  __device__ void operator()(int64_t i) const {
    voxel v = shape.locate(i);
    int64_t at[3];
    for (int a = 0; a < 3; a++) at[a] = (v.at[a] + origin[a]) % shape.dim[1 + a];
    y[i] = x[shape.index(v.n, at[0], at[1], at[2], v.c)];
  }
};

CUDA_OP(roll) {
  roll_f f = {target_of(l, 0), source_of(l, 0), volume_of(in_shape(l, 0)), {}};
  for (int a = 0; a < 3; a++) {
    int64_t shift = integer_at(l, "shift", a) % f.shape.dim[1 + a];
    f.origin[a] = shift > 0 ? f.shape.dim[1 + a] - shift : -shift;
  }
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

struct permute_f {
  target y;
  source x;
  strides at;
  __device__ void operator()(int64_t i) const {
    y[i] = x[at.offset(i)];
  }
};

CUDA_OP(permute) {
  const plugin_shape *x = in_shape(l, 0), *y = out_shape(l, 0);
  permute_f f = {target_of(l, 0), source_of(l, 0), {}};
  for (int d = 0; d < y->rank; d++) {
    int axis = d == 0 ? 0 : (int)integer_at(l, "axes", d - 1);
    add_axis(&f.at, y->dim[d], elements_after(x, axis));
  }
  return for_each_index(l, elements(y), f);
}

/* ---- patchify, space_to_channels --------------------------------------------------------------------- */

/* Where a voxel lies among the tokens. */
struct patches {
  volume_shape volume;
  int64_t size[3];
  __device__ int64_t token_index(int64_t i) const {
    voxel v = volume.locate(i);
    int64_t token = v.n, within = 0;
    for (int a = 0; a < 3; a++) {
      token = token * (volume.dim[1 + a] / size[a]) + v.at[a] / size[a];
      within = within * size[a] + v.at[a] % size[a];
    }
    return (token * size[0] * size[1] * size[2] + within) * volume.dim[4] + v.c;
  }
};

struct patchify_f {
  target tokens;
  source volume;
  patches p;
  __device__ void operator()(int64_t i) const {
    tokens[p.token_index(i)] = volume[i];
  }
};

struct unpatchify_f {
  target volume;
  source tokens;
  patches p;
  __device__ void operator()(int64_t i) const {
    volume[i] = tokens[p.token_index(i)];
  }
};

static patches patches_of(const launch *l, const plugin_shape *volume) {
  patches p = {volume_of(volume), {}};
  for (int a = 0; a < 3; a++) p.size[a] = integer_at(l, "size", a);
  return p;
}

CUDA_OP(patchify) {
  return for_each_index(
      l, elements(in_shape(l, 0)),
      patchify_f{target_of(l, 0), source_of(l, 0), patches_of(l, in_shape(l, 0))});
}
CUDA_OP(unpatchify) {
  return for_each_index(
      l, elements(out_shape(l, 0)),
      unpatchify_f{target_of(l, 0), source_of(l, 0), patches_of(l, out_shape(l, 0))});
}

constexpr int MOST_NAMED = 16; /* LIST_MAX of graph/op.h */

struct blocks {
  volume_shape volume, merged;
  int64_t factor[3];
  int kept, named; /* voxels of a block in the result; 0 named: all, as they are numbered */
  int64_t order[MOST_NAMED];
};

static blocks blocks_of_launch(const launch *l, const plugin_shape *volume,
                               const plugin_shape *merged) {
  blocks b = {};
  b.volume = volume_of(volume);
  b.merged = volume_of(merged);
  for (int a = 0; a < 3; a++) b.factor[a] = integer_at(l, "factor", a);
  b.named = l->host->length(l->call, "order");
  for (int k = 0; k < b.named; k++) b.order[k] = integer_at(l, "order", k);
  b.kept = b.named ? b.named : (int)(b.factor[0] * b.factor[1] * b.factor[2]);
  return b;
}

struct merge_f {
  target y;
  source x;
  blocks b;
  __device__ void operator()(int64_t i) const {
    voxel v = b.merged.locate(i);
    int64_t channels = b.volume.dim[4], k = v.c / channels, c = v.c % channels;
    if (b.named) k = b.order[k];
    int64_t at[3] = {v.at[0] * b.factor[0] + k / (b.factor[1] * b.factor[2]),
                     v.at[1] * b.factor[1] + k / b.factor[2] % b.factor[1],
                     v.at[2] * b.factor[2] + k % b.factor[2]};
    bool is_inside = at[0] < b.volume.dim[1] && at[1] < b.volume.dim[2] && at[2] < b.volume.dim[3];
    y[i] = is_inside ? x[b.volume.index(v.n, at[0], at[1], at[2], c)] : 0.0f;
  }
};

/* A voxel that the order names twice gets the sum, one that it leaves out gets 0. */
struct merge_backward_f {
  float *dx;
  const float *dy;
  blocks b;
  __device__ void operator()(int64_t i) const {
    voxel v = b.volume.locate(i);
    int64_t block[3], number = 0;
    for (int a = 0; a < 3; a++) {
      block[a] = v.at[a] / b.factor[a];
      number = number * b.factor[a] + v.at[a] % b.factor[a];
    }
    int64_t row = b.merged.index(v.n, block[0], block[1], block[2], v.c);
    float sum = 0;
    if (!b.named) sum = dy[row + number * b.volume.dim[4]];
    for (int k = 0; k < b.named; k++)
      if (b.order[k] == number) sum += dy[row + k * b.volume.dim[4]];
    dx[i] = sum;
  }
};

CUDA_OP(space_to_channels) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        merge_f{target_of(l, 0), source_of(l, 0),
                                blocks_of_launch(l, in_shape(l, 0), out_shape(l, 0))});
}
CUDA_OP(space_to_channels_backward) {
  return for_each_index(
      l, elements(out_shape(l, 0)),
      merge_backward_f{out(l, 0), in(l, 0), blocks_of_launch(l, out_shape(l, 0), in_shape(l, 0))});
}

/* ---- position_embedding ------------------------------------------------------------------------------ */

struct add_table {
  float *y;
  const float *x, *table;
  int64_t length;
  __device__ void operator()(int64_t i) const {
    y[i] = x[i] + table[i % length];
  }
};

CUDA_OP(position_embedding) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        add_table{out(l, 0), in(l, 0), in(l, 1), elements(in_shape(l, 1))});
}

struct sum_samples_f {
  float *y;
  const float *x;
  int64_t samples, length;
  __device__ void operator()(int64_t i) const {
    float sum = x[i];
    for (int64_t n = 1; n < samples; n++) sum += x[n * length + i];
    y[i] = sum;
  }
};

CUDA_OP(sum_samples) {
  int64_t length = elements(out_shape(l, 0));
  return for_each_index(l, length,
                        sum_samples_f{out(l, 0), in(l, 0), in_shape(l, 0)->dim[0], length});
}

/* ---- downsample_label --------------------------------------------------------------------------------- */

struct downsample_f {
  int32_t *y;
  const int32_t *x;
  volume_shape from, to;
  int64_t factor[3];
  __device__ void operator()(int64_t i) const {
    voxel v = to.locate(i);
    y[i] = x[from.index(v.n, v.at[0] * factor[0], v.at[1] * factor[1], v.at[2] * factor[2], 0)];
  }
};

CUDA_OP(downsample_label) {
  downsample_f f = {out<int32_t>(l, 0),
                    in<int32_t>(l, 0),
                    volume_of(in_shape(l, 0)),
                    volume_of(out_shape(l, 0)),
                    {}};
  for (int a = 0; a < 3; a++) f.factor[a] = integer_at(l, "factor", a);
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

} // namespace copies_kernels
