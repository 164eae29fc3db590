/* adamw: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in the order
 * of operations of torch.optim.AdamW. */
#include "ops/optimizer/adam_update.h"

static const attr adamw_attr_list[] = {
    ADAM_ATTRS("0.01", "share of a parameter lost per unit of lr"), {0}};

static status adamw_cpu(const call *c) {
  return adam_update(c, true);
}

const op op_adamw = {
    .name = "adamw",
    .family = "optimizer",
    .summary = "Adam with decoupled weight decay.",
    .doc = "m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; parameter ← (1 − lr · weight_decay) · "
           "parameter − lr · m̂ / (√v̂ + eps), with m̂ and v̂ corrected for their start at 0 "
           "(Loshchilov and Hutter, arXiv 1711.05101).",
    .torch = "torch.optim.AdamW(parameters, lr, (beta1, beta2), eps, weight_decay)",
    .version = 1,
    .traits = OP_OPTIMIZER,
    .inputs = adam_inputs,
    .attrs = adamw_attr_list,
    .attrs_bytes = sizeof(adam_attrs),
    .infer = adam_infer,
    .cost = adam_cost,
    .cpu = adamw_cpu,
    .state_buffers = 2,
};
