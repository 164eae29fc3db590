/* random_ringing: Gibbs ringing, the ripples beside edges where a scanner measures too few frequencies. */
#include "ops/sample/channels.h"
#include "ops/sample/lines.h"

#include <stdlib.h>

typedef struct random_ringing_attrs {
  double keep[2], probability;
  channel_attrs channels;
  unsigned axes;
} random_ringing_attrs;

static const attr random_ringing_attr_list[] = {
    {"keep", ATTR_RANGE, offsetof(random_ringing_attrs, keep), "[0.3, 0.9]", 0.02, 1, NULL,
     ATTR_SCHEDULABLE, "share of the frequencies along an axis that stay, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_ringing_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_ringing_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_ringing_attrs, channels, "true"),
    {"axes", ATTR_AXES, offsetof(random_ringing_attrs, axes), "[x, y, z]", 0, 0, NULL, 0,
     "axes along which frequencies are lost"},
    {0},
};

static status random_ringing_apply(host_call *call, const void *parameters) {
  const ringing_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  status error = OK;
  for (int a = 0; a < 3 && !error; a++) {
    if (!(change->axes >> a & 1)) continue;
    const int64_t n = v->size[a];
    float *weight = malloc((size_t)(2 * n) * sizeof *weight);
    if (!weight) return error_out_of_memory((size_t)(2 * n) * sizeof *weight);
    for (int64_t d = 0; d < 2 * n; d++)
      weight[d] = ringing_weight(d, n, coarse_count(n, change->keep));
    error = filter_lines(v, change->channel, a, ring_line, weight);
    free(weight);
  }
  return error;
}

static void draw_keep(host_call *call, void *change) {
  const random_ringing_attrs *attrs = call->attrs;
  ((ringing_change *)change)->keep = rng_range(&call->random, attrs->keep[0], attrs->keep[1]);
}

static status random_ringing_host(host_call *call) {
  const random_ringing_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  ringing_change change = {.axes = attrs->axes};
  return change_channels(call, &attrs->channels, draw_keep, &change, sizeof change);
}

const op op_random_ringing = {
    .name = "random_ringing",
    .family = "sample",
    .summary = "Leaves high frequencies out, which gives the ripples of Gibbs ringing.",
    .doc =
        "Along each axis the lowest frequencies stay, a share `keep` of them, and the others become\n"
        "0. Beyond the crop the image continues as its mirror image, so that the crop's own border\n"
        "does not ring: these are the frequencies of the cosine transform (DCT-II). MONAI's\n"
        "RandGibbsNoise keeps a ball of k-space, repeats the crop in place of mirroring it, and\n"
        "says how much is lost: its alpha is about 1 − keep.",
    .torch = "scipy.fft.idctn(scipy.fft.dctn(x) * low_frequencies)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_ringing_attr_list,
    .attrs_bytes = sizeof(random_ringing_attrs),
    .host = random_ringing_host,
    .apply = random_ringing_apply,
    .cases =
        (const op_case[]){
            {"{probability: 1}", NULL, 1e-5},
            {"{probability: 1, keep: [0.02, 1], axes: [x, z]}", NULL, 1e-5},
            {"{probability: 1, channel_probability: 0.5, synchronize_channels: false}", NULL, 1e-5},
            {0}},
};
