/* random_bias_field: the slow change of brightness that the coils of an MR scanner leave (Sudre et al.,
 * "Longitudinal segmentation of age-related white matter hyperintensities", Medical Image Analysis
 * 2017), as MONAI's RandBiasField: the exponential of a random polynomial. */
#include "data/host.h"
#include "graph/op.h"

#include <math.h>
#include <stdlib.h>

typedef struct random_bias_field_attrs {
  int64_t degree;
  double coefficients[2], probability;
} random_bias_field_attrs;

enum { DEGREE_MAX = 5, POWERS = DEGREE_MAX + 1 };

static const attr random_bias_field_attr_list[] = {
    {"degree", ATTR_INT, offsetof(random_bias_field_attrs, degree), "3", 1, DEGREE_MAX, NULL, 0,
     "of the polynomial"},
    {"coefficients", ATTR_RANGE, offsetof(random_bias_field_attrs, coefficients), "[0, 0.1]", -10,
     10, NULL, 0, "of the Legendre polynomials, each drawn from [low, high)"},
    {"probability", ATTR_FLOAT, offsetof(random_bias_field_attrs, probability), "0.1", 0, 1, NULL,
     0, "that the crop is changed at all"},
    {0},
};

/* Legendre polynomials P0 … at n places spread evenly over [−1, 1]: n rows of POWERS. */
static void legendre(int64_t n, double (*p)[POWERS]) {
  for (int64_t i = 0; i < n; i++) {
    double x = n > 1 ? -1 + 2 * (double)i / (double)(n - 1) : -1;
    p[i][0] = 1;
    p[i][1] = x;
    for (int k = 1; k + 1 < POWERS; k++)
      p[i][k + 1] = ((2 * k + 1) * x * p[i][k] - k * p[i][k - 1]) / (k + 1);
  }
}

static void multiply(volume *v, int degree, const double coefficient[POWERS][POWERS][POWERS],
                     double (*p)[POWERS]) {
  const double(*px)[POWERS] = (const double(*)[POWERS])p, (*py)[POWERS] = px + v->size[0],
        (*pz)[POWERS] = py + v->size[1];
  float *voxel = v->data;
  for (int64_t x = 0; x < v->size[0]; x++)
    for (int64_t y = 0; y < v->size[1]; y++) {
      double along[POWERS] = {0}; /* the polynomial of this line, in z alone */
      for (int i = 0; i <= degree; i++)
        for (int j = 0; i + j <= degree; j++)
          for (int k = 0; i + j + k <= degree; k++)
            along[k] += coefficient[i][j][k] * px[x][i] * py[y][j];
      for (int64_t z = 0; z < v->size[2]; z++) {
        double sum = 0;
        for (int k = 0; k <= degree; k++) sum += along[k] * pz[z][k];
        float factor = expf((float)sum);
        for (int64_t c = 0; c < v->channels; c++) *voxel++ *= factor;
      }
    }
}

static status random_bias_field_host(host_call *call) {
  const random_bias_field_attrs *attrs = call->attrs;
  if (!host_happens(call, attrs->probability)) return OK;
  int degree = (int)attrs->degree;
  double coefficient[POWERS][POWERS][POWERS];
  for (int i = 0; i <= degree; i++)
    for (int j = 0; i + j <= degree; j++)
      for (int k = 0; i + j + k <= degree; k++)
        coefficient[i][j][k] =
            rng_range(&call->random, attrs->coefficients[0], attrs->coefficients[1]);
  TRY(host_own(call));
  volume *v = &call->c->image;
  size_t places = (size_t)(v->size[0] + v->size[1] + v->size[2]);
  double(*p)[POWERS] = malloc(places * sizeof *p);
  if (!p) return error_out_of_memory(places * sizeof *p);
  legendre(v->size[0], p);
  legendre(v->size[1], p + v->size[0]);
  legendre(v->size[2], p + v->size[0] + v->size[1]);
  multiply(v, degree, (const double(*)[POWERS][POWERS])coefficient, p);
  free(p);
  return OK;
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
};
