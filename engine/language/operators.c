/* Operators under keys that are no graphs: prepare, sample, optimizer, initialize, postprocess. */
#include <string.h>

#include "base/text.h"
#include "language/bind.h"
#include "language/elsewhere.h"
#include "language/load.h"

enum { OPERATORS_MAX = 200 };

const char *operator_place(const op *o) {
  return o->traits & OP_OPTIMIZER     ? "optimizer:"
         : o->traits & OP_INITIALIZER ? "initialize:"
         : o->traits & OP_PREPARE     ? "data: prepare:"
         : o->traits & OP_SAMPLE      ? "data: sample:"
         : o->traits & OP_POSTPROCESS ? "evaluate: postprocess:"
                                      : NULL;
}

static const op *find(const tree *key, unsigned trait, const char *sort, problems *all) {
  const char *names[OPERATORS_MAX];
  int count = 0;
  char shown[96];
  const op *o = op_find(key->text);
  if (o && o->traits & trait) return o;
  for (int i = 0; i < op_count() && count < OPERATORS_MAX; i++)
    if (op_at(i)->traits & trait) names[count++] = op_at(i)->name;
  const op *ours = elsewhere_operator(key->text, trait);
  const char *remark = elsewhere_operator_remark(key->text);
  const op *other = o || ours || remark
                        ? NULL
                        : elsewhere_operator(key->text, OP_PREPARE | OP_SAMPLE | OP_POSTPROCESS);
  const char *near = o       ? NULL
                     : ours  ? ours->name
                     : other ? NULL
                             : nearest_name(key->text, names, count);
  if (o && operator_place(o))
    problems_report(all, key->at, "%s is not %s operator: it belongs in `%s`.", o->name, sort,
                    operator_place(o));
  else if (o)
    problems_report(all, key->at, "%s is not %s operator.", o->name, sort);
  else if (remark)
    problems_report(all, key->at, "There is no %s operator \"%s\": %s.", strchr(sort, ' ') + 1,
                    printable(key->text, shown), remark);
  else if (other)
    problems_report(
        all, key->at, "There is no %s operator \"%s\"; did you mean \"%s\", which belongs in `%s`?",
        strchr(sort, ' ') + 1, printable(key->text, shown), other->name, operator_place(other));
  else if (near)
    problems_report(all, key->at, "There is no %s operator \"%s\"; did you mean \"%s\"?",
                    strchr(sort, ' ') + 1, printable(key->text, shown), near);
  else
    problems_report(all, key->at, "There is no %s operator \"%s\"; `strata ops` lists them.",
                    strchr(sort, ' ') + 1, printable(key->text, shown));
  return NULL;
}

bool any_unreadable(const tree *t) {
  if (t == &unreadable) return true;
  for (int i = 0; i < t->count; i++)
    if (any_unreadable(t->items[i])) return true;
  return false;
}

op_use operator_read(arena *memory, const tree *key, const tree *content, unsigned trait,
                     const char *sort, problems *all) {
  op_use use = {.op = find(key, trait, sort, all), .at = key->at};
  if (!use.op) return use;
  use.attrs = arena_alloc(memory, use.op->attrs_bytes);
  if (content && any_unreadable(content)) return use;
  bind_attrs(use.op, content, NULL, key->at, memory, use.attrs, all);
  return use;
}

op_use *operators_read(arena *memory, tree *list, const char *what, unsigned trait,
                       const char *sort, int *count, problems *all) {
  char found[96];
  *count = 0;
  if (!list || list == &unreadable || tree_is_null(list)) return NULL;
  if (list->kind != TREE_LIST || list->count > OPERATORS_MAX) {
    problems_report(all, list->at, "%s must be a list of at most %d operators, not %s.", what,
                    OPERATORS_MAX, tree_describe(list, found));
    return NULL;
  }
  op_use *uses = arena_alloc(memory, sizeof *uses * (size_t)(list->count + 1));
  for (int i = 0; i < list->count; i++) {
    tree *item = list->items[i];
    if (item == &unreadable) continue;
    op_use use = {0};
    if (item->kind == TREE_SCALAR && !tree_is_null(item))
      use = operator_read(memory, item, NULL, trait, sort, all);
    else if (item->kind == TREE_MAP && item->count == 1) {
      const op *o = op_find(item->keys[0]->text);
      if (o && o->traits & trait && item->items[0]->kind == TREE_MAP)
        elsewhere_translate(o, item->items[0], memory, all);
      use = operator_read(memory, item->keys[0], item->items[0], trait, sort, all);
    } else {
      problems_report(
          all, item->at, "%s: an item is `- operator: {attributes}`, not %s%s.", what,
          tree_describe(item, found),
          item->kind == TREE_MAP && item->count > 1 ? " of several keys (is it indented?)" : "");
    }
    if (use.op) uses[(*count)++] = use;
  }
  return uses;
}
