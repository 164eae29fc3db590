/* reduce and its gradient; ops/shape/reduce.c has the definition. */
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"

namespace reduce_kernels {

enum { REDUCE_MEAN, REDUCE_SUM, REDUCE_MAX };

/* x as results × what each is made of. */
struct reduction {
  int64_t results, length;
  strides kept, reduced; /* offsets in x of a result's index, and of a term's */
};

static reduction plan_reduction(const launch *l, const plugin_shape *x) {
  int count = l->host->length(l->call, "axes");
  unsigned axes = count ? 0 : (1u << x->rank) - 1;
  for (int i = 0; i < count; i++) {
    int64_t axis = integer_at(l, "axes", i);
    axes |= 1u << (axis < 0 ? axis + x->rank : axis);
  }
  reduction r = {1, 1, {}, {}};
  for (int d = 0; d < x->rank; d++) {
    add_axis(axes >> d & 1 ? &r.reduced : &r.kept, x->dim[d], elements_after(x, d));
    (axes >> d & 1 ? r.length : r.results) *= x->dim[d];
  }
  return r;
}

struct terms_f {
  const float *x;
  strides kept, reduced;
  __device__ float operator()(int64_t s, int64_t i) const {
    return x[kept.offset(s) + reduced.offset(i)];
  }
};

/* How many terms equal the result. */
struct ties_f {
  const float *x, *y;
  strides kept, reduced;
  __device__ float operator()(int64_t s, int64_t i) const {
    return x[kept.offset(s) + reduced.offset(i)] == y[s] ? 1.0f : 0.0f;
  }
};

struct store_scaled {
  float *y;
  double factor;
  __device__ void operator()(int64_t s, double total) const {
    y[s] = (float)(total * factor);
  }
};

template <typename F> struct each_sum {
  float *y;
  F f;
  int64_t length;
  double factor;
  __device__ void operator()(int64_t s) const {
    double total = 0;
    for (int64_t i = 0; i < length; i++) total += (double)f(s, i);
    y[s] = (float)(total * factor);
  }
};

/* Few long sums share blocks, many get a thread each. */
constexpr int64_t FEW_RESULTS = 4096;

template <typename F>
static status sum_terms(const launch *l, const reduction &r, F f, float *y, double factor) {
  if (r.results <= FEW_RESULTS) return sum_each(l, r.results, r.length, f, store_scaled{y, factor});
  return for_each_index(l, r.results, each_sum<F>{y, f, r.length, factor});
}

static size_t sum_bytes(const reduction &r) {
  return r.results <= FEW_RESULTS ? sum_scratch(r.results, r.length) : 0;
}

/* The largest, or what is not a number. One block for each result. */
static __global__ void largest_of(float *y, terms_f f, int64_t results, int64_t length) {
  for (int64_t s = blockIdx.x; s < results; s += gridDim.x) {
    float most = -INFINITY;
    int undefined = 0;
    for (int64_t i = threadIdx.x; i < length; i += blockDim.x) {
      float v = f(s, i);
      undefined |= v != v;
      most = v > most ? v : most;
    }
    most = block_max(most);
    undefined = block_max(undefined);
    if (threadIdx.x == 0) y[s] = undefined ? NAN : most;
  }
}

CUDA_SCRATCH(reduce) {
  return integer(l, "mode") == REDUCE_MAX ? 0 : sum_bytes(plan_reduction(l, in_shape(l, 0)));
}

CUDA_OP(reduce) {
  reduction r = plan_reduction(l, in_shape(l, 0));
  int mode = (int)integer(l, "mode");
  terms_f f = {in(l, 0), r.kept, r.reduced};
  if (mode == REDUCE_MAX)
    return LAUNCH(l, largest_of, blocks_of(r.results, 1), THREADS, 0, out(l, 0), f, r.results,
                  r.length);
  return sum_terms(l, r, f, out(l, 0), mode == REDUCE_MEAN ? 1 / (double)r.length : 1.0);
}

/* ---- gradient ------------------------------------------------------------------------------------ */

/* Element (s, i) of x, s the result it belongs to. */
struct spread_f {
  float *dx;
  const float *dy, *x, *y, *ties; /* the last three for max, else NULL */
  reduction r;
  float factor;
  __device__ void operator()(int64_t k) const {
    int64_t s = k % r.results, at = r.kept.offset(s) + r.reduced.offset(k / r.results);
    if (!ties)
      dx[at] = factor * dy[s];
    else
      dx[at] = x[at] == y[s] ? dy[s] / ties[s] : 0.0f;
  }
};

/* For max: how many ties each result has, then the sums' partials. */
static size_t ties_bytes(const reduction &r) {
  return ((size_t)r.results * sizeof(float) + 255) / 256 * 256;
}

CUDA_SCRATCH(reduce_backward) {
  if (integer(l, "mode") != REDUCE_MAX) return 0;
  reduction r = plan_reduction(l, out_shape(l, 0));
  return ties_bytes(r) + sum_bytes(r);
}

CUDA_OP(reduce_backward) {
  reduction r = plan_reduction(l, out_shape(l, 0));
  int mode = (int)integer(l, "mode");
  spread_f f = {out(l, 0), in(l, 0), nullptr, nullptr, nullptr, r, 1};
  if (mode == REDUCE_MEAN) f.factor = (float)(1 / (double)r.length);
  if (mode == REDUCE_MAX) {
    f.x = in(l, 1);
    f.y = in(l, 2);
    f.ties = (float *)l->scratch;
    launch rest = *l;
    rest.scratch = (char *)l->scratch + ties_bytes(r);
    status error = sum_terms(&rest, r, ties_f{f.x, f.y, r.kept, r.reduced}, (float *)l->scratch, 1);
    if (error) return error;
  }
  return for_each_index(l, r.results * r.length, f);
}

} // namespace reduce_kernels
