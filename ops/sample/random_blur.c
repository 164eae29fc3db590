/* random_blur: Gaussian smoothing of random width. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/sample/lines.h"

typedef struct random_blur_attrs {
  double sd[2], probability;
} random_blur_attrs;

static const attr random_blur_attr_list[] = {
    {"sd", ATTR_RANGE, offsetof(random_blur_attrs, sd), "[0.5, 1]", 0, 4, NULL, ATTR_SCHEDULABLE,
     "standard deviation of the Gaussian in voxels, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_blur_attrs, probability), "0.2", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static status random_blur_apply(host_call *call, const void *change) {
  TRY(host_own(call));
  for (int a = 0; a < 3; a++) TRY(filter_lines(&call->c->image, a, smooth_line, change));
  return OK;
}

static status random_blur_host(host_call *call) {
  const random_blur_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  double sd = rng_range(&call->random, attrs->sd[0], attrs->sd[1]);
  if (sd < 1e-3) return OK;
  gaussian g = gaussian_of(sd, true);
  return host_change(call, CHANGES_INTENSITIES, &g, sizeof g);
}

const op op_random_blur = {
    .name = "random_blur",
    .family = "sample",
    .summary = "Smooths the image with a Gaussian of random width.",
    .doc = "One width for all axes and channels; the kernel is cut at 4 sd and continues the edge\n"
           "values.",
    .torch = "scipy.ndimage.gaussian_filter(x, sd, mode='nearest')",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_blur_attr_list,
    .attrs_bytes = sizeof(random_blur_attrs),
    .host = random_blur_host,
    .apply = random_blur_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, sd: [3, 4]}", NULL, 0},
                               {0}},
};
