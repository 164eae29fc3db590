/* dice_focal: soft Dice loss plus focal loss, in one pass over the logits each way. */
#include "ops/loss/focal.h"

typedef struct dice_focal_attrs {
  focal_attrs focal; /* its include_background is the Dice term's too */
  bool squared, batch;
  double smooth_numerator, smooth_denominator;
  double dice_weight, focal_weight;
} dice_focal_attrs;

static const attr dice_focal_attr_list[] = {
    FOCAL_ATTRS(dice_focal_attrs, focal.),
    {"squared", ATTR_BOOL, offsetof(dice_focal_attrs, squared), "false", 0, 0, NULL, 0,
     "the Dice denominator adds squares, Σp² + Σt², rather than Σp + Σt"},
    {"batch", ATTR_BOOL, offsetof(dice_focal_attrs, batch), "false", 0, 0, NULL, 0,
     "Dice sums run over the whole batch rather than over each sample"},
    {"smooth_numerator", ATTR_FLOAT, offsetof(dice_focal_attrs, smooth_numerator), "1e-5", 0, 1e6,
     NULL, 0, "added to the Dice numerator"},
    {"smooth_denominator", ATTR_FLOAT, offsetof(dice_focal_attrs, smooth_denominator), "1e-5",
     1e-12, 1e6, NULL, 0, "added to the Dice denominator"},
    {"dice_weight", ATTR_FLOAT, offsetof(dice_focal_attrs, dice_weight), "1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE, "factor of the Dice term"},
    {"focal_weight", ATTR_FLOAT, offsetof(dice_focal_attrs, focal_weight), "1", 0, 1e6, NULL,
     ATTR_SCHEDULABLE, "factor of the focal term"},
    {0},
};

enum { OUT_LOSS, OUT_DICE, OUT_FOCAL, OUT_SLOPES, OUT_WEIGHT };
enum { BACK_LOGITS, BACK_TARGET, BACK_SLOPES, BACK_WEIGHT, BACK_DY };

static segmentation_terms terms_of(const dice_focal_attrs *attrs) {
  segmentation_terms t = {.dice = true,
                          .dice_weight = attrs->dice_weight,
                          .squared = attrs->squared,
                          .include_background = attrs->focal.include_background,
                          .batch = attrs->batch,
                          .smooth_numerator = attrs->smooth_numerator,
                          .smooth_denominator = attrs->smooth_denominator};
  focal_terms(&attrs->focal, attrs->focal_weight, &t);
  return t;
}

static status dice_focal_infer(infer *rule) {
  segmentation_terms terms = terms_of(rule->attrs);
  TRY(segmentation_check(rule, &terms));
  const shape *logits = &rule->in[0].shape;
  rule->out[OUT_SLOPES].shape = SHAPE(logits->dim[0], logits->dim[logits->rank - 1], 2);
  return OK;
}

static status dice_focal_grad(grad *rule) {
  for (int k = OUT_DICE; k <= OUT_FOCAL; k++)
    if (rule->dy[k] != VALUE_NONE)
      return shape_error("\"dice\" and \"focal\" are for the log; to train on one term alone, set "
                         "the other's weight to 0");
  value_id in[] = {rule->in[0], rule->in[1], rule->out[OUT_SLOPES], rule->out[OUT_WEIGHT],
                   rule->dy[OUT_LOSS]};
  return rule->wanted[0]
             ? build_node(rule->b, "dice_focal_backward", rule->attrs, in, 5, &rule->dx[0])
             : OK;
}

static status dice_focal_cpu(const call *c) {
  const dice_focal_attrs *attrs = c->attrs;
  segmentation_terms terms = terms_of(attrs);
  segmentation_result result;
  TRY(segmentation_forward(c, &terms, c->out[OUT_SLOPES].data, &result));
  *(float *)c->out[OUT_LOSS].data =
      (float)(attrs->dice_weight * result.dice + attrs->focal_weight * result.cross_entropy);
  *(float *)c->out[OUT_DICE].data = (float)result.dice;
  *(float *)c->out[OUT_FOCAL].data = (float)result.cross_entropy;
  *(float *)c->out[OUT_WEIGHT].data = (float)result.weight;
  return OK;
}

static status dice_focal_backward_cpu(const call *c) {
  const dice_focal_attrs *attrs = c->attrs;
  segmentation_terms terms = terms_of(attrs);
  segmentation_backward(c, &terms, c->in[BACK_SLOPES].data,
                        (double)*(const float *)c->in[BACK_WEIGHT].data,
                        (double)*(const float *)c->in[BACK_DY].data, c->out[0].data);
  return OK;
}

const op op_dice_focal = {
    .name = "dice_focal",
    .family = "loss",
    .summary = "Soft Dice loss plus focal loss.",
    .doc = "loss = dice_weight · dice + focal_weight · focal, see the operators dice and focal. "
           "class_weights concern the focal term. Reads the logits once forward and once backward.",
    .torch = "monai.losses.DiceFocalLoss(to_onehot_y=True, softmax=True, squared_pred=squared, "
             "include_background=include_background, batch=batch, smooth_nr=smooth_numerator, "
             "smooth_dr=smooth_denominator, gamma=gamma, alpha=None if alpha < 0 else alpha, "
             "lambda_dice=dice_weight, lambda_focal=focal_weight)(logits.movedim(-1, 1), "
             "target.unsqueeze(1)); for sets of regions sigmoid=True in place of to_onehot_y and "
             "softmax",
    .version = 2,
    .traits = OP_LOSS,
    .inputs = (const port[]){SEGMENTATION_LOGITS, SEGMENTATION_TARGET, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "the weighted sum"},
                              {"dice", "scalar", DTYPE_F32, 0, "soft Dice loss, unweighted"},
                              {"focal", "scalar", DTYPE_F32, 0, "focal loss, unweighted"},
                              {"slopes", "N C 2", DTYPE_F32, PORT_SAVED,
                               "derivatives of the Dice term by overlap and volume"},
                              SEGMENTATION_COUNT(PORT_SAVED),
                              {0}},
    .attrs = dice_focal_attr_list,
    .attrs_bytes = sizeof(dice_focal_attrs),
    .infer = dice_focal_infer,
    .grad = dice_focal_grad,
    .cost = segmentation_cost,
    .workspace_bytes = segmentation_workspace,
    .cpu = dice_focal_cpu,
    .cases =
        (const op_case[]){{"{sigmoid: true|false}",
                           "[n=1..2, x=1..4, y=1..4, z=1..5, 3]; [n, x, y, z] in 0..2", 0},
                          {"{squared: true, batch: true, include_background: false, focal_weight: "
                           "3, dice_weight: 0.5}",
                           "[n=1..3, v=20..99, 4]; [n, v] in 0..3", 0},
                          {"{sigmoid: true|false}", "[2, v=2..99, 3]; [2, v] in -1..2", 0},
                          {"{}", "[2, v=20..99, 3]; [2, v] in -1..-1", 0},
                          {"{squared: true|false, alpha: -1|0.25, class_weights: [0.5, 2, 1]}",
                           "[2, v=2..99, 3]; [2, v] in -1..7 sets", 0},
                          {0}},
};

const op op_dice_focal_backward = {
    .name = "dice_focal_backward",
    .family = "loss",
    .summary = "Gradient of dice_focal.",
    .version = 2,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){SEGMENTATION_LOGITS,
                             SEGMENTATION_TARGET,
                             {"slopes", "N C 2", DTYPE_F32, 0, "saved derivatives"},
                             SEGMENTATION_COUNT(0),
                             {"dy", "scalar", DTYPE_F32, 0, "gradient of the loss"},
                             {0}},
    .outputs = (const port[]){{"dlogits", "N … C", DTYPE_F32, 0, "gradient of the logits"}, {0}},
    .attrs = dice_focal_attr_list,
    .attrs_bytes = sizeof(dice_focal_attrs),
    .infer = segmentation_backward_infer,
    .cost = segmentation_cost,
    .cpu = dice_focal_backward_cpu,
};
