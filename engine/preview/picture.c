#include "preview/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  PLANE_PIXELS = 144, /* longest side of a plane */
  PLANE_GAP = 4,
  CHANNELS_SHOWN = 4,
  PREPARE_COLUMNS = 3,
  SHEET_GAP = 12,
  LEGEND_SQUARE = 9,
  LEGEND_GAP = 4
};
static const colour ground = {250, 250, 250, 255}, ink = {20, 20, 20, 255};
static const char unknown_name[] = "unknown (ignored)";
static const plane planes[PLANE_COUNT] = {PLANE_AXIAL, PLANE_CORONAL, PLANE_SAGITTAL};

static int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

/* ---- where to look ------------------------------------------------------------------------ */

static void to_mm(const double affine[4][4], const double voxel[3], double mm[3]) {
  for (int a = 0; a < 3; a++)
    mm[a] =
        affine[a][0] * voxel[0] + affine[a][1] * voxel[1] + affine[a][2] * voxel[2] + affine[a][3];
}

/* The middle of what is labelled, or of the volume. */
static void find_focus(preview_album *album, const medical_case *c) {
  double sum[3] = {0}, voxel[3];
  int64_t count = 0, i = 0;
  const int64_t *n = c->image.size;
  if (c->label.data)
    for (int64_t x = 0; x < n[0]; x++)
      for (int64_t y = 0; y < n[1]; y++)
        for (int64_t z = 0; z < n[2]; z++, i++)
          if (c->label.data[i] && c->label.data[i] != LABEL_UNKNOWN) {
            sum[0] += (double)x;
            sum[1] += (double)y;
            sum[2] += (double)z;
            count++;
          }
  for (int a = 0; a < 3; a++) voxel[a] = count ? sum[a] / (double)count : (double)(n[a] - 1) / 2;
  to_mm(c->image.affine, voxel, album->focus_mm);
  album->has_focus = true;
}

/* The voxel that is looked at. */
static void focus_of(const preview_album *album, const preview_edge *edge, int64_t at[3]) {
  const volume *v = &edge->c->image;
  double inverse[4][4], voxel[3];
  for (int a = 0; a < 3; a++) at[a] = v->size[a] / 2;
  if (edge->graph != PREVIEW_PREPARE) return;
  affine_inverse(v->affine, inverse);
  to_mm(inverse, album->focus_mm, voxel);
  for (int a = 0; a < 3; a++) at[a] = clamp(llround(voxel[a]), 0, v->size[a] - 1);
}

/* ---- one picture -------------------------------------------------------------------------- */

static status draw_plane(const preview_edge *edge, int64_t channel, const slice_axes *axes,
                         int64_t index, grey_window window, int width, int height, image *onto,
                         int x, int y) {
  image picture;
  TRY(slice_grey(&edge->c->image, channel, axes, index, window, false, width, height, &picture));
  if (edge->c->label.data) slice_labels(&edge->c->label, axes, index, LABEL_CONTOUR, 1, &picture);
  image_blit(onto, &picture, x, y);
  image_free(&picture);
  return OK;
}

/* Axial, coronal, sagittal beside each other at one scale; a row for each channel. */
static status draw_case(const preview_album *album, const preview_edge *edge,
                        const grey_window *windows, image *out) {
  const volume *v = &edge->c->image;
  slice_axes axes[PLANE_COUNT];
  int width[PLANE_COUNT], height[PLANE_COUNT], whole = -PLANE_GAP, highest = 1;
  double scale = INFINITY;
  int64_t at[3], channels = v->channels < CHANNELS_SHOWN ? v->channels : CHANNELS_SHOWN;
  for (int p = 0; p < PLANE_COUNT; p++) {
    axes[p] = edge->graph == PREVIEW_PREPARE ? slice_of_patient(v->size, v->affine, planes[p])
                                             : slice_of_voxels(v->size, v->affine, planes[p]);
    scale = fmin(scale, slice_scale(&axes[p], PLANE_PIXELS, PLANE_PIXELS));
  }
  for (int p = 0; p < PLANE_COUNT; p++) {
    slice_pixels(&axes[p], scale, &width[p], &height[p]);
    whole += width[p] + PLANE_GAP;
    if (height[p] > highest) highest = height[p];
  }
  focus_of(album, edge, at);
  TRY(image_create(out, whole, (int)channels * (highest + PLANE_GAP) - PLANE_GAP, ground));
  status error = OK;
  for (int64_t channel = 0; channel < channels && !error; channel++)
    for (int p = 0, x = 0; p < PLANE_COUNT && !error; x += width[p++] + PLANE_GAP) {
      int64_t index = at[axes[p].through];
      if (axes[p].flip_through) index = axes[p].count - 1 - index;
      error = draw_plane(edge, channel, &axes[p], index, windows[channel], width[p], height[p], out,
                         x, (int)channel * (highest + PLANE_GAP));
    }
  if (error) image_free(out);
  return error;
}

/* ---- what is said ------------------------------------------------------------------------- */

static void add_values(const volume *v, text_buffer *out) {
  int64_t count = v->size[0] * v->size[1] * v->size[2] * v->channels;
  double low = INFINITY, high = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; i++) {
    double x = (double)v->data[i];
    if (x < low) low = x;
    if (x > high) high = x;
    sum += x;
  }
  text_add(out, "%.4g … %.4g, mean %.4g", low, high, sum / (double)count);
}

static void add_classes(const labels *l, text_buffer *out) {
  int64_t voxels[LABEL_VALUES] = {0}, count = l->size[0] * l->size[1] * l->size[2];
  for (int64_t i = 0; i < count; i++) voxels[l->data[i]]++;
  text_add(out, "\nclasses");
  for (int k = 0; k < LABEL_CLASSES; k++)
    if (voxels[k]) text_add(out, " %d", k);
  if (voxels[LABEL_UNKNOWN])
    text_add(out, ", %.3g %% unknown", 100 * (double)voxels[LABEL_UNKNOWN] / (double)count);
}

static char *caption_of(const preview_edge *edge) {
  text_buffer out = {0};
  if (edge->graph != PREVIEW_PREPARE) text_add(&out, "draw %d: ", edge->crop + 1);
  if (!edge->c) {
    text_add(&out, "%s", edge->note);
    return out.data;
  }
  const volume *v = &edge->c->image;
  if (edge->is_unchanged) text_add(&out, "unchanged; ");
  add_values(v, &out);
  if (edge->graph == PREVIEW_PREPARE || edge->crop == 0) {
    double mm[3];
    affine_spacing(v->affine, mm);
    text_add(&out, "\n%lld×%lld×%lld voxels of %.3g×%.3g×%.3g mm", (long long)v->size[0],
             (long long)v->size[1], (long long)v->size[2], mm[0], mm[1], mm[2]);
    if (v->channels > 1) text_add(&out, ", %lld channels", (long long)v->channels);
  }
  if (edge->c->label.data) add_classes(&edge->c->label, &out);
  return out.data;
}

static char *heading_of(const preview_edge *edge) {
  text_buffer out = {0};
  text_add(&out, "%s", edge->name);
  if (edge->operator[0]) text_add(&out, " = %s", edge->operator);
  if (edge->attributes[0]) text_add(&out, " {%s}", edge->attributes);
  return out.data;
}

/* ---- the album ---------------------------------------------------------------------------- */

/* Every edge of the prepare graph has a window of its own; what follows keeps that of the prepared case,
 * so that changes of intensity are seen. */
static status choose_windows(preview_album *album, const volume *v) {
  for (int64_t k = 0; k < v->channels && k < CHANNELS_SHOWN; k++)
    TRY(window_of_percentiles(v, k, 0.5, 99.5, &album->window[k]));
  return OK;
}

static status add_cell(preview_album *album, const preview_edge *edge) {
  if (album->count == album->capacity) {
    int capacity = album->capacity ? 2 * album->capacity : 32;
    preview_cell *cells = realloc(album->cells, (size_t)capacity * sizeof *cells);
    if (!cells) return error_out_of_memory((size_t)capacity * sizeof *cells);
    album->cells = cells;
    album->capacity = capacity;
  }
  preview_cell cell = {.graph = edge->graph, .crop = edge->crop};
  if (edge->c) TRY(draw_case(album, edge, album->window, &cell.picture));
  cell.heading = heading_of(edge);
  cell.caption = caption_of(edge);
  album->cells[album->count++] = cell;
  return OK;
}

status preview_add(void *context, const preview_edge *edge) {
  preview_album *album = context;
  if (edge->graph == PREVIEW_PREPARE) {
    if (!album->has_focus) find_focus(album, edge->c);
    TRY(choose_windows(album, &edge->c->image));
  }
  if (edge->crop + 1 > album->crops) album->crops = edge->crop + 1;
  return add_cell(album, edge);
}

void preview_free(preview_album *a) {
  for (int i = 0; i < a->count; i++) {
    free(a->cells[i].heading);
    free(a->cells[i].caption);
    image_free(&a->cells[i].picture);
  }
  free(a->cells);
  *a = (preview_album){0};
}

static const char *graph_title(preview_graph g) {
  static const char *const titles[PREVIEW_GRAPHS] = {
      "prepare: once per case, cached", "sample: random, for every crop",
      "the stage, as far as no parameter is involved"};
  return titles[g];
}

/* ---- the sheet ---------------------------------------------------------------------------- */

static status graph_sheet(const preview_album *a, preview_graph g, image *out) {
  sheet_cell *cells = calloc((size_t)a->count + 1, sizeof *cells);
  char **captions = calloc((size_t)a->count + 1, sizeof *captions);
  int count = 0;
  status error = cells && captions ? OK : error_out_of_memory((size_t)a->count * sizeof *cells);
  for (int i = 0; i < a->count && !error; i++) {
    const preview_cell *c = &a->cells[i];
    text_buffer caption = {0};
    if (c->graph != g) continue;
    /* A column a draw: the operator is named in the first. */
    text_add(&caption, "%s\n%s", c->crop == 0 ? c->heading : "", c->caption);
    captions[count] = caption.data;
    cells[count++] = (sheet_cell){c->picture.rgba ? &c->picture : NULL, caption.data};
  }
  sheet_style style = {.columns = g == PREVIEW_PREPARE ? PREPARE_COLUMNS : a->crops,
                       .gap = SHEET_GAP,
                       .text_size = 1,
                       .ground = ground,
                       .ink = ink,
                       .title = graph_title(g)};
  *out = (image){0};
  if (!error && count > 0) error = image_sheet(cells, count, &style, out);
  for (int i = 0; i < count; i++) free(captions[i]);
  free(captions);
  free(cells);
  return error;
}

/* A square and a name for each class; as wide as `width` at least allows. Returns the height. */
static int draw_legend(const preview_album *a, int x, int y, int width, image *onto) {
  int left = x, top = y, name_width, name_height = 0, entries = a->class_count + a->has_unknown;
  for (int k = 1; k < entries; k++) {
    const bool is_class = k < a->class_count;
    const char *name = is_class ? a->class_names[k] : unknown_name;
    image_text_size(name, 1, &name_width, &name_height);
    if (left > x && left + LEGEND_SQUARE + name_width + SHEET_GAP > width) {
      left = x;
      top += name_height + LEGEND_GAP;
    }
    if (onto) {
      if (is_class)
        image_rectangle(onto, left, top, LEGEND_SQUARE, LEGEND_SQUARE, class_colour(k));
      else
        image_unknown(onto, left, top, LEGEND_SQUARE);
      image_text(onto, left + LEGEND_SQUARE + LEGEND_GAP, top, 1, ink, name);
    }
    left += LEGEND_SQUARE + LEGEND_GAP + name_width + SHEET_GAP;
  }
  return entries > 1 ? top - y + name_height + SHEET_GAP : 0;
}

status preview_sheet(const preview_album *a, const char *title, image *out) {
  image sheets[PREVIEW_GRAPHS] = {{0}};
  int width = 0, height = 0;
  status error = OK;
  for (int g = 0; g < PREVIEW_GRAPHS && !error; g++) {
    error = graph_sheet(a, (preview_graph)g, &sheets[g]);
    if (sheets[g].width > width) width = sheets[g].width;
    height += sheets[g].height;
  }
  int title_width, title_height;
  image_text_size(title, 2, &title_width, &title_height);
  title_width += 2 * SHEET_GAP;
  title_height += 2 * SHEET_GAP;
  if (width < title_width) width = title_width;
  int top = title_height + draw_legend(a, SHEET_GAP, 0, width, NULL);
  if (!error) error = image_create(out, width, height + top, ground);
  if (!error) {
    image_text(out, SHEET_GAP, SHEET_GAP, 2, ink, title);
    draw_legend(a, SHEET_GAP, title_height, width, out);
    for (int g = 0, y = top; g < PREVIEW_GRAPHS; y += sheets[g++].height)
      if (sheets[g].rgba) image_blit(out, &sheets[g], 0, y);
  }
  for (int g = 0; g < PREVIEW_GRAPHS; g++) image_free(&sheets[g]);
  return error;
}

/* ---- the page ----------------------------------------------------------------------------- */

static void add_escaped(const char *text, text_buffer *out) {
  for (; *text; text++) {
    const char *entity = *text == '<'    ? "&lt;"
                         : *text == '>'  ? "&gt;"
                         : *text == '&'  ? "&amp;"
                         : *text == '"'  ? "&quot;"
                         : *text == '\n' ? "<br>"
                                         : NULL;
    if (entity)
      text_add(out, "%s", entity);
    else
      text_append(out, text, 1);
  }
}

static status add_figure(const preview_cell *c, text_buffer *out) {
  text_add(out, "<figure>");
  if (c->picture.rgba) {
    text_add(out, "<img alt=\"");
    add_escaped(c->heading, out);
    text_add(out, "\" src=\"");
    TRY(png_add_data_uri(&c->picture, out));
    text_add(out, "\">");
  }
  text_add(out, "<figcaption>");
  add_escaped(c->caption, out);
  text_add(out, "</figcaption></figure>\n");
  return OK;
}

static const char page_style[] =
    "body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:110em;padding:0 1em;"
    "color:#141414;background:#fafafa}"
    "h1{font-size:1.4em}h2{font-size:1.15em;margin:2em 0 .5em;border-bottom:1px solid #bbb}"
    "h3{font:600 1em ui-monospace,monospace;margin:1.2em 0 .3em}"
    ".row{display:grid;grid-template-columns:repeat(auto-fill,minmax(26em,1fr));gap:1em}"
    "figure{margin:0}img{display:block;width:100%;max-width:36em;image-rendering:pixelated}"
    "figcaption{font-size:.9em;color:#444}.class{display:inline-block;margin-right:1em}"
    ".class i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}"
    ".class .unknown{background:repeating-linear-gradient(135deg,#ebebeb 0 1px,#282828 1px 2px,"
    "#969696 2px 4px)}"
    "@media print{figure,h3{break-inside:avoid}}";

status preview_page(const preview_album *a, const char *title, text_buffer *out) {
  text_add(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>");
  add_escaped(title, out);
  text_add(out, "</title>\n<style>%s</style></head><body>\n<h1>", page_style);
  add_escaped(title, out);
  text_add(out, "</h1>\n<p>");
  for (int k = 1; k < a->class_count; k++) {
    colour c = class_colour(k);
    text_add(out, "<span class=\"class\"><i style=\"background:#%02x%02x%02x\"></i>", c.r, c.g,
             c.b);
    add_escaped(a->class_names[k], out);
    text_add(out, "</span>\n");
  }
  if (a->has_unknown)
    text_add(out, "<span class=\"class\"><i class=\"unknown\"></i>%s</span>\n", unknown_name);
  text_add(out, "</p>\n");
  for (int i = 0; i < a->count; i++) {
    const preview_cell *c = &a->cells[i];
    if (i == 0 || c->graph != a->cells[i - 1].graph)
      text_add(out, "%s<h2>%s</h2>\n", i ? "</div>\n" : "", graph_title(c->graph));
    else if (c->crop == 0)
      text_add(out, "</div>\n");
    if (c->crop == 0) {
      text_add(out, "<h3>");
      add_escaped(c->heading, out);
      text_add(out, "</h3>\n<div class=\"row\">\n");
    }
    TRY(add_figure(c, out));
  }
  text_add(out, "%s</body></html>\n", a->count ? "</div>\n" : "");
  return OK;
}
