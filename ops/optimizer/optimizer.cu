/* Updates of the flat buffers of parameters; ops/optimizer/<name>.c has the definitions. Inputs:
 * parameters, gradients, the number of the update, moments. */
#include "device/cuda/sums.cuh"

namespace optimizer_kernels {

struct sgd_f {
  float *parameter, *velocity;
  const float *gradient;
  float lr, momentum, decay;
  bool nesterov;
  __device__ void operator()(int64_t i) const {
    float g = gradient[i] + decay * parameter[i];
    float v = momentum * velocity[i] + g;
    velocity[i] = v;
    parameter[i] -= lr * (nesterov ? g + momentum * v : v);
  }
};

static float *written(const launch *l, int i) {
  return (float *)l->call->in[i].data;
}

CUDA_OP(sgd) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        sgd_f{written(l, 0), written(l, 3), in(l, 1), number_f(l, "lr"),
                              number_f(l, "momentum"), number_f(l, "weight_decay"),
                              flag(l, "nesterov")});
}

/* The number of the update is read on the device, so that a recorded step can be played again. */
struct adam_f {
  float *parameter, *mean, *square;
  const float *gradient;
  const int32_t *step;
  double lr, decay, beta1, beta2, eps;
  bool decoupled;
  __device__ void operator()(int64_t i) const {
    float p = parameter[i];
    float g = gradient[i] + (decoupled ? 0.0f : (float)decay * p);
    float m = mean[i] + (float)(1 - beta1) * (g - mean[i]);
    float s = (float)beta2 * square[i] + (float)(1 - beta2) * (g * g);
    mean[i] = m;
    square[i] = s;
    float root_correction = (float)sqrt(1 - pow(beta2, (double)*step));
    float rate = (float)(lr / (1 - pow(beta1, (double)*step)));
    float kept = decoupled ? (float)(1 - lr * decay) : 1.0f;
    parameter[i] = kept * p - rate * (m / (sqrtf(s) / root_correction + (float)eps));
  }
};

static status run_adam(const launch *l, bool decoupled) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        adam_f{written(l, 0), written(l, 3), written(l, 4), in(l, 1),
                               in<int32_t>(l, 2), number(l, "lr"), number(l, "weight_decay"),
                               number(l, "beta1"), number(l, "beta2"), number(l, "eps"),
                               decoupled});
}

CUDA_OP(adam) {
  return run_adam(l, false);
}
CUDA_OP(adamw) {
  return run_adam(l, true);
}

struct accumulate_f {
  float *gradient, *sum;
  bool is_first, is_last;
  float share;
  __device__ void operator()(int64_t i) const {
    if (is_first)
      sum[i] = gradient[i];
    else if (!is_last)
      sum[i] += gradient[i];
    else
      gradient[i] = (sum[i] + gradient[i]) * share;
  }
};

CUDA_OP(gradient_accumulate) {
  int64_t part = integer(l, "part"), parts = integer(l, "parts");
  return for_each_index(l, elements(in_shape(l, 0)),
                        accumulate_f{written(l, 0), written(l, 1), part == 0, part == parts - 1,
                                     1.0f / (float)parts});
}

/* What is not a number stays so: the run reports it. */
struct clamp_f {
  float *x, limit;
  __device__ void operator()(int64_t i) const {
    float v = x[i] > limit ? limit : x[i];
    x[i] = v < -limit ? -limit : v;
  }
};

CUDA_OP(gradient_clamp) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        clamp_f{written(l, 0), number_f(l, "max_value")});
}

struct square_f {
  const float *x;
  __device__ double operator()(int64_t, int64_t i) const {
    return (double)x[i] * (double)x[i];
  }
};

struct store_norm {
  float *norm;
  __device__ void operator()(int64_t, double total) const {
    *norm = (float)sqrt(total);
  }
};

struct clip_f {
  float *x;
  const float *norm;
  double max_norm;
  __device__ void operator()(int64_t i) const {
    float factor = (float)(max_norm / ((double)*norm + 1e-6));
    if (factor < 1.0f) x[i] *= factor;
  }
};

CUDA_SCRATCH(gradient_clip) {
  return sum_scratch(1, elements(in_shape(l, 0)));
}

CUDA_OP(gradient_clip) {
  int64_t count = elements(in_shape(l, 0));
  status error = sum_each(l, 1, count, square_f{in(l, 0)}, store_norm{out(l, 0)});
  if (error) return error;
  return for_each_index(l, count, clip_f{written(l, 0), out(l, 0), number(l, "max_norm")});
}

struct average_f {
  float *average;
  const float *parameter;
  float rate;
  __device__ void operator()(int64_t i) const {
    average[i] += rate * (parameter[i] - average[i]);
  }
};

CUDA_OP(weight_average) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        average_f{written(l, 0), in(l, 1), (float)(1 - number(l, "decay"))});
}

struct exchange_f {
  float *a, *b;
  __device__ void operator()(int64_t i) const {
    float kept = a[i];
    a[i] = b[i];
    b[i] = kept;
  }
};

CUDA_OP(weight_exchange) {
  return for_each_index(l, elements(in_shape(l, 0)), exchange_f{written(l, 0), written(l, 1)});
}

} // namespace optimizer_kernels
