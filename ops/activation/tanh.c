/* tanh: hyperbolic tangent. */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status tanh_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "tanh_backward", NULL, in, 2, rule->dx);
}

static cost tanh_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 20);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void tanh_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = vector_tanh(x[i]);
}

static status tanh_cpu(const call *c) {
  return run_elementwise(c, tanh_chunk, NULL);
}

FOR_EACH_ISA static void tanh_backward_chunk(float *dx, const float *y, const float *dy,
                                             int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * (1.0f - y[i] * y[i]);
}

static status tanh_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, tanh_backward_chunk);
}

const op op_tanh = {
    .name = "tanh",
    .family = "activation",
    .summary = "Hyperbolic tangent.",
    .doc = "out = (e^x − e^−x) / (e^x + e^−x), element by element; between −1 and 1.",
    .torch = "torch.tanh(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "tanh x"}, {0}},
    .infer = infer_same_shape,
    .grad = tanh_grad,
    .cost = tanh_cost,
    .cpu = tanh_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_tanh_backward = {
    .name = "tanh_backward",
    .family = "activation",
    .summary = "Gradient of tanh: dy · (1 − y²).",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "any", DTYPE_F32, 0, "result of tanh"},
                             {"dy", "as y", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = tanh_cost,
    .cpu = tanh_backward_cpu,
};
