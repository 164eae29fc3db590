/* mask_patches: hides a fixed share of the patches of each volume (Kunhimon et al., arXiv
 * 2306.09320, after He et al., arXiv 2111.06377). Each sample draws its own patches. */
#include "ops/method/fill.h"

#include <math.h>
#include <string.h>

typedef struct mask_patches_attrs {
  int64_t size[3];
  double ratio;
  fill_attrs fill;
} mask_patches_attrs;

enum { OUT_IMAGE, OUT_MASK };

static status mask_patches_infer(infer *rule) {
  const mask_patches_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  shape mask = {.rank = 4, .dim = {x->dim[0]}};
  for (int a = 0; a < 3; a++) {
    if (x->dim[a + 1] % attrs->size[a])
      return shape_error(
          "patches of %lld voxels do not divide %c = %lld; change \"size\" or the crop",
          (long long)attrs->size[a], "xyz"[a], (long long)x -> dim[a + 1]);
    mask.dim[a + 1] = x->dim[a + 1] / attrs->size[a];
  }
  if (shape_elements(&mask) / mask.dim[0] > INT32_MAX)
    return shape_error("%s cannot be cut into patches this small", shape_format(have, x));
  rule->out[OUT_IMAGE].shape = *x;
  rule->out[OUT_MASK].shape = mask;
  return OK;
}

static cost mask_patches_cost(const void *attrs, const tensor *in, int in_count,
                              const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* The order of the patches, and after it what filling needs; never at the same time. */
static size_t mask_patches_workspace(const void *attributes, const tensor *in, int in_count,
                                     const tensor *out, int threads) {
  (void)in_count, (void)threads;
  const mask_patches_attrs *attrs = attributes;
  size_t order = (size_t)shape_elements(&out[OUT_MASK].shape) * sizeof(int32_t);
  size_t fill = fill_workspace(&attrs->fill, &in[0].shape);
  return order > fill ? order : fill;
}

/* Draws the mask of one sample. */
static void draw_task(void *context, int64_t n) {
  const call *c = context;
  double ratio = ((const mask_patches_attrs *)c->attrs)->ratio;
  int64_t patches = shape_elements(&c->out[OUT_MASK].shape) / c->out[OUT_MASK].shape.dim[0];
  int32_t *order = (int32_t *)c->workspace + n * patches;
  float *mask = (float *)c->out[OUT_MASK].data + n * patches;
  /* Rounded down, but 0.29 of 100 is 29 although 0.29 · 100 falls just short of it. */
  int64_t masked = (int64_t)floor(ratio * (double)patches + 1e-9);
  rng stream = rng_open(c->rng_keys[n], c->node_id);
  rng_permutation(&stream, order, (int32_t)patches);
  memset(mask, 0, (size_t)patches * sizeof *mask);
  for (int64_t i = 0; i < masked; i++) mask[order[i]] = 1;
}

static status mask_patches_cpu(const call *c) {
  const mask_patches_attrs *attrs = c->attrs;
  parallel_for(c->pool, c->in[0].shape.dim[0], draw_task, (void *)c);
  fill_hidden(c, &attrs->fill, &c->in[0], &c->out[OUT_MASK], &c->out[OUT_IMAGE], c->workspace);
  return OK;
}

const op op_mask_patches = {
    .name = "mask_patches",
    .family = "method",
    .summary = "Hides a share of the patches of each volume.",
    .doc =
        "Cuts each volume into patches and replaces floor(ratio · patches) of them, drawn anew for "
        "each sample, by 0, by the mean of the sample's channel, or by uniform noise. `mask` is 1 "
        "for those patches. Restoring them is the contextual task of the learned initialization "
        "(Kunhimon et al., arXiv 2306.09320); with the loss on hidden patches alone it is masked "
        "image modelling (He et al., arXiv 2111.06377; Xie et al., arXiv 2111.09886).",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "volumes with holes"},
                              {"mask", "N X Y Z", DTYPE_F32, 0,
                               "grid of patches: 1 where the patch is hidden"},
                              {0}},
    .attrs = (const attr[]){{"size", ATTR_INT3, offsetof(mask_patches_attrs, size), NULL, 1, 1024,
                             NULL, 0, "extent of a patch in voxels along x, y and z"},
                            {"ratio", ATTR_FLOAT, offsetof(mask_patches_attrs, ratio), "0.4", 0, 1,
                             NULL, ATTR_SCHEDULABLE, "share of the patches to mask"},
                            FILL_ATTRS(mask_patches_attrs),
                            {0}},
    .attrs_bytes = sizeof(mask_patches_attrs),
    .infer = mask_patches_infer,
    .cost = mask_patches_cost,
    .workspace_bytes = mask_patches_workspace,
    .cpu = mask_patches_cpu,
    .cases = (const op_case[]){{"{size: 2, ratio: 0.4, fill: zero|mean|noise}",
                                "[1..3, 4, 2|6, 8, 1..3]", 0},
                               {"{size: [1, 2, 4], ratio: 0.29}", "[2, 3, 4, 8, 1]", 0},
                               {0}},
};
