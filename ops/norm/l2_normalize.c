/* l2_normalize: vectors along one axis to Euclidean length 1, x / max(‖x‖, eps). */
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/broadcast.h"
#include "ops/shape/axis.h"

#include <math.h>
#include <string.h>

typedef struct l2_normalize_attrs {
  int axis;
  double eps;
} l2_normalize_attrs;

static const attr l2_normalize_attr_list[] = {
    {"axis", ATTR_CHOICE, offsetof(l2_normalize_attrs, axis), "channel", 0, 0, axis_choices, 0,
     "axis that a vector extends along. " AXIS_DOC},
    {"eps", ATTR_FLOAT, offsetof(l2_normalize_attrs, eps), "1e-12", 1e-30, 1e3, NULL, 0,
     "smallest length that is divided by"},
    {0},
};

enum { OUT_Y, OUT_FACTOR };
enum { BACK_Y, BACK_FACTOR, BACK_DY };

static status l2_normalize_infer(infer *rule) {
  const l2_normalize_attrs *attrs = rule->attrs;
  shape s = rule->in[0].shape;
  int axis;
  TRY(axis_of(attrs->axis, &s, &axis));
  rule->out[OUT_Y].shape = s;
  s.dim[axis] = 1;
  rule->out[OUT_FACTOR].shape = s;
  return OK;
}

static status l2_normalize_grad(grad *rule) {
  value_id in[] = {rule->out[OUT_Y], rule->out[OUT_FACTOR], rule->dy[OUT_Y]};
  return build_node(rule->b, "l2_normalize_backward", rule->attrs, in, 3, rule->dx);
}

static cost l2_normalize_cost(const void *attrs, const tensor *in, int in_count,
                              const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 3.0 * (double)shape_elements(&in[0].shape)};
}

static size_t l2_normalize_workspace(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)threads;
  const shape *vectors = &out[OUT_FACTOR].shape;
  return (size_t)shape_elements(vectors) * sizeof(float) +
         broadcast_sum_workspace(&in[0].shape, vectors);
}

typedef struct l2_job {
  const call *c;
  const float *factor, *along; /* one number for each vector */
} l2_job;

static void scale_task(void *context, int64_t task) {
  const l2_job *job = context;
  const tensor *x = &job->c->in[0];
  span part = chunk_of(shape_elements(&x->shape), task);
  float *y = (float *)job->c->out[OUT_Y].data + part.first;
  memcpy(y, (const float *)x->data + part.first, (size_t)part.count * sizeof *y);
  broadcast_apply(broadcast_multiply, &x->shape, part, y, &job->c->out[OUT_FACTOR].shape,
                  job->factor);
}

static status l2_normalize_cpu(const call *c) {
  const tensor *x = &c->in[0];
  const shape *vectors = &c->out[OUT_FACTOR].shape;
  float eps = (float)((const l2_normalize_attrs *)c->attrs)->eps;
  int64_t count = shape_elements(vectors);
  float *factor = c->workspace;
  broadcast_sum(&x->shape, x->data, &x->shape, x->data, vectors, factor, factor + count, c->pool);
  for (int64_t i = 0; i < count; i++) {
    float length = sqrtf(factor[i]);
    factor[i] = 1.0f / (length < eps ? eps : length);
  }
  if (c->out[OUT_FACTOR].data)
    memcpy(c->out[OUT_FACTOR].data, factor, (size_t)count * sizeof *factor);
  l2_job job = {.c = c, .factor = factor};
  parallel_for(c->pool, chunk_count(shape_elements(&x->shape)), scale_task, &job);
  return OK;
}

/* ---- gradient ------------------------------------------------------------------------------ */

static status backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[BACK_Y].shape;
  return OK;
}

static size_t backward_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  const shape *vectors = &in[BACK_FACTOR].shape;
  return (size_t)shape_elements(vectors) * sizeof(float) +
         broadcast_sum_workspace(&in[BACK_Y].shape, vectors);
}

FOR_EACH_ISA static void subtract_from(float *dx, const float *dy, int64_t count) {
  ELEMENTWISE
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] - dx[i];
}

static void backward_task(void *context, int64_t task) {
  const l2_job *job = context;
  const shape *whole = &job->c->in[BACK_Y].shape, *vectors = &job->c->in[BACK_FACTOR].shape;
  span part = chunk_of(shape_elements(whole), task);
  float *dx = (float *)job->c->out[0].data + part.first;
  memcpy(dx, (const float *)job->c->in[BACK_Y].data + part.first, (size_t)part.count * sizeof *dx);
  broadcast_apply(broadcast_multiply, whole, part, dx, vectors, job->along);
  subtract_from(dx, (const float *)job->c->in[BACK_DY].data + part.first, part.count);
  broadcast_apply(broadcast_multiply, whole, part, dx, vectors, job->factor);
}

/* dx = (dy − y Σ y·dy) / ‖x‖: what dy has along the vector does not change its direction. A vector
 * shorter than eps is only multiplied by 1 / eps. */
static status l2_normalize_backward_cpu(const call *c) {
  const tensor *y = &c->in[BACK_Y], *dy = &c->in[BACK_DY];
  const shape *vectors = &c->in[BACK_FACTOR].shape;
  const float *factor = c->in[BACK_FACTOR].data;
  float largest = 1.0f / (float)((const l2_normalize_attrs *)c->attrs)->eps;
  int64_t count = shape_elements(vectors);
  float *along = c->workspace;
  broadcast_sum(&y->shape, dy->data, &y->shape, y->data, vectors, along, along + count, c->pool);
  for (int64_t i = 0; i < count; i++)
    if (factor[i] >= largest) along[i] = 0;
  l2_job job = {.c = c, .factor = factor, .along = along};
  parallel_for(c->pool, chunk_count(shape_elements(&y->shape)), backward_task, &job);
  return OK;
}

const op op_l2_normalize = {
    .name = "l2_normalize",
    .family = "norm",
    .summary = "Vectors along one axis scaled to Euclidean length 1.",
    .doc = "out = x / max(‖x‖₂, eps), with the norm taken along one axis. The dot products of such "
           "vectors are cosines.",
    .torch = "torch.nn.functional.normalize(x, dim=axis, eps=eps)",
    .version = 2,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "N …", DTYPE_F32, 0, "vectors of length 1"},
                              {"factor", "N … 1 …", DTYPE_F32, PORT_SAVED, "1 / max(‖x‖, eps)"},
                              {0}},
    .attrs = l2_normalize_attr_list,
    .attrs_bytes = sizeof(l2_normalize_attrs),
    .infer = l2_normalize_infer,
    .grad = l2_normalize_grad,
    .cost = l2_normalize_cost,
    .workspace_bytes = l2_normalize_workspace,
    .cpu = l2_normalize_cpu,
    .cases = (const op_case[]){{"{}", "[1..3, 1..9, 2..70]", 0},
                               {"{axis: token}", "[1..3, 2..40, 1..40]", 0},
                               {"{axis: y}", "[1..2, 3, 2..9, 2, 1..5]", 0},
                               {"{eps: 1}", "[2, 1..9, 2|3]", 0},
                               {"{axis: token}", "[1..2, 64..300, 3|8]", 0},
                               {"{}", "[3, 1030]", 0},
                               {0}},
};

const op op_l2_normalize_backward = {
    .name = "l2_normalize_backward",
    .family = "norm",
    .summary = "Gradient of l2_normalize: (dy − y Σ y·dy) / ‖x‖.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "N …", DTYPE_F32, 0, "result of l2_normalize"},
                             {"factor", "N … 1 …", DTYPE_F32, 0, "1 / max(‖x‖, eps)"},
                             {"dy", "N …", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "N …", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .attrs = l2_normalize_attr_list,
    .attrs_bytes = sizeof(l2_normalize_attrs),
    .infer = backward_infer,
    .cost = l2_normalize_cost,
    .workspace_bytes = backward_workspace,
    .cpu = l2_normalize_backward_cpu,
};
