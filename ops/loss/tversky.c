/* tversky: Dice with separate prices for false positives and false negatives (Salehi et al., arXiv
 * 1706.05721). */
#include "ops/loss/segmentation.h"

typedef struct tversky_attrs {
  double alpha, beta;
  bool include_background, batch;
  double smooth_numerator, smooth_denominator;
} tversky_attrs;

static segmentation_terms terms_of(const tversky_attrs *attrs) {
  return (segmentation_terms){.dice = true,
                              .dice_weight = 1,
                              .form = REGION_TVERSKY,
                              .false_positive_weight = attrs->alpha,
                              .false_negative_weight = attrs->beta,
                              .include_background = attrs->include_background,
                              .batch = attrs->batch,
                              .smooth_numerator = attrs->smooth_numerator,
                              .smooth_denominator = attrs->smooth_denominator};
}

static status tversky_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  return region_infer(rule, &terms);
}

static status tversky_grad(grad *rule) {
  return region_grad(rule, false);
}

static status tversky_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  return region_forward(c, &terms);
}

const op op_tversky = {
    .name = "tversky",
    .family = "loss",
    .summary = "Tversky loss: Dice with unequal errors.",
    .doc =
        "loss = mean over samples and classes of 1 − (TP + smooth_numerator) / (TP + alpha · FP "
        "+ beta · FN + smooth_denominator) with TP = Σ p·t, FP = Σ p·(1 − t), FN = Σ (1 − p)·t, p "
        "the softmax of the logits and t the one-hot target (Salehi et al., arXiv 1706.05721). "
        "With alpha = beta = 0.5 it is the Dice loss; a larger beta favours sensitivity. With sets "
        "of regions as the target, p is a sigmoid of each channel and t 1 within its region.",
    .torch =
        "monai.losses.TverskyLoss(to_onehot_y=True, softmax=True, alpha=alpha, beta=beta, "
        "include_background=include_background, batch=batch, smooth_nr=smooth_numerator, "
        "smooth_dr=smooth_denominator)(logits.movedim(-1, 1), target.unsqueeze(1)); for sets of "
        "regions sigmoid=True in place of to_onehot_y and softmax",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = REGION_OUTPUTS,
    .attrs =
        (const attr[]){
            {"alpha", ATTR_FLOAT, offsetof(tversky_attrs, alpha), "0.5", 0, 1e3, NULL, 0,
             "price of a false positive"},
            {"beta", ATTR_FLOAT, offsetof(tversky_attrs, beta), "0.5", 0, 1e3, NULL, 0,
             "price of a false negative"},
            {"include_background", ATTR_BOOL, offsetof(tversky_attrs, include_background), "true",
             0, 0, NULL, 0, "class 0 counts as one of the classes"},
            {"batch", ATTR_BOOL, offsetof(tversky_attrs, batch), "false", 0, 0, NULL, 0,
             "sums run over the whole batch rather than over each sample"},
            {"smooth_numerator", ATTR_FLOAT, offsetof(tversky_attrs, smooth_numerator), "1e-5", 0,
             1e6, NULL, 0, "added to the numerator"},
            {"smooth_denominator", ATTR_FLOAT, offsetof(tversky_attrs, smooth_denominator), "1e-5",
             1e-12, 1e6, NULL, 0, "added to the denominator"},
            {0}},
    .attrs_bytes = sizeof(tversky_attrs),
    .infer = tversky_infer,
    .grad = tversky_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = tversky_cpu,
    .cases = (const op_case[]){{"{alpha: 0.3, beta: 0.7}",
                                "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
                               {"{alpha: 0.8, beta: 0.1, batch: true, include_background: false}",
                                "[n=1..3, v=20..99, 4]; [n, v] in 0..3", 0},
                               {"{alpha: 0.3}", "[2, v=2..99, 3]; [2, v] in -1..2", 0},
                               {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1", 0},
                               {"{alpha: 0.3, batch: true|false}",
                                "[2, v=2..99, 3]; [2, v] in -1..7 sets", 0},
                               {0}},
};
