/* dice_ce: soft Dice loss plus cross-entropy, in one pass over the logits each way. */
#include "ops/loss/dice_ce.h"

static const attr dice_ce_attr_list[] = {DICE_CE_ATTRS(dice_ce_attrs, ), {0}};

enum { OUT_LOSS, OUT_DICE, OUT_CE, OUT_SLOPES, OUT_WEIGHT };
enum { BACK_LOGITS, BACK_TARGET, BACK_SLOPES, BACK_WEIGHT, BACK_DY };

static segmentation_terms terms_of(const dice_ce_attrs *attrs) {
  return (segmentation_terms){.cross_entropy = true,
                              .cross_entropy_weight = attrs->ce_weight,
                              .dice = true,
                              .dice_weight = attrs->dice_weight,
                              .squared = attrs->squared,
                              .include_background = attrs->include_background,
                              .batch = attrs->batch,
                              .smooth_numerator = attrs->smooth_numerator,
                              .smooth_denominator = attrs->smooth_denominator};
}

static status dice_ce_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  TRY(segmentation_check(rule, &terms));
  const shape *logits = &rule->in[0].shape;
  rule->out[OUT_SLOPES].shape = SHAPE(logits->dim[0], logits->dim[logits->rank - 1], 2);
  return OK;
}

static status dice_ce_grad(grad *rule) {
  for (int k = OUT_DICE; k <= OUT_CE; k++)
    if (rule->dy[k] != VALUE_NONE)
      return shape_error("\"dice\" and \"ce\" are for the log; to train on one term alone, set the "
                         "other's weight to 0");
  value_id in[] = {rule->in[0], rule->in[1], rule->out[OUT_SLOPES], rule->out[OUT_WEIGHT],
                   rule->dy[OUT_LOSS]};
  return rule->wanted[0] ? build_node(rule->b, "dice_ce_backward", rule->attrs, in, 5, &rule->dx[0])
                         : OK;
}

static status dice_ce_cpu(const call *c) {
  const dice_ce_attrs *attrs = c->attrs;
  segmentation_terms terms = terms_of(attrs);
  segmentation_result result;
  TRY(segmentation_forward(c, &terms, c->out[OUT_SLOPES].data, &result));
  *(float *)c->out[OUT_LOSS].data =
      (float)(attrs->dice_weight * result.dice + attrs->ce_weight * result.cross_entropy);
  *(float *)c->out[OUT_DICE].data = (float)result.dice;
  *(float *)c->out[OUT_CE].data = (float)result.cross_entropy;
  *(float *)c->out[OUT_WEIGHT].data = (float)result.weight;
  return OK;
}

static status dice_ce_backward_cpu(const call *c) {
  segmentation_terms terms = terms_of(c->attrs);
  segmentation_backward(c, &terms, c->in[BACK_SLOPES].data,
                        (double)*(const float *)c->in[BACK_WEIGHT].data,
                        (double)*(const float *)c->in[BACK_DY].data, c->out[0].data);
  return OK;
}

const op op_dice_ce = {
    .name = "dice_ce",
    .family = "loss",
    .summary = "Soft Dice loss plus cross-entropy.",
    .doc =
        "loss = dice_weight · dice + ce_weight · ce, see the operators dice and cross_entropy. "
        "Reads the logits once forward and once backward. With sets of regions as the target, ce is "
        "the binary cross-entropy of the channels.",
    .torch =
        "monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=squared, "
        "include_background=include_background, batch=batch, smooth_nr=smooth_numerator, "
        "smooth_dr=smooth_denominator, lambda_dice=dice_weight, "
        "lambda_ce=ce_weight)(logits.movedim(-1, 1), target.unsqueeze(1)); for sets of regions "
        "sigmoid=True in place of to_onehot_y and softmax",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "the weighted sum"},
                              {"dice", "scalar", DTYPE_F32, 0, "soft Dice loss, unweighted"},
                              {"ce", "scalar", DTYPE_F32, 0, "cross-entropy, unweighted"},
                              {"slopes", "N C 2", DTYPE_F32, PORT_SAVED,
                               "derivatives of the Dice term by overlap and volume"},
                              SEGMENTATION_COUNT(PORT_SAVED),
                              {0}},
    .attrs = dice_ce_attr_list,
    .attrs_bytes = sizeof(dice_ce_attrs),
    .infer = dice_ce_infer,
    .grad = dice_ce_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = dice_ce_cpu,
    .cases =
        (const op_case[]){{"{}", "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
                          {"{squared: false, batch: true, include_background: false, "
                           "smooth_numerator: 1e-5, smooth_denominator: 1e-5, ce_weight: 0.5}",
                           "[n=1..3, v=20..99, 4]; [n, v] in 0..3", 0},
                          {"{squared: true|false}", "[1, v=60..140, 14]; [1, v] in -1..13", 0},
                          {"{}", "[2, v=3..99, 18]; [2, v] in 0..17", 0},
                          {"{batch: true|false}", "[2, v=2..99, 3]; [2, v] in -1..2", 0},
                          {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1", 0},
                          {"{squared: true|false, ce_weight: 0.5}",
                           "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in -1..7 sets", 0},
                          {"{batch: true|false}", "[2, v=60..140, 1]; [2, v] in -1..1 sets", 0},
                          {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1 sets", 0},
                          {0}},
};

const op op_dice_ce_backward = {
    .name = "dice_ce_backward",
    .family = "loss",
    .summary = "Gradient of dice_ce.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){SEGMENTATION_LOGITS,
                             SEGMENTATION_TARGET,
                             {"slopes", "N C 2", DTYPE_F32, 0, "saved derivatives"},
                             SEGMENTATION_COUNT(0),
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"dlogits", "N … C", DTYPE_F32, 0, "gradient of the logits"}, {0}},
    .attrs = dice_ce_attr_list,
    .attrs_bytes = sizeof(dice_ce_attrs),
    .infer = segmentation_backward_infer,
    .cost = segmentation_cost,
    .cpu = dice_ce_backward_cpu,
};
