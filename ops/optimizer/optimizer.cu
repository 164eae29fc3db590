/* Updates of the flat buffers of parameters; ops/optimizer/<name>.c has the definitions. Inputs:
 * parameters, gradients, the number of the update, moments. */
#include "device/cuda/sums.cuh"

namespace optimizer_kernels {

struct sgd_f {
  float *parameter, *velocity;
  const float *gradient;
  scheduled_number lr, momentum, decay;
  bool nesterov;
  __device__ void operator()(int64_t i) const {
    float g = gradient[i] + (float)decay * parameter[i];
    float v = (float)momentum * velocity[i] + g;
    velocity[i] = v;
    parameter[i] -= (float)lr * (nesterov ? g + (float)momentum * v : v);
  }
};

static float *written(const launch *l, int i) {
  return (float *)l->call->in[i].data;
}

CUDA_OP(sgd) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        sgd_f{written(l, 0), written(l, 3), in(l, 1), scheduled(l, "lr"),
                              scheduled(l, "momentum"), scheduled(l, "weight_decay"),
                              flag(l, "nesterov")});
}

/* What all elements of an update share, in scratch memory. */
struct adam_rates {
  float decay, kept, rate, root_correction;
};

/* The number of the update is read on the device, as the scheduled numbers are. */
struct adam_rates_f {
  adam_rates *out;
  const int32_t *step;
  scheduled_number lr, decay;
  double beta1, beta2;
  bool decoupled;
  __device__ void operator()(int64_t) const {
    out->decay = decoupled ? 0.0f : (float)decay;
    out->kept = decoupled ? (float)(1 - lr * decay) : 1.0f;
    out->rate = (float)(lr / (1 - pow(beta1, (double)*step)));
    out->root_correction = (float)sqrt(1 - pow(beta2, (double)*step));
  }
};

struct adam_f {
  float *parameter, *mean, *square;
  const float *gradient;
  const adam_rates *rates;
  float mean_rate, square_kept, square_rate, eps;
  __device__ void operator()(int64_t i) const {
    float p = parameter[i];
    float g = gradient[i] + rates->decay * p;
    float m = mean[i] + mean_rate * (g - mean[i]);
    float s = square_kept * square[i] + square_rate * (g * g);
    mean[i] = m;
    square[i] = s;
    parameter[i] = rates->kept * p - rates->rate * (m / (sqrtf(s) / rates->root_correction + eps));
  }
};

static status run_adam(const launch *l, bool decoupled) {
  double beta1 = number(l, "beta1"), beta2 = number(l, "beta2");
  adam_rates *rates = (adam_rates *)l->scratch;
  status error =
      for_each_index(l, 1,
                     adam_rates_f{rates, in<int32_t>(l, 2), scheduled(l, "lr"),
                                  scheduled(l, "weight_decay"), beta1, beta2, decoupled});
  if (error) return error;
  return for_each_index(l, elements(in_shape(l, 0)),
                        adam_f{written(l, 0), written(l, 3), written(l, 4), in(l, 1), rates,
                               (float)(1 - beta1), (float)beta2, (float)(1 - beta2),
                               number_f(l, "eps")});
}

CUDA_SCRATCH(adam) {
  (void)l;
  return sizeof(adam_rates);
}
CUDA_SCRATCH(adamw) {
  (void)l;
  return sizeof(adam_rates);
}

CUDA_OP(adam) {
  return run_adam(l, false);
}
CUDA_OP(adamw) {
  return run_adam(l, true);
}

struct accumulate_f {
  float *gradient, *sum;
  scheduled_number part, parts;
  __device__ void operator()(int64_t i) const {
    if (part == 0)
      sum[i] = gradient[i];
    else if (part < parts - 1)
      sum[i] += gradient[i];
    else
      gradient[i] = (sum[i] + gradient[i]) * (1.0f / (float)parts);
  }
};

CUDA_OP(gradient_accumulate) {
  return for_each_index(
      l, elements(in_shape(l, 0)),
      accumulate_f{written(l, 0), written(l, 1), scheduled(l, "part"), scheduled(l, "parts")});
}

/* What is not a number stays so: the run reports it. */
struct clamp_f {
  float *x;
  scheduled_number max_value;
  __device__ void operator()(int64_t i) const {
    float limit = (float)max_value, v = x[i] > limit ? limit : x[i];
    x[i] = v < -limit ? -limit : v;
  }
};

CUDA_OP(gradient_clamp) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        clamp_f{written(l, 0), scheduled(l, "max_value")});
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
  scheduled_number max_norm;
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
  return for_each_index(l, count, clip_f{written(l, 0), out(l, 0), scheduled(l, "max_norm")});
}

struct average_f {
  float *average;
  const float *parameter;
  scheduled_number decay;
  __device__ void operator()(int64_t i) const {
    average[i] += (float)(1 - decay) * (parameter[i] - average[i]);
  }
};

CUDA_OP(weight_average) {
  return for_each_index(l, elements(in_shape(l, 0)),
                        average_f{written(l, 0), in(l, 1), scheduled(l, "decay")});
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
