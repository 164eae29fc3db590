/* What an evaluation found, read back: cases × metrics × classes. */
#ifndef STRATA_STATISTICS_RESULTS_H
#define STRATA_STATISTICS_RESULTS_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct results_metric {
  const char *key; /* as in evaluation.json: "dice", "hd95_mm" */
  /* What its numbers depend on besides the voxels: the policy for empty classes, the definition of
   * HD95, the tolerance of NSD. Values under different ones cannot be compared. */
  const char *definition;
} results_metric;

typedef struct results {
  arena memory;     /* of everything below */
  const char *path; /* as given: a run's folder or a JSON file */
  const char *file; /* the JSON file */
  results_metric *metrics;
  const char **classes; /* foreground */
  const char **cases;   /* sorted by name (strcmp) */
  int metric_count, class_count, case_count;
  double *values; /* [case][metric][class]; NaN where a metric is not defined */
  /* From run.json beside it, NULL where there is none. */
  const char *name, *data_identity, *pipeline_identity;
  int64_t seed; /* −1 without run.json */
} results;

/* Reads the evaluation.json of a run's folder, or a file that `strata evaluate --json` wrote.
 *
 * The file is not trusted: every case has every metric and every class, numbers are finite or null,
 * names are those of the summary, none stands twice, and anything else is an error that names the
 * file and the case. `out` is to be freed only after success. */
status results_read(const char *path, results *out);
void results_free(results *r);

/* The key of a metric that is named with or without its unit (hd95, hd95_mm). */
const char *results_metric_key(const char *name);
/* Index, or −1. A metric may be named by either. */
int results_metric_index(const results *r, const char *name);
int results_class_index(const results *r, const char *name);
int results_case_index(const results *r, const char *name);

double results_value(const results *r, int case_index, int metric, int class_index);
/* Mean over the classes of a case whose value is defined, as evaluation.json's mean is built; NaN
 * when none is. */
double results_case_mean(const results *r, int case_index, int metric);

#endif
