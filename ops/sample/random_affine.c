/* random_affine: rotation and scaling about the middle of the crop, in millimetres, so that a
 * rotation stays one on anisotropic voxels. The grid's extent and spacing stay; what comes from
 * outside the crop is 0. To rotate without such corners, take a larger random_crop before and a
 * centre_crop after. */
#include "data/host.h"
#include "graph/op.h"

#include <math.h>
#include <string.h>

typedef struct random_affine_attrs {
  double rotation[3], zoom[2], rotate_probability, zoom_probability;
} random_affine_attrs;

static const attr random_affine_attr_list[] = {
    {"rotation", ATTR_FLOAT3, offsetof(random_affine_attrs, rotation), "0", 0, 180, NULL, 0,
     "largest angle about x, y and z in degrees, either way"},
    {"zoom", ATTR_RANGE, offsetof(random_affine_attrs, zoom), "[1, 1]", 0.1, 10, NULL, 0,
     "magnification, drawn from [low, high)"},
    {"rotate_probability", ATTR_FLOAT, offsetof(random_affine_attrs, rotate_probability), "0.2", 0,
     1, NULL, 0, "that the crop is rotated"},
    {"zoom_probability", ATTR_FLOAT, offsetof(random_affine_attrs, zoom_probability), "0.2", 0, 1,
     NULL, 0, "that the crop is scaled"},
    {0},
};

static void multiply(const double a[3][3], const double b[3][3], double out[3][3]) {
  double m[3][3] = {{0}};
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) m[r][c] += a[r][k] * b[k][c];
  memcpy(out, m, sizeof m);
}

/* Output voxel → input voxel: middle + m · (index − middle). Returns false when nothing changes. */
static bool draw_map(host_call *call, double m[3][3]) {
  const random_affine_attrs *attrs = call->attrs;
  double turn[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, spacing[3], zoom = 1;
  bool rotates = host_happens(call, attrs->rotate_probability);
  for (int a = 0; a < 3; a++) {
    double angle = rng_range(&call->random, -attrs->rotation[a], attrs->rotation[a]);
    double c = cos(angle * 0.017453292519943295), s = sin(angle * 0.017453292519943295);
    double about[3][3] = {{0}};
    int u = (a + 1) % 3, v = (a + 2) % 3;
    about[a][a] = 1;
    about[u][u] = about[v][v] = c;
    about[u][v] = -s;
    about[v][u] = s;
    if (rotates) multiply((const double(*)[3])about, (const double(*)[3])turn, turn);
  }
  double drawn = rng_range(&call->random, attrs->zoom[0], attrs->zoom[1]);
  bool zooms = host_happens(call, attrs->zoom_probability);
  if (zooms) zoom = drawn;
  affine_spacing((const double(*)[4])call->c->image.affine, spacing);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++) m[r][c] = turn[r][c] * spacing[c] / spacing[r] / zoom;
  return rotates || zooms;
}

/* Trilinear, 0 outside. */
static void read_image(const volume *in, const double at[3], float *out) {
  const int64_t stride[3] = {in->size[1] * in->size[2] * in->channels, in->size[2] * in->channels,
                             in->channels};
  int64_t low[3];
  float weight[3][2];
  for (int a = 0; a < 3; a++) {
    double whole = floor(at[a]);
    low[a] = (int64_t)whole;
    weight[a][1] = (float)(at[a] - whole);
    weight[a][0] = 1 - weight[a][1];
  }
  for (int64_t c = 0; c < in->channels; c++) out[c] = 0;
  for (int corner = 0; corner < 8; corner++) {
    float w = 1;
    int64_t from = 0;
    bool within = true;
    for (int a = 0; a < 3; a++) {
      int64_t i = low[a] + (corner >> a & 1);
      within = within && i >= 0 && i < in->size[a];
      w *= weight[a][corner >> a & 1];
      from += i * stride[a];
    }
    for (int64_t c = 0; c < in->channels && within; c++) out[c] += w * in->data[from + c];
  }
}

static int32_t read_label(const labels *in, const double at[3]) {
  int64_t index = 0;
  for (int a = 0; a < 3; a++) {
    double i = rint(at[a]);
    if (!(i >= 0 && i < (double)in->size[a])) return 0;
    index = index * in->size[a] + (int64_t)i;
  }
  return in->data[index];
}

static status random_affine_host(host_call *call) {
  double m[3][3], middle[3];
  if (!draw_map(call, m)) return OK;
  const volume *in = &call->c->image;
  const labels *in_label = &call->c->label;
  volume out = {0};
  labels out_label = {0};
  TRY(volume_allocate(&out, in->size, in->channels));
  if (in_label->data) {
    status error = labels_allocate(&out_label, in->size);
    if (error) {
      volume_free(&out);
      return error;
    }
  }
  for (int a = 0; a < 3; a++) middle[a] = (double)(in->size[a] - 1) / 2;
  int64_t voxel = 0;
  for (int64_t x = 0; x < in->size[0]; x++)
    for (int64_t y = 0; y < in->size[1]; y++)
      for (int64_t z = 0; z < in->size[2]; z++, voxel++) {
        double from[3] = {(double)x - middle[0], (double)y - middle[1], (double)z - middle[2]};
        double at[3];
        for (int r = 0; r < 3; r++)
          at[r] = middle[r] + m[r][0] * from[0] + m[r][1] * from[1] + m[r][2] * from[2];
        read_image(in, at, out.data + voxel * in->channels);
        if (in_label->data) out_label.data[voxel] = read_label(in_label, at);
      }
  for (int r = 0; r < 3; r++) {
    out.affine[r][3] = in->affine[r][3];
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) out.affine[r][c] += in->affine[r][k] * m[k][c];
    for (int k = 0; k < 3; k++)
      out.affine[r][3] += (in->affine[r][k] - out.affine[r][k]) * middle[k];
  }
  out.affine[3][3] = 1;
  memcpy(out_label.affine, out.affine, sizeof out.affine);
  host_replace(call, &out, &out_label);
  return OK;
}

const op op_random_affine = {
    .name = "random_affine",
    .family = "sample",
    .summary = "Rotates and scales image and label about the middle of the crop.",
    .doc = "Rotations about x, then y, then z, in millimetres; the image is interpolated\n"
           "trilinearly, the label takes the nearest voxel; outside the crop both are 0.",
    .torch = "monai.transforms.RandAffine(rotate_range=radians(rotation), scale_range=zoom)",
    .version = 1,
    .traits = OP_SAMPLE,
    .attrs = random_affine_attr_list,
    .attrs_bytes = sizeof(random_affine_attrs),
    .host = random_affine_host,
};
