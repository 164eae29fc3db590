/* random_brightness: nnU-Net's multiplicative brightness. */
#include "ops/sample/channels.h"

#include <stdlib.h>

typedef struct random_brightness_attrs {
  double factor[2], probability;
  channel_attrs channels;
  bool balanced;
} random_brightness_attrs;

static const attr random_brightness_attr_list[] = {
    {"factor", ATTR_RANGE, offsetof(random_brightness_attrs, factor), "[0.75, 1.25]", 0, 100, NULL,
     ATTR_SCHEDULABLE, "drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_brightness_attrs, probability), "0.15", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_brightness_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_brightness_attrs, channels, "false"),
    BALANCED_ATTR(random_brightness_attrs, "factors"),
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

static void draw_factors(host_call *call, float *factor, int64_t channels) {
  const random_brightness_attrs *attrs = call->attrs;
  const float *first = NULL;
  for (int64_t c = 0; c < channels; c++) {
    factor[c] = 1;
    if (channel_is_spared(call, &attrs->channels)) continue;
    bool shares = first && attrs->channels.synchronized;
    factor[c] = shares ? *first : (float)draw_factor(call, attrs->factor, attrs->balanced);
    if (!first) first = &factor[c];
  }
}

/* The change is an array: a factor for each channel. */
static status random_brightness_host(host_call *call) {
  const random_brightness_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  const int64_t channels = call->c->image.channels;
  if (channels == 1) {
    float factor;
    draw_factors(call, &factor, 1);
    return host_rescale(call, (rescale){factor, RESCALE_NONE.shift});
  }
  const size_t bytes = (size_t)channels * sizeof(float);
  float *factor = malloc(bytes);
  if (!factor) return error_out_of_memory(bytes);
  draw_factors(call, factor, channels);
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
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, channel_probability: 0.5, synchronize_channels: "
                                "true, balanced: true}",
                                NULL, 0},
                               {0}},
};
