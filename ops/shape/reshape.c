/* reshape: the elements of each sample, in order, under another shape. */
#include "ops/shape/view.h"

typedef struct reshape_attrs {
  int_list shape;
} reshape_attrs;

static status reshape_infer(infer *rule) {
  const reshape_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  if (x->rank < 1) return shape_error("cannot reshape a scalar");
  if (attrs->shape.count < 1 || attrs->shape.count + 1 > MAX_DIMS)
    return shape_error("give 1 to %d dimensions after the batch, not %d", MAX_DIMS - 1,
                       attrs->shape.count);
  int64_t left = shape_elements(x) / x->dim[0];
  shape y = {.rank = attrs->shape.count + 1, .dim = {x->dim[0]}};
  int unknown = 0;
  for (int i = 0; i < attrs->shape.count; i++) {
    int64_t d = attrs->shape.at[i];
    y.dim[i + 1] = d;
    if (d == -1) {
      if (unknown) return shape_error("only one dimension can be -1 (worked out from the rest)");
      unknown = i + 1;
    } else if (d < 1 || left % d) {
      return shape_error("%s cannot take a dimension of %lld: it does not divide the elements of "
                         "a sample",
                         shape_format(have, x), (long long)d);
    } else {
      left /= d;
    }
  }
  if (unknown)
    y.dim[unknown] = left;
  else if (left != 1)
    return shape_error(
        "the dimensions leave a factor of %lld of %s unused; write -1 for one of them",
        (long long)left, shape_format(have, x));
  rule->out[0].shape = y;
  return OK;
}

const op op_reshape = {
    .name = "reshape",
    .family = "shape",
    .summary = "The elements of each sample, in order, under another shape.",
    .doc = "out holds the elements of x in the same order; only the dimensions after the batch "
           "change. Nothing is copied.",
    .torch = "x.reshape(x.shape[0], *shape)",
    .version = 1,
    .traits = OP_VIEW,
    .inputs = (const port[]){{"x", "N …", DTYPE_F32, 0, "values"}, {0}},
    .outputs = (const port[]){{"out", "N …", DTYPE_F32, 0, "the same values"}, {0}},
    .attrs =
        (const attr[]){{"shape", ATTR_INTS, offsetof(reshape_attrs, shape), NULL, -1, 1e9, NULL, 0,
                        "dimensions after the batch; one may be -1, worked out from the rest"},
                       {0}},
    .attrs_bytes = sizeof(reshape_attrs),
    .infer = reshape_infer,
    .grad = view_back,
    .cases = (const op_case[]){{"{shape: [6, -1]}", "[1..2, 3, 4, 1..3]", 0},
                               {"{shape: [-1]}", "[2, 3, 1..5]", 0},
                               {0}},
};
