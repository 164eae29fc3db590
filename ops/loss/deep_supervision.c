/* deep_supervision: Dice plus cross-entropy at several resolutions of the decoder (Lee et al., arXiv
 * 1409.5185; the weights are those of nnU-Net, Isensee et al., 2021). Built from other operators: per
 * output downsample_label → dice_ce → scale. */
#include "ops/arithmetic/scale.h"
#include "ops/loss/dice_ce.h"

enum { IN_LABEL, IN_LOGITS };
enum { OUT_LOSS, OUT_DICE, OUT_CE };
enum { DICE_CE_LOSS, DICE_CE_DICE, DICE_CE_CE, DICE_CE_OUTPUTS = 8 };

typedef struct deep_supervision_attrs {
  dice_ce_attrs loss;
  float_list weights;
} deep_supervision_attrs;

/* Half the weight for every halving of the resolution, adding up to 1. */
static double weight_of(const float_list *weights, int level, int levels) {
  if (weights->count) return weights->at[level];
  double total = 2 - 1.0 / (double)(1 << (levels - 1));
  return 1.0 / (double)(1 << level) / total;
}

/* The label at the resolution of an output. */
static status label_for(builder *b, value_id label, value_id logits, int level, value_id *out) {
  const shape *full = &value_type(b, label)->shape, *want = &value_type(b, logits)->shape;
  int64_t factor[3];
  char have[96], had[96];
  bool fits = want->rank == 5 && full->rank >= 4 && want->dim[0] == full->dim[0];
  for (int a = 0; a < 3 && fits; a++) {
    fits = full->dim[1 + a] % want->dim[1 + a] == 0;
    factor[a] = full->dim[1 + a] / want->dim[1 + a];
  }
  if (!fits)
    return shape_error("output %d is %s, which is not the label's grid, %s, or a whole fraction of "
                       "it",
                       level + 1, shape_format(have, want), shape_format(had, full));
  *out = label;
  if (factor[0] == 1 && factor[1] == 1 && factor[2] == 1) return OK;
  /* The factor is the operator's only attribute. */
  return build_node(b, "downsample_label", factor, &label, 1, out);
}

static status deep_supervision_lower(lower *rule) {
  const deep_supervision_attrs *attrs = rule->attrs;
  builder *b = rule->b;
  int levels = rule->in_count - IN_LOGITS;
  if (levels > LIST_MAX) return shape_error("takes at most %d outputs, not %d", LIST_MAX, levels);
  if (attrs->weights.count && attrs->weights.count != levels)
    return shape_error("weights has %d numbers, but there are %d outputs", attrs->weights.count,
                       levels);
  value_id losses[LIST_MAX], dice[LIST_MAX], ce[LIST_MAX];
  for (int i = 0; i < levels; i++) {
    value_id in[] = {rule->in[IN_LOGITS + i], VALUE_NONE}, terms[DICE_CE_OUTPUTS];
    TRY(label_for(b, rule->in[IN_LABEL], in[0], i, &in[1]));
    TRY(error_prefix(build_node(b, "dice_ce", &attrs->loss, in, 2, terms), "output %d", i + 1));
    TRY(build_scale(b, terms[DICE_CE_LOSS], weight_of(&attrs->weights, i, levels), &losses[i]));
    dice[i] = terms[DICE_CE_DICE];
    ce[i] = terms[DICE_CE_CE];
  }
  TRY(build_node(b, "add", NULL, losses, levels, &rule->out[OUT_LOSS]));
  TRY(build_node(b, "stack", NULL, dice, levels, &rule->out[OUT_DICE]));
  return build_node(b, "stack", NULL, ce, levels, &rule->out[OUT_CE]);
}

const op op_deep_supervision = {
    .name = "deep_supervision",
    .family = "loss",
    .summary = "Dice plus cross-entropy on outputs of several resolutions.",
    .doc = "loss = Σ weights[i] · dice_ce(output i, label at the output's resolution), see the "
           "operators dice_ce and downsample_label. Without weights, each output counts half as "
           "much as the one before, and they add up to 1 (4/7, 2/7, 1/7), as in nnU-Net.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){{"label", "N X Y Z", DTYPE_I32, PORT_OR_REGIONS,
                              "class numbers or sets of regions, full resolution"},
                             {"logits", "N X' Y' Z' C", DTYPE_F32, PORT_VARIADIC,
                              "outputs, the one of full resolution first"},
                             {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "the weighted sum"},
                              {"dice", "M", DTYPE_F32, 0, "soft Dice loss of each output"},
                              {"ce", "M", DTYPE_F32, 0, "cross-entropy of each output"},
                              {0}},
    .attrs = (const attr[]){DICE_CE_ATTRS(deep_supervision_attrs, loss.),
                            {"weights", ATTR_FLOATS, offsetof(deep_supervision_attrs, weights),
                             "[]", 0, 1e6, NULL, 0,
                             "one for each output; empty: halved from one to the next, adding up "
                             "to 1"},
                            {0}},
    .attrs_bytes = sizeof(deep_supervision_attrs),
    .lower = deep_supervision_lower,
    .cases =
        (const op_case[]){
            {"{}", "[n=1..2, 4, 4, 8] in 0..2; [n, 4, 4, 8, 3]; [n, 2, 2, 4, 3]; [n, 1, 2, 2, 3]",
             0},
            {"{weights: [0.5, 2], batch: true, squared: false}",
             "[2, 4, 3, 5] in 0..1; [2, 4, 3, 5, 2]; [2, 2, 3, 5, 2]", 0},
            {"{}", "[2, 4, 4, 8] in -1..2; [2, 4, 4, 8, 3]; [2, 2, 2, 4, 3]", 0},
            {"{batch: true|false}", "[2, 4, 4, 8] in -1..7 sets; [2, 4, 4, 8, 3]; [2, 2, 2, 4, 3]",
             0},
            {0}},
};
