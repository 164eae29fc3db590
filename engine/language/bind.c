#include "language/bind.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "language/elsewhere.h"

static const double UNBOUNDED = 1e9; /* bounds beyond are not worth telling the user */

static status check_range(const attr *a, double number, source_pos at) {
  if ((a->min == 0 && a->max == 0) || (number >= a->min && number <= a->max)) return OK;
  if (a->max >= UNBOUNDED)
    return error_new(ERROR_PIPELINE, at, "must be at least %.10g, not %.10g.", a->min, number);
  if (a->min <= -UNBOUNDED)
    return error_new(ERROR_PIPELINE, at, "must be at most %.10g, not %.10g.", a->max, number);
  return error_new(ERROR_PIPELINE, at, "must be from %.10g to %.10g, not %.10g.", a->min, a->max,
                   number);
}

static status read_int(const attr *a, const tree *t, int64_t *out) {
  TRY(tree_int(t, out));
  return check_range(a, (double)*out, t->at);
}

static status read_float(const attr *a, const tree *t, double *out) {
  TRY(tree_float(t, out));
  return check_range(a, *out, t->at);
}

static status read_choice(const attr *a, const tree *t, int *out) {
  char shown[96];
  int count = 0;
  while (a->choices[count]) count++;
  if (t->kind == TREE_SCALAR)
    for (int i = 0; i < count; i++)
      if (strcmp(t->text, a->choices[i]) == 0) {
        *out = i;
        return OK;
      }
  text_buffer names = {0};
  for (int i = 0; i < count; i++)
    text_add(&names, "%s%s", i == 0 ? "" : i == count - 1 ? " or " : ", ", a->choices[i]);
  const char *near = t->kind == TREE_SCALAR ? nearest_name(t->text, a->choices, count) : NULL;
  status error = error_new(ERROR_PIPELINE, t->at, "must be %s, not %s%s%s%s", names.data,
                           tree_describe(t, shown), near ? "; did you mean \"" : ".",
                           near ? near : "", near ? "\"?" : "");
  text_free(&names);
  return error;
}

static status list_of(const tree *t, int least, int most, const char *what) {
  char shown[96];
  if (t->kind == TREE_LIST && t->count >= least && t->count <= most) return OK;
  return error_new(ERROR_PIPELINE, t->at, "must be %s, not %s.", what, tree_describe(t, shown));
}

static status read_ints(const attr *a, const tree *t, int64_t *out) {
  for (int i = 0; i < t->count; i++) TRY(read_int(a, t->items[i], &out[i]));
  return OK;
}

static status read_floats(const attr *a, const tree *t, double *out) {
  for (int i = 0; i < t->count; i++) TRY(read_float(a, t->items[i], &out[i]));
  return OK;
}

static status read_axes(const tree *t, unsigned *out) {
  char shown[96];
  *out = 0;
  int count = t->kind == TREE_LIST ? t->count : 1;
  for (int i = 0; i < count; i++) {
    const tree *item = t->kind == TREE_LIST ? t->items[i] : t;
    bool is_letter = item->kind == TREE_SCALAR && item->text[0] >= 'x' && item->text[0] <= 'z' &&
                     item->text[1] == 0;
    if (!is_letter)
      return error_new(ERROR_PIPELINE, item->at, "must be x, y, z or a list of them, not %s.",
                       tree_describe(item, shown));
    unsigned bit = 1u << (item->text[0] - 'x');
    if (*out & bit)
      return error_new(ERROR_PIPELINE, item->at, "has the axis %s twice.", item->text);
    *out |= bit;
  }
  return OK;
}

static status read_attr(const attr *a, const tree *t, arena *memory, void *attrs) {
  void *field = (char *)attrs + a->offset;
  switch (a->kind) {
  case ATTR_BOOL:
    return tree_bool(t, field);
  case ATTR_INT:
    return read_int(a, t, field);
  case ATTR_FLOAT:
    return read_float(a, t, field);
  case ATTR_CHOICE:
    return read_choice(a, t, field);
  case ATTR_STRING: {
    const char *text;
    TRY(tree_string(t, &text));
    *(const char **)field = arena_strdup(memory, text);
    return OK;
  }
  case ATTR_INT3: {
    int64_t *out = field;
    if (t->kind != TREE_LIST) {
      TRY(read_int(a, t, &out[0]));
      out[1] = out[2] = out[0];
      return OK;
    }
    TRY(list_of(t, 3, 3, "[x, y, z] or one integer"));
    return read_ints(a, t, out);
  }
  case ATTR_FLOAT3: {
    double *out = field;
    if (t->kind != TREE_LIST) {
      TRY(read_float(a, t, &out[0]));
      out[1] = out[2] = out[0];
      return OK;
    }
    TRY(list_of(t, 3, 3, "[x, y, z] or one number"));
    return read_floats(a, t, out);
  }
  case ATTR_RANGE: {
    double *out = field;
    TRY(list_of(t, 2, 2, "[low, high]"));
    TRY(read_floats(a, t, out));
    if (out[0] > out[1])
      return error_new(ERROR_PIPELINE, t->at,
                       "must be [low, high] with low ≤ high, not [%.10g, %.10g].", out[0], out[1]);
    return OK;
  }
  case ATTR_AXES:
    return read_axes(t, field);
  case ATTR_INTS: {
    int_list *out = field;
    TRY(list_of(t, 0, LIST_MAX, "a list of at most 256 integers"));
    TRY(read_ints(a, t, out->at));
    out->count = t->count;
    return OK;
  }
  case ATTR_FLOATS: {
    float_list *out = field;
    TRY(list_of(t, 0, LIST_MAX, "a list of at most 256 numbers"));
    TRY(read_floats(a, t, out->at));
    out->count = t->count;
    return OK;
  }
  }
  return error_new(ERROR_INTERNAL, t->at, "attribute %s has an unknown kind.", a->name);
}

static status unknown_attribute(const op *o, const tree *key, const char *const *reserved) {
  enum { MOST = 64 };
  const char *names[MOST];
  int count = 0, own = 0;
  for (const attr *a = o->attrs; a && a->name && count < MOST; a++) names[count++] = a->name;
  own = count;
  for (int i = 0; reserved && reserved[i] && count < MOST; i++) names[count++] = reserved[i];
  char shown[96];
  printable(key->text, shown);
  const char *difference = NULL, *ours = elsewhere_attribute(o, key->text, &difference);
  const char *remark = ours ? NULL : elsewhere_attribute_remark(o, key->text);
  const char *near = ours ? ours : remark ? NULL : nearest_name(key->text, names, count);
  if (near)
    return error_new(ERROR_PIPELINE, key->at,
                     "%s has no attribute \"%s\"; did you mean \"%s\"%s%s?", o->name, shown, near,
                     difference ? ", " : "", difference ? difference : "");
  if (remark)
    return error_new(ERROR_PIPELINE, key->at, "%s has no attribute \"%s\": %s.", o->name, shown,
                     remark);
  if (own == 0)
    return error_new(ERROR_PIPELINE, key->at, "%s has no attribute \"%s\"; it takes none.", o->name,
                     shown);
  text_buffer list = {0};
  for (int i = 0; i < own; i++) text_add(&list, "%s%s", i ? ", " : "", names[i]);
  status error = error_new(ERROR_PIPELINE, key->at, "%s has no attribute \"%s\"; it has %s.",
                           o->name, shown, list.data);
  text_free(&list);
  return error;
}

/* NULL: a reserved key, or an unknown one, which is a problem. */
static const attr *find_attr(const op *o, const tree *key, const char *const *reserved,
                             problems *all) {
  for (int k = 0; reserved && reserved[k]; k++)
    if (strcmp(key->text, reserved[k]) == 0) return NULL;
  for (const attr *a = o->attrs; a && a->name; a++)
    if (strcmp(a->name, key->text) == 0) return a;
  problems_add(all, unknown_attribute(o, key, reserved));
  return NULL;
}

void bind_check_names(const op *o, const tree *map, problems *all) {
  if (map->kind != TREE_MAP) return;
  for (int i = 0; i < map->count; i++) find_attr(o, map->keys[i], NULL, all);
}

void bind_attrs(const op *o, const tree *map, const char *const *reserved, source_pos at,
                arena *memory, void *attrs, problems *all) {
  op_defaults(o, attrs);
  char shown[96];
  if (map && map->kind != TREE_MAP && !tree_is_null(map)) {
    problems_add(all, error_new(ERROR_PIPELINE, map->at,
                                "%s: expected a mapping of its attributes, not %s.", o->name,
                                tree_describe(map, shown)));
    return;
  }
  for (int i = 0; map && i < map->count; i++) {
    const attr *a = find_attr(o, map->keys[i], reserved, all);
    if (a)
      problems_add(all, error_prefix(read_attr(a, map->items[i], memory, attrs), "%s: %s", o->name,
                                     a->name));
  }
  for (const attr *a = o->attrs; a && a->name; a++)
    if (!a->fallback && !tree_get(map, a->name))
      problems_add(all, error_new(ERROR_PIPELINE, at, "%s needs \"%s\": %s.", o->name, a->name,
                                  a->doc ? a->doc : "it has no default"));
}

status bind_attr_text(const attr *a, const char *text, arena *memory, void *attrs) {
  tree *t;
  TRY(tree_parse(memory, text, strlen(text), a->name, &t));
  return error_prefix(read_attr(a, t, memory, attrs), "%s", a->name);
}

static void add_float(text_buffer *out, double number) {
  char text[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    if (strtod(text, NULL) == number) break;
  }
  text_append(out, text, strlen(text));
}

char *attr_format(const attr *a, const void *attrs, arena *memory) {
  const void *field = (const char *)attrs + a->offset;
  text_buffer out = {0};
  text_append(&out, "", 0);
  const int64_t *ints = field;
  const double *floats = field;
  int count = 1;
  bool is_list = true;
  switch (a->kind) {
  case ATTR_BOOL:
    text_add(&out, *(const bool *)field ? "true" : "false");
    break;
  case ATTR_CHOICE:
  case ATTR_STRING: {
    const char *text =
        a->kind == ATTR_CHOICE ? a->choices[*(const int *)field] : *(const char *const *)field;
    tree *t = tree_scalar(memory, NOWHERE, text ? text : "", text && !text[0]);
    tree_write(t, &out, 0);
    out.data[--out.length] = 0; /* the line end */
    break;
  }
  case ATTR_INT:
  case ATTR_FLOAT:
    is_list = false;
    break;
  case ATTR_INT3:
  case ATTR_FLOAT3:
    count = 3;
    break;
  case ATTR_RANGE:
    count = 2;
    break;
  case ATTR_AXES: {
    unsigned axes = *(const unsigned *)field;
    text_add(&out, "[");
    for (int i = 0; i < 3; i++)
      if (axes >> i & 1) text_add(&out, "%s%c", axes & ((1u << i) - 1) ? ", " : "", 'x' + i);
    text_add(&out, "]");
    break;
  }
  case ATTR_INTS:
    count = ((const int_list *)field)->count;
    ints = ((const int_list *)field)->at;
    break;
  case ATTR_FLOATS:
    count = ((const float_list *)field)->count;
    floats = ((const float_list *)field)->at;
    break;
  }
  bool is_int = a->kind == ATTR_INT || a->kind == ATTR_INT3 || a->kind == ATTR_INTS;
  bool is_float = a->kind == ATTR_FLOAT || a->kind == ATTR_FLOAT3 || a->kind == ATTR_FLOATS ||
                  a->kind == ATTR_RANGE;
  if (is_int || is_float) {
    if (is_list) text_add(&out, "[");
    for (int i = 0; i < count; i++) {
      if (i > 0) text_add(&out, ", ");
      if (is_int)
        text_add(&out, "%lld", (long long)ints[i]);
      else
        add_float(&out, floats[i]);
    }
    if (is_list) text_add(&out, "]");
  }
  char *text = arena_strdup(memory, out.data);
  text_free(&out);
  return text;
}

char *attrs_format(const op *o, const void *attrs, arena *memory) {
  char *text = arena_strdup(memory, "");
  for (const attr *a = o->attrs; a && a->name; a++)
    text = arena_printf(memory, "%s%s%s: %s", text, text[0] ? ", " : "", a->name,
                        attr_format(a, attrs, memory));
  return text;
}

static const char *kind_name(const attr *a) {
  switch (a->kind) {
  case ATTR_BOOL:
    return "true | false";
  case ATTR_INT:
    return "whole number";
  case ATTR_FLOAT:
    return "number";
  case ATTR_CHOICE:
    return "choice";
  case ATTR_STRING:
    return "text";
  case ATTR_INT3:
    return "[x, y, z] whole numbers, or one for all";
  case ATTR_FLOAT3:
    return "[x, y, z], or one for all";
  case ATTR_RANGE:
    return "[low, high]";
  case ATTR_AXES:
    return "axes, from x y z";
  case ATTR_INTS:
    return "list of whole numbers";
  case ATTR_FLOATS:
    return "list of numbers";
  }
  return "";
}

void attr_describe(const attr *a, text_buffer *out) {
  text_add(out, "%s", kind_name(a));
  for (int i = 0; a->choices && a->choices[i]; i++)
    text_add(out, "%s%s", i ? " | " : ": ", a->choices[i]);
  if (a->min != 0 || a->max != 0) text_add(out, ", %g to %g", a->min, a->max);
  text_add(out, a->fallback ? "; default %s" : "; required", a->fallback);
  if (a->flags & ATTR_SCHEDULABLE) text_add(out, "; schedulable");
  if (a->flags & ATTR_TRAINING) text_add(out, "; 0 outside training");
}
