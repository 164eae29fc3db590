/* shuffle_voxels: permutes the voxels inside many small boxes, which disturbs texture and keeps the
 * outlines (Models Genesis, Zhou et al., MICCAI 2019, arXiv 1908.06912: local pixel shuffling). */
#include "graph/graph.h"

#include "ops/arithmetic/chunks.h"

#include <math.h>
#include <string.h>

typedef struct shuffle_voxels_attrs {
  double probability;
  int64_t boxes;
  double size;
} shuffle_voxels_attrs;

/* Largest extent of a box, in voxels. A tenth of 30 is 3, although 0.1 · 30 might fall short. */
static int64_t largest(const shuffle_voxels_attrs *attrs, int64_t side) {
  int64_t extent = (int64_t)floor(attrs->size * (double)side + 1e-9);
  return extent < 1 ? 1 : extent;
}

static int64_t largest_box(const shuffle_voxels_attrs *attrs, const shape *x) {
  return largest(attrs, x->dim[1]) * largest(attrs, x->dim[2]) * largest(attrs, x->dim[3]);
}

static status shuffle_voxels_infer(infer *rule) {
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("image must be a volume (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  if (largest_box(rule->attrs, x) > INT32_MAX)
    return shape_error("a box may have more than 2^31 voxels; choose a smaller \"size\"");
  rule->out[0].shape = *x;
  return OK;
}

static cost shuffle_voxels_cost(const void *attrs, const tensor *in, int in_count,
                                const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static size_t shuffle_voxels_workspace(const void *attrs, const tensor *in, int in_count,
                                       const tensor *out, int threads) {
  (void)in_count, (void)out, (void)threads;
  return (size_t)(in[0].shape.dim[0] * largest_box(attrs, &in[0].shape)) * sizeof(int32_t);
}

/* out[box] = the image's box with its voxels in the order drawn. */
static void shuffle_box(const shape *s, const float *image, float *out, const int64_t at[3],
                        const int64_t size[3], const int32_t *order) {
  const int64_t *dim = s->dim;
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t y = 0; y < size[1]; y++) {
      float *row = out + (((at[0] + x) * dim[2] + at[1] + y) * dim[3] + at[2]) * dim[4];
      for (int64_t z = 0; z < size[2]; z++, order++) {
        int64_t from_z = *order % size[2], rest = *order / size[2];
        int64_t from_y = rest % size[1], from_x = rest / size[1];
        const float *from =
            image +
            (((at[0] + from_x) * dim[2] + at[1] + from_y) * dim[3] + at[2] + from_z) * dim[4];
        copy_row(row + z * dim[4], from, dim[4]);
      }
    }
}

/* Boxes may overlap and the later one wins, so a sample is done in one go. */
static void sample_task(void *context, int64_t n) {
  const call *c = context;
  const shuffle_voxels_attrs *attrs = c->attrs;
  const shape *s = &c->in[0].shape;
  int64_t elements = shape_elements(s) / s->dim[0];
  const float *image = (const float *)c->in[0].data + n * elements;
  float *out = (float *)c->out[0].data + n * elements;
  int32_t *order = (int32_t *)c->workspace + n * largest_box(attrs, s);
  memcpy(out, image, (size_t)elements * sizeof *out);
  rng stream = rng_open(c->rng_keys[n], c->node_id);
  if ((double)rng_uniform(&stream) >= attrs->probability) return;
  for (int64_t k = 0; k < attrs->boxes; k++) {
    int64_t at[3], size[3];
    for (int a = 0; a < 3; a++) {
      size[a] = 1 + rng_below(&stream, (uint32_t)largest(attrs, s->dim[a + 1]));
      at[a] = rng_below(&stream, (uint32_t)(s->dim[a + 1] - size[a] + 1));
    }
    rng_permutation(&stream, order, (int32_t)(size[0] * size[1] * size[2]));
    shuffle_box(s, image, out, at, size, order);
  }
}

static status shuffle_voxels_cpu(const call *c) {
  parallel_for(c->pool, c->in[0].shape.dim[0], sample_task, (void *)c);
  return OK;
}

const op op_shuffle_voxels = {
    .name = "shuffle_voxels",
    .family = "method",
    .summary = "Permutes the voxels inside many small boxes.",
    .doc = "With probability `probability`, `boxes` boxes of random extents, uniform from 1 voxel "
           "to `size` of the volume's along each axis, are drawn for a sample, and each of them "
           "receives the image's voxels of that box in a random order, all channels together. "
           "Where boxes overlap the later one stands. Restoring the volume teaches texture and "
           "local outlines (Models Genesis, Zhou et al., arXiv 1908.06912).",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "shuffled volumes"}, {0}},
    .attrs = (const attr[]){{"probability", ATTR_FLOAT, offsetof(shuffle_voxels_attrs, probability),
                             "0.5", 0, 1, NULL, ATTR_SCHEDULABLE, "share of the samples shuffled"},
                            {"boxes", ATTR_INT, offsetof(shuffle_voxels_attrs, boxes), "10000", 1,
                             1000000, NULL, 0, "number of boxes"},
                            {"size", ATTR_FLOAT, offsetof(shuffle_voxels_attrs, size), "0.1", 0, 1,
                             NULL, 0, "largest extent of a box, as a fraction of the volume's"},
                            {0}},
    .attrs_bytes = sizeof(shuffle_voxels_attrs),
    .infer = shuffle_voxels_infer,
    .cost = shuffle_voxels_cost,
    .workspace_bytes = shuffle_voxels_workspace,
    .cpu = shuffle_voxels_cpu,
    .cases =
        (const op_case[]){
            {"{probability: 0.7, boxes: 20, size: 0.4}", "[1..4, 5..7, 3..6, 5..9, 1..3]", 0}, {0}},
};
