/* The language as a JSON Schema (draft 7), for editors: completion, documentation on hover, and
 * warnings while typing. What the schema cannot say (sums, names, shapes) `strata check` does.
 *
 * A file that takes from a base or another stage (`use:`) may leave everything out and take keys away
 * with `key: ~`; what a file needs is asked only of files without `use`. */
#include <stdlib.h>
#include <string.h>

#include "base/device_name.h"
#include "language/pipeline.h"
#include "language/schema/part.h"

#define YAML(...) ((const char *const[]){__VA_ARGS__, NULL})
#define KEYS(...) YAML(__VA_ARGS__)

static const char parameter_name[] = "^[A-Za-z_][A-Za-z0-9_]*$";

static void put(json_t *properties, const char *key, json_t *schema) {
  json_object_set_new(properties, key, schema);
}

/* {if: {required: [key]}, then: {}, else: schema} */
static json_t *unless(const char *key, json_t *schema) {
  return json_pack("{s:{s:[s]}, s:{}, s:o}", "if", "required", key, "then", "else", schema);
}

/* Properties of one key, to say more about it. */
static json_t *under(const char *key, json_t *schema) {
  return json_pack("{s:{s:o}}", "properties", key, schema);
}

static json_t *needing(const char *const *keys) {
  return part_requiring(json_object(), keys);
}

/* Text of a certain form; expressions always are. */
static json_t *formed(json_t *text, const char *pattern) {
  put(text, "pattern", json_sprintf("(%s)|\\$\\{", pattern));
  return text;
}

/* ---- model and block files ----------------------------------------------------------------- */

static json_t *parameters(const char *doc) {
  json_t *taken = json_pack("[s, s, s, s, s, s, s, s, s, s]", "and", "or", "not", "true", "false",
                            "min", "max", "len", "classes", "channels", "regions");
  json_t *schema = part_names(part_any(NULL), doc);
  put(schema, "propertyNames",
      json_pack("{s:s, s:{s:o}}", "pattern", parameter_name, "not", "enum", taken));
  return part_or_nothing(schema);
}

static json_t *graph_outputs(void) {
  json_t *value = json_pack("{s:[s, s, s], s:{s:[s, s]}}", "type", "string", "array", "integer",
                            "items", "type", "string", "integer");
  json_t *conditional = json_pack("{s:s, s:{s:o, s:[s, s, s]}, s:[s, s], s:b}", "type", "object",
                                  "properties", "value", value, "when", "boolean", "number",
                                  "string", "required", "value", "when", "additionalProperties", 0);
  put(json_object_get(conditional, "properties"), "when",
      part_described(json_object(), "the output is left out when this is false"));
  return json_pack("{s:s, s:i, s:{s:{s:s}, s:o, s:O}, s:s}", "type", "object", "minProperties", 1,
                   "additionalProperties", "if", "type", "object", "then", conditional, "else",
                   value, "description",
                   "name: value, list of values, or {value: …, when: …}; the first is the model's "
                   "or block's own name");
}

static void add_graph_file_keys(json_t *p) {
  put(p, "doc", part_any("what it is, and its source"));
  put(p, "inputs",
      json_pack("{s:s, s:i, s:b, s:{s:s, s:s}, s:s}", "type", "array", "minItems", 1, "uniqueItems",
                1, "items", "type", "string", "pattern", parameter_name, "description",
                "names of the inputs"));
  put(p, "params", parameters("name: default, or `required`"));
  json_t *blocks = part_names(part_text(NULL), "name: file of the block");
  put(blocks, "propertyNames", json_pack("{s:s}", "pattern", parameter_name));
  put(p, "blocks", part_or_nothing(blocks));
  put(p, "graph", part_any("items `- name: {operator: input, attribute: value}`"));
  put(p, "outputs", graph_outputs());
  put(p, "unused",
      part_or_nothing(part_list(part_text(NULL), 0,
                                "patterns (*, ?) of tensors that weight files of this network may "
                                "hold besides, and that take no part in it")));
}

/* Only files with blocks may use other names than operators'. */
static json_t *graph_by_blocks(void) {
  return json_pack("{s:{s:[s], s:{s:{s:s}}}, s:o, s:o}", "if", "required", "blocks", "properties",
                   "blocks", "type", "object", "then",
                   under("graph", part_reference("graph_with_blocks")), "else",
                   under("graph", part_reference("graph_of_operators")));
}

static json_t *graph_file_schema(void) {
  json_t *p = json_object();
  put(p, "strata", json_pack("{s:i, s:s}", "const", 1, "description", "version of the language"));
  add_graph_file_keys(p);
  json_t *schema = json_pack("{s:s, s:o, s:b, s:[o]}", "type", "object", "properties", p,
                             "additionalProperties", 0, "allOf", graph_by_blocks());
  return part_requiring(schema, KEYS("strata", "inputs", "graph", "outputs"));
}

/* `model:` of a pipeline: a file, or the same keys right here. */
static json_t *model_schema(void) {
  json_t *p = json_object();
  add_graph_file_keys(p);
  put(p, "use",
      part_examples(part_text("the model's file"),
                    YAML("models/unetr.yaml", "models/swin_unetr.yaml",
                         "models/unetr_plus_plus.yaml", "models/nnformer.yaml",
                         "models/dynunet.yaml", "models/plain_unet.yaml", "models/resenc_unet.yaml",
                         "models/unet.yaml", "models/basic_unet.yaml", "models/segresnet.yaml")));
  put(p, "with", part_names(part_any(NULL), "the model's parameters"));
  put(json_object_get(p, "blocks"), "description",
      json_string("name: file of the block; beside `use`, blocks that stand in for the model's"));
  json_t *schema = part_changing_map(p, "the network");
  put(schema, "if",
      json_pack("{s:[s], s:{s:{s:s}}}", "required", "graph", "properties", "graph", "type",
                "array"));
  put(schema, "then",
      json_pack("{s:[o, {s:{s:{s:s}}}], s:[s, s]}", "allOf", graph_by_blocks(), "properties", "use",
                "type", "null", "required", "inputs", "outputs"));
  return schema;
}

/* ---- data ---------------------------------------------------------------------------------- */

static json_t *dataset_schema(void) {
  json_t *classes = json_pack("{s:[o, o, o]}", "anyOf", part_list(part_text(NULL), 1, NULL),
                              part_names(part_text(NULL), NULL), part_expression());
  json_t *files = json_object(), *p = json_object();
  put(files, "images", part_text_or_list("pattern such as img/*.nii.gz; a list: one a channel"));
  put(files, "labels", part_text("pattern such as seg/*.nii.gz"));
  put(files, "classes",
      part_described(classes, "[liver, tumour] from 1 on, or {1: liver}; needed with labels"));
  put(p, "decathlon",
      part_examples(part_text("dataset.json of the Decathlon, or MONAI's list of cases"),
                    YAML("dataset.json")));
  put(p, "btcv",
      part_examples(part_text("folder with img/img*.nii.gz and label/label*.nii.gz"),
                    YAML("RawData/Training")));
  put(p, "nnunet",
      part_examples(part_text("folder of nnU-Net's raw format, version 2"),
                    YAML("Dataset001_Name")));
  put(p, "files", part_changing_map(files, "files belong together where * stands for the same"));
  return part_described(part_single(part_changing_map(p, NULL), true),
                        "where the cases are: decathlon, btcv, nnunet or files");
}

/* Beside the keys that choose a sort of split no others count. */
static json_t *split_of_sort(const char *key, const char *const *others) {
  json_t *nothing = json_object();
  for (; *others; others++) put(nothing, *others, json_pack("{s:s}", "type", "null"));
  return json_pack("{s:{s:[s], s:{s:{s:{s:s}}}}, s:{s:o}}", "if", "required", key, "properties",
                   key, "not", "type", "null", "then", "properties", nothing);
}

static json_t *split_schema(void) {
  json_t *p = json_object();
  static const char *const roles[] = {"train", "validation", "test"};
  for (int i = 0; i < 3; i++) {
    json_t *share = part_bounds(part_typed(json_pack("[s, s]", "number", "array")), 0, 1);
    put(share, "items", part_text(NULL));
    put(p, roles[i], part_described(share, "fraction of the cases, or list of their names"));
  }
  put(p, "folds", part_integer(2, 1000, "k of a k-fold split"));
  put(p, "fold", part_integer(0, 999, "the fold that tests, from 0; of a file with folds, too"));
  put(p, "file",
      part_examples(
          part_text("file with the lists, or nnU-Net's splits_final.json beside fold"),
          YAML("splits/synapse_18_12.yaml", "splits/synapse_24_6.yaml", "splits/lung_50_13.yaml")));
  json_t *split = part_changing_map(p, NULL);
  put(split, "allOf",
      json_pack("[o, o]", split_of_sort("file", KEYS("train", "test", "folds")),
                split_of_sort("folds", KEYS("train", "test", "file"))));
  json_t *schema = json_pack("{s:{s:s}, s:{s:[{s:s}, o]}, s:o}", "if", "type", "string", "then",
                             "anyOf", "const", "listed", part_expression(), "else", split);
  part_examples(schema, YAML("{train: 0.7, validation: 0.1, test: 0.2}",
                             "{folds: 5, fold: 0, validation: 0.1}",
                             "{file: splits_final.json, fold: 0}", "listed"));
  return part_described(schema,
                        "who trains, validates and tests: fractions that add up to 1, lists "
                        "of names, folds, a file, or `listed`");
}

static json_t *classes_schema(void) {
  return part_list(part_integer(1, 255, NULL), 0, "class numbers");
}

static json_t *sample_schema(const char *doc) {
  return part_list(part_operator_item(OP_SAMPLE), 0, doc);
}

static json_t *data_schema(void) {
  json_t *p = json_object();
  put(p, "root", part_text("folder that the data set's path starts from"));
  put(p, "dataset", dataset_schema());
  put(p, "split", split_schema());
  put(p, "split_seed", part_integer(0, 1e19, "deals the roles in place of seed (default: seed)"));
  put(p, "patient",
      part_examples(formed(part_text("pattern of the cases' names, the patient in parentheses"),
                           "^[^()]*\\([^()]+\\)[^()]*$"),
                    YAML("\"(*)_*\"")));
  put(p, "ignore_label",
      part_integer(1, 255,
                   "value of voxels whose class is unknown: no loss or metric counts them"));
  put(p, "regions",
      part_examples(part_names(part_or_nothing(classes_schema()),
                               "unions of classes, which networks segment in place of the classes"),
                    YAML("{whole tumour: [1, 2, 3], tumour core: [2, 3], enhancing: [3]}")));
  put(p, "label_fraction",
      part_default(part_number(0, 1, "of the training cases keep their label"), "1"));
  put(p, "fingerprint",
      part_text("what `strata data check --json` wrote, ${fingerprint} in expressions; from root"));
  put(p, "prepare",
      part_list(part_operator_item(OP_PREPARE), 0, "once per case, deterministic, cached"));
  put(p, "sample", sample_schema("per crop, random"));
  put(p, "crops_per_case",
      part_default(part_integer(1, 100000, "crops drawn from a case in an epoch"), "1"));
  put(p, "cache", part_text("folder for prepared cases, or none; default: beside the runs"));
  put(p, "loader_threads",
      part_default(part_integer(1, 1024, "threads that load and sample"), "2"));
  put(p, "queue", part_default(part_integer(1, 1024, "batches prepared ahead"), "4"));
  return part_changing_map(p, "the data set and what happens to it");
}

static json_t *complete_data(void) {
  json_t *needs = needing(KEYS("dataset", "split"));
  json_t *needs_files = needing(KEYS("images"));
  put(needs_files, "dependencies", json_pack("{s:[s]}", "labels", "classes"));
  json_t *files = under("files", needs_files);
  put(needs, "properties", json_pack("{s:o}", "dataset", files));
  return needs;
}

/* ---- stages -------------------------------------------------------------------------------- */

/* {lua: script, arguments…} */
static json_t *script_schema(const char *doc) {
  json_t *schema = part_names(part_any(NULL), doc);
  put(schema, "properties",
      json_pack("{s:o}", "lua",
                part_examples(part_text("a script's file, or the name of a shipped one"),
                              YAML("warmup_cosine", "poly"))));
  return schema;
}

static json_t *duration(const char *doc) {
  json_t *schema = json_pack("{s:[s, s]}", "type", "number", "string");
  put(schema, "minimum", json_integer(0));
  formed(schema, "^ *[+]?[0-9_]*[.]?[0-9_]*([eE][-+]?[0-9]+)? *[smh]?$");
  return part_described(part_examples(schema, YAML("90s", "10m", "2h")), doc);
}

static json_t *memory_schema(void) {
  json_t *size = formed(part_text(NULL), "^[0-9][0-9.]*([eE][-+]?[0-9]+)? *([KMGT]i)?B$");
  return part_described(part_examples(size, YAML("1.5GiB", "800MiB")),
                        "of a step: activations, weights, gradients and moments; what does not fit "
                        "is computed again. Changes no result");
}

static json_t *sorts_schema(const char *doc) {
  static const char *const sorts[] = {"norm", "bias", NULL};
  json_t *one = part_choice(sorts, NULL);
  json_array_append_new(json_object_get(one, "anyOf"),
                        part_list(part_choice(sorts, NULL), 0, NULL));
  return part_described(one, doc);
}

static json_t *groups_schema(void) {
  json_t *p = json_object();
  put(p, "match", part_text_or_list("patterns of parameter names, with * and ?"));
  put(p, "of", sorts_schema("parameters of a sort"));
  put(p, "lr_scale", part_default(part_number(0, LR_SCALE_MAX, "factor of lr"), "1"));
  for (int i = 0; i < op_count(); i++)
    for (const attr *a = op_at(i)->attrs; op_at(i)->traits & OP_OPTIMIZER && a->name; a++)
      if (a->kind == ATTR_FLOAT && a->flags & ATTR_SCHEDULABLE && strcmp(a->name, "lr") != 0)
        put(p, a->name, part_attribute(a));
  json_t *group = part_map(p, NULL);
  put(group, "anyOf",
      json_pack("[o, o, {s:s}]", needing(KEYS("match")), needing(KEYS("of")), "type", "string"));
  return part_list(group, 0,
                   "parameters that the optimizer treats differently; the first that fits counts");
}

static json_t *used_stage(void) {
  json_t *p = json_pack("{s:o, s:o}", "pipeline", part_text("the pipeline's file"), "stage",
                        part_text("name of the stage there"));
  json_t *other = json_pack("{s:s, s:o, s:b, s:[s]}", "type", "object", "properties", p,
                            "additionalProperties", 0, "required", "pipeline");
  return part_described(json_pack("{s:{s:s}, s:o, s:o}", "if", "type", "object", "then", other,
                                  "else", part_text(NULL)),
                        "pipeline whose stage of this name this one changes");
}

static json_t *init_schema(void) {
  static const char *const missing[] = {"error", "fresh", NULL};
  json_t *p = json_object();
  put(p, "from",
      part_text("an earlier stage, or a .safetensors, .pt, .pth, .ckpt, .bin or .tar file"));
  put(p, "key", part_text("which dict of a PyTorch file, such as state_dict"));
  put(p, "map", part_text("a file of name rules: strip, drop, rename"));
  put(p, "reset", part_text_or_list("values, such as net.out, whose layers start fresh"));
  put(p, "missing", part_default(part_choice(missing, "weights that are not there"), "error"));
  return part_examples(part_changing_map(p, "where the weights come from"),
                       YAML("{from: pretrain, reset: [net.out]}"));
}

static void add_training_keys(json_t *p) {
  put(p, "optimizer",
      part_examples(part_operator_value(OP_OPTIMIZER, false),
                    YAML("{adamw: {lr: 1.0e-4, weight_decay: 1.0e-5}}",
                         "{sgd: {lr: 1.0e-2, momentum: 0.99, nesterov: true}}")));
  put(p, "clip_norm", part_number(0, 1e9, "largest L2 norm of the whole gradient; 0: no clipping"));
  put(p, "clip_value", part_number(0, 1e9, "largest element of the gradient; 0: no clipping"));
  put(p, "groups", groups_schema());
  put(p, "no_decay", sorts_schema("parameters without weight decay"));
  put(p, "accumulate",
      part_default(part_integer(1, BATCH_MAX, "batches whose gradients' mean makes an update"),
                   "1"));
  put(p, "ema",
      part_changing_map(
          json_pack("{s:o, s:o}", "decay",
                    part_number(0, 0.9999999, "share of the average kept in an update"), "warmup",
                    part_truth("true: average faster at first")),
          "exponential moving average of the weights, which is validated and kept"));
  put(p, "initialize",
      part_described(part_operator_value(OP_INITIALIZER, true),
                     "how fresh linear layers and convolutions start"));
  put(p, "schedule",
      part_examples(script_schema("of the learning rate"),
                    YAML("{lua: warmup_cosine, warmup: 50}", "{lua: poly}")));
  put(p, "schedules",
      part_names(part_or_nothing(script_schema(NULL)),
                 "attribute: {lua: script, arguments…}, such as masked.ratio"));
  put(p, "on_validation", script_schema("called after every validation, with what it measured"));
  put(p, "case_weights",
      script_schema("how often a training case is drawn, from its name and classes"));
  put(p, "on_stage_end", script_schema("called once, when the stage has ended"));
  put(p, "on_epoch_end",
      script_schema("called after every epoch; the other keys are the script's `args`"));
}

static json_t *metrics_schema(const char *doc, const char *yaml) {
  json_t *names = json_array();
  for (int m = 0; m < METRIC_COUNT; m++)
    json_array_append_new(names, json_pack("{s:s, s:s}", "const", metric_table[m].name,
                                           "description", metric_table[m].doc));
  json_array_append_new(names, part_expression());
  json_t *custom = script_schema("computed by a Lua script; `name` names it");
  put(custom, "required", json_pack("[s]", "lua"));
  json_array_append_new(names, custom);
  json_t *list = part_list(json_pack("{s:o}", "anyOf", names), 1, NULL);
  json_t *schema = json_pack("{s:[{s:s}, o]}", "anyOf", "const", "all", list);
  return part_described(yaml ? part_default(schema, yaml) : schema, doc);
}

static json_t *stage_schema(void) {
  json_t *p = json_object();
  put(p, "doc", part_any("what the stage is for"));
  put(p, "enabled", part_default(part_truth("false: skipped"), "true"));
  put(p, "use", used_stage());
  put(p, "params", parameters("values used as ${name} in this stage"));
  put(p, "graph", part_reference("graph"));
  put(p, "sample", sample_schema("per crop, in this stage; default: data: sample"));
  add_training_keys(p);
  put(p, "epochs", part_integer(0, 1e7, "rounds through the training cases"));
  put(p, "batch", part_default(part_integer(1, BATCH_MAX, "crops in a batch"), "1"));
  put(p, "precision",
      part_default(part_choice(precision_choices + PRECISION_F32,
                               "what the factors of products are rounded to; sums and everything "
                               "else stay f32"),
                   "f32"));
  put(p, "steps_per_epoch",
      part_default(part_integer(0, 1e7, "0: every training case crops_per_case times"), "0"));
  put(p, "use_labels",
      part_default(part_truth("true: crops are placed by the label even when the graph reads none"),
                   "false"));
  put(p, "memory", memory_schema());
  put(p, "time_limit", duration("ends the stage early: seconds, or 90s, 10m, 2h"));
  put(p, "init", init_schema());
  put(p, "validate",
      part_examples(
          part_changing_map(json_pack("{s:o, s:o, s:o, s:o}", "every",
                                      part_integer(0, 1e7, "epochs; 0: after the last"), "output",
                                      part_text("value that is segmented"), "metrics",
                                      metrics_schema("besides Dice", NULL), "keep_best",
                                      part_text("metric by which the stage's weights "
                                                "are chosen: dice, loss")),
                            "Dice of whole validation cases"),
          YAML("{every: 10, output: net.out}")));
  put(p, "checkpoint",
      part_changing_map(
          json_pack("{s:o, s:o}", "every", duration("default 10m; 0: every epoch"), "final",
                    part_default(part_truth("the last stage keeps its state at its end, so that it "
                                            "can be made longer"),
                                 "true")),
          "how often the state is saved"));
  json_t *schema = part_changing_map(p, NULL), *complete = json_object();
  put(complete, "optimizer", part_operator_complete(OP_OPTIMIZER));
  put(complete, "initialize", part_operator_complete(OP_INITIALIZER));
  put(complete, "init", needing(KEYS("from")));
  put(complete, "ema", needing(KEYS("decay")));
  put(complete, "schedule", needing(KEYS("lua")));
  put(complete, "case_weights", needing(KEYS("lua")));
  for (int i = 0; i < HOOK_COUNT; i++) put(complete, stage_hook_keys[i], needing(KEYS("lua")));
  put(complete, "schedules", json_pack("{s:o}", "additionalProperties", needing(KEYS("lua"))));
  json_t *needs = needing(KEYS("graph", "optimizer", "epochs"));
  put(needs, "properties", complete);
  put(schema, "allOf", json_pack("[o]", unless("use", needs)));
  return schema;
}

static json_t *stages_schema(void) {
  json_t *stage = part_single(json_pack("{s:s, s:{s:s}, s:o}", "type", "object", "propertyNames",
                                        "pattern", "^[A-Za-z0-9_][A-Za-z0-9_-]*$",
                                        "additionalProperties", part_reference("stage")),
                              false);
  return part_list(stage, 1, "trainings, one after the other");
}

/* ---- evaluation ---------------------------------------------------------------------------- */

static json_t *evaluate_schema(void) {
  static const char *const policies[] = {"skip", "one", "zero", NULL};
  static const char *const definitions[] = {"max", "pooled", NULL};
  json_t *p = json_object();
  json_t *window = part_changing_map(part_attributes(&sliding_window_op),
                                     "windows over the volume, blended where they overlap");
  part_examples(window, YAML("{size: [96, 96, 96], overlap: 0.5, blend: gaussian}"));
  put(p, "inferer",
      part_changing_map(json_pack("{s:o}", "sliding_window", window), "how a volume is segmented"));
  put(p, "postprocess",
      part_list(part_operator_item(OP_POSTPROCESS), 0, "of a segmentation, one after the other"));
  put(p, "metrics", metrics_schema("what is measured, or all", "[dice, hd95]"));
  json_t *tolerance = part_bounds(part_typed(json_pack("[s, s]", "number", "array")), 0, 1000);
  put(tolerance, "items", part_number(0, 1000, NULL));
  put(p, "tolerance",
      part_default(part_described(tolerance, "of nsd, in mm: a number, or one by class"), "1"));
  put(p, "groups",
      part_examples(
          part_names(part_or_nothing(classes_schema()), "name: classes with a mean of their own"),
          YAML("{abdomen8: [1, 2, 3, 4, 6, 7, 8, 11]}")));
  put(p, "regions",
      part_examples(part_names(part_or_nothing(classes_schema()),
                               "name: classes whose union is scored, in place of the classes"),
                    YAML("{whole tumour: [1, 2, 3], tumour core: [2, 3]}")));
  put(p, "empty",
      part_default(part_choice(policies, "a class absent from reference and prediction"), "skip"));
  put(p, "hd95",
      part_default(part_choice(definitions, "max: MONAI's definition, pooled: MedPy's"), "max"));
  put(p, "stage", part_text("whose weights (default: the last)"));
  put(p, "output", part_text("value that is segmented (default net.out)"));
  return part_changing_map(p, "metrics of the test cases");
}

static json_t *complete_evaluate(void) {
  json_t *inferer = needing(KEYS("sliding_window"));
  put(inferer, "properties", json_pack("{s:o}", "sliding_window", needing(KEYS("size"))));
  json_t *needs = needing(KEYS("inferer"));
  put(needs, "properties", json_pack("{s:o}", "inferer", inferer));
  return needs;
}

/* ---- the pipeline -------------------------------------------------------------------------- */

/* What a run writes behind its resolved pipeline (run/lock.h); nobody types it. */
static json_t *lock_schema(void) {
  static const char *const texts[] = {"strata", "compiler", "numerics"};
  static const char *const maps[] = {"weights", "pipeline", "operators", "init", "data"};
  json_t *p = json_object();
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    put(p, texts[i], json_pack("{s:s}", "type", "string"));
  for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
    put(p, maps[i], json_pack("{s:s}", "type", "object"));
  put(p, "scripts_changed", json_pack("{s:s}", "type", "boolean"));
  put(p, "pipeline_changed", json_pack("{s:s}", "type", "boolean"));
  put(p, "files", json_pack("{s:s}", "type", "array"));
  return json_pack("{s:s, s:s, s:o, s:[s]}", "type", "object", "description",
                   "what the run was made of, with hashes: written by strata run", "properties", p,
                   "required", "files");
}

static json_t *pipeline_schema(void) {
  json_t *p = json_object();
  put(p, "strata", json_pack("{s:i, s:s}", "const", 1, "description", "version of the language"));
  put(p, "use",
      part_examples(part_text("base pipeline that this file changes"),
                    YAML("quickstart.yaml", "synapse/unetr.yaml")));
  put(p, "name",
      formed(part_text("names the run's folder: letters, digits, '.', - and _"),
             "^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"));
  put(p, "doc", part_any("what the pipeline is for"));
  put(p, "seed", part_default(part_integer(0, 1e19, "of every random decision"), "0"));
  put(p, "device",
      part_default(part_examples(formed(part_text("where steps run: " DEVICE_NAMES),
                                        "^(auto|cpu|cuda(:[0-9]{1,3})?)$"),
                                 YAML("auto", "cpu", "cuda", "cuda:1")),
                   "auto"));
  put(p, "threads", part_default(part_integer(0, 4096, "CPU threads; 0: every core"), "0"));
  put(p, "params",
      part_examples(parameters("values used as ${name}"), YAML("{roi: [96, 96, 96], slabs: 6}")));
  put(p, "data", data_schema());
  put(p, "model", model_schema());
  put(p, "stages", stages_schema());
  put(p, "evaluate", evaluate_schema());
  json_t *log = json_object();
  put(log, "tensorboard", part_default(part_truth("event files in tensorboard/<stage>"), "false"));
  put(p, "log", part_changing_map(log, "further records of a run"));
  put(p, "lock", lock_schema());
  json_t *schema = part_changing_map(p, NULL);
  put(schema, "type", json_string("object"));
  json_object_del(schema, "pattern");
  json_t *needs = needing(KEYS("data", "model", "stages"));
  put(needs, "properties",
      json_pack("{s:o, s:o, s:{s:[o, o, {s:s}]}}", "data", complete_data(), "evaluate",
                complete_evaluate(), "model", "anyOf", needing(KEYS("use")), needing(KEYS("graph")),
                "type", "string"));
  put(schema, "allOf", json_pack("[o]", unless("use", needs)));
  return part_requiring(schema, KEYS("strata"));
}

void schema_write(FILE *out) {
  json_t *definitions = json_object();
  put(definitions, "pipeline", pipeline_schema());
  put(definitions, "graph_file", graph_file_schema());
  put(definitions, "stage", stage_schema());
  part_define_graphs(definitions);
  /* Models and blocks have their graph at the top. */
  json_t *root = json_pack("{s:s, s:s, s:s, s:{s:[o, o, o]}, s:o, s:o, s:o}", "$schema",
                           "http://json-schema.org/draft-07/schema#", "title",
                           "Strata pipeline, model or block", "type", "object", "if", "anyOf",
                           needing(KEYS("inputs")), needing(KEYS("graph")),
                           needing(KEYS("outputs")), "then", part_reference("graph_file"), "else",
                           part_reference("pipeline"), "definitions", definitions);
  char *dump = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
  json_decref(root);
  if (!dump) return;
  fprintf(out, "%s\n", dump);
  free(dump);
}
