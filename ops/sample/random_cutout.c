/* random_cutout: boxes of the image hidden from the network (DeVries and Taylor, "Improved Regularization
 * of Convolutional Neural Networks with Cutout", arXiv 1708.04552), as MONAI's RandCoarseDropout. */
#include "ops/sample/channels.h"
#include "ops/sample/intensity.h"

typedef struct random_cutout_attrs {
  int64_t boxes;
  double extent[2], probability;
  int fill;
} random_cutout_attrs;

enum { FILL_ZERO, FILL_MEAN };

static const attr random_cutout_attr_list[] = {
    {"boxes", ATTR_INT, offsetof(random_cutout_attrs, boxes), "1", 1, CUTOUT_BOXES_MAX, NULL, 0,
     "how many at most; their number is uniform from 1"},
    {"extent", ATTR_RANGE, offsetof(random_cutout_attrs, extent), "[0.1, 0.3]", 0, 1, NULL,
     ATTR_SCHEDULABLE,
     "of a box along each axis, as a share of the crop's, drawn from [low, high)"},
    {"fill", ATTR_CHOICE, offsetof(random_cutout_attrs, fill), "zero", 0, 0,
     (const char *const[]){"zero", "mean", NULL}, 0,
     "what stands there: 0, or the mean of the crop's channel"},
    {"probability", ATTR_FLOAT, offsetof(random_cutout_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static void cut_out(volume *v, const cutout_change *change, int64_t channel) {
  const int64_t C = v->channels, voxels = v->size[0] * v->size[1] * v->size[2];
  double sum = 0;
  for (int64_t i = 0; change->to_mean && i < voxels; i++) sum += (double)v->data[i * C + channel];
  float fill = (float)(sum / (double)voxels);
  for (int b = 0; b < change->count; b++) {
    const int32_t *at = change->at[b], *size = change->size[b];
    for (int64_t x = at[0]; x < at[0] + size[0]; x++)
      for (int64_t y = at[1]; y < at[1] + size[1]; y++) {
        float *line = v->data + ((x * v->size[1] + y) * v->size[2] + at[2]) * C + channel;
        for (int64_t z = 0; z < size[2]; z++) line[z * C] = fill;
      }
  }
}

static status random_cutout_apply(host_call *call, const void *change) {
  TRY(host_own(call));
  for (int64_t c = 0; c < call->c->image.channels; c++) cut_out(&call->c->image, change, c);
  return OK;
}

static status random_cutout_host(host_call *call) {
  const random_cutout_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  cutout_change change = {.count = 1 + (int)rng_below(&call->random, (uint32_t)attrs->boxes),
                          .to_mean = attrs->fill == FILL_MEAN};
  for (int b = 0; b < (int)attrs->boxes; b++)
    for (int a = 0; a < 3; a++) {
      int64_t n = call->c->image.size[a];
      int64_t size =
          (int64_t)rint((double)n * rng_range(&call->random, attrs->extent[0], attrs->extent[1]));
      size = size < 1 ? 1 : size > n ? n : size;
      change.size[b][a] = (int32_t)size;
      change.at[b][a] = (int32_t)rng_below(&call->random, (uint32_t)(n - size + 1));
    }
  return host_change(call, CHANGES_INTENSITIES, &change, sizeof change);
}

const op op_random_cutout = {
    .name = "random_cutout",
    .family = "sample",
    .summary = "Hides random boxes of the image, in all channels; the label stays.",
    .doc =
        "The boxes lie within the crop and may overlap; each extent is drawn on its own. In training\n"
        "alone, as all sample operators. (`cutout` in a stage's graph is a pretext's, with a mask of\n"
        "what is hidden.)",
    .torch = "monai.transforms.RandCoarseDropout(holes=1, max_holes=boxes, spatial_size=extent,\n"
             "fill_value=0, prob=probability)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_cutout_attr_list,
    .attrs_bytes = sizeof(random_cutout_attrs),
    .host = random_cutout_host,
    .apply = random_cutout_apply,
    .cases = (const op_case[]){{"{probability: 1}", NULL, 0},
                               {"{probability: 1, boxes: 16, extent: [0, 1]}", NULL, 0},
                               {"{probability: 1, boxes: 3, fill: mean}", NULL, 1e-5},
                               {0}},
};
