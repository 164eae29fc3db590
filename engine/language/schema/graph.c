/* Operators, wherever they stand: in lists, as the value of a key, and in graphs.
 *
 * In a graph the first key of an item is its operator or block, and JSON Schema does not see the order
 * of keys. In a stage there are no blocks, so the operator is the key that names one; three operators
 * (dropout, scale, sigmoid) are also attributes of others, which then win. Where a file has blocks of
 * its own, whose names and parameters the schema cannot know, an item is held to an operator's attributes
 * only when no other key of it could be a block with its inputs. */
#include <string.h>

#include "base/text.h"
#include "language/bind.h"
#include "language/elsewhere.h"
#include "language/schema/part.h"

static json_t *fixed_list(json_t *schema, const char *type, const attr *a, int least, int most) {
  json_t *item = part_typed(json_pack("[s]", type));
  if (a->min != 0 || a->max != 0) part_bounds(item, a->min, a->max);
  json_object_set_new(schema, "items", item);
  json_object_set_new(schema, "minItems", json_integer(least));
  json_object_set_new(schema, "maxItems", json_integer(most));
  return schema;
}

static json_t *list_of(const char *type, const attr *a, int least, int most) {
  return fixed_list(part_typed(json_pack("[s]", "array")), type, a, least, most);
}

static json_t *one_number(json_t *types, const attr *a) {
  json_t *schema = part_typed(types);
  return a->min != 0 || a->max != 0 ? part_bounds(schema, a->min, a->max) : schema;
}

static json_t *axes(void) {
  static const char *const names[] = {"x", "y", "z", NULL};
  json_t *list = part_list(part_choice(names, NULL), 0, NULL);
  json_object_set_new(list, "uniqueItems", json_true());
  return json_pack("{s:[{s:[s, s, s]}, o]}", "anyOf", "enum", "x", "y", "z", list);
}

static json_t *values_of(const attr *a) {
  switch (a->kind) {
  case ATTR_BOOL:
    return part_truth(NULL);
  case ATTR_INT:
    return one_number(json_pack("[s]", "integer"), a);
  case ATTR_FLOAT:
    return one_number(json_pack("[s]", "number"), a);
  case ATTR_STRING:
    return part_text(NULL);
  case ATTR_INT3:
    return fixed_list(one_number(json_pack("[s, s]", "integer", "array"), a), "integer", a, 3, 3);
  case ATTR_FLOAT3:
    return fixed_list(one_number(json_pack("[s, s]", "number", "array"), a), "number", a, 3, 3);
  case ATTR_RANGE:
    return list_of("number", a, 2, 2);
  case ATTR_INTS:
    return list_of("integer", a, 0, LIST_MAX);
  case ATTR_FLOATS:
    return list_of("number", a, 0, LIST_MAX);
  case ATTR_CHOICE:
    return part_choice(a->choices, NULL);
  case ATTR_AXES:
    return axes();
  }
  return part_any(NULL);
}

/* Editors show the description alone, so it says what the schema says. */
json_t *part_attribute(const attr *a) {
  text_buffer text = {0};
  if (a->doc) text_add(&text, "%s\n\n", a->doc);
  attr_describe(a, &text);
  json_t *schema = part_described(values_of(a), text.data);
  text_free(&text);
  return a->fallback ? part_default(schema, a->fallback) : schema;
}

json_t *part_attributes(const op *o) {
  json_t *properties = json_object();
  for (const attr *a = o->attrs; a && a->name; a++)
    json_object_set_new(properties, a->name, part_attribute(a));
  return properties;
}

static json_t *about(json_t *schema, const op *o) {
  text_buffer text = {0};
  text_add(&text, "%s", o->summary);
  if (o->doc) text_add(&text, "\n\n%s", o->doc);
  if (o->torch) text_add(&text, "\n\nIn PyTorch: %s", o->torch);
  part_described(schema, text.data);
  text_free(&text);
  return schema;
}

static json_t *required_one(const char *key) {
  return json_pack("{s:[s]}", "required", key);
}

/* Elsewhere's words for attributes, beside their own. */
static void add_words(json_t *properties, const op *o) {
  const char *word;
  for (const attr *a = o->attrs; a && a->name; a++)
    for (int i = 0; (word = elsewhere_word(o, a, i)); i++) {
      char text[64];
      snprintf(text, sizeof text, "Another word for %s.", a->name);
      json_object_set_new(properties, word, part_described(values_of(a), text));
    }
}

/* Adds what has no default, by whatever word; false when everything has one. */
static bool add_required(json_t *schema, const op *o) {
  json_t *list = json_array(), *rules = json_array();
  const char *word;
  for (const attr *a = o->attrs; a && a->name; a++) {
    if (a->fallback) continue;
    if (!elsewhere_word(o, a, 0)) {
      json_array_append_new(list, json_string(a->name));
      continue;
    }
    json_t *words = json_pack("[o]", required_one(a->name));
    for (int i = 0; (word = elsewhere_word(o, a, i)); i++)
      json_array_append_new(words, required_one(word));
    json_array_append_new(rules, json_pack("{s:o}", "anyOf", words));
  }
  bool any = json_array_size(list) + json_array_size(rules) > 0;
  if (json_array_size(list)) json_object_set(schema, "required", list);
  if (json_array_size(rules)) json_object_set(schema, "allOf", rules);
  json_decref(list);
  json_decref(rules);
  return any;
}

/* ---- in lists and as values ---------------------------------------------------------------- */

static json_t *or_bare_name(json_t *mapping, json_t *names) {
  return json_pack("{s:{s:s}, s:{s:[{s:o}, o]}, s:o}", "if", "type", "string", "then", "anyOf",
                   "enum", names, part_expression(), "else", mapping);
}

json_t *part_operator_item(unsigned trait) {
  json_t *properties = json_object(), *names = json_array();
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!(o->traits & trait)) continue;
    json_t *own = part_attributes(o);
    add_words(own, o);
    json_t *attributes = part_map(own, NULL);
    if (!add_required(attributes, o)) {
      part_or_nothing(attributes);
      json_array_append_new(names, json_string(o->name));
    }
    json_object_set_new(properties, o->name, about(attributes, o));
  }
  return or_bare_name(part_single(part_map(properties, NULL), false), names);
}

json_t *part_operator_value(unsigned trait, bool bare_name) {
  json_t *properties = json_object(), *names = json_array();
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!(o->traits & trait)) continue;
    json_array_append_new(names, json_string(o->name));
    json_object_set_new(properties, o->name, about(part_changing_map(part_attributes(o), NULL), o));
  }
  json_t *single = part_single(part_changing_map(properties, NULL), true);
  if (bare_name) return or_bare_name(single, names);
  json_decref(names);
  return single;
}

json_t *part_operator_complete(unsigned trait) {
  json_t *properties = json_object();
  for (int i = 0; i < op_count(); i++) {
    json_t *needs = json_object();
    if (op_at(i)->traits & trait && add_required(needs, op_at(i)))
      json_object_set(properties, op_at(i)->name, needs);
    json_decref(needs);
  }
  return json_pack("{s:o}", "properties", properties);
}

/* ---- in graphs ----------------------------------------------------------------------------- */

static bool stands_in_graphs(const op *o) {
  return !(o->traits & OP_NOT_IN_GRAPHS);
}

static json_t *condition_doc(void) {
  return part_described(json_pack("{s:[s, s, s], s:s}", "type", "boolean", "number", "string",
                                  "pattern", "\\$\\{.+\\}"),
                        "the item is left out when this is false");
}

static json_t *shared_doc(void) {
  return part_text("an earlier item whose parameters it shares");
}

static json_t *weight_doc(void) {
  return part_described(part_typed(json_pack("[s]", "number")),
                        "factor of this loss in the sum (default 1)");
}

static const char model_doc[] = "the pipeline's model, applied to these inputs; other keys are its "
                                "parameters";

/* Keys an item may have besides its operator and the attributes. */
static void add_item_keys(json_t *properties) {
  json_object_set_new(properties, "when", condition_doc());
  json_object_set_new(properties, "parameters", shared_doc());
  json_object_set_new(properties, "weight", weight_doc());
}

static json_t *inputs_of(const op *o) {
  return about(json_pack("{s:[{s:s}]}", "allOf", "$ref", "#/definitions/inputs"), o);
}

/* {operator: inputs, attributes} and nothing else. */
static json_t *operation(const op *o) {
  json_t *properties = part_attributes(o);
  json_object_set_new(properties, o->name, inputs_of(o));
  add_item_keys(properties);
  json_t *schema = json_pack("{s:o, s:b}", "properties", properties, "additionalProperties", 0);
  add_required(schema, o);
  return schema;
}

static bool has_attribute(const op *o, const char *name) {
  for (const attr *a = o->attrs; a && a->name; a++)
    if (strcmp(a->name, name) == 0) return true;
  return false;
}

/* The item's operator is `o`: its key is there, and no key of which it would be an attribute. */
static json_t *is_operation(const op *o) {
  json_t *others = json_pack("[o]", required_one("model"));
  for (int i = 0; i < op_count(); i++)
    if (stands_in_graphs(op_at(i)) && has_attribute(op_at(i), o->name))
      json_array_append_new(others, required_one(op_at(i)->name));
  json_t *condition = required_one(o->name);
  json_object_set_new(condition, "not", json_pack("{s:o}", "anyOf", others));
  return condition;
}

static json_t *operation_reference(const op *o) {
  return json_pack("{s:o}", "$ref", json_sprintf("#/definitions/operator.%s", o->name));
}

/* Every operator's name, for completion and help; and those of which one is there. */
static json_t *operator_names(json_t *one_of_them) {
  json_t *properties = json_object();
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!stands_in_graphs(o)) continue;
    json_object_set_new(properties, o->name, inputs_of(o));
    json_array_append_new(one_of_them, required_one(o->name));
  }
  add_item_keys(properties);
  return properties;
}

/* An item without blocks: one operator, or `model`. */
static json_t *item_of_operators(void) {
  json_t *any = json_pack("[o]", required_one("model"));
  json_t *names = operator_names(any), *rules = json_array();
  json_object_set_new(
      names, "model",
      part_described(json_pack("{s:[{s:s}]}", "allOf", "$ref", "#/definitions/inputs"), model_doc));
  /* A key that is an expression can name an operator too. */
  json_array_append_new(
      any, json_pack("{s:{s:{s:{s:s}}}}", "not", "propertyNames", "not", "pattern", "\\$"));
  json_array_append_new(rules, json_pack("{s:{s:o}, s:{s:o, s:b}}", "if", "anyOf", any, "else",
                                         "properties", names, "additionalProperties", 0));
  json_array_append_new(rules, json_pack("{s:o, s:{s:{s:{s:s, s:s}, s:o, s:o}}}", "if",
                                         required_one("model"), "then", "properties", "model",
                                         "$ref", "#/definitions/inputs", "description", model_doc,
                                         "when", condition_doc(), "parameters", shared_doc()));
  for (int i = 0; i < op_count(); i++)
    if (stands_in_graphs(op_at(i)))
      json_array_append_new(rules, json_pack("{s:o, s:o}", "if", is_operation(op_at(i)), "then",
                                             operation_reference(op_at(i))));
  return json_pack("{s:s, s:i, s:o}", "type", "object", "minProperties", 1, "allOf", rules);
}

/* Is it an operation although there may be blocks? Its key has what can only be inputs, and no other
 * key has. */
static json_t *is_operation_among_blocks(const op *o) {
  json_t *condition = is_operation(o), *properties = json_object();
  for (const attr *a = o->attrs; a && a->name; a++)
    json_object_set_new(properties, a->name, json_object());
  json_object_set_new(properties, "when", json_object());
  json_object_set_new(properties, "parameters", json_object());
  json_object_set_new(properties, o->name, part_reference("plain_inputs"));
  json_object_set_new(condition, "properties", properties);
  json_object_set_new(condition, "additionalProperties",
                      json_pack("{s:o}", "not", part_reference("plain_inputs")));
  return condition;
}

static json_t *item_among_blocks(void) {
  json_t *any = json_array(), *rules = json_array();
  json_t *names = operator_names(any);
  json_array_append_new(
      rules, json_pack("{s:{s:o}, s:{s:o}}", "if", "anyOf", any, "else", "properties", names));
  for (int i = 0; i < op_count(); i++)
    if (stands_in_graphs(op_at(i)))
      json_array_append_new(rules,
                            json_pack("{s:o, s:{s:[o, {s:{s:b}}]}}", "if",
                                      is_operation_among_blocks(op_at(i)), "then", "allOf",
                                      operation_reference(op_at(i)), "properties", "weight", 0));
  return json_pack("{s:s, s:i, s:o}", "type", "object", "minProperties", 1, "allOf", rules);
}

static const char item_name[] = "^[A-Za-z0-9_]+(\\.[A-Za-z0-9_]+)*$|\\$";

/* A list of items `- name: {operator: inputs, attributes}` and repeats. */
static void define_graph(json_t *definitions, const char *name, json_t *items) {
  const char *const needs[] = {"graph", NULL};
  json_t *named = json_pack("{s:s, s:i, s:i, s:{s:s}}", "type", "object", "minProperties", 1,
                            "maxProperties", 1, "propertyNames", "pattern", item_name);
  json_object_update_missing(named, items);
  json_decref(items);
  json_t *body =
      json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "repeat", part_integer(0, 4096, "how many times"),
                "as", part_text("name that counts the rounds from 0 (default i)"), "carry",
                part_names(part_reference("inputs"), "name: value in the first round"), "graph",
                part_reference(name), "next",
                part_names(part_reference("inputs"), "name: value in the round after"), "when",
                condition_doc());
  json_t *repeat = part_requiring(part_map(body, "a list of items, several times"), needs);
  json_object_set_new(definitions, name,
                      json_pack("{s:s, s:i, s:{s:{s:[s]}, s:o, s:o}, s:s}", "type", "array",
                                "minItems", 1, "items", "if", "required", "repeat", "then", repeat,
                                "else", named, "description",
                                "items `- name: {operator: input, attribute: value}`"));
}

void part_define_graphs(json_t *definitions) {
  json_object_set_new(definitions, "inputs",
                      json_pack("{s:[s, s, s], s:o}", "type", "string", "array", "null", "items",
                                part_reference("inputs")));
  /* Not one whole expression, which could be a number as well. */
  json_object_set_new(definitions, "plain_inputs",
                      json_pack("{s:[s, s, s], s:s, s:o}", "type", "string", "array", "null",
                                "pattern", "^(?!\\$\\{[^}]*\\}$)", "items",
                                part_reference("plain_inputs")));
  for (int i = 0; i < op_count(); i++) {
    char name[128];
    snprintf(name, sizeof name, "operator.%s", op_at(i)->name);
    if (stands_in_graphs(op_at(i))) json_object_set_new(definitions, name, operation(op_at(i)));
  }
  json_object_set_new(definitions, "item.loss", item_of_operators());
  /* `weight` is a loss's. */
  json_object_set_new(definitions, "item.of_stage",
                      json_pack("{s:[o, {s:{s:o}, s:{s:{s:b}}}]}", "allOf",
                                part_reference("item.loss"), "if", "not", required_one("model"),
                                "then", "properties", "weight", 0));
  json_object_set_new(definitions, "item.of_model",
                      json_pack("{s:[o, {s:{s:b}}]}", "allOf", part_reference("item.of_stage"),
                                "properties", "model", 0));
  json_object_set_new(definitions, "item.among_blocks", item_among_blocks());
  define_graph(definitions, "graph",
               json_pack("{s:{s:o}, s:o}", "patternProperties", "^loss(\\.|$)",
                         part_reference("item.loss"), "additionalProperties",
                         part_reference("item.of_stage")));
  define_graph(definitions, "graph_of_operators",
               json_pack("{s:o}", "additionalProperties", part_reference("item.of_model")));
  define_graph(definitions, "graph_with_blocks",
               json_pack("{s:o}", "additionalProperties", part_reference("item.among_blocks")));
}
