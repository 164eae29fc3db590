/* random_contrast: intensities stretched around their mean. */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

typedef struct random_contrast_attrs {
  double factor[2], probability;
  channel_attrs channels;
  bool balanced;
} random_contrast_attrs;

static const attr random_contrast_attr_list[] = {
    {"factor", ATTR_RANGE, offsetof(random_contrast_attrs, factor), "[0.75, 1.25]", 0, 100, NULL,
     ATTR_SCHEDULABLE, "drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_contrast_attrs, probability), "0.15", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_contrast_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_contrast_attrs, channels, "true"),
    BALANCED_ATTR(random_contrast_attrs, "factors"),
    {0},
};

static void stretch(float *data, int64_t voxels, int64_t stride, double factor) {
  double sum = 0;
  float low = data[0], high = data[0];
  for (int64_t i = 0; i < voxels; i++) {
    float v = data[i * stride];
    sum += (double)v;
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  double mean = sum / (double)voxels;
  for (int64_t i = 0; i < voxels; i++)
    data[i * stride] = contrast_rule(data[i * stride], mean, factor, low, high);
}

static status random_contrast_apply(host_call *call, const void *parameters) {
  const contrast_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t end = end_of_channels(change->channel, v->channels);
  for (int64_t c = first_channel(change->channel); c < end; c++)
    stretch(v->data + c, v->size[0] * v->size[1] * v->size[2], v->channels, change->factor);
  return OK;
}

static void draw_contrast(host_call *call, void *change) {
  const random_contrast_attrs *attrs = call->attrs;
  ((contrast_change *)change)->factor = draw_factor(call, attrs->factor, attrs->balanced);
}

static status random_contrast_host(host_call *call) {
  const random_contrast_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  contrast_change change;
  return change_channels(call, &attrs->channels, draw_contrast, &change, sizeof change);
}

const op op_random_contrast = {
    .name = "random_contrast",
    .family = "sample",
    .summary = "Stretches or flattens the intensities around each channel's mean.",
    .doc = "v ↦ mean + f · (v − mean), clipped to the channel's old minimum and maximum.",
    .torch = "torch.clamp((x - x.mean()) * f + x.mean(), x.min(), x.max())",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_contrast_attr_list,
    .attrs_bytes = sizeof(random_contrast_attrs),
    .host = random_contrast_host,
    .apply = random_contrast_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 1e-5},
                               {"{probability: 1, factor: [2, 3]}", NULL, 1e-5},
                               {"{probability: 1, channel_probability: 0.5}", NULL, 1e-5},
                               {"{probability: 1, synchronize_channels: false, balanced: true}",
                                NULL, 1e-5},
                               {0}},
};
