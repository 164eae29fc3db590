/* resample: every case to one voxel spacing.
 *
 * Where the new grid lies is either MONAI's or nnU-Net's choice:
 *   first_voxel  the first voxel stays where it is, voxel i lies at i · new / old of the old grid, and
 *                an axis of n voxels gets round((n − 1) · old / new + 1) (MONAI's Spacing)
 *   extent       the volume keeps its edges: an axis of n voxels gets m = round(n · old / new), whose
 *                voxel i lies at (i + ½) · n / m − ½ (nnU-Net, by way of skimage.transform.resize)
 * Behind the last old voxel its value continues. Interpolation is done one axis after the other,
 * which for linear and B-spline weights equals doing it at once. */
#include "data/host.h"
#include "graph/op.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/cubic_spline.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct resample_attrs {
  double spacing_mm[3];
  int image, label, grid, separate_axis;
  double separate_above;
} resample_attrs;

enum { ORDER_LINEAR, ORDER_NEAREST, ORDER_CUBIC };
enum { LABEL_NEAREST, LABEL_LINEAR };
enum { GRID_FIRST_VOXEL, GRID_EXTENT };
enum { SEPARATE_NONE, SEPARATE_AUTO, SEPARATE_X, SEPARATE_Y, SEPARATE_Z };

static const attr resample_attr_list[] = {
    {"spacing", ATTR_FLOAT3, offsetof(resample_attrs, spacing_mm), NULL, 0, 100, NULL, 0,
     "new distance between voxel centres along x, y, z in mm; 0 keeps the case's own"},
    {"image", ATTR_CHOICE, offsetof(resample_attrs, image), "linear", 0, 0,
     (const char *const[]){"linear", "nearest", "cubic", NULL}, 0,
     "interpolation of the image; cubic: B-splines of order 3"},
    {"label", ATTR_CHOICE, offsetof(resample_attrs, label), "nearest", 0, 0,
     (const char *const[]){"nearest", "linear", NULL}, 0,
     "nearest voxel, or every class's mask interpolated linearly and the largest taken"},
    {"grid", ATTR_CHOICE, offsetof(resample_attrs, grid), "first_voxel", 0, 0,
     (const char *const[]){"first_voxel", "extent", NULL}, 0,
     "what stays in place: the first voxel's centre (MONAI) or the volume's edges (nnU-Net)"},
    {"separate_axis", ATTR_CHOICE, offsetof(resample_attrs, separate_axis), "none", 0, 0,
     (const char *const[]){"none", "auto", "x", "y", "z", NULL}, 0,
     "coarse axis along which image and label take the nearest slice; auto: as nnU-Net decides"},
    {"separate_above", ATTR_FLOAT, offsetof(resample_attrs, separate_above), "3", 1, 1000, NULL, 0,
     "auto: an axis is coarse whose spacing is more than this many times the finest"},
    {0},
};

/* The new grid of a case, and how each axis is interpolated. */
typedef struct plan {
  int64_t size[3];
  bool moved[3];
  double step[3];
  bool edges[3]; /* new voxel i lies at (i + ½) · step − ½ of the old axis; otherwise at i · step */
  int separate; /* the axis along which the nearest slice is taken; −1: none */
} plan;

/* Where output index i reads on an axis of n voxels: at `first`, and as far as there is a next voxel
 * at `second`, with `weight` for the latter. */
typedef struct taps {
  int32_t *first, *second;
  float *weight;
} taps;

static double place(const plan *p, int a, int64_t i) {
  return p->edges[a] ? ((double)i + 0.5) * p->step[a] - 0.5 : (double)i * p->step[a];
}

/* Halfway between two voxels MONAI takes the even one (torch's grid_sample), nnU-Net the later (SciPy's
 * map_coordinates): with half as many voxels as before every place of an axis is such a one. */
static double nearest_voxel(const plan *p, int a, double x) {
  return p->edges[a] ? floor(x + 0.5) : rint(x);
}

static void taps_free(taps *t) {
  free(t->first);
  free(t->second);
  free(t->weight);
}

static status taps_of(const plan *p, int a, int64_t n, bool nearest, taps *t) {
  size_t count = (size_t)p->size[a];
  *t = (taps){.first = malloc(count * sizeof *t->first),
              .second = malloc(count * sizeof *t->second),
              .weight = malloc(count * sizeof *t->weight)};
  if (!t->first || !t->second || !t->weight)
    return error_out_of_memory(count * (2 * sizeof *t->first + sizeof *t->weight));
  for (int64_t i = 0; i < p->size[a]; i++) {
    double x = place(p, a, i);
    x = x < 0 ? 0 : x > (double)(n - 1) ? (double)(n - 1) : x;
    if (nearest) x = nearest_voxel(p, a, x);
    t->first[i] = (int32_t)floor(x);
    t->weight[i] = (float)(x - floor(x));
    t->second[i] = t->first[i] + (t->weight[i] > 0);
  }
  return OK;
}

/* Of the three axes; to be freed whatever comes back. */
static status taps_of_grid(const plan *p, const int64_t size[3], bool nearest, taps t[3]) {
  memset(t, 0, 3 * sizeof *t);
  for (int a = 0; a < 3; a++) TRY(taps_of(p, a, size[a], nearest || a == p->separate, &t[a]));
  return OK;
}

FOR_EACH_ISA static void blend(const float *restrict first, const float *restrict second,
                               float weight, int64_t n, float *restrict out) {
  for (int64_t k = 0; k < n; k++) out[k] = first[k] + weight * (second[k] - first[k]);
}

/* What output index i of an axis reads, lines of `length` values being one voxel apart along it: one
 * of them, or two blended at `room`. */
static const float *line_at(const float *in, const taps *t, int64_t i, int64_t length,
                            float *room) {
  const float *first = in + t->first[i] * length;
  if (t->weight[i] == 0) return first;
  blend(first, in + t->second[i] * length, t->weight[i], length, room);
  return room;
}

/* A line along z, `channels` values a voxel. */
FOR_EACH_ISA static void blend_within(const float *restrict line, const taps *t, int64_t n,
                                      int64_t channels, float *restrict out) {
  const int32_t *first = t->first, *second = t->second;
  const float *weight = t->weight;
  if (channels == 1) {
    for (int64_t i = 0; i < n; i++) {
      float a = line[first[i]], b = line[second[i]];
      out[i] = a + weight[i] * (b - a);
    }
    return;
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < channels; c++) {
      float a = line[first[i] * channels + c], b = line[second[i] * channels + c];
      out[i * channels + c] = a + weight[i] * (b - a);
    }
}

/* Linear or nearest. A plane at a time: x blends two planes, y two lines of the result, z within
 * that line. What is blended stays in the cache, and nothing of the size of a volume stands between
 * input and output. */
static status blend_image(const volume *in, const plan *p, bool nearest, volume *out) {
  const int64_t line = in->size[2] * in->channels, plane = in->size[1] * line;
  size_t room_bytes = (size_t)(plane + line) * sizeof(float);
  float *room = malloc(room_bytes);
  taps t[3];
  status error = taps_of_grid(p, in->size, nearest, t);
  if (!error && !room) error = error_out_of_memory(room_bytes);
  if (!error) error = volume_allocate(out, p->size, in->channels);
  for (int64_t x = 0; x < p->size[0] && !error; x++) {
    const float *at_x = line_at(in->data, &t[0], x, plane, room);
    for (int64_t y = 0; y < p->size[1]; y++) {
      const float *at_y = line_at(at_x, &t[1], y, line, room + plane);
      float *to = out->data + (x * p->size[1] + y) * p->size[2] * in->channels;
      blend_within(at_y, &t[2], p->size[2], in->channels, to);
    }
  }
  for (int a = 0; a < 3; a++) taps_free(&t[a]);
  free(room);
  return error;
}

/* One axis of a grid seen as (before, n, after), n lines of `after` values: by splines, or, along the
 * separate one, the nearest line. */
static status resample_axis(const volume *in, const plan *p, int a, volume *out) {
  int64_t n = in->size[a], m = p->size[a], before = 1, after = in->channels;
  for (int b = 0; b < a; b++) before *= in->size[b];
  for (int b = a + 1; b < 3; b++) after *= in->size[b];
  if (a == p->separate) {
    taps t;
    status error = taps_of(p, a, n, true, &t);
    for (int64_t i = 0; i < before * m && !error; i++)
      memcpy(out->data + i * after, in->data + (i / m * n + t.first[i % m]) * after,
             (size_t)after * sizeof(float));
    taps_free(&t);
    return error;
  }
  double *at = malloc((size_t)m * sizeof *at);
  if (!at) return error_out_of_memory((size_t)m * sizeof *at);
  for (int64_t i = 0; i < m; i++) at[i] = place(p, a, i);
  status error = cubic_spline_lines(in->data, before, n, after, at, m, out->data);
  free(at);
  return error;
}

/* Splines overshoot at edges; `v` is cut to the range of intensities of `in`, channel by channel,
 * and with a separate axis slice by slice, so that air never becomes thinner than air. */
static status cut_overshoot(const volume *in, int separate, volume *v) {
  const int64_t slices = separate >= 0 ? in->size[separate] : 1, C = in->channels;
  float *low = malloc((size_t)(2 * slices * C) * sizeof *low), *high = low + slices * C;
  if (!low) return error_out_of_memory((size_t)(2 * slices * C) * sizeof *low);
  for (int64_t k = 0; k < slices * C; k++) {
    low[k] = FLT_MAX;
    high[k] = -FLT_MAX;
  }
  for (int pass = 0; pass < 2; pass++) {
    const volume *over = pass == 0 ? in : v;
    float *value = over->data;
    int64_t at[3];
    for (at[0] = 0; at[0] < over->size[0]; at[0]++)
      for (at[1] = 0; at[1] < over->size[1]; at[1]++)
        for (at[2] = 0; at[2] < over->size[2]; at[2]++)
          for (int64_t c = 0; c < C; c++, value++) {
            int64_t k = (separate >= 0 ? at[separate] : 0) * C + c;
            if (pass == 0) {
              low[k] = *value < low[k] ? *value : low[k];
              high[k] = *value > high[k] ? *value : high[k];
            } else {
              *value = *value < low[k] ? low[k] : *value > high[k] ? high[k] : *value;
            }
          }
  }
  free(low);
  return OK;
}

/* The separate axis comes last, after what the others gave has been cut. */
static status spline_image(const volume *in, const plan *p, volume *out) {
  volume now = *in; /* a view until the first axis has been resampled */
  int axes[3] = {0, 1, 2};
  if (p->separate >= 0) {
    axes[p->separate] = 2;
    axes[2] = p->separate;
  }
  bool overshoots = false;
  for (int k = 0; k < 3; k++) {
    int a = axes[k];
    bool last = k == 2, nearest = a == p->separate;
    volume next = {0};
    status error = OK;
    if (p->moved[a]) {
      int64_t size[3] = {now.size[0], now.size[1], now.size[2]};
      size[a] = p->size[a];
      if (last && nearest && overshoots) error = cut_overshoot(in, p->separate, &now);
      if (last && nearest) overshoots = false;
      if (!error) error = volume_allocate(&next, size, in->channels);
      if (!error) error = resample_axis(&now, p, a, &next);
      overshoots = overshoots || !nearest;
      if (now.data != in->data) volume_free(&now);
      now = next;
    }
    if (!error && last && overshoots) error = cut_overshoot(in, p->separate, &now);
    if (error) {
      if (now.data != in->data) volume_free(&now);
      return error;
    }
  }
  *out = now;
  return OK;
}

/* The class with the largest share of the up to eight voxels around; of equals the smaller. */
static uint8_t vote(const labels *in, const taps t[3], const int64_t at[3]) {
  uint8_t class_of[8], best = 0;
  float share[8], most = 0;
  int found = 0;
  for (int corner = 0; corner < 8; corner++) {
    float weight = 1;
    int64_t index = 0;
    for (int a = 0; a < 3; a++) {
      bool second = corner >> a & 1;
      float w = t[a].weight[at[a]];
      weight *= second ? w : 1 - w;
      index = index * in->size[a] + (second ? t[a].second : t[a].first)[at[a]];
    }
    if (weight == 0) continue;
    int k = 0;
    while (k < found && class_of[k] != in->data[index]) k++;
    if (k == found) {
      class_of[found] = in->data[index];
      share[found++] = 0;
    }
    share[k] += weight;
  }
  for (int k = 0; k < found; k++)
    if (share[k] > most || (share[k] == most && class_of[k] < best)) {
      most = share[k];
      best = class_of[k];
    }
  return best;
}

FOR_EACH_ISA static void pick(const uint8_t *restrict line, const int32_t *restrict at, int64_t n,
                              uint8_t *restrict out) {
  for (int64_t i = 0; i < n; i++) out[i] = line[at[i]];
}

static status resample_label(const labels *in, const plan *p, bool nearest, labels *out) {
  taps t[3];
  status error = taps_of_grid(p, in->size, nearest, t);
  if (!error) error = labels_allocate(out, p->size);
  int64_t at[3];
  for (at[0] = 0; at[0] < p->size[0] && !error; at[0]++)
    for (at[1] = 0; at[1] < p->size[1]; at[1]++) {
      int64_t from = ((int64_t)t[0].first[at[0]] * in->size[1] + t[1].first[at[1]]) * in->size[2];
      uint8_t *to = out->data + (at[0] * p->size[1] + at[1]) * p->size[2];
      if (nearest)
        pick(in->data + from, t[2].first, p->size[2], to);
      else
        for (at[2] = 0; at[2] < p->size[2]; at[2]++) to[at[2]] = vote(in, t, at);
    }
  for (int a = 0; a < 3; a++) taps_free(&t[a]);
  return error;
}

static int separate_axis(const resample_attrs *attrs, const double old_mm[3],
                         const double new_mm[3]) {
  if (attrs->separate_axis != SEPARATE_AUTO)
    return attrs->separate_axis == SEPARATE_NONE ? -1 : attrs->separate_axis - SEPARATE_X;
  return grid_coarse_axis(old_mm, new_mm, attrs->separate_above);
}

static status make_plan(const resample_attrs *attrs, const volume *in, plan *p) {
  enum { AXIS_MAX = 1 << 20 };
  double old_mm[3], new_mm[3];
  affine_spacing(in->affine, old_mm);
  for (int a = 0; a < 3; a++) {
    int64_t n = in->size[a];
    new_mm[a] = attrs->spacing_mm[a] == 0 ? old_mm[a] : attrs->spacing_mm[a];
    p->step[a] = new_mm[a] / old_mm[a];
    p->edges[a] = false;
    p->size[a] = n;
    /* Headers keep spacings as f32: a difference of that order is none. */
    p->moved[a] = !(fabs(p->step[a] - 1) < 1e-5);
    if (!p->moved[a]) {
      p->step[a] = 1;
      continue;
    }
    p->edges[a] = attrs->grid == GRID_EXTENT;
    double voxels = rint(p->edges[a] ? (double)n / p->step[a] : (double)(n - 1) / p->step[a] + 1);
    if (!(voxels <= AXIS_MAX))
      return error_new(ERROR_DATA, NOWHERE,
                       "a spacing of %g mm would make %.3g voxels of %lld along %c, whose spacing "
                       "is %g mm",
                       new_mm[a], voxels, (long long)n, "xyz"[a], old_mm[a]);
    p->size[a] = voxels < 1 ? 1 : (int64_t)voxels;
    if (p->edges[a]) p->step[a] = (double)n / (double)p->size[a];
  }
  p->separate = separate_axis(attrs, old_mm, new_mm);
  return OK;
}

static void move_affine(const double in[4][4], const plan *p, double out[4][4]) {
  memcpy(out, in, 16 * sizeof(double));
  for (int r = 0; r < 3; r++)
    for (int a = 0; a < 3; a++) {
      out[r][3] += in[r][a] * place(p, a, 0);
      out[r][a] = in[r][a] * p->step[a];
    }
}

static status resample_host_infer(host_infer *shape) {
  if (!shape->of_case) {
    for (int a = 0; a < 3; a++) shape->size[a] = -1;
    return OK;
  }
  volume in = {0};
  plan p;
  memcpy(in.size, shape->size, sizeof in.size);
  memcpy(in.affine, shape->affine, sizeof in.affine);
  TRY(make_plan(shape->attrs, &in, &p));
  memcpy(shape->size, p.size, sizeof p.size);
  move_affine((const double(*)[4])in.affine, &p, shape->affine);
  return OK;
}

static status resample_host(host_call *call) {
  const resample_attrs *attrs = call->attrs;
  const volume *in = &call->c->image;
  plan p;
  TRY(make_plan(attrs, in, &p));
  if (!p.moved[0] && !p.moved[1] && !p.moved[2]) return OK;
  volume image = {0};
  labels label = {0};
  TRY(attrs->image == ORDER_CUBIC ? spline_image(in, &p, &image)
                                  : blend_image(in, &p, attrs->image == ORDER_NEAREST, &image));
  if (call->c->label.data) {
    status error = resample_label(&call->c->label, &p, attrs->label == LABEL_NEAREST, &label);
    if (error) {
      volume_free(&image);
      return error;
    }
  }
  move_affine((const double(*)[4])in->affine, &p, image.affine);
  memcpy(label.affine, image.affine, sizeof label.affine);
  host_replace(call, &image, &label);
  return OK;
}

const op op_resample = {
    .name = "resample",
    .family = "prepare",
    .summary = "Brings the case to a voxel spacing in mm: image linear or cubic, label safe.",
    .doc =
        "grid first_voxel (MONAI): the first voxel stays in place; an axis of n voxels becomes\n"
        "round((n − 1) · old / new + 1). grid extent (nnU-Net): the edges stay; it becomes\n"
        "m = round(n · old / new), and its spacing exactly n · old / m.\n"
        "The image is interpolated linearly, or with cubic: by the B-spline of order 3 that\n"
        "passes through every voxel, cut to the range of the image, and continues with its edge\n"
        "value. The label takes the nearest voxel, or with linear: the class whose interpolated\n"
        "mask is largest. (nnU-Net takes a class only from one half upwards and background\n"
        "where three classes meet.)\n"
        "Halfway between two voxels the nearest is the later one with grid extent (nnU-Net), the\n"
        "even one with first_voxel (MONAI).\n"
        "separate_axis: along a coarse axis slices are taken whole, the nearest one, and only\n"
        "the others are interpolated. auto finds it like nnU-Net: one spacing of the case, or\n"
        "else of the new grid, is more than separate_above times the finest.\n"
        "nnU-Net's default is {image: cubic, label: linear, grid: extent, separate_axis: auto}.\n"
        "No smoothing beforehand.",
    .torch = "monai.transforms.Spacing(spacing, mode='bilinear', padding_mode='border')",
    .version = 2,
    .traits = OP_PREPARE,
    .attrs = resample_attr_list,
    .attrs_bytes = sizeof(resample_attrs),
    .host = resample_host,
    .host_infer = resample_host_infer,
};
