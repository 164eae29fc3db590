/* classify_loss: can each level of the network tell which class a whole volume belongs to? Built
 * from other operators: per level global average pooling → linear → cross_entropy. */
#include "ops/method/heads.h"

enum { IN_TARGET, IN_LEVELS };

typedef struct classify_loss_attrs {
  int64_t classes;
} classify_loss_attrs;

static status classify_loss_lower(lower *rule) {
  const classify_loss_attrs *attrs = rule->attrs;
  const shape *target = &value_type(rule->b, rule->in[IN_TARGET])->shape;
  char have[96];
  if (target->rank != 2 || target->dim[1] != 1)
    return shape_error("the target must be one class for each sample (N × 1), but is %s",
                       shape_format(have, target));
  const cell_attrs whole = {{1, 1, 1}};
  return classify_cells(rule, &whole, attrs->classes, rule->in[IN_TARGET], IN_LEVELS);
}

const op op_classify_loss = {
    .name = "classify_loss",
    .family = "method",
    .summary = "Cross-entropy of each volume's class, predicted at every level.",
    .doc = "For every feature map: global average pooling (cell_pool), a linear layer of its own "
           "to one logit per class (parameters heads.<level>.weight and .bias), and cross-entropy "
           "against `target`; loss is the sum over the levels. With the `turn` that random_turn "
           "drew it is rotation prediction (Gidaris et al., ICLR 2018). Accuracy 1 / classes is "
           "chance.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs =
        (const port[]){{"target", "N 1", DTYPE_I32, 0, "class of each sample"}, LEVELS_PORT, {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "sum over the levels"},
                              {"accuracy", "M", DTYPE_F32, 0,
                               "share of samples given their class, for each level"},
                              {0}},
    .attrs = (const attr[]){{"classes", ATTR_INT, offsetof(classify_loss_attrs, classes), NULL, 2,
                             256, NULL, 0, "number of classes"},
                            {0}},
    .attrs_bytes = sizeof(classify_loss_attrs),
    .lower = classify_loss_lower,
    .cases =
        (const op_case[]){{"{classes: 4}",
                           "[n=1..3, 1] in 0..3; [n, 1..3, 1..3, 1..4, 1..5]; [n, 2, 1, 2, 4]", 0},
                          {0}},
};
