/* random_affine: rotation, scaling and shear about the middle of the crop, in millimetres, so that a
 * rotation stays one on anisotropic voxels. The grid's extent and spacing stay. To rotate without
 * corners from outside the crop, take a larger random_crop before and a centre_crop after. */
#include "graph/op.h"
#include "ops/sample/warp.h"

#include <math.h>
#include <string.h>

typedef struct random_affine_attrs {
  double rotation[3], zoom[2], shear, rotate_probability, zoom_probability, shear_probability;
  unsigned plane;
  int outside;
} random_affine_attrs;

static const attr random_affine_attr_list[] = {
    {"rotation", ATTR_FLOAT3, offsetof(random_affine_attrs, rotation), "0", 0, 180, NULL,
     ATTR_SCHEDULABLE, "largest angle about x, y and z in degrees, either way"},
    {"zoom", ATTR_RANGE, offsetof(random_affine_attrs, zoom), "[1, 1]", 0.1, 10, NULL,
     ATTR_SCHEDULABLE, "magnification, drawn from [low, high)"},
    {"shear", ATTR_FLOAT, offsetof(random_affine_attrs, shear), "0", 0, 0.5, NULL, ATTR_SCHEDULABLE,
     "largest shift of an axis per mm along another, either way, for each pair of axes"},
    {"rotate_probability", ATTR_FLOAT, offsetof(random_affine_attrs, rotate_probability), "0.2", 0,
     1, NULL, ATTR_SCHEDULABLE, "that the crop is rotated"},
    {"zoom_probability", ATTR_FLOAT, offsetof(random_affine_attrs, zoom_probability), "0.2", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is scaled"},
    {"shear_probability", ATTR_FLOAT, offsetof(random_affine_attrs, shear_probability), "0.2", 0, 1,
     NULL, ATTR_SCHEDULABLE, "that the crop is sheared"},
    {"plane", ATTR_AXES, offsetof(random_affine_attrs, plane), "[x, y, z]", 0, 0, NULL, 0,
     "two axes, as in [x, y]: slices are moved in their plane only, for anisotropic voxels"},
    {"outside", ATTR_CHOICE, offsetof(random_affine_attrs, outside), "zero", 0, 0, OUTSIDE_CHOICES,
     0, "beyond the crop: 0, or the value of the nearest voxel"},
    {0},
};

static status random_affine_host_infer(host_infer *shape) {
  const random_affine_attrs *attrs = shape->attrs;
  return plane_check(attrs->plane);
}

static void multiply(const double a[3][3], const double b[3][3], double out[3][3]) {
  double m[3][3] = {{0}};
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) m[r][c] += a[r][k] * b[k][c];
  memcpy(out, m, sizeof m);
}

static void draw_rotation(host_call *call, int normal, bool rotates, double m[3][3]) {
  const random_affine_attrs *attrs = call->attrs;
  for (int a = 0; a < 3; a++) {
    double angle = rng_range(&call->random, -attrs->rotation[a], attrs->rotation[a]);
    double c = cos(angle * 0.017453292519943295), s = sin(angle * 0.017453292519943295);
    double about[3][3] = {{0}};
    int u = (a + 1) % 3, v = (a + 2) % 3;
    about[a][a] = 1;
    about[u][u] = about[v][v] = c;
    about[u][v] = -s;
    about[v][u] = s;
    if (rotates && (normal < 0 || a == normal))
      multiply((const double(*)[3])about, (const double(*)[3])m, m);
  }
}

static void draw_shear(host_call *call, int normal, bool shears, double m[3][3]) {
  const random_affine_attrs *attrs = call->attrs;
  double slant[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++) {
      if (r == c) continue;
      double factor = rng_range(&call->random, -attrs->shear, attrs->shear);
      if (r != normal && c != normal) slant[r][c] = factor;
    }
  if (shears) multiply((const double(*)[3])slant, (const double(*)[3])m, m);
}

/* Returns false when nothing changes. */
static bool draw_turn(host_call *call, turn_change *t) {
  const random_affine_attrs *attrs = call->attrs;
  double mm[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, spacing[3];
  int normal = plane_normal(attrs->plane);
  bool rotates = host_happens(call, attrs->rotate_probability);
  draw_rotation(call, normal, rotates, mm);
  double zoom = rng_range(&call->random, attrs->zoom[0], attrs->zoom[1]);
  bool zooms = host_happens(call, attrs->zoom_probability);
  bool shears = host_happens(call, attrs->shear_probability) && attrs->shear > 0;
  draw_shear(call, normal, shears, mm);
  affine_spacing((const double(*)[4])call->c->image.affine, spacing);
  for (int r = 0; r < 3; r++) {
    t->middle[r] = (double)(call->c->image.size[r] - 1) / 2;
    for (int c = 0; c < 3; c++) {
      double scale = zooms && r != normal ? zoom : 1;
      t->m[r][c] = mm[r][c] * spacing[c] / spacing[r] / scale;
    }
  }
  return rotates || zooms || shears;
}

static void turned(const void *context, const int64_t index[3], double at[3]) {
  turn_rule(context, index, at);
}

static status random_affine_apply(host_call *call, const void *parameters) {
  const turn_change *t = parameters;
  return warp_case(call, turned, t, t->outside);
}

static status random_affine_host(host_call *call) {
  const random_affine_attrs *attrs = call->attrs;
  turn_change t = {.outside = attrs->outside};
  if (!draw_turn(call, &t)) return OK;
  const double(*old)[4] = (const double(*)[4])call->c->image.affine;
  double affine[4][4] = {{0}};
  for (int r = 0; r < 3; r++) {
    affine[r][3] = old[r][3];
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) affine[r][c] += old[r][k] * t.m[k][c];
    for (int k = 0; k < 3; k++) affine[r][3] += (old[r][k] - affine[r][k]) * t.middle[k];
  }
  affine[3][3] = 1;
  TRY(host_change(call, MOVES_VOXELS, &t, sizeof t));
  memcpy(call->c->image.affine, affine, sizeof affine);
  memcpy(call->c->label.affine, affine, sizeof affine);
  return OK;
}

const op op_random_affine = {
    .name = "random_affine",
    .family = "sample",
    .summary = "Rotates, scales and shears image and label about the middle of the crop.",
    .doc =
        "Rotations about x, then y, then z, and a shear whose six coefficients are drawn each on\n"
        "its own, in millimetres; the image is interpolated trilinearly, the label takes the\n"
        "nearest voxel. With two axes as plane it is nnU-Net's \"dummy 2-D\": every slice is\n"
        "moved in its plane, all in the same way, and no slice is mixed with another.\n"
        "MONAI calls the ranges rotate_range (radians), scale_range (−0.3 is a zoom of 1 / 0.7)\n"
        "and shear_range; nnU-Net p_rotation, p_scaling and scaling (0.7 is a zoom of 1 / 0.7).",
    .torch = "monai.transforms.RandAffine(rotate_range=radians(rotation), scale_range=zoom,\n"
             "shear_range=shear)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_affine_attr_list,
    .attrs_bytes = sizeof(random_affine_attrs),
    .host = random_affine_host,
    .apply = random_affine_apply,
    .cases = (const op_case[]){{"{rotation: 180, rotate_probability: 1}", NULL, 0},
                               {"{rotation: [0, 0, 30], zoom: [0.7, 1.4], shear: 0.2,"
                                " rotate_probability: 1, zoom_probability: 1,"
                                " shear_probability: 1, outside: edge}",
                                NULL, 0},
                               {"{rotation: 90, plane: [x, y], rotate_probability: 1}", NULL, 0},
                               {0}},
    .host_infer = random_affine_host_infer,
};
