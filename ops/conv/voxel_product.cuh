/* Gradient of a convolution's weight by tensor cores: rows are taps times channels, columns features, and
 * the depth is the result's voxels. Included by tensor_cores.cuh. */
#ifndef STRATA_OPS_CONV_VOXEL_PRODUCT_CUH
#define STRATA_OPS_CONV_VOXEL_PRODUCT_CUH

#include "ops/conv/tiles.cuh"

namespace conv_kernels {

/* E is a tile's element, T and U are those of the image and of the result's gradient in memory. */
template <typename E, typename T, typename U, int N> struct voxel_product {
  typedef E element;
  typedef T gathered;
  typedef U other;
  static constexpr int COLUMNS = N;
  static constexpr int A = DEPTH<E> * ROWS_PITCH, B = DEPTH<E> * COLUMN_PITCH<N>;
  static constexpr size_t BYTES = 2 * (A + B) * sizeof(E) + 2 * DEPTH<E> * sizeof(tile_voxel);
  static_assert(BYTES <= 48 << 10, "what a block may have without asking");
};

template <typename H> struct voxel_steps {
  typedef typename H::element E;
  typedef typename H::gathered T;
  typedef typename H::other U;
  typedef share<T, DEPTH<E>, TILE_ROWS> a_share;
  typedef share<U, DEPTH<E>, H::COLUMNS> b_share;

  const tile_problem &p;
  tile_place place;
  const T *x; /* this thread's channels of the first voxel */
  const U *dy;
  E *a, *b;           /* tiles of two steps, one after the other */
  tile_voxel *voxels; /* of two steps */
  int shift[3];       /* of this thread's tap */
  unsigned shift_number;
  int columns;  /* from this thread's first to the end of the group */
  bool is_busy; /* this warp has anything to multiply */
  part<T> of_image[a_share::COUNT];
  part<U> of_result[b_share::COUNT];
  warp_tile<H::COLUMNS> tile;

  __device__ int row_count() const {
    return p.taps * p.gathered_width;
  }
  __device__ int voxel_count() const {
    return p.batch * p.axis[0].out * p.axis[1].out * p.axis[2].out;
  }
  __device__ int step_count() const {
    return (voxel_count() + DEPTH<E> - 1) / DEPTH<E>;
  }
  __device__ voxel_steps(const tile_problem &problem, const T *image, const U *result, E *memory)
      : p(problem), place(place_of_tile(p, H::COLUMNS)) {
    a = memory;
    b = a + 2 * H::A;
    voxels = reinterpret_cast<tile_voxel *>(b + 2 * H::B);
    int row = place.row + a_share::column(), tap = row / p.gathered_width;
    x = image + place.group * p.gathered_width + row % p.gathered_width;
    dy = result + place.group * p.other_width + place.column + b_share::column();
    columns = p.other_width - place.column - b_share::column();
    for (int axis = 2; axis >= 0; axis--) {
      const tile_axis &own = p.axis[axis];
      shift[axis] = tap % own.kernel * own.dilation - own.padding;
      tap /= own.kernel;
    }
    shift_number = number_of(p, shift);
    if (row >= row_count()) shift[0] = OUT_OF_REACH;
    is_busy = place.row + tile.row() < row_count() && place.column + tile.column() < p.out_width;
  }

  /* By another warp at every step, so that none is always the last. */
  __device__ void prepare(unsigned step) {
    int own = (int)(threadIdx.x % WARP);
    if (threadIdx.x / WARP != step % (TILE_THREADS / WARP) || own >= DEPTH<E>) return;
    int number = (int)step * DEPTH<E> + own, sample;
    const int extent[3] = {p.axis[0].out, p.axis[1].out, p.axis[2].out};
    tile_voxel v;
    split_index(number, extent, &sample, v.at);
    for (int axis = 0; axis < 3; axis++) v.at[axis] *= p.axis[axis].stride;
    v.number = number_in(p, sample, v.at);
    if (number >= voxel_count()) v.at[0] = OUT_OF_REACH;
    voxels[step % 2 * DEPTH<E> + own] = v;
  }
  __device__ void load(unsigned step) {
    UNROLL
    for (int i = 0; i < a_share::COUNT; i++) {
      tile_voxel v = voxels[step % 2 * DEPTH<E> + a_share::row(i)];
      of_image[i].load(rows_after(x, v.number + shift_number, p.gathered_pitch),
                       is_inside(p, v, shift));
    }
    UNROLL
    for (int i = 0; i < b_share::COUNT; i++) {
      int voxel = (int)step * DEPTH<E> + b_share::row(i);
      of_result[i].load(rows_after(dy, (unsigned)voxel, p.other_pitch),
                        b_share::has(i) && voxel < voxel_count() && columns > 0);
    }
  }
  __device__ void store(unsigned step) {
    a_share::store(a + step % 2 * H::A, ROWS_PITCH, of_image);
    b_share::store(b + step % 2 * H::B, COLUMN_PITCH<H::COLUMNS>, of_result);
  }
  __device__ void multiply(unsigned step) {
    if (is_busy) tile.template multiply<true>(a + step % 2 * H::A, b + step % 2 * H::B);
  }
};

/* partials[piece][group][(tap, channel)][feature]. */
template <typename H>
static __global__ void __launch_bounds__(TILE_THREADS, 2)
    multiply_voxels(float *partials, const typename H::gathered *x, const typename H::other *dy,
                    tile_problem p) {
  SHARED_MEMORY(typename H::element, memory);
  voxel_steps<H> f(p, x, dy, memory);
  const tile_place &place = f.place;
  int steps = f.step_count();
  go_through(steps_of_piece(p, steps, place.piece), f);
  int rows = f.row_count();
  float *to = partials + ((int64_t)place.piece * p.groups + place.group) * rows * p.out_width;
  f.tile.each_pair([&](int row, int column, const float *pair) {
    row += place.row;
    column += place.column;
    if (row >= rows || column >= p.out_width) return;
    float *own = to + (int64_t)row * p.out_width + column;
    if (column + 1 == p.out_width)
      own[0] = pair[0];
    else
      store_pair(own, pair[0], pair[1], p.is_even);
  });
}

} // namespace conv_kernels

#endif
