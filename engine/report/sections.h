/* The sections of the report. Each adds its HTML, and what its charts need to `charts`; a section
 * without anything to show adds nothing. `other` is the run to compare with, or NULL. */
#ifndef STRATA_REPORT_SECTIONS_H
#define STRATA_REPORT_SECTIONS_H

#include "base/table.h"
#include "report/html.h"
#include "report/record.h"

typedef struct page {
  run_record *run, *other; /* NULL: the page is not of a run */
  text_buffer lead;        /* comes before the sections, though it is known after them */
  text_buffer body;
  text_buffer nav;
  json_t *charts; /* [{id, kind, …}]: what report.js draws into <figure id> */
  int figures;
} page;

void section_training(page *p);
void section_scores(page *p);
void section_comparison(page *p);
void section_cases(page *p);
void section_pretext(page *p);
void section_network(page *p);
void section_origin(page *p);

/* <section id=…><h2>title</h2>, and its place in the navigation. */
void page_section(page *p, const char *id, const char *title);
void page_section_end(page *p);
/* An empty <figure> for a chart, and its place in `charts`; `chart` (stolen) has everything but the
 * id. */
void page_chart(page *p, json_t *chart, const char *kind, const char *title);
/* A table with its headings. */
void page_table(page *p, const table *t, const char *id);
/* The whole page: `about` is HTML below its name; `runs` (stolen) are the names of the one or two runs
 * that the charts tell apart. */
void page_assemble(const page *p, const char *name, const text_buffer *about, json_t *runs,
                   text_buffer *out);
/* All but the runs. */
void page_free(page *p);
/* What a run is called where two are shown. */
const char *page_run_name(const page *p, bool other);

/* Metrics of evaluation.json that the run has: those of metric_table in its order, then those of one's
 * own. */
enum { SCORED_MAX = METRIC_COUNT + 16 };
typedef struct scored_metric {
  metric_info info;
  bool share; /* between 0 and 1, and the higher the better */
  const json_t *summary;
} scored_metric;
int scored_metrics(const run_record *r, scored_metric out[SCORED_MAX]);
/* Does the metric lie between 0 and 1? */
bool metric_is_share(int metric);

#endif
