/* A study: arms (pipelines that differ in something), each repeated over seeds and folds. */
#ifndef STRATA_ABLATE_STUDY_H
#define STRATA_ABLATE_STUDY_H

#include "ablate/jobs.h"
#include "statistics/results.h"

typedef struct ablation_options {
  const char *script;
  const override *arguments; /* --arg name=value, values are YAML */
  int argument_count;
  const override *overrides; /* --set, of every trial; what a script changes counts more */
  int override_count;
  const char *out; /* folder of trials/ and of the tables */
  bool dry_run;
  jobs_options jobs;
  const char *command; /* that started all this, for the tables */
} ablation_options;

/* A pipeline with changes. */
typedef struct variant {
  const char *path;
  override *changes;
  int count, capacity;
} variant;

typedef struct study_arm {
  const char *label;
  const char **levels; /* of each factor of the study; NULL: added by hand */
  variant pipeline;
  int baseline; /* index of the arm it is compared with; −1: none */
} study_arm;

typedef struct study {
  arena memory;
  const ablation_options *o;
  const char *name;     /* of the tables' files */
  const char **factors; /* NULL levels where an arm has none */
  int factor_count, factor_capacity;
  study_arm *arms;
  int arm_count, arm_capacity;
  int64_t *seeds; /* NULL: the pipeline's, and those after it */
  int seed_count; /* ≥ 1 */
  int64_t folds;  /* 0: the pipeline's split */
  const char *baseline_label;
  const char **baseline_levels; /* of each factor, NULL: any. Or NULL */

  bool is_planned; /* the trials are those of the arms, seeds and folds above */
  trial *trials;   /* arm by arm, seed by seed, fold by fold */
  int64_t *trial_folds;
  int trial_count;
  results **results;    /* of each trial; NULL: it has none */
  int rehearsed_trials; /* so many, the last time; session.h */
} study;

/* Everything below is in the study's memory. Texts are copied. */
status study_create(const ablation_options *o, const char *name, study **out);
void study_free(study *s);

/* A change; later ones count more. */
void variant_set(arena *memory, variant *v, const char *key, const char *value);
variant variant_copy(arena *memory, const variant *v);
/* With --set and its changes. */
status variant_load(const ablation_options *o, const variant *v, pipeline **out);

/* `levels` NULL, or a text for each factor. Two arms of one label are an error. */
status study_add_arm(study *s, const char *label, const char *const *levels, const variant *v);
/* Index of the factor, which is added where it is new. */
int study_factor(study *s, const char *name);
/* Trials of an arm. */
int study_repeats(const study *s);
static inline trial *study_trial(const study *s, int arm, int repeat) {
  return &s->trials[arm * study_repeats(s) + repeat];
}

/* Makes the list of trials, resolves every one of them and looks what is done. All mistakes in one
 * status; two arms that are the same pipeline are one. */
status study_plan(study *s);
/* Compiles every arm that has something to do, by one of its trials; arms after the first half minute
 * are left to their trials. All mistakes in one status. */
status study_compile(const study *s);
/* Runs what is not done, then reads the results. */
status study_run(study *s);
/* What --dry-run prints: heap. */
char *study_describe(const study *s);

#endif
