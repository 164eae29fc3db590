/* resample: every case to one voxel spacing.
 *
 * The grid is MONAI's Spacing: the first voxel stays where it is, voxel i of the new grid lies at
 * i · new / old of the old one, and an axis of n voxels gets round((n − 1) · old / new + 1). Behind
 * the last old voxel its value continues. Interpolation is done one axis after the other, which for
 * (tri)linear weights equals doing it at once. */
#include "data/host.h"
#include "graph/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct resample_attrs {
  double spacing_mm[3];
  int image;
} resample_attrs;

enum { IMAGE_LINEAR, IMAGE_NEAREST };

static const attr resample_attr_list[] = {
    {"spacing", ATTR_FLOAT3, offsetof(resample_attrs, spacing_mm), NULL, 0, 100, NULL, 0,
     "new distance between voxel centres along x, y, z in mm; 0 keeps the case's own"},
    {"image", ATTR_CHOICE, offsetof(resample_attrs, image), "linear", 0, 0,
     (const char *const[]){"linear", "nearest", NULL}, 0,
     "interpolation of the image; labels always take the nearest voxel"},
    {0},
};

static status resample_host_infer(host_infer *shape) {
  for (int a = 0; a < 3; a++) shape->size[a] = -1;
  return OK;
}

/* Where output index i reads on an axis of n voxels: between `at` and `at` + 1 (as far as there is
 * one), with `weight` for the second. */
typedef struct tap {
  int64_t at;
  float weight;
} tap;

static tap *taps_of(int64_t n, int64_t out, double step, bool nearest) {
  tap *taps = malloc((size_t)out * sizeof *taps);
  for (int64_t i = 0; taps && i < out; i++) {
    double x = (double)i * step;
    if (x > (double)(n - 1)) x = (double)(n - 1);
    if (nearest) x = rint(x);
    taps[i].at = (int64_t)floor(x);
    taps[i].weight = (float)(x - floor(x));
  }
  return taps;
}

/* One axis of a grid seen as (before, n, after): lines of `after` values, n of them. */
static void resample_lines(const float *in, int64_t before, int64_t n, int64_t after,
                           const tap *taps, int64_t out_n, float *out) {
  for (int64_t b = 0; b < before; b++)
    for (int64_t i = 0; i < out_n; i++) {
      const float *first = in + (b * n + taps[i].at) * after;
      const float *second = taps[i].weight > 0 ? first + after : first;
      float *to = out + (b * out_n + i) * after;
      float w = taps[i].weight;
      if (w == 0)
        memcpy(to, first, (size_t)after * sizeof *to);
      else
        for (int64_t k = 0; k < after; k++) to[k] = first[k] + w * (second[k] - first[k]);
    }
}

static status resample_image(const volume *in, const int64_t size[3], const double step[3],
                             bool nearest, volume *out) {
  volume now = *in; /* a view until the first axis has been resampled */
  for (int a = 0; a < 3; a++) {
    if (step[a] == 1) continue;
    int64_t next_size[3] = {now.size[0], now.size[1], now.size[2]};
    next_size[a] = size[a];
    volume next = {0};
    tap *taps = taps_of(now.size[a], size[a], step[a], nearest);
    status error = taps ? volume_allocate(&next, next_size, in->channels)
                        : error_out_of_memory((size_t)size[a] * sizeof *taps);
    if (!error) {
      int64_t before = 1, after = in->channels;
      for (int b = 0; b < a; b++) before *= now.size[b];
      for (int b = a + 1; b < 3; b++) after *= now.size[b];
      resample_lines(now.data, before, now.size[a], after, taps, size[a], next.data);
    }
    free(taps);
    if (now.data != in->data) volume_free(&now);
    if (error) return error;
    now = next;
  }
  *out = now;
  return OK;
}

static status resample_label(const labels *in, const int64_t size[3], const double step[3],
                             labels *out) {
  tap *taps[3] = {0};
  bool room = true;
  for (int a = 0; a < 3; a++) {
    taps[a] = taps_of(in->size[a], size[a], step[a], true);
    room = room && taps[a];
  }
  status error = room ? labels_allocate(out, size) : error_out_of_memory(sizeof(tap));
  for (int64_t x = 0; x < size[0] && !error; x++)
    for (int64_t y = 0; y < size[1]; y++) {
      const int32_t *from = in->data + (taps[0][x].at * in->size[1] + taps[1][y].at) * in->size[2];
      int32_t *to = out->data + (x * size[1] + y) * size[2];
      for (int64_t z = 0; z < size[2]; z++) to[z] = from[taps[2][z].at];
    }
  for (int a = 0; a < 3; a++) free(taps[a]);
  return error;
}

static status resample_host(host_call *call) {
  enum { AXIS_MAX = 1 << 20 };
  const resample_attrs *attrs = call->attrs;
  const volume *in = &call->c->image;
  double old_mm[3], step[3], affine[4][4];
  int64_t size[3];
  bool same = true;
  affine_spacing(in->affine, old_mm);
  memcpy(affine, in->affine, sizeof affine);
  for (int a = 0; a < 3; a++) {
    double new_mm = attrs->spacing_mm[a];
    step[a] = new_mm / old_mm[a];
    size[a] = in->size[a];
    /* Headers keep spacings as f32: a difference of that order is none. */
    if (new_mm == 0 || fabs(step[a] - 1) < 1e-5) {
      step[a] = 1;
      continue;
    }
    double extent = rint((double)(in->size[a] - 1) / step[a] + 1);
    if (!(extent <= AXIS_MAX))
      return error_new(ERROR_DATA, NOWHERE,
                       "a spacing of %g mm would make %.3g voxels of %lld along %c, whose spacing "
                       "is %g mm",
                       new_mm, extent, (long long)in->size[a], "xyz"[a], old_mm[a]);
    same = false;
    size[a] = (int64_t)extent;
    for (int r = 0; r < 3; r++) affine[r][a] *= step[a];
  }
  if (same) return OK;
  volume image = {0};
  labels label = {0};
  TRY(resample_image(in, size, step, attrs->image == IMAGE_NEAREST, &image));
  if (call->c->label.data) {
    status error = resample_label(&call->c->label, size, step, &label);
    if (error) {
      volume_free(&image);
      return error;
    }
  }
  memcpy(image.affine, affine, sizeof affine);
  memcpy(label.affine, affine, sizeof affine);
  host_replace(call, &image, &label);
  return OK;
}

const op op_resample = {
    .name = "resample",
    .family = "prepare",
    .summary = "Brings the case to a voxel spacing in mm: image linear, label nearest.",
    .doc = "The first voxel stays in place; an axis of n voxels becomes\n"
           "round((n − 1) · old / new + 1). The image is interpolated trilinearly and continues\n"
           "with its edge value; the label takes the nearest voxel. No smoothing beforehand.",
    .torch = "monai.transforms.Spacing(spacing, mode='bilinear', padding_mode='border')",
    .version = 1,
    .traits = OP_PREPARE,
    .attrs = resample_attr_list,
    .attrs_bytes = sizeof(resample_attrs),
    .host = resample_host,
    .host_infer = resample_host_infer,
};
