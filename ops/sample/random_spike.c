/* random_spike: the stripes that a spike in k-space leaves in an MR image. A single sample of k-space is
 * a plane wave in the image, so no Fourier transform is needed. */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

#include <stdlib.h>

typedef struct random_spike_attrs {
  int64_t spikes;
  double amplitude[2], probability;
} random_spike_attrs;

static const attr random_spike_attr_list[] = {
    {"spikes", ATTR_INT, offsetof(random_spike_attrs, spikes), "1", 1, SPIKES_MAX, NULL, 0,
     "how many at most; their number is uniform from 1"},
    {"amplitude", ATTR_RANGE, offsetof(random_spike_attrs, amplitude), "[0.05, 0.2]", 0, 10, NULL,
     ATTR_SCHEDULABLE, "of each wave, as a share of the channel's range, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_spike_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_spike_apply(host_call *call, const void *parameters) {
  const spike_change *change = parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t *size = v->size, C = v->channels;
  float *range = malloc((size_t)C * sizeof *range), low, high, *value = v->data;
  if (!range) return error_out_of_memory((size_t)C * sizeof *range);
  for (int64_t c = 0; c < C; c++) {
    channel_extremes(v, c, &low, &high);
    range[c] = high - low;
  }
  for (int64_t x = 0; x < size[0]; x++)
    for (int64_t y = 0; y < size[1]; y++)
      for (int64_t z = 0; z < size[2]; z++) {
        float share = spike_rule(change, (int64_t[]){x, y, z}, size);
        for (int64_t c = 0; c < C; c++) *value++ += range[c] * share;
      }
  free(range);
  return OK;
}

static status random_spike_host(host_call *call) {
  const random_spike_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  spike_change change = {.count = 1 + (int)rng_below(&call->random, (uint32_t)attrs->spikes)};
  for (int s = 0; s < (int)attrs->spikes; s++) {
    change.amplitude[s] = (float)rng_range(&call->random, attrs->amplitude[0], attrs->amplitude[1]);
    change.phase[s] = rng_range(&call->random, 0, 1);
    for (int a = 0; a < 3; a++) {
      int64_t n = call->c->image.size[a];
      change.frequency[s][a] = (double)(rng_below(&call->random, (uint32_t)n) - n / 2);
    }
  }
  return host_change(call, CHANGES_INTENSITIES, &change, sizeof change);
}

const op op_random_spike = {
    .name = "random_spike",
    .family = "sample",
    .summary = "Lays random stripes over the image, as spikes in k-space do.",
    .doc =
        "v ↦ v + Σ a · range · cos 2π(kx · x / nx + ky · y / ny + kz · z / nz + φ): every sample of\n"
        "k-space is a plane wave in the image. The frequencies k are whole numbers, each place of\n"
        "the crop's k-space as likely, φ uniform, range the channel's maximum minus its minimum;\n"
        "the same waves in all channels.",
    .torch = "monai.transforms.RandKSpaceSpikeNoise(probability)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_spike_attr_list,
    .attrs_bytes = sizeof(random_spike_attrs),
    .host = random_spike_host,
    .apply = random_spike_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 1e-5},
                               {"{probability: 1, spikes: 8, amplitude: [0, 1]}", NULL, 1e-5},
                               {0}},
};
