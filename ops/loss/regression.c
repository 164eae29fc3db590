#include "ops/loss/regression.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/scale.h"
#include "ops/arithmetic/vector_math.h"

enum { IN_PREDICTION, IN_TARGET, IN_MASK, IN_DY };

status regression_infer(infer *rule) {
  const shape *p = &rule->in[IN_PREDICTION].shape, *t = &rule->in[IN_TARGET].shape;
  const shape *mask = &rule->in[IN_MASK].shape;
  char have[96], want[96];
  if (!shape_equal(p, t))
    return shape_error("prediction is %s but target is %s", shape_format(have, p),
                       shape_format(want, t));
  if (mask->rank >= 0) {
    bool fits = p->rank == 5 && mask->rank == 4 && mask->dim[0] == p->dim[0];
    for (int a = 1; fits && a < 4; a++) fits = p->dim[a] % mask->dim[a] == 0;
    if (!fits)
      return shape_error("a mask of %s does not lie on a prediction of %s; it needs the same "
                         "samples, and extents that divide the prediction's",
                         shape_format(have, mask), shape_format(want, p));
  }
  rule->out[0].shape = (shape){.rank = 0};
  return OK;
}

status regression_grad(grad *rule, const char *backward_op) {
  value_id in[] = {rule->in[IN_PREDICTION], rule->in[IN_TARGET], rule->in[IN_MASK], rule->dy[0]};
  value_id out;
  TRY(build_node(rule->b, backward_op, rule->attrs, in, 4, &out));
  rule->dx[IN_PREDICTION] = out;
  if (!rule->wanted[IN_TARGET]) return OK;
  return build_scale(rule->b, out, -1, &rule->dx[IN_TARGET]);
}

cost regression_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 3.0 * (double)shape_elements(&in[IN_PREDICTION].shape)};
}

/* A task is a chunk, or with a mask a plane of constant (n, x). */
static int64_t task_count(const tensor *prediction, bool masked) {
  const shape *s = &prediction->shape;
  return masked ? s->dim[0] * s->dim[1] : chunk_count(shape_elements(s));
}

size_t regression_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                            int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  bool masked = in_count > IN_MASK && in[IN_MASK].shape.rank >= 0;
  return (size_t)task_count(&in[IN_PREDICTION], masked) * sizeof(double);
}

FOR_EACH_ISA static double sum_squares(const float *restrict p, const float *restrict t,
                                       int64_t count) {
  float sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += (p[i + l] - t[i + l]) * (p[i + l] - t[i + l]);
  for (int l = 0; i < count; i++, l++) sums[l] += (p[i] - t[i]) * (p[i] - t[i]);
  return lanes_total(sums);
}

FOR_EACH_ISA static double sum_absolute(const float *restrict p, const float *restrict t,
                                        int64_t count) {
  float sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += vector_abs(p[i + l] - t[i + l]);
  for (int l = 0; i < count; i++, l++) sums[l] += vector_abs(p[i] - t[i]);
  return lanes_total(sums);
}

FOR_EACH_ISA static double sum_smooth(const float *restrict p, const float *restrict t, float beta,
                                      int64_t count) {
  float sums[LANES] = {0};
  for (int64_t i = 0; i < count; i += LANES)
    for (int l = 0; l < LANES; l++) {
      float d = i + l < count ? vector_abs(p[i + l] - t[i + l]) : 0.0f;
      sums[l] += d < beta ? 0.5f * d * d / beta : d - 0.5f * beta;
    }
  return lanes_total(sums);
}

FOR_EACH_ISA static void smooth_gradient(float *restrict dx, const float *restrict p,
                                         const float *restrict t, float beta, float factor,
                                         int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float d = (p[i] - t[i]) / beta;
    d = d > 1.0f ? 1.0f : d;
    dx[i] = factor * (d < -1.0f ? -1.0f : d);
  }
}

FOR_EACH_ISA static void square_gradient(float *restrict dx, const float *restrict p,
                                         const float *restrict t, float factor, int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = 2.0f * factor * (p[i] - t[i]);
}

FOR_EACH_ISA static void absolute_gradient(float *restrict dx, const float *restrict p,
                                           const float *restrict t, float factor, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    float d = p[i] - t[i];
    dx[i] = d > 0.0f ? factor : d < 0.0f ? -factor : 0.0f;
  }
}

typedef struct job {
  const call *c;
  regression_kind kind;
  float factor; /* backward: dy / elements that count */
} job;

/* Sum over a run (forward, dx NULL) or its gradient. */
static double do_run(const job *j, float *dx, int64_t at, int64_t count, float weight) {
  const float *p = (const float *)j->c->in[IN_PREDICTION].data + at;
  const float *t = (const float *)j->c->in[IN_TARGET].data + at;
  float beta = (float)j->kind.beta, factor = j->factor * weight;
  switch (j->kind.form) {
  case REGRESSION_SQUARE:
    if (!dx) return (double)weight * sum_squares(p, t, count);
    square_gradient(dx + at, p, t, factor, count);
    break;
  case REGRESSION_ABSOLUTE:
    if (!dx) return (double)weight * sum_absolute(p, t, count);
    absolute_gradient(dx + at, p, t, factor, count);
    break;
  case REGRESSION_SMOOTH:
    if (!dx) return (double)weight * sum_smooth(p, t, beta, count);
    smooth_gradient(dx + at, p, t, beta, factor, count);
    break;
  }
  return 0;
}

static double do_task(const job *j, float *dx, int64_t task) {
  const tensor *mask = &j->c->in[IN_MASK];
  const int64_t *dim = j->c->in[IN_PREDICTION].shape.dim, *grid = mask->shape.dim;
  if (!mask->data) {
    span part = chunk_of(shape_elements(&j->c->in[IN_PREDICTION].shape), task);
    return do_run(j, dx, part.first, part.count, 1);
  }
  int64_t sample = task / dim[1], x = task % dim[1] / (dim[1] / grid[1]);
  int64_t run = dim[3] / grid[3] * dim[4], at = task * dim[2] * dim[3] * dim[4];
  double total = 0;
  for (int64_t y = 0; y < dim[2]; y++) {
    const float *row = (const float *)mask->data +
                       ((sample * grid[1] + x) * grid[2] + y / (dim[2] / grid[2])) * grid[3];
    for (int64_t z = 0; z < grid[3]; z++, at += run) total += do_run(j, dx, at, run, row[z]);
  }
  return total;
}

/* Elements over which the mean is taken. */
static double counted_elements(const call *c) {
  const tensor *mask = &c->in[IN_MASK];
  double elements = (double)shape_elements(&c->in[IN_PREDICTION].shape), total = 0;
  if (!mask->data) return elements;
  int64_t places = shape_elements(&mask->shape);
  for (int64_t i = 0; i < places; i++) total += (double)((const float *)mask->data)[i];
  return total * elements / (double)places;
}

static void forward_task(void *context, int64_t task) {
  const job *j = context;
  ((double *)j->c->workspace)[task] = do_task(j, NULL, task);
}

status regression_forward(const call *c, regression_kind kind) {
  job j = {c, kind, 0};
  int64_t tasks = task_count(&c->in[IN_PREDICTION], c->in[IN_MASK].data != NULL);
  parallel_for(c->pool, tasks, forward_task, &j);
  double total = 0, counted = counted_elements(c);
  for (int64_t i = 0; i < tasks; i++) total += ((const double *)c->workspace)[i];
  /* Nothing masked: nothing to say. */
  *(float *)c->out[0].data = counted > 0 ? (float)(total / counted) : 0.0f;
  return OK;
}

static void backward_task(void *context, int64_t task) {
  const job *j = context;
  do_task(j, j->c->out[0].data, task);
}

status regression_backward(const call *c, regression_kind kind) {
  double counted = counted_elements(c);
  double dy = (double)*(const float *)c->in[IN_DY].data;
  job j = {c, kind, counted > 0 ? (float)(dy / counted) : 0.0f};
  parallel_for(c->pool, task_count(&c->in[IN_PREDICTION], c->in[IN_MASK].data != NULL),
               backward_task, &j);
  return OK;
}

status regression_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[IN_PREDICTION].shape;
  return OK;
}
