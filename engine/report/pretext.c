/* What a self-supervised stage was shown and what it made of it: the volumes that train/sample.h keeps,
 * side by side, and the order in which cells were shuffled. */
#include "base/files.h"
#include "report/overlay.h"
#include "report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  VOLUMES_MAX = 6,
  CELLS_DRAWN = 32,
  STAGE_BYTES = 3 << 18, /* of the pictures of a stage, as base64 */
  SIDE = 128,
  SLICES = 12,
  TRIALS = 5
};

typedef struct sample {
  const json_t *about; /* sample.json */
  char *folder;
  int count;
  const json_t *entry[VOLUMES_MAX];
  volume volume[VOLUMES_MAX];
  grey_window window[VOLUMES_MAX];
} sample;

static const char *part_of(const json_t *entry) {
  return json_member(entry, "part");
}

static bool is_part(const json_t *entry, const char *part) {
  return strcmp(part_of(entry), part) == 0;
}

/* ---- reading -------------------------------------------------------------------------------- */

/* All on one grid, or the file is not ours. */
static status read_volumes(sample *s) {
  const json_t *list = json_object_get(s->about, "volumes");
  for (size_t i = 0; i < json_array_size(list) && s->count < VOLUMES_MAX; i++) {
    const json_t *entry = json_array_get(list, i);
    const char *file = json_member(entry, "file");
    if (!file[0] || strchr(file, '/'))
      return error_new(ERROR_DATA, NOWHERE, "%s/sample.json is damaged", s->folder);
    char *path = path_join(s->folder, file);
    status error = nifti_read_volume(path, &s->volume[s->count]);
    if (!error) s->entry[s->count++] = entry;
    if (!error && memcmp(s->volume[s->count - 1].size, s->volume[0].size, sizeof(int64_t[3])) != 0)
      error = error_new(ERROR_DATA, NOWHERE, "%s has another size than the image", path);
    free(path);
    TRY(error);
  }
  return OK;
}

/* What the network should give back and what it does are seen alike, and so are the image and what
 * was made of it: a target may be in other units than the image. */
static status choose_windows(sample *s) {
  int image = 0, target = -1;
  for (int i = s->count - 1; i >= 0; i--)
    if (is_part(s->entry[i], "target")) target = i;
  grey_window of_image = {0, 1}, of_target = {0, 1};
  TRY(window_of_percentiles(&s->volume[image], 0, 0.5, 99.5, &of_image));
  of_target = of_image;
  if (target >= 0) TRY(window_of_percentiles(&s->volume[target], 0, 0.5, 99.5, &of_target));
  for (int i = 0; i < s->count; i++) {
    bool like_target = is_part(s->entry[i], "target") || is_part(s->entry[i], "output");
    s->window[i] = like_target ? of_target : of_image;
  }
  return OK;
}

static void sample_free(sample *s) {
  for (int i = 0; i < VOLUMES_MAX; i++) volume_free(&s->volume[i]);
}

/* ---- the order of shuffled cells ------------------------------------------------------------ */

/* A list of whole numbers that is a permutation of the cells of a grid: for position i, the cell that
 * lies there now. */
typedef struct permutation {
  const json_t *values;
  int cells[3], count;
} permutation;

static bool read_permutation(const json_t *numbers, permutation *out) {
  const char *cells = json_member(json_object_get(numbers, "attributes"), "cells");
  *out = (permutation){.values = json_object_get(numbers, "values")};
  if (sscanf(cells, "[%d, %d, %d]", &out->cells[0], &out->cells[1], &out->cells[2]) != 3)
    return false;
  for (int a = 0; a < 3; a++)
    if (out->cells[a] < 1 || out->cells[a] > 256) return false;
  out->count = out->cells[0] * out->cells[1] * out->cells[2];
  if (out->count < 2 || out->count > 256 || json_array_size(out->values) != (size_t)out->count)
    return false;
  bool seen[256] = {false};
  for (int i = 0; i < out->count; i++) {
    json_int_t from = json_integer_value(json_array_get(out->values, (size_t)i));
    if (from < 0 || from >= out->count || seen[from]) return false;
    seen[from] = true;
  }
  return true;
}

static int cell_at(const permutation *p, int i) {
  return (int)json_integer_value(json_array_get(p->values, (size_t)i));
}

/* Two rows of boxes, above as the network gets them, below in the order of the image, and a line from
 * each to where it belongs. */
static void draw_permutation(text_buffer *out, const permutation *p) {
  enum { WIDTH = 52, GAP = 6, HEIGHT = 24, BETWEEN = 44 };
  int width = p->count * (WIDTH + GAP);
  text_add(out,
           "<svg class=\"permutation\" role=\"img\" aria-label=\"order of the parts\" width=\"%d\" "
           "height=\"%d\" viewBox=\"0 0 %d %d\">\n",
           width, 2 * HEIGHT + BETWEEN, width, 2 * HEIGHT + BETWEEN);
  for (int i = 0; i < p->count; i++) {
    int from = cell_at(p, i), x = i * (WIDTH + GAP), to = from * (WIDTH + GAP);
    colour c = class_colour(from + 1), below = class_colour(i + 1);
    text_add(out,
             "<path d=\"M%d %dC%d %d %d %d %d %d\" fill=\"none\" stroke=\"#%02x%02x%02x\" "
             "stroke-width=\"2\"/>",
             x + WIDTH / 2, HEIGHT, x + WIDTH / 2, HEIGHT + BETWEEN / 2, to + WIDTH / 2,
             HEIGHT + BETWEEN / 2, to + WIDTH / 2, HEIGHT + BETWEEN, c.r, c.g, c.b);
    text_add(out,
             "<rect x=\"%d\" y=\"0\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"#%02x%02x%02x\"/>"
             "<text class=\"dark\" x=\"%d\" y=\"17\" text-anchor=\"middle\">%d</text>",
             x, WIDTH, HEIGHT, c.r, c.g, c.b, x + WIDTH / 2, from + 1);
    text_add(out,
             "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"#%02x%02x%02x\"/>"
             "<text class=\"dark\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
             x, HEIGHT + BETWEEN, WIDTH, HEIGHT, below.r, below.g, below.b, x + WIDTH / 2,
             HEIGHT + BETWEEN + 17, i + 1);
  }
  text_add(out, "</svg>\n");
}

static void add_numbers(page *p, const sample *s) {
  const json_t *list = json_object_get(s->about, "numbers");
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *numbers = json_array_get(list, i);
    permutation order;
    bool is_order = read_permutation(numbers, &order);
    text_add(&p->body, "<p class=\"facts\"><b>");
    html_text(&p->body, json_member(numbers, "name"));
    text_add(&p->body, "</b> ");
    html_format(&p->body, "(%s)", json_member(numbers, "operator"));
    if (is_order && order.count <= CELLS_DRAWN) {
      text_add(&p->body, ": above the parts as the network gets them, below where they belong</p>\n"
                         "<div class=\"scroll\">");
      draw_permutation(&p->body, &order);
      text_add(&p->body, "</div>\n");
      continue;
    }
    text_add(&p->body, ": ");
    const json_t *values = json_object_get(numbers, "values");
    for (size_t k = 0; k < json_array_size(values); k++)
      text_add(&p->body, "%s%lld", k ? " " : "",
               (long long)json_integer_value(json_array_get(values, k)) + (is_order ? 1 : 0));
    text_add(&p->body, "</p>\n");
  }
}

/* ---- pictures ------------------------------------------------------------------------------- */

/* Pixels [from, to) of voxels [low, high) along an axis of the picture. */
static void pixel_range(int64_t low, int64_t high, int64_t voxels, bool flip, int pixels, int *from,
                        int *to) {
  int64_t a = flip ? voxels - high : low, b = flip ? voxels - low : high;
  *from = (int)(a * pixels / voxels);
  *to = (int)(b * pixels / voxels);
}

/* Borders of the cells in a slice, and the number of the cell of the image that lies there. */
static void draw_cells(const permutation *p, const int64_t size[3], const slice_axes *axes,
                       int64_t index, image *onto) {
  int64_t through = axes->flip_through ? axes->count - 1 - index : index;
  int at[3];
  at[axes->through] = (int)(through * p->cells[axes->through] / size[axes->through]);
  for (int u = 0; u < p->cells[axes->across]; u++)
    for (int v = 0; v < p->cells[axes->down]; v++) {
      int x, right, y, bottom;
      int64_t width = size[axes->across] / p->cells[axes->across];
      int64_t height = size[axes->down] / p->cells[axes->down];
      pixel_range(u * width, (u + 1) * width, axes->width, axes->flip_across, onto->width, &x,
                  &right);
      pixel_range(v * height, (v + 1) * height, axes->height, axes->flip_down, onto->height, &y,
                  &bottom);
      at[axes->across] = u;
      at[axes->down] = v;
      int from = cell_at(p, (at[0] * p->cells[1] + at[1]) * p->cells[2] + at[2]);
      colour c = class_colour(from + 1);
      if (x > 0) image_rectangle(onto, x, y, 1, bottom - y, c);
      if (y > 0) image_rectangle(onto, x, y, right - x, 1, c);
      char number[16];
      snprintf(number, sizeof number, "%d", from + 1);
      image_text(onto, x + 3, y + 1, 1, c, number);
    }
}

typedef struct strip { /* the slices of one volume in one plane */
  const volume *v;
  grey_window window;
  const permutation *order; /* drawn over it; NULL: none */
} strip;

static status add_strip(text_buffer *out, const strip *t, const slice_axes *axes, int slices,
                        double scale, const char *alt) {
  int width, height;
  slice_pixels(axes, scale, &width, &height);
  image all;
  TRY(image_create(&all, width, height * slices, COLOUR_BLACK));
  status error = OK;
  for (int k = 0; k < slices && !error; k++) {
    image one;
    int64_t index = (2 * k + 1) * axes->count / (2 * slices);
    error = slice_grey(t->v, 0, axes, index, t->window, true, width, height, &one);
    if (error) break;
    grey_in_steps(&one);
    if (t->order) draw_cells(t->order, t->v->size, axes, index, &one);
    image_blit(&all, &one, 0, k * height);
    image_free(&one);
  }
  text_add(out, "<div class=\"stack\" style=\"aspect-ratio:%.4g\"><img alt=\"",
           axes->width_mm / axes->height_mm);
  html_text(out, alt);
  text_add(out, "\" src=\"");
  if (!error) error = png_add_data_uri(&all, out);
  text_add(out, "\"></div>\n");
  image_free(&all);
  return error;
}

/* Is the order one of the operator that made this volume? */
static const permutation *order_of(const sample *s, int i, permutation *room) {
  const json_t *list = json_object_get(s->about, "numbers");
  const char *name = json_member(s->entry[i], "name");
  for (size_t k = 0; k < json_array_size(list); k++) {
    const json_t *numbers = json_array_get(list, k);
    const char *of = json_member(numbers, "name");
    if (strncmp(of, name, strlen(name)) == 0 && of[strlen(name)] == '.' &&
        read_permutation(numbers, room))
      return room;
  }
  return NULL;
}

static status add_plane(text_buffer *out, const sample *s, plane p, int side, int slices) {
  const volume *first = &s->volume[0];
  slice_axes axes = slice_of_patient(first->size, first->affine, p);
  double spacing_mm[3], longest_mm = 0;
  affine_spacing(first->affine, spacing_mm);
  for (int a = 0; a < 3; a++) longest_mm = fmax(longest_mm, (double)first->size[a] * spacing_mm[a]);
  double scale = side / longest_mm;
  if (slices > axes.count) slices = (int)axes.count;
  text_add(out, "<figure class=\"viewer\" style=\"--n:%d;--i:%d\"><div class=\"columns\">\n",
           slices, slices / 2);
  for (int i = 0; i < s->count; i++) {
    permutation order;
    strip t = {&s->volume[i], s->window[i], order_of(s, i, &order)};
    char alt[256];
    snprintf(alt, sizeof alt, "%s, %s slices", json_member(s->entry[i], "name"), plane_name(p));
    TRY(add_strip(out, &t, &axes, slices, scale, alt));
  }
  text_add(out,
           "</div><label>%s <input type=\"range\" min=\"0\" max=\"%d\" value=\"%d\" "
           "aria-label=\"%s slice\"><output>%d/%d</output></label></figure>\n",
           plane_name(p), slices - 1, slices / 2, plane_name(p), slices / 2 + 1, slices);
  return OK;
}

static const char *meaning_of(const json_t *entry) {
  return is_part(entry, "image")    ? "the crop"
         : is_part(entry, "input")  ? "what the network sees"
         : is_part(entry, "output") ? "what it gives back"
         : is_part(entry, "target") ? "what it should give back"
                                    : "";
}

static void add_heads(text_buffer *out, const sample *s) {
  text_add(out, "<div class=\"columns heads\">\n");
  for (int i = 0; i < s->count; i++) {
    const json_t *entry = s->entry[i];
    text_add(out, "<div><b>");
    html_text(out, json_member(entry, "name"));
    text_add(out, "</b><br><small>");
    html_text(out, meaning_of(entry));
    if (json_member(entry, "operator")[0])
      html_format(out, "%s%s", meaning_of(entry)[0] ? " · " : "", json_member(entry, "operator"));
    text_add(out, "</small></div>\n");
  }
  text_add(out, "</div>\n");
}

static status add_pictures(page *p, const sample *s) {
  int side = SIDE;
  for (int trial = 1;; trial++) {
    text_buffer html = {0};
    add_heads(&html, s);
    status error = OK;
    static const plane order[PLANE_COUNT] = {PLANE_CORONAL, PLANE_AXIAL, PLANE_SAGITTAL};
    for (int k = 0; k < PLANE_COUNT && !error; k++)
      error = add_plane(&html, s, order[k], side, SLICES);
    if (error || html.length <= STAGE_BYTES || trial == TRIALS) {
      if (!error) {
        text_add(&p->body, "<div class=\"pretext\" style=\"--columns:%d\">\n", s->count);
        text_append(&p->body, html.data, html.length);
        text_add(&p->body, "</div>\n");
      }
      text_free(&html);
      return error;
    }
    side = (int)fmax(32, side * sqrt((double)STAGE_BYTES / (double)html.length) * 0.95);
    text_free(&html);
  }
}

/* ---- a stage -------------------------------------------------------------------------------- */

static void add_stage(page *p, const json_t *about, char *folder) {
  sample s = {.about = about, .folder = folder};
  text_add(&p->body, "<h3>");
  html_text(&p->body, json_member(about, "stage"));
  text_add(&p->body, " <small>case ");
  html_text(&p->body, json_member(about, "case"));
  text_add(&p->body, ", with the weights at the end of the stage</small></h3>\n");
  status error = read_volumes(&s);
  if (!error && s.count > 0) error = choose_windows(&s);
  if (!error && s.count > 0) error = add_pictures(p, &s);
  if (error) html_element(&p->body, "p", "missing", error_message(error));
  error_free(error);
  add_numbers(p, &s);
  sample_free(&s);
}

void section_pretext(page *p) {
  bool begun = false;
  for (int i = 0; p->run->p && i < p->run->p->stage_count; i++) {
    char name[256];
    snprintf(name, sizeof name, "samples/%s", p->run->p->stages[i].name);
    char *folder = path_join(p->run->folder, name), *path = path_join(folder, "sample.json");
    json_t *about = NULL;
    if (file_exists(path)) {
      status error = json_read(path, 1 << 20, &about);
      record_note_error(p->run, error);
    }
    if (about && !begun) page_section(p, "pretext", "Self-supervised stage");
    begun |= about != NULL;
    if (about) add_stage(p, about, folder);
    json_decref(about);
    free(path);
    free(folder);
  }
  if (begun) page_section_end(p);
}
