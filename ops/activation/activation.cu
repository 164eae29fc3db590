/* Activations that work element by element, and their gradients; ops/activation/<name>.c has the
 * definitions. */
#include "device/cuda/groups.cuh"

namespace activation_kernels {

/* y = f(a), and y = f(a, b); y may be a. */
template <typename F> struct one_input {
  target y;
  const float *a;
  F f;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> x = load<N>(a, i);
    UNROLL for (int k = 0; k < N; k++) x.at[k] = f(x.at[k]);
    store(y, i, x);
  }
};
template <typename F> struct two_inputs {
  float *y;
  source a; /* of ReLUs, where the sign is all that is read */
  const float *b;
  F f;
  template <int N> __device__ void at(int64_t i) const {
    numbers<N> one = load<N>(a, i), other = load<N>(b, i);
    UNROLL for (int k = 0; k < N; k++) one.at[k] = f(one.at[k], other.at[k]);
    store(y, i, one);
  }
};

template <typename F> static status run_one(const launch *l, F f) {
  int64_t count = elements(in_shape(l, 0));
  return for_each_group(l, count, count, one_input<F>{target_of(l, 0), in(l, 0), f});
}
template <typename F> static status run_two(const launch *l, F f) {
  int64_t count = elements(in_shape(l, 0));
  return for_each_group(l, count, count, two_inputs<F>{out(l, 0), source_of(l, 0), in(l, 1), f});
}

/* ---- relu, leaky_relu: the gradient reads the result ------------------------------------------ */

struct relu_f {
  __device__ float operator()(float x) const {
    return x < 0.0f ? 0.0f : x;
  }
};
struct leaky_f {
  float slope;
  __device__ float operator()(float x) const {
    return x > 0.0f ? x : slope * x;
  }
};
struct leaky_backward_f {
  float slope;
  __device__ float operator()(float y, float dy) const {
    return y > 0.0f ? dy : slope * dy;
  }
};

CUDA_OP(relu) {
  return run_one(l, relu_f{});
}
CUDA_OP(relu_backward) {
  return run_two(l, leaky_backward_f{0.0f});
}
CUDA_OP(leaky_relu) {
  return run_one(l, leaky_f{number_f(l, "slope")});
}
CUDA_OP(leaky_relu_backward) {
  return run_two(l, leaky_backward_f{number_f(l, "slope")});
}

/* ---- sigmoid, silu, tanh ------------------------------------------------------------------------ */

static __device__ inline float logistic(float x) {
  return 1.0f / (1.0f + expf(-x));
}

struct sigmoid_f {
  __device__ float operator()(float x) const {
    return logistic(x);
  }
};
struct sigmoid_backward_f {
  __device__ float operator()(float y, float dy) const {
    return dy * (y * (1.0f - y));
  }
};
struct silu_f {
  __device__ float operator()(float x) const {
    return x * logistic(x);
  }
};
struct silu_backward_f {
  __device__ float operator()(float x, float dy) const {
    float s = logistic(x);
    return dy * (s * (1.0f + x * (1.0f - s)));
  }
};
struct tanh_f {
  __device__ float operator()(float x) const {
    return tanhf(x);
  }
};
struct tanh_backward_f {
  __device__ float operator()(float y, float dy) const {
    return dy * (1.0f - y * y);
  }
};

CUDA_OP(sigmoid) {
  return run_one(l, sigmoid_f{});
}
CUDA_OP(sigmoid_backward) {
  return run_two(l, sigmoid_backward_f{});
}
CUDA_OP(silu) {
  return run_one(l, silu_f{});
}
CUDA_OP(silu_backward) {
  return run_two(l, silu_backward_f{});
}
CUDA_OP(tanh) {
  return run_one(l, tanh_f{});
}
CUDA_OP(tanh_backward) {
  return run_two(l, tanh_backward_f{});
}

/* ---- elu, celu, selu: the gradient reads the result; mish ------------------------------------------ */

/* As in elu.c: slope · x, or depth · (e^(rate · x) − 1). */
struct exponential_f {
  float slope, depth, rate;
  __device__ float operator()(float x) const {
    return x > 0.0f ? slope * x : depth * expm1f(rate * x);
  }
};
struct exponential_backward_f {
  exponential_f unit;
  __device__ float operator()(float y, float dy) const {
    return dy * (y > 0.0f ? unit.slope : unit.rate * (y + unit.depth));
  }
};

static exponential_f elu_of(const launch *l) {
  return {1.0f, number_f(l, "alpha"), 1.0f};
}
static exponential_f celu_of(const launch *l) {
  float alpha = number_f(l, "alpha");
  return {1.0f, alpha, 1.0f / alpha};
}
constexpr exponential_f SELU = {1.05070098f, 1.75809934f, 1.0f};

CUDA_OP(elu) {
  return run_one(l, elu_of(l));
}
CUDA_OP(elu_backward) {
  return run_two(l, exponential_backward_f{elu_of(l)});
}
CUDA_OP(celu) {
  return run_one(l, celu_of(l));
}
CUDA_OP(celu_backward) {
  return run_two(l, exponential_backward_f{celu_of(l)});
}
CUDA_OP(selu) {
  return run_one(l, SELU);
}
CUDA_OP(selu_backward) {
  return run_two(l, exponential_backward_f{SELU});
}

static __device__ inline float bounded_exp(float x) {
  return expf(x > 20.0f ? 20.0f : x);
}
struct mish_f {
  __device__ float operator()(float x) const {
    float e = bounded_exp(x), n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
  }
};
struct mish_backward_f {
  __device__ float operator()(float x, float dy) const {
    float e = bounded_exp(x), n = e * (e + 2.0f), inverse = 1.0f / (n + 2.0f);
    float steepness = 4.0f * (e * inverse) * ((e + 1.0f) * inverse);
    return dy * (n * inverse + x * steepness);
  }
};

CUDA_OP(mish) {
  return run_one(l, mish_f{});
}
CUDA_OP(mish_backward) {
  return run_two(l, mish_backward_f{});
}

/* ---- relu6, hardswish, softplus -------------------------------------------------------------------- */

struct relu6_f {
  __device__ float operator()(float x) const {
    float positive = x < 0.0f ? 0.0f : x;
    return positive > 6.0f ? 6.0f : positive;
  }
};
struct relu6_backward_f {
  __device__ float operator()(float y, float dy) const {
    return y > 0.0f && y < 6.0f ? dy : 0.0f;
  }
};
struct hardswish_f {
  __device__ float operator()(float x) const {
    return x * relu6_f{}(x + 3.0f) * (1.0f / 6.0f);
  }
};
struct hardswish_backward_f {
  __device__ float operator()(float x, float dy) const {
    float slope = x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : x * (1.0f / 3.0f) + 0.5f;
    return dy * slope;
  }
};
struct softplus_f {
  __device__ float operator()(float x) const {
    float positive = x < 0.0f ? 0.0f : x;
    return positive + log1pf(expf(-fabsf(x)));
  }
};
struct softplus_backward_f {
  __device__ float operator()(float x, float dy) const {
    return dy * logistic(x);
  }
};

CUDA_OP(relu6) {
  return run_one(l, relu6_f{});
}
CUDA_OP(relu6_backward) {
  return run_two(l, relu6_backward_f{});
}
CUDA_OP(hardswish) {
  return run_one(l, hardswish_f{});
}
CUDA_OP(hardswish_backward) {
  return run_two(l, hardswish_backward_f{});
}
CUDA_OP(softplus) {
  return run_one(l, softplus_f{});
}
CUDA_OP(softplus_backward) {
  return run_two(l, softplus_backward_f{});
}

/* ---- gelu ----------------------------------------------------------------------------------------- */

#define SQRT_HALF 0.70710678f
#define INVERSE_SQRT_2PI 0.39894228f
#define SQRT_2_OVER_PI 0.79788456f
#define CUBIC 0.044715f

struct gelu_exact_f {
  __device__ float operator()(float x) const {
    return 0.5f * x * (1.0f + erff(x * SQRT_HALF));
  }
};
struct gelu_tanh_f {
  __device__ float operator()(float x) const {
    return 0.5f * x * (1.0f + tanhf(SQRT_2_OVER_PI * (x + CUBIC * x * x * x)));
  }
};
struct gelu_exact_backward_f {
  __device__ float operator()(float x, float dy) const {
    float phi = 0.5f * (1.0f + erff(x * SQRT_HALF));
    return dy * (phi + x * INVERSE_SQRT_2PI * expf(-0.5f * x * x));
  }
};
struct gelu_tanh_backward_f {
  __device__ float operator()(float x, float dy) const {
    float square = x * x;
    float t = tanhf(SQRT_2_OVER_PI * (x + CUBIC * x * square));
    float inner = SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
    return dy * (0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner);
  }
};

/* approximate: none, tanh */
CUDA_OP(gelu) {
  return flag(l, "approximate") ? run_one(l, gelu_tanh_f{}) : run_one(l, gelu_exact_f{});
}
CUDA_OP(gelu_backward) {
  return flag(l, "approximate") ? run_two(l, gelu_tanh_backward_f{})
                                : run_two(l, gelu_exact_backward_f{});
}

} // namespace activation_kernels
