/* sum_to: the gradient of a value that was repeated along some axes is a sum over them. */
#include "ops/arithmetic/sum_to.h"

#include "ops/kernels/broadcast.h"

enum { IN_X, IN_FACTOR };

static status sum_to_infer(infer *rule) {
  const sum_to_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[IN_X].shape, *factor = &rule->in[IN_FACTOR].shape;
  char have[96], want[96];
  if (attrs->shape.count > MAX_DIMS)
    return shape_error("%d dimensions are too many; the limit is %d", attrs->shape.count, MAX_DIMS);
  shape out = shape_of(attrs->shape.count, attrs->shape.at);
  if (!broadcasts_to(&out, x))
    return shape_error("%s does not repeat to %s", shape_format(want, &out), shape_format(have, x));
  if (factor->rank >= 0 && !broadcasts_to(factor, x))
    return shape_error("the factor %s does not repeat to %s", shape_format(want, factor),
                       shape_format(have, x));
  rule->out[0].shape = out;
  return OK;
}

static cost sum_to_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)out;
  return (cost){.flops = in_count * (double)shape_elements(&in[IN_X].shape)};
}

static size_t sum_to_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                               int threads) {
  (void)attrs, (void)in_count, (void)threads;
  return broadcast_sum_workspace(&in[IN_X].shape, &out[0].shape);
}

static status sum_to_cpu(const call *c) {
  broadcast_sum(&c->in[IN_X].shape, c->in[IN_X].data, &c->in[IN_FACTOR].shape,
                c->in[IN_FACTOR].data, &c->out[0].shape, c->out[0].data, c->workspace, c->pool);
  return OK;
}

const op op_sum_to = {
    .name = "sum_to",
    .family = "arithmetic",
    .summary = "Sum over the axes along which a value was repeated.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "what to add up"},
                             {"factor", "repeats to x", DTYPE_F32, PORT_OPTIONAL,
                              "multiplied with x before"},
                             {0}},
    .outputs = (const port[]){{"out", "repeats to x", DTYPE_F32, 0, "Σ x · factor"}, {0}},
    .attrs = (const attr[]){{"shape", ATTR_INTS, offsetof(sum_to_attrs, shape), "[]", 1, 1e12, NULL,
                             0, "dimensions of the result; none for a scalar"},
                            {0}},
    .attrs_bytes = sizeof(sum_to_attrs),
    .infer = sum_to_infer,
    .cost = sum_to_cost,
    .workspace_bytes = sum_to_workspace,
    .cpu = sum_to_cpu,
};
