/* contrastive_loss: do the feature maps of two views of a volume tell that it is the same volume?
 * (SimCLR: Chen et al., ICML 2020.) Built from other operators: for each view, global average
 * pooling of every level, side by side → linear → ReLU → linear; then nt_xent. Both views go
 * through the same projection. */
#include "ops/method/heads.h"

typedef struct contrastive_loss_attrs {
  int64_t hidden, features;
  double temperature;
} contrastive_loss_attrs;

static status project(lower *rule, int first, int levels, value_id *out) {
  const contrastive_loss_attrs *attrs = rule->attrs;
  builder *b = rule->b;
  value_id pooled[LEVELS_MAX], x;
  for (int i = 0; i < levels; i++)
    TRY(error_prefix(build_node(b, "cell_pool", NULL, &rule->in[first + i], 1, &pooled[i]),
                     "level %d", i + 1));
  x = pooled[0];
  if (levels > 1) TRY(build_node(b, "concat", NULL, pooled, levels, &x));
  TRY(build_linear(b, "projection.0", x, attrs->hidden, &x));
  TRY(build_node(b, "relu", NULL, &x, 1, &x));
  return build_linear(b, "projection.2", x, attrs->features, out);
}

static status contrastive_loss_lower(lower *rule) {
  const contrastive_loss_attrs *attrs = rule->attrs;
  int levels = rule->in_count / 2;
  if (rule->in_count % 2)
    return shape_error("takes the levels of one view and then as many of the other, but there are "
                       "%d inputs",
                       rule->in_count);
  if (levels > LEVELS_MAX)
    return shape_error("takes at most %d levels of each view, not %d", LEVELS_MAX, levels);
  value_id views[2], out[8];
  for (int v = 0; v < 2; v++) TRY(project(rule, v * levels, levels, &views[v]));
  TRY(build_node(rule->b, "nt_xent", &attrs->temperature, views, 2, out));
  rule->out[0] = out[0];
  rule->out[1] = out[1];
  return OK;
}

const op op_contrastive_loss = {
    .name = "contrastive_loss",
    .family = "method",
    .summary = "Contrastive loss between the feature maps of two views.",
    .doc = "For each view: global average pooling of all its levels (cell_pool), put side by side, "
           "and a perceptron with one hidden layer, the same for both (parameters projection.0 and "
           "projection.2); then nt_xent, which tells the two views of a volume from the views of "
           "the others in the batch (SimCLR; Chen et al., ICML 2020). The inputs are the levels of "
           "the first view, then those of the second: [net1.levels, net2.levels]. Accuracy "
           "1 / (2N − 1) is chance.",
    .version = 1,
    .traits = OP_LOSS,
    .inputs = (const port[]){{"levels", "N X Y Z C", DTYPE_F32, PORT_VARIADIC,
                              "feature maps of the first view, then of the second"},
                             {0}},
    .outputs = (const port[]){{"loss", "scalar", DTYPE_F32, 0, "mean cross-entropy"},
                              {"accuracy", "scalar", DTYPE_F32, 0,
                               "share of views that find their partner"},
                              {0}},
    .attrs =
        (const attr[]){{"hidden", ATTR_INT, offsetof(contrastive_loss_attrs, hidden), "256", 1,
                        1 << 20, NULL, 0, "hidden features of the projection"},
                       {"features", ATTR_INT, offsetof(contrastive_loss_attrs, features), "128", 1,
                        1 << 20, NULL, 0, "features that are compared"},
                       {"temperature", ATTR_FLOAT, offsetof(contrastive_loss_attrs, temperature),
                        "0.1", 1e-3, 100, NULL, 0, "divides the cosines"},
                       {0}},
    .attrs_bytes = sizeof(contrastive_loss_attrs),
    .lower = contrastive_loss_lower,
    .cases = (const op_case[]){{"{hidden: 5, features: 3, temperature: 0.5}",
                                "[n=2..3, 1..3, 2, 1..3, c=1..5]; [n, 1, 1, 2, d=2..4]; "
                                "[n, 2, 1..2, 2, c]; [n, 1, 2, 1, d]",
                                0},
                               {0}},
};
