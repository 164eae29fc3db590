/* The worst, the median and the best of the test cases, as pictures. */
#include "base/files.h"
#include "base/memory.h"
#include "report/overlay.h"
#include "report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  SHOWN = 3,
  CASES_BYTES = 3 << 20, /* of all pictures of this section, as base64 */
  SIDE = 176,
  SLICES = 20,
  TRIALS = 5
};

typedef struct chosen {
  const char *what, *name; /* "worst", "phantom_003" */
  const json_t *scores;    /* its entry of evaluation.json; NULL: there is none */
} chosen;

/* ---- which cases ---------------------------------------------------------------------------- */

typedef struct ranked {
  double merit; /* higher is better */
  const json_t *entry;
} ranked;

static int by_merit(const void *a, const void *b) {
  double x = ((const ranked *)a)->merit, y = ((const ranked *)b)->merit;
  return (x > y) - (x < y);
}

/* By the first metric there is: by custom Dice. */
static int choose_scored(const run_record *r, const scored_metric *by, chosen out[SHOWN]) {
  const json_t *cases = json_object_get(r->evaluation, "cases");
  size_t total = json_array_size(cases), count = 0;
  ranked *list = memory_take(total * sizeof *list);
  char key[64];
  snprintf(key, sizeof key, "%s_mean", by->info.key);
  bool higher = by->share;
  for (size_t i = 0; i < total; i++) {
    const json_t *entry = json_array_get(cases, i), *mean = json_object_get(entry, key);
    double value = json_number_value(mean);
    if (json_is_number(mean)) list[count++] = (ranked){higher ? value : -fabs(value), entry};
  }
  if (count > 0) qsort(list, count, sizeof *list, by_merit);
  static const char *const what[SHOWN] = {"Worst", "Median", "Best"};
  const size_t at[SHOWN] = {0, (count - 1) / 2, count - 1};
  int chosen_count = 0;
  for (int k = 0; k < SHOWN && count > 0; k++) {
    if (k > 0 && at[k] == at[k - 1]) continue;
    const json_t *entry = list[at[k]].entry;
    out[chosen_count++] = (chosen){what[k], json_member(entry, "name"), entry};
  }
  free(list);
  return chosen_count;
}

static char *prediction_path(const run_record *r, const char *name) {
  char file[512];
  snprintf(file, sizeof file, "predictions/%s.nii.gz", name);
  return path_join(r->folder, file);
}

/* Without scores: test cases that have been segmented. */
static int choose_segmented(const run_record *r, chosen out[SHOWN]) {
  int count = 0;
  for (int i = 0; r->data && i < r->data->case_count && count < SHOWN; i++) {
    const char *name = r->data->cases[i].name;
    char *path = prediction_path(r, name);
    if (r->data->cases[i].role == ROLE_TEST && file_exists(path))
      out[count++] = (chosen){"Case", name, NULL};
    free(path);
  }
  return count;
}

/* ---- HTML ----------------------------------------------------------------------------------- */

static status layer(text_buffer *out, const char *class, const char *alt, const image *i) {
  if (!i->rgba) return OK;
  text_add(out, "<img class=\"%s\" alt=\"", class);
  html_text(out, alt);
  text_add(out, "\" src=\"");
  TRY(png_add_data_uri(i, out));
  text_add(out, "\">");
  return OK;
}

static status viewer(text_buffer *out, const char *name, plane p, const overlay_plane *o) {
  char alt[256];
  snprintf(alt, sizeof alt, "%s slices of %s", plane_name(p), name);
  text_add(out,
           "<figure class=\"viewer\" style=\"--n:%d;--i:%d\"><div class=\"stack\" "
           "style=\"aspect-ratio:%.4g\">",
           o->count, o->first_shown, o->width_mm / o->height_mm);
  TRY(layer(out, "grey", alt, &o->grey));
  TRY(layer(out, "reference", "", &o->reference));
  TRY(layer(out, "prediction", "", &o->prediction));
  text_add(out,
           "</div><label>%s <input type=\"range\" min=\"0\" max=\"%d\" value=\"%d\" aria-label=\"",
           plane_name(p), o->count - 1, o->first_shown);
  html_text(out, alt);
  text_add(out, "\"><output>%d/%d</output></label></figure>\n", o->first_shown + 1, o->count);
  return OK;
}

static status add_viewers(text_buffer *out, const case_entry *entry, const char *prediction,
                          overlay_size size) {
  overlay_plane planes[PLANE_COUNT];
  static const plane order[PLANE_COUNT] = {PLANE_AXIAL, PLANE_CORONAL, PLANE_SAGITTAL};
  const char *reference = entry->label && file_exists(entry->label) ? entry->label : NULL;
  TRY(overlay_make(entry->image, reference, entry->ignore_label, prediction, size, planes));
  status error = OK;
  enum { MAX_HEIGHT = 440, GAP = 14 }; /* CSS pixels */
  double height_mm = 0, width_mm = 0;
  for (int k = 0; k < PLANE_COUNT; k++) {
    height_mm = fmax(height_mm, planes[k].height_mm);
    width_mm += planes[k].width_mm;
  }
  text_add(out, "<div class=\"planes\" style=\"max-width:%.0fpx;grid-template-columns:",
           width_mm * MAX_HEIGHT / height_mm + 2 * GAP);
  for (int k = 0; k < PLANE_COUNT; k++)
    text_add(out, " minmax(0,%.4gfr)", planes[order[k]].width_mm);
  text_add(out, "\">\n");
  for (int k = 0; k < PLANE_COUNT && !error; k++)
    error = viewer(out, entry->name, order[k], &planes[order[k]]);
  text_add(out, "</div>\n");
  overlay_free(planes);
  return error;
}

/* Smaller pictures until they fit. */
static status add_pictures(page *p, const case_entry *entry, const char *prediction, size_t room) {
  overlay_size size = {.side = SIDE, .slices = SLICES};
  for (int trial = 1;; trial++) {
    text_buffer html = {0};
    status error = add_viewers(&html, entry, prediction, size);
    if (error || html.length <= room || trial == TRIALS) {
      if (!error) text_append(&p->body, html.data, html.length);
      text_free(&html);
      return error;
    }
    double share = (double)room / (double)html.length;
    text_free(&html);
    size.side = (int)fmax(32, size.side * sqrt(share) * 0.95);
    if (share < 0.4 && size.slices > 8) size.slices = size.slices * 2 / 3;
  }
}

static void heading(page *p, const chosen *c) {
  text_buffer *out = &p->body;
  text_add(out, "<h3>%s: ", c->what);
  html_text(out, c->name);
  scored_metric metrics[SCORED_MAX];
  int count = c->scores ? scored_metrics(p->run, metrics) : 0;
  text_add(out, " <small>");
  for (int m = 0; m < count; m++) {
    const metric_info *info = &metrics[m].info;
    char key[64];
    snprintf(key, sizeof key, "%s_mean", info->key);
    const json_t *mean = json_object_get(c->scores, key);
    if (json_is_number(mean))
      html_format(out, " %s %.*f", info->heading, info->decimals, json_number_value(mean));
  }
  text_add(out, "</small></h3>\n");
}

static void add_case(page *p, const chosen *c, size_t room) {
  heading(p, c);
  const case_entry *entry = record_case(p->run, c->name);
  char *prediction = prediction_path(p->run, c->name);
  status error = OK;
  if (!entry)
    error = error_new(ERROR_DATA, NOWHERE, "The files of this case are not where they were.");
  else if (!file_exists(prediction))
    error = error_new(ERROR_DATA, NOWHERE, "Its segmentation is no longer in the run folder.");
  else
    error = add_pictures(p, entry, prediction, room);
  if (error) html_element(&p->body, "p", "missing", error_message(error));
  error_free(error);
  free(prediction);
}

static void legend(page *p) {
  text_buffer *out = &p->body;
  const json_t *classes = json_object_get(p->run->description, "classes");
  text_add(out, "<p class=\"layers\"><button type=\"button\" data-layer=\"reference\" "
                "aria-pressed=\"true\"><i></i>reference</button> <button type=\"button\" "
                "data-layer=\"prediction\" aria-pressed=\"true\"><i class=\"dashed\"></i>prediction"
                "</button>");
  for (size_t c = 1; c < json_array_size(classes); c++) {
    const char *name = json_string_value(json_array_get(classes, c));
    text_add(out, " <span><i class=\"swatch c%zu\"></i>", (c - 1) % PALETTE_SIZE + 1);
    html_text(out, name ? name : "?");
    text_add(out, "</span>");
  }
  if (json_object_get(p->run->description, "ignore_label"))
    text_add(out, " <span><i class=\"swatch unknown\"></i>unknown (ignored)</span>");
  text_add(out, "</p>\n<p class=\"facts\">The patient's right is on the left; in sagittal pictures "
                "anterior is. Slices cover what is labelled.</p>\n");
}

void section_cases(page *p) {
  scored_metric metrics[SCORED_MAX];
  chosen list[SHOWN];
  int count = scored_metrics(p->run, metrics) > 0 ? choose_scored(p->run, &metrics[0], list)
                                                  : choose_segmented(p->run, list);
  if (count == 0) return;
  page_section(p, "cases", list[0].scores && count > 1 ? "Worst, median and best case" : "Cases");
  legend(p);
  for (int k = 0; k < count; k++) add_case(p, &list[k], CASES_BYTES / (size_t)count);
  page_section_end(p);
}
