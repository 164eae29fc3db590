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

bool elsewhere_answer(const char *word, unsigned trait, const op **ours, text_buffer *out) {
  const char *remark = elsewhere_operator_remark(word), *place = NULL;
  const op *named = *ours = elsewhere_operator(word, trait);
  if (!named) {
    if (trait) named = elsewhere_operator(word, 0);
    if (!named) named = elsewhere_operator(word, OP_NOT_IN_GRAPHS & ~(unsigned)OP_INTERNAL);
    if (named) place = operator_place(named);
  }
  if (!named && !remark) return false;
  if (!named) {
    text_add(out, ": %s.", remark);
    return true;
  }
  text_add(out, "; did you mean \"%s\"", named->name);
  if (remark) text_add(out, " (%s)", remark);
  if (place)
    text_add(out, ", which belongs in `%s`", place);
  else if (!*ours)
    text_add(out, ", which belongs in the graph of a stage");
  text_add(out, "?");
  return true;
}

/* *meant: the operator of another name whose attributes are looked at, or NULL. */
static const op *find(const tree *key, unsigned trait, const char *sort, const op **meant,
                      problems *all) {
  const char *names[OPERATORS_MAX];
  int count = 0;
  char shown[96];
  const op *o = op_find(key->text);
  *meant = NULL;
  if (o && o->traits & trait) return o;
  if (o && operator_place(o)) {
    problems_report(all, key->at, "%s is not %s operator: it belongs in `%s`.", o->name, sort,
                    operator_place(o));
    return NULL;
  }
  if (o) {
    problems_report(all, key->at, "%s is not %s operator.", o->name, sort);
    return NULL;
  }
  text_buffer answer = {0};
  if (!elsewhere_answer(key->text, trait, meant, &answer)) {
    for (int i = 0; i < op_count() && count < OPERATORS_MAX; i++)
      if (op_at(i)->traits & trait) names[count++] = op_at(i)->name;
    const char *near = nearest_name(key->text, names, count);
    if (near)
      text_add(&answer, "; did you mean \"%s\"?", near);
    else
      text_add(&answer, "; `strata ops` lists them.");
  }
  problems_report(all, key->at, "There is no %s operator \"%s\"%s", strchr(sort, ' ') + 1,
                  printable(key->text, shown), answer.data);
  text_free(&answer);
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
  const op *meant;
  op_use use = {.op = find(key, trait, sort, &meant, all), .at = key->at};
  if (meant && content) bind_check_names(meant, content, all);
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
      if (!o) o = elsewhere_operator(item->keys[0]->text, trait);
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
