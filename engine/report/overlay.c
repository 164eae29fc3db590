#include "report/overlay.h"

#include "data/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Voxels low … high (inclusive) of a grid; empty where low > high. */
typedef struct box {
  int64_t low[3], high[3];
} box;

static void include_labels(const labels *l, box *b) {
  const uint8_t *voxel = l->data;
  int64_t at[3];
  for (at[0] = 0; at[0] < l->size[0]; at[0]++)
    for (at[1] = 0; at[1] < l->size[1]; at[1]++)
      for (at[2] = 0; at[2] < l->size[2]; at[2]++, voxel++)
        if (*voxel != 0 && *voxel != LABEL_UNKNOWN)
          for (int a = 0; a < 3; a++) {
            if (at[a] < b->low[a]) b->low[a] = at[a];
            if (at[a] > b->high[a]) b->high[a] = at[a];
          }
}

static status read_map(const char *path, int ignore_label, labels *out) {
  TRY(nifti_read_labels(path, out));
  if (ignore_label) labels_replace(out, (uint8_t)ignore_label, LABEL_UNKNOWN);
  return OK;
}

static status include_file(const char *path, int ignore_label, const volume *grid, box *b) {
  if (!path) return OK;
  labels l = {0};
  TRY(read_map(path, ignore_label, &l));
  status error = OK;
  if (memcmp(l.size, grid->size, sizeof l.size) != 0)
    error = error_new(ERROR_DATA, NOWHERE, "%s is not on the grid of the image", path);
  else
    include_labels(&l, b);
  labels_free(&l);
  return error;
}

/* A fifth of the box and at least 10 mm around it. */
static grid_map with_margin(const volume *grid, const box *inner) {
  enum { MARGIN_MM = 10 };
  double spacing_mm[3];
  affine_spacing(grid->affine, spacing_mm);
  grid_map map = grid_identity(grid->size);
  for (int a = 0; a < 3; a++) {
    int64_t extent = inner->high[a] - inner->low[a] + 1;
    int64_t margin = (int64_t)ceil(fmax(MARGIN_MM / spacing_mm[a], (double)extent / 5));
    int64_t low = inner->low[a] - margin, high = inner->high[a] + margin;
    if (low < 0) low = 0;
    if (high >= grid->size[a]) high = grid->size[a] - 1;
    map.start[a] = low;
    map.size[a] = high - low + 1;
  }
  return map;
}

/* ---- layers --------------------------------------------------------------------------------- */

typedef struct cut {
  slice_axes axes;
  int64_t index[64]; /* of the slices shown */
  int count;
} cut;

/* Slices evenly over the labelled part. */
static cut cut_plane(const int64_t size[3], const double affine[4][4], plane p, const box *inner,
                     const grid_map *region, int slices) {
  cut c = {.axes = slice_of_patient(size, affine, p)};
  int a = c.axes.through;
  int64_t low = inner->low[a] - region->start[a], high = inner->high[a] - region->start[a];
  int64_t extent = high - low + 1;
  c.count = (int)(extent < slices ? extent : slices);
  for (int k = 0; k < c.count; k++) {
    int64_t at = low + (2 * k + 1) * extent / (2 * c.count);
    c.index[c.axes.flip_through ? c.count - 1 - k : k] =
        c.axes.flip_through ? size[a] - 1 - at : at;
  }
  return c;
}

static status stack(image *out, int width, int height, int count) {
  return image_create(out, width, height * count, COLOUR_CLEAR);
}

void grey_in_steps(image *i) {
  for (int64_t p = 0; p < (int64_t)i->width * i->height; p++)
    for (int k = 0; k < 3; k++) {
      int step = (i->rgba[4 * p + k] * 63 + 127) / 255;
      i->rgba[4 * p + k] = (uint8_t)(step * 255 / 63);
    }
}

static status grey_layer(const volume *v, const cut *c, grey_window window, double scale,
                         image *out) {
  double spacing_mm[3];
  affine_spacing(v->affine, spacing_mm);
  double finest = fmin(spacing_mm[c->axes.across], spacing_mm[c->axes.down]);
  int width, height;
  /* No finer than the voxels: the browser enlarges as well. */
  slice_pixels(&c->axes, fmin(scale, 1 / finest), &width, &height);
  TRY(stack(out, width, height, c->count));
  for (int k = 0; k < c->count; k++) {
    image slice;
    TRY(slice_grey(v, 0, &c->axes, c->index[k], window, true, width, height, &slice));
    grey_in_steps(&slice);
    image_blit(out, &slice, 0, k * height);
    image_free(&slice);
  }
  return OK;
}

static status label_layer(const labels *l, const cut *c, label_style style, double scale,
                          image *out) {
  enum { THICKNESS = 1 };
  int width, height;
  slice_pixels(&c->axes, scale, &width, &height);
  TRY(stack(out, width, height, c->count));
  for (int k = 0; k < c->count; k++) {
    image slice;
    TRY(image_create(&slice, width, height, COLOUR_CLEAR));
    slice_labels(l, &c->axes, c->index[k], style, THICKNESS, &slice);
    image_blit(out, &slice, 0, k * height);
    image_free(&slice);
  }
  return OK;
}

/* ---- a case --------------------------------------------------------------------------------- */

static status read_region(const char *path, const grid_map *region, volume *out) {
  volume whole = {0};
  const voxel_change none = {.intensity = RESCALE_NONE};
  TRY(nifti_read_volume(path, &whole));
  status error = volume_regrid(&whole, region, &none, out);
  volume_free(&whole);
  return error;
}

static status read_label_region(const char *path, int ignore_label, const grid_map *region,
                                labels *out) {
  labels whole = {0};
  TRY(read_map(path, ignore_label, &whole));
  status error = labels_regrid(&whole, region, out);
  labels_free(&whole);
  return error;
}

static status draw_image(const char *path, const grid_map *region, const cut cuts[PLANE_COUNT],
                         double scale, overlay_plane out[PLANE_COUNT]) {
  volume v = {0};
  grey_window window;
  status error = read_region(path, region, &v);
  if (!error) error = window_of_percentiles(&v, 0, 1, 99, &window);
  for (int p = 0; p < PLANE_COUNT && !error; p++)
    error = grey_layer(&v, &cuts[p], window, scale, &out[p].grey);
  volume_free(&v);
  return error;
}

static status draw_labels(const char *path, int ignore_label, const grid_map *region,
                          const cut cuts[PLANE_COUNT], bool is_reference, double scale,
                          overlay_plane out[PLANE_COUNT]) {
  labels l = {0};
  status error = read_label_region(path, ignore_label, region, &l);
  for (int p = 0; p < PLANE_COUNT && !error; p++)
    error = label_layer(&l, &cuts[p], is_reference ? LABEL_CONTOUR : LABEL_DASHED, scale,
                        is_reference ? &out[p].reference : &out[p].prediction);
  labels_free(&l);
  return error;
}

/* Of contours, which are opaque; hatching is not. */
static int64_t drawn_pixels(const image *i, int slice, int count) {
  int64_t drawn = 0, pixels = i->rgba ? (int64_t)i->width * (i->height / count) : 0;
  for (int64_t p = slice * pixels; p < (slice + 1) * pixels; p++)
    drawn += i->rgba[4 * p + 3] == 255;
  return drawn;
}

/* By the reference, where there is one: a poor prediction may be anywhere. */
static void choose_first(overlay_plane *p) {
  const image *by = p->reference.rgba ? &p->reference : &p->prediction;
  int64_t most = 0;
  p->first_shown = p->count / 2;
  for (int k = 0; k < p->count; k++) {
    int64_t drawn = drawn_pixels(by, k, p->count);
    if (drawn <= most) continue;
    most = drawn;
    p->first_shown = k;
  }
}

static status make(const char *image_path, const char *reference, int ignore_label,
                   const char *prediction, overlay_size size, overlay_plane out[PLANE_COUNT]) {
  volume grid = {0};
  TRY(nifti_read_grid(image_path, &grid));
  box inner = {{INT64_MAX, INT64_MAX, INT64_MAX}, {-1, -1, -1}};
  TRY(include_file(reference, ignore_label, &grid, &inner));
  TRY(include_file(prediction, 0, &grid, &inner));
  if (inner.high[0] < 0)
    for (int a = 0; a < 3; a++) {
      inner.low[a] = 0;
      inner.high[a] = grid.size[a] - 1;
    }
  grid_map region = with_margin(&grid, &inner);
  cut cuts[PLANE_COUNT];
  double longest_mm = 0;
  for (int p = 0; p < PLANE_COUNT; p++) {
    cuts[p] = cut_plane(region.size, grid.affine, (plane)p, &inner, &region,
                        size.slices < 64 ? size.slices : 64);
    out[p].count = cuts[p].count;
    out[p].width_mm = cuts[p].axes.width_mm;
    out[p].height_mm = cuts[p].axes.height_mm;
    longest_mm = fmax(longest_mm, fmax(out[p].width_mm, out[p].height_mm));
  }
  double scale = size.side / longest_mm;
  TRY(draw_image(image_path, &region, cuts, scale, out));
  if (reference) TRY(draw_labels(reference, ignore_label, &region, cuts, true, 2 * scale, out));
  TRY(draw_labels(prediction, 0, &region, cuts, false, 2 * scale, out));
  for (int p = 0; p < PLANE_COUNT; p++) choose_first(&out[p]);
  return OK;
}

status overlay_make(const char *image_path, const char *reference, int ignore_label,
                    const char *prediction, overlay_size size, overlay_plane out[PLANE_COUNT]) {
  memset(out, 0, PLANE_COUNT * sizeof *out);
  status error = make(image_path, reference, ignore_label, prediction, size, out);
  if (error) overlay_free(out);
  return error;
}

void overlay_free(overlay_plane planes[PLANE_COUNT]) {
  for (int p = 0; p < PLANE_COUNT; p++) {
    image_free(&planes[p].grey);
    image_free(&planes[p].reference);
    image_free(&planes[p].prediction);
  }
}
