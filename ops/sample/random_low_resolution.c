/* random_low_resolution: the image as a coarser scanner would have given it. */
#include "ops/sample/channels.h"
#include "ops/sample/lines.h"

typedef struct random_low_resolution_attrs {
  double zoom[2], probability;
  channel_attrs channels;
  unsigned axes;
} random_low_resolution_attrs;

static const attr random_low_resolution_attr_list[] = {
    {"zoom", ATTR_RANGE, offsetof(random_low_resolution_attrs, zoom), "[0.5, 1]", 0.05, 1, NULL,
     ATTR_SCHEDULABLE, "share of the voxels along an axis that are kept, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_low_resolution_attrs, probability), "0.25", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_low_resolution_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_low_resolution_attrs, channels, "true"),
    {"axes", ATTR_AXES, offsetof(random_low_resolution_attrs, axes), "[x, y, z]", 0, 0, NULL, 0,
     "axes that lose resolution; leave out a coarse one"},
    {0},
};

static void coarsen_line(const void *context, const float *in, float *out, int64_t n) {
  const coarse_change *change = context;
  int64_t m = coarse_count(n, change->zoom);
  for (int64_t i = 0; i < n; i++) out[i] = coarse_rule(in, 1, n, m, i);
}

static status random_low_resolution_apply(host_call *call, const void *parameters) {
  const coarse_change *change = parameters;
  TRY(host_own(call));
  for (int a = 0; a < 3; a++)
    if (change->axes >> a & 1)
      TRY(filter_lines(&call->c->image, change->channel, a, coarsen_line, change));
  return OK;
}

static void draw_zoom(host_call *call, void *change) {
  const random_low_resolution_attrs *attrs = call->attrs;
  ((coarse_change *)change)->zoom = rng_range(&call->random, attrs->zoom[0], attrs->zoom[1]);
}

static status random_low_resolution_host(host_call *call) {
  const random_low_resolution_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  coarse_change change = {.axes = attrs->axes};
  return change_channels(call, &attrs->channels, draw_zoom, &change, sizeof change);
}

const op op_random_low_resolution = {
    .name = "random_low_resolution",
    .family = "sample",
    .summary = "Reduces the image's resolution by a random factor and interpolates it back.",
    .doc = "Nearest voxel on the way down, linear on the way up, one zoom for all axes; the label\n"
           "keeps its resolution. nnU-Net calls what `axes` leaves out ignore_axes.",
    .torch = "monai.transforms.RandSimulateLowResolution(probability, zoom_range=zoom)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_low_resolution_attr_list,
    .attrs_bytes = sizeof(random_low_resolution_attrs),
    .host = random_low_resolution_host,
    .apply = random_low_resolution_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, zoom: [0.05, 0.5], axes: [x, z]}", NULL, 0},
                               {"{probability: 1, channel_probability: 0.5, synchronize_channels: "
                                "false}",
                                NULL, 0},
                               {0}},
};
