/* Which group of the optimizer every parameter belongs to. */
#ifndef STRATA_TRAIN_GROUPS_H
#define STRATA_TRAIN_GROUPS_H

#include "base/text.h"
#include "execute/program.h"
#include "graph/graph.h"
#include "language/pipeline.h"

typedef struct parameter_groups {
  const group_spec **specs; /* the stage's groups, then NULL for the rest */
  int count;
  int *of;           /* group of every value of the graph */
  int *tensors;      /* trained parameters in the group */
  int64_t *elements; /* … and how many numbers they hold */
} parameter_groups;

/* A parameter belongs to the first group that it fits. Patterns that fit no parameter and groups
 * that get none are errors. `g` is differentiated. Memory comes from the graph. */
status parameter_groups_open(const stage_spec *s, graph *g, parameter_groups *out);
/* A line for each group; nothing when there is only the rest. */
void parameter_groups_describe(const parameter_groups *groups, text_buffer *out);
/* Whether each parameter is updated as soon as its gradient is complete: where no part of an update looks at
 * all gradients at once. On a GPU one launch over all weights beats one for each of hundreds, so there only
 * where the stage has a budget of memory. */
bool stage_consumes_gradients(const stage_spec *s, const device *d);
/* What the stage asks of the program. */
optimizer_use stage_optimizer(const stage_spec *s, const device *d, const parameter_groups *groups);

#endif
