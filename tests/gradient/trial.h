/* A trial of an operator: a graph of the operator alone, differentiated where it has a gradient, with
 * shapes and attributes drawn within one of its declared cases (op_case in graph/op.h). */
#ifndef STRATA_TESTS_TRIAL_H
#define STRATA_TESTS_TRIAL_H

#include "execute/program.h"

enum { TRIAL_TENSORS = 24, TRIAL_TEXT_BYTES = 2048, TRIAL_BATCH = 16 };

typedef struct input_text {
  bool absent;
  shape shape;
  int32_t low, high; /* i32, sets */
  bool sets;         /* of regions */
} input_text;

/* What stands around the operator. */
typedef struct surroundings {
  bool products;  /* linear layers of its inputs and of its results, where these are rows */
  bool scales_in; /* a scaling between the layer of an input and the operator */
  bool scales_out;
  bool inference; /* nothing is differentiated */
} surroundings;

typedef struct trial {
  graph *g;
  surroundings around;
  value_id params[TRIAL_TENSORS]; /* everything differentiated */
  int param_count;
  value_id states[TRIAL_TENSORS]; /* running statistics: no gradient */
  int state_count;
  value_id images[TRIAL_TENSORS]; /* f32 inputs of an operator without a gradient */
  int image_count;
  value_id labels[TRIAL_TENSORS];
  input_text label_range[TRIAL_TENSORS];
  int label_count;
  value_id outputs[TRIAL_TENSORS], seeds[TRIAL_TENSORS]; /* differentiated, and by what weights */
  int output_count;
  value_id results[TRIAL_TENSORS]; /* every output that can be named */
  int result_count;
  bool is_empty; /* an operator that is switched off (dropout at rate 0) leaves no node */
  rng values;    /* where the values are drawn from */
  char shown[TRIAL_TEXT_BYTES];
  program program;
  parameters parameters;
  arena memory;
} trial;

/* What the command line of a program of trials asks for. */
typedef struct trial_options {
  uint64_t seed;
  int trials;
  const char *device;
  char **names; /* of operators, within argv; none: all */
  int name_count;
} trial_options;

/* [--seed N] [--trials N] [--device NAME] [OPERATOR…]; what is not given stays as it is in *o. Orders argv. */
void trial_options_read(int argc, char **argv, trial_options *o);
bool trial_is_asked(const trial_options *o, const op *which);
/* The device of that name; without it the program ends with exit status 1 and says why. */
device *trial_device(const char *name, int threads);

/* A step operator that the gradient check is for. */
bool trial_is_differentiable(const op *o);
/* Draws the shapes and attributes and builds the graph; trial_free in any case. */
status trial_build(const op *o, const op_case *c, uint64_t seed, trial *out);
/* The same for an operator among others; NULL: alone. */
status trial_build_among(const op *o, const op_case *c, uint64_t seed, const surroundings *around,
                         trial *out);
void trial_free(trial *t);
/* Compiles it for a device and fills it with the same values every time. */
status trial_open(trial *t, device *d);
void trial_close(trial *t);

#endif
