/* window_partition, window_merge, window_regions and relative_position_bias;
 * ops/attention/windows.c and relative_position_bias.c have the definitions. */
#include "device/cuda/groups.cuh"
#include "device/cuda/index.cuh"

namespace windows_kernels {

struct windows {
  int64_t size[3], extent[3], shift[3]; /* of the volume; with what fills up the windows */
  divisor window[3], grid[3], tokens;   /* of a window; windows; tokens of a window */
};

static windows windows_of(const launch *l, const int64_t size[3]) {
  windows w = {};
  bool clamp = flag(l, "clamp");
  int64_t tokens = 1;
  for (int a = 0; a < 3; a++) {
    int64_t window = integer_at(l, "window", a);
    bool whole = clamp && size[a] <= window;
    if (whole) window = size[a];
    w.size[a] = size[a];
    w.window[a] = divide_by(window);
    w.shift[a] = whole ? 0 : integer_at(l, "shift", a);
    w.grid[a] = divide_by((size[a] + window - 1) / window);
    w.extent[a] = w.grid[a].value * window;
    tokens *= window;
  }
  w.tokens = divide_by(tokens);
  return w;
}

/* The place on the turned axes of a token, given the numbers of its window, over all samples, and its
 * own; the sample. */
static __device__ inline int64_t place_of(const windows &w, int64_t window, int64_t token,
                                          int64_t at[3]) {
  for (int a = 2; a >= 0; a--) {
    int64_t cell, within;
    window = divide(window, &w.grid[a], &cell);
    token = divide(token, &w.window[a], &within);
    at[a] = cell * w.window[a].value + within;
  }
  return window;
}

/* Tokens from the volume; what was filled up is 0. */
struct partition_f {
  target tokens;
  source volume;
  windows w;
  divisor channels;
  template <int N> __device__ void at(int64_t i) const {
    int64_t c, token, place[3];
    int64_t window = divide(divide(i, &channels, &c), &w.tokens, &token);
    int64_t offset = place_of(w, window, token, place);
    bool is_inside = true;
    for (int a = 0; a < 3; a++) {
      place[a] += w.shift[a];
      if (place[a] >= w.extent[a]) place[a] -= w.extent[a];
      is_inside = is_inside && place[a] < w.size[a];
      offset = offset * w.size[a] + place[a];
    }
    store(tokens, i, is_inside ? load<N>(volume, offset * channels.value + c) : numbers<N>{});
  }
};

/* The volume from its tokens: every voxel asks for its own. */
struct merge_f {
  target volume;
  source tokens;
  windows w;
  volume_shape shape;
  template <int N> __device__ void at(int64_t i) const {
    voxel v = shape.locate(i);
    int64_t window = v.n, token = 0;
    for (int a = 0; a < 3; a++) {
      int64_t place = v.at[a] - w.shift[a], within;
      int64_t cell = divide(place < 0 ? place + w.extent[a] : place, &w.window[a], &within);
      window = window * w.grid[a].value + cell;
      token = token * w.window[a].value + within;
    }
    store(volume, i, load<N>(tokens, (window * w.tokens.value + token) * shape.dim[4] + v.c));
  }
};

CUDA_OP(window_partition) {
  const plugin_shape *x = in_shape(l, 0);
  int64_t channels = last_extent(x);
  return for_each_group(l, elements(out_shape(l, 0)), channels,
                        partition_f{target_of(l, 0), source_of(l, 0), windows_of(l, x->dim + 1),
                                    divide_by(channels)});
}
CUDA_OP(window_merge) {
  const plugin_shape *y = out_shape(l, 0);
  return for_each_group(
      l, elements(y), last_extent(y),
      merge_f{target_of(l, 0), source_of(l, 0), windows_of(l, y->dim + 1), volume_of(y)});
}

struct regions_f {
  int32_t *regions;
  windows w;
  __device__ void operator()(int64_t i) const {
    int64_t at[3], token, window = divide(i, &w.tokens, &token);
    int32_t region = 0;
    place_of(w, window, token, at);
    for (int a = 0; a < 3; a++) {
      int32_t part = w.shift[a] == 0 || at[a] < w.extent[a] - w.window[a].value ? 0
                     : at[a] < w.extent[a] - w.shift[a]                         ? 1
                                                                                : 2;
      region = region * 3 + part;
    }
    regions[i] = region;
  }
};

CUDA_OP(window_regions) {
  int64_t size[3];
  for (int a = 0; a < 3; a++) size[a] = integer_at(l, "size", a);
  return for_each_index(l, elements(out_shape(l, 0)),
                        regions_f{out<int32_t>(l, 0), windows_of(l, size)});
}

/* ---- relative_position_bias ---------------------------------------------------------------------- */

struct positions {
  int64_t window[3], stride_x, stride_y, heads, tokens;

  __device__ int64_t row_of(int64_t i, int64_t j) const {
    int64_t yz = window[1] * window[2];
    int64_t x = i / yz - j / yz + window[0] - 1;
    int64_t y = i / window[2] % window[1] - j / window[2] % window[1] + window[1] - 1;
    return x * stride_x + y * stride_y + i % window[2] - j % window[2] + window[2] - 1;
  }
};

static positions positions_of(const launch *l, int64_t tokens) {
  positions p = {};
  for (int a = 0; a < 3; a++) p.window[a] = integer_at(l, "window", a);
  p.stride_x = integer(l, "stride_x");
  p.stride_y = integer(l, "stride_y");
  if (p.stride_x == 0) p.stride_x = (2 * p.window[1] - 1) * (2 * p.window[2] - 1);
  if (p.stride_y == 0) p.stride_y = 2 * p.window[2] - 1;
  p.heads = integer(l, "heads");
  p.tokens = tokens;
  return p;
}

struct bias_f {
  float *bias;
  const float *table;
  positions p;
  __device__ void operator()(int64_t k) const {
    int64_t j = k % p.tokens, i = k / p.tokens % p.tokens, head = k / (p.tokens * p.tokens);
    bias[k] = table[p.row_of(i, j) * p.heads + head];
  }
};

/* All pairs of a row of the table, in order: one block for each row and head. A row is a distance along
 * the axes, of which each token j is at most one i away. Where the strides give several distances one
 * row, they follow one another. */
static __global__ void gather_rows(float *dtable, const float *dy, positions p) {
  int row = (int)(blockIdx.x / p.heads), head = (int)(blockIdx.x % p.heads);
  int w[3] = {(int)p.window[0], (int)p.window[1], (int)p.window[2]}, tokens = (int)p.tokens;
  const float *from = dy + (int64_t)head * p.tokens * p.tokens;
  float sum = 0;
  for (int x = 0; x < 2 * w[0] - 1; x++)
    for (int y = 0; y < 2 * w[1] - 1; y++) {
      int z = row - x * (int)p.stride_x - y * (int)p.stride_y;
      if (z < 0 || z >= 2 * w[2] - 1) continue;
      for (int j = (int)threadIdx.x; j < tokens; j += (int)blockDim.x) {
        int ix = j / (w[1] * w[2]) + x - (w[0] - 1), iy = j / w[2] % w[1] + y - (w[1] - 1);
        int iz = j % w[2] + z - (w[2] - 1), i = (ix * w[1] + iy) * w[2] + iz;
        bool is_inside = iy >= 0 && iy < w[1] && iz >= 0 && iz < w[2] && i >= 0 && i < tokens;
        if (is_inside) sum += from[(int64_t)i * tokens + j];
      }
    }
  sum = block_sum(sum);
  if (threadIdx.x == 0) dtable[row * p.heads + head] = sum;
}

CUDA_OP(relative_position_bias) {
  return for_each_index(l, elements(out_shape(l, 0)),
                        bias_f{out(l, 0), in(l, 0), positions_of(l, last_extent(out_shape(l, 0)))});
}
CUDA_OP(relative_position_bias_backward) {
  return LAUNCH(l, gather_rows, (unsigned)elements(out_shape(l, 0)), THREADS, 0, out(l, 0),
                in(l, 0), positions_of(l, last_extent(in_shape(l, 0))));
}

} // namespace windows_kernels
