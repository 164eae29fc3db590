/* slab_pool: mean feature vector of each slab, which is cell_pool along one axis. */
#include "ops/method/cells.h"

static status slab_pool_lower(lower *rule) {
  cell_attrs cells;
  TRY(slab_cells(rule->attrs, &cells));
  return build_node(rule->b, "cell_pool", &cells, rule->in, 1, rule->out);
}

const op op_slab_pool = {
    .name = "slab_pool",
    .family = "method",
    .summary = "Mean feature vector of each slab.",
    .doc = "out[n, b] is the mean of x[n] over exactly the positions that lie in slab b along the "
           "axis. The feature map must therefore have a multiple of `slabs` positions along it.",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N B C", DTYPE_F32, 0, "one vector for each slab"}, {0}},
    .attrs = (const attr[]){SLAB_ATTRS, {0}},
    .attrs_bytes = sizeof(slab_attrs),
    .lower = slab_pool_lower,
    .cases = (const op_case[]){{"{slabs: 2}", "[1..2, 1..3, 1..3, 2|4|6, 1..5]", 0},
                               {"{slabs: 3, axis: x}", "[1..2, 3|6, 1..3, 2, 1..5]", 0},
                               {"{slabs: 2, axis: y}", "[1..2, 2, 2|4, 3, 1..5]", 0},
                               {0}},
};
