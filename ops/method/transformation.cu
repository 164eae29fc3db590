/* The transformation module and its kin: what is done at random to the volumes that the network
 * then has to make sense of. ops/method/<name>.c have the definitions. One thread draws what is to
 * happen to a sample, in the order of the CPU's kernels; then all move voxels. */
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"
#include "ops/method/cutout.h"
#include "ops/method/turns.h"

#include <cstring>

namespace transformation_kernels {

enum { OUT_IMAGE, OUT_MASK };

/* ---- hidden voxels: ops/method/fill.h ---------------------------------------------------------------- */

enum { FILL_ZERO, FILL_MEAN, FILL_NOISE };

/* Sum n · channels + c of a volume's channel; the mean of what was there. */
struct channel_terms {
  const float *image;
  int64_t voxels, channels;
  __device__ float operator()(int64_t s, int64_t i) const {
    return image[(s / channels * voxels + i) * channels + s % channels];
  }
};

struct store_mean {
  float *means;
  double voxels;
  __device__ void operator()(int64_t s, double total) const {
    means[s] = (float)(total / voxels);
  }
};

struct fill_f {
  float *out;
  const float *image, *mask, *means;
  volume_shape volume, grid;
  const rng_key *keys;
  uint64_t node;
  int kind;
  float low, width;

  __device__ bool is_hidden(int64_t n, int64_t x, int64_t y, int64_t z) const {
    int64_t at[3] = {x, y, z};
    for (int a = 0; a < 3; a++) at[a] /= volume.dim[1 + a] / grid.dim[1 + a];
    return mask[grid.index(n, at[0], at[1], at[2], 0)] != 0;
  }
  __device__ void operator()(int64_t i) const {
    voxel v = volume.locate(i);
    if (!is_hidden(v.n, v.at[0], v.at[1], v.at[2]))
      out[i] = image[i];
    else if (kind == FILL_MEAN)
      out[i] = means[v.n * volume.dim[4] + v.c];
    else if (kind == FILL_ZERO)
      out[i] = 0;
  }
};

/* Noise is drawn plane by plane, one number for each hidden value in their order. A block walks a
 * plane; its threads take values in turn and count the hidden ones before them. */
static __global__ void fill_noise(fill_f f) {
  __shared__ int64_t before;
  __shared__ int counts[THREADS];
  int64_t n = blockIdx.x / f.volume.dim[1], x = blockIdx.x % f.volume.dim[1];
  int64_t count = f.volume.dim[2] * f.volume.dim[3] * f.volume.dim[4];
  int64_t base = (int64_t)blockIdx.x * count;
  rng stream = open_stream(f.keys[n], mix_hash(f.node, 1 + (uint64_t)x));
  if (threadIdx.x == 0) before = 0;
  for (int64_t first = 0; first < count; first += blockDim.x) {
    int64_t i = first + threadIdx.x, row = i / f.volume.dim[4];
    bool hidden = i < count && f.is_hidden(n, x, row / f.volume.dim[3], row % f.volume.dim[3]);
    counts[threadIdx.x] = hidden;
    __syncthreads();
    int64_t rank = before;
    for (unsigned t = 0; t < threadIdx.x; t++) rank += counts[t];
    if (hidden) {
      uint32_t bits[4];
      random_block(stream, (uint32_t)(rank / 4), bits);
      f.out[base + i] = f.low + f.width * draw_unit(bits[rank % 4]);
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) before = rank + hidden;
  }
}

/* Scratch: the means, then the sums' partials. */
static size_t means_bytes(const plugin_shape *image) {
  return ((size_t)(image->dim[0] * image->dim[4]) * sizeof(float) + 255) / 256 * 256;
}

static size_t fill_scratch(const launch *l) {
  const plugin_shape *image = in_shape(l, 0);
  if (integer(l, "fill") != FILL_MEAN) return 0;
  int64_t sums = image->dim[0] * image->dim[4];
  return means_bytes(image) + sum_scratch(sums, elements(image) / sums);
}

static status fill_hidden(const launch *l, void *scratch) {
  const plugin_shape *image = in_shape(l, 0);
  fill_f f = {};
  f.out = out(l, OUT_IMAGE);
  f.image = in(l, 0);
  f.mask = out(l, OUT_MASK);
  f.means = (float *)scratch;
  f.volume = volume_of(image);
  f.grid = volume_of(out_shape(l, OUT_MASK));
  f.keys = l->call->rng_keys;
  f.node = l->call->node_id;
  f.kind = (int)integer(l, "fill");
  f.low = (float)l->host->number_at(l->call, "noise", 0);
  f.width = (float)l->host->number_at(l->call, "noise", 1) - f.low;
  if (f.kind == FILL_MEAN) {
    int64_t sums = image->dim[0] * image->dim[4], voxels = elements(image) / sums;
    launch rest = *l;
    rest.scratch = (char *)scratch + means_bytes(image);
    status error = sum_each(&rest, sums, voxels, channel_terms{f.image, voxels, image->dim[4]},
                            store_mean{(float *)scratch, (double)voxels});
    if (error) return error;
  }
  status error = for_each_index(l, elements(image), f);
  if (error || f.kind != FILL_NOISE) return error;
  return LAUNCH(l, fill_noise, (unsigned)(image->dim[0] * image->dim[1]), THREADS, 0, f);
}

/* ---- mask_patches -------------------------------------------------------------------------------------- */

struct draw_patches {
  float *mask;
  int32_t *order;
  const rng_key *keys;
  uint64_t node;
  int64_t patches;
  scheduled_number ratio;
  __device__ void operator()(int64_t n) const {
    /* Rounded down, but 0.29 of 100 is 29 although 0.29 · 100 falls just short of it. */
    int64_t masked = (int64_t)floor(ratio * (double)patches + 1e-9);
    rng r = open_stream(keys[n], node);
    draw_permutation(&r, order + n * patches, (int32_t)patches);
    for (int64_t i = 0; i < patches; i++) mask[n * patches + i] = 0;
    for (int64_t i = 0; i < masked; i++) mask[n * patches + order[n * patches + i]] = 1;
  }
};

static size_t order_bytes(const launch *l) {
  return ((size_t)elements(out_shape(l, OUT_MASK)) * sizeof(int32_t) + 255) / 256 * 256;
}

CUDA_SCRATCH(mask_patches) {
  return order_bytes(l) + fill_scratch(l);
}

CUDA_OP(mask_patches) {
  int64_t samples = in_shape(l, 0)->dim[0], patches = elements(out_shape(l, OUT_MASK)) / samples;
  status error =
      for_each_index(l, samples,
                     draw_patches{out(l, OUT_MASK), (int32_t *)l->scratch, l->call->rng_keys,
                                  l->call->node_id, patches, scheduled(l, "ratio")});
  return error ? error : fill_hidden(l, (char *)l->scratch + order_bytes(l));
}

/* ---- cutout -------------------------------------------------------------------------------------------- */

enum { VOXELS_PER_THREAD = 16 };

struct box {
  int first[3], end[3];
};

/* Of a sample. */
struct drawn_boxes {
  bool are_hidden, are_visible; /* the boxes alone; neither: nothing is hidden */
  int count;
  box list[CUTOUT_MOST_BOXES];
};

struct cutout_f {
  float *mask;
  const rng_key *keys;
  uint64_t node;
  int64_t dim[3], margin[3], boxes;
  double inner, outer, inner_size[2], outer_size[2];
  scheduled_number another;

  /* Bounds of a box's extent in voxels; ops/method/cutout.c. */
  __device__ void extents(const double size[2], int64_t side, int64_t *least, int64_t *most) const {
    *least = (int64_t)floor(size[0] * (double)side + 1e-3);
    *most = (int64_t)floor(size[1] * (double)side + 1e-3);
    if (*least < 1) *least = 1;
    if (*most < *least) *most = *least;
  }
  __device__ void draw(int64_t n, drawn_boxes *out) const {
    rng r = open_stream(keys[n], node);
    double luck = (double)draw_uniform(&r);
    bool is_inner = luck < inner, is_outer = !is_inner && luck < inner + outer;
    out->are_hidden = is_inner;
    out->are_visible = is_outer;
    out->count = 0;
    for (int64_t k = 0; (is_inner || is_outer) && k < boxes; k++) {
      if (!(is_outer && k == 0) && (double)draw_uniform(&r) >= another) break;
      box *next = &out->list[out->count++];
      int64_t size[3];
      for (int a = 0; a < 3; a++) {
        int64_t least, most;
        extents(is_inner ? inner_size : outer_size, dim[a], &least, &most);
        size[a] = least + draw_below(&r, (uint32_t)(most - least + 1));
      }
      for (int a = 0; a < 3; a++) {
        uint32_t places = (uint32_t)(dim[a] - size[a] - 2 * margin[a] + 1);
        next->first[a] = (int)(margin[a] + draw_below(&r, places));
        next->end[a] = next->first[a] + (int)size[a];
      }
    }
  }
  __device__ bool is_in_box(const drawn_boxes &drawn, int64_t voxel) const {
    int at[3] = {(int)(voxel / (dim[1] * dim[2])), (int)(voxel / dim[2] % dim[1]),
                 (int)(voxel % dim[2])};
    for (int k = 0; k < drawn.count; k++) {
      const box &b = drawn.list[k];
      bool is_inside = true;
      for (int a = 0; a < 3; a++) is_inside &= at[a] >= b.first[a] && at[a] < b.end[a];
      if (is_inside) return true;
    }
    return false;
  }
};

/* Every block draws the boxes of its sample, which is less than waiting for one that does. */
static __global__ void mark_boxes(cutout_f f, int64_t blocks_per_sample) {
  __shared__ drawn_boxes drawn;
  int64_t n = blockIdx.x / blocks_per_sample, part = blockIdx.x % blocks_per_sample;
  int64_t voxels = f.dim[0] * f.dim[1] * f.dim[2];
  if (threadIdx.x == 0) f.draw(n, &drawn);
  __syncthreads();
  for (int k = 0; k < VOXELS_PER_THREAD; k++) {
    int64_t i = (part * VOXELS_PER_THREAD + k) * THREADS + threadIdx.x;
    if (i >= voxels) return;
    bool is_in = f.is_in_box(drawn, i);
    f.mask[n * voxels + i] = (drawn.are_hidden && is_in) || (drawn.are_visible && !is_in) ? 1 : 0;
  }
}

CUDA_SCRATCH(cutout) {
  return fill_scratch(l);
}

CUDA_OP(cutout) {
  cutout_f f = {};
  f.mask = out(l, OUT_MASK);
  f.keys = l->call->rng_keys;
  f.node = l->call->node_id;
  for (int a = 0; a < 3; a++) {
    f.dim[a] = in_shape(l, 0)->dim[1 + a];
    f.margin[a] = integer_at(l, "margin", a);
  }
  f.boxes = integer(l, "boxes");
  f.inner = number(l, "inner");
  f.outer = number(l, "outer");
  f.another = scheduled(l, "another");
  for (int k = 0; k < 2; k++) {
    f.inner_size[k] = l->host->number_at(l->call, "inner_size", k);
    f.outer_size[k] = l->host->number_at(l->call, "outer_size", k);
  }
  int64_t voxels = f.dim[0] * f.dim[1] * f.dim[2], samples = in_shape(l, 0)->dim[0];
  int64_t per_block = VOXELS_PER_THREAD * THREADS, blocks = (voxels + per_block - 1) / per_block;
  status error = LAUNCH(l, mark_boxes, (unsigned)(samples * blocks), THREADS, 0, f, blocks);
  return error ? error : fill_hidden(l, l->scratch);
}

/* ---- shuffle_cells, shuffle_voxels ------------------------------------------------------------------------ */

struct draw_order {
  int32_t *order;
  const rng_key *keys;
  uint64_t node;
  int64_t count;
  __device__ void operator()(int64_t n) const {
    rng r = open_stream(keys[n], node);
    draw_permutation(&r, order + n * count, (int32_t)count);
  }
};

struct shuffle_f {
  float *y;
  const float *x;
  const int32_t *order;
  volume_shape volume;
  int64_t cells[3];
  __device__ void operator()(int64_t i) const {
    voxel v = volume.locate(i);
    int64_t extent[3], cell = 0;
    for (int a = 0; a < 3; a++) {
      extent[a] = volume.dim[1 + a] / cells[a];
      cell = cell * cells[a] + v.at[a] / extent[a];
    }
    int64_t from = order[v.n * cells[0] * cells[1] * cells[2] + cell], at[3];
    for (int a = 2; a >= 0; a--) {
      at[a] = from % cells[a] * extent[a] + v.at[a] % extent[a];
      from /= cells[a];
    }
    y[i] = x[volume.index(v.n, at[0], at[1], at[2], v.c)];
  }
};

CUDA_OP(shuffle_cells) {
  shuffle_f f = {out(l, 0), in(l, 0), out<int32_t>(l, 1), volume_of(in_shape(l, 0)), {}};
  for (int a = 0; a < 3; a++) f.cells[a] = integer_at(l, "cells", a);
  status error = for_each_index(l, f.volume.dim[0],
                                draw_order{out<int32_t>(l, 1), l->call->rng_keys, l->call->node_id,
                                           f.cells[0] * f.cells[1] * f.cells[2]});
  return error ? error : for_each_index(l, elements(in_shape(l, 0)), f);
}

struct copy_f {
  float *y;
  const float *x;
  __device__ void operator()(int64_t i) const {
    y[i] = x[i];
  }
};

/* Boxes may overlap and the later one wins: one block does a sample, box after box. Its first thread
 * draws, then all copy. */
struct shuffle_boxes {
  float *y;
  const float *x;
  int32_t *order;
  const rng_key *keys;
  uint64_t node;
  volume_shape volume;
  scheduled_number probability;
  int64_t boxes, largest[3], room; /* voxels of the largest box */
};

static __global__ void shuffle_voxels_kernel(shuffle_boxes f) {
  __shared__ int64_t at[3], size[3];
  __shared__ int applies;
  int64_t n = blockIdx.x;
  int32_t *order = f.order + n * f.room;
  rng r = open_stream(f.keys[n], f.node);
  if (threadIdx.x == 0) applies = (double)draw_uniform(&r) < f.probability;
  __syncthreads();
  for (int64_t k = 0; applies && k < f.boxes; k++) {
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int a = 0; a < 3; a++) {
        size[a] = 1 + draw_below(&r, (uint32_t)f.largest[a]);
        at[a] = draw_below(&r, (uint32_t)(f.volume.dim[1 + a] - size[a] + 1));
      }
      draw_permutation(&r, order, (int32_t)(size[0] * size[1] * size[2]));
    }
    __syncthreads();
    int64_t channels = f.volume.dim[4], count = size[0] * size[1] * size[2] * channels;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      int64_t c = i % channels, to = i / channels, from = order[to];
      int64_t here = f.volume.index(n, at[0] + to / (size[1] * size[2]),
                                    at[1] + to / size[2] % size[1], at[2] + to % size[2], c);
      int64_t there = f.volume.index(n, at[0] + from / (size[1] * size[2]),
                                     at[1] + from / size[2] % size[1], at[2] + from % size[2], c);
      f.y[here] = f.x[there];
    }
  }
}

static shuffle_boxes boxes_of(const launch *l) {
  shuffle_boxes f = {};
  f.y = out(l, 0);
  f.x = in(l, 0);
  f.order = (int32_t *)l->scratch;
  f.keys = l->call->rng_keys;
  f.node = l->call->node_id;
  f.volume = volume_of(in_shape(l, 0));
  f.probability = scheduled(l, "probability");
  f.boxes = integer(l, "boxes");
  f.room = 1;
  for (int a = 0; a < 3; a++) {
    int64_t extent = (int64_t)floor(number(l, "size") * (double)f.volume.dim[1 + a] + 1e-9);
    f.largest[a] = extent < 1 ? 1 : extent;
    f.room *= f.largest[a];
  }
  return f;
}

CUDA_SCRATCH(shuffle_voxels) {
  return (size_t)(in_shape(l, 0)->dim[0] * boxes_of(l).room) * sizeof(int32_t);
}

CUDA_OP(shuffle_voxels) {
  status error = for_each_index(l, elements(in_shape(l, 0)), copy_f{out(l, 0), in(l, 0)});
  if (error) return error;
  return LAUNCH(l, shuffle_voxels_kernel, (unsigned)in_shape(l, 0)->dim[0], THREADS, 0,
                boxes_of(l));
}

/* ---- random_turn --------------------------------------------------------------------------------------------- */

/* By value, for the kernel cannot read memory of the host. */
struct turn_table {
  turn of[24];
};

struct draw_turn {
  int32_t *number;
  const rng_key *keys;
  uint64_t node;
  uint32_t count;
  __device__ void operator()(int64_t n) const {
    rng r = open_stream(keys[n], node);
    number[n] = (int32_t)draw_below(&r, count);
  }
};

struct turn_f {
  float *y;
  const float *x;
  const int32_t *number;
  volume_shape volume;
  turn_table table;
  __device__ void operator()(int64_t i) const {
    voxel v = volume.locate(i);
    const turn &t = table.of[number[v.n]];
    int64_t at[3] = {0, 0, 0};
    for (int a = 0; a < 3; a++)
      at[t.axis[a]] = t.flip[a] ? volume.dim[1 + a] - 1 - v.at[a] : v.at[a];
    y[i] = x[volume.index(v.n, at[0], at[1], at[2], v.c)];
  }
};

CUDA_OP(random_turn) {
  int32_t *number = out<int32_t>(l, 1);
  turn_table table;
  memcpy(table.of, cube_turns, sizeof cube_turns);
  status error = for_each_index(
      l, in_shape(l, 0)->dim[0],
      draw_turn{number, l->call->rng_keys, l->call->node_id, (uint32_t)integer(l, "turns")});
  if (error) return error;
  return for_each_index(l, elements(in_shape(l, 0)),
                        turn_f{out(l, 0), in(l, 0), number, volume_of(in_shape(l, 0)), table});
}

/* ---- random_curve --------------------------------------------------------------------------------------------- */

constexpr int CURVE_STEPS = 1024, BISECTIONS = 40;

struct curve {
  float applies;
  float y[CURVE_STEPS + 1];
};

static __device__ inline double bezier(double a, double b, double t) {
  double s = 1 - t;
  return 3 * s * s * t * a + 3 * s * t * t * b + t * t * t;
}

/* Index: sample · (steps + 1) + step; every thread draws its sample's numbers anew. */
struct draw_curve {
  curve *curves;
  const rng_key *keys;
  uint64_t node;
  scheduled_number probability, invert;
  __device__ void operator()(int64_t i) const {
    int64_t n = i / (CURVE_STEPS + 1);
    int k = (int)(i % (CURVE_STEPS + 1));
    rng r = open_stream(keys[n], node);
    bool applies = (double)draw_uniform(&r) < probability;
    double ax = draw_range(&r, 0, 1), ay = draw_range(&r, 0, 1), bx = draw_range(&r, 0, 1),
           by = draw_range(&r, 0, 1);
    bool inverts = (double)draw_uniform(&r) < invert;
    double x = (double)k / CURVE_STEPS, low = 0, high = 1;
    for (int step = 0; step < BISECTIONS; step++) {
      double t = (low + high) / 2;
      if (bezier(ax, bx, t) < x)
        low = t;
      else
        high = t;
    }
    double y = k == CURVE_STEPS ? 1 : bezier(ay, by, k == 0 ? 0 : high);
    curves[n].y[inverts ? CURVE_STEPS - k : k] = (float)y;
    if (k == 0) curves[n].applies = applies;
  }
};

struct curve_f {
  float *y;
  const float *x;
  const curve *curves;
  int64_t length;
  float low, width;
  __device__ void operator()(int64_t i) const {
    const curve *own = curves + i / length;
    if (own->applies == 0) {
      y[i] = x[i];
      return;
    }
    float at = (x[i] - low) * ((float)CURVE_STEPS / width);
    at = at > 0.0f ? at : 0.0f;
    at = at < (float)CURVE_STEPS ? at : (float)CURVE_STEPS;
    int k = (int)at;
    k = k < CURVE_STEPS ? k : CURVE_STEPS - 1;
    y[i] = low + width * (own->y[k] + (at - (float)k) * (own->y[k + 1] - own->y[k]));
  }
};

CUDA_SCRATCH(random_curve) {
  return (size_t)in_shape(l, 0)->dim[0] * sizeof(curve);
}

CUDA_OP(random_curve) {
  int64_t samples = in_shape(l, 0)->dim[0], count = elements(in_shape(l, 0));
  curve *curves = (curve *)l->scratch;
  status error = for_each_index(l, samples * (CURVE_STEPS + 1),
                                draw_curve{curves, l->call->rng_keys, l->call->node_id,
                                           scheduled(l, "probability"), scheduled(l, "invert")});
  if (error) return error;
  double low = l->host->number_at(l->call, "range", 0),
         high = l->host->number_at(l->call, "range", 1);
  return for_each_index(
      l, count,
      curve_f{out(l, 0), in(l, 0), curves, count / samples, (float)low, (float)(high - low)});
}

} // namespace transformation_kernels
