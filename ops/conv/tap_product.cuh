/* Forward convolution and gradient of the data by tensor cores: rows are voxels of the result, the depth
 * is a group's channels, a step's depth at a time, and of each such chunk all taps of the window; so
 * voxels that neighbouring taps read again are still in the cache. Included by tensor_cores.cuh. */
#ifndef STRATA_OPS_CONV_TAP_PRODUCT_CUH
#define STRATA_OPS_CONV_TAP_PRODUCT_CUH

#include "ops/conv/tiles.cuh"

namespace conv_kernels {

/* A tap of a window: what it adds to a voxel, and the first row of its filter; −1: none. */
struct alignas(16) window_tap {
  int shift[3], filter_row;
};

static __device__ inline axis_window window_along(const tile_problem &p, int axis, int number) {
  return p.is_data ? backward_window(&p.axis[axis], number % p.windows[axis])
                   : forward_window(&p.axis[axis]);
}

/* The windows' taps, in a table of windows × window_taps; what is not there is nowhere. */
struct list_taps_f {
  window_tap *taps;
  tile_problem p;
  __device__ void operator()(int64_t i) const {
    int tap = (int)(i % p.window_taps), number = (int)(i / p.window_taps);
    int filter_tap = 0, factor = 1;
    bool is_there = true;
    window_tap t;
    for (int axis = 2; axis >= 0; axis--) {
      axis_window w = window_along(p, axis, number);
      number /= p.windows[axis];
      is_there &= w.taps > 0;
      if (!is_there) break;
      t.shift[axis] = tap % w.taps * w.tap_step;
      filter_tap += (w.tap_first + tap % w.taps * w.tap_stride) * factor;
      tap /= w.taps;
      factor *= p.axis[axis].kernel;
    }
    t.filter_row = filter_tap * p.filter_depth;
    if (!is_there || tap > 0) t = {{OUT_OF_REACH, 0, 0}, -1};
    taps[i] = t;
  }
};

/* E is a tile's element, T and F are those of what is gathered and of the filter in memory. */
template <typename E, typename T, typename F, int N> struct tap_product {
  typedef E element;
  typedef T gathered;
  typedef F filter;
  static constexpr int COLUMNS = N;
  static constexpr int A = TILE_ROWS * DEPTH_PITCH<E>, B = DEPTH<E> * COLUMN_PITCH<N>;
  static constexpr size_t BYTES =
      2 * (A + B) * sizeof(E) + 3 * sizeof(axis_window) + TILE_ROWS * sizeof(int);
  static_assert(BYTES <= 48 << 10, "what a block may have without asking");
};

template <typename H> struct tap_steps {
  typedef typename H::element E;
  typedef typename H::gathered T;
  typedef typename H::filter F;
  typedef share<T, TILE_ROWS, DEPTH<E>> a_share;
  typedef share<F, DEPTH<E>, H::COLUMNS> b_share;

  const tile_problem &p;
  tile_place place;
  const T *x;          /* this thread's channels of the first voxel, in the next chunk */
  const F *filter;     /* and its columns of the chunk's first row */
  E *a, *b;            /* tiles of two steps, one after the other */
  axis_window *window; /* along the axes; in shared memory, too */
  int *voxels;         /* of the result, for each row; −1: none */
  const window_tap *first_tap, *taps; /* of the window; of the next step */
  int row_count, chunk_steps;         /* a chunk goes through the taps in so many steps */
  int left_in_chunk;
  int channels; /* from this thread's first to the end of the group */
  bool is_busy; /* this warp has anything to multiply */
  tile_voxel rows[a_share::COUNT];
  part<T> of_rows[a_share::COUNT];
  part<F> of_filter[b_share::COUNT];
  warp_tile<H::COLUMNS> tile;

  __device__ tap_steps(const tile_problem &problem, const T *image, const F *filters,
                       const window_tap *table, E *memory)
      : p(problem), place(place_of_tile(p, H::COLUMNS)) {
    a = memory;
    b = a + 2 * H::A;
    window = reinterpret_cast<axis_window *>(b + 2 * H::B);
    voxels = reinterpret_cast<int *>(window + 3);
    int own_channel = a_share::column() & (p.width - 1);
    channels = p.gathered_width - own_channel;
    x = image + place.group * p.gathered_width + own_channel;
    filter = filters + (int64_t)place.group * p.taps * p.filter_depth * p.filter_columns +
             place.column + b_share::column();
    first_tap = table + (int64_t)place.window * p.window_taps;
    find_window();
  }
  __device__ int step_taps() const {
    return DEPTH<E> >> p.width_bits;
  }
  __device__ int step_count() const {
    return chunk_steps * (p.filter_depth >> p.width_bits);
  }
  __device__ void find_window() {
    int axis = (int)threadIdx.x;
    if (axis < 3) {
      int number = place.window;
      for (int after = 2; after > axis; after--) number /= p.windows[after];
      window[axis] = window_along(p, axis, number);
    }
    __syncthreads();
    row_count = p.batch * window[0].count * window[1].count * window[2].count;
    int taps_there = window[0].taps * window[1].taps * window[2].taps;
    chunk_steps = (taps_there + step_taps() - 1) / step_taps();
  }
  __device__ void find_rows() {
    const int extent[3] = {window[0].count, window[1].count, window[2].count};
    int sample, at[3];
    UNROLL
    for (int i = 0; i < a_share::COUNT; i++) {
      int row = place.row + a_share::row(i);
      split_index(row, extent, &sample, at);
      for (int axis = 0; axis < 3; axis++)
        rows[i].at[axis] = window[axis].begin + at[axis] * window[axis].row_step;
      rows[i].number = number_in(p, sample, rows[i].at);
      if (row >= row_count) rows[i].at[0] = OUT_OF_REACH;
    }
    if (threadIdx.x >= TILE_ROWS) return;
    int row = place.row + (int)threadIdx.x;
    split_index(row, extent, &sample, at);
    int voxel = sample;
    for (int axis = 0; axis < 3; axis++)
      voxel = voxel * p.to[axis] + window[axis].first + at[axis] * window[axis].step;
    voxels[threadIdx.x] = row < row_count ? voxel : -1;
  }
  __device__ void start(step_range steps) {
    find_rows();
    is_busy = place.row + tile.row() < row_count && place.column + tile.column() < p.out_width;
    if (steps.begin >= steps.end) return;
    int before = (int)steps.begin % chunk_steps;
    left_in_chunk = chunk_steps - before;
    taps = first_tap + before * step_taps();
    advance((int)steps.begin / chunk_steps * DEPTH<E>);
  }
  __device__ void advance(int width) {
    channels -= width;
    x += width;
    filter += (int64_t)width * p.filter_columns;
  }

  __device__ void prepare(unsigned) {}
  __device__ void load(unsigned) {
    window_tap t = taps[a_share::column() >> p.width_bits];
    unsigned shift = number_of(p, t.shift);
    UNROLL
    for (int i = 0; i < a_share::COUNT; i++)
      of_rows[i].load(rows_after(x, rows[i].number + shift, p.gathered_pitch),
                      is_inside(p, rows[i], t.shift) && channels > 0);
    bool has_column = place.column + b_share::column() < p.filter_columns;
    UNROLL
    for (int i = 0; i < b_share::COUNT; i++) {
      int row = b_share::row(i), first = -1;
      if (b_share::has(i)) first = taps[row >> p.width_bits].filter_row;
      unsigned own = (unsigned)(first + (row & (p.width - 1)));
      of_filter[i].load(rows_after(filter, own, p.filter_pitch), first >= 0 && has_column);
    }
    taps += step_taps();
    if (--left_in_chunk > 0) return;
    left_in_chunk = chunk_steps;
    taps = first_tap;
    advance(DEPTH<E>);
  }
  __device__ void store(unsigned step) {
    a_share::store(a + step % 2 * H::A, DEPTH_PITCH<E>, of_rows);
    b_share::store(b + step % 2 * H::B, COLUMN_PITCH<H::COLUMNS>, of_filter);
  }
  __device__ void multiply(unsigned step) {
    if (is_busy) tile.template multiply<false>(a + step % 2 * H::A, b + step % 2 * H::B);
  }
  __device__ void store_result(float *y, const float *bias) const {
    tile.each_pair([&](int row, int column, const float *pair) {
      column += place.column;
      if (voxels[row] < 0 || column >= p.out_width) return;
      int channel = place.group * p.out_width + column;
      float *to = y + (int64_t)voxels[row] * p.groups * p.out_width + channel;
      float first = pair[0] + (bias ? bias[channel] : 0.0f);
      if (column + 1 == p.out_width) {
        to[0] = first;
        return;
      }
      float second = pair[1] + (bias ? bias[channel + 1] : 0.0f);
      store_pair(to, first, second, p.is_even);
    });
  }
};

/* y = gathered x · filter + bias; or, of a piece of the depth, its sums at piece · count. `filter` lies
 * as [group][tap][filter_depth][filter_columns]. */
template <typename H>
static __global__ void __launch_bounds__(TILE_THREADS, 2)
    multiply_taps(float *y, const typename H::gathered *x, const typename H::filter *filter,
                  const window_tap *taps, const float *bias, int64_t count, tile_problem p) {
  SHARED_MEMORY(typename H::element, memory);
  tap_steps<H> f(p, x, filter, taps, memory);
  if (f.place.row >= f.row_count) return; /* not all windows are as long */
  step_range steps = steps_of_piece(p, f.step_count(), f.place.piece);
  f.start(steps);
  go_through(steps, f);
  __syncthreads();
  f.store_result(y + f.place.piece * count, bias);
}

} // namespace conv_kernels

#endif
