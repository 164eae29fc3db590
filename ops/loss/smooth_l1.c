/* smooth_l1: squared error for small errors, absolute for large ones (Girshick, arXiv 1504.08083;
 * beta times this is Huber's loss). */
#include "ops/loss/regression.h"

typedef struct smooth_l1_attrs {
  double beta;
} smooth_l1_attrs;

static const attr smooth_l1_attr_list[] = {
    {"beta", ATTR_FLOAT, offsetof(smooth_l1_attrs, beta), "1", 1e-6, 1e6, NULL, 0,
     "error where the square gives way to the absolute value"},
    {0},
};

static regression_kind kind_of(const call *c) {
  return (regression_kind){REGRESSION_SMOOTH, ((const smooth_l1_attrs *)c->attrs)->beta};
}

static status smooth_l1_grad(grad *rule) {
  return regression_grad(rule, "smooth_l1_backward");
}

static status smooth_l1_cpu(const call *c) {
  return regression_forward(c, kind_of(c));
}

static status smooth_l1_backward_cpu(const call *c) {
  return regression_backward(c, kind_of(c));
}

const op op_smooth_l1 = {
    .name = "smooth_l1",
    .family = "loss",
    .summary = "Mean error, squared where it is small and absolute where it is large.",
    .doc =
        "loss = mean of d² / (2 · beta) where d = |prediction − target| is less than beta, and d "
        "− beta / 2 elsewhere. With a mask, which may be the coarse grid of patches that "
        "mask_patches returns, only elements where it is 1 count.",
    .torch = "torch.nn.functional.smooth_l1_loss(prediction, target, beta=beta)",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = REGRESSION_INPUTS,
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean over the elements"}, {0}},
    .attrs = smooth_l1_attr_list,
    .attrs_bytes = sizeof(smooth_l1_attrs),
    .infer = regression_infer,
    .grad = smooth_l1_grad,
    .cost = regression_cost,
    .workspace_bytes = regression_workspace,
    .cpu = smooth_l1_cpu,
    .cases = (const op_case[]){{"{beta: 0.5|1|2}",
                                "[n=1..2, x=1..5, y=1..5, z=1..5, c=1..3]; [n, x, y, z, c]; -", 0},
                               {"{beta: 5}", "[2, 40]; [2, 40]; -", 0},
                               {0}},
};

const op op_smooth_l1_backward = {
    .name = "smooth_l1_backward",
    .family = "loss",
    .summary = "Gradient of smooth_l1 for the prediction.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = REGRESSION_BACKWARD_INPUTS,
    .outputs = (const port[]){{"dx", "N …", DTYPE_F32, 0, "gradient of the prediction"}, {0}},
    .attrs = smooth_l1_attr_list,
    .attrs_bytes = sizeof(smooth_l1_attrs),
    .infer = regression_backward_infer,
    .cost = regression_cost,
    .cpu = smooth_l1_backward_cpu,
};
