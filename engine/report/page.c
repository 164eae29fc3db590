#include "report/page.h"

#include "base/files.h"
#include "report/sections.h"
#include "report_assets.h" /* report.css, report.js; made by CMakeLists.txt */
#include "view/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- parts for the sections ----------------------------------------------------------------- */

void page_section(page *p, const char *id, const char *title) {
  text_add(&p->body, "<section id=\"%s\" aria-labelledby=\"%s-title\"><h2 id=\"%s-title\">", id, id,
           id);
  html_text(&p->body, title);
  text_add(&p->body, "</h2>\n");
  text_add(&p->nav, "<a href=\"#%s\">", id);
  html_text(&p->nav, title);
  text_add(&p->nav, "</a>\n");
}

void page_section_end(page *p) {
  text_add(&p->body, "</section>\n");
}

void page_chart(page *p, json_t *chart, const char *kind, const char *title) {
  char id[32];
  snprintf(id, sizeof id, "chart-%d", ++p->figures);
  json_object_set_new(chart, "id", json_string(id));
  json_object_set_new(chart, "kind", json_string(kind));
  json_object_set_new(chart, "title", json_string(title));
  json_array_append_new(p->charts, chart);
  text_add(&p->body, "<figure class=\"chart\" id=\"%s\"><figcaption>", id);
  html_text(&p->body, title);
  text_add(&p->body, "</figcaption></figure>\n");
}

void page_table(page *p, const table *t, const char *id) {
  text_add(&p->body, "<div class=\"scroll\"><table id=\"%s\"><thead>\n", id);
  for (int i = 0; i < t->count; i++) {
    int column = i % t->columns;
    const char *tag = i < t->columns ? "th scope=\"col\"" : column == 0 ? "th scope=\"row\"" : "td";
    if (column == 0) text_add(&p->body, "<tr>");
    text_add(&p->body, "<%s%s>", tag, t->right[column] ? " class=\"n\"" : "");
    if (t->cells[i]) html_text(&p->body, t->cells[i]);
    text_add(&p->body, "</%.2s>", tag);
    if (column < t->columns - 1) continue;
    text_add(&p->body, i < t->columns ? "</tr></thead>\n<tbody>\n" : "</tr>\n");
  }
  text_add(&p->body, "</tbody></table></div>\n");
}

const char *page_run_name(const page *p, bool other) {
  const run_record *r = other ? p->other : p->run;
  if (!p->other || strcmp(p->run->folder, p->other->folder) == 0) return r->name;
  /* The last part of the folder tells two runs of one pipeline apart. */
  const char *name = r->folder + strlen(r->folder);
  while (name > r->folder && name[-1] == '/') name--;
  while (name > r->folder && name[-1] != '/') name--;
  return *name ? name : r->name;
}

/* ---- the head ------------------------------------------------------------------------------- */

static void tile(text_buffer *out, const char *label, int decimals, double value, double other) {
  text_add(out, "<div class=\"tile\"><b>%.*f</b><span>", decimals, value);
  html_text(out, label);
  text_add(out, "</span>");
  if (isfinite(other)) text_add(out, "<small>%.*f</small>", decimals, other);
  text_add(out, "</div>\n");
}

static double mean_of(const run_record *r, const metric_info *m) {
  const json_t *mean = r ? json_object_get(json_object_get(r->evaluation, m->key), "mean") : NULL;
  return json_is_number(mean) ? json_number_value(mean) : NAN;
}

static void tiles(page *p) {
  scored_metric metrics[SCORED_MAX];
  int count = scored_metrics(p->run, metrics);
  text_add(&p->body, "<div class=\"tiles\">\n");
  for (int m = 0; m < count && m < 4; m++) {
    const metric_info *info = &metrics[m].info;
    double mean = mean_of(p->run, info);
    int decimals = info->decimals < 3 ? info->decimals : 3;
    if (isfinite(mean)) tile(&p->body, info->heading, decimals, mean, mean_of(p->other, info));
  }
  double seconds = 0;
  for (int i = 0; i < p->run->series_count; i++)
    for (int k = 0; strcmp(p->run->series[i].name, "seconds") == 0 && k < p->run->series[i].count;
         k++)
      seconds += p->run->series[i].value[k];
  char spent[24];
  text_add(&p->body, "<div class=\"tile\"><b>%s</b><span>of training</span></div>\n",
           format_duration(spent, seconds));
  text_add(&p->body, "</div>\n");
}

static void notes_of(text_buffer *out, const run_record *r, const char *of) {
  for (int i = 0; i < r->note_count; i++) {
    text_add(out, "<li>");
    if (of) html_format(out, "%s: ", of);
    html_text(out, r->notes[i]);
    text_add(out, "</li>\n");
  }
}

static void notes(text_buffer *out, const page *p) {
  if (p->run->note_count + (p->other ? p->other->note_count : 0) == 0) return;
  text_add(out, "<ul class=\"notes\">\n");
  notes_of(out, p->run, p->other ? page_run_name(p, false) : NULL);
  if (p->other) notes_of(out, p->other, page_run_name(p, true));
  text_add(out, "</ul>\n");
}

/* Colours of the classes' swatches. */
static void class_styles(text_buffer *out) {
  for (int c = 1; c <= PALETTE_SIZE; c++) {
    colour k = class_colour(c);
    text_add(out, ".swatch.c%d{background:#%02x%02x%02x}\n", c, k.r, k.g, k.b);
  }
  text_add(out, ".swatch.unknown{background:repeating-linear-gradient(135deg,#ebebeb 0 1px,#282828 "
                "1px 2px,#969696 2px 4px)}\n");
}

void page_assemble(const page *p, const char *name, const text_buffer *about, json_t *runs,
                   text_buffer *out) {
  text_add(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta name=\"color-scheme\" content=\"light dark\">\n"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>");
  html_format(out, "%s · Strata report", name);
  text_add(out, "</title>\n<style>\n");
  text_append(out, report_css, sizeof report_css - 1);
  class_styles(out);
  text_add(out, "</style></head><body>\n<header><h1>");
  html_text(out, name);
  text_add(out, "</h1><p>");
  text_append(out, about->data, about->length);
  text_add(out, "</p></header>\n<nav aria-label=\"Sections\">\n%s</nav>\n<main>\n",
           p->nav.data ? p->nav.data : "");
  if (p->lead.data) text_append(out, p->lead.data, p->lead.length);
  if (p->body.data) text_append(out, p->body.data, p->body.length);
  text_add(out, "</main>\n");
  json_t *data = json_pack("{s:o, s:O}", "runs", runs, "charts", p->charts);
  html_data(out, "data", data);
  json_decref(data);
  text_add(out, "<script>\n");
  text_append(out, report_js, sizeof report_js - 1);
  text_add(out, "</script>\n</body></html>\n");
}

void page_free(page *p) {
  text_free(&p->lead);
  text_free(&p->body);
  text_free(&p->nav);
  json_decref(p->charts);
}

/* ---- the report ----------------------------------------------------------------------------- */

static void about_run(const page *p, text_buffer *out) {
  if (p->other)
    html_format(out, "%s against %s · ", page_run_name(p, false), page_run_name(p, true));
  html_format(out, "Strata %s · seed %lld · %s", json_member(p->run->description, "strata"),
              (long long)json_integer_value(json_object_get(p->run->description, "seed")),
              json_member(p->run->description, "device"));
}

static status write_page(run_record *run, run_record *other, const char *path) {
  page p = {.run = run, .other = other, .charts = json_array()};
  tiles(&p);
  section_scores(&p);
  section_comparison(&p);
  section_cases(&p);
  section_pretext(&p);
  section_training(&p);
  section_network(&p);
  section_origin(&p);
  notes(&p.lead, &p);
  text_buffer out = {0}, about = {0};
  about_run(&p, &about);
  json_t *runs = json_pack("[s]", page_run_name(&p, false));
  if (other) json_array_append_new(runs, json_string(page_run_name(&p, true)));
  page_assemble(&p, run->name, &about, runs, &out);
  status error = file_write_atomic(path, out.data, out.length);
  text_free(&about);
  text_free(&out);
  page_free(&p);
  return error;
}

status report_page_write(const char *folder, const char *against, const char *path) {
  run_record run = {0}, other = {0};
  status error = record_open(folder, &run);
  if (!error && against) error = record_open(against, &other);
  char *inside = path_join(folder, "report.html");
  if (!error) error = write_page(&run, against ? &other : NULL, path ? path : inside);
  free(inside);
  record_close(&other);
  record_close(&run);
  return error;
}
