/* A model file alone, ready to run: no pipeline, no data set. What `strata forward` and the golden
 * tests compare with other frameworks. */
#ifndef STRATA_INFER_STANDALONE_H
#define STRATA_INFER_STANDALONE_H

#include "execute/program.h"
#include "graph/expand.h"

typedef struct standalone {
  pipeline *p;
  stage_graph graph;
  parameters parameters; /* fresh values of seed 0 until they are overwritten */
  program program;
} standalone;

typedef struct standalone_options {
  const char *path;          /* model file; shipped models by their name, models/unetr.yaml */
  const override *overrides; /* of the model's parameters */
  int override_count;
  expand_options input; /* shape of the input, training mode */
  model_loss loss;      /* whether there are gradients */
} standalone_options;

/* `d` is borrowed until standalone_close. On error *out needs no close. */
status standalone_open(const standalone_options *o, device *d, standalone *out);
void standalone_close(standalone *s);
/* Runs once; random operators draw from `seed`. The weights do not change, running statistics do
 * in training mode. Afterwards program_read gives the outputs. */
status standalone_run(standalone *s, uint64_t seed);
/* The gradient of a parameter after a run, on the device; NULL when the loss does not reach it. */
const float *standalone_gradient(const standalone *s, const parameter *which);

/* Between PyTorch's order (N C X Y Z) and ours (N X Y Z C) for tensors of rank 5; the others have
 * one order. `to` holds as many numbers as `from`. */
void tensor_from_torch(const shape *ours, const float *from, float *to);
void tensor_to_torch(const shape *ours, const float *from, float *to);
/* The shape PyTorch gives it. */
shape shape_in_torch(const shape *ours);

#endif
