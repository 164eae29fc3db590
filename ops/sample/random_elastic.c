/* random_elastic: a smooth random displacement of every voxel (Simard et al., "Best practices for
 * convolutional neural networks applied to visual document analysis", ICDAR 2003). */
#include "graph/op.h"
#include "ops/sample/warp.h"

typedef struct random_elastic_attrs {
  double sigma[2], magnitude[2], probability;
  unsigned plane;
  int outside;
} random_elastic_attrs;

static const attr random_elastic_attr_list[] = {
    {"sigma", ATTR_RANGE, offsetof(random_elastic_attrs, sigma), "[9, 13]", 0.5, 16, NULL,
     ATTR_SCHEDULABLE,
     "standard deviation in voxels of the Gaussian that smooths the field, drawn from [low, high)"},
    {"magnitude", ATTR_RANGE, offsetof(random_elastic_attrs, magnitude), "[0, 900]", 0, 1e5, NULL,
     ATTR_SCHEDULABLE, "factor of the smoothed field, drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_elastic_attrs, probability), "0.2", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {"plane", ATTR_AXES, offsetof(random_elastic_attrs, plane), "[x, y, z]", 0, 0, NULL, 0,
     "two axes, as in [x, y]: one field in the plane for all slices, for anisotropic voxels"},
    {"outside", ATTR_CHOICE, offsetof(random_elastic_attrs, outside), "zero", 0, 0, OUTSIDE_CHOICES,
     0, "beyond the crop: 0, or the value of the nearest voxel"},
    {0},
};

static status random_elastic_host_infer(host_infer *shape) {
  const random_elastic_attrs *attrs = shape->attrs;
  return plane_check(attrs->plane);
}

/* Displacements in voxels; one slice for all across a plane. */
typedef struct displacement {
  volume field;
  int normal;
  float magnitude;
} displacement;

static status make_field(const host_call *call, const elastic_change *change, displacement *d) {
  rng random = change->random;
  int64_t size[3];
  for (int a = 0; a < 3; a++) size[a] = a == d->normal ? 1 : call->c->image.size[a];
  TRY(volume_allocate(&d->field, size, d->normal < 0 ? 3 : 2));
  int64_t values = size[0] * size[1] * size[2] * d->field.channels;
  for (int64_t i = 0; i < values; i++) d->field.data[i] = elastic_noise(rng_uniform(&random));
  status error = OK;
  for (int a = 0; a < 3 && !error; a++)
    if (a != d->normal)
      error = filter_lines(&d->field, ALL_CHANNELS, a, smooth_line, &change->smoothing);
  if (error) volume_free(&d->field);
  return error;
}

static void displaced(const void *context, const int64_t index[3], double at[3]) {
  const displacement *d = context;
  int64_t voxel = 0;
  for (int a = 0; a < 3; a++)
    if (a != d->normal) voxel = voxel * d->field.size[a] + index[a];
  elastic_rule(d->field.data + voxel * d->field.channels, d->magnitude, d->normal, index, at);
}

static status random_elastic_apply(host_call *call, const void *parameters) {
  const elastic_change *change = parameters;
  displacement d = {.normal = change->normal, .magnitude = change->magnitude};
  TRY(make_field(call, change, &d));
  status error = warp_case(call, displaced, &d, change->outside);
  volume_free(&d.field);
  return error;
}

static status random_elastic_host(host_call *call) {
  const random_elastic_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  double sigma = rng_range(&call->random, attrs->sigma[0], attrs->sigma[1]);
  double magnitude = rng_range(&call->random, attrs->magnitude[0], attrs->magnitude[1]);
  const elastic_change change = {.random = call->random,
                                 .smoothing = gaussian_of(sigma, false),
                                 .magnitude = (float)magnitude,
                                 .normal = plane_normal(attrs->plane),
                                 .outside = attrs->outside};
  return host_change(call, MOVES_VOXELS, &change, sizeof change);
}

const op op_random_elastic = {
    .name = "random_elastic",
    .family = "sample",
    .summary = "Displaces image and label by a smooth random field.",
    .doc =
        "The field is uniform noise in [−1, 1) for every voxel and axis, smoothed by a Gaussian\n"
        "(0 beyond the crop) and multiplied by the magnitude: displacements in voxels. The image\n"
        "is interpolated trilinearly, the label takes the nearest voxel. No affine describes\n"
        "such a map; the crop keeps the one it had. With two axes as plane, \"dummy 2-D\": one\n"
        "field for all slices, and no slice is mixed with another.\n"
        "MONAI calls the ranges sigma_range and magnitude_range, batchgenerators (nnU-Net)\n"
        "sigma and alpha.",
    .torch = "monai.transforms.Rand3DElastic(sigma_range=sigma, magnitude_range=magnitude,\n"
             "prob=probability)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_elastic_attr_list,
    .attrs_bytes = sizeof(random_elastic_attrs),
    .host = random_elastic_host,
    .apply = random_elastic_apply,
    .cases = (const op_case[]){{"{probability: 1, sigma: [2, 4], magnitude: [10, 50]}", NULL, 0},
                               {"{probability: 1, sigma: [2, 4], magnitude: [10, 50],"
                                " outside: edge}",
                                NULL, 0},
                               {"{probability: 1, sigma: [1, 2], magnitude: [5, 20],"
                                " plane: [x, z]}",
                                NULL, 0},
                               {0}},
    .host_infer = random_elastic_host_infer,
};
