/* normalize_patches: every patch with mean 0 and variance 1, the target of a masked autoencoder
 * (He et al., CVPR 2022, arXiv 2111.06377).
 *
 * y = (x − μ) / s with s² = Σ (x − μ)² / (n − 1) + ε over the n values of a patch, channels
 * included. With ȳ the mean of dy and p = Σ dy·y / (n − 1):  dx = (dy − ȳ − y·p) / s. */
#include "graph/graph.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include <math.h>

typedef struct normalize_patches_attrs {
  int64_t size[3];
  double eps;
} normalize_patches_attrs;

static const attr normalize_patches_attr_list[] = {
    {"size", ATTR_INT3, offsetof(normalize_patches_attrs, size), NULL, 1, 1024, NULL, 0,
     "extent of a patch in voxels along x, y and z"},
    {"eps", ATTR_FLOAT, offsetof(normalize_patches_attrs, eps), "1e-6", 1e-12, 1, NULL, 0,
     "added to the variance"},
    {0},
};

enum { BACK_X, BACK_DY };

static status normalize_patches_infer(infer *rule) {
  const normalize_patches_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  for (int a = 0; a < 3; a++)
    if (x->dim[a + 1] % attrs->size[a])
      return shape_error(
          "patches of %lld voxels do not divide %c = %lld; change \"size\" or the crop",
          (long long)attrs->size[a], "xyz"[a], (long long)x -> dim[a + 1]);
  if (attrs->size[0] * attrs->size[1] * attrs->size[2] * x->dim[4] < 2)
    return shape_error("a patch needs at least two values to have a variance; change \"size\"");
  rule->out[0].shape = *x;
  return OK;
}

static status normalize_patches_grad(grad *rule) {
  value_id in[2] = {rule->in[0], rule->dy[0]};
  return build_node(rule->b, "normalize_patches_backward", rule->attrs, in, 2, rule->dx);
}

static cost normalize_patches_cost(const void *attrs, const tensor *in, int in_count,
                                   const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 6 * (double)shape_elements(&in[0].shape)};
}

/* Σ x over a run. */
FOR_EACH_ISA static double sum(const float *x, int64_t count) {
  double lanes[LANES] = {0}, total = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++) lanes[l] += (double)x[i + l];
  for (int l = 0; i < count; i++, l++) lanes[l] += (double)x[i];
  for (int l = 0; l < LANES; l++) total += lanes[l];
  return total;
}

/* Σ (x − shift) · (z − shift_z) over a run. */
FOR_EACH_ISA static double sum_products(const float *x, double shift, const float *z,
                                        double shift_z, int64_t count) {
  double lanes[LANES] = {0}, total = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int l = 0; l < LANES; l++)
      lanes[l] += ((double)x[i + l] - shift) * ((double)z[i + l] - shift_z);
  for (int l = 0; i < count; i++, l++)
    lanes[l] += ((double)x[i] - shift) * ((double)z[i] - shift_z);
  for (int l = 0; l < LANES; l++) total += lanes[l];
  return total;
}

FOR_EACH_ISA static void scale_run(float *y, const float *x, float a, float b, int64_t count) {
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * a + b;
}

FOR_EACH_ISA static void combine_runs(float *dx, const float *dy, float a, const float *x, float c,
                                      float b, int64_t count) {
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * a + x[i] * c + b;
}

/* One patch: rows of `run` values at the offsets of its corner. */
typedef struct patch {
  int64_t at, rows[2], strides[2], run;
  double values;
} patch;

static patch patch_of(const shape *s, const int64_t size[3], int64_t index) {
  const int64_t *dim = s->dim;
  int64_t grid[3];
  for (int a = 0; a < 3; a++) grid[a] = dim[a + 1] / size[a];
  int64_t z = index % grid[2], y = index / grid[2] % grid[1], x = index / (grid[2] * grid[1]);
  /* x counts the patches of all samples along x, which follow each other in memory. */
  patch p = {.rows = {size[0], size[1]},
             .strides = {dim[2] * dim[3] * dim[4], dim[3] * dim[4]},
             .run = size[2] * dim[4],
             .values = (double)(size[0] * size[1] * size[2] * dim[4])};
  p.at = x * size[0] * p.strides[0] + y * size[1] * p.strides[1] + z * p.run;
  return p;
}

/* Offset of row `r` of a patch. */
static int64_t row_at(const patch *p, int64_t r) {
  return p->at + r / p->rows[1] * p->strides[0] + r % p->rows[1] * p->strides[1];
}

static double patch_mean(const patch *p, const float *x) {
  double total = 0;
  for (int64_t r = 0; r < p->rows[0] * p->rows[1]; r++) total += sum(x + row_at(p, r), p->run);
  return total / p->values;
}

/* Σ (x − shift) · (z − shift_z) / (n − 1) */
static double patch_product(const patch *p, const float *x, double shift, const float *z,
                            double shift_z) {
  double total = 0;
  for (int64_t r = 0; r < p->rows[0] * p->rows[1]; r++)
    total += sum_products(x + row_at(p, r), shift, z + row_at(p, r), shift_z, p->run);
  return total / (p->values - 1);
}

static void normalize_task(void *context, int64_t task) {
  const call *c = context;
  const normalize_patches_attrs *attrs = c->attrs;
  const float *x = c->in[0].data;
  float *y = c->out[0].data;
  patch p = patch_of(&c->in[0].shape, attrs->size, task);
  double mean = patch_mean(&p, x), s = sqrt(patch_product(&p, x, mean, x, mean) + attrs->eps);
  for (int64_t r = 0; r < p.rows[0] * p.rows[1]; r++)
    scale_run(y + row_at(&p, r), x + row_at(&p, r), (float)(1 / s), (float)(-mean / s), p.run);
}

static int64_t patches(const call *c) {
  const normalize_patches_attrs *attrs = c->attrs;
  const shape *x = &c->in[0].shape;
  return shape_elements(x) / (attrs->size[0] * attrs->size[1] * attrs->size[2] * x->dim[4]);
}

static status normalize_patches_cpu(const call *c) {
  parallel_for(c->pool, patches(c), normalize_task, (void *)c);
  return OK;
}

/* With y = (x − μ) / s the gradient is dy/s − x·p/s² + (μ·p/s − ȳ)/s. */
static void backward_task(void *context, int64_t task) {
  const call *c = context;
  const normalize_patches_attrs *attrs = c->attrs;
  const float *x = c->in[BACK_X].data, *dy = c->in[BACK_DY].data;
  float *dx = c->out[0].data;
  patch p = patch_of(&c->in[BACK_X].shape, attrs->size, task);
  double mean = patch_mean(&p, x), s = sqrt(patch_product(&p, x, mean, x, mean) + attrs->eps);
  double mean_dy = patch_mean(&p, dy), product = patch_product(&p, dy, 0, x, mean) / s;
  for (int64_t r = 0; r < p.rows[0] * p.rows[1]; r++)
    combine_runs(dx + row_at(&p, r), dy + row_at(&p, r), (float)(1 / s), x + row_at(&p, r),
                 (float)(-product / (s * s)), (float)((mean * product / s - mean_dy) / s), p.run);
}

static status normalize_patches_backward_cpu(const call *c) {
  parallel_for(c->pool, patches(c), backward_task, (void *)c);
  return OK;
}

static status normalize_patches_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[BACK_X].shape;
  return OK;
}

const op op_normalize_patches = {
    .name = "normalize_patches",
    .family = "method",
    .summary = "Every patch with mean 0 and variance 1.",
    .doc = "out = (x − μ) / √(σ² + eps) with mean and (unbiased) variance over all voxels and "
           "channels of a patch: the target of a masked autoencoder, which learns better from it "
           "than from the intensities themselves (He et al., arXiv 2111.06377).",
    .torch = "(p - p.mean(-1, True)) / (p.var(-1, keepdim=True) + eps).sqrt() with the values of a "
             "patch on the last axis of p",
    .version = 1,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "normalized volumes"}, {0}},
    .attrs = normalize_patches_attr_list,
    .attrs_bytes = sizeof(normalize_patches_attrs),
    .infer = normalize_patches_infer,
    .grad = normalize_patches_grad,
    .cost = normalize_patches_cost,
    .cpu = normalize_patches_cpu,
    .cases = (const op_case[]){{"{size: [1, 2, 3]}", "[1..2, 1..3, 2|4, 3|6, 1..5]", 0},
                               {"{size: 4, eps: 0.1}", "[1..2, 4, 4|8, 4, 1..9]", 0},
                               {0}},
};

const op op_normalize_patches_backward = {
    .name = "normalize_patches_backward",
    .family = "method",
    .summary = "Gradient of normalize_patches.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"},
                             {"dy", "N X Y Z C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of the volumes"}, {0}},
    .attrs = normalize_patches_attr_list,
    .attrs_bytes = sizeof(normalize_patches_attrs),
    .infer = normalize_patches_backward_infer,
    .cost = normalize_patches_cost,
    .cpu = normalize_patches_backward_cpu,
};
