/* Inside of train/: a stage while it is trained. */
#ifndef STRATA_TRAIN_TRAINER_H
#define STRATA_TRAIN_TRAINER_H

#include "augment/feed.h"
#include "infer/network.h"
#include "run/run.h"
#include "run/tensorboard.h"
#include "train/controls.h"
#include "train/memory.h"
#include "train/tally.h"

/* A batch whose step has been started and whose results have not been read. */
typedef struct running_batch {
  bool is_there;
  void *note; /* the device's; kept from batch to batch */
  int64_t epoch, step;
  const char **case_names; /* heap, a name a sample; the names are the data set's */
} running_batch;

typedef struct trainer {
  run *r;
  const stage_spec *stage;
  int index;
  stage_graph graph;
  step_memory memory;
  parameters parameters;
  program program;
  controls controls;
  stage_graph check_graph; /* the same graph without dropout and backward, for validation */
  program check;
  int64_t check_batch; /* samples in its step */
  network network;     /* the segmentation, when the stage names its output */
  bool has_check, has_network;
  bool keeps_state; /* when it is finished */
  feed feed;        /* of batches to the programs */
  loader *loader;
  batch *next;              /* taken from the loader for the next step; NULL: none yet */
  status next_error;        /* why there is none */
  running_batch running[2]; /* on a GPU a step runs while the host looks at the one before */
  int turn;                 /* of `running`, the next one */
  double *case_weights;     /* NULL: every case alike */
  run_state state;
  tally epoch;
  named_number results[STATE_MAX_VALUES]; /* of the last finished epoch, for the hook and the log */
  int result_count;
  double started_s, saved_s, step_started_s;
  int64_t steps_per_epoch, steps_here; /* steps (updates) done by this process */
  int64_t batches_per_epoch;
  bool by_epoch;       /* the sample operators' numbers change between epochs */
  int64_t begun_epoch; /* whose numbers they have; −1: none yet */
  double last_dice;
  hook_class *classes;  /* of the last validation: the foreground classes, for on_validation */
  double *class_values; /* METRIC_SLOTS of each class, the first ones used: class_metrics */
  const char *class_metrics[METRIC_SLOTS];
  int class_count, class_metric_count;
  char *weights_path, *state_path, *final_state_path;
  event_file *events; /* NULL: no TensorBoard */
} trainer;

/* ---- stage.c ------------------------------------------------------------------------------- */

/* Of the stage, all its processes together. */
double trainer_elapsed_s(const trainer *t);

/* ---- validation.c -------------------------------------------------------------------------- */

void trainer_add_result(trainer *t, const char *prefix, const char *name, double value);
/* Measures on the validation cases, with the averaged weights where there are any; adds to the
 * results. */
status trainer_validate(trainer *t);

/* ---- epoch.c ------------------------------------------------------------------------------- */

/* Everything that happens between two epochs. When the user asks to stop during the validation, or a
 * script fails, nothing has happened yet: the state still stands before the end of this epoch. */
status trainer_finish_epoch(trainer *t, bool *stop);
/* All of the stage's epochs are done. */
void trainer_note_end(trainer *t);
/* Calls on_stage_end. */
status trainer_end_stage(trainer *t);

#endif
