/* random_histogram_shift: intensities sent through a random rising curve of straight pieces, as MONAI's
 * RandHistogramShift. (random_curve of the family method is the smooth curve of Models Genesis.) */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

typedef struct random_histogram_shift_attrs {
  int64_t control_points;
  double probability;
  channel_attrs channels;
} random_histogram_shift_attrs;

static const attr random_histogram_shift_attr_list[] = {
    {"control_points", ATTR_INT, offsetof(random_histogram_shift_attrs, control_points), "10", 3,
     HISTOGRAM_POINTS_MAX, NULL, 0, "places of the curve, both ends counted; fewer bend it more"},
    {"probability", ATTR_FLOAT, offsetof(random_histogram_shift_attrs, probability), "0.1", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_histogram_shift_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_histogram_shift_attrs, channels, "true"),
    {0},
};

static status random_histogram_shift_apply(host_call *call, const void *parameters) {
  const histogram_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  const int64_t end = end_of_channels(change->channel, v->channels);
  for (int64_t c = first_channel(change->channel); c < end; c++) {
    float low, high;
    channel_extremes(v, c, &low, &high);
    if (!(high - low > 0)) continue;
    for (int64_t i = c; i < values; i += v->channels)
      v->data[i] = histogram_rule(v->data[i], change, low, high - low);
  }
  return OK;
}

static void draw_curve(host_call *call, void *parameters) {
  histogram_change *change = parameters;
  const int last = change->points - 1;
  for (int k = 0; k <= last; k++) change->to[k] = (float)k / (float)last;
  /* Between the place before, which has moved, and the one after, which has not: it never falls. */
  for (int k = 1; k < last; k++)
    change->to[k] =
        (float)rng_range(&call->random, (double)change->to[k - 1], (double)change->to[k + 1]);
}

static status random_histogram_shift_host(host_call *call) {
  const random_histogram_shift_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  histogram_change change = {.points = (int)attrs->control_points};
  return change_channels(call, &attrs->channels, draw_curve, &change, sizeof change);
}

const op op_random_histogram_shift = {
    .name = "random_histogram_shift",
    .family = "sample",
    .summary = "Sends the intensities through a random curve that never falls.",
    .doc =
        "Places spread evenly from a channel's minimum to its maximum are moved, one after the\n"
        "other, to anywhere between their neighbours; the ends stay, and between the places the\n"
        "curve is straight. Order and range of the intensities are kept, contrasts between\n"
        "tissues are not. `random_curve` in a stage's graph is the smooth curve of Models Genesis.",
    .torch = "monai.transforms.RandHistogramShift(control_points, probability)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_histogram_shift_attr_list,
    .attrs_bytes = sizeof(random_histogram_shift_attrs),
    .host = random_histogram_shift_host,
    .apply = random_histogram_shift_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, control_points: 3}", NULL, 0},
                               {"{probability: 1, control_points: 32, synchronize_channels: false}",
                                NULL, 0},
                               {"{probability: 1, channel_probability: 0.5}", NULL, 0},
                               {0}},
};
