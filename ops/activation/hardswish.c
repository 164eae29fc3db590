/* hardswish: x · min(max(x + 3, 0), 6) / 6, silu of straight pieces (Howard et al., "Searching for
 * MobileNetV3", ICCV 2019, arXiv 1905.02244). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status hardswish_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "hardswish_backward", NULL, in, 2, rule->dx);
}

static cost hardswish_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 6);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void hardswish_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float gate = x[i] + 3.0f;
    gate = gate < 0.0f ? 0.0f : gate;
    gate = gate > 6.0f ? 6.0f : gate;
    y[i] = x[i] * gate * (1.0f / 6.0f);
  }
}

static status hardswish_cpu(const call *c) {
  return run_elementwise(c, hardswish_chunk, NULL);
}

FOR_EACH_ISA static void hardswish_backward_chunk(float *dx, const float *x, const float *dy,
                                                  int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float slope = x[i] * (1.0f / 3.0f) + 0.5f;
    slope = x[i] <= -3.0f ? 0.0f : slope;
    slope = x[i] >= 3.0f ? 1.0f : slope;
    dx[i] = dy[i] * slope;
  }
}

static status hardswish_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, hardswish_backward_chunk);
}

const op op_hardswish = {
    .name = "hardswish",
    .family = "activation",
    .summary = "Silu of straight pieces, x · relu6(x + 3) / 6.",
    .doc =
        "out = x · min(max(x + 3, 0), 6) / 6, element by element (Howard et al., arXiv 1905.02244).",
    .torch = "torch.nn.functional.hardswish(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "activated values"}, {0}},
    .infer = infer_same_shape,
    .grad = hardswish_grad,
    .cost = hardswish_cost,
    .cpu = hardswish_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_hardswish_backward = {
    .name = "hardswish_backward",
    .family = "activation",
    .summary = "Gradient of hardswish, from its input.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "input of hardswish"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = hardswish_cost,
    .cpu = hardswish_backward_cpu,
};
