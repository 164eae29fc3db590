/* Inside of execute/: calls bound to memory, and what changes between steps. */
#ifndef STRATA_EXECUTE_BOUND_H
#define STRATA_EXECUTE_BOUND_H

#include "execute/program.h"
#include "language/pipeline.h"

typedef struct bound_call {
  const op *op;
  const node *node; /* NULL: clipping or the optimizer */
  call call;
  bool chained; /* its kernel runs the next call, too (op_chain) */
} bound_call;

/* What changes from one update to the next: attributes of the calls after the last node. */
struct updates {
  const op *op;
  const void *base_attrs; /* the optimizer's, borrowed */
  const group_spec *const *groups;
  void **group_attrs; /* a copy per group, which the group's numbers then change */
  int group_count;
  void *accumulate_attrs, *average_attrs;
  int accumulate_call; /* −1: there is none */
  double average_decay;
  bool average_warmup;
};

/* ---- program.c ----------------------------------------------------------------------------- */

/* Of the weight that the call's kernel reads packed; 0: there is none. */
size_t bound_packed_bytes(const bound_call *b);
/* Whether one kernel may run both (op_chain), where both are bound to memory of the host. */
bool bound_can_chain(const bound_call *own, const bound_call *next);
static inline int64_t flat_count(const program *p) {
  return p->parameters->trained_elements;
}
static inline tensor flat_tensor(float *data, int64_t n) {
  return (tensor){.dtype = DTYPE_F32, .shape = SHAPE(n), .data = data};
}

/* ---- scheduled.c --------------------------------------------------------------------------- */

/* Room for the numbers of `calls` calls and of the update, on the device. */
status scheduled_open(program *p, int calls);
/* Once the calls are bound. */
status scheduled_bind(program *p);
void scheduled_close(program *p);
/* Numbers that have changed since the last time go to the device, in one copy, in the order of its work:
 * what was launched before still reads the old ones. */
status scheduled_send(program *p);

/* ---- step.c -------------------------------------------------------------------------------- */

void step_forget_recordings(program *p);

#endif
