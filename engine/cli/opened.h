/* What check, plan, bench and preview share: a pipeline with its data set's list, and its compiled
 * steps. */
#ifndef STRATA_CLI_OPENED_H
#define STRATA_CLI_OPENED_H

#include "cli/command.h"
#include "data/dataset.h"
#include "execute/program.h"
#include "graph/expand.h"
#include "graph/precision.h"
#include "infer/network.h"
#include "train/groups.h"
#include "train/memory.h"

/* A pipeline with its data set's list, before any voxel. */
typedef struct opened {
  pipeline *p;
  dataset *data;
  device *device;
} opened;

/* On error too, close_pipeline frees what there is. */
status open_pipeline(const arguments *a, opened *o);
void close_pipeline(opened *o);
/* The stage called `name`; NULL: the last one that is enabled. */
status choose_stage(const opened *o, const char *name, const stage_spec **out);
/* Its training graph. */
status expand_stage(opened *o, const stage_spec *s, int64_t batch, stage_graph *out);
cost graph_cost(const graph *g);

/* A training step, ready to run on random voxels. */
typedef struct compiled {
  stage_graph graph;
  step_memory memory;
  parameter_groups groups;
  parameters parameters;
  program program;
} compiled;

status compile_step(opened *o, const stage_spec *s, int64_t batch, compiled *c);
/* The stage's network as evaluation and predict run it, with fresh weights and random windows;
 * network_close frees it. */
status compile_inference(opened *o, const stage_spec *s, network *n);
void close_step(compiled *c);

/* How much of a step is bf16 or tf32, and what that means here, as one line without its end; false
 * when all is f32. */
enum { PRECISION_TEXT_BYTES = 512 };
bool describe_precision(const graph *g, const device *d, char out[PRECISION_TEXT_BYTES]);

/* A line for each group of parameters; nothing when there are none. */
void print_groups(const parameter_groups *groups);

#endif
