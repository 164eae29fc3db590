/* nt_xent and its gradient, a block for each view; ops/loss/nt_xent.c has the definition. */
#include "device/cuda/kernel.cuh"

namespace nt_xent_kernels {

enum { IN_A, IN_B };
enum { OUT_LOSS, OUT_ACCURACY, OUT_UNIT, OUT_NORM, OUT_SOFTMAX };
enum { BACK_UNIT, BACK_NORM, BACK_SOFTMAX, BACK_DY };
#define LEAST_NORM 1e-12

struct views {
  int64_t samples, width;
  scheduled_number temperature;
};

static __device__ double block_dot(const float *x, const float *y, int64_t count) {
  double sum = 0;
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x) sum += (double)x[k] * (double)y[k];
  return block_sum(sum);
}

static __global__ void unit_rows(float *unit, float *norms, const float *a, const float *b,
                                 views v) {
  int64_t i = blockIdx.x;
  const float *x = (i < v.samples ? a : b) + i % v.samples * v.width;
  double norm = sqrt(block_dot(x, x, v.width));
  float factor = (float)(1 / (norm > LEAST_NORM ? norm : LEAST_NORM));
  for (int64_t k = threadIdx.x; k < v.width; k += blockDim.x) unit[i * v.width + k] = x[k] * factor;
  if (threadIdx.x == 0) norms[i] = (float)norm;
}

/* Each row's softmax, loss and whether its partner is nearest: results[i], results[2N + i]. */
static __global__ void softmax_rows(float *softmax, double *results, const float *unit, views v) {
  int64_t i = blockIdx.x, count = 2 * v.samples, partner = (i + v.samples) % count;
  float *row = softmax + i * count;
  for (int64_t k = 0; k < count; k++) {
    double product = block_dot(unit + i * v.width, unit + k * v.width, v.width);
    if (threadIdx.x == 0) row[k] = k == i ? 0 : (float)(product / v.temperature);
  }
  if (threadIdx.x != 0) return;
  int64_t best = -1;
  for (int64_t k = 0; k < count; k++)
    if (k != i && (best < 0 || row[k] > row[best])) best = k;
  double total = 0, largest = (double)row[best], own = (double)row[partner] - largest;
  for (int64_t k = 0; k < count; k++)
    if (k != i) total += exp((double)row[k] - largest);
  for (int64_t k = 0; k < count; k++)
    row[k] = k == i ? 0 : (float)(exp((double)row[k] - largest) / total);
  results[i] = log(total) - own;
  results[count + i] = best == partner;
}

struct mean_rows {
  float *loss, *accuracy;
  const double *results;
  int64_t count;
  __device__ void operator()(int64_t) const {
    double sum = 0, hits = 0;
    for (int64_t i = 0; i < count; i++) {
      sum += results[i];
      hits += results[count + i];
    }
    *loss = (float)(sum / (double)count);
    *accuracy = (float)(hits / (double)count);
  }
};

/* What the gradient alone reads has no memory where there is none. */
static size_t aligned(int64_t floats) {
  return ((size_t)floats * sizeof(float) + 255) / 256 * 256;
}

static views views_of(const launch *l) {
  const plugin_shape *a = in_shape(l, IN_A);
  return {a->dim[0], elements(a) / a->dim[0], scheduled(l, "temperature")};
}

/* The results, then unit vectors, norms and softmax where they are not outputs. */
CUDA_SCRATCH(nt_xent) {
  views v = views_of(l);
  int64_t count = 2 * v.samples;
  return aligned(4 * count) + aligned(count * v.width) + aligned(count) + aligned(count * count);
}

CUDA_OP(nt_xent) {
  views v = views_of(l);
  int64_t count = 2 * v.samples;
  double *results = (double *)l->scratch;
  char *rest = (char *)l->scratch + aligned(4 * count);
  float *unit = out(l, OUT_UNIT) ? out(l, OUT_UNIT) : (float *)rest;
  rest += aligned(count * v.width);
  float *norms = out(l, OUT_NORM) ? out(l, OUT_NORM) : (float *)rest;
  rest += aligned(count);
  float *softmax = out(l, OUT_SOFTMAX) ? out(l, OUT_SOFTMAX) : (float *)rest;
  status error =
      LAUNCH(l, unit_rows, (unsigned)count, 128, 0, unit, norms, in(l, IN_A), in(l, IN_B), v);
  if (!error)
    error =
        LAUNCH(l, softmax_rows, (unsigned)count, 128, 0, softmax, results, (const float *)unit, v);
  if (error) return error;
  return for_each_index(l, 1, mean_rows{out(l, OUT_LOSS), out(l, OUT_ACCURACY), results, count});
}

static __global__ void backward_rows(float *da, float *db, const float *unit, const float *norms,
                                     const float *softmax, const float *dy, views v) {
  int64_t i = blockIdx.x, count = 2 * v.samples, partner = (i + v.samples) % count;
  double norm = (double)norms[i], scale = (double)*dy / ((double)count * v.temperature);
  float *dx = (i < v.samples ? da : db) + i % v.samples * v.width;
  const float *own = unit + i * v.width;
  for (int64_t d = threadIdx.x; d < v.width; d += blockDim.x) {
    float sum = 0;
    for (int64_t k = 0; k < count; k++) {
      double weight = (double)softmax[i * count + k] + (double)softmax[k * count + i];
      sum += (float)(scale * (weight - (k == partner ? 2 : 0))) * unit[k * v.width + d];
    }
    dx[d] = sum;
  }
  float along = norm > LEAST_NORM ? (float)block_dot(dx, own, v.width) : 0.0f;
  float factor = (float)(1 / (norm > LEAST_NORM ? norm : LEAST_NORM));
  for (int64_t d = threadIdx.x; d < v.width; d += blockDim.x)
    dx[d] = (dx[d] - along * own[d]) * factor;
}

CUDA_OP(nt_xent_backward) {
  const plugin_shape *unit = in_shape(l, BACK_UNIT);
  views v = {unit->dim[0] / 2, unit->dim[1], scheduled(l, "temperature")};
  return LAUNCH(l, backward_rows, (unsigned)unit->dim[0], 128, 0, out(l, 0), out(l, 1),
                in(l, BACK_UNIT), in(l, BACK_NORM), in(l, BACK_SOFTMAX), in(l, BACK_DY), v);
}

} // namespace nt_xent_kernels
