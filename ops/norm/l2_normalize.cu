/* l2_normalize and its gradient; ops/norm/l2_normalize.c has the definition. A few long vectors are
 * shared by many blocks, in three launches; of others, a warp has each that is contiguous, and a thread
 * each elsewhere. */
#include "device/cuda/channels.cuh"
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"

namespace l2_normalize_kernels {

/* Vectors of `extent` numbers, `stride` apart; vector v begins at begin(v). */
struct vectors {
  int64_t count, extent, stride;
  __device__ int64_t begin(int64_t v) const {
    return v / stride * extent * stride + v % stride;
  }
};

static vectors vectors_of(const launch *l) {
  const plugin_shape *x = in_shape(l, 0);
  int axis = chosen_axis(l, x);
  return {elements(x) / x->dim[axis], x->dim[axis], elements_after(x, axis)};
}

/* f(vector, place of its first number, first, step): the numbers first, first + step, … are the
 * caller's, and `total` adds over all callers of the vector. */
struct alone {
  static __device__ float total(float v) {
    return v;
  }
};
struct with_warp {
  static __device__ float total(float v) {
    return warp_sum(v);
  }
};

struct normalize_f {
  float *y, *factor;
  const float *x;
  float eps;
  template <typename Team>
  __device__ void run(const vectors &vs, int64_t v, int64_t first, int64_t step) const {
    int64_t base = vs.begin(v);
    float sum = 0;
    for (int64_t i = first; i < vs.extent; i += step)
      sum += x[base + i * vs.stride] * x[base + i * vs.stride];
    float length = sqrtf(Team::total(sum)), scale = 1.0f / (length < eps ? eps : length);
    for (int64_t i = first; i < vs.extent; i += step)
      y[base + i * vs.stride] = x[base + i * vs.stride] * scale;
    if (first == 0 && factor) factor[v] = scale;
  }
};

/* dx = (dy − y Σ y·dy) · factor; a vector shorter than eps was only multiplied. */
struct normalize_backward_f {
  float *dx;
  const float *y, *factor, *dy;
  float longest; /* 1 / eps */
  template <typename Team>
  __device__ void run(const vectors &vs, int64_t v, int64_t first, int64_t step) const {
    int64_t base = vs.begin(v);
    float dot = 0;
    for (int64_t i = first; i < vs.extent; i += step)
      dot += y[base + i * vs.stride] * dy[base + i * vs.stride];
    dot = Team::total(dot);
    if (!(factor[v] < longest)) dot = 0;
    for (int64_t i = first; i < vs.extent; i += step) {
      int64_t at = base + i * vs.stride;
      dx[at] = (dy[at] - y[at] * dot) * factor[v];
    }
  }
};

template <typename F> __global__ void by_thread(vectors vs, F f) {
  FOR_EACH_INDEX(v, vs.count) f.template run<alone>(vs, v, 0, 1);
}

template <typename F> __global__ void by_warp(vectors vs, F f) {
  int64_t per_block = blockDim.x / WARP;
  for (int64_t v = blockIdx.x * per_block + threadIdx.x / WARP; v < vs.count;
       v += gridDim.x * per_block)
    f.template run<with_warp>(vs, v, threadIdx.x % WARP, WARP);
}

template <typename F> static status for_each_vector(const launch *l, const vectors &vs, F f) {
  if (vs.stride == 1)
    return LAUNCH(l, by_warp<F>, blocks_of(vs.count, THREADS / WARP), THREADS, 0, vs, f);
  return LAUNCH(l, by_thread<F>, blocks_of(vs.count), THREADS, 0, vs, f);
}

/* ---- few long vectors: a sum of each by many blocks, then element by element --------------------- */

constexpr int64_t FEW = 4096;

static bool is_shared(const vectors &vs) {
  return vs.count <= FEW && vs.extent >= (vs.stride == 1 ? 1024 : 64);
}

/* Where numbers of neighbouring vectors are neighbours, vectors are channels. */
static channel_pieces pieces_of(const vectors &vs) {
  return cut_channels(vs.count / vs.stride, vs.extent, vs.stride);
}

static size_t partials_bytes(const vectors &vs) {
  channel_pieces c = pieces_of(vs);
  return vs.stride == 1 ? sum_scratch(vs.count, vs.extent) : channel_pieces_bytes(&c);
}

/* The sums' partials, then a number for each vector. */
static size_t shared_scratch(const launch *l) {
  vectors vs = vectors_of(l);
  return is_shared(vs) ? partials_bytes(vs) + (size_t)vs.count * sizeof(float) : 0;
}
static float *numbers_of_vectors(const launch *l, const vectors &vs) {
  return (float *)((char *)l->scratch + partials_bytes(vs));
}

/* Σ a·b of a contiguous vector. */
struct products_f {
  const float *a, *b;
  int64_t extent;
  __device__ float operator()(int64_t v, int64_t i) const {
    return a[v * extent + i] * b[v * extent + i];
  }
};

/* Of N neighbouring vectors. */
struct product_terms {
  const float *a, *b;
  int64_t extent, stride;
  template <int N>
  __device__ void add(int64_t outer, int64_t across, int64_t along, int64_t,
                      float sums[2][N]) const {
    int64_t at = (outer * extent + along) * stride + across;
    numbers<N> p = load<N>(a, at), q = load<N>(b, at);
    UNROLL for (int k = 0; k < N; k++) sums[0][k] += p.at[k] * q.at[k];
  }
};

template <typename G> struct of_vector {
  int64_t stride;
  G g;
  __device__ void operator()(int64_t outer, int64_t across, double total, double) const {
    g(outer * stride + across, total);
  }
};

/* Calls g(v, Σ a·b) for every vector. */
template <typename G>
static status sum_products(const launch *l, const vectors &vs, const float *a, const float *b,
                           G g) {
  if (vs.stride == 1) return sum_each(l, vs.count, vs.extent, products_f{a, b, vs.extent}, g);
  return total_channels(l, (float *)l->scratch, pieces_of(vs),
                        product_terms{a, b, vs.extent, vs.stride}, of_vector<G>{vs.stride, g});
}

struct store_factor {
  float *factor, eps;
  __device__ void operator()(int64_t v, double squares) const {
    float length = (float)sqrt(squares);
    factor[v] = 1.0f / (length < eps ? eps : length);
  }
};

struct store_dot {
  float *dots;
  const float *factor;
  float longest;
  __device__ void operator()(int64_t v, double dot) const {
    dots[v] = factor[v] < longest ? (float)dot : 0.0f;
  }
};

/* The vector of an element; neighbours within a stride have neighbouring ones. */
struct owner {
  divisor stride, extent;
  __device__ int64_t of(int64_t i) const {
    int64_t across, along, outer = divide(divide(i, &stride, &across), &extent, &along);
    return outer * stride.value + across;
  }
};

struct scale_elements {
  float *y;
  const float *x, *factor;
  owner vector;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> value = load<N>(x, i), by = load<N>(factor, vector.of(i));
    UNROLL for (int k = 0; k < N; k++) value.at[k] *= by.at[k];
    store(y, i, value);
  }
};

struct scale_gradients {
  float *dx;
  const float *y, *factor, *dy, *dots;
  owner vector;
  template <int N> __device__ void at(int64_t i) const {
    int64_t v = vector.of(i);
    numbers<N> g = load<N>(dy, i), value = load<N>(y, i);
    numbers<N> dot = load<N>(dots, v), by = load<N>(factor, v);
    UNROLL for (int k = 0; k < N; k++) g.at[k] = (g.at[k] - value.at[k] * dot.at[k]) * by.at[k];
    store(dx, i, g);
  }
};

CUDA_SCRATCH(l2_normalize) {
  return shared_scratch(l);
}
CUDA_OP(l2_normalize) {
  vectors vs = vectors_of(l);
  float *y = out(l, 0), *factor = out(l, 1), eps = number_f(l, "eps");
  const float *x = in(l, 0);
  if (!is_shared(vs)) return for_each_vector(l, vs, normalize_f{y, factor, x, eps});
  if (!factor) factor = numbers_of_vectors(l, vs);
  status error = sum_products(l, vs, x, x, store_factor{factor, eps});
  if (error) return error;
  owner vector = {divide_by(vs.stride), divide_by(vs.extent)};
  return for_each_group(l, vs.count * vs.extent, vs.stride, scale_elements{y, x, factor, vector});
}

CUDA_SCRATCH(l2_normalize_backward) {
  return shared_scratch(l);
}
CUDA_OP(l2_normalize_backward) {
  vectors vs = vectors_of(l);
  float *dx = out(l, 0), longest = 1.0f / number_f(l, "eps");
  const float *y = in(l, 0), *factor = in(l, 1), *dy = in(l, 2);
  if (!is_shared(vs))
    return for_each_vector(l, vs, normalize_backward_f{dx, y, factor, dy, longest});
  float *dots = numbers_of_vectors(l, vs);
  status error = sum_products(l, vs, y, dy, store_dot{dots, factor, longest});
  if (error) return error;
  owner vector = {divide_by(vs.stride), divide_by(vs.extent)};
  return for_each_group(l, vs.count * vs.extent, vs.stride,
                        scale_gradients{dx, y, factor, dy, dots, vector});
}

} // namespace l2_normalize_kernels
