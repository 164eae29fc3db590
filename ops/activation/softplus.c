/* softplus: ln(1 + e^x), a smooth ReLU (Dugas et al., NeurIPS 2000). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status softplus_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "softplus_backward", NULL, in, 2, rule->dx);
}

static cost softplus_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 30);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void softplus_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float positive = x[i] < 0.0f ? 0.0f : x[i];
    y[i] = positive + vector_log(1.0f + vector_exp(-vector_abs(x[i])));
  }
}

static status softplus_cpu(const call *c) {
  return run_elementwise(c, softplus_chunk, NULL);
}

FOR_EACH_ISA static void softplus_backward_chunk(float *dx, const float *x, const float *dy,
                                                 int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * vector_sigmoid(x[i]);
}

static status softplus_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, softplus_backward_chunk);
}

const op op_softplus = {
    .name = "softplus",
    .family = "activation",
    .summary = "Smooth rectified linear unit, ln(1 + e^x).",
    .doc = "out = ln(1 + e^x), element by element; above 0 everywhere.",
    .torch = "torch.nn.functional.softplus(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "activated values"}, {0}},
    .infer = infer_same_shape,
    .grad = softplus_grad,
    .cost = softplus_cost,
    .cpu = softplus_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_softplus_backward = {
    .name = "softplus_backward",
    .family = "activation",
    .summary = "Gradient of softplus, from its input.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "input of softplus"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = softplus_cost,
    .cpu = softplus_backward_cpu,
};
