/* random_scale_intensity: contrast between cases, as a factor. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_scale_intensity_attrs {
  double factor, probability;
} random_scale_intensity_attrs;

static const attr random_scale_intensity_attr_list[] = {
    {"factor", ATTR_FLOAT, offsetof(random_scale_intensity_attrs, factor), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "the image is multiplied by 1 + f, f uniform in [−factor, factor)"},
    {"probability", ATTR_FLOAT, offsetof(random_scale_intensity_attrs, probability), "0.1", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_scale_intensity_host(host_call *call) {
  const random_scale_intensity_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  float scale = (float)(1 + rng_range(&call->random, -attrs->factor, attrs->factor));
  return host_rescale(call, (rescale){scale, RESCALE_NONE.shift});
}

const op op_random_scale_intensity = {
    .name = "random_scale_intensity",
    .family = "sample",
    .summary = "Multiplies the image by a random factor near 1.",
    .doc = "v ↦ v · (1 + f), one f for all channels.",
    .torch = "monai.transforms.RandScaleIntensity(factor, probability)",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = random_scale_intensity_attr_list,
    .attrs_bytes = sizeof(random_scale_intensity_attrs),
    .host = random_scale_intensity_host,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0}, {0}},
};
