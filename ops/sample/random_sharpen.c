/* random_sharpen: unsharp masking of random strength. */
#include "ops/sample/channels.h"
#include "ops/sample/lines.h"

#include <stdlib.h>
#include <string.h>

typedef struct random_sharpen_attrs {
  double sd[2], strength[2], probability;
  channel_attrs channels;
} random_sharpen_attrs;

static const attr random_sharpen_attr_list[] = {
    {"sd", ATTR_RANGE, offsetof(random_sharpen_attrs, sd), "[0.5, 1]", 0, 4, NULL, ATTR_SCHEDULABLE,
     "standard deviation of the Gaussian in voxels, drawn from [low, high)"},
    {"strength", ATTR_RANGE, offsetof(random_sharpen_attrs, strength), "[0.2, 2]", 0, 100, NULL,
     ATTR_SCHEDULABLE, "factor of what the Gaussian takes away, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_sharpen_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_sharpen_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_sharpen_attrs, channels, "true"),
    {0},
};

static void sharpen(volume *v, const volume *smooth, float strength, int64_t channel) {
  const int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  float low, high;
  channel_extremes(v, channel, &low, &high);
  for (int64_t i = channel; i < values; i += v->channels)
    v->data[i] = sharpen_rule(v->data[i], smooth->data[i], strength, low, high);
}

static status random_sharpen_apply(host_call *call, const void *parameters) {
  const sharpen_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image, smooth = *v;
  size_t bytes = (size_t)(v->size[0] * v->size[1] * v->size[2] * v->channels) * sizeof *smooth.data;
  smooth.data = malloc(bytes);
  if (!smooth.data) return error_out_of_memory(bytes);
  memcpy(smooth.data, v->data, bytes);
  status error = OK;
  for (int a = 0; a < 3 && !error; a++)
    error = filter_lines(&smooth, change->channel, a, smooth_line, &change->smooth);
  const int64_t end = end_of_channels(change->channel, v->channels);
  for (int64_t c = first_channel(change->channel); c < end && !error; c++)
    sharpen(v, &smooth, change->strength, c);
  free(smooth.data);
  return error;
}

static void draw_sharpening(host_call *call, void *parameters) {
  const random_sharpen_attrs *attrs = call->attrs;
  sharpen_change *change = parameters;
  change->smooth = gaussian_of(rng_range(&call->random, attrs->sd[0], attrs->sd[1]), true);
  change->strength = (float)rng_range(&call->random, attrs->strength[0], attrs->strength[1]);
}

static status random_sharpen_host(host_call *call) {
  const random_sharpen_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  sharpen_change change;
  return change_channels(call, &attrs->channels, draw_sharpening, &change, sizeof change);
}

const op op_random_sharpen = {
    .name = "random_sharpen",
    .family = "sample",
    .summary = "Makes edges steeper, by a random factor of what smoothing takes away.",
    .doc =
        "v ↦ v + strength · (v − G v), G the Gaussian of `random_blur`, clipped to the channel's old\n"
        "minimum and maximum. With sd 1 a strength is about twice that of batchgenerators'\n"
        "SharpeningTransform, whose filter is the Laplacian. MONAI sharpens what it has smoothed\n"
        "and does not clip.",
    .torch =
        "torch.clamp(x + strength * (x - scipy.ndimage.gaussian_filter(x, sd, mode='nearest')),\n"
        "x.min(), x.max())",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_sharpen_attr_list,
    .attrs_bytes = sizeof(random_sharpen_attrs),
    .host = random_sharpen_host,
    .apply = random_sharpen_apply,
    .cases =
        (const op_case[]){
            {"{probability: 1}", NULL, 0},
            {"{probability: 1, sd: [3, 4], strength: [0, 100]}", NULL, 0},
            {"{probability: 1, channel_probability: 0.5, synchronize_channels: false}", NULL, 0},
            {0}},
};
