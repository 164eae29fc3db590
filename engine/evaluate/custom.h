/* Metrics that Lua scripts compute from the voxel counts of a class (docs/lua.md). */
#ifndef STRATA_EVALUATE_CUSTOM_H
#define STRATA_EVALUATE_CUSTOM_H

#include "evaluate/metrics.h"
#include "script/script.h"

typedef struct custom_metrics {
  script *scripts[CUSTOM_METRICS_MAX];
  int count;
} custom_metrics;

/* Loads the scripts; every mistake in one status. */
status custom_metrics_open(const custom_metric *list, int count, custom_metrics *out);
/* Fills in the values from METRIC_COUNT on of every foreground class of a case that score_case has
 * scored against `reference`. */
status custom_metrics_score(custom_metrics *m, const labels *reference,
                            const char *const *class_names, int class_count, case_score *score);
void custom_metrics_close(custom_metrics *m);

#endif
