/* Operators that only move numbers: each element of the result knows where it comes from.
 * ops/shape/<name>.c has the definitions. */
#include "data/label.h"
#include "device/cuda/groups.cuh"
#include "device/cuda/index.cuh"

namespace copies_kernels {

/* ---- concat, slice ------------------------------------------------------------------------------ */

/* Columns `offset` … of rows of `whole` elements, to or from rows of `part` elements of their own. */
struct columns {
  divisor whole_width, part_width;
  int64_t offset;

  __device__ int64_t in_whole(int64_t i) const {
    int64_t column, row = divide(i, &part_width, &column);
    return row * whole_width.value + offset + column;
  }
  /* What groups must not straddle. */
  int64_t rows() const {
    return whole_width.value | part_width.value | offset;
  }
};

struct put_columns {
  target whole;
  source part;
  columns c;
  template <int N> __device__ void at(int64_t i) const {
    store(whole, c.in_whole(i), load<N>(part, i));
  }
};

struct take_columns {
  target part;
  source whole;
  columns c;
  template <int N> __device__ void at(int64_t i) const {
    store(part, i, load<N>(whole, c.in_whole(i)));
  }
};

struct widen_columns { /* zeros around the part */
  target whole;
  source part;
  columns c;
  template <int N> __device__ void at(int64_t i) const {
    int64_t column, row = divide(i, &c.whole_width, &column);
    column -= c.offset;
    bool is_inside = column >= 0 && column < c.part_width.value;
    store(whole, i, is_inside ? load<N>(part, row * c.part_width.value + column) : numbers<N>{});
  }
};

CUDA_OP(concat) {
  const plugin_shape *y = out_shape(l, 0);
  int axis = chosen_axis(l, y);
  int64_t after = elements_after(y, axis), offset = 0;
  for (int k = 0; k < l->call->in_count; k++) {
    const plugin_shape *x = in_shape(l, k);
    columns c = {divide_by(y->dim[axis] * after), divide_by(x->dim[axis] * after), offset};
    status error =
        for_each_group(l, elements(x), c.rows(), put_columns{target_of(l, 0), source_of(l, k), c});
    if (error) return error;
    offset += c.part_width.value;
  }
  return OK;
}

/* Where `part`, a slice of `whole`, lies. */
static columns slice_of(const launch *l, const plugin_shape *whole, const plugin_shape *part) {
  int axis = chosen_axis(l, whole);
  int64_t after = elements_after(whole, axis);
  return {divide_by(whole->dim[axis] * after), divide_by(part->dim[axis] * after),
          integer(l, "start") * after};
}

CUDA_OP(slice) {
  columns c = slice_of(l, in_shape(l, 0), out_shape(l, 0));
  return for_each_group(l, elements(out_shape(l, 0)), c.rows(),
                        take_columns{target_of(l, 0), source_of(l, 0), c});
}

CUDA_OP(slice_backward) {
  columns c = slice_of(l, out_shape(l, 0), in_shape(l, 0));
  return for_each_group(l, elements(out_shape(l, 0)), c.rows(),
                        widen_columns{target_of(l, 0), source_of(l, 0), c});
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
  template <int N> __device__ void at(int64_t i) const {
    voxel v = shape.locate(i);
    int64_t from[3];
    for (int a = 0; a < 3; a++) {
      from[a] = v.at[a] + origin[a];
      if (from[a] >= shape.dim[1 + a]) from[a] -= shape.dim[1 + a];
    }
    store(y, i, load<N>(x, shape.index(v.n, from[0], from[1], from[2], v.c)));
  }
};

CUDA_OP(roll) {
  roll_f f = {target_of(l, 0), source_of(l, 0), volume_of(in_shape(l, 0)), {}};
  for (int a = 0; a < 3; a++) {
    int64_t shift = integer_at(l, "shift", a) % f.shape.dim[1 + a];
    f.origin[a] = shift > 0 ? f.shape.dim[1 + a] - shift : -shift;
  }
  return for_each_group(l, elements(out_shape(l, 0)), f.shape.dim[4], f);
}

struct permute_f {
  target y;
  source x;
  strides from;
  template <int N> __device__ void at(int64_t i) const {
    store(y, i, load<N>(x, from.offset(i)));
  }
};

CUDA_OP(permute) {
  const plugin_shape *x = in_shape(l, 0), *y = out_shape(l, 0);
  permute_f f = {target_of(l, 0), source_of(l, 0), {}};
  for (int d = 0; d < y->rank; d++) {
    int axis = d == 0 ? 0 : (int)integer_at(l, "axes", d - 1);
    add_axis(&f.from, y->dim[d], elements_after(x, axis));
  }
  return for_each_group(l, elements(y), f.from.rows(), f);
}

/* ---- patchify, space_to_channels --------------------------------------------------------------------- */

/* Where a voxel lies among the tokens. */
struct patches {
  volume_shape volume;
  divisor size[3];
  int64_t count[3];
  __device__ int64_t token_index(int64_t i) const {
    voxel v = volume.locate(i);
    int64_t token = v.n, within = 0;
    for (int a = 0; a < 3; a++) {
      int64_t rest;
      token = token * count[a] + divide(v.at[a], &size[a], &rest);
      within = within * size[a].value + rest;
    }
    token *= size[0].value * size[1].value * size[2].value;
    return (token + within) * volume.dim[4] + v.c;
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
  patches p = {volume_of(volume), {}, {}};
  for (int a = 0; a < 3; a++) {
    p.size[a] = divide_by(integer_at(l, "size", a));
    p.count[a] = volume->dim[1 + a] / p.size[a].value;
  }
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

constexpr int MOST_NAMED = 256; /* LIST_MAX of graph/op.h */

struct blocks {
  volume_shape volume, merged;
  divisor channels, factor[3];
  int kept, named; /* voxels of a block in the result; 0 named: all, as they are numbered */
  int order[MOST_NAMED];
};

static blocks blocks_of_launch(const launch *l, const plugin_shape *volume,
                               const plugin_shape *merged) {
  blocks b = {};
  b.volume = volume_of(volume);
  b.merged = volume_of(merged);
  b.channels = divide_by(b.volume.dim[4]);
  for (int a = 0; a < 3; a++) b.factor[a] = divide_by(integer_at(l, "factor", a));
  b.named = l->host->length(l->call, "order");
  for (int k = 0; k < b.named; k++) b.order[k] = (int)integer_at(l, "order", k);
  b.kept = b.named ? b.named : (int)(b.factor[0].value * b.factor[1].value * b.factor[2].value);
  return b;
}

struct merge_f {
  target y;
  source x;
  blocks b;
  template <int N> __device__ void at(int64_t i) const {
    voxel v = b.merged.locate(i);
    int64_t c, k = divide(v.c, &b.channels, &c), place[3];
    if (b.named) k = b.order[k];
    for (int a = 2; a >= 0; a--) k = divide(k, &b.factor[a], &place[a]);
    bool is_inside = true;
    for (int a = 0; a < 3; a++) {
      place[a] += v.at[a] * b.factor[a].value;
      is_inside = is_inside && place[a] < b.volume.dim[1 + a];
    }
    store(y, i,
          is_inside ? load<N>(x, b.volume.index(v.n, place[0], place[1], place[2], c))
                    : numbers<N>{});
  }
};

/* A voxel that the order names twice gets the sum, one that it leaves out gets 0. */
struct merge_backward_f {
  float *dx;
  const float *dy;
  blocks b;
  template <int N> __device__ void at(int64_t i) const {
    voxel v = b.volume.locate(i);
    int64_t block[3], number = 0;
    for (int a = 0; a < 3; a++) {
      int64_t within;
      block[a] = divide(v.at[a], &b.factor[a], &within);
      number = number * b.factor[a].value + within;
    }
    int64_t row = b.merged.index(v.n, block[0], block[1], block[2], v.c);
    numbers<N> sum = {};
    if (!b.named) sum = load<N>(dy, row + number * b.volume.dim[4]);
    for (int k = 0; k < b.named; k++) {
      if (b.order[k] != number) continue;
      numbers<N> next = load<N>(dy, row + k * b.volume.dim[4]);
      UNROLL for (int j = 0; j < N; j++) sum.at[j] += next.at[j];
    }
    store(dx, i, sum);
  }
};

CUDA_OP(space_to_channels) {
  blocks b = blocks_of_launch(l, in_shape(l, 0), out_shape(l, 0));
  return for_each_group(l, elements(out_shape(l, 0)), b.channels.value,
                        merge_f{target_of(l, 0), source_of(l, 0), b});
}
CUDA_OP(space_to_channels_backward) {
  blocks b = blocks_of_launch(l, out_shape(l, 0), in_shape(l, 0));
  return for_each_group(l, elements(out_shape(l, 0)), b.channels.value,
                        merge_backward_f{out(l, 0), in(l, 0), b});
}

/* ---- position_embedding ------------------------------------------------------------------------------ */

struct add_table {
  float *y;
  const float *x, *table;
  divisor length;
  __device__ void operator()(int64_t i) const {
    int64_t at;
    divide(i, &length, &at);
    y[i] = x[i] + table[at];
  }
};

CUDA_OP(position_embedding) {
  return for_each_index(
      l, elements(in_shape(l, 0)),
      add_table{out(l, 0), in(l, 0), in(l, 1), divide_by(elements(in_shape(l, 1)))});
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

/* ---- label_regions ------------------------------------------------------------------------------------- */

constexpr int MOST_CLASSES = 256; /* LIST_MAX of graph/op.h */

struct label_regions_f {
  int32_t *y;
  const int32_t *x;
  int classes;
  int sets[MOST_CLASSES];
  __device__ void operator()(int64_t i) const {
    int label = x[i];
    y[i] = label < 0 ? TARGET_UNKNOWN : label < classes ? sets[label] : 0;
  }
};

CUDA_OP(label_regions) {
  label_regions_f f = {out<int32_t>(l, 0), in<int32_t>(l, 0), l->host->length(l->call, "sets"), {}};
  for (int c = 0; c < f.classes; c++) f.sets[c] = (int)integer_at(l, "sets", c);
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

} // namespace copies_kernels
