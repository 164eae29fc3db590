/* mse, l1, smooth_l1 and their gradients; ops/loss/regression.h has the definition. */
#include "device/cuda/index.cuh"
#include "device/cuda/sums.cuh"

namespace regression_kernels {

enum { IN_PREDICTION, IN_TARGET, IN_MASK, IN_DY };
enum form { SQUARE, ABSOLUTE, SMOOTH };

/* A mask may be a coarser grid, whose places hold whole blocks of voxels. */
struct masked {
  const float *mask; /* NULL: everything counts */
  volume_shape volume, grid;
  __device__ float weight(int64_t i) const {
    if (!mask) return 1;
    voxel v = volume.locate(i);
    int64_t at[3];
    for (int a = 0; a < 3; a++) at[a] = v.at[a] / (volume.dim[1 + a] / grid.dim[1 + a]);
    return mask[grid.index(v.n, at[0], at[1], at[2], 0)];
  }
};

static masked mask_of(const launch *l) {
  masked m = {};
  if (!has_in(l, IN_MASK)) return m;
  m.mask = in(l, IN_MASK);
  m.volume = volume_of(in_shape(l, IN_PREDICTION));
  m.grid = volume_of(in_shape(l, IN_MASK));
  return m;
}

/* Sum 0 is of the errors, sum 1 of the weights. */
struct error_f {
  const float *p, *t;
  masked m;
  form kind;
  float beta;
  __device__ float operator()(int64_t s, int64_t i) const {
    float weight = m.weight(i), d = fabsf(p[i] - t[i]);
    if (s == 1) return weight;
    float error = kind == SQUARE     ? d * d
                  : kind == ABSOLUTE ? d
                  : d < beta         ? 0.5f * d * d / beta
                                     : d - 0.5f * beta;
    return weight * error;
  }
};

struct store_total {
  double *totals;
  __device__ void operator()(int64_t s, double total) const {
    totals[s] = total;
  }
};

struct mean_f {
  float *loss;
  const double *totals;
  __device__ void operator()(int64_t) const {
    *loss = totals[1] > 0 ? (float)(totals[0] / totals[1]) : 0.0f; /* nothing masked */
  }
};

struct error_gradient_f {
  float *dx;
  const float *p, *t, *dy;
  const double *totals;
  masked m;
  form kind;
  float beta;
  __device__ void operator()(int64_t i) const {
    double counted = totals[1];
    float factor = counted > 0 ? (float)((double)*dy / counted) * m.weight(i) : 0.0f;
    float d = p[i] - t[i];
    if (kind == SQUARE) {
      dx[i] = 2.0f * factor * d;
    } else if (kind == ABSOLUTE) {
      dx[i] = d > 0.0f ? factor : d < 0.0f ? -factor : 0.0f;
    } else {
      float slope = d / beta;
      slope = slope > 1.0f ? 1.0f : slope;
      dx[i] = factor * (slope < -1.0f ? -1.0f : slope);
    }
  }
};

/* The two totals, then the partials of the sums. */
enum { TOTALS_BYTES = 256 };

static size_t regression_scratch(const launch *l) {
  return TOTALS_BYTES + sum_scratch(2, elements(in_shape(l, IN_PREDICTION)));
}

static status find_totals(const launch *l, form kind, float beta) {
  launch sums = *l;
  sums.scratch = (char *)l->scratch + TOTALS_BYTES;
  return sum_each(&sums, 2, elements(in_shape(l, IN_PREDICTION)),
                  error_f{in(l, IN_PREDICTION), in(l, IN_TARGET), mask_of(l), kind, beta},
                  store_total{(double *)l->scratch});
}

static status forward(const launch *l, form kind, float beta) {
  status error = find_totals(l, kind, beta);
  return error ? error : for_each_index(l, 1, mean_f{out(l, 0), (double *)l->scratch});
}

static status backward(const launch *l, form kind, float beta) {
  status error = find_totals(l, kind, beta);
  if (error) return error;
  return for_each_index(l, elements(in_shape(l, IN_PREDICTION)),
                        error_gradient_f{out(l, 0), in(l, IN_PREDICTION), in(l, IN_TARGET),
                                         in(l, IN_DY), (double *)l->scratch, mask_of(l), kind,
                                         beta});
}

CUDA_SCRATCH(mse) {
  return regression_scratch(l);
}
CUDA_OP(mse) {
  return forward(l, SQUARE, 0);
}
CUDA_SCRATCH(mse_backward) {
  return regression_scratch(l);
}
CUDA_OP(mse_backward) {
  return backward(l, SQUARE, 0);
}

CUDA_SCRATCH(l1) {
  return regression_scratch(l);
}
CUDA_OP(l1) {
  return forward(l, ABSOLUTE, 0);
}
CUDA_SCRATCH(l1_backward) {
  return regression_scratch(l);
}
CUDA_OP(l1_backward) {
  return backward(l, ABSOLUTE, 0);
}

CUDA_SCRATCH(smooth_l1) {
  return regression_scratch(l);
}
CUDA_OP(smooth_l1) {
  return forward(l, SMOOTH, number_f(l, "beta"));
}
CUDA_SCRATCH(smooth_l1_backward) {
  return regression_scratch(l);
}
CUDA_OP(smooth_l1_backward) {
  return backward(l, SMOOTH, number_f(l, "beta"));
}

} // namespace regression_kernels
