/* random_gamma: a random gamma curve over the image's own intensity range. */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

typedef struct random_gamma_attrs {
  double gamma[2], probability;
  channel_attrs channels;
  bool balanced, invert, keep_statistics;
} random_gamma_attrs;

static const attr random_gamma_attr_list[] = {
    {"gamma", ATTR_RANGE, offsetof(random_gamma_attrs, gamma), "[0.7, 1.5]", 0.01, 100, NULL,
     ATTR_SCHEDULABLE, "exponent, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_gamma_attrs, probability), "0.3", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    CHANNEL_PROBABILITY_ATTR(random_gamma_attrs, channels),
    SYNCHRONIZE_CHANNELS_ATTR(random_gamma_attrs, channels, "true"),
    BALANCED_ATTR(random_gamma_attrs, "exponents"),
    {"invert", ATTR_BOOL, offsetof(random_gamma_attrs, invert), "false", 0, 0, NULL, 0,
     "apply the curve to the negative image"},
    {"keep_statistics", ATTR_BOOL, offsetof(random_gamma_attrs, keep_statistics), "false", 0, 0,
     NULL, 0, "restore mean and standard deviation afterwards"},
    {0},
};

static void statistics(const float *data, int64_t voxels, int64_t stride, double *mean,
                       double *sd) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < voxels; i++) sum += (double)data[i * stride];
  *mean = sum / (double)voxels;
  for (int64_t i = 0; i < voxels; i++) {
    double d = (double)data[i * stride] - *mean;
    squares += d * d;
  }
  *sd = sqrt(squares / (double)voxels);
}

static void bend(const gamma_change *change, volume *v, int64_t channel) {
  const int64_t voxels = v->size[0] * v->size[1] * v->size[2], stride = v->channels;
  float *data = v->data + channel, low, high;
  double mean = 0, sd = 0, new_mean, new_sd;
  if (change->keep_statistics) statistics(data, voxels, stride, &mean, &sd);
  channel_extremes(v, channel, &low, &high);
  float range = high - low;
  if (!(range > 0)) return;
  for (int64_t i = 0; i < voxels; i++)
    data[i * stride] = gamma_rule(data[i * stride], *change, low, high, range);
  if (!change->keep_statistics) return;
  statistics(data, voxels, stride, &new_mean, &new_sd);
  double scale = gamma_restoring_scale(sd, new_sd);
  for (int64_t i = 0; i < voxels; i++)
    data[i * stride] = gamma_restore_rule(data[i * stride], new_mean, scale, mean);
}

static status random_gamma_apply(host_call *call, const void *parameters) {
  const gamma_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t end = end_of_channels(change->channel, v->channels);
  for (int64_t c = first_channel(change->channel); c < end; c++) bend(change, v, c);
  return OK;
}

static void draw_gamma(host_call *call, void *change) {
  const random_gamma_attrs *attrs = call->attrs;
  ((gamma_change *)change)->gamma = (float)draw_factor(call, attrs->gamma, attrs->balanced);
}

static status random_gamma_host(host_call *call) {
  const random_gamma_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  gamma_change change = {.invert = attrs->invert, .keep_statistics = attrs->keep_statistics};
  return change_channels(call, &attrs->channels, draw_gamma, &change, sizeof change);
}

const op op_random_gamma = {
    .name = "random_gamma",
    .family = "sample",
    .summary = "Bends the intensities by a random gamma curve.",
    .doc = "v ↦ ((v − min) / (max − min))^gamma · (max − min) + min for each channel.",
    .torch = "monai.transforms.RandAdjustContrast(probability, gamma, invert, keep_statistics)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_gamma_attr_list,
    .attrs_bytes = sizeof(random_gamma_attrs),
    .host = random_gamma_host,
    .apply = random_gamma_apply,
    .cases =
        (const op_case[]){
            {"{probability: 1}", NULL, 1e-5},
            {"{probability: 1, invert: true}", NULL, 1e-5},
            {"{probability: 1, channel_probability: 0.5, keep_statistics: true}", NULL, 1e-5},
            {"{probability: 1, synchronize_channels: false, balanced: true}", NULL, 1e-5},
            {"{probability: 1, keep_statistics: true}", NULL, 1e-5},
            {"{probability: 1, invert: true, keep_statistics: true}", NULL, 1e-5},
            {0}},
};
