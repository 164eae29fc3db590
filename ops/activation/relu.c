/* relu: max(x, 0). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status relu_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "relu_backward", NULL, in, 2, rule->dx);
}

static cost relu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 1);
}

/* x and y may be the same memory. NaN passes through, as in PyTorch. */
FOR_EACH_ISA static void relu_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

static status relu_cpu(const call *c) {
  return run_elementwise(c, relu_chunk, NULL);
}

FOR_EACH_ISA static void relu_backward_chunk(float *dx, const float *y, const float *dy,
                                             int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
}

static status relu_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, relu_backward_chunk);
}

const op op_relu = {
    .name = "relu",
    .family = "activation",
    .summary = "Rectified linear unit, max(x, 0).",
    .doc = "out = max(x, 0), element by element. The gradient at 0 is 0.",
    .torch = "torch.nn.functional.relu(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "max(x, 0)"}, {0}},
    .infer = infer_same_shape,
    .grad = relu_grad,
    .cost = relu_cost,
    .cpu = relu_cpu,
    .cases =
        (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0}, {"{}", "[40000]", 0}, {0}},
};

const op op_relu_backward = {
    .name = "relu_backward",
    .family = "activation",
    .summary = "Gradient of relu: dy where y is positive, else 0.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "any", DTYPE_F32, PORT_SIGN, "result of relu"},
                             {"dy", "as y", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = relu_cost,
    .cpu = relu_backward_cpu,
};
