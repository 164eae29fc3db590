/* random_rician_noise: the noise of magnitude images (Gudbjartsson and Patz, "The Rician distribution of
 * noisy MRI data", Magnetic Resonance in Medicine 1995). */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

#include <stdlib.h>

typedef struct random_rician_noise_attrs {
  double sd, probability;
} random_rician_noise_attrs;

static const attr random_rician_noise_attr_list[] = {
    {"sd", ATTR_FLOAT, offsetof(random_rician_noise_attrs, sd), "0.1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE,
     "largest standard deviation of either part, in units of the prepared intensity"},
    {"probability", ATTR_FLOAT, offsetof(random_rician_noise_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_rician_noise_apply(host_call *call, const void *parameters) {
  noise_change change = *(const noise_change *)parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t C = v->channels, values = v->size[0] * v->size[1] * v->size[2] * C;
  float *low = malloc((size_t)C * sizeof *low), high;
  if (!low) return error_out_of_memory((size_t)C * sizeof *low);
  for (int64_t c = 0; c < C; c++) channel_extremes(v, c, &low[c], &high);
  for (int64_t i = 0; i < values; i++) {
    float along = rng_normal(&change.random), across = rng_normal(&change.random);
    v->data[i] = rician_rule(v->data[i], low[i % C], change.sd, along, across);
  }
  free(low);
  return OK;
}

static status random_rician_noise_host(host_call *call) {
  const random_rician_noise_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  noise_change change = {.sd = (float)rng_range(&call->random, 0, attrs->sd)};
  change.random = call->random;
  return host_change(call, CHANGES_INTENSITIES, &change, sizeof change);
}

const op op_random_rician_noise = {
    .name = "random_rician_noise",
    .family = "sample",
    .summary = "Adds the noise of MR magnitude images, of a random strength.",
    .doc =
        "v ↦ m + √((v − m + σ · n₁)² + (σ · n₂)²) with n₁ and n₂ standard normal for every voxel,\n"
        "σ uniform in [0, sd) and m the channel's least value in the crop, which stands for no\n"
        "signal: where that is 0, this is MONAI's. Dark voxels become brighter, bright ones get\n"
        "the noise of `random_noise`.",
    .torch = "monai.transforms.RandRicianNoise(probability, std=sd, sample_std=True)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_rician_noise_attr_list,
    .attrs_bytes = sizeof(random_rician_noise_attrs),
    .host = random_rician_noise_host,
    .apply = random_rician_noise_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 1e-5},
                               {"{probability: 1, sd: 3}", NULL, 1e-5},
                               {0}},
};
