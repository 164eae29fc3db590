/* space_to_channels: the voxels of a block side by side along the channels of one voxel, as the
 * patch merging of Swin transformers needs it (Liu et al., arXiv 2103.14030). */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

#include <string.h>

typedef struct block_attrs {
  int64_t factor[3];
  int_list order;
  int64_t size[3]; /* of the volume, for the gradient */
} block_attrs;

static const attr block_attr_list[] = {
    {"factor", ATTR_INT3, offsetof(block_attrs, factor), "2", 1, 64, NULL, 0,
     "voxels along x, y and z that become one"},
    {"order", ATTR_INTS, offsetof(block_attrs, order), "[]", 0, 262143, NULL, 0,
     "voxels of a block, numbered x, y, z with z fastest, in the order of the channels; default: "
     "all as they are numbered"},
    {0},
};

static int64_t block_voxels(const block_attrs *attrs) {
  return attrs->factor[0] * attrs->factor[1] * attrs->factor[2];
}

/* Voxels that a block keeps. */
static int64_t kept_voxels(const block_attrs *attrs) {
  return attrs->order.count ? attrs->order.count : block_voxels(attrs);
}

static int64_t kept_voxel(const block_attrs *attrs, int64_t k) {
  return attrs->order.count ? attrs->order.at[k] : k;
}

static cost no_flops(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static status space_to_channels_infer(infer *rule) {
  const block_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a feature map (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  for (int k = 0; k < attrs->order.count; k++)
    if (attrs->order.at[k] >= block_voxels(attrs))
      return shape_error("a block has voxels 0 to %lld, but the order names %lld",
                         (long long)block_voxels(attrs) - 1, (long long)attrs->order.at[k]);
  rule->out[0].shape = SHAPE(
      x->dim[0], divide_up(x->dim[1], attrs->factor[0]), divide_up(x->dim[2], attrs->factor[1]),
      divide_up(x->dim[3], attrs->factor[2]), x->dim[4] * kept_voxels(attrs));
  return OK;
}

static status space_to_channels_grad(grad *rule) {
  block_attrs back = *(const block_attrs *)rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  for (int a = 0; a < 3; a++) back.size[a] = x->dim[a + 1];
  return build_node(rule->b, "space_to_channels_backward", &back, rule->dy, 1, rule->dx);
}

/* Row of channels of voxel `k` of the block at (x, y, z), or NULL beyond the volume. */
static float *voxel_of(const tensor *volume, const block_attrs *attrs, int64_t n,
                       const int64_t block[3], int64_t k) {
  const int64_t *dim = volume->shape.dim, *f = attrs->factor;
  int64_t x = block[0] * f[0] + k / (f[1] * f[2]), y = block[1] * f[1] + k / f[2] % f[1];
  int64_t z = block[2] * f[2] + k % f[2];
  if (x >= dim[1] || y >= dim[2] || z >= dim[3]) return NULL;
  return (float *)volume->data + (((n * dim[1] + x) * dim[2] + y) * dim[3] + z) * dim[4];
}

/* Calls with every block of one row along z; a task is such a row. */
static int64_t row_block(const tensor *blocks, int64_t task, int64_t block[3]) {
  const int64_t *dim = blocks->shape.dim;
  block[1] = task % dim[2];
  block[0] = task / dim[2] % dim[1];
  return task / dim[2] / dim[1];
}

static void space_to_channels_task(void *context, int64_t task) {
  const call *c = context;
  const block_attrs *attrs = c->attrs;
  int64_t channels = last_extent(&c->in[0]), kept = kept_voxels(attrs), block[3];
  int64_t n = row_block(&c->out[0], task, block), blocks = c->out[0].shape.dim[3];
  float *y = (float *)c->out[0].data + task * blocks * kept * channels;
  for (block[2] = 0; block[2] < blocks; block[2]++)
    for (int64_t k = 0; k < kept; k++, y += channels) {
      const float *x = voxel_of(&c->in[0], attrs, n, block, kept_voxel(attrs, k));
      if (x)
        copy_row(y, x, channels);
      else
        memset(y, 0, (size_t)channels * sizeof *y);
    }
}

static int64_t row_tasks(const tensor *blocks) {
  return blocks->shape.dim[0] * blocks->shape.dim[1] * blocks->shape.dim[2];
}

static status space_to_channels_cpu(const call *c) {
  parallel_for(c->pool, row_tasks(&c->out[0]), space_to_channels_task, (void *)c);
  return OK;
}

static status space_to_channels_backward_infer(infer *rule) {
  const block_attrs *attrs = rule->attrs;
  const shape *dy = &rule->in[0].shape;
  rule->out[0].shape = SHAPE(dy->dim[0], attrs->size[0], attrs->size[1], attrs->size[2],
                             dy->dim[4] / kept_voxels(attrs));
  return OK;
}

/* A voxel that the order names twice gets the sum, one that it leaves out gets 0. */
static void space_to_channels_backward_task(void *context, int64_t task) {
  const call *c = context;
  const block_attrs *attrs = c->attrs;
  int64_t channels = last_extent(&c->out[0]), kept = kept_voxels(attrs), block[3];
  int64_t n = row_block(&c->in[0], task, block), blocks = c->in[0].shape.dim[3];
  const float *dy = (const float *)c->in[0].data + task * blocks * kept * channels;
  for (block[2] = 0; block[2] < blocks; block[2]++, dy += kept * channels) {
    for (int64_t v = 0; attrs->order.count && v < block_voxels(attrs); v++) {
      float *dx = voxel_of(&c->out[0], attrs, n, block, v);
      if (dx) memset(dx, 0, (size_t)channels * sizeof *dx);
    }
    for (int64_t k = 0; k < kept; k++) {
      float *dx = voxel_of(&c->out[0], attrs, n, block, kept_voxel(attrs, k));
      const float *from = dy + k * channels;
      if (dx && !attrs->order.count)
        copy_row(dx, from, channels);
      else if (dx)
        for (int64_t i = 0; i < channels; i++) dx[i] += from[i];
    }
  }
}

static status space_to_channels_backward_cpu(const call *c) {
  parallel_for(c->pool, row_tasks(&c->in[0]), space_to_channels_backward_task, (void *)c);
  return OK;
}

const op op_space_to_channels = {
    .name = "space_to_channels",
    .family = "shape",
    .summary = "The voxels of a block side by side along the channels.",
    .doc = "A block of fx·fy·fz voxels of C channels becomes one voxel of fx·fy·fz·C channels; a "
           "layer norm and a linear layer after it are the patch merging of Swin transformers. A "
           "volume that the factor does not divide is filled up with zeros. `order` [0, 4, 2, 1, "
           "6, 5, 3, 7] is that of MONAI's PatchMerging, the default that of PatchMergingV2.",
    .torch = "torch.cat([x[:, i::2, j::2, k::2] for i, j, k in itertools.product((0, 1), "
             "repeat=3)], -1)",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N X/fx Y/fy Z/fz fx·fy·fz·C", DTYPE_F32, PORT_STORABLE,
                               "one voxel for each block"},
                              {0}},
    .attrs = block_attr_list,
    .attrs_bytes = sizeof(block_attrs),
    .infer = space_to_channels_infer,
    .grad = space_to_channels_grad,
    .cost = no_flops,
    .cpu = space_to_channels_cpu,
    .cases = (const op_case[]){{"{}", "[1..2, 1..5, 1..4, 1..5, 1|3|17]", 0},
                               {"{factor: [1, 2, 3]}", "[2, 2, 1..4, 1..7, 2|8]", 0},
                               {"{order: [0, 4, 2, 1, 6, 5, 3, 7]}", "[1, 2..5, 3, 4, 1..3]", 0},
                               {"{order: [0, 4, 2, 4]}", "[1, 2..5, 3, 4, 1|3|8]", 0},
                               {0}},
};

const op op_space_to_channels_backward = {
    .name = "space_to_channels_backward",
    .family = "shape",
    .summary = "Gradient of space_to_channels.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs =
        (const port[]){
            {"dy", "N X/fx Y/fy Z/fz fx·fy·fz·C", DTYPE_F32, 0, "gradient of the result"}, {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"}, {0}},
    .attrs = block_attr_list,
    .attrs_bytes = sizeof(block_attrs),
    .infer = space_to_channels_backward_infer,
    .cost = no_flops,
    .cpu = space_to_channels_backward_cpu,
};
