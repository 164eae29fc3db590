/* relu6: x between 0 and 6, the nearer end elsewhere (Krizhevsky, "Convolutional Deep Belief Networks on
 * CIFAR-10", 2010). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

/* Where the result is at neither end it is x, so the gradient needs only the result, and x may be
 * overwritten. */
static status relu6_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "relu6_backward", NULL, in, 2, rule->dx);
}

static cost relu6_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 2);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void relu6_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float positive = x[i] < 0.0f ? 0.0f : x[i];
    y[i] = positive > 6.0f ? 6.0f : positive;
  }
}

static status relu6_cpu(const call *c) {
  return run_elementwise(c, relu6_chunk, NULL);
}

FOR_EACH_ISA static void relu6_backward_chunk(float *dx, const float *y, const float *dy,
                                              int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float steep = y[i] > 0.0f ? dy[i] : 0.0f;
    dx[i] = y[i] < 6.0f ? steep : 0.0f;
  }
}

static status relu6_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, relu6_backward_chunk);
}

const op op_relu6 = {
    .name = "relu6",
    .family = "activation",
    .summary = "Rectified linear unit that ends at 6.",
    .doc = "out = min(max(x, 0), 6), element by element.",
    .torch = "torch.nn.functional.relu6(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "activated values"}, {0}},
    .infer = infer_same_shape,
    .grad = relu6_grad,
    .cost = relu6_cost,
    .cpu = relu6_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_relu6_backward = {
    .name = "relu6_backward",
    .family = "activation",
    .summary = "Gradient of relu6, from its result.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "any", DTYPE_F32, 0, "result of relu6"},
                             {"dy", "as y", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = relu6_cost,
    .cpu = relu6_backward_cpu,
};
