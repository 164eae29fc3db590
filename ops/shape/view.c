/* view: the same elements under another shape; what the gradients of reshape and its kin are. */
#include "ops/shape/view.h"

static status view_infer(infer *rule) {
  const view_attrs *attrs = rule->attrs;
  if (attrs->shape.count > MAX_DIMS)
    return shape_error("%d dimensions are too many; the limit is %d", attrs->shape.count, MAX_DIMS);
  shape wanted = shape_of(attrs->shape.count, attrs->shape.at);
  char have[96], want[96];
  if (shape_elements(&wanted) != shape_elements(&rule->in[0].shape))
    return shape_error("%s cannot be viewed as %s", shape_format(have, &rule->in[0].shape),
                       shape_format(want, &wanted));
  rule->out[0].shape = wanted;
  return OK;
}

const op op_view = {
    .name = "view",
    .family = "shape",
    .summary = "The same memory under another shape.",
    .version = 1,
    .traits = OP_INTERNAL | OP_VIEW,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "any", DTYPE_F32, 0, "the same values"}, {0}},
    .attrs = (const attr[]){{"shape", ATTR_INTS, offsetof(view_attrs, shape), NULL, 1, 1e12, NULL,
                             0, "every dimension"},
                            {0}},
    .attrs_bytes = sizeof(view_attrs),
    .infer = view_infer,
    .grad = view_back,
};
