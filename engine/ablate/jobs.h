/* Runs trials: each is a `strata run` of its own, so that a crash, or memory that runs out, ends one
 * of them and no other. */
#ifndef STRATA_ABLATE_JOBS_H
#define STRATA_ABLATE_JOBS_H

#include "ablate/trial.h"
#include "run/report.h"

enum { JOBS_MAX = 256 };

typedef struct jobs_options {
  const char *program;  /* that has the command `run` */
  int jobs;             /* trials at a time, 1 to JOBS_MAX */
  int64_t threads;      /* of all of them together; 0: every core */
  const char **devices; /* those of the trials at a time, in turn */
  int device_count;     /* 0: the pipeline's */
  bool (*stop)(void);   /* asked many times a second */
  reporter report;
} jobs_options;

/* Runs those that are not done, in order, those that were begun from where they stopped. Their states
 * are brought up to date in the structs and in trial.json; that a trial fails is no error here. Two
 * programs may work on one folder: a trial that another one has begun is waited for.
 *
 * When `stop` says so, the running ones save their state and the error is ERROR_INTERRUPTED. Should
 * this program die, they are told to stop, too. */
status trials_run(trial *const *trials, int count, const jobs_options *o);
/* "2 of 6 trials done, 1 begun, 1 failed". */
char *trials_describe(trial *const *trials, int count, char out[160]);

#endif
