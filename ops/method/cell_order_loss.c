/* cell_order_loss: can each level of the network tell where a piece of the jigsaw puzzle came from?
 * Built from other operators: per level cell_pool → linear → cross_entropy against the permutation
 * that shuffle_cells drew. */
#include "ops/method/heads.h"

enum { IN_ORDER, IN_LEVELS };

static status cell_order_loss_lower(lower *rule) {
  const cell_attrs *attrs = rule->attrs;
  const shape *order = &value_type(rule->b, rule->in[IN_ORDER])->shape;
  int64_t count = cell_count(attrs->cells);
  char have[96];
  if (order->rank != 2 || order->dim[1] != count)
    return shape_error(
        "there are %lld cells, but the order is %s; give it the same \"cells\" as shuffle_cells",
        (long long)count, shape_format(have, order));
  return classify_cells(rule, attrs, count, rule->in[IN_ORDER], IN_LEVELS);
}

const op op_cell_order_loss = {
    .name = "cell_order_loss",
    .family = "method",
    .summary = "Cross-entropy of each cell's original position, predicted at every level.",
    .doc = "For every feature map: mean feature vector of each cell (cell_pool), a linear layer of "
           "its own to one logit per position (parameters heads.<level>.weight and .bias), and "
           "cross-entropy against `order`; loss is the sum over the levels. Every piece is placed "
           "by itself, which scales to any number of them; Noroozi & Favaro (ECCV 2016) and Taleb "
           "et al. (NeurIPS 2020) instead tell a chosen set of permutations apart. Accuracy "
           "1 / cells is chance.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){{"order", "N K", DTYPE_I32, 0, "the permutation shuffle_cells drew"},
                             LEVELS_PORT,
                             {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "sum over the levels"},
                              {"accuracy", "M", DTYPE_F32, 0,
                               "share of cells put in their place, for each level"},
                              {0}},
    .attrs = (const attr[]){CELL_ATTRS(NULL), {0}},
    .attrs_bytes = sizeof(cell_attrs),
    .lower = cell_order_loss_lower,
    .cases =
        (const op_case[]){{"{cells: [2, 1, 2]}",
                           "[n=1..2, 4] in 0..3; [n, 2|4, 1..3, 2|6, 1..5]; [n, 2, 1, 2, 4]", 0},
                          {"{cells: [1, 3, 1]}", "[2, 3] in 0..2; [2, 1..3, 3, 2, 1..5]", 0},
                          {0}},
};
