/* leaky_relu: x where positive, slope · x elsewhere (Maas et al., 2013). */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

typedef struct leaky_relu_attrs {
  double slope;
} leaky_relu_attrs;

static const attr leaky_relu_attr_list[] = {
    {"slope", ATTR_FLOAT, offsetof(leaky_relu_attrs, slope), "0.01", 0, 1, NULL, 0,
     "factor of negative values"},
    {0},
};

/* For a slope ≥ 0 the result has the sign of x, so the gradient needs only the result, and x may be
 * overwritten. (With slope 0 negative inputs become 0, which counts as negative.) */
static status leaky_relu_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "leaky_relu_backward", rule->attrs, in, 2, rule->dx);
}

static cost leaky_relu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 2);
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void leaky_relu_chunk(float *y, const float *x, float slope, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
}

static void leaky_relu_task(void *context, int64_t task) {
  const call *c = context;
  const leaky_relu_attrs *attrs = c->attrs;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  leaky_relu_chunk((float *)c->out[0].data + part.first, (const float *)c->in[0].data + part.first,
                   (float)attrs->slope, part.count);
}

static status leaky_relu_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), leaky_relu_task, (void *)c);
  return OK;
}

FOR_EACH_ISA static void leaky_relu_backward_chunk(float *dx, const float *y, const float *dy,
                                                   float slope, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = y[i] > 0.0f ? dy[i] : slope * dy[i];
}

static void leaky_relu_backward_task(void *context, int64_t task) {
  const call *c = context;
  const leaky_relu_attrs *attrs = c->attrs;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  leaky_relu_backward_chunk(
      (float *)c->out[0].data + part.first, (const float *)c->in[0].data + part.first,
      (const float *)c->in[1].data + part.first, (float)attrs->slope, part.count);
}

static status leaky_relu_backward_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), leaky_relu_backward_task,
               (void *)c);
  return OK;
}

const op op_leaky_relu = {
    .name = "leaky_relu",
    .family = "activation",
    .summary = "Leaky rectified linear unit.",
    .doc = "out = x where x > 0, slope · x elsewhere. Directly after an instance norm (with or "
           "without a residual in between) it becomes part of the norm's single pass over memory.",
    .torch = "torch.nn.functional.leaky_relu(x, slope)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "x or slope · x"}, {0}},
    .attrs = leaky_relu_attr_list,
    .attrs_bytes = sizeof(leaky_relu_attrs),
    .infer = infer_same_shape,
    .grad = leaky_relu_grad,
    .cost = leaky_relu_cost,
    .cpu = leaky_relu_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..5, 1..5, 1..9]", 0},
                               {"{slope: 0.2}", "[3, 7, 5]", 0},
                               {0}},
};

const op op_leaky_relu_backward = {
    .name = "leaky_relu_backward",
    .family = "activation",
    .summary = "Gradient of leaky_relu: dy where y is positive, else slope · dy.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "any", DTYPE_F32, PORT_SIGN, "result of leaky_relu"},
                             {"dy", "as y", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as y", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .attrs = leaky_relu_attr_list,
    .attrs_bytes = sizeof(leaky_relu_attrs),
    .infer = infer_equal_shapes,
    .cost = leaky_relu_cost,
    .cpu = leaky_relu_backward_cpu,
};
