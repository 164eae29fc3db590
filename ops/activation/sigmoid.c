/* sigmoid: the logistic function, 1 / (1 + e^−x). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status sigmoid_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "sigmoid_backward", NULL, in, 2, rule->dx);
}

static cost sigmoid_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 20);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void sigmoid_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = vector_sigmoid(x[i]);
}

static status sigmoid_cpu(const call *c) {
  return run_elementwise(c, sigmoid_chunk, NULL);
}

FOR_EACH_ISA static void sigmoid_backward_chunk(float *dx, const float *y, const float *dy,
                                                int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
}

static status sigmoid_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, sigmoid_backward_chunk);
}

const op op_sigmoid = {
    .name = "sigmoid",
    .family = "activation",
    .summary = "Logistic function, 1 / (1 + e^−x).",
    .doc = "out = 1 / (1 + e^−x), element by element; between 0 and 1.",
    .torch = "torch.sigmoid(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "1 / (1 + e^−x)"}, {0}},
    .infer = infer_same_shape,
    .grad = sigmoid_grad,
    .cost = sigmoid_cost,
    .cpu = sigmoid_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_sigmoid_backward = {
    .name = "sigmoid_backward",
    .family = "activation",
    .summary = "Gradient of sigmoid: dy · y · (1 − y).",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "any", DTYPE_F32, 0, "result of sigmoid"},
                             {"dy", "as y", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = sigmoid_cost,
    .cpu = sigmoid_backward_cpu,
};
