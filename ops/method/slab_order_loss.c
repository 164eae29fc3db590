/* slab_order_loss: can each level of the network tell where a slab came from? (Kunhimon et al.,
 * arXiv 2306.09320, the structural objective.) Built from other operators: per level slab_pool →
 * linear → cross_entropy against the permutation that shuffle_slabs drew. */
#include "ops/method/heads.h"

enum { IN_ORDER, IN_LEVELS };

static status slab_order_loss_lower(lower *rule) {
  const slab_attrs *attrs = rule->attrs;
  const shape *order = &value_type(rule->b, rule->in[IN_ORDER])->shape;
  cell_attrs grid;
  char have[96];
  if (order->rank != 2 || order->dim[1] != attrs->slabs)
    return shape_error(
        "there are %lld slabs, but the order is %s; give it the same \"slabs\" as shuffle_slabs",
        (long long)attrs->slabs, shape_format(have, order));
  TRY(slab_cells(attrs, &grid));
  return classify_cells(rule, &grid, attrs->slabs, rule->in[IN_ORDER], IN_LEVELS);
}

const op op_slab_order_loss = {
    .name = "slab_order_loss",
    .family = "method",
    .summary = "Cross-entropy of each slab's original position, predicted at every level.",
    .doc = "For every feature map: mean feature vector of each slab (slab_pool), a linear layer of "
           "its own to one logit per position (parameters heads.<level>.weight and .bias), and "
           "cross-entropy against `order`; loss is the sum over the levels (Kunhimon et al., arXiv "
           "2306.09320, the structural objective). Pooling takes exactly the positions of a slab. "
           "Accuracy 1 / slabs is chance.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){{"order", "N B", DTYPE_I32, 0, "the permutation shuffle_slabs drew"},
                             LEVELS_PORT,
                             {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "sum over the levels"},
                              {"accuracy", "M", DTYPE_F32, 0,
                               "share of slabs put in their place, for each level"},
                              {0}},
    .attrs = (const attr[]){SLAB_ATTRS, {0}},
    .attrs_bytes = sizeof(slab_attrs),
    .lower = slab_order_loss_lower,
    .cases =
        (const op_case[]){
            {"{slabs: 3}", "[n=1..2, 3] in 0..2; [n, 1..3, 1..3, 3|6, 1..5]; [n, 2, 1, 3, 4]", 0},
            {"{slabs: 2, axis: x}", "[2, 2] in 0..1; [2, 2|4, 2, 3, 1..5]", 0},
            {0}},
};
