/* cell_pool: mean feature vector of each cell, over exactly the voxels (or tokens) that lie in it.
 */
#include "ops/method/cells.h"
#include "ops/method/channel_sums.h"

#include "ops/arithmetic/chunks.h"

#include <string.h>

typedef struct cell_pool_backward_attrs {
  int64_t cells[3];
  int64_t grid[3]; /* extents of the feature map */
} cell_pool_backward_attrs;

static status cell_pool_infer(infer *rule) {
  const cell_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error(
        "x must be a feature map (N × X × Y × Z × C), but is %s; tokens become one with "
        "tokens_to_grid",
        shape_format(have, x));
  for (int a = 0; a < 3; a++)
    if (x->dim[a + 1] % attrs->cells[a])
      return shape_error(
          "each of the %lld parts along %c must cover whole positions of the feature map, but it "
          "has %lld along %c (%s); choose a number of parts that divides it, or a crop, patch or "
          "stride along %c that leaves a multiple of %lld",
          (long long)attrs->cells[a], "xyz"[a], (long long)x -> dim[a + 1], "xyz"[a],
          shape_format(have, x), "xyz"[a], (long long)attrs -> cells[a]);
  rule->out[0].shape = SHAPE(x->dim[0], cell_count(attrs->cells), x->dim[4]);
  return OK;
}

static status cell_pool_grad(grad *rule) {
  const cell_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  cell_pool_backward_attrs back;
  for (int a = 0; a < 3; a++) {
    back.cells[a] = attrs->cells[a];
    back.grid[a] = x->dim[a + 1];
  }
  return build_node(rule->b, "cell_pool_backward", &back, rule->dy, 1, rule->dx);
}

static cost cell_pool_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = (double)shape_elements(&in[0].shape)};
}

/* One vector for each cell that a plane of constant x meets. */
static size_t cell_pool_workspace(const void *attributes, const tensor *in, int in_count,
                                  const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  const cell_attrs *attrs = attributes;
  const int64_t *dim = in[0].shape.dim;
  return (size_t)(dim[0] * dim[1] * attrs->cells[1] * attrs->cells[2] * dim[4]) * sizeof(float);
}

FOR_EACH_ISA static void fill_run(float *restrict dx, const float *restrict dy, float factor,
                                  int64_t voxels, int64_t channels) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < channels; c++) dx[v * channels + c] = factor * dy[c];
}

/* A task is a plane of constant (n, x). */
static void pool_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *cells = ((const cell_attrs *)c->attrs)->cells, *dim = c->in[0].shape.dim;
  int64_t channels = dim[4], rows = dim[2] / cells[1], length = dim[3] / cells[2];
  int64_t width = cells[1] * cells[2] * channels;
  float *partial = (float *)c->workspace + task * width;
  const float *x = (const float *)c->in[0].data + task * dim[2] * dim[3] * channels;
  memset(partial, 0, (size_t)width * sizeof *partial);
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t z = 0; z < cells[2]; z++, x += length * channels)
      add_run(partial + (y / rows * cells[2] + z) * channels, x, length, channels);
}

/* Planes are added in index order, in double. */
static status cell_pool_cpu(const call *c) {
  const int64_t *cells = ((const cell_attrs *)c->attrs)->cells, *dim = c->in[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], pool_task, (void *)c);
  int64_t planes = dim[1] / cells[0], width = cells[1] * cells[2] * dim[4];
  double voxels = (double)(dim[1] * dim[2] * dim[3] / cell_count(cells));
  const float *partial = c->workspace;
  float *y = c->out[0].data;
  for (int64_t part = 0; part < dim[0] * cells[0]; part++, partial += planes * width, y += width)
    for (int64_t i = 0; i < width; i++) {
      double total = 0;
      for (int64_t x = 0; x < planes; x++) total += (double)partial[x * width + i];
      y[i] = (float)(total / voxels);
    }
  return OK;
}

static status cell_pool_backward_infer(infer *rule) {
  const cell_pool_backward_attrs *attrs = rule->attrs;
  const shape *dy = &rule->in[0].shape;
  rule->out[0].shape =
      SHAPE(dy->dim[0], attrs->grid[0], attrs->grid[1], attrs->grid[2], dy->dim[2]);
  return OK;
}

static void spread_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *cells = ((const cell_pool_backward_attrs *)c->attrs)->cells;
  const int64_t *dim = c->out[0].shape.dim;
  int64_t channels = dim[4], rows = dim[2] / cells[1], length = dim[3] / cells[2];
  float factor = (float)((double)cell_count(cells) / (double)(dim[1] * dim[2] * dim[3]));
  int64_t part = task / (dim[1] / cells[0]); /* n · cells along x + cell along x */
  const float *dy = (const float *)c->in[0].data + part * cells[1] * cells[2] * channels;
  float *dx = (float *)c->out[0].data + task * dim[2] * dim[3] * channels;
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t z = 0; z < cells[2]; z++, dx += length * channels)
      fill_run(dx, dy + (y / rows * cells[2] + z) * channels, factor, length, channels);
}

static status cell_pool_backward_cpu(const call *c) {
  const int64_t *dim = c->out[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], spread_task, (void *)c);
  return OK;
}

const op op_cell_pool = {
    .name = "cell_pool",
    .family = "method",
    .summary = "Mean feature vector of each cell of a grid.",
    .doc = "Cuts the feature map into cells[0] · cells[1] · cells[2] equal boxes; out[n, k] is the "
           "mean of x[n] over exactly the positions of box k, where z counts fastest. Each extent "
           "must therefore be a multiple of the number of parts along it. With cells: 1 it is "
           "global average pooling.",
    .torch = "torch.nn.functional.adaptive_avg_pool3d(x.movedim(-1, 1), cells).flatten(2)"
             ".movedim(1, 2)",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N K C", DTYPE_F32, 0, "one vector for each cell"}, {0}},
    .attrs = (const attr[]){CELL_ATTRS("1"), {0}},
    .attrs_bytes = sizeof(cell_attrs),
    .infer = cell_pool_infer,
    .grad = cell_pool_grad,
    .cost = cell_pool_cost,
    .workspace_bytes = cell_pool_workspace,
    .cpu = cell_pool_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..3, 1..3, 1..4, 1..20]", 0},
                               {"{cells: [2, 1, 3]}", "[1..2, 2|4, 1..3, 3|6, 1..5]", 0},
                               {"{cells: [1, 2, 2]}", "[1..2, 1..3, 2|6, 2|4, 17]", 0},
                               {0}},
};

const op op_cell_pool_backward = {
    .name = "cell_pool_backward",
    .family = "method",
    .summary = "Gradient of cell_pool.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"dy", "N K C", DTYPE_F32, 0, "gradient of the means"}, {0}},
    .outputs =
        (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of the feature map"}, {0}},
    .attrs = (const attr[]){CELL_ATTRS("1"),
                            {"grid", ATTR_INT3, offsetof(cell_pool_backward_attrs, grid), NULL, 1,
                             100000, NULL, 0, "extents of the feature map"},
                            {0}},
    .attrs_bytes = sizeof(cell_pool_backward_attrs),
    .infer = cell_pool_backward_infer,
    .cost = cell_pool_cost,
    .cpu = cell_pool_backward_cpu,
};
