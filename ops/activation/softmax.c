/* softmax over the last axis: e^x / Σ e^x, computed from x − max x. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/elementwise.h"
#include "ops/arithmetic/vector_math.h"

#include "graph/graph.h"

static status softmax_infer(infer *rule) {
  if (rule->in[0].shape.rank < 1) return shape_error("cannot take the softmax of a scalar");
  return infer_same_shape(rule);
}

static status softmax_grad(grad *rule) {
  value_id in[2] = {rule->out[0], rule->dy[0]};
  return build_node(rule->b, "softmax_backward", NULL, in, 2, rule->dx);
}

static cost softmax_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 20);
}

VECTOR_INLINE float row_sum(const float *x, int64_t width) {
  float sums[LANES] = {0}, few = 0;
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += x[i + l];
  for (; i < width; i++) few += x[i];
  return width < LANES ? few : (float)lanes_total(sums) + few;
}

VECTOR_INLINE float row_dot(const float *x, const float *y, int64_t width) {
  float sums[LANES] = {0}, few = 0;
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += x[i + l] * y[i + l];
  for (; i < width; i++) few += x[i] * y[i];
  return width < LANES ? few : (float)lanes_total(sums) + few;
}

/* x and y may be the same memory. */
FOR_EACH_ISA static void softmax_wide_rows(float *y, const float *x, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r++, x += width, y += width) {
    float largest = x[0];
    for (int64_t i = 1; i < width; i++) largest = x[i] > largest ? x[i] : largest;
    ELEMENTWISE
    for (int64_t i = 0; i < width; i++) y[i] = vector_exp(x[i] - largest);
    float factor = 1.0f / row_sum(y, width);
    for (int64_t i = 0; i < width; i++) y[i] *= factor;
  }
}

/* Narrow rows, such as the classes of voxels: 64 at a time, turned so that lanes are rows. */
FOR_EACH_ISA static void softmax_narrow_rows(float *y, const float *x, int64_t rows,
                                             int64_t width) {
  enum { BLOCK = 64 };
  float planes[LANES * BLOCK], largest[BLOCK], sum[BLOCK];
  for (int64_t first = 0; first < rows; first += BLOCK, x += BLOCK * width, y += BLOCK * width) {
    int64_t count = rows - first < BLOCK ? rows - first : BLOCK;
    for (int64_t i = 0; i < width; i++) {
      for (int64_t r = 0; r < count; r++) planes[i * BLOCK + r] = x[r * width + i];
      for (int64_t r = count; r < BLOCK; r++) planes[i * BLOCK + r] = 0;
    }
    for (int r = 0; r < BLOCK; r++) largest[r] = planes[r], sum[r] = 0;
    for (int64_t i = 1; i < width; i++)
      for (int r = 0; r < BLOCK; r++) {
        float v = planes[i * BLOCK + r];
        largest[r] = v > largest[r] ? v : largest[r];
      }
    for (int64_t i = 0; i < width; i++)
      for (int r = 0; r < BLOCK; r++) {
        float e = vector_exp(planes[i * BLOCK + r] - largest[r]);
        planes[i * BLOCK + r] = e;
        sum[r] += e;
      }
    for (int r = 0; r < BLOCK; r++) sum[r] = 1.0f / sum[r];
    for (int64_t i = 0; i < width; i++)
      for (int64_t r = 0; r < count; r++) y[r * width + i] = planes[i * BLOCK + r] * sum[r];
  }
}

static void softmax_task(void *context, int64_t task) {
  const call *c = context;
  int64_t width = last_extent(&c->in[0]), rows = shape_elements(&c->in[0].shape) / width;
  span part = piece_of(rows, rows_per_task(width), task);
  float *y = (float *)c->out[0].data + part.first * width;
  const float *x = (const float *)c->in[0].data + part.first * width;
  if (width < LANES)
    softmax_narrow_rows(y, x, part.count, width);
  else
    softmax_wide_rows(y, x, part.count, width);
}

static status softmax_cpu(const call *c) {
  int64_t width = last_extent(&c->in[0]), rows = shape_elements(&c->in[0].shape) / width;
  parallel_for(c->pool, divide_up(rows, rows_per_task(width)), softmax_task, (void *)c);
  return OK;
}

/* dx = y (dy − Σ y·dy). */
FOR_EACH_ISA static void softmax_backward_rows(float *restrict dx, const float *restrict y,
                                               const float *restrict dy, int64_t rows,
                                               int64_t width) {
  for (int64_t r = 0; r < rows; r++, y += width, dy += width, dx += width) {
    float dot = row_dot(y, dy, width);
    for (int64_t i = 0; i < width; i++) dx[i] = y[i] * (dy[i] - dot);
  }
}

static void softmax_backward_task(void *context, int64_t task) {
  const call *c = context;
  int64_t width = last_extent(&c->in[0]), rows = shape_elements(&c->in[0].shape) / width;
  span part = piece_of(rows, rows_per_task(width), task);
  softmax_backward_rows((float *)c->out[0].data + part.first * width,
                        (const float *)c->in[0].data + part.first * width,
                        (const float *)c->in[1].data + part.first * width, part.count, width);
}

static status softmax_backward_cpu(const call *c) {
  int64_t width = last_extent(&c->in[0]), rows = shape_elements(&c->in[0].shape) / width;
  parallel_for(c->pool, divide_up(rows, rows_per_task(width)), softmax_backward_task, (void *)c);
  return OK;
}

const op op_softmax = {
    .name = "softmax",
    .family = "activation",
    .summary = "Softmax over the last axis.",
    .doc = "out = e^x / Σ e^x over the last axis, so every row sums to 1. The largest value of a "
           "row is subtracted first; no input overflows.",
    .torch = "torch.softmax(x, dim=-1)",
    .version = 2,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, 0, "logits"}, {0}},
    .outputs = (const port[]){{"out", "… C", DTYPE_F32, 0, "probabilities"}, {0}},
    .infer = softmax_infer,
    .grad = softmax_grad,
    .cost = softmax_cost,
    .cpu = softmax_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..4, 1..4, 1..4, 1..5]", 0},
                               {"{}", "[1..3, 60..70]", 0},
                               {0}},
};

const op op_softmax_backward = {
    .name = "softmax_backward",
    .family = "activation",
    .summary = "Gradient of softmax: y (dy − Σ y·dy).",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"y", "… C", DTYPE_F32, 0, "result of softmax"},
                             {"dy", "… C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "… C", DTYPE_F32, 0, "gradient of the input"}, {0}},
    .infer = infer_equal_shapes,
    .cost = softmax_cost,
    .cpu = softmax_backward_cpu,
};
