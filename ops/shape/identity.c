/* identity: its input under another name. */
#include "ops/arithmetic/elementwise.h"
#include "ops/shape/view.h"

static status identity_grad(grad *rule) {
  rule->dx[0] = rule->dy[0];
  return OK;
}

const op op_identity = {
    .name = "identity",
    .family = "shape",
    .summary = "Its input, under another name.",
    .doc = "Gives a value a name of its own, such as `out`, so that a block can be changed "
           "without its users noticing.",
    .torch = "x",
    .version = 1,
    .traits = OP_VIEW,
    .inputs = (const port[]){{"x", "any", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "as x", DTYPE_F32, 0, "the same values"}, {0}},
    .infer = infer_same_shape,
    .grad = identity_grad,
    .cases = (const op_case[]){{"{}", "[1..3, 1..5, 2]", 0}, {0}},
};
