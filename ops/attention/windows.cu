/* window_partition, window_merge, window_regions and relative_position_bias;
 * ops/attention/windows.c and relative_position_bias.c have the definitions. */
#include "device/cuda/index.cuh"
#include "device/cuda/stored.cuh"

namespace windows_kernels {

struct windows {
  int64_t window[3], shift[3], size[3], grid[3], tokens;
};

static windows windows_of(const launch *l, const int64_t size[3]) {
  windows w = {};
  bool clamp = flag(l, "clamp");
  w.tokens = 1;
  for (int a = 0; a < 3; a++) {
    int64_t window = integer_at(l, "window", a);
    bool whole = clamp && size[a] <= window;
    w.size[a] = size[a];
    w.window[a] = whole ? size[a] : window;
    w.shift[a] = whole ? 0 : integer_at(l, "shift", a);
    w.grid[a] = (size[a] + w.window[a] - 1) / w.window[a];
    w.tokens *= w.window[a];
  }
  return w;
}

/* The place on the turned axes of a token, given its window's and its own number. */
static __device__ inline void place_of(const windows &w, int64_t window, int64_t token,
                                       int64_t at[3]) {
  at[2] = window % w.grid[2] * w.window[2] + token % w.window[2];
  at[1] = window / w.grid[2] % w.grid[1] * w.window[1] + token / w.window[2] % w.window[1];
  at[0] = window / (w.grid[2] * w.grid[1]) * w.window[0] + token / (w.window[2] * w.window[1]);
}

/* Tokens from the volume; what was filled up is 0. */
struct partition_f {
  target tokens;
  source volume;
  windows w;
  int64_t channels;
  __device__ void operator()(int64_t i) const {
    int64_t c = i % channels, token = i / channels % w.tokens, rest = i / channels / w.tokens;
    int64_t count = w.grid[0] * w.grid[1] * w.grid[2], at[3], offset = rest / count;
    place_of(w, rest % count, token, at);
    bool is_inside = true;
    for (int a = 0; a < 3; a++) {
      at[a] = (at[a] + w.shift[a]) % (w.grid[a] * w.window[a]);
      is_inside = is_inside && at[a] < w.size[a];
      offset = offset * w.size[a] + at[a];
    }
    tokens[i] = is_inside ? volume[offset * channels + c] : 0.0f;
  }
};

/* The volume from its tokens: every voxel asks for its own. */
struct merge_f {
  target volume;
  source tokens;
  windows w;
  int64_t channels;
  __device__ void operator()(int64_t i) const {
    int64_t c = i % channels, rest = i / channels, at[3];
    for (int a = 2; a >= 0; a--) {
      int64_t extent = w.grid[a] * w.window[a];
      at[a] = (rest % w.size[a] + extent - w.shift[a]) % extent;
      rest /= w.size[a];
    }
    int64_t window = rest, token = 0; /* rest: the sample */
    for (int a = 0; a < 3; a++) {
      window = window * w.grid[a] + at[a] / w.window[a];
      token = token * w.window[a] + at[a] % w.window[a];
    }
    volume[i] = tokens[(window * w.tokens + token) * channels + c];
  }
};

CUDA_OP(window_partition) {
  const plugin_shape *x = in_shape(l, 0);
  return for_each_index(
      l, elements(out_shape(l, 0)),
      partition_f{target_of(l, 0), source_of(l, 0), windows_of(l, x->dim + 1), last_extent(x)});
}
CUDA_OP(window_merge) {
  const plugin_shape *y = out_shape(l, 0);
  return for_each_index(
      l, elements(y),
      merge_f{target_of(l, 0), source_of(l, 0), windows_of(l, y->dim + 1), last_extent(y)});
}

struct regions_f {
  int32_t *regions;
  windows w;
  __device__ void operator()(int64_t i) const {
    int64_t at[3];
    int32_t region = 0;
    place_of(w, i / w.tokens, i % w.tokens, at);
    for (int a = 0; a < 3; a++) {
      int64_t extent = w.grid[a] * w.window[a];
      int32_t part = w.shift[a] == 0 || at[a] < extent - w.window[a] ? 0
                     : at[a] < extent - w.shift[a]                   ? 1
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

/* All pairs of a row of the table, in order: one block for each row and head. */
static __global__ void gather_rows(float *dtable, const float *dy, positions p) {
  int64_t row = blockIdx.x / p.heads, head = blockIdx.x % p.heads;
  const float *from = dy + head * p.tokens * p.tokens;
  float sum = 0;
  for (int64_t k = threadIdx.x; k < p.tokens * p.tokens; k += blockDim.x)
    if (p.row_of(k / p.tokens, k % p.tokens) == row) sum += from[k];
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
