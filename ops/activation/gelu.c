/* gelu: x · Φ(x), Φ the normal distribution function (Hendrycks and Gimpel, arXiv 1606.08415). */
#include "ops/activation/gelu.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

typedef struct gelu_attrs {
  int approximate;
} gelu_attrs;

enum { GELU_EXACT, GELU_TANH };

static const attr gelu_attr_list[] = {
    {"approximate", ATTR_CHOICE, offsetof(gelu_attrs, approximate), "none", 0, 0,
     (const char *const[]){"none", "tanh", NULL}, 0,
     "none: by the error function; tanh: ½x(1 + tanh(√(2/π)(x + 0.044715x³)))"},
    {0},
};

static status gelu_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "gelu_backward", rule->attrs, in, 2, rule->dx);
}

static cost gelu_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 40);
}

#define SQRT_HALF 0.70710678f
#define INVERSE_SQRT_2PI 0.39894228f
#define SQRT_2_OVER_PI 0.79788456f
#define CUBIC 0.044715f

/* x and y may be the same memory. */
FOR_EACH_ISA static void gelu_exact_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) y[i] = 0.5f * x[i] * (1.0f + vector_erf(x[i] * SQRT_HALF));
}

FOR_EACH_ISA static void gelu_tanh_chunk(float *y, const float *x, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float inner = SQRT_2_OVER_PI * (x[i] + CUBIC * x[i] * x[i] * x[i]);
    y[i] = 0.5f * x[i] * (1.0f + vector_tanh(inner));
  }
}

void gelu_part(const call *c, span part) {
  const gelu_attrs *attrs = c->attrs;
  float *y = (float *)c->out[0].data + part.first;
  const float *x = (const float *)c->in[0].data + part.first;
  if (attrs->approximate == GELU_TANH)
    gelu_tanh_chunk(y, x, part.count);
  else
    gelu_exact_chunk(y, x, part.count);
}

static void gelu_task(void *context, int64_t task) {
  const call *c = context;
  gelu_part(c, chunk_of(shape_elements(&c->in[0].shape), task));
}

static status gelu_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), gelu_task, (void *)c);
  return OK;
}

/* d/dx xΦ(x) = Φ(x) + xφ(x). */
FOR_EACH_ISA static void gelu_exact_backward_chunk(float *restrict dx, const float *restrict x,
                                                   const float *restrict dy, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float phi = 0.5f * (1.0f + vector_erf(x[i] * SQRT_HALF));
    float density = INVERSE_SQRT_2PI * vector_exp(-0.5f * x[i] * x[i]);
    dx[i] = dy[i] * (phi + x[i] * density);
  }
}

FOR_EACH_ISA static void gelu_tanh_backward_chunk(float *restrict dx, const float *restrict x,
                                                  const float *restrict dy, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) {
    float square = x[i] * x[i];
    float t = vector_tanh(SQRT_2_OVER_PI * (x[i] + CUBIC * x[i] * square));
    float inner = SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
    dx[i] = dy[i] * (0.5f * (1.0f + t) + 0.5f * x[i] * (1.0f - t * t) * inner);
  }
}

static void gelu_backward_task(void *context, int64_t task) {
  const call *c = context;
  const gelu_attrs *attrs = c->attrs;
  span part = chunk_of(shape_elements(&c->in[0].shape), task);
  float *dx = (float *)c->out[0].data + part.first;
  const float *x = (const float *)c->in[0].data + part.first;
  const float *dy = (const float *)c->in[1].data + part.first;
  if (attrs->approximate == GELU_TANH)
    gelu_tanh_backward_chunk(dx, x, dy, part.count);
  else
    gelu_exact_backward_chunk(dx, x, dy, part.count);
}

static status gelu_backward_cpu(const call *c) {
  parallel_for(c->pool, chunk_count(shape_elements(&c->in[0].shape)), gelu_backward_task,
               (void *)c);
  return OK;
}

const op op_gelu = {
    .name = "gelu",
    .family = "activation",
    .summary = "Gaussian error linear unit, x · Φ(x).",
    .doc = "out = x · Φ(x) with Φ the distribution function of the standard normal "
           "(Hendrycks and Gimpel, arXiv 1606.08415).",
    .torch = "torch.nn.functional.gelu(x, approximate=approximate)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "x · Φ(x)"}, {0}},
    .attrs = gelu_attr_list,
    .attrs_bytes = sizeof(gelu_attrs),
    .infer = infer_same_shape,
    .grad = gelu_grad,
    .cost = gelu_cost,
    .cpu = gelu_cpu,
    .cases = (const op_case[]){{"{}", "[1..3, 1..20, 1..9]", 0},
                               {"{}", "[2, 3, 8]", 0},
                               {"{approximate: tanh}", "[1..3, 1..20, 1..9]", 0},
                               {0}},
};

const op op_gelu_backward = {
    .name = "gelu_backward",
    .family = "activation",
    .summary = "Gradient of gelu, from its input.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "input of gelu"},
                             {"dy", "as x", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "as x", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .attrs = gelu_attr_list,
    .attrs_bytes = sizeof(gelu_attrs),
    .infer = infer_equal_shapes,
    .cost = gelu_cost,
    .cpu = gelu_backward_cpu,
};
