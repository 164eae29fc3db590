/* stack: scalars as one vector, to report them together. */
#include "graph/graph.h"

static status stack_infer(infer *rule) {
  for (int i = 0; i < rule->in_count; i++)
    if (rule->in[i].shape.rank != 0) {
      char have[96];
      return shape_error("only scalars can be stacked, but input %d is %s", i + 1,
                         shape_format(have, &rule->in[i].shape));
    }
  rule->out[0].shape = SHAPE(rule->in_count);
  return OK;
}

static cost stack_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

static status stack_cpu(const call *c) {
  for (int i = 0; i < c->in_count; i++)
    ((float *)c->out[0].data)[i] = *(const float *)c->in[i].data;
  return OK;
}

const op op_stack = {
    .name = "stack",
    .family = "arithmetic",
    .summary = "Scalars as one vector.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "scalar", DTYPE_F32, PORT_VARIADIC, "scalars"}, {0}},
    .outputs = (const port[]){{"out", "M", DTYPE_F32, 0, "all of them"}, {0}},
    .infer = stack_infer,
    .cost = stack_cost,
    .cpu = stack_cpu,
};
