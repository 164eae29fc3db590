/* slab_pool: mean feature vector of each slab, over exactly the voxels (or tokens) that lie in it.
 */
#include "ops/method/slabs.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

#include <string.h>

typedef struct slab_pool_backward_attrs {
  int64_t slabs;
  unsigned axis;
  int64_t grid[3]; /* extents of the feature map */
} slab_pool_backward_attrs;

static status slab_pool_infer(infer *rule) {
  const slab_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  int axis = slab_axis(attrs);
  char have[96];
  if (x->rank != 5)
    return shape_error(
        "x must be a feature map (N × X × Y × Z × C), but is %s; tokens become one with "
        "tokens_to_grid",
        shape_format(have, x));
  if (axis < 0) return shape_error("axis must be one of x, y and z");
  if (x->dim[axis + 1] % attrs->slabs)
    return shape_error(
        "each of the %lld slabs must cover whole positions of the feature map, but it "
        "has %lld along %c (%s); choose a number of slabs that divides it, or a crop, "
        "patch or stride along %c that leaves a multiple of %lld",
        (long long)attrs->slabs, (long long)x->dim[axis + 1], "xyz"[axis], shape_format(have, x),
        "xyz"[axis], (long long)attrs -> slabs);
  rule->out[0].shape = SHAPE(x->dim[0], attrs->slabs, x->dim[4]);
  return OK;
}

static status slab_pool_grad(grad *rule) {
  const slab_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  slab_pool_backward_attrs back = {attrs->slabs, attrs->axis, {x->dim[1], x->dim[2], x->dim[3]}};
  return build_node(rule->b, "slab_pool_backward", &back, rule->dy, 1, rule->dx);
}

static cost slab_pool_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = (double)shape_elements(&in[0].shape)};
}

static size_t slab_pool_workspace(const void *attributes, const tensor *in, int in_count,
                                  const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  const slab_attrs *attrs = attributes;
  const int64_t *dim = in[0].shape.dim;
  return (size_t)(dim[0] * dim[1] * attrs->slabs * dim[4]) * sizeof(float);
}

FOR_EACH_ISA static void add_run(float *restrict total, const float *restrict x, int64_t voxels,
                                 int64_t channels) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < channels; c++) total[c] += x[v * channels + c];
}

FOR_EACH_ISA static void fill_run(float *restrict dx, const float *restrict dy, float factor,
                                  int64_t voxels, int64_t channels) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < channels; c++) dx[v * channels + c] = factor * dy[c];
}

/* Slab of (x, y) and of the z run `r` of `runs`; along z a row has one run per slab, else one. */
static int64_t slab_of(int axis, int64_t slabs, const int64_t *dim, int64_t x, int64_t y,
                       int64_t r) {
  return axis == 0 ? x / (dim[1] / slabs) : axis == 1 ? y / (dim[2] / slabs) : r;
}

static void pool_task(void *context, int64_t task) {
  const call *c = context;
  const slab_attrs *attrs = c->attrs;
  const int64_t *dim = c->in[0].shape.dim;
  int axis = slab_axis(attrs);
  int64_t runs = axis == 2 ? attrs->slabs : 1, length = dim[3] / runs, channels = dim[4];
  float *partial = (float *)c->workspace + task * attrs->slabs * channels;
  const float *x = (const float *)c->in[0].data + task * dim[2] * dim[3] * channels;
  memset(partial, 0, (size_t)(attrs->slabs * channels) * sizeof *partial);
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t r = 0; r < runs; r++, x += length * channels)
      add_run(partial + slab_of(axis, attrs->slabs, dim, task % dim[1], y, r) * channels, x, length,
              channels);
}

/* Planes are added in index order, in double. */
static status slab_pool_cpu(const call *c) {
  const slab_attrs *attrs = c->attrs;
  const int64_t *dim = c->in[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], pool_task, (void *)c);
  int64_t width = attrs->slabs * dim[4];
  double voxels = (double)(dim[1] * dim[2] * dim[3] / attrs->slabs);
  const float *partial = c->workspace;
  float *y = c->out[0].data;
  for (int64_t n = 0; n < dim[0]; n++, partial += dim[1] * width)
    for (int64_t i = 0; i < width; i++) {
      double total = 0;
      for (int64_t x = 0; x < dim[1]; x++) total += (double)partial[x * width + i];
      y[n * width + i] = (float)(total / voxels);
    }
  return OK;
}

static status slab_pool_backward_infer(infer *rule) {
  const slab_pool_backward_attrs *attrs = rule->attrs;
  const shape *dy = &rule->in[0].shape;
  rule->out[0].shape =
      SHAPE(dy->dim[0], attrs->grid[0], attrs->grid[1], attrs->grid[2], dy->dim[2]);
  return OK;
}

static void spread_task(void *context, int64_t task) {
  const call *c = context;
  const slab_pool_backward_attrs *attrs = c->attrs;
  const int64_t *dim = c->out[0].shape.dim;
  int axis = slab_axis(&(slab_attrs){attrs->slabs, attrs->axis});
  int64_t runs = axis == 2 ? attrs->slabs : 1, length = dim[3] / runs, channels = dim[4];
  float factor = (float)((double)attrs->slabs / (double)(dim[1] * dim[2] * dim[3]));
  const float *dy = (const float *)c->in[0].data + task / dim[1] * attrs->slabs * channels;
  float *dx = (float *)c->out[0].data + task * dim[2] * dim[3] * channels;
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t r = 0; r < runs; r++, dx += length * channels)
      fill_run(dx, dy + slab_of(axis, attrs->slabs, dim, task % dim[1], y, r) * channels, factor,
               length, channels);
}

static status slab_pool_backward_cpu(const call *c) {
  const int64_t *dim = c->out[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], spread_task, (void *)c);
  return OK;
}

const op op_slab_pool = {
    .name = "slab_pool",
    .family = "method",
    .summary = "Mean feature vector of each slab.",
    .doc = "out[n, b] is the mean of x[n] over exactly the positions that lie in slab b along the "
           "axis. The feature map must therefore have a multiple of `slabs` positions along it.",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N B C", DTYPE_F32, 0, "one vector for each slab"}, {0}},
    .attrs = (const attr[]){SLAB_ATTRS, {0}},
    .attrs_bytes = sizeof(slab_attrs),
    .infer = slab_pool_infer,
    .grad = slab_pool_grad,
    .cost = slab_pool_cost,
    .workspace_bytes = slab_pool_workspace,
    .cpu = slab_pool_cpu,
    .cases = (const op_case[]){{"{slabs: 2}", "[1..2, 1..3, 1..3, 2|4|6, 1..5]", 0},
                               {"{slabs: 3, axis: x}", "[1..2, 3|6, 1..3, 2, 1..5]", 0},
                               {"{slabs: 2, axis: y}", "[1..2, 2, 2|4, 3, 1..5]", 0},
                               {0}},
};

const op op_slab_pool_backward = {
    .name = "slab_pool_backward",
    .family = "method",
    .summary = "Gradient of slab_pool.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N B C", DTYPE_F32, 0, "gradient of the means"}, {0}},
    .outputs =
        (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of the feature map"}, {0}},
    .attrs = (const attr[]){SLAB_ATTRS,
                            {"grid", ATTR_INT3, offsetof(slab_pool_backward_attrs, grid), NULL, 1,
                             100000, NULL, 0, "extents of the feature map"},
                            {0}},
    .attrs_bytes = sizeof(slab_pool_backward_attrs),
    .infer = slab_pool_backward_infer,
    .cost = slab_pool_cost,
    .cpu = slab_pool_backward_cpu,
};
