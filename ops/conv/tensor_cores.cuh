/* Convolutions with rounded factors, by tensor cores: the kernels of `precision: bf16` and `tf32`. Included
 * by conv.cu; tiles.h says which problem is cut how.
 *
 * A block of eight warps multiplies a tile of 128 rows with one of 32, 64 or 128 columns; a warp has 32
 * columns of the result and its part of the rows in registers (tiles.cuh). Factors come from memory 16
 * bytes at a time, f32 or bf16; so the channels of a group are a multiple of 4 or 8 there, filled up with
 * zeros by a copy where they are not. */
#ifndef STRATA_OPS_CONV_TENSOR_CORES_CUH
#define STRATA_OPS_CONV_TENSOR_CORES_CUH

#include "ops/conv/filters.cuh"
#include "ops/conv/library.cuh"
#include "ops/conv/tap_product.cuh"
#include "ops/conv/voxel_product.cuh"

namespace conv_kernels {

/* A convolution as it is cut, and what of the scratch memory is for what, in this order. */
struct tile_call {
  convolution c;
  conv_tiling t;
  tile_problem p;
  size_t filter_bytes, tap_bytes, gathered_bytes, other_bytes, sum_bytes;
};

static inline int64_t voxels_gathered(const convolution *c) {
  return c->batch * voxels_of(c->pass == CONVOLUTION_BACKWARD_DATA ? c->out : c->image);
}

/* Voxels times channels of what is computed, forward and for the data. */
static inline int64_t result_elements(const convolution *c) {
  return c->pass == CONVOLUTION_BACKWARD_DATA ? c->batch * voxels_of(c->image) * c->channels
                                              : c->batch * voxels_of(c->out) * c->features;
}

/* Of a factor that was copied. */
static inline size_t factor_bytes(const convolution *c) {
  return c->bf16 ? sizeof(uint16_t) : sizeof(float);
}

static inline tile_problem tile_problem_of(const convolution *c, const conv_tiling *t) {
  tile_problem p = {};
  p.is_data = c->pass == CONVOLUTION_BACKWARD_DATA;
  p.batch = (int)c->batch, p.groups = (int)c->groups, p.taps = (int)voxels_of(c->kernel);
  int in_width = (int)((p.is_data ? c->features : c->channels) / c->groups);
  p.out_width = (int)((p.is_data ? c->channels : c->features) / c->groups);
  p.gathered_width = (int)t->gathered_width, p.other_width = (int)t->other_width;
  size_t factor = factor_bytes(c);
  p.gathered_pitch =
      (unsigned)(p.groups * p.gathered_width * (t->copies_gathered ? factor : sizeof(float)));
  p.other_pitch = (unsigned)(p.groups * p.other_width * (t->copies_other ? factor : sizeof(float)));
  p.width = t->width;
  while (p.width >> p.width_bits > 1) p.width_bits++;
  if (t->width > 0) p.filter_depth = (int)tiles_over(in_width, t->width) * t->width;
  p.filter_columns = (int)filled_width(p.out_width, true);
  p.filter_pitch = (unsigned)(p.filter_columns * factor);
  p.window_taps = (int)t->window_taps;
  for (int a = 0; a < 3; a++) {
    p.axis[a] = tile_axis_of(c, a);
    p.from[a] = (int)(p.is_data ? c->out : c->image)[a];
    p.to[a] = (int)(p.is_data ? c->image : c->out)[a];
    p.windows[a] = p.is_data ? backward_windows(&p.axis[a]) : 1;
  }
  p.row_tiles = (int)t->row_tiles, p.column_tiles = (int)t->column_tiles;
  p.pieces = (int)t->pieces;
  p.is_even = p.out_width % 2 == 0;
  return p;
}

/* Bytes of the copy of an operand of `rows` times `own` channels; 0: it is read where it lies. `copies`, as
 * the tiling has it, becomes whether the kernel reads factors and not f32. The tiling is the one for f32,
 * so that sums are added in the same order. */
static inline size_t copy_bytes(const convolution *c, const plugin_tensor *x, int64_t rows,
                                int64_t own, int64_t width, bool *copies) {
  bool stored = x->dtype == PLUGIN_BF16, is_whole = own == width && own % TILE_WIDTH == 0;
  if (stored && is_whole) {
    *copies = true;
    return 0;
  }
  if (*copies) return aligned_bytes(rows * width, factor_bytes(c));
  return stored ? aligned_bytes(rows * width, sizeof(float)) : 0;
}

static inline tile_call tile_call_of(const convolution &c, const plugin_tensor *image,
                                     const plugin_tensor *result) {
  tile_call k = {};
  k.c = c;
  k.t = tiling_of(&c);
  k.t.fits &= ((uintptr_t)image->data | (uintptr_t)result->data) % 16 == 0;
  if (!k.t.fits) return k;
  bool is_data = c.pass == CONVOLUTION_BACKWARD_DATA;
  bool is_weight = c.pass == CONVOLUTION_BACKWARD_WEIGHT;
  k.gathered_bytes = copy_bytes(&c, is_data ? result : image, voxels_gathered(&c) * c.groups,
                                (is_data ? c.features : c.channels) / c.groups, k.t.gathered_width,
                                &k.t.copies_gathered);
  if (is_weight)
    k.other_bytes = copy_bytes(&c, result, c.batch * voxels_of(c.out) * c.groups,
                               c.features / c.groups, k.t.other_width, &k.t.copies_other);
  k.p = tile_problem_of(&c, &k.t);
  size_t factor = factor_bytes(&c);
  if (!is_weight) {
    k.filter_bytes =
        aligned_bytes(c.groups * k.p.taps * (int64_t)k.p.filter_depth * k.p.filter_columns, factor);
    k.tap_bytes = aligned_bytes(k.t.windows * k.t.window_taps, sizeof(window_tap));
  }
  int64_t sums = is_weight ? c.groups * k.t.rows * k.p.out_width : result_elements(&c);
  if (is_weight || k.t.pieces > 1) k.sum_bytes = aligned_bytes(k.t.pieces * sums, sizeof(float));
  return k;
}

static inline size_t tile_scratch(const tile_call *k) {
  return k->filter_bytes + k->tap_bytes + k->gathered_bytes + k->other_bytes + k->sum_bytes;
}

static inline unsigned tile_blocks(const tile_call *k) {
  return (unsigned)(k->t.row_tiles * k->t.column_tiles * k->t.windows * k->c.groups * k->t.pieces);
}

/* An operand as the kernels read it: where it is, or `bytes` of a copy in `room`. */
static inline status factor_of(const launch *l, const convolution *c, const source &x,
                               int64_t count, int64_t own, int64_t width, bool copies, size_t bytes,
                               char *room, const void **out) {
  *out = bytes ? room : x.at;
  if (bytes == 0) return OK;
  if (copies && c->bf16) return copy_rounded(l, room, x, count, own, width);
  return for_each_index(l, count * width, fill_up_f{{room, false}, x, own, width});
}

/* What a launch of multiply_taps reads and writes. */
struct tap_operands {
  const void *x, *filter, *taps;
  const float *bias;
  float *y;
};

template <typename E, typename T, typename F, int COLUMNS>
static status launch_taps(const launch *l, const tile_call *k, const tap_operands &o) {
  typedef tap_product<E, T, F, COLUMNS> how;
  return LAUNCH(l, multiply_taps<how>, tile_blocks(k), TILE_THREADS, how::BYTES, o.y,
                (const T *)o.x, (const F *)o.filter, (const window_tap *)o.taps, o.bias,
                result_elements(&k->c), k->p);
}

template <int COLUMNS>
static status launch_taps_of(const launch *l, const tile_call *k, const tap_operands &o) {
  if (k->c.tf32) return launch_taps<uint32_t, float, float, COLUMNS>(l, k, o);
  return k->t.copies_gathered ? launch_taps<uint16_t, uint16_t, uint16_t, COLUMNS>(l, k, o)
                              : launch_taps<uint16_t, float, uint16_t, COLUMNS>(l, k, o);
}

struct add_depth_pieces_f {
  float *y;
  const float *partials, *bias;
  int64_t count, channels, pieces;
  __device__ void operator()(int64_t i) const {
    float total = 0;
    for (int64_t k = 0; k < pieces; k++) total += partials[k * count + i];
    y[i] = total + (bias ? bias[i % channels] : 0.0f);
  }
};

/* PyTorch's filter as multiply_taps reads it. */
template <typename F>
static status pack_taps(const launch *l, const tile_call *k, int64_t in_width, const float *weight,
                        void *to) {
  const tile_problem &p = k->p;
  return for_each_index(l, k->c.groups * p.taps * (int64_t)p.filter_depth * p.filter_columns,
                        pack_f<F>{(F *)to, weight, in_width, p.out_width, p.filter_depth,
                                  p.filter_columns, p.taps, !p.is_data, false});
}

/* Forward and gradient of the data. `weight` is PyTorch's. */
static inline status run_taps(const launch *l, const tile_call *k, const source &x,
                              const float *weight, const float *bias, float *y) {
  const convolution *c = &k->c;
  const tile_problem &p = k->p;
  char *filter = (char *)l->scratch, *taps = filter + k->filter_bytes, *room = taps + k->tap_bytes;
  float *partials = (float *)(room + k->gathered_bytes);
  int64_t in_width = (p.is_data ? c->features : c->channels) / c->groups;
  bool is_cut = k->t.pieces > 1;
  tap_operands o = {nullptr, filter, taps, is_cut ? nullptr : bias, is_cut ? partials : y};
  status error =
      for_each_index(l, k->t.windows * k->t.window_taps, list_taps_f{(window_tap *)taps, p});
  if (!error)
    error = c->bf16 ? pack_taps<uint16_t>(l, k, in_width, weight, filter)
                    : pack_taps<float>(l, k, in_width, weight, filter);
  if (!error)
    error = factor_of(l, c, x, voxels_gathered(c) * c->groups, in_width, p.gathered_width,
                      k->t.copies_gathered, k->gathered_bytes, room, &o.x);
  if (error) return error;
  auto launch_columns = k->t.columns == 128  ? launch_taps_of<128>
                        : k->t.columns == 64 ? launch_taps_of<64>
                                             : launch_taps_of<32>;
  error = launch_columns(l, k, o);
  if (error || !is_cut) return error;
  int64_t count = result_elements(c);
  return for_each_index(
      l, count,
      add_depth_pieces_f{y, partials, bias, count, (int64_t)p.groups * p.out_width, k->t.pieces});
}

template <typename E, typename T, typename U, int COLUMNS>
static status launch_voxels(const launch *l, const tile_call *k, const void *x, const void *dy,
                            float *partials) {
  typedef voxel_product<E, T, U, COLUMNS> how;
  return LAUNCH(l, multiply_voxels<how>, tile_blocks(k), TILE_THREADS, how::BYTES, partials,
                (const T *)x, (const U *)dy, k->p);
}

template <int COLUMNS>
static status launch_voxels_of(const launch *l, const tile_call *k, const void *x, const void *dy,
                               float *partials) {
  if (k->c.tf32) return launch_voxels<uint32_t, float, float, COLUMNS>(l, k, x, dy, partials);
  if (k->t.copies_gathered)
    return k->t.copies_other
               ? launch_voxels<uint16_t, uint16_t, uint16_t, COLUMNS>(l, k, x, dy, partials)
               : launch_voxels<uint16_t, uint16_t, float, COLUMNS>(l, k, x, dy, partials);
  return k->t.copies_other
             ? launch_voxels<uint16_t, float, uint16_t, COLUMNS>(l, k, x, dy, partials)
             : launch_voxels<uint16_t, float, float, COLUMNS>(l, k, x, dy, partials);
}

/* Gradient of the weight. */
static inline status run_voxels(const launch *l, const tile_call *k, const source &x,
                                const source &dy, float *dweight) {
  const convolution *c = &k->c;
  char *room = (char *)l->scratch, *other_room = room + k->gathered_bytes;
  float *partials = (float *)(other_room + k->other_bytes);
  int64_t channels = c->channels / c->groups;
  const void *image, *result;
  status error = factor_of(l, c, x, voxels_gathered(c) * c->groups, channels, k->t.gathered_width,
                           k->t.copies_gathered, k->gathered_bytes, room, &image);
  if (!error)
    error = factor_of(l, c, dy, c->batch * voxels_of(c->out) * c->groups, k->p.out_width,
                      k->t.other_width, k->t.copies_other, k->other_bytes, other_room, &result);
  if (error) return error;
  auto launch_columns = k->t.columns == 128  ? launch_voxels_of<128>
                        : k->t.columns == 64 ? launch_voxels_of<64>
                                             : launch_voxels_of<32>;
  error = launch_columns(l, k, image, result, partials);
  if (error) return error;
  return add_weight_pieces(l, dweight, partials, channels, k->t.gathered_width, k->p.out_width,
                           k->p.taps, c->groups, k->t.pieces);
}

} // namespace conv_kernels

#endif
