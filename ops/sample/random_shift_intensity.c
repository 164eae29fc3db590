/* random_shift_intensity: brightness between cases, as an offset. */
#include "data/host.h"
#include "graph/op.h"

typedef struct random_shift_intensity_attrs {
  double offset, probability;
} random_shift_intensity_attrs;

static const attr random_shift_intensity_attr_list[] = {
    {"offset", ATTR_FLOAT, offsetof(random_shift_intensity_attrs, offset), "0.1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE, "s is uniform in [−offset, offset), in units of the prepared intensity"},
    {"probability", ATTR_FLOAT, offsetof(random_shift_intensity_attrs, probability), "0.1", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_shift_intensity_host(host_call *call) {
  const random_shift_intensity_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  float shift = (float)rng_range(&call->random, -attrs->offset, attrs->offset);
  return host_rescale(call, (rescale){1, shift});
}

const op op_random_shift_intensity = {
    .name = "random_shift_intensity",
    .family = "sample",
    .summary = "Adds a random offset to the image.",
    .doc = "v ↦ v + s, one s for all channels.",
    .torch = "monai.transforms.RandShiftIntensity(offset, prob=probability)",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = random_shift_intensity_attr_list,
    .attrs_bytes = sizeof(random_shift_intensity_attrs),
    .host = random_shift_intensity_host,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0}, {0}},
};
