/* Which value of a stage is its segmentation, where `validate` does not say? */
#include <string.h>

#include "language/load.h"

/* The logits of a loss that reads the target, `dice_ce: [net.out, label]`; NULL: the item is none. */
static const tree *compared_with(const char *target, const tree *item) {
  if (item->kind != TREE_MAP || item->count != 1 || item->items[0]->kind != TREE_MAP) return NULL;
  const tree *body = item->items[0];
  for (int i = 0; i < body->count; i++) {
    const op *o = op_find(body->keys[i]->text);
    const tree *inputs = body->items[i];
    if (!o || !(o->traits & OP_LOSS) || inputs->kind != TREE_LIST || inputs->count != 2) continue;
    bool is_target =
        inputs->items[1]->kind == TREE_SCALAR && strcmp(inputs->items[1]->text, target) == 0;
    if (is_target && inputs->items[0]->kind == TREE_SCALAR) return inputs->items[0];
  }
  return NULL;
}

const char *segmented_value(const tree *graph, const char *target) {
  const char *found = NULL;
  for (int i = 0; graph && graph->kind == TREE_LIST && i < graph->count; i++) {
    const tree *value = compared_with(target, graph->items[i]);
    if (!value || (found && strcmp(found, value->text) == 0)) continue;
    if (found || strchr(value->text, '$')) return NULL;
    found = value->text;
  }
  return found;
}
