/* instance_norm, group_norm, batch_norm and their gradient; ops/norm/channel_norm.h has the
 * definitions, channel_norm.c the derivation of the gradient. */
#include "device/cuda/channels.cuh"
#include "device/cuda/stored.cuh"

namespace channel_norm_kernels {

enum { NORM_X, NORM_WEIGHT, NORM_BIAS, NORM_RESIDUAL };

/* ---- statistics ------------------------------------------------------------------------------- */

/* Σ (x − s) and Σ (x − s)², s being the piece's first value of the channel: no cancellation where
 * the mean is large. */
struct shifted_squares {
  const float *x;
  int64_t voxels, channels;
  template <int N>
  __device__ void add(int64_t sample, int64_t channel, int64_t voxel, int64_t first,
                      float sums[2][N]) const {
    int64_t begin = sample * voxels * channels + channel;
    numbers<N> value = load<N>(x, begin + voxel * channels);
    numbers<N> shift = load<N>(x, begin + first * channels);
    UNROLL for (int k = 0; k < N; k++) {
      float d = value.at[k] - shift.at[k];
      sums[0][k] += d;
      sums[1][k] += d * d;
    }
  }
};

/* Chan's combination of the pieces of some neighbouring channels. One block for each sample and
 * group of channels; every channel of the group gets the group's statistics. */
static __global__ void finish_statistics(const float *x, const float *partials, channel_pieces c,
                                         int64_t together, double eps, float *mean, float *rstd,
                                         float *variance) {
  int64_t groups = c.channels / together, sample = blockIdx.x / groups;
  int64_t begin = blockIdx.x % groups * together, count = together * c.pieces;
  const float *from = partials + sample * c.pieces * 2 * c.channels;
  const float *values = x + sample * c.voxels * c.channels;
  double total = 0, squares = 0, elements = (double)(c.voxels * together);
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    int64_t channel = begin + i % together, piece = i / together, first = piece * c.piece_voxels;
    if (first >= c.voxels) continue;
    int64_t n = c.voxels - first < c.piece_voxels ? c.voxels - first : c.piece_voxels;
    total += (double)from[piece * 2 * c.channels + channel] +
             (double)n * (double)values[first * c.channels + channel];
  }
  double m = block_sum(total) / elements;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    int64_t channel = begin + i % together, piece = i / together, first = piece * c.piece_voxels;
    if (first >= c.voxels) continue;
    int64_t n = c.voxels - first < c.piece_voxels ? c.voxels - first : c.piece_voxels;
    const float *partial = from + piece * 2 * c.channels + channel;
    double sum = (double)partial[0], square = (double)partial[c.channels];
    double centre = (double)values[first * c.channels + channel] + sum / (double)n;
    squares += square - sum * sum / (double)n + (double)n * (centre - m) * (centre - m);
  }
  squares = block_sum(squares);
  for (int64_t k = threadIdx.x; k < together; k += blockDim.x) {
    int64_t at = sample * c.channels + begin + k;
    mean[at] = (float)m;
    rstd[at] = (float)(1.0 / sqrt(squares / elements + eps));
    if (variance) variance[at] = (float)(squares / (elements - 1));
  }
}

static status find_statistics(const launch *l, channel_pieces c, int64_t together, float *mean,
                              float *rstd, float *variance) {
  float *partials = (float *)l->scratch;
  const float *x = in(l, NORM_X);
  status error = launch_channel_sums(l, partials, c, shifted_squares{x, c.voxels, c.channels});
  if (error) return error;
  return LAUNCH(l, finish_statistics, (unsigned)(c.samples * (c.channels / together)), 128, 0, x,
                partials, c, together, number(l, "eps"), mean, rstd, variance);
}

/* ---- out = leaky((x − mean) · rstd · weight + bias + residual) -------------------------------- */

struct apply_norm {
  target y;
  const float *x, *residual, *mean, *rstd, *weight, *bias;
  divisor per_sample, channels; /* elements that share a row of statistics */
  float slope;

  template <int N> __device__ void at(int64_t i) const {
    int64_t within, channel, sample = divide(i, &per_sample, &within);
    divide(within, &channels, &channel);
    int64_t row = sample * channels.value + channel;
    numbers<N> value = load<N>(x, i), m = load<N>(mean, row), factor = load<N>(rstd, row);
    if (weight) {
      numbers<N> w = load<N>(weight, channel);
      UNROLL for (int k = 0; k < N; k++) factor.at[k] *= w.at[k];
    }
    numbers<N> added = {};
    if (bias) added = load<N>(bias, channel);
    UNROLL for (int k = 0; k < N; k++) value.at[k] =
        (value.at[k] - m.at[k]) * factor.at[k] + added.at[k];
    if (residual) {
      numbers<N> r = load<N>(residual, i);
      UNROLL for (int k = 0; k < N; k++) value.at[k] += r.at[k];
    }
    UNROLL for (int k = 0; k < N; k++) value.at[k] =
        value.at[k] > 0.0f ? value.at[k] : slope * value.at[k];
    store(y, i, value);
  }
};

static status apply(const launch *l, channel_pieces c, const float *mean, const float *rstd) {
  apply_norm f = {target_of(l, 0),
                  in(l, NORM_X),
                  in(l, NORM_RESIDUAL),
                  mean,
                  rstd,
                  in(l, NORM_WEIGHT),
                  in(l, NORM_BIAS),
                  divide_by(c.voxels * c.channels),
                  divide_by(c.channels),
                  number_f(l, "slope")};
  return for_each_group(l, elements(in_shape(l, NORM_X)), c.channels, f);
}

static channel_pieces pieces_of(const launch *l, bool by_sample) {
  const plugin_shape *x = in_shape(l, NORM_X);
  int64_t samples = by_sample ? x->dim[0] : 1, channels = last_extent(x);
  return cut_channels(samples, elements(x) / samples / channels, channels);
}

static size_t sample_norm_scratch(const launch *l) {
  channel_pieces c = pieces_of(l, true);
  return channel_pieces_bytes(&c);
}

static status sample_norm(const launch *l, int64_t together) {
  channel_pieces c = pieces_of(l, true);
  status error = find_statistics(l, c, together, out(l, 1), out(l, 2), nullptr);
  return error ? error : apply(l, c, out(l, 1), out(l, 2));
}

CUDA_SCRATCH(instance_norm) {
  return sample_norm_scratch(l);
}
CUDA_OP(instance_norm) {
  return sample_norm(l, 1);
}

CUDA_SCRATCH(group_norm) {
  return sample_norm_scratch(l);
}
CUDA_OP(group_norm) {
  return sample_norm(l, last_extent(in_shape(l, NORM_X)) / integer(l, "groups"));
}

/* ---- batch norm -------------------------------------------------------------------------------- */

enum { IN_RUNNING_MEAN = NORM_RESIDUAL + 1, IN_RUNNING_VARIANCE };

struct follow_f {
  float *running;
  const float *batch;
  double momentum;
  __device__ void operator()(int64_t c) const {
    running[c] = (float)((1 - momentum) * (double)running[c] + momentum * (double)batch[c]);
  }
};

/* The partial sums, then the variance of each channel. */
CUDA_SCRATCH(batch_norm_training) {
  channel_pieces c = pieces_of(l, false);
  return channel_pieces_bytes(&c) + (size_t)c.channels * sizeof(float);
}

CUDA_OP(batch_norm_training) {
  channel_pieces c = pieces_of(l, false);
  float *mean = out(l, 1), *rstd = out(l, 2);
  float *variance = (float *)((char *)l->scratch + channel_pieces_bytes(&c));
  double momentum = number(l, "momentum");
  status error = find_statistics(l, c, 1, mean, rstd, variance);
  if (!error) error = apply(l, c, mean, rstd);
  float *running_mean = (float *)l->call->in[IN_RUNNING_MEAN].data;
  float *running_variance = (float *)l->call->in[IN_RUNNING_VARIANCE].data;
  if (!error) error = for_each_index(l, c.channels, follow_f{running_mean, mean, momentum});
  if (!error) error = for_each_index(l, c.channels, follow_f{running_variance, variance, momentum});
  return error;
}

struct rstd_f {
  float *rstd;
  const float *variance;
  double eps;
  __device__ void operator()(int64_t c) const {
    rstd[c] = (float)(1.0 / sqrt((double)variance[c] + eps));
  }
};

/* rstd is a saved output; where the gradient does not read it, it has no memory. */
CUDA_SCRATCH(batch_norm_inference) {
  return (size_t)last_extent(in_shape(l, NORM_X)) * sizeof(float);
}

CUDA_OP(batch_norm_inference) {
  channel_pieces c = pieces_of(l, false);
  float *rstd = out(l, 1) ? out(l, 1) : (float *)l->scratch;
  status error =
      for_each_index(l, c.channels, rstd_f{rstd, in(l, IN_RUNNING_VARIANCE), number(l, "eps")});
  return error ? error : apply(l, c, in(l, IN_RUNNING_MEAN), rstd);
}

/* ---- gradient ------------------------------------------------------------------------------------ */

enum { BACK_X, BACK_Y, BACK_MEAN, BACK_RSTD, BACK_WEIGHT, BACK_DY };
enum { BACK_DX, BACK_DRESIDUAL, BACK_DWEIGHT, BACK_DBIAS };

/* dy times the slope of the activation after the norm. */
template <int N>
static __device__ inline numbers<N> norm_gradient(const float *dy, const source &y, float slope,
                                                  int64_t i) {
  numbers<N> g = load<N>(dy, i);
  if (!y.at) return g;
  numbers<N> sign = load<N>(y, i);
  UNROLL for (int k = 0; k < N; k++) g.at[k] = sign.at[k] > 0.0f ? g.at[k] : slope * g.at[k];
  return g;
}

/* Σ g and Σ g·x̂ */
struct gradient_sums {
  const float *x, *dy, *mean, *rstd;
  source y; /* its sign */
  int64_t voxels, channels;
  float slope;

  template <int N>
  __device__ void add(int64_t sample, int64_t channel, int64_t voxel, int64_t,
                      float sums[2][N]) const {
    int64_t at = (sample * voxels + voxel) * channels + channel, row = sample * channels + channel;
    numbers<N> g = norm_gradient<N>(dy, y, slope, at), value = load<N>(x, at);
    numbers<N> m = load<N>(mean, row), r = load<N>(rstd, row);
    UNROLL for (int k = 0; k < N; k++) {
      sums[0][k] += g.at[k];
      sums[1][k] += g.at[k] * ((value.at[k] - m.at[k]) * r.at[k]);
    }
  }
};

/* totals[sample][2][channel] */
struct store_totals {
  float *totals;
  int64_t channels;
  __device__ void operator()(int64_t sample, int64_t channel, double sum, double dot) const {
    totals[sample * 2 * channels + channel] = (float)sum;
    totals[(sample * 2 + 1) * channels + channel] = (float)dot;
  }
};

struct affine_gradient_f {
  float *dweight, *dbias;
  const float *totals;
  int64_t samples, channels;
  bool affine;
  __device__ void operator()(int64_t channel) const {
    double sum = 0, dot = 0;
    for (int64_t n = 0; affine && n < samples; n++) {
      sum += (double)totals[n * 2 * channels + channel];
      dot += (double)totals[(n * 2 + 1) * channels + channel];
    }
    dbias[channel] = (float)sum;
    dweight[channel] = (float)dot;
  }
};

/* shift and tilt of every sample and channel: lines[sample][2][channel]. */
struct lines_f {
  float *lines;
  const float *totals, *rstd, *weight;
  int64_t channels, together;
  double share;
  __device__ void operator()(int64_t i) const {
    int64_t sample = i / channels, channel = i % channels, first = channel / together * together;
    const float *total = totals + sample * 2 * channels;
    double sum = 0, dot = 0, scale = (double)rstd[i];
    for (int64_t k = first; k < first + together; k++) {
      double factor = weight ? (double)weight[k] : 1;
      sum += factor * (double)total[k];
      dot += factor * (double)total[channels + k];
    }
    lines[sample * 2 * channels + channel] = (float)(scale * sum * share);
    lines[(sample * 2 + 1) * channels + channel] = (float)(scale * scale * dot * share);
  }
};

struct norm_backward_f {
  target dx, dresidual;
  const float *x, *dy, *mean, *rstd, *weight, *lines;
  source y; /* its sign */
  divisor per_sample, channels;
  float slope;

  template <int N> __device__ void at(int64_t i) const {
    int64_t within, channel, sample = divide(i, &per_sample, &within);
    divide(within, &channels, &channel);
    int64_t row = sample * channels.value + channel;
    numbers<N> g = norm_gradient<N>(dy, y, slope, i), value = load<N>(x, i);
    numbers<N> m = load<N>(mean, row), factor = load<N>(rstd, row);
    numbers<N> shift = load<N>(lines, row + sample * channels.value);
    numbers<N> tilt = load<N>(lines, row + (sample + 1) * channels.value);
    if (weight) {
      numbers<N> w = load<N>(weight, channel);
      UNROLL for (int k = 0; k < N; k++) factor.at[k] *= w.at[k];
    }
    if (dresidual.at) store(dresidual, i, g);
    UNROLL for (int k = 0; k < N; k++) value.at[k] =
        factor.at[k] * g.at[k] - shift.at[k] - (value.at[k] - m.at[k]) * tilt.at[k];
    store(dx, i, value);
  }
};

static channel_pieces backward_pieces(const launch *l) {
  int64_t channels = last_extent(in_shape(l, BACK_X));
  int64_t samples = elements(in_shape(l, BACK_MEAN)) / channels;
  return cut_channels(samples, elements(in_shape(l, BACK_X)) / samples / channels, channels);
}

/* The partial sums, the totals, the lines. */
CUDA_SCRATCH(channel_norm_backward) {
  channel_pieces c = backward_pieces(l);
  return channel_pieces_bytes(&c) + (size_t)(4 * c.samples * c.channels) * sizeof(float);
}

CUDA_OP(channel_norm_backward) {
  channel_pieces c = backward_pieces(l);
  float *partials = (float *)l->scratch, slope = number_f(l, "slope");
  float *totals = (float *)((char *)l->scratch + channel_pieces_bytes(&c));
  float *lines = totals + 2 * c.samples * c.channels;
  const float *x = in(l, BACK_X), *dy = in(l, BACK_DY);
  source y = source_of(l, BACK_Y);
  const float *mean = in(l, BACK_MEAN), *rstd = in(l, BACK_RSTD), *weight = in(l, BACK_WEIGHT);
  bool residual = flag(l, "residual");
  int64_t together = integer(l, "channels");
  double share = flag(l, "fixed") ? 0 : 1 / (double)(c.voxels * together);
  status error = total_channels(l, partials, c,
                                gradient_sums{x, dy, mean, rstd, y, c.voxels, c.channels, slope},
                                store_totals{totals, c.channels});
  if (!error) /* without a weight, its gradients are scalars that nobody reads */
    error = for_each_index(l, weight ? c.channels : 1,
                           affine_gradient_f{out(l, BACK_DWEIGHT), out(l, BACK_DBIAS), totals,
                                             c.samples, c.channels, weight != nullptr});
  if (!error)
    error = for_each_index(l, c.samples * c.channels,
                           lines_f{lines, totals, rstd, weight, c.channels, together, share});
  if (error) return error;
  norm_backward_f f = {target_of(l, BACK_DX),
                       residual ? target_of(l, BACK_DRESIDUAL) : target{},
                       x,
                       dy,
                       mean,
                       rstd,
                       weight,
                       lines,
                       y,
                       divide_by(c.voxels * c.channels),
                       divide_by(c.channels),
                       slope};
  return for_each_group(l, elements(in_shape(l, BACK_X)), c.channels, f);
}

} // namespace channel_norm_kernels
