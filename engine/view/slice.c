#include "view/slice.h"

#include "data/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *plane_name(plane p) {
  static const char *const names[PLANE_COUNT] = {"sagittal", "coronal", "axial"};
  return names[p];
}

/* ---- axes ----------------------------------------------------------------------------------- */

/* `ras` says which voxel axis runs along right, anterior and superior, and which way. */
static slice_axes axes_of(const grid_map *ras, const int64_t size[3], const double affine[4][4],
                          plane p) {
  /* Directions to the right and down in the picture: axis of RAS, and does it fall there? */
  static const struct {
    int across, down;
    bool across_falls;
  } looks[PLANE_COUNT] = {[PLANE_SAGITTAL] = {1, 2, true},
                          [PLANE_CORONAL] = {0, 2, true},
                          [PLANE_AXIAL] = {0, 1, true}};
  int a = looks[p].across, d = looks[p].down, t = (int)p;
  double spacing_mm[3];
  affine_spacing(affine, spacing_mm);
  slice_axes s = {.across = ras->axis[a],
                  .down = ras->axis[d],
                  .through = ras->axis[t],
                  .flip_across = ras->flip[a] != looks[p].across_falls,
                  .flip_down = !ras->flip[d], /* up in the picture is where the axis grows */
                  .flip_through = ras->flip[t]};
  s.width = size[s.across];
  s.height = size[s.down];
  s.count = size[s.through];
  s.width_mm = (double)s.width * spacing_mm[s.across];
  s.height_mm = (double)s.height * spacing_mm[s.down];
  return s;
}

slice_axes slice_of_patient(const int64_t size[3], const double affine[4][4], plane p) {
  grid_map ras = grid_to_axes(affine, size, "RAS");
  return axes_of(&ras, size, affine, p);
}

slice_axes slice_of_voxels(const int64_t size[3], const double affine[4][4], plane p) {
  grid_map ras = grid_identity(size);
  return axes_of(&ras, size, affine, p);
}

static int at_least_one(double pixels) {
  return pixels < 1 ? 1 : pixels > IMAGE_MAX_SIDE ? IMAGE_MAX_SIDE : (int)lround(pixels);
}

void slice_pixels(const slice_axes *axes, double pixels_per_mm, int *width, int *height) {
  *width = at_least_one(axes->width_mm * pixels_per_mm);
  *height = at_least_one(axes->height_mm * pixels_per_mm);
}

double slice_scale(const slice_axes *axes, int max_width, int max_height) {
  return fmin(max_width / axes->width_mm, max_height / axes->height_mm);
}

/* Where voxel (u across, v down) of slice `index` lies among the voxels. */
typedef struct slice_steps {
  int64_t first, across, down;
} slice_steps;

static slice_steps steps_of(const slice_axes *s, const int64_t size[3], int64_t index) {
  const int64_t stride[3] = {size[1] * size[2], size[2], 1};
  slice_steps out = {.across = stride[s->across], .down = stride[s->down]};
  out.first = stride[s->through] * (s->flip_through ? s->count - 1 - index : index);
  if (s->flip_across) {
    out.first += (s->width - 1) * out.across;
    out.across = -out.across;
  }
  if (s->flip_down) {
    out.first += (s->height - 1) * out.down;
    out.down = -out.down;
  }
  return out;
}

/* ---- intensities ---------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

status window_of_percentiles(const volume *v, int64_t channel, double low, double high,
                             grey_window *out) {
  enum { ENOUGH = 1 << 18 };
  int64_t voxels = v->size[0] * v->size[1] * v->size[2];
  /* An odd step falls on all rows and planes in turn where sizes are even, as most are. */
  int64_t step = voxels / ENOUGH | 1, count = 0;
  float *sample = malloc((size_t)(voxels / step + 1) * sizeof *sample);
  if (!sample) return error_out_of_memory((size_t)(voxels / step + 1) * sizeof *sample);
  for (int64_t i = 0; i < voxels; i += step) {
    float value = v->data[i * v->channels + channel];
    if (isfinite(value)) sample[count++] = value;
  }
  *out = (grey_window){0, 1};
  if (count > 0) {
    qsort(sample, (size_t)count, sizeof *sample, by_value);
    out->low = sample[(int64_t)(low / 100 * (double)(count - 1) + 0.5)];
    out->high = sample[(int64_t)(high / 100 * (double)(count - 1) + 0.5)];
    if (!(out->high > out->low)) { /* mostly one value: all there is */
      out->low = sample[0];
      out->high = sample[count - 1];
    }
    if (!(out->high > out->low)) {
      out->low -= 0.5;
      out->high += 0.5;
    }
  }
  free(sample);
  return OK;
}

/* Which voxels of one axis make a pixel, and with what weight: a box over the pixel where it covers
 * more than one voxel, else the two nearest or the nearest. */
typedef struct tap {
  int64_t first;
  int count;
  const double *weight;
} tap;

/* `memory` (caller frees) holds the weights. */
static status make_taps(int64_t voxels, int pixels, bool smooth, tap **out, double **memory) {
  double ratio = (double)voxels / pixels;
  int most = (int)ceil(ratio) + 2;
  *out = malloc((size_t)pixels * sizeof **out);
  *memory = calloc((size_t)pixels * (size_t)most, sizeof **memory);
  if (!*out || !*memory)
    return error_out_of_memory((size_t)pixels * (size_t)most * sizeof **memory);
  for (int p = 0; p < pixels; p++) {
    double *weight = *memory + (size_t)p * (size_t)most;
    double from = p * ratio, to = (p + 1) * ratio, centre = (from + to) / 2;
    tap t = {.weight = weight};
    if (ratio > 1) {
      t.first = (int64_t)from;
      for (int64_t k = t.first; k < voxels && (double)k < to && t.count < most; k++)
        weight[t.count++] = (fmin(to, (double)k + 1) - fmax(from, (double)k)) / ratio;
    } else if (smooth) {
      double at = fmin(fmax(centre - 0.5, 0), (double)voxels - 1);
      t.first = (int64_t)at;
      weight[t.count++] = 1 - (at - (double)t.first);
      if (t.first + 1 < voxels) weight[t.count++] = at - (double)t.first;
    } else {
      t.first = centre < (double)voxels ? (int64_t)centre : voxels - 1;
      weight[t.count++] = 1;
    }
    (*out)[p] = t;
  }
  return OK;
}

status slice_grey(const volume *v, int64_t channel, const slice_axes *axes, int64_t index,
                  grey_window window, bool smooth, int width, int height, image *out) {
  TRY(image_create(out, width, height, COLOUR_BLACK));
  tap *across = NULL, *down = NULL;
  double *memory[2] = {NULL, NULL};
  status error = make_taps(axes->width, width, smooth, &across, &memory[0]);
  if (!error) error = make_taps(axes->height, height, smooth, &down, &memory[1]);
  slice_steps s = steps_of(axes, v->size, index);
  for (int y = 0; y < height && !error; y++)
    for (int x = 0; x < width; x++) {
      double sum = 0;
      for (int j = 0; j < down[y].count; j++)
        for (int i = 0; i < across[x].count; i++) {
          double weight = down[y].weight[j] * across[x].weight[i];
          int64_t voxel = s.first + (across[x].first + i) * s.across + (down[y].first + j) * s.down;
          if (weight > 0) sum += weight * v->data[voxel * v->channels + channel];
        }
      double grey = (sum - window.low) / (window.high - window.low) * 255;
      if (!isfinite(sum)) {
        image_put(out, x, y, class_colour(6));
        continue;
      }
      uint8_t g = grey <= 0 ? 0 : grey >= 255 ? 255 : (uint8_t)lround(grey);
      image_put(out, x, y, (colour){g, g, g, 255});
    }
  free(across);
  free(down);
  free(memory[0]);
  free(memory[1]);
  if (error) image_free(out);
  return error;
}

/* ---- labels --------------------------------------------------------------------------------- */

/* A slice's labels under a picture: which voxels its columns and rows show. */
typedef struct label_pixels {
  const uint8_t *first;
  int64_t column[IMAGE_MAX_SIDE], row[IMAGE_MAX_SIDE]; /* offsets */
  int width, height;
} label_pixels;

static uint8_t class_at(const label_pixels *p, int x, int y) {
  return p->first[p->row[y] + p->column[x]];
}

/* Does another class lie within `reach` pixels along x or y? The picture's edge is none. */
static bool is_edge(const label_pixels *p, int x, int y, int reach, uint8_t class) {
  for (int k = -reach; k <= reach; k++) {
    if (x + k >= 0 && x + k < p->width && class_at(p, x + k, y) != class) return true;
    if (y + k >= 0 && y + k < p->height && class_at(p, x, y + k) != class) return true;
  }
  return false;
}

void slice_labels(const labels *l, const slice_axes *axes, int64_t index, label_style style,
                  int thickness, image *onto) {
  enum { HALF = 110 }; /* of 255 */
  slice_steps s = steps_of(axes, l->size, index);
  label_pixels p = {.first = l->data + s.first, .width = onto->width, .height = onto->height};
  for (int x = 0; x < onto->width; x++)
    p.column[x] = (int64_t)(2 * x + 1) * axes->width / (2 * onto->width) * s.across;
  for (int y = 0; y < onto->height; y++)
    p.row[y] = (int64_t)(2 * y + 1) * axes->height / (2 * onto->height) * s.down;
  for (int y = 0; y < onto->height; y++)
    for (int x = 0; x < onto->width; x++) {
      uint8_t class = class_at(&p, x, y);
      if (class == 0) continue;
      if (class == LABEL_UNKNOWN) {
        image_put(onto, x, y, unknown_colour(x, y));
        continue;
      }
      if (style == LABEL_DASHED && ((x + y) & 3) >= 2) continue;
      if (style != LABEL_FILL && !is_edge(&p, x, y, thickness, class)) continue;
      colour c = class_colour(class);
      if (style == LABEL_FILL) c.a = HALF;
      image_put(onto, x, y, c);
    }
}
