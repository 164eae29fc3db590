/* silu: x · σ(x), σ the logistic function (Elfwing et al., arXiv 1702.03118); also called swish. */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status silu_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "silu_backward", NULL, in, 2, rule->dx);
}

static cost silu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 22);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void silu_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * vector_sigmoid(x[i]);
}

static status silu_cpu(const call *c) {
  return run_elementwise(c, silu_chunk, NULL);
}

/* d/dx xσ(x) = σ(x) (1 + x (1 − σ(x))). */
FOR_EACH_ISA static void silu_backward_chunk(float *dx, const float *x, const float *dy,
                                             int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float s = vector_sigmoid(x[i]);
    dx[i] = dy[i] * (s * (1.0f + x[i] * (1.0f - s)));
  }
}

static status silu_backward_cpu(const call *c) {
  return run_elementwise(c, NULL, silu_backward_chunk);
}

const op op_silu = {
    .name = "silu",
    .family = "activation",
    .summary = "Sigmoid linear unit, x · σ(x); also called swish.",
    .doc =
        "out = x · σ(x) = x / (1 + e^−x), element by element (Elfwing et al., arXiv 1702.03118).",
    .torch = "torch.nn.functional.silu(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "x · σ(x)"}, {0}},
    .infer = infer_same_shape,
    .grad = silu_grad,
    .cost = silu_cost,
    .cpu = silu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_silu_backward = {
    .name = "silu_backward",
    .family = "activation",
    .summary = "Gradient of silu, from its input.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "input of silu"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = silu_cost,
    .cpu = silu_backward_cpu,
};
