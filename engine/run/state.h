/* The full state of a training stage, for an exact resume: parameters, optimizer moments, averaged
 * weights and what the metadata says. One safetensors file, replaced atomically. */
#ifndef STRATA_RUN_STATE_H
#define STRATA_RUN_STATE_H

#include "execute/program.h"
#include "language/pipeline.h"

#define RUN_STATE_FILE "state.safetensors"             /* of a stage that is not finished */
#define RUN_FINAL_STATE_FILE "state.final.safetensors" /* of the last stage as it ended */

enum { STATE_MAX_VALUES = 256 };

typedef enum stage_end { END_NOT_YET, END_EPOCHS, END_TIME_LIMIT, END_HOOK } stage_end;

typedef struct named_number {
  char name[96];
  double value;
} named_number;

typedef struct run_state {
  int stage;                           /* index */
  int64_t epoch, step;                 /* the next step to do: step counts within the epoch */
  int64_t updates;                     /* optimizer steps done in this stage */
  double elapsed_s;                    /* of the stage */
  named_number sums[STATE_MAX_VALUES]; /* running sums of the epoch in progress */
  int sum_count;
  named_number numbers[STATE_MAX_VALUES]; /* set by hooks */
  int number_count;
  named_number
      measured[STATE_MAX_VALUES]; /* last value of everything that finished epochs measured */
  int measured_count;
  char *hook_states[HOOK_COUNT]; /* JSON, heap; NULL without the hook */
  named_number best;             /* by `keep_best`, of the validations so far; name "": none */
  int64_t best_epoch;            /* that it was measured after */
  float *best_weights; /* all parameters as they were then, on the host, borrowed; NULL: none */
  char ended[200];     /* why the stage's epochs are over; "": they are not */
  stage_end end;       /* the same, for the program */
  int64_t epochs;      /* that the stage was to have; 0: an older program has not said */
  uint64_t identity;   /* of the pipeline */
  bool is_final;       /* read from RUN_FINAL_STATE_FILE */
} run_state;

/* Where a value is not finite, an ERROR_NUMERIC names its parameter, and the file stays as it was. */
status state_save(const char *path, const run_state *s, const program *p);
/* Reads the metadata only. */
status state_open(const char *path, run_state *out);
/* Fills parameters, moments and averaged weights of a program compiled from the same pipeline. */
status state_restore(const char *path, program *p);
/* The weights that were best, into memory for all parameters. */
status state_restore_best(const char *path, const parameters *p, float *to);
void state_free(run_state *s);

/* Writes the parameters as PyTorch-named tensors, if all are finite, as state_save. */
status parameters_write(const char *path, const parameters *p, const char *const *metadata);

#endif
