/* random_bias_field: the slow change of brightness that the coils of an MR scanner leave (Sudre et al.,
 * "Longitudinal segmentation of age-related white matter hyperintensities", Medical Image Analysis
 * 2017), as MONAI's RandBiasField: the exponential of a random polynomial. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/sample/intensity.h"

#include <stdlib.h>

typedef struct random_bias_field_attrs {
  int64_t degree;
  double coefficients[2], probability;
} random_bias_field_attrs;

static const attr random_bias_field_attr_list[] = {
    {"degree", ATTR_INT, offsetof(random_bias_field_attrs, degree), "3", 1, BIAS_DEGREE_MAX, NULL,
     0, "of the polynomial"},
    {"coefficients", ATTR_RANGE, offsetof(random_bias_field_attrs, coefficients), "[0, 0.1]", -10,
     10, NULL, ATTR_SCHEDULABLE, "of the Legendre polynomials, each drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_bias_field_attrs, probability), "0.1", 0, 1, NULL,
     ATTR_SCHEDULABLE, "that the crop is changed at all"},
    {0},
};

static void multiply(volume *v, const bias_change *change, double (*p)[BIAS_POWERS]) {
  const double(*px)[BIAS_POWERS] = (const double(*)[BIAS_POWERS])p,
        (*py)[BIAS_POWERS] = px + v->size[0], (*pz)[BIAS_POWERS] = py + v->size[1];
  float *voxel = v->data;
  for (int64_t x = 0; x < v->size[0]; x++)
    for (int64_t y = 0; y < v->size[1]; y++) {
      double along[BIAS_POWERS];
      bias_along(change, px[x], py[y], along);
      for (int64_t z = 0; z < v->size[2]; z++) {
        float factor = bias_factor(change->degree, along, pz[z]);
        for (int64_t c = 0; c < v->channels; c++) *voxel++ *= factor;
      }
    }
}

static status random_bias_field_apply(host_call *call, const void *change) {
  TRY(host_own(call));
  volume *v = &call->c->image;
  size_t places = (size_t)(v->size[0] + v->size[1] + v->size[2]);
  double(*p)[BIAS_POWERS] = malloc(places * sizeof *p), (*next)[BIAS_POWERS] = p;
  if (!p) return error_out_of_memory(places * sizeof *p);
  for (int a = 0; a < 3; a++)
    for (int64_t i = 0; i < v->size[a]; i++) bias_legendre(i, v->size[a], *next++);
  multiply(v, change, p);
  free(p);
  return OK;
}

static status random_bias_field_host(host_call *call) {
  const random_bias_field_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  bias_change change = {.degree = (int)attrs->degree};
  for (int i = 0; i <= change.degree; i++)
    for (int j = 0; i + j <= change.degree; j++)
      for (int k = 0; i + j + k <= change.degree; k++)
        change.coefficient[i][j][k] =
            rng_range(&call->random, attrs->coefficients[0], attrs->coefficients[1]);
  return host_change(call, CHANGES_INTENSITIES, &change, sizeof change);
}

const op op_random_bias_field = {
    .name = "random_bias_field",
    .family = "sample",
    .summary = "Multiplies the image by a smooth random field, as the coils of an MR scanner do.",
    .doc =
        "v ↦ v · exp(Σ cᵢⱼₖ Pᵢ(x) Pⱼ(y) Pₖ(z)) over i + j + k ≤ degree, with Legendre polynomials\n"
        "P, x, y and z from −1 to 1 across the crop, and every c drawn on its own; one field for\n"
        "all channels. MONAI calls the range coeff_range.",
    .torch = "monai.transforms.RandBiasField(degree, coeff_range=coefficients, prob=probability)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_bias_field_attr_list,
    .attrs_bytes = sizeof(random_bias_field_attrs),
    .host = random_bias_field_host,
    .apply = random_bias_field_apply,
    .cases =
        (const op_case[]){{"{probability: 1}", NULL, 1e-5},
                          {"{probability: 1, degree: 5, coefficients: [-0.3, 0.3]}", NULL, 1e-5},
                          {0}},
};
