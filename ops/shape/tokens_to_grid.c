/* tokens_to_grid and grid_to_tokens: a token sequence is a volume of tokens, x outermost and z
 * fastest, under another shape. */
#include "ops/shape/view.h"

typedef struct grid_attrs {
  int64_t grid[3];
} grid_attrs;

static status tokens_to_grid_infer(infer *rule) {
  const int64_t *grid = ((const grid_attrs *)rule->attrs)->grid;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 3)
    return shape_error("x must be tokens (N × T × C), but is %s", shape_format(have, x));
  if (grid[0] * grid[1] * grid[2] != x->dim[1])
    return shape_error("a grid of %lld×%lld×%lld has %lld places, but x has %lld tokens",
                       (long long)grid[0], (long long)grid[1], (long long)grid[2],
                       (long long)(grid[0] * grid[1] * grid[2]), (long long)x->dim[1]);
  rule->out[0].shape = SHAPE(x->dim[0], grid[0], grid[1], grid[2], x->dim[2]);
  return OK;
}

static status grid_to_tokens_infer(infer *rule) {
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank != 5)
    return shape_error("x must be a feature map (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  rule->out[0].shape = SHAPE(x->dim[0], x->dim[1] * x->dim[2] * x->dim[3], x->dim[4]);
  return OK;
}

const op op_tokens_to_grid = {
    .name = "tokens_to_grid",
    .family = "shape",
    .summary = "Tokens as a feature map.",
    .doc =
        "Puts token t = (i·Y + j)·Z + k at voxel (i, j, k) of a grid of X×Y×Z. Nothing is copied.",
    .torch = "x.reshape(x.shape[0], *grid, x.shape[2])",
    .version = 1,
    .traits = OP_VIEW,
    .inputs = (const port[]){{"x", "N T C", DTYPE_F32, 0, "tokens"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .attrs = (const attr[]){{"grid", ATTR_INT3, offsetof(grid_attrs, grid), NULL, 1, 100000, NULL,
                             0, "tokens along x, y and z"},
                            {0}},
    .attrs_bytes = sizeof(grid_attrs),
    .infer = tokens_to_grid_infer,
    .grad = view_back,
    .cases = (const op_case[]){{"{grid: [2, 3, 4]}", "[1..2, 24, 1..5]", 0}, {0}},
};

const op op_grid_to_tokens = {
    .name = "grid_to_tokens",
    .family = "shape",
    .summary = "A feature map as tokens.",
    .doc = "Voxel (i, j, k) becomes token (i·Y + j)·Z + k. Nothing is copied.",
    .torch = "x.flatten(1, 3)",
    .version = 1,
    .traits = OP_VIEW,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs = (const port[]){{"out", "N T C", DTYPE_F32, 0, "tokens"}, {0}},
    .infer = grid_to_tokens_infer,
    .grad = view_back,
    .cases = (const op_case[]){{"{}", "[1..2, 1..3, 1..4, 1..5, 1..5]", 0}, {0}},
};
