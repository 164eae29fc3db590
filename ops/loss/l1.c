/* l1: mean of |prediction − target|. */
#include "ops/loss/regression.h"

static status l1_grad(grad *rule) {
  return regression_grad(rule, "l1_backward");
}

static status l1_cpu(const call *c) {
  return regression_forward(c, (regression_kind){REGRESSION_ABSOLUTE, 0});
}

static status l1_backward_cpu(const call *c) {
  return regression_backward(c, (regression_kind){REGRESSION_ABSOLUTE, 0});
}

const op op_l1 = {
    .name = "l1",
    .family = "loss",
    .summary = "Mean absolute error.",
    .doc = "loss = mean of |prediction − target| over all elements. With a mask, which may be the "
           "coarse grid of patches that mask_patches returns, only elements where it is 1 count.",
    .torch = "torch.nn.functional.l1_loss(prediction, target)",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = REGRESSION_INPUTS,
    .outputs =
        (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean of |prediction − target|"}, {0}},
    .infer = regression_infer,
    .grad = l1_grad,
    .cost = regression_cost,
    .workspace_bytes = regression_workspace,
    .cpu = l1_cpu,
    /* Wide tolerance: a difference that spans the corner at 0 measures neither side. */
    .cases = (const op_case[]){{"{}", "[1, 3, 4]; [1, 3, 4]; -", 0.3},
                               {"{}", "[2, 2, 2, 4, 1]; [2, 2, 2, 4, 1]; -", 0.3},
                               {0}},
};

const op op_l1_backward = {
    .name = "l1_backward",
    .family = "loss",
    .summary = "Gradient of l1 for the prediction.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = REGRESSION_BACKWARD_INPUTS,
    .outputs = (const port[]){{"dx", "N …", DTYPE_F32, 0, "gradient of the prediction"}, {0}},
    .infer = regression_backward_infer,
    .cost = regression_cost,
    .cpu = l1_backward_cpu,
};
