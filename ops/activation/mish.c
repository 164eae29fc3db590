/* mish: x · tanh(ln(1 + e^x)) (Misra, BMVC 2020, arXiv 1908.08681). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status mish_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "mish_backward", NULL, in, 2, rule->dx);
}

static cost mish_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 26);
}

/* tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2); from x = 20 on it rounds to 1. */
VECTOR_INLINE float bounded_exp(float x) {
  return vector_exp(x > 20.0f ? 20.0f : x);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void mish_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float e = bounded_exp(x[i]), n = e * (e + 2.0f);
    y[i] = x[i] * (n / (n + 2.0f));
  }
}

static status mish_cpu(const call *c) {
  return run_elementwise(c, mish_chunk, NULL);
}

/* With n = e (e + 2): d/dx n / (n + 2) = 4 e (e + 1) / (n + 2)². */
FOR_EACH_ISA static void mish_backward_chunk(float *dx, const float *x, const float *dy,
                                             int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float e = bounded_exp(x[i]), n = e * (e + 2.0f), inverse = 1.0f / (n + 2.0f);
    float steepness = 4.0f * (e * inverse) * ((e + 1.0f) * inverse);
    dx[i] = dy[i] * (n * inverse + x[i] * steepness);
  }
}

static status mish_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, mish_backward_chunk);
}

const op op_mish = {
    .name = "mish",
    .family = "activation",
    .summary = "Mish, x · tanh(softplus(x)).",
    .doc = "out = x · tanh(ln(1 + e^x)), element by element (Misra, arXiv 1908.08681).",
    .torch = "torch.nn.functional.mish(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "activated values"}, {0}},
    .infer = infer_same_shape,
    .grad = mish_grad,
    .cost = mish_cost,
    .cpu = mish_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_mish_backward = {
    .name = "mish_backward",
    .family = "activation",
    .summary = "Gradient of mish, from its input.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "input of mish"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = mish_cost,
    .cpu = mish_backward_cpu,
};
