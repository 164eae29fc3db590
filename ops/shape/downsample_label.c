/* downsample_label: a label map at a lower resolution, for losses on inner levels of the network
 * (deep supervision). */
#include "ops/arithmetic/chunks.h"

typedef struct downsample_attrs {
  int64_t factor[3];
} downsample_attrs;

static status downsample_infer(infer *rule) {
  const int64_t *factor = ((const downsample_attrs *)rule->attrs)->factor;
  shape s = rule->in[0].shape;
  char have[96];
  if (s.rank != 4 && !(s.rank == 5 && s.dim[4] == 1))
    return shape_error("label must be a label map (N × X × Y × Z), but is %s",
                       shape_format(have, &s));
  for (int a = 0; a < 3; a++) {
    if (s.dim[a + 1] % factor[a])
      return shape_error("a factor of %lld does not divide %c = %lld", (long long)factor[a],
                         "xyz"[a], (long long)s.dim[a + 1]);
    s.dim[a + 1] /= factor[a];
  }
  rule->out[0].shape = s;
  rule->out[0].dtype = rule->in[0].dtype;
  return OK;
}

static cost downsample_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count;
  return (cost){.bytes = 8.0 * (double)shape_elements(&out[0].shape)};
}

static void downsample_task(void *context, int64_t task) {
  const call *c = context;
  const int64_t *factor = ((const downsample_attrs *)c->attrs)->factor;
  const int64_t *from = c->in[0].shape.dim, *to = c->out[0].shape.dim;
  int64_t n = task / to[1], x = task % to[1] * factor[0];
  const int32_t *plane = (const int32_t *)c->in[0].data + (n * from[1] + x) * from[2] * from[3];
  int32_t *out = (int32_t *)c->out[0].data + task * to[2] * to[3];
  for (int64_t y = 0; y < to[2]; y++)
    for (int64_t z = 0; z < to[3]; z++)
      out[y * to[3] + z] = plane[y * factor[1] * from[3] + z * factor[2]];
}

static status downsample_cpu(const call *c) {
  parallel_for(c->pool, c->out[0].shape.dim[0] * c->out[0].shape.dim[1], downsample_task,
               (void *)c);
  return OK;
}

const op op_downsample_label = {
    .name = "downsample_label",
    .family = "shape",
    .summary = "A label map at a lower resolution.",
    .doc =
        "Keeps the first voxel of every block of `factor` voxels, so that a loss can be put on an "
        "inner level of the network (deep supervision).",
    .torch =
        "torch.nn.functional.interpolate(label.unsqueeze(1).float(), scale_factor=[1 / f for f in "
        "factor], mode='nearest').squeeze(1).int()",
    .version = 1,
    .inputs = (const port[]){{"label", "N X Y Z", DTYPE_I32, PORT_OR_REGIONS,
                              "class numbers or sets of regions"},
                             {0}},
    .outputs =
        (const port[]){{"out", "N X Y Z", DTYPE_I32, 0, "class numbers, fewer of them"}, {0}},
    .attrs = (const attr[]){{"factor", ATTR_INT3, offsetof(downsample_attrs, factor), NULL, 1, 64,
                             NULL, 0, "voxels along x, y and z that become one"},
                            {0}},
    .attrs_bytes = sizeof(downsample_attrs),
    .infer = downsample_infer,
    .cost = downsample_cost,
    .cpu = downsample_cpu,
    .cases = (const op_case[]){{"{factor: [2, 1, 3]}", "[1..2, 2|4, 1..3, 3|6] in 0..4", 0},
                               {"{factor: 2}", "[1, 4, 2, 2] in -1..7 sets", 0},
                               {0}},
};
