/* random_blur: Gaussian smoothing of random width. */
#include "ops/sample/channels.h"
#include "ops/sample/lines.h"

typedef struct random_blur_attrs {
  double sd[2], probability;
  channel_attrs channels;
  bool synchronize_axes;
} random_blur_attrs;

static const attr random_blur_attr_list[] = {
    {"sd", ATTR_RANGE, offsetof(random_blur_attrs, sd), "[0.5, 1]", 0, 4, NULL, ATTR_SCHEDULABLE,
     "standard deviation of the Gaussian in voxels, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_blur_attrs, probability), "0.2", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_blur_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_blur_attrs, channels, "true"),
    {"synchronize_axes", ATTR_BOOL, offsetof(random_blur_attrs, synchronize_axes), "true", 0, 0,
     NULL, 0, "one width for all axes; false: one for each"},
    {0},
};

static status random_blur_apply(host_call *call, const void *parameters) {
  const blur_change *change = parameters;
  TRY(host_own(call));
  for (int a = 0; a < 3; a++)
    TRY(filter_lines(&call->c->image, change->channel, a, smooth_line, &change->along[a]));
  return OK;
}

static void draw_widths(host_call *call, void *change) {
  const random_blur_attrs *attrs = call->attrs;
  gaussian *along = ((blur_change *)change)->along;
  for (int a = 0; a < 3; a++) {
    bool shares = a > 0 && attrs->synchronize_axes;
    along[a] =
        shares ? along[0] : gaussian_of(rng_range(&call->random, attrs->sd[0], attrs->sd[1]), true);
  }
}

static status random_blur_host(host_call *call) {
  const random_blur_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  blur_change change;
  return change_channels(call, &attrs->channels, draw_widths, &change, sizeof change);
}

const op op_random_blur = {
    .name = "random_blur",
    .family = "sample",
    .summary = "Smooths the image with a Gaussian of random width.",
    .doc = "The kernel is cut at 4 sd and continues the edge values.",
    .torch = "scipy.ndimage.gaussian_filter(x, sd, mode='nearest')",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_blur_attr_list,
    .attrs_bytes = sizeof(random_blur_attrs),
    .host = random_blur_host,
    .apply = random_blur_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, sd: [3, 4]}", NULL, 0},
                               {"{probability: 1, synchronize_axes: false, synchronize_channels: "
                                "false}",
                                NULL, 0},
                               {"{probability: 1, channel_probability: 0.5}", NULL, 0},
                               {0}},
};
