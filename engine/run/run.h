/* A run: all stages of a pipeline, then the evaluation, in one folder.
 *
 *   pipeline.lock.yaml      the resolved pipeline (every parameter, override and default filled in),
 *                           the files it names, hashes of all it is made of (run/lock.h)
 *   run.json                identities, classes, device, versions
 *   metrics.jsonl           one line an epoch and stage: loss terms, metrics, learning rate, speed
 *   metrics.csv             the same as a table
 *   tensorboard/<stage>     the same as event files, with `log: {tensorboard: true}`
 *   weights/<stage>.safetensors
 *   state.safetensors       everything an exact resume needs, while a stage is unfinished
 *   state.final.safetensors the same of the last stage when it was finished: it can be made longer
 *   samples/<stage>/        what a self-supervised stage makes of one case (train/sample.h)
 *   predictions/<case>.nii.gz, evaluation.json, evaluation.csv
 *   report.html             all of it on a page (report/page.h) */
#ifndef STRATA_RUN_RUN_H
#define STRATA_RUN_RUN_H

#include "data/dataset.h"
#include "device/device.h"
#include "language/pipeline.h"
#include "run/report.h"

enum { FORMER_IDENTITIES_MAX = 64 };

/* Loads a pipeline and lists its data set, which decides how it is scored and what its stages' crops are. On
 * error, too, the caller frees what there is. */
status run_load(const char *path, const override *overrides, int override_count, pipeline **p,
                dataset **data);

typedef struct run {
  pipeline *p;
  dataset *data;
  device *device;
  const char *folder;
  const char *cache; /* prepare cache folder; NULL = none */
  int in_use;        /* lock on the folder; −1: none */
  bool resume, changed_scripts, allow_changes;
  reporter report;
  const char *const *command; /* for run.json */
  /* Identities the run had before its scripts or keys were changed: a saved state may still have
   * one. */
  uint64_t former_identities[FORMER_IDENTITIES_MAX];
  int former_identity_count;
  bool went_on_with_scripts,
      went_on_with_keys; /* other ones: its lock does not train its weights */
  bool *operators;       /* op_count() flags: those that run_compile found in use; may be NULL */
  struct fitted_stage *fitted; /* by stage: what run_compile keeps for stage_train; may be NULL */
  struct lock *lock;           /* what this run is made of, as its lock says (run/lock.h) */
  struct lock *locked;         /* what the lock says that it was started from; NULL: from none */
  char **changes;              /* in which these differ, allowed */
  int change_count;
  FILE *metrics;                   /* metrics.jsonl, appended and flushed line by line */
  double csv_written_s;            /* when metrics.csv was */
  const char *const *scored_names; /* classes, or regions: see evaluate_row_names */
  int scored_count;
} run;

typedef struct run_options {
  const char *pipeline_path;
  const override *overrides;
  int override_count;
  const char *folder; /* NULL: runs/<name>, numbered when taken */
  bool resume;
  bool resume_if_any; /* the same where `folder` holds a run, which else is begun there */
  bool
      changed_scripts; /* go on with a run whose Lua files say something else now; run.json notes it */
  bool allow_changes; /* of what a lock says, or the lock of the run that is resumed */
  int64_t threads;    /* 0: the pipeline's */
  const char *device; /* NULL: the pipeline's */
  const char *const
      *command; /* the words of the command line for run.json; NULL-terminated, or NULL */
  reporter report;
} run_options;

/* Results are equal to the bit on devices where this is equal. */
const char *run_numerics(const pipeline *p, const device *d);

/* Everything. On ERROR_INTERRUPTED the state is saved and `--resume` goes on. `folder` (heap, may
 * be NULL) receives the run's folder. */
status run_pipeline(const run_options *o, char **folder);

/* Asks a running run to stop after the present step (async-signal-safe). */
void run_request_stop(void);
bool run_stop_requested(void);
/* An inferer's `after`, whose context is a case_progress: reports it, and is ERROR_INTERRUPTED in the
 * middle of a case when a stop was requested. */
status run_after_windows(void *context, int64_t done, int64_t windows);

/* Where a run goes when nobody says: runs/<name>, or runs/<name>-2, … when that holds a run already.
 * Heap-owned. */
char *run_fresh_folder(const char *name);
/* Where its prepared cases are kept: the pipeline's `cache`, or beside the run's folder. NULL: nowhere.
 * Heap-owned. */
char *run_cache_folder(const data_spec *spec, const char *folder);

/* ---- parts ------------------------------------------------------------------------------- */

/* Compiles every stage and the network of the evaluation, so that a mistake in the last of them is
 * found before the first has trained for a day. All mistakes in one status. */
status run_compile(const run *r);
/* Writes metrics.csv anew from metrics.jsonl if that has not been done for half a minute. It is written
 * at the end of a run in any case, and when a resumed one begins. */
status run_csv_when_due(run *r);
/* Trains one stage to its end (or continues it from a saved state) and writes its weights. */
struct run_state;
status stage_train(run *r, int stage_index, const struct run_state *resume_from);
/* Evaluates the test cases: predictions, evaluation.json and .csv. */
status run_evaluate(run *r);

#endif
