/* generalized_dice: one Dice over all classes, in which small structures weigh as much as large ones
 * (Sudre et al., arXiv 1707.03237). */
#include "ops/loss/segmentation.h"

typedef struct generalized_dice_attrs {
  int weights;
  bool include_background, batch;
  double smooth_numerator, smooth_denominator;
} generalized_dice_attrs;

static const char *const weight_choices[] = {
    [WEIGHT_SQUARE] = "square", [WEIGHT_SIMPLE] = "simple", [WEIGHT_UNIFORM] = "uniform", NULL};

static segmentation_terms terms_of(const generalized_dice_attrs *attrs) {
  return (segmentation_terms){.dice = true,
                              .dice_weight = 1,
                              .form = REGION_GENERALIZED_DICE,
                              .volume_weights = attrs->weights,
                              .include_background = attrs->include_background,
                              .batch = attrs->batch,
                              .smooth_numerator = attrs->smooth_numerator,
                              .smooth_denominator = attrs->smooth_denominator};
}

static status generalized_dice_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  return region_infer(rule, &terms);
}

static status generalized_dice_grad(grad *rule) {
  return region_grad(rule, false);
}

static status generalized_dice_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  return region_forward(c, &terms);
}

const op op_generalized_dice = {
    .name = "generalized_dice",
    .family = "loss",
    .summary = "Dice over all classes together, weighted against their volumes.",
    .doc =
        "loss = mean over samples of 1 − (2 Σ_c w_c Σ p·t + smooth_numerator) / (Σ_c w_c (Σ p + Σ "
        "t) + smooth_denominator), p the softmax of the logits, t the one-hot target and w_c = "
        "1/(Σ t)², 1/Σ t or 1 (Sudre et al., arXiv 1707.03237). A class that the target does not "
        "hold weighs as much as the heaviest that it holds. With sets of regions as the target, p is a "
        "sigmoid of each channel and t 1 within its region.",
    .torch =
        "monai.losses.GeneralizedDiceLoss(to_onehot_y=True, softmax=True, w_type=weights, "
        "include_background=include_background, batch=batch, smooth_nr=smooth_numerator, "
        "smooth_dr=smooth_denominator)(logits.movedim(-1, 1), target.unsqueeze(1)); for sets of "
        "regions sigmoid=True in place of to_onehot_y and softmax",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = REGION_OUTPUTS,
    .attrs =
        (const attr[]){
            {"weights", ATTR_CHOICE, offsetof(generalized_dice_attrs, weights), "square", 0, 0,
             weight_choices, 0,
             "what the weight of a class is the inverse of: its "
             "volume squared, its volume, or nothing"},
            {"include_background", ATTR_BOOL, offsetof(generalized_dice_attrs, include_background),
             "true", 0, 0, NULL, 0, "class 0 counts as one of the classes"},
            {"batch", ATTR_BOOL, offsetof(generalized_dice_attrs, batch), "false", 0, 0, NULL, 0,
             "sums run over the whole batch rather than over each sample"},
            {"smooth_numerator", ATTR_FLOAT, offsetof(generalized_dice_attrs, smooth_numerator),
             "1e-5", 0, 1e6, NULL, 0, "added to the numerator"},
            {"smooth_denominator", ATTR_FLOAT, offsetof(generalized_dice_attrs, smooth_denominator),
             "1e-5", 1e-12, 1e6, NULL, 0, "added to the denominator"},
            {0}},
    .attrs_bytes = sizeof(generalized_dice_attrs),
    .infer = generalized_dice_infer,
    .grad = generalized_dice_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = generalized_dice_cpu,
    .cases =
        (const op_case[]){
            {"{weights: square|simple|uniform}",
             "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
            {"{batch: true, include_background: false, weights: simple}",
             "[n=1..3, v=20..99, 5]; [n, v] in 0..3", 0},
            {"{weights: square|uniform}", "[2, v=20..99, 3]; [2, v] in -1..2", 0},
            {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1", 0},
            {"{weights: square|simple|uniform}", "[2, v=20..99, 3]; [2, v] in -1..7 sets", 0},
            {0}},
};
