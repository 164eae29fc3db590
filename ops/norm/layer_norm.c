/* layer_norm: each row of the last axis to mean 0 and variance 1, then scaled and shifted
 * (Ba et al., arXiv 1607.06450). The variance is the biased one, Σ(x − mean)² / C. */
#include "ops/norm/layer_norm.h"

#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/weight_init.h"

#include "graph/graph.h"

#include <math.h>
#include <string.h>

typedef struct layer_norm_attrs {
  double eps;
  bool affine;
  double init_weight;
} layer_norm_attrs;

static const attr layer_norm_attr_list[] = {
    {"eps", ATTR_FLOAT, offsetof(layer_norm_attrs, eps), "1e-5", 0, 1, NULL, 0,
     "added to the variance"},
    {"affine", ATTR_BOOL, offsetof(layer_norm_attrs, affine), "true", 0, 0, NULL, 0,
     "learn a scale and a shift per channel"},
    NORM_INIT_ATTR(layer_norm_attrs, init_weight),
    {0},
};

enum { IN_X, IN_WEIGHT, IN_BIAS };
enum { OUT_Y, OUT_MEAN, OUT_RSTD };
enum { BACK_X, BACK_WEIGHT, BACK_MEAN, BACK_RSTD, BACK_DY };
enum { BACK_DX, BACK_DWEIGHT, BACK_DBIAS };

static int64_t row_count(const tensor *x) {
  return shape_elements(&x->shape) / last_extent(x);
}

static shape without_last(const tensor *x) {
  shape s = x->shape;
  s.dim[--s.rank] = 0;
  return s;
}

static status layer_norm_infer(infer *rule) {
  const tensor *x = &rule->in[IN_X];
  if (x->shape.rank < 1) return shape_error("cannot normalize a scalar");
  for (int i = IN_WEIGHT; i <= IN_BIAS; i++) {
    const shape *s = &rule->in[i].shape;
    if (s->rank >= 0 && (s->rank != 1 || s->dim[0] != last_extent(x))) {
      char have[96];
      return shape_error("%s must have one element for each of the %lld channels, but is %s",
                         i == IN_WEIGHT ? "weight" : "bias", (long long)last_extent(x),
                         shape_format(have, s));
    }
  }
  rule->out[OUT_Y].shape = x->shape;
  rule->out[OUT_MEAN].shape = rule->out[OUT_RSTD].shape = without_last(x);
  return OK;
}

static status layer_norm_params(const void *attributes, const tensor *in, int in_count,
                                param_spec *out) {
  (void)in_count;
  const layer_norm_attrs *attrs = attributes;
  norm_init(attrs->affine, attrs->init_weight, last_extent(&in[0]), out);
  return OK;
}

static status layer_norm_grad(grad *rule) {
  value_id in[] = {rule->in[IN_X], rule->in[IN_WEIGHT], rule->out[OUT_MEAN], rule->out[OUT_RSTD],
                   rule->dy[OUT_Y]};
  value_id out[3];
  TRY(build_node(rule->b, "layer_norm_backward", rule->attrs, in, 5, out));
  for (int i = 0; i < 3; i++) rule->dx[i] = out[i];
  return OK;
}

static cost layer_norm_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 8.0 * (double)shape_elements(&in[0].shape)};
}

/* Sums over a row, in lanes; its rest with a mask, for lanes written one by one could not be read at once. */
VECTOR_INLINE double row_sum(const float *x, int64_t width) {
  float sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += x[i + l];
  int64_t rest = width - i;
  if (rest > 0)
    for (int l = 0; l < LANES; l++) sums[l] += l < rest ? x[i + l] : 0;
  return lanes_total(sums);
}

VECTOR_INLINE double row_squares(const float *x, int64_t width, float mean) {
  float sums[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES)
    for (int l = 0; l < LANES; l++) sums[l] += (x[i + l] - mean) * (x[i + l] - mean);
  int64_t rest = width - i;
  if (rest > 0)
    for (int l = 0; l < LANES; l++) {
      float d = l < rest ? x[i + l] - mean : 0;
      sums[l] += d * d;
    }
  return lanes_total(sums);
}

/* A few rows, which stay in the first-level cache over the three readings. Step by step for all of them:
 * a row's divisions and its root wait for each other, those of several rows do not. */
enum { ROWS = 16 };
VECTOR_INLINE void normalize_few(float *restrict y, float *restrict mean, float *restrict rstd,
                                 const float *restrict x, const float *restrict weight,
                                 const float *restrict bias, int64_t rows, int64_t width,
                                 double eps) {
  double total[ROWS];
  for (int64_t r = 0; r < rows; r++) total[r] = row_sum(x + r * width, width);
  for (int64_t r = 0; r < rows; r++) mean[r] = (float)(total[r] / (double)width);
  for (int64_t r = 0; r < rows; r++) total[r] = row_squares(x + r * width, width, mean[r]);
  for (int64_t r = 0; r < rows; r++) rstd[r] = (float)(1.0 / sqrt(total[r] / (double)width + eps));
  for (int64_t r = 0; r < rows; r++, x += width, y += width)
    if (weight)
      for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean[r]) * rstd[r] * weight[i] + bias[i];
    else
      for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean[r]) * rstd[r];
}

FOR_EACH_ISA static void normalize_rows(float *restrict y, float *restrict means,
                                        float *restrict rstds, const float *restrict x,
                                        const float *restrict weight, const float *restrict bias,
                                        int64_t rows, int64_t width, double eps) {
  for (int64_t r = 0, n; r < rows; r += n) {
    float mean[ROWS], rstd[ROWS];
    n = rows - r < ROWS ? rows - r : ROWS;
    normalize_few(y + r * width, mean, rstd, x + r * width, weight, bias, n, width, eps);
    if (means) memcpy(means + r, mean, (size_t)n * sizeof *mean);
    if (rstds) memcpy(rstds + r, rstd, (size_t)n * sizeof *rstd);
  }
}

static float *row_at(const tensor *t, int64_t offset) {
  return t->data ? (float *)t->data + offset : NULL;
}

void layer_norm_part(const call *c, span part) {
  const layer_norm_attrs *attrs = c->attrs;
  int64_t width = last_extent(&c->in[IN_X]);
  normalize_rows(row_at(&c->out[OUT_Y], part.first * width), row_at(&c->out[OUT_MEAN], part.first),
                 row_at(&c->out[OUT_RSTD], part.first), row_at(&c->in[IN_X], part.first * width),
                 c->in[IN_WEIGHT].data, c->in[IN_BIAS].data, part.count, width, attrs->eps);
}

static void layer_norm_task(void *context, int64_t task) {
  const call *c = context;
  int64_t width = last_extent(&c->in[IN_X]);
  layer_norm_part(c, piece_of(row_count(&c->in[IN_X]), rows_per_task(width), task));
}

static status layer_norm_cpu(const call *c) {
  int64_t per_task = rows_per_task(last_extent(&c->in[IN_X]));
  parallel_for(c->pool, divide_up(row_count(&c->in[IN_X]), per_task), layer_norm_task, (void *)c);
  return OK;
}

/* ---- gradient ------------------------------------------------------------------------------ */

/* Each backward task sums its rows' share of dweight and dbias, so rows are dealt to few tasks. */
enum { BACKWARD_TASKS = 64, BACKWARD_ROWS = 8 };

static int64_t backward_rows(int64_t rows) {
  int64_t per_task = divide_up(rows, BACKWARD_TASKS);
  return per_task < BACKWARD_ROWS ? BACKWARD_ROWS : per_task;
}

static status layer_norm_backward_infer(infer *rule) {
  const tensor *x = &rule->in[BACK_X], *weight = &rule->in[BACK_WEIGHT];
  rule->out[BACK_DX].shape = x->shape;
  /* Without affine parameters their gradients are scalars that nobody reads. */
  if (weight->shape.rank >= 0)
    rule->out[BACK_DWEIGHT].shape = rule->out[BACK_DBIAS].shape = weight->shape;
  return OK;
}

static size_t layer_norm_backward_workspace(const void *attrs, const tensor *in, int in_count,
                                            const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  int64_t rows = row_count(&in[BACK_X]);
  return (size_t)divide_up(rows, backward_rows(rows)) * 2 * (size_t)last_extent(&in[BACK_X]) *
         sizeof(float);
}

/* With g = dy·weight and x̂ = (x − mean)·rstd, over a row of C elements:
 *     dx = rstd (g − Σg/C − x̂ Σ(g·x̂)/C) */
FOR_EACH_ISA static void
backward_rows_kernel(float *restrict dx, float *restrict dweight, float *restrict dbias,
                     const float *restrict x, const float *restrict dy,
                     const float *restrict weight, const float *restrict means,
                     const float *restrict rstds, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < width; i++) dweight[i] = dbias[i] = 0;
  for (int64_t r = 0; r < rows; r++, x += width, dy += width, dx += width) {
    float mean = means[r], rstd = rstds[r];
    for (int64_t i = 0; i < width; i++) {
      dweight[i] += dy[i] * ((x[i] - mean) * rstd);
      dbias[i] += dy[i];
      dx[i] = weight ? dy[i] * weight[i] : dy[i];
    }
    float sums[LANES] = {0}, dots[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES)
      for (int l = 0; l < LANES; l++) {
        sums[l] += dx[i + l];
        dots[l] += dx[i + l] * ((x[i + l] - mean) * rstd);
      }
    for (int l = 0; i < width; i++, l++) {
      sums[l] += dx[i];
      dots[l] += dx[i] * ((x[i] - mean) * rstd);
    }
    float sum = (float)(lanes_total(sums) / (double)width);
    float dot = (float)(lanes_total(dots) / (double)width);
    for (i = 0; i < width; i++) dx[i] = rstd * (dx[i] - sum - (x[i] - mean) * rstd * dot);
  }
}

static void layer_norm_backward_task(void *context, int64_t task) {
  const call *c = context;
  int64_t width = last_extent(&c->in[BACK_X]), rows = row_count(&c->in[BACK_X]);
  span part = piece_of(rows, backward_rows(rows), task);
  float *partial = (float *)c->workspace + task * 2 * width;
  backward_rows_kernel(row_at(&c->out[BACK_DX], part.first * width), partial, partial + width,
                       row_at(&c->in[BACK_X], part.first * width),
                       row_at(&c->in[BACK_DY], part.first * width), c->in[BACK_WEIGHT].data,
                       row_at(&c->in[BACK_MEAN], part.first), row_at(&c->in[BACK_RSTD], part.first),
                       part.count, width);
}

FOR_EACH_ISA static void add_partials(float *restrict total, const float *restrict partials,
                                      int64_t count, int64_t stride, int64_t width) {
  for (int64_t i = 0; i < width; i++) total[i] = partials[i];
  for (int64_t k = 1; k < count; k++)
    for (int64_t i = 0; i < width; i++) total[i] += partials[k * stride + i];
}

static status layer_norm_backward_cpu(const call *c) {
  int64_t width = last_extent(&c->in[BACK_X]), rows = row_count(&c->in[BACK_X]);
  int64_t tasks = divide_up(rows, backward_rows(rows));
  parallel_for(c->pool, tasks, layer_norm_backward_task, (void *)c);
  float *dweight = c->out[BACK_DWEIGHT].data, *dbias = c->out[BACK_DBIAS].data;
  if (c->in[BACK_WEIGHT].data) {
    const float *partials = c->workspace;
    add_partials(dweight, partials, tasks, 2 * width, width);
    add_partials(dbias, partials + width, tasks, 2 * width, width);
  } else {
    dweight[0] = dbias[0] = 0;
  }
  return OK;
}

const op op_layer_norm = {
    .name = "layer_norm",
    .family = "norm",
    .summary = "Normalizes the channels of each token to mean 0 and variance 1.",
    .doc = "out = (x − mean) / √(variance + eps) · weight + bias, with mean and (biased) variance "
           "over the last axis (Ba et al., arXiv 1607.06450).",
    .torch = "torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)",
    .version = 2,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, 0, "tokens or a feature map"},
                             {"weight", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "scale"},
                             {"bias", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "shift"},
                             {0}},
    .outputs = (const port[]){{"out", "… C", DTYPE_F32, PORT_STORABLE, "normalized values"},
                              {"mean", "…", DTYPE_F32, PORT_SAVED, "mean of each row"},
                              {"rstd", "…", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"},
                              {0}},
    .attrs = layer_norm_attr_list,
    .attrs_bytes = sizeof(layer_norm_attrs),
    .infer = layer_norm_infer,
    .params = layer_norm_params,
    .grad = layer_norm_grad,
    .cost = layer_norm_cost,
    .cpu = layer_norm_cpu,
    .cases = (const op_case[]){{"{}", "[1..3, 1..20, 4..9]", 0},
                               {"{eps: 1e-3}", "[2, 5, 30..70]", 0},
                               {"{}", "[2, 5, 144]", 0},
                               {"{affine: false}", "[2, 3, 2, 2, 8]", 0},
                               {0}},
};

const op op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .family = "norm",
    .summary = "Gradients of layer_norm.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "… C", DTYPE_F32, 0, "input of layer_norm"},
                             {"weight", "C", DTYPE_F32, PORT_OPTIONAL, "scale"},
                             {"mean", "…", DTYPE_F32, 0, "saved mean"},
                             {"rstd", "…", DTYPE_F32, 0, "saved 1 / √(variance + eps)"},
                             {"dy", "… C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "… C", DTYPE_F32, 0, "gradient of x"},
                              {"dweight", "C", DTYPE_F32, 0, "gradient of weight"},
                              {"dbias", "C", DTYPE_F32, 0, "gradient of bias"},
                              {0}},
    .attrs = layer_norm_attr_list,
    .attrs_bytes = sizeof(layer_norm_attrs),
    .infer = layer_norm_backward_infer,
    .cost = layer_norm_cost,
    .workspace_bytes = layer_norm_backward_workspace,
    .cpu = layer_norm_backward_cpu,
};
