/* adam: steps scaled by the root of the mean squared gradient (Kingma and Ba, arXiv 1412.6980), in
 * the order of operations of torch.optim.Adam. */
#include "ops/optimizer/adam_update.h"

static const attr adam_attr_list[] = {
    ADAM_ATTRS("0", "factor of the parameter added to its gradient (an L2 penalty)"), {0}};

static status adam_cpu(const call *c) {
  return adam_update(c, false);
}

const op op_adam = {
    .name = "adam",
    .family = "optimizer",
    .summary = "Adam; weight decay is an L2 penalty.",
    .doc = "g ← g + weight_decay · parameter; m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; parameter "
           "← parameter − lr · m̂ / (√v̂ + eps), with m̂ and v̂ corrected for their start at 0 "
           "(Kingma and Ba, arXiv 1412.6980). For decay that does not pass through the moments use "
           "adamw.",
    .torch = "torch.optim.Adam(parameters, lr, (beta1, beta2), eps, weight_decay)",
    .version = 1,
    .traits = OP_OPTIMIZER,
    .inputs = adam_inputs,
    .attrs = adam_attr_list,
    .attrs_bytes = sizeof(adam_attrs),
    .infer = adam_infer,
    .cost = adam_cost,
    .cpu = adam_cpu,
    .state_buffers = 2,
};
