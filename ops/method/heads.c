#include "ops/method/heads.h"

#include <stdio.h>
#include <string.h>

status build_linear(builder *b, const char *name, value_id x, int64_t features, value_id *out) {
  const op *linear = op_find("linear");
  if (!linear) return error_new(ERROR_INTERNAL, b->at, "no operator is called linear");
  void *attrs = arena_alloc(&b->g->memory, linear->attrs_bytes ? linear->attrs_bytes : 1);
  op_defaults(linear, attrs);
  for (const attr *a = linear->attrs; a && a->name; a++)
    if (strcmp(a->name, "features") == 0 && a->kind == ATTR_INT) {
      memcpy((char *)attrs + a->offset, &features, sizeof features);
      return build_apply(b, name, linear, attrs, &x, 1, out);
    }
  return error_new(ERROR_INTERNAL, b->at, "operator linear has no attribute \"features\"");
}

static status classify_level(lower *rule, const cell_attrs *cells, int64_t classes, value_id target,
                             value_id features, int level, value_id *loss, value_id *accuracy) {
  builder *b = rule->b;
  value_id pooled, logits, terms[8];
  TRY(error_prefix(build_node(b, "cell_pool", cells, &features, 1, &pooled), "level %d",
                   level + 1));
  char name[32];
  snprintf(name, sizeof name, "heads.%d", level);
  TRY(build_linear(b, name, pooled, classes, &logits));
  value_id in[2] = {logits, target};
  TRY(build_node(b, "cross_entropy", NULL, in, 2, terms));
  *loss = terms[0];
  *accuracy = terms[1];
  return OK;
}

status classify_cells(lower *rule, const cell_attrs *cells, int64_t classes, value_id target,
                      int first) {
  int levels = rule->in_count - first;
  if (levels > LEVELS_MAX)
    return shape_error("takes at most %d levels, not %d", LEVELS_MAX, levels);
  value_id losses[LEVELS_MAX], accuracies[LEVELS_MAX];
  for (int i = 0; i < levels; i++)
    TRY(classify_level(rule, cells, classes, target, rule->in[first + i], i, &losses[i],
                       &accuracies[i]));
  TRY(build_node(rule->b, "add", NULL, losses, levels, &rule->out[0]));
  return build_node(rule->b, "stack", NULL, accuracies, levels, &rule->out[1]);
}
