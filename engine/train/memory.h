/* The memory that a training step of a stage holds, and the stage's budget for it. */
#ifndef STRATA_TRAIN_MEMORY_H
#define STRATA_TRAIN_MEMORY_H

#include "base/text.h"
#include "device/device.h"
#include "graph/expand.h"
#include "plan/budget.h"

typedef struct step_memory {
  plan_use use; /* what program_create plans for */
  /* Beside the arena: weights, running statistics, moments; where they are not consumed one by one,
   * gradients; where the stage has them, sums of gradients and averaged weights. */
  size_t outside_bytes;
  recomputation again;
} step_memory;

/* A stage's training graph that has been fitted into its budget: looking for what to compute again takes
 * seconds for a large network, so it is done once. */
typedef struct fitted_stage {
  bool is_there;
  stage_graph graph;
  step_memory memory;
} fitted_stage;

/* Moves it out; false: there is none. */
bool fitted_take(fitted_stage *from, stage_graph *graph, step_memory *memory);
/* Frees the list and what nobody took. */
void fitted_free(fitted_stage *list, int count);

/* Fits the stage's training graph into the stage's budget (`memory`): arena and what lies outside of
 * it together. Without a budget the graph stays as it is. A budget that cannot be met is an error at
 * its YAML line. Comes before program_create. */
status stage_fit_memory(const stage_spec *s, const device *d, stage_graph *graph, step_memory *out);
/* Of an error of program_create for the stage's step: memory that is lacking is the stage's, and there
 * is something to do about it. */
status stage_lacks_memory(const stage_spec *s, status error);
/* "317 nodes run twice: …"; nothing when none does. */
void step_memory_describe(const step_memory *m, text_buffer *out);
/* What outside_bytes are, in words. */
const char *step_memory_outside(const step_memory *m);
/* Bytes that an update reads and writes of weights, gradients, moments, sums and averages. */
double stage_update_bytes(const stage_spec *s, const graph *g);

#endif
