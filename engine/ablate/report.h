/* What a study found: every arm's figures, and its differences from the baseline, case by case. */
#ifndef STRATA_ABLATE_REPORT_H
#define STRATA_ABLATE_REPORT_H

#include "ablate/study.h"
#include "statistics/compare.h"

/* One metric of one arm. */
typedef struct arm_metric {
  moments runs;       /* of the means of its runs: a run is a seed, all folds together */
  moments cases;      /* of a study with one seed: of the means of the run's cases */
  bool is_compared;   /* with a baseline */
  comparison compare; /* of the two arms; its only contrast is the mean over classes */
  double holm;        /* Wilcoxon's p over all arms of the study that are compared */
} arm_metric;

typedef struct study_report {
  arena memory;
  const study *s;
  const results_metric *metrics; /* reported */
  int metric_count;
  arm_metric *cells; /* arm by arm, metric by metric */
} study_report;

/* Of a study whose trials have not all run: finds metrics that the evaluation of an arm will not hold,
 * and arms whose test cases are not those of their baseline. `out` is a report without figures. */
status report_ahead(const study *s, const char *const *metrics, int count, study_report *out);
/* `metrics` by name or key; none: all that the evaluations hold. A case counts once: with the mean of
 * its values over the seeds. Seeds that failed in the arm or in its baseline are left out of the
 * comparison. */
status report_make(const study *s, const char *const *metrics, int count, study_report *out);
void report_free(study_report *r);
static inline arm_metric *report_cell(const study_report *r, int arm, int metric) {
  return &r->cells[arm * r->metric_count + metric];
}
/* Mean of a case's metric over the seeds of an arm whose trials are done; NaN without. */
double report_case_mean(const study_report *r, int arm, int metric, const char *name);
/* Trials of an arm in a state. */
int arm_trials(const study *s, int arm, trial_state state);

/* Mean of a trial's metric over its cases; NaN without (r NULL, too). */
double report_run_mean(const results *r, const char *metric);

/* An arm's figures: names and counts, and for each metric a mapping with mean, sd, difference, … */
struct json_t;
struct json_t *report_row(const study_report *r, int arm);
/* A row for each trial: arm, seed, state, folder, seconds, metrics, cases. */
struct json_t *trial_rows(const study *s);
/* For the terminal: a table and what its numbers are; heap. */
char *report_text(const study_report *r);
/* OUT/<study>.md, .html, .csv, .json. */
status report_write(study_report *r);

#endif
