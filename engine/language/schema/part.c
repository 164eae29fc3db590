#include "language/schema/part.h"

#include <string.h>

#include "language/tree.h"

static const char expression_pattern[] = "\\$\\{.+\\}";

json_t *part_described(json_t *schema, const char *doc) {
  if (doc) json_object_set_new(schema, "description", json_string(doc));
  return schema;
}

static json_t *json_of(const tree *t) {
  if (t->kind == TREE_LIST) {
    json_t *list = json_array();
    for (int i = 0; i < t->count; i++) json_array_append_new(list, json_of(t->items[i]));
    return list;
  }
  if (t->kind == TREE_MAP) {
    json_t *map = json_object();
    for (int i = 0; i < t->count; i++)
      json_object_set_new(map, t->keys[i]->text, json_of(t->items[i]));
    return map;
  }
  if (tree_is_null(t)) return json_null();
  int64_t whole;
  double real;
  bool truth;
  status error = tree_int(t, &whole);
  if (!error && !strpbrk(t->text, ".eE")) return json_integer(whole);
  error_free(error);
  if (!(error = tree_float(t, &real))) return json_real(real);
  error_free(error);
  if (!(error = tree_bool(t, &truth))) return json_boolean(truth);
  error_free(error);
  return json_string(t->text);
}

/* Text of this program as a value; what does not parse is text. */
static json_t *json_of_yaml(const char *yaml) {
  arena memory = {0};
  tree *t = NULL;
  error_free(tree_parse(&memory, yaml, strlen(yaml), "schema", &t));
  json_t *value = t ? json_of(t) : json_string(yaml);
  arena_free(&memory);
  return value;
}

json_t *part_default(json_t *schema, const char *yaml) {
  json_object_set_new(schema, "default", json_of_yaml(yaml));
  return schema;
}

json_t *part_examples(json_t *schema, const char *const *yaml) {
  json_t *list = json_array();
  for (; *yaml; yaml++) json_array_append_new(list, json_of_yaml(*yaml));
  json_object_set_new(schema, "examples", list);
  return schema;
}

json_t *part_reference(const char *definition) {
  return json_pack("{s:o}", "$ref", json_sprintf("#/definitions/%s", definition));
}

json_t *part_requiring(json_t *schema, const char *const *keys) {
  json_t *list = json_array();
  for (; *keys; keys++) json_array_append_new(list, json_string(*keys));
  json_object_set_new(schema, "required", list);
  return schema;
}

json_t *part_or_nothing(json_t *schema) {
  json_t *type = json_object_get(schema, "type"), *any = json_object_get(schema, "anyOf");
  if (json_is_string(type)) {
    json_object_set_new(schema, "type", json_pack("[O, s]", type, "null"));
  } else if (type) {
    const char *last = json_string_value(json_array_get(type, json_array_size(type) - 1));
    if (strcmp(last, "null") != 0) json_array_append_new(type, json_string("null"));
  } else if (any) {
    json_array_append_new(any, json_pack("{s:s}", "type", "null"));
  } else if (json_object_get(schema, "$ref")) {
    return json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null");
  }
  return schema;
}

/* `types` and an expression. */
json_t *part_typed(json_t *types) {
  json_array_append_new(types, json_string("string"));
  return json_pack("{s:o, s:s}", "type", types, "pattern", expression_pattern);
}

json_t *part_expression(void) {
  return json_pack("{s:s, s:s}", "type", "string", "pattern", expression_pattern);
}

json_t *part_any(const char *doc) {
  return part_described(json_object(), doc);
}

/* What looks like a number is text where text is asked for. */
json_t *part_text(const char *doc) {
  return part_described(json_pack("{s:[s, s, s]}", "type", "string", "number", "boolean"), doc);
}

json_t *part_bounds(json_t *schema, double min, double max) {
  /* JSON has no infinity; a bound that far away says nothing. */
  if (min > -1e9) json_object_set_new(schema, "minimum", json_real(min));
  if (max < 1e9) json_object_set_new(schema, "maximum", json_real(max));
  return schema;
}

json_t *part_integer(double min, double max, const char *doc) {
  return part_described(part_bounds(part_typed(json_pack("[s]", "integer")), min, max), doc);
}

json_t *part_number(double min, double max, const char *doc) {
  return part_described(part_bounds(part_typed(json_pack("[s]", "number")), min, max), doc);
}

json_t *part_truth(const char *doc) {
  return part_described(part_typed(json_pack("[s]", "boolean")), doc);
}

json_t *part_choice(const char *const *names, const char *doc) {
  json_t *list = json_array();
  for (; *names; names++) json_array_append_new(list, json_string(*names));
  return part_described(json_pack("{s:[{s:o}, o]}", "anyOf", "enum", list, part_expression()), doc);
}

json_t *part_list(json_t *items, int least, const char *doc) {
  json_t *schema = part_typed(json_pack("[s]", "array"));
  json_object_set_new(schema, "items", items);
  if (least > 0) json_object_set_new(schema, "minItems", json_integer(least));
  return part_described(schema, doc);
}

json_t *part_text_or_list(const char *doc) {
  return part_described(json_pack("{s:[s, s, s, s], s:o}", "type", "string", "number", "boolean",
                                  "array", "items", part_text(NULL)),
                        doc);
}

json_t *part_map(json_t *properties, const char *doc) {
  json_t *schema = part_typed(json_pack("[s]", "object"));
  json_object_set_new(schema, "properties", properties);
  json_object_set_new(schema, "additionalProperties", json_false());
  return part_described(schema, doc);
}

json_t *part_changing_map(json_t *properties, const char *doc) {
  json_t *open = json_object(), *value;
  const char *key;
  json_object_foreach(properties, key, value)
      json_object_set_new(open, key, part_or_nothing(json_incref(value)));
  json_decref(properties);
  return part_map(open, doc);
}

json_t *part_names(json_t *values, const char *doc) {
  json_t *schema = part_typed(json_pack("[s]", "object"));
  json_object_set_new(schema, "additionalProperties", values);
  return part_described(schema, doc);
}

json_t *part_single(json_t *map, bool changing) {
  json_object_set_new(map, "minProperties", json_integer(1));
  if (changing) /* one, or one of several is nothing */
    json_object_set_new(map, "anyOf",
                        json_pack("[{s:i}, {s:{s:{s:{s:s}}}}, {s:s}]", "maxProperties", 1, "not",
                                  "additionalProperties", "not", "type", "null", "type", "string"));
  else
    json_object_set_new(map, "maxProperties", json_integer(1));
  return map;
}
