/* random_noise: Gaussian noise. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/sample/intensity.h"

typedef struct random_noise_attrs {
  double sd, probability;
} random_noise_attrs;

static const attr random_noise_attr_list[] = {
    {"sd", ATTR_FLOAT, offsetof(random_noise_attrs, sd), "0.1", 0, 1e6, NULL, ATTR_SCHEDULABLE,
     "largest standard deviation, in units of the prepared intensity"},
    {"probability", ATTR_FLOAT, offsetof(random_noise_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_noise_apply(host_call *call, const void *parameters) {
  noise_change change = *(const noise_change *)parameters;
  TRY(host_own(call));
  volume *v = &call->c->image;
  const int64_t values = v->size[0] * v->size[1] * v->size[2] * v->channels;
  for (int64_t i = 0; i < values; i++) v->data[i] += change.sd * rng_normal(&change.random);
  return OK;
}

static status random_noise_host(host_call *call) {
  const random_noise_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  noise_change change = {.sd = (float)rng_range(&call->random, 0, attrs->sd)};
  change.random = call->random;
  return host_change(call, CHANGES_INTENSITIES, &change, sizeof change);
}

const op op_random_noise = {
    .name = "random_noise",
    .family = "sample",
    .summary = "Adds Gaussian noise of a random strength.",
    .doc = "v ↦ v + σ · n with n standard normal for every voxel and σ uniform in [0, sd).",
    .torch = "monai.transforms.RandGaussianNoise(probability, std=sd)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_noise_attr_list,
    .attrs_bytes = sizeof(random_noise_attrs),
    .host = random_noise_host,
    .apply = random_noise_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 1e-5}, {0}},
};
