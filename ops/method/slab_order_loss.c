/* slab_order_loss: can each level of the network tell where a slab came from? (Kunhimon et al.,
 * arXiv 2306.09320, the structural objective.) Built from other operators: per level slab_pool →
 * linear → cross_entropy against the permutation that shuffle_slabs drew. */
#include "ops/method/slabs.h"

#include <stdio.h>
#include <string.h>

enum { OUT_LOSS, OUT_ACCURACY };
enum { IN_ORDER, IN_LEVELS, LEVELS_MAX = 16 };

/* The number of outputs of a linear layer, by its attribute's name. */
static status linear_attrs(const op *linear, int64_t features, void *attrs) {
  op_defaults(linear, attrs);
  for (const attr *a = linear->attrs; a && a->name; a++)
    if (strcmp(a->name, "features") == 0 && a->kind == ATTR_INT) {
      memcpy((char *)attrs + a->offset, &features, sizeof features);
      return OK;
    }
  return error_new(ERROR_INTERNAL, NOWHERE, "operator linear has no attribute \"features\"");
}

static status level_loss(lower *rule, int level, value_id *loss, value_id *accuracy) {
  builder *b = rule->b;
  const slab_attrs *attrs = rule->attrs;
  const op *linear = op_find("linear");
  if (!linear) return error_new(ERROR_INTERNAL, b->at, "no operator is called linear");
  void *head = arena_alloc(&b->g->memory, linear->attrs_bytes ? linear->attrs_bytes : 1);
  TRY(linear_attrs(linear, attrs->slabs, head));
  value_id pooled, logits, terms[8];
  TRY(error_prefix(build_node(b, "slab_pool", attrs, &rule->in[IN_LEVELS + level], 1, &pooled),
                   "level %d", level + 1));
  char name[32];
  snprintf(name, sizeof name, "heads.%d", level);
  TRY(build_apply(b, name, linear, head, &pooled, 1, &logits));
  value_id in[2] = {logits, rule->in[IN_ORDER]};
  TRY(build_node(b, "cross_entropy", NULL, in, 2, terms));
  *loss = terms[0];
  *accuracy = terms[1];
  return OK;
}

static status slab_order_loss_lower(lower *rule) {
  builder *b = rule->b;
  const slab_attrs *attrs = rule->attrs;
  int levels = rule->in_count - IN_LEVELS;
  const shape *order = &value_type(b, rule->in[IN_ORDER])->shape;
  char have[96];
  if (order->rank != 2 || order->dim[1] != attrs->slabs)
    return shape_error(
        "slab_order_loss has %lld slabs, but the order is %s; give it the same \"slabs\" as "
        "shuffle_slabs",
        (long long)attrs->slabs, shape_format(have, order));
  if (levels > LEVELS_MAX)
    return shape_error("slab_order_loss takes at most %d levels, not %d", LEVELS_MAX, levels);
  value_id losses[LEVELS_MAX], accuracies[LEVELS_MAX];
  for (int i = 0; i < levels; i++) TRY(level_loss(rule, i, &losses[i], &accuracies[i]));
  TRY(build_node(b, "add", NULL, losses, levels, &rule->out[OUT_LOSS]));
  return build_node(b, "stack", NULL, accuracies, levels, &rule->out[OUT_ACCURACY]);
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
                             {"levels", "N X Y Z C", DTYPE_F32, PORT_VARIADIC,
                              "feature maps of the network, any sizes"},
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
