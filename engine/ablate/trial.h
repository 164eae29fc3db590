/* A trial: one pipeline with its changes, run in a folder of its own,
 *
 *   OUT/trials/<pipeline's name>-<first half of the key>/
 *     trial.json   the key, the command, how it ended
 *     log.txt      what the run said, invocation by invocation
 *     trial.lock   locked while somebody works on it
 *     …            and what every run leaves (run/run.h)
 *
 * Its key is what makes two runs the same run, the pipeline's identity and the data's, so that every
 * script that shares OUT finds what has been done. */
#ifndef STRATA_ABLATE_TRIAL_H
#define STRATA_ABLATE_TRIAL_H

#include "language/pipeline.h"

typedef enum trial_state {
  TRIAL_NEW,
  TRIAL_BEGUN,  /* interrupted: goes on where it stopped */
  TRIAL_FAILED, /* tried again, from its last checkpoint where there is one */
  TRIAL_DONE
} trial_state;

enum { TRIAL_STAGES_MAX = 100 };

typedef struct stage_work {
  const char *stage;
  int64_t epochs, samples; /* of an epoch */
} stage_work;

/* Texts belong to the arena given to trial_resolve, `error` to the trial. */
typedef struct trial {
  const char *label;    /* for people: "ratio 0.4, seed 2" */
  const char *pipeline; /* path */
  const override *overrides;
  int override_count;

  /* Filled by trial_resolve. */
  const char *name;            /* the pipeline's */
  uint64_t key, identities[2]; /* of both: the pipeline's, the data's */
  int64_t seed;
  bool is_evaluated;
  const char **metrics; /* keys of what its evaluation measures */
  int metric_count;
  uint64_t tested; /* hash of the cases it is scored on: a sum, so that those of folds add up */
  stage_work work[TRIAL_STAGES_MAX]; /* of the enabled stages */
  int work_count;

  /* Filled by trial_find and brought up to date by trials_run. */
  const char *folder;
  trial_state state;
  double seconds; /* spent on it, over all invocations */
  char *error;    /* of a failed one: its first line, heap */
} trial;

/* Loads the pipeline and lists its data set: every mistake that needs no voxels and no graph is
 * found here. */
status trial_resolve(arena *memory, trial *t);
/* Compiles its stages and the network of its evaluation, which finds the mistakes of its graphs. */
status trial_compile(const trial *t);
/* Looks for the trial under `out` and reads how far it is; gives a new one its folder's name. Creates
 * nothing. */
status trial_find(arena *memory, const char *out, trial *t);
/* Reads trial.json again: somebody else may have worked on it. */
status trial_refresh(trial *t);
/* Is what was run what the key stands for? */
status trial_check_run(const trial *t);
/* Creates the folder where needed and writes trial.json with what `t` says. */
status trial_record(const trial *t);
/* "<folder>/<name>", heap. */
char *trial_file(const trial *t, const char *name);
/* Samples to train on in all, and how many of them metrics.jsonl reports as done. */
double trial_work(const trial *t);
double trial_work_done(const trial *t);
/* Of a trial that is done: name → number, what its last stage measured last. New; empty where
 * metrics.jsonl does not say. */
struct json_t;
struct json_t *trial_measured(const trial *t);
void trial_free(trial *t);

#endif
