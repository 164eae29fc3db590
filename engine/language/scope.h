/* Names and `${…}` expressions. A scope maps names to trees (a number, string or list) and has a
 * parent. Expressions: numbers, 'strings', names, a.b, a[i], + − * / // % ( ), == != < <= > >=,
 * and or not, min(a, b), max(a, b), len(list); division of two integers that leaves no rest is an
 * integer, otherwise a float; // floors. Evaluation is bounded and has no side effects. */
#ifndef STRATA_LANGUAGE_SCOPE_H
#define STRATA_LANGUAGE_SCOPE_H

#include "language/tree.h"

typedef struct scope {
  const struct scope *parent;
  int count, capacity;
  const char **names;
  tree **values;
  /* Asked for names not found in any table ("x.channels"); returns false when it does not know. */
  bool (*lookup)(void *context, arena *memory, const char *name, source_pos at, tree **out);
  void *context;
} scope;

/* `text` as an expression that gives it: `$` begins nothing. */
void scope_escape(const char *text, struct text_buffer *out);
void scope_set(scope *s, arena *memory, const char *name, tree *value);
tree *scope_get(const scope *s, const char *name);

/* A copy of `in` with every `${…}` replaced, in values and in keys. A scalar that is exactly one
 * `${…}` becomes the value itself (a list stays a list); inside longer text the value's text is
 * pasted. Undefined names are errors with the nearest known name. `$$` writes a dollar sign. */
status scope_eval(const scope *s, arena *memory, const tree *in, tree **out);
/* Truth of a `when:` value: true/false, or a number ≠ 0. */
status scope_truth(const scope *s, arena *memory, const tree *in, bool *out);

#endif
