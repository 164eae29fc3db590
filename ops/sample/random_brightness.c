/* random_brightness: nnU-Net's multiplicative brightness. */
#include "data/host.h"
#include "graph/op.h"

#include <stdlib.h>

typedef struct random_brightness_attrs {
  double factor[2], probability;
} random_brightness_attrs;

static const attr random_brightness_attr_list[] = {
    {"factor", ATTR_RANGE, offsetof(random_brightness_attrs, factor), "[0.75, 1.25]", 0, 100, NULL,
     ATTR_SCHEDULABLE, "drawn from [low, high) for each channel"},
    {"probability", ATTR_FLOAT, offsetof(random_brightness_attrs, probability), "0.15", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_brightness_apply(host_call *call, const void *parameters) {
  const float *factor = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t voxels = v->size[0] * v->size[1] * v->size[2];
  for (int64_t c = 0; c < v->channels; c++)
    for (int64_t i = 0; i < voxels; i++) v->data[i * v->channels + c] *= factor[c];
  return OK;
}

/* The change is an array: a factor for each channel. */
static status random_brightness_host(host_call *call) {
  const random_brightness_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  volume *v = &call->c->image;
  if (v->channels == 1) {
    float factor = (float)rng_range(&call->random, attrs->factor[0], attrs->factor[1]);
    return host_rescale(call, (rescale){factor, RESCALE_NONE.shift});
  }
  const size_t bytes = (size_t)v->channels * sizeof(float);
  float *factor = malloc(bytes);
  if (!factor) return error_out_of_memory(bytes);
  for (int64_t c = 0; c < v->channels; c++)
    factor[c] = (float)rng_range(&call->random, attrs->factor[0], attrs->factor[1]);
  status error = host_change(call, CHANGES_INTENSITIES, factor, bytes);
  free(factor);
  return error;
}

const op op_random_brightness = {
    .name = "random_brightness",
    .family = "sample",
    .summary = "Multiplies each channel by a random factor of its own.",
    .doc = "v ↦ f · v, f drawn for each channel (random_scale_intensity has one for all). nnU-Net\n"
           "calls the range multiplier_range; of z-scored images it is the distance from the mean\n"
           "that grows or shrinks. For an offset see random_shift_intensity.",
    .torch = "x * torch.empty(channels, 1, 1, 1).uniform_(*factor)",
    .version = 1,
    .traits = OP_SAMPLE | OP_LAZY,
    .attrs = random_brightness_attr_list,
    .attrs_bytes = sizeof(random_brightness_attrs),
    .host = random_brightness_host,
    .apply = random_brightness_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0}, {0}},
};
