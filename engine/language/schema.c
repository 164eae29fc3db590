/* The language as a JSON Schema (draft 7), for editors: completion, documentation on hover, and
 * warnings while typing. What the schema cannot say (sums, names, shapes) `strata check` does. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "language/pipeline.h"

/* Every value may also be an expression. */
static json_t *or_expression(json_t *schema) {
  return json_pack("{s:[o, {s:s}]}", "anyOf", schema, "$ref", "#/definitions/expression");
}

static json_t *described(json_t *schema, const char *doc) {
  if (doc) json_object_set_new(schema, "description", json_string(doc));
  return schema;
}

static json_t *reference(const char *definition) {
  return json_pack("{s:o}", "$ref", json_sprintf("#/definitions/%s", definition));
}

static json_t *of_type(const char *type) {
  return json_pack("{s:s}", "type", type);
}

static json_t *text(const char *doc) {
  return described(of_type("string"), doc);
}

static json_t *integer(double min, const char *doc) {
  return described(or_expression(json_pack("{s:s, s:f}", "type", "integer", "minimum", min)), doc);
}

static json_t *number(double min, double max, const char *doc) {
  return described(
      or_expression(json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", min, "maximum", max)),
      doc);
}

static json_t *choice(const char *const *names, const char *doc) {
  json_t *list = json_array();
  for (; *names; names++) json_array_append_new(list, json_string(*names));
  return described(or_expression(json_pack("{s:o}", "enum", list)), doc);
}

static json_t *list_of(json_t *items, const char *doc) {
  return described(json_pack("{s:s, s:o}", "type", "array", "items", items), doc);
}

/* A mapping that has no other keys. */
static json_t *closed(json_t *properties, const char *doc) {
  return described(json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties,
                             "additionalProperties", 0),
                   doc);
}

static json_t *requiring(json_t *schema, const char *const *keys) {
  json_t *list = json_array();
  for (; *keys; keys++) json_array_append_new(list, json_string(*keys));
  json_object_set_new(schema, "required", list);
  return schema;
}

/* `- name: content` */
static json_t *single(json_t *schema) {
  json_object_set_new(schema, "minProperties", json_integer(1));
  json_object_set_new(schema, "maxProperties", json_integer(1));
  return schema;
}

/* ---- operators ----------------------------------------------------------------------------- */

static json_t *json_of(const tree *t) {
  if (t->kind == TREE_LIST) {
    json_t *list = json_array();
    for (int i = 0; i < t->count; i++) json_array_append_new(list, json_of(t->items[i]));
    return list;
  }
  if (t->kind == TREE_MAP || tree_is_null(t)) return json_null();
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

static json_t *bounded(const char *type, const attr *a) {
  json_t *schema = of_type(type);
  if (a->min == 0 && a->max == 0) return schema;
  /* JSON has no infinity; a bound that far away says nothing. */
  if (a->min > -1e9) json_object_set_new(schema, "minimum", json_real(a->min));
  if (a->max < 1e9) json_object_set_new(schema, "maximum", json_real(a->max));
  return schema;
}

static json_t *fixed_list(const char *type, const attr *a, int least, int most) {
  return json_pack("{s:s, s:o, s:i, s:i}", "type", "array", "items",
                   or_expression(bounded(type, a)), "minItems", least, "maxItems", most);
}

static json_t *one_or_three(const char *type, const attr *a) {
  return json_pack("{s:[o, o]}", "anyOf", bounded(type, a), fixed_list(type, a, 3, 3));
}

static json_t *attr_schema(const attr *a) {
  switch (a->kind) {
  case ATTR_BOOL:
    return of_type("boolean");
  case ATTR_INT:
    return bounded("integer", a);
  case ATTR_FLOAT:
    return bounded("number", a);
  case ATTR_STRING:
    return of_type("string");
  case ATTR_INT3:
    return one_or_three("integer", a);
  case ATTR_FLOAT3:
    return one_or_three("number", a);
  case ATTR_RANGE:
    return fixed_list("number", a, 2, 2);
  case ATTR_INTS:
    return fixed_list("integer", a, 0, LIST_MAX);
  case ATTR_FLOATS:
    return fixed_list("number", a, 0, LIST_MAX);
  case ATTR_CHOICE: {
    json_t *names = json_array();
    for (const char *const *c = a->choices; *c; c++) json_array_append_new(names, json_string(*c));
    return json_pack("{s:o}", "enum", names);
  }
  case ATTR_AXES:
    return json_pack("{s:[{s:[sss]}, {s:s, s:{s:[sss]}, s:b}]}", "anyOf", "enum", "x", "y", "z",
                     "type", "array", "items", "enum", "x", "y", "z", "uniqueItems", 1);
  }
  return json_object();
}

static json_t *attr_entry(const attr *a) {
  json_t *schema = described(or_expression(attr_schema(a)), a->doc);
  if (!a->fallback) return schema;
  arena memory = {0};
  tree *t = NULL;
  error_free(tree_parse(&memory, a->fallback, strlen(a->fallback), a->name, &t));
  json_object_set_new(schema, "default", t ? json_of(t) : json_string(a->fallback));
  arena_free(&memory);
  return schema;
}

static json_t *attr_properties(const op *o) {
  json_t *properties = json_object();
  for (const attr *a = o->attrs; a && a->name; a++)
    json_object_set_new(properties, a->name, attr_entry(a));
  return properties;
}

/* {operator: {attributes}} for every operator of a sort; `or_name`: the bare name will do. */
static json_t *operator_choice(unsigned trait, bool or_name) {
  json_t *properties = json_object(), *names = json_array();
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!(o->traits & trait)) continue;
    json_t *attributes = closed(attr_properties(o), NULL), *required = json_array();
    for (const attr *a = o->attrs; a && a->name; a++)
      if (!a->fallback) json_array_append_new(required, json_string(a->name));
    bool may_be_empty = json_array_size(required) == 0;
    if (may_be_empty)
      json_decref(required);
    else
      json_object_set_new(attributes, "required", required);
    if (may_be_empty) {
      attributes = json_pack("{s:[o, {s:s}]}", "anyOf", attributes, "type", "null");
      json_array_append_new(names, json_string(o->name));
    }
    json_object_set_new(properties, o->name, described(attributes, o->summary));
  }
  json_t *item = single(closed(properties, NULL));
  if (or_name && json_array_size(names) > 0)
    return json_pack("{s:[o, {s:o}]}", "anyOf", item, "enum", names);
  json_decref(names);
  return item;
}

/* ---- graphs -------------------------------------------------------------------------------- */

static json_t *graph_inputs(void) {
  return json_pack("{s:[{s:s}, {s:s, s:{s:s}}]}", "anyOf", "type", "string", "type", "array",
                   "items", "type", "string");
}

/* An operator may take none, and leave optional ones out. */
static json_t *operator_inputs(void) {
  return json_pack("{s:[{s:[s, s]}, {s:s, s:{s:[s, s]}}]}", "anyOf", "type", "string", "null",
                   "type", "array", "items", "type", "string", "null");
}

/* What follows an item's name: an operator with its inputs, its attributes, `when`, `parameters`. Other keys are
 * parameters of a block. */
static json_t *item_content(void) {
  json_t *properties = json_object(), *rules = json_array();
  json_object_set_new(properties, "when",
                      described(json_object(), "the item is left out when this is false"));
  json_object_set_new(properties, "parameters",
                      described(of_type("string"), "an earlier item whose parameters it shares"));
  json_object_set_new(properties, "model",
                      described(graph_inputs(), "the pipeline's model, applied to these inputs"));
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (o->traits & OP_NOT_IN_GRAPHS) continue;
    json_object_set_new(properties, o->name, described(json_object(), o->summary));
    json_t *own = attr_properties(o);
    json_object_set_new(own, o->name, operator_inputs());
    json_array_append_new(rules, json_pack("{s:{s:[s]}, s:{s:o}}", "if", "required", o->name,
                                           "then", "properties", own));
  }
  return json_pack("{s:s, s:i, s:o, s:o}", "type", "object", "minProperties", 1, "properties",
                   properties, "allOf", rules);
}

static json_t *graph_definition(void) {
  json_t *repeat =
      closed(json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "repeat", integer(0, "how many times"),
                       "as", text("name that counts the rounds from 0"), "carry",
                       described(of_type("object"), "name: value it has in the first round"),
                       "graph", reference("graph"), "next",
                       described(of_type("object"), "name: value it has in the round after"),
                       "when", json_object()),
             "a list of items, several times");
  const char *const needs[] = {"repeat", "graph", NULL};
  json_t *named =
      single(json_pack("{s:s, s:o}", "type", "object", "additionalProperties", reference("item")));
  return list_of(json_pack("{s:{s:[s]}, s:o, s:o}", "if", "required", "repeat", "then",
                           requiring(repeat, needs), "else", named),
                 "items `- name: {operator: input, attributes}`");
}

static json_t *model_properties(void) {
  return json_pack(
      "{s:o, s:o, s:o, s:o, s:o, s:o}", "doc", text("what it is, and its source"), "inputs",
      list_of(of_type("string"), "names of the inputs"), "params",
      described(of_type("object"), "name: default, or `required`"), "blocks",
      described(
          json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "string"),
          "name: file of the block; beside `use`, blocks that stand in for the model's"),
      "graph", reference("graph"), "outputs",
      described(of_type("object"), "name: value, list of values, or {value: …, when: …}"));
}

/* ---- the pipeline -------------------------------------------------------------------------- */

static json_t *text_or_list(const char *doc) {
  return described(
      json_pack("{s:[{s:s}, o]}", "anyOf", "type", "string", list_of(of_type("string"), NULL)),
      doc);
}

static json_t *dataset_schema(void) {
  const char *const needs[] = {"images", "classes", NULL};
  json_t *classes =
      described(json_pack("{s:[o, {s:s, s:{s:s}}]}", "anyOf", list_of(of_type("string"), NULL),
                          "type", "object", "additionalProperties", "type", "string"),
                "[liver, tumour] from 1 on, or {1: liver}");
  json_t *files = requiring(
      closed(json_pack("{s:o, s:o, s:o}", "images",
                       text_or_list("pattern such as img/*.nii.gz; a list: one a channel"),
                       "labels", text("pattern such as seg/*.nii.gz"), "classes", classes),
             "files belong together where * stands for the same"),
      needs);
  return single(
      closed(json_pack("{s:o, s:o, s:o, s:o}", "decathlon",
                       text("dataset.json of the Decathlon, or MONAI's list of cases"), "btcv",
                       text("folder with img/img*.nii.gz and label/label*.nii.gz"), "nnunet",
                       text("folder of nnU-Net's raw format, version 2"), "files", files),
             NULL));
}

static json_t *split_schema(void) {
  static const char *const roles[] = {"train", "validation", "test", NULL};
  json_t *properties = json_object();
  for (int i = 0; roles[i]; i++)
    json_object_set_new(properties, roles[i],
                        json_pack("{s:[o, o]}", "anyOf", number(0, 1, "fraction of the cases"),
                                  list_of(of_type("string"), "names of cases")));
  json_object_set_new(properties, "folds", integer(2, "k of a k-fold split"));
  json_object_set_new(properties, "fold", integer(0, "the fold that tests"));
  json_object_set_new(properties, "file",
                      text("file with the lists, such as splits/synapse_18_12.yaml"));
  return json_pack(
      "{s:[{s:s}, o]}", "anyOf", "const", "listed",
      closed(properties, "fractions that add up to 1, lists of names, folds, or a file"));
}

static json_t *data_schema(void) {
  const char *const needs[] = {"dataset", "split", NULL};
  json_t *properties = json_object();
  json_object_set_new(properties, "root", text("folder that the data set's path starts from"));
  json_object_set_new(properties, "dataset", dataset_schema());
  json_object_set_new(properties, "split", split_schema());
  json_object_set_new(properties, "split_seed",
                      integer(0, "deals the roles in place of seed (default: seed)"));
  json_object_set_new(properties, "patient",
                      text("pattern of the cases' names, the patient in parentheses: (*)_*"));
  json_object_set_new(properties, "label_fraction",
                      number(0, 1, "of the training cases keep their label (default 1)"));
  json_object_set_new(properties, "fingerprint",
                      text("what `strata data check --json` wrote, ${fingerprint} in expressions; "
                           "from root"));
  json_object_set_new(properties, "prepare",
                      list_of(operator_choice(OP_PREPARE, true), "once per case, deterministic"));
  json_object_set_new(properties, "sample",
                      list_of(operator_choice(OP_SAMPLE, true), "per crop, random"));
  json_object_set_new(properties, "crops_per_case",
                      integer(1, "crops drawn from a case in an epoch (default 1)"));
  json_object_set_new(properties, "cache",
                      text("folder for prepared cases, or none; default: beside the runs"));
  json_object_set_new(properties, "loader_threads", integer(1, "threads that load (default 2)"));
  json_object_set_new(properties, "queue", integer(1, "batches prepared ahead (default 4)"));
  return requiring(closed(properties, "the data set and what happens to it"), needs);
}

static json_t *script_schema(const char *doc) {
  const char *const needs[] = {"lua", NULL};
  json_t *schema = requiring(
      closed(json_pack("{s:o}", "lua", text("a script's file, or the name of a shipped one")), doc),
      needs);
  json_object_del(schema, "additionalProperties");
  return schema;
}

static json_t *duration(const char *doc) {
  return described(json_pack("{s:[{s:s}, {s:s}]}", "anyOf", "type", "number", "type", "string"),
                   doc);
}

static json_t *groups_schema(void) {
  static const char *const sorts[] = {"norm", "bias", NULL};
  json_t *properties = json_object();
  json_object_set_new(properties, "match",
                      described(graph_inputs(), "patterns of parameter names, with * and ?"));
  json_object_set_new(properties, "of",
                      json_pack("{s:[o, o]}", "anyOf", choice(sorts, "parameters of a sort"),
                                list_of(choice(sorts, NULL), NULL)));
  json_object_set_new(properties, "lr_scale", number(0, 1e6, "factor of lr (default 1)"));
  for (int i = 0; i < op_count(); i++)
    for (const attr *a = op_at(i)->attrs; op_at(i)->traits & OP_OPTIMIZER && a->name; a++)
      if (a->kind == ATTR_FLOAT && a->flags & ATTR_SCHEDULABLE && strcmp(a->name, "lr") != 0)
        json_object_set_new(properties, a->name, attr_entry(a));
  return list_of(closed(properties, NULL),
                 "parameters that the optimizer treats differently; the first that fits counts");
}

static json_t *no_decay_schema(void) {
  static const char *const sorts[] = {"norm", "bias", NULL};
  return json_pack("{s:[o, o]}", "anyOf", choice(sorts, "parameters without weight decay"),
                   list_of(choice(sorts, NULL), NULL));
}

static json_t *stage_schema(void) {
  const char *const needs[] = {"graph", "optimizer", "epochs", NULL};
  static const char *const missing[] = {"error", "fresh", NULL};
  json_t *p = json_object();
  json_object_set_new(p, "doc", text("what the stage is for"));
  json_object_set_new(p, "enabled", or_expression(described(of_type("boolean"), "false: skipped")));
  const char *const used[] = {"use", NULL}, *const used_needs[] = {"pipeline", NULL};
  json_t *other = requiring(closed(json_pack("{s:o, s:o}", "pipeline", text("the pipeline's file"),
                                             "stage", text("name of the stage there")),
                                   NULL),
                            used_needs);
  json_object_set_new(p, "use",
                      described(json_pack("{s:[o, o]}", "anyOf", text(NULL), other),
                                "pipeline whose stage of this name this one changes"));
  json_object_set_new(p, "params",
                      described(of_type("object"), "values used as ${name} in this stage"));
  json_object_set_new(p, "graph", reference("graph"));
  json_object_set_new(p, "optimizer", operator_choice(OP_OPTIMIZER, false));
  json_object_set_new(p, "clip_norm",
                      number(0, 1e9, "largest L2 norm of the whole gradient; 0: no clipping"));
  json_object_set_new(p, "clip_value",
                      number(0, 1e9, "largest element of the gradient; 0: no clipping"));
  json_object_set_new(p, "groups", groups_schema());
  json_object_set_new(p, "no_decay", no_decay_schema());
  json_object_set_new(p, "accumulate",
                      integer(1, "batches whose gradients' mean makes an update (default 1)"));
  const char *const ema_needs[] = {"decay", NULL};
  json_object_set_new(
      p, "ema",
      requiring(
          closed(json_pack(
                     "{s:o, s:o}", "decay",
                     number(0, 0.9999999, "share of the average kept in an update"), "warmup",
                     or_expression(described(of_type("boolean"), "true: average faster at first"))),
                 "exponential moving average of the weights, which is validated and kept"),
          ema_needs));
  json_object_set_new(p, "initialize",
                      described(operator_choice(OP_INITIALIZER, true),
                                "how fresh linear layers and convolutions start"));
  json_object_set_new(p, "schedule", script_schema("of the learning rate"));
  json_object_set_new(p, "schedules",
                      json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
                                script_schema("attribute: schedule")));
  json_object_set_new(
      p, "on_epoch_end",
      script_schema("called after every epoch; the other keys are the script's `args`"));
  json_object_set_new(p, "epochs", integer(1, NULL));
  json_object_set_new(p, "batch", integer(1, "crops in a step (default 1)"));
  json_object_set_new(p, "steps_per_epoch",
                      integer(0, "0 (default): every training case crops_per_case times"));
  json_object_set_new(p, "use_labels",
                      or_expression(described(of_type("boolean"),
                                              "true: crops are placed by the label even when the "
                                              "graph reads none (default false)")));
  json_object_set_new(p, "time_limit", duration("seconds, or 90s, 10m, 2h"));
  json_object_set_new(
      p, "init",
      closed(json_pack("{s:o, s:o, s:o, s:o, s:o}", "from",
                       text("an earlier stage, or a .safetensors, .pt, .pth or .bin file"), "key",
                       text("which dict of a PyTorch file, such as state_dict"), "map",
                       text("a file of name rules: strip, drop, rename"), "reset", graph_inputs(),
                       "missing", choice(missing, "weights that are not there (default error)")),
             "where the weights come from"));
  json_object_set_new(
      p, "validate",
      closed(json_pack("{s:o, s:o}", "every", integer(0, "epochs; 0: after the last"), "output",
                       text("value that is segmented, such as net.out")),
             NULL));
  json_object_set_new(p, "checkpoint",
                      closed(json_pack("{s:o}", "every", duration("default 10m")), NULL));
  json_t *schema = closed(p, NULL);
  json_object_set_new(
      schema, "anyOf",
      json_pack("[o, o]", requiring(json_object(), used), requiring(json_object(), needs)));
  return schema;
}

static json_t *evaluate_schema(void) {
  static const char *const policies[] = {"skip", "one", "zero", NULL};
  static const char *const definitions[] = {"max", "pooled", NULL};
  const char *const needs[] = {"inferer", NULL};
  const char *const window_needs[] = {"size", NULL};
  json_t *metrics = json_array();
  for (int m = 0; m < METRIC_COUNT; m++)
    json_array_append_new(metrics, json_pack("{s:s, s:s}", "const", metric_table[m].name,
                                             "description", metric_table[m].doc));
  json_t *groups = json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
                             list_of(integer(1, NULL), "class numbers"));
  json_t *window = requiring(closed(attr_properties(&sliding_window_op), NULL), window_needs);
  json_t *largest = json_pack("{s:[o, o]}", "anyOf", of_type("boolean"),
                              list_of(integer(1, NULL), "class numbers"));
  return requiring(
      closed(
          json_pack("{s:o, s:o, s:{s:[{s:s}, o], s:s}, s:o, s:o, s:o, s:o, s:o, s:o}", "inferer",
                    closed(json_pack("{s:o}", "sliding_window", window), NULL), "keep_largest",
                    described(largest, "classes of which only the largest component stays"),
                    "metrics", "anyOf", "const", "all",
                    list_of(or_expression(json_pack("{s:o}", "anyOf", metrics)), NULL),
                    "description", "default: dice and hd95", "tolerance",
                    described(json_pack("{s:[o, o]}", "anyOf", number(0, 1000, NULL),
                                        list_of(number(0, 1000, NULL), NULL)),
                              "of nsd, in mm: a number, or one by class (default 1)"),
                    "groups", described(groups, "name: classes with a mean of their own"), "empty",
                    choice(policies, "a class absent from reference and prediction (default skip)"),
                    "hd95", choice(definitions, "default max"), "stage",
                    text("whose weights (default: the last)"), "output",
                    text("value that is segmented (default net.out)")),
          "metrics of the test cases"),
      needs);
}

static json_t *pipeline_schema(void) {
  static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
  const char *const needs[] = {"strata", NULL};
  json_t *p = json_object();
  json_object_set_new(p, "strata", json_pack("{s:i}", "const", 1));
  json_object_set_new(p, "use", text("base pipeline that this file changes"));
  json_object_set_new(p, "name", text("names the run's folder"));
  json_object_set_new(p, "doc", text("what the pipeline is for"));
  json_object_set_new(p, "seed", integer(0, "of every random decision (default 0)"));
  json_object_set_new(p, "device", choice(devices, "default auto"));
  json_object_set_new(p, "threads", integer(0, "0 (default): every core"));
  json_object_set_new(p, "params", described(of_type("object"), "values used as ${name}"));
  json_object_set_new(p, "data", data_schema());
  json_t *model = model_properties();
  json_object_set_new(model, "use", text("the model's file"));
  json_object_set_new(model, "with", described(of_type("object"), "the model's parameters"));
  json_object_set_new(p, "model", closed(model, "the network"));
  json_object_set_new(p, "stages",
                      list_of(single(json_pack("{s:s, s:o}", "type", "object",
                                               "additionalProperties", reference("stage"))),
                              "trainings, one after the other"));
  json_object_set_new(p, "evaluate", evaluate_schema());
  return requiring(closed(p, NULL), needs);
}

void schema_write(FILE *out) {
  json_t *root = pipeline_schema();
  json_object_set_new(root, "$schema", json_string("http://json-schema.org/draft-07/schema#"));
  json_object_set_new(root, "title", json_string("Strata pipeline"));
  json_t *definitions = json_object();
  json_object_set_new(definitions, "expression",
                      json_pack("{s:s, s:s, s:s}", "type", "string", "pattern", "\\$\\{.+\\}",
                                "description", "an expression: ${name}, ${2 * n}"));
  json_object_set_new(definitions, "item", item_content());
  json_object_set_new(definitions, "graph", graph_definition());
  json_object_set_new(definitions, "stage", stage_schema());
  json_object_set_new(root, "definitions", definitions);
  char *dump = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
  json_decref(root);
  if (!dump) return;
  fprintf(out, "%s\n", dump);
  free(dump);
}
