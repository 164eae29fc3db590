/* patchify: cuts a volume into patches and lays each out as one token, as the patch embedding of a
 * vision transformer needs it: token order x, y, z with z fastest; inside a token x, y, z, channel
 * with the channel fastest. (einops: "b (h p1) (w p2) (d p3) c -> b (h w d) (p1 p2 p3 c)") */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

#include <string.h>

typedef struct patchify_attrs {
  int64_t size[3];
} patchify_attrs;

static const attr patchify_attr_list[] = {
    {"size", ATTR_INT3, offsetof(patchify_attrs, size), NULL, 1, 1024, NULL, 0,
     "extent of a patch in voxels along x, y and z"},
    {0},
};

typedef struct unpatchify_attrs {
  int64_t size[3];
  int64_t grid[3]; /* patches along x, y and z */
} unpatchify_attrs;

static status patchify_infer(infer *rule) {
  const int64_t *size = ((const patchify_attrs *)rule->attrs)->size;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
  int64_t tokens = 1;
  for (int a = 0; a < 3; a++) {
    if (x->dim[a + 1] % size[a])
      return shape_error(
          "patches of %lld voxels do not divide %c = %lld; change the crop or the patch "
          "size",
          (long long)size[a], "xyz"[a], (long long)x -> dim[a + 1]);
    tokens *= x->dim[a + 1] / size[a];
  }
  rule->out[0].shape = SHAPE(x->dim[0], tokens, size[0] * size[1] * size[2] * x->dim[4]);
  return OK;
}

static status patchify_grad(grad *rule) {
  const patchify_attrs *attrs = rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  unpatchify_attrs back;
  for (int a = 0; a < 3; a++) {
    back.size[a] = attrs->size[a];
    back.grid[a] = x->dim[a + 1] / attrs->size[a];
  }
  return build_node(rule->b, "unpatchify", &back, rule->dy, 1, rule->dx);
}

/* Calls for every run of voxels that is contiguous on both sides: one patch's voxels along z. A
 * task is one (n, x) plane of the volume. */
static void patch_plane(const tensor *volume, const int64_t size[3], float *to_tokens,
                        const float *from_tokens, int64_t task) {
  const int64_t *dim = volume->shape.dim;
  int64_t run = size[2] * dim[4], grid_y = dim[2] / size[1], grid_z = dim[3] / size[2];
  int64_t sample = task / dim[1], x = task % dim[1];
  int64_t token_length = size[0] * size[1] * run;
  int64_t tokens = dim[1] / size[0] * grid_y * grid_z;
  float *row = (float *)volume->data + task * dim[2] * dim[3] * dim[4];
  for (int64_t y = 0; y < dim[2]; y++)
    for (int64_t z = 0; z < grid_z; z++, row += run) {
      int64_t token = (x / size[0] * grid_y + y / size[1]) * grid_z + z;
      int64_t at =
          (sample * tokens + token) * token_length + (x % size[0] * size[1] + y % size[1]) * run;
      if (to_tokens)
        copy_row(to_tokens + at, row, run);
      else
        copy_row(row, from_tokens + at, run);
    }
}

static void patchify_task(void *context, int64_t task) {
  const call *c = context;
  patch_plane(&c->in[0], ((const patchify_attrs *)c->attrs)->size, c->out[0].data, NULL, task);
}

static status patchify_cpu(const call *c) {
  const int64_t *dim = c->in[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], patchify_task, (void *)c);
  return OK;
}

static status unpatchify_infer(infer *rule) {
  const unpatchify_attrs *attrs = rule->attrs;
  const shape *tokens = &rule->in[0].shape;
  int64_t patch = attrs->size[0] * attrs->size[1] * attrs->size[2];
  char have[96];
  if (tokens->rank != 3 || tokens->dim[2] % patch ||
      tokens->dim[1] != attrs->grid[0] * attrs->grid[1] * attrs->grid[2])
    return shape_error("%s does not hold the patches of the grid", shape_format(have, tokens));
  rule->out[0].shape =
      SHAPE(tokens->dim[0], attrs->grid[0] * attrs->size[0], attrs->grid[1] * attrs->size[1],
            attrs->grid[2] * attrs->size[2], tokens->dim[2] / patch);
  return OK;
}

static void unpatchify_task(void *context, int64_t task) {
  const call *c = context;
  patch_plane(&c->out[0], ((const unpatchify_attrs *)c->attrs)->size, NULL, c->in[0].data, task);
}

static status unpatchify_cpu(const call *c) {
  const int64_t *dim = c->out[0].shape.dim;
  parallel_for(c->pool, dim[0] * dim[1], unpatchify_task, (void *)c);
  return OK;
}

static status unpatchify_grad(grad *rule) {
  patchify_attrs back;
  memcpy(back.size, ((const unpatchify_attrs *)rule->attrs)->size, sizeof back.size);
  return build_node(rule->b, "patchify", &back, rule->dy, 1, rule->dx);
}

static cost no_flops(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

const op op_patchify = {
    .name = "patchify",
    .family = "shape",
    .summary = "Cuts a volume into patches, one token each.",
    .doc =
        "A patch of size P becomes a token of P·P·P·C numbers. Tokens are in the order x, y, z (z "
        "fastest); inside a token voxels are in that order too, with the channel fastest. A linear "
        "layer after it is the usual patch embedding (MONAI's `perceptron`).",
    .torch =
        "einops.rearrange(x, 'b (h p1) (w p2) (d p3) c -> b (h w d) (p1 p2 p3 c)', p1=size[0], "
        "p2=size[1], p3=size[2])",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "volume"}, {0}},
    .outputs =
        (const port[]){{"out", "N T P·P·P·C", DTYPE_F32, PORT_STORABLE, "one token for each patch"},
                       {0}},
    .attrs = patchify_attr_list,
    .attrs_bytes = sizeof(patchify_attrs),
    .infer = patchify_infer,
    .grad = patchify_grad,
    .cost = no_flops,
    .cpu = patchify_cpu,
    .cases = (const op_case[]){{"{size: 2}", "[1..2, 2|4|6, 2|4, 2|4, 1..3]", 0},
                               {"{size: [1, 2, 3]}", "[2, 3, 4, 6, 2]", 0},
                               {0}},
};

const op op_unpatchify = {
    .name = "unpatchify",
    .family = "shape",
    .summary = "Puts the tokens of patchify back where they came from.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs =
        (const port[]){{"x", "N T P·P·P·C", DTYPE_F32, PORT_CARRIED, "one token for each patch"},
                       {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, PORT_STORABLE, "volume"}, {0}},
    .attrs = (const attr[]){{"size", ATTR_INT3, offsetof(unpatchify_attrs, size), NULL, 1, 1024,
                             NULL, 0, "extent of a patch in voxels"},
                            {"grid", ATTR_INT3, offsetof(unpatchify_attrs, grid), NULL, 1, 100000,
                             NULL, 0, "patches along x, y and z"},
                            {0}},
    .attrs_bytes = sizeof(unpatchify_attrs),
    .infer = unpatchify_infer,
    .grad = unpatchify_grad,
    .cost = no_flops,
    .cpu = unpatchify_cpu,
};
