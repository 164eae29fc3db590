/* elu, celu and selu: x where positive, an exponential that levels off elsewhere (Clevert et al., ICLR 2016,
 * arXiv 1511.07289; Barron, arXiv 1704.07483; Klambauer et al., NeurIPS 2017, arXiv 1706.02515). */
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

typedef struct elu_attrs {
  double alpha;
} elu_attrs;

static const attr elu_attr_list[] = {
    {"alpha", ATTR_FLOAT, offsetof(elu_attrs, alpha), "1", 0, 100, NULL, 0,
     "the result is above −alpha"},
    {0},
};
static const attr celu_attr_list[] = {
    {"alpha", ATTR_FLOAT, offsetof(elu_attrs, alpha), "1", 0.01, 100, NULL, 0,
     "the result is above −alpha; the slope at 0 is 1 whatever it is"},
    {0},
};

/* All three: slope · x where positive, depth · (e^(rate · x) − 1) elsewhere. */
typedef struct exponential_unit {
  float slope, depth, rate;
} exponential_unit;

static exponential_unit elu_of(const void *attributes) {
  const elu_attrs *attrs = attributes;
  return (exponential_unit){1, (float)attrs->alpha, 1};
}
static exponential_unit celu_of(const void *attributes) {
  const elu_attrs *attrs = attributes;
  return (exponential_unit){1, (float)attrs->alpha, (float)(1 / attrs->alpha)};
}
/* With these numbers, mean 0 and variance 1 are a fixed point of a layer with its activation. */
static exponential_unit selu_of(const void *attributes) {
  (void)attributes;
  return (exponential_unit){1.05070098f, 1.75809934f, 1};
}

/* The result has the sign of x, and on the negative side the gradient is rate · (y + depth): it needs
 * only the result, and x may be overwritten. */
static status grad_from_result(grad *rule, const char *backward) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, backward, rule->attrs, in, 2, rule->dx);
}
static status elu_grad(grad *rule) {
  return grad_from_result(rule, "elu_backward");
}
static status celu_grad(grad *rule) {
  return grad_from_result(rule, "celu_backward");
}
static status selu_grad(grad *rule) {
  return grad_from_result(rule, "selu_backward");
}

static cost elu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 22);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void forward_chunk(float *y, const float *x, exponential_unit u,
                                       int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float negative = u.depth * vector_expm1(u.rate * x[i]);
    y[i] = x[i] > 0.0f ? u.slope * x[i] : negative;
  }
}

FOR_EACH_ISA static void backward_chunk(float *dx, const float *y, const float *dy,
                                        exponential_unit u, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++)
    dx[i] = dy[i] * (y[i] > 0.0f ? u.slope : u.rate * (y[i] + u.depth));
}

typedef struct unit_call {
  const call *call;
  exponential_unit unit;
} unit_call;

static void unit_task(void *context, int64_t task) {
  const unit_call *u = context;
  const tensor *in = u->call->in;
  span part = chunk_of(shape_elements(&in[0].shape), task);
  float *out = (float *)u->call->out[0].data + part.first;
  const float *first = (const float *)in[0].data + part.first;
  if (u->call->in_count == 1)
    forward_chunk(out, first, u->unit, part.count);
  else
    backward_chunk(out, first, (const float *)in[1].data + part.first, u->unit, part.count);
}

static status run_unit(const call *c, exponential_unit unit) {
  unit_call u = {c, unit};
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), unit_task, &u);
  return OK;
}
static status elu_cpu(const call *c) {
  return run_unit(c, elu_of(c->attrs));
}
static status celu_cpu(const call *c) {
  return run_unit(c, celu_of(c->attrs));
}
static status selu_cpu(const call *c) {
  return run_unit(c, selu_of(c->attrs));
}

#define INPUTS                                                                                     \
  (const port[]) {                                                                                 \
    {"x", "any", DTYPE_F32, 0, "values"}, {                                                        \
      0                                                                                            \
    }                                                                                              \
  }
#define OUTPUTS                                                                                    \
  (const port[]) {                                                                                 \
    {"out", "as x", DTYPE_F32, PORT_STORABLE, "activated values"}, {                               \
      0                                                                                            \
    }                                                                                              \
  }
#define BACKWARD_INPUTS                                                                            \
  (const port[]) {                                                                                 \
    {"y", "any", DTYPE_F32, 0, "result of the activation"},                                        \
        {"dy", "as y", DTYPE_F32, 0, "gradient of the result"}, {                                  \
      0                                                                                            \
    }                                                                                              \
  }
#define BACKWARD_OUTPUTS                                                                           \
  (const port[]) {                                                                                 \
    {"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {                                       \
      0                                                                                            \
    }                                                                                              \
  }

const op op_elu = {
    .name = "elu",
    .family = "activation",
    .summary = "Exponential linear unit.",
    .doc = "out = x where x > 0, alpha · (e^x − 1) elsewhere (Clevert et al., arXiv 1511.07289).",
    .torch = "torch.nn.functional.elu(x, alpha)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .attrs = elu_attr_list,
    .attrs_bytes = sizeof(elu_attrs),
    .infer = infer_same_shape,
    .grad = elu_grad,
    .cost = elu_cost,
    .cpu = elu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{alpha: 0.3}", "[3, 60..70]", 0},
                               {0}},
};

const op op_elu_backward = {
    .name = "elu_backward",
    .family = "activation",
    .summary = "Gradient of elu, from its result.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = BACKWARD_INPUTS,
    .outputs = BACKWARD_OUTPUTS,
    .attrs = elu_attr_list,
    .attrs_bytes = sizeof(elu_attrs),
    .infer = infer_equal_shapes,
    .cost = elu_cost,
    .cpu = elu_cpu,
};

const op op_celu = {
    .name = "celu",
    .family = "activation",
    .summary = "Exponential linear unit without a kink at 0.",
    .doc =
        "out = x where x > 0, alpha · (e^(x / alpha) − 1) elsewhere (Barron, arXiv 1704.07483);\n"
        "with alpha 1 it is elu.",
    .torch = "torch.nn.functional.celu(x, alpha)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .attrs = celu_attr_list,
    .attrs_bytes = sizeof(elu_attrs),
    .infer = infer_same_shape,
    .grad = celu_grad,
    .cost = elu_cost,
    .cpu = celu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{alpha: 0.4}", "[3, 60..70]", 0},
                               {0}},
};

const op op_celu_backward = {
    .name = "celu_backward",
    .family = "activation",
    .summary = "Gradient of celu, from its result.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = BACKWARD_INPUTS,
    .outputs = BACKWARD_OUTPUTS,
    .attrs = celu_attr_list,
    .attrs_bytes = sizeof(elu_attrs),
    .infer = infer_equal_shapes,
    .cost = elu_cost,
    .cpu = celu_cpu,
};

const op op_selu = {
    .name = "selu",
    .family = "activation",
    .summary = "Scaled exponential linear unit, for networks without norms.",
    .doc = "out = λx where x > 0, λα · (e^x − 1) elsewhere, with λ = 1.0507… and α = 1.6733…, for\n"
           "which activations keep mean 0 and variance 1 from layer to layer (Klambauer et al.,\n"
           "NeurIPS 2017, arXiv 1706.02515).",
    .torch = "torch.nn.functional.selu(x)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = INPUTS,
    .outputs = OUTPUTS,
    .infer = infer_same_shape,
    .grad = selu_grad,
    .cost = elu_cost,
    .cpu = selu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{}", "[3, 60..70]", 0},
                               {0}},
};

const op op_selu_backward = {
    .name = "selu_backward",
    .family = "activation",
    .summary = "Gradient of selu, from its result.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = BACKWARD_INPUTS,
    .outputs = BACKWARD_OUTPUTS,
    .infer = infer_equal_shapes,
    .cost = elu_cost,
    .cpu = selu_cpu,
};
