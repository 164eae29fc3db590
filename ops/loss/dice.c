/* dice: 1 − 2|P∩T| / (|P| + |T|) with softmax probabilities (Milletari et al., arXiv 1606.04797).
 */
#include "ops/loss/segmentation.h"

static const attr dice_attr_list[] = {
    {"squared", ATTR_BOOL, offsetof(dice_attrs, squared), "true", 0, 0, NULL, 0,
     "the denominator adds squares, Σp² + Σt², rather than Σp + Σt"},
    {"include_background", ATTR_BOOL, offsetof(dice_attrs, include_background), "true", 0, 0, NULL,
     0, "class 0 counts as one of the classes"},
    {"batch", ATTR_BOOL, offsetof(dice_attrs, batch), "false", 0, 0, NULL, 0,
     "sums run over the whole batch rather than over each sample"},
    {"smooth_numerator", ATTR_FLOAT, offsetof(dice_attrs, smooth_numerator), "0", 0, 1e6, NULL, 0,
     "added to the numerator"},
    {"smooth_denominator", ATTR_FLOAT, offsetof(dice_attrs, smooth_denominator), "1e-6", 1e-12, 1e6,
     NULL, 0, "added to the denominator"},
    {0},
};

enum { BACK_LOGITS, BACK_TARGET, BACK_SLOPES, BACK_DY };

static segmentation_terms terms_of(const dice_attrs *attrs) {
  return (segmentation_terms){.dice = true,
                              .dice_weight = 1,
                              .squared = attrs->squared,
                              .include_background = attrs->include_background,
                              .batch = attrs->batch,
                              .smooth_numerator = attrs->smooth_numerator,
                              .smooth_denominator = attrs->smooth_denominator};
}

static status dice_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  return region_infer(rule, &terms);
}

static status dice_grad(grad *rule) {
  return region_grad(rule, ((const dice_attrs *)rule->attrs)->squared);
}

static status dice_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  return region_forward(c, &terms);
}

static status dice_backward_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_backward(c, &terms, c->in[BACK_SLOPES].data, 0,
                        (double)*(const float *)c->in[BACK_DY].data, c->out[0].data);
  return OK;
}

const op op_dice = {
    .name = "dice",
    .family = "loss",
    .summary = "Soft Dice loss.",
    .doc =
        "loss = mean over samples and classes of 1 − (2 Σ p·t + smooth_numerator) / (Σ p² + Σ t² "
        "+ smooth_denominator), p the softmax of the logits and t the one-hot target (Milletari "
        "et al., arXiv 1606.04797). With sets of regions as the target, p is a sigmoid of each channel "
        "and t 1 within its region.",
    .torch =
        "monai.losses.DiceLoss(to_onehot_y=True, softmax=True, squared_pred=squared, "
        "include_background=include_background, batch=batch, smooth_nr=smooth_numerator, "
        "smooth_dr=smooth_denominator)(logits.movedim(-1, 1), target.unsqueeze(1)); for sets of "
        "regions sigmoid=True in place of to_onehot_y and softmax",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = REGION_OUTPUTS,
    .attrs = dice_attr_list,
    .attrs_bytes = sizeof(dice_attrs),
    .infer = dice_infer,
    .grad = dice_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = dice_cpu,
    .cases =
        (const op_case[]){{"{}", "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
                          {"{squared: false, batch: true, include_background: false, "
                           "smooth_numerator: 1e-5, smooth_denominator: 1e-5}",
                           "[n=1..3, v=20..99, 4]; [n, v] in 0..3", 0},
                          {"{squared: true|false}", "[2, v=2..99, 3]; [2, v] in -1..2", 0},
                          {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1", 0},
                          {"{squared: true|false}", "[2, v=2..99, 3]; [2, v] in -1..7 sets", 0},
                          {"{batch: true|false}", "[2, v=20..99, 1]; [2, v] in -1..1 sets", 0},
                          {0}},
};

const op op_dice_backward = {
    .name = "dice_backward",
    .family = "loss",
    .summary = "Gradient of dice and the other losses of overlaps.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){SEGMENTATION_LOGITS,
                             SEGMENTATION_TARGET,
                             {"slopes", "N C 2", DTYPE_F32, 0, "saved derivatives"},
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"dlogits", "N … C", DTYPE_F32, 0, "gradient of the logits"}, {0}},
    .attrs = dice_attr_list,
    .attrs_bytes = sizeof(dice_attrs),
    .infer = segmentation_backward_infer,
    .cost = segmentation_cost,
    .cpu = dice_backward_cpu,
};
