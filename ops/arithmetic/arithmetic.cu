/* Sums, products and random dropping, element by element; ops/arithmetic/<name>.c has the
 * definitions. */
#include "device/cuda/groups.cuh"
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"

namespace arithmetic_kernels {

constexpr int MOST_TERMS = 64, MOST_REPEATED = 8;

/* ---- add, multiply ---------------------------------------------------------------------------- */

struct add_same {
  target y;
  const float *x[MOST_TERMS];
  int count;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> sum = load<N>(x[0], i);
    for (int term = 1; term < count; term++) {
      numbers<N> next = load<N>(x[term], i);
      UNROLL for (int k = 0; k < N; k++) sum.at[k] += next.at[k];
    }
    store(y, i, sum);
  }
};

template <bool MULTIPLIES> struct combine_repeated {
  target y;
  const float *x[MOST_REPEATED];
  strides at[MOST_REPEATED];
  int count;
  __device__ void operator()(int64_t i) const {
    float result = x[0][at[0].offset(i)];
    for (int k = 1; k < count; k++) {
      float next = x[k][at[k].offset(i)];
      result = MULTIPLIES ? result * next : result + next;
    }
    y[i] = result;
  }
};

struct multiply_same {
  target y;
  const float *a, *b;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> product = load<N>(a, i), other = load<N>(b, i);
    UNROLL for (int k = 0; k < N; k++) product.at[k] *= other.at[k];
    store(y, i, product);
  }
};

static bool repeats(const launch *l) {
  for (int k = 0; k < l->call->in_count; k++)
    if (!same_shape(in_shape(l, k), out_shape(l, 0))) return true;
  return false;
}

template <bool MULTIPLIES> static status run_repeated(const launch *l) {
  combine_repeated<MULTIPLIES> f = {};
  f.count = l->call->in_count;
  if (f.count > MOST_REPEATED)
    return l->host->error(
        ERROR_USAGE, "at most %d values can be combined with broadcast on the GPU", MOST_REPEATED);
  f.y = target_of(l, 0);
  for (int k = 0; k < f.count; k++) {
    f.x[k] = in(l, k);
    f.at[k] = broadcast_strides(out_shape(l, 0), in_shape(l, k));
  }
  return for_each_index(l, elements(out_shape(l, 0)), f);
}

CUDA_OP(add) {
  if (repeats(l)) return run_repeated<false>(l);
  add_same f = {};
  f.y = target_of(l, 0);
  f.count = l->call->in_count;
  if (f.count > MOST_TERMS)
    return l->host->error(ERROR_USAGE, "at most %d values can be added on the GPU", MOST_TERMS);
  for (int k = 0; k < f.count; k++) f.x[k] = in(l, k);
  int64_t count = elements(out_shape(l, 0));
  return for_each_group(l, count, count, f);
}

CUDA_OP(multiply) {
  if (repeats(l)) return run_repeated<true>(l);
  int64_t count = elements(out_shape(l, 0));
  return for_each_group(l, count, count, multiply_same{target_of(l, 0), in(l, 0), in(l, 1)});
}

/* ---- sum_to: out[k] = Σ x · factor over what k repeats to --------------------------------------- */

/* Sum s of `sum_each` is element s of the result; its terms are the elements of the axes along which
 * the result repeats. */
struct sum_to_terms {
  const float *x, *factor;
  strides kept, summed; /* offsets in x of a result's index, and of a term's */
  strides factor_at;    /* offset in factor of an index of x */
  __device__ float operator()(int64_t s, int64_t i) const {
    int64_t at = kept.offset(s) + summed.offset(i);
    return factor ? x[at] * factor[factor_at.offset(at)] : x[at];
  }
};

struct store_sum {
  float *y;
  __device__ void operator()(int64_t s, double total) const {
    y[s] = (float)total;
  }
};

/* Sums to many places: a thread each. */
struct sum_to_many {
  float *y;
  sum_to_terms terms;
  int64_t count;
  __device__ void operator()(int64_t s) const {
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += (double)terms(s, i);
    y[s] = (float)total;
  }
};

constexpr int FEW_PLACES = 4096;

struct sum_to_plan {
  sum_to_terms terms;
  int64_t places, count;
};

static sum_to_plan plan_sum_to(const launch *l) {
  const plugin_shape *x = in_shape(l, 0), *y = out_shape(l, 0);
  sum_to_plan p = {};
  p.terms.x = in(l, 0);
  p.places = elements(y);
  p.count = elements(x) / p.places;
  for (int a = 0; a < x->rank; a++) {
    int own = a - (x->rank - y->rank);
    bool is_kept = own >= 0 && y->dim[own] == x->dim[a];
    add_axis(is_kept ? &p.terms.kept : &p.terms.summed, x->dim[a], elements_after(x, a));
  }
  if (has_in(l, 1)) {
    p.terms.factor = in(l, 1);
    p.terms.factor_at = broadcast_strides(x, in_shape(l, 1));
  }
  return p;
}

CUDA_SCRATCH(sum_to) {
  int64_t places = elements(out_shape(l, 0));
  return places <= FEW_PLACES ? sum_scratch(places, elements(in_shape(l, 0)) / places) : 0;
}

CUDA_OP(sum_to) {
  sum_to_plan p = plan_sum_to(l);
  if (p.places <= FEW_PLACES) return sum_each(l, p.places, p.count, p.terms, store_sum{out(l, 0)});
  return for_each_index(l, p.places, sum_to_many{out(l, 0), p.terms, p.count});
}

/* ---- constant, scale, stack ----------------------------------------------------------------------- */

struct fill_f {
  float *y, value;
  __device__ void operator()(int64_t i) const {
    y[i] = value;
  }
};

CUDA_OP(constant) {
  return for_each_index(l, elements(out_shape(l, 0)), fill_f{out(l, 0), number_f(l, "value")});
}

struct scale_f {
  target y;
  const float *x;
  scheduled_number factor;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> scaled = load<N>(x, i);
    float times = (float)factor;
    UNROLL for (int k = 0; k < N; k++) scaled.at[k] *= times;
    store(y, i, scaled);
  }
};

CUDA_OP(scale) {
  int64_t count = elements(in_shape(l, 0));
  return for_each_group(l, count, count,
                        scale_f{target_of(l, 0), in(l, 0), scheduled(l, "factor")});
}

struct stack_f {
  float *y;
  const float *x[MOST_TERMS];
  __device__ void operator()(int64_t i) const {
    y[i] = x[i][0];
  }
};

CUDA_OP(stack) {
  stack_f f = {};
  f.y = out(l, 0);
  if (l->call->in_count > MOST_TERMS)
    return l->host->error(ERROR_USAGE, "at most %d scalars can be reported on the GPU", MOST_TERMS);
  for (int k = 0; k < l->call->in_count; k++) f.x[k] = in(l, k);
  return for_each_index(l, l->call->in_count, f);
}

/* ---- dropout, spatial_dropout, stochastic_depth ----------------------------------------------------- */

struct dropping {
  target y;
  const float *x;
  const rng_key *keys;
  uint64_t node;
  scheduled_number rate;
  int64_t length; /* of a sample */

  /* Dropped when 32 random bits are below it. */
  __device__ uint32_t limit() const {
    return (uint32_t)(rate * 4294967296.0);
  }
  __device__ float factor() const {
    return (float)(1.0 / (1.0 - rate));
  }
};

static dropping dropping_of(const launch *l) {
  return {target_of(l, 0),      in(l, 0),
          l->call->rng_keys,    l->call->node_id,
          scheduled(l, "rate"), elements(in_shape(l, 0)) / in_shape(l, 0)->dim[0]};
}

/* Four neighbours of a sample share a block of random numbers. Index: sample · blocks + block. */
struct dropout_f {
  dropping d;
  int64_t blocks;
  __device__ void operator()(int64_t i) const {
    int64_t sample = i / blocks, block = i % blocks;
    rng stream = open_stream(d.keys[sample], d.node);
    uint32_t bits[4], limit = d.limit();
    float factor = d.factor();
    if (limit > 0) random_block(stream, (uint32_t)block, bits);
    for (int k = 0; k < 4 && block * 4 + k < d.length; k++) {
      int64_t at = sample * d.length + block * 4 + k;
      d.y[at] = limit > 0 && bits[k] < limit ? 0.0f : factor * d.x[at];
    }
  }
};

CUDA_OP(dropout) {
  dropping d = dropping_of(l);
  int64_t samples = in_shape(l, 0)->dim[0];
  int64_t blocks = (d.length + 3) / 4;
  return for_each_index(l, samples * blocks, dropout_f{d, blocks});
}

struct spatial_dropout_f {
  dropping d;
  int64_t channels;
  __device__ void operator()(int64_t i) const {
    int64_t sample = i / d.length, channel = i % channels;
    uint32_t bits[4];
    random_block(open_stream(d.keys[sample], d.node), (uint32_t)(channel / 4), bits);
    d.y[i] = bits[channel % 4] < d.limit() ? 0.0f : d.factor() * d.x[i];
  }
};

CUDA_OP(spatial_dropout) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        spatial_dropout_f{dropping_of(l), last_extent(in_shape(l, 0))});
}

struct stochastic_depth_f {
  dropping d;
  bool by_batch;
  __device__ void operator()(int64_t i) const {
    int64_t sample = i / d.length;
    uint32_t bits[4];
    random_block(open_stream(d.keys[by_batch ? 0 : sample], d.node), 0, bits);
    d.y[i] = bits[0] < d.limit() ? 0.0f : d.factor() * d.x[i];
  }
};

/* mode: row, batch */
CUDA_OP(stochastic_depth) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        stochastic_depth_f{dropping_of(l), flag(l, "mode")});
}

} // namespace arithmetic_kernels
