/* shuffle_slabs: cuts each volume into equal slabs of consecutive slices and puts them in a random
 * order (Kunhimon et al., arXiv 2306.09320, the transformation module). It is shuffle_cells along
 * one axis. */
#include "ops/method/cells.h"

static status shuffle_slabs_lower(lower *rule) {
  cell_attrs cells;
  TRY(slab_cells(rule->attrs, &cells));
  return build_node(rule->b, "shuffle_cells", &cells, rule->in, 1, rule->out);
}

const op op_shuffle_slabs = {
    .name = "shuffle_slabs",
    .family = "method",
    .summary = "Puts the slabs of each volume in a random order.",
    .doc = "Cuts each volume into equal slabs of consecutive slices along one axis and rearranges "
           "them by a random permutation of its own: slab b of `out` is slab order[n][b] of the "
           "image. Predicting `order` is the structural task of the learned initialization "
           "(Kunhimon et al., arXiv 2306.09320).",
    .version = 1,
    .traits = OP_RANDOM,
    .inputs = (const port[]){{"image", "N X Y Z C", DTYPE_F32, 0, "volumes"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "shuffled volumes"},
                              {"order", "N B", DTYPE_I32, 0, "where each slab came from"},
                              {0}},
    .attrs = (const attr[]){SLAB_ATTRS, {0}},
    .attrs_bytes = sizeof(slab_attrs),
    .lower = shuffle_slabs_lower,
    .cases = (const op_case[]){{"{slabs: 3, axis: x|y|z}", "[1..3, 3|6, 6, 3|9, 1..2]", 0}, {0}},
};
