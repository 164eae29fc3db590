/* mse: mean of (prediction − target)². */
#include "ops/loss/regression.h"

static status mse_grad(grad *rule) {
  return regression_grad(rule, "mse_backward");
}

static status mse_cpu(const call *c) {
  return regression_forward(c, (regression_kind){REGRESSION_SQUARE, 0});
}

static status mse_backward_cpu(const call *c) {
  return regression_backward(c, (regression_kind){REGRESSION_SQUARE, 0});
}

const op op_mse = {
    .name = "mse",
    .family = "loss",
    .summary = "Mean squared error.",
    .doc = "loss = mean of (prediction − target)² over all elements. With a mask, which may be "
           "the coarse grid of patches that mask_patches returns, only elements where it is 1 "
           "count.",
    .torch = "torch.nn.functional.mse_loss(prediction, target)",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = REGRESSION_INPUTS,
    .outputs =
        (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean of (prediction − target)²"}, {0}},
    .infer = regression_infer,
    .grad = mse_grad,
    .cost = regression_cost,
    .workspace_bytes = regression_workspace,
    .cpu = mse_cpu,
    .cases =
        (const op_case[]){{"{}", "[n=1..2, x=1..5, y=1..5, z=1..5, c=1..3]; [n, x, y, z, c]; -", 0},
                          {"{}", "[2, 20]; [2, 20]; -", 0},
                          {0}},
};

const op op_mse_backward = {
    .name = "mse_backward",
    .family = "loss",
    .summary = "Gradient of mse for the prediction.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = REGRESSION_BACKWARD_INPUTS,
    .outputs = (const port[]){{"dx", "N …", DTYPE_F32, 0, "gradient of the prediction"}, {0}},
    .infer = regression_backward_infer,
    .cost = regression_cost,
    .cpu = mse_backward_cpu,
};
