/* What makes two runs the same run. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "language/load.h"

uint64_t tree_hash(const tree *t) {
  if (t->kind == TREE_SCALAR) {
    double number;
    status error = tree_float(t, &number);
    if (!error) {
      char text[40];
      snprintf(text, sizeof text, "%.17g", number);
      return hash_mix(1, text_hash(text));
    }
    error_free(error);
    if (tree_is_null(t)) return hash_mix(2, 0);
    return hash_mix(3, text_hash(t->text));
  }
  uint64_t hash = 0;
  for (int i = 0; i < t->count; i++) {
    uint64_t item = tree_hash(t->items[i]);
    if (t->kind == TREE_LIST)
      hash = hash_mix(hash, item);
    else
      hash += hash_mix(text_hash(t->keys[i]->text), item); /* whatever the order */
  }
  return hash_mix(t->kind == TREE_LIST ? 4 : 5, hash_mix(hash, (uint64_t)t->count));
}

/* A mapping without the keys that do not change results. */
static uint64_t hash_without(const tree *map, const char *const *ignored) {
  if (map->kind != TREE_MAP) return tree_hash(map);
  uint64_t hash = 0;
  for (int i = 0; i < map->count; i++) {
    bool is_ignored = false;
    for (int k = 0; ignored[k]; k++) is_ignored |= strcmp(map->keys[i]->text, ignored[k]) == 0;
    if (!is_ignored) hash += hash_mix(text_hash(map->keys[i]->text), tree_hash(map->items[i]));
  }
  return hash_mix(6, hash);
}

static uint64_t operator_hash(const op *o) {
  return hash_mix(text_hash(o->name), o->version);
}

/* Versions of every operator named in a graph. Attributes that share an operator's name count too,
 * which is harmless. */
static uint64_t operators_in(const tree *t) {
  uint64_t hash = 0;
  for (int i = 0; t && i < t->count; i++) {
    const op *o = t->kind == TREE_MAP ? op_find(t->keys[i]->text) : NULL;
    if (o) hash += operator_hash(o);
    hash += operators_in(t->items[i]);
  }
  return hash;
}

enum { MODEL_FILES_MAX = 256, BLOCK_NAMES_MAX = 1024 };

typedef struct visited {
  const tree *roots[MODEL_FILES_MAX];
  int count;
  const char *blocks[BLOCK_NAMES_MAX]; /* names under which files list their blocks */
  int block_count;
} visited;

static status hash_graph_file(pipeline *p, const graph_file *file, visited *seen, uint64_t *hash) {
  static const char *const ignored[] = {"doc", "with", "use", "blocks", "unused", NULL};
  for (int i = 0; i < seen->count; i++)
    if (seen->roots[i] == file->root) return OK;
  if (seen->count == MODEL_FILES_MAX)
    return error_new(ERROR_PIPELINE, file->root->at, "The model is made of more than %d files.",
                     MODEL_FILES_MAX);
  seen->roots[seen->count++] = file->root;
  *hash = hash_mix(*hash, hash_without(file->root, ignored));
  *hash = hash_mix(*hash, operators_in(tree_get(file->root, "graph")));
  const tree *blocks = tree_get(file->root, "blocks");
  problems all = {0};
  for (int i = 0; blocks && i < blocks->count; i++) {
    const char *name = blocks->keys[i]->text;
    graph_file block;
    if (seen->block_count < BLOCK_NAMES_MAX) seen->blocks[seen->block_count++] = name;
    status error = block_file_load(p, file, name, blocks->items[i], &block);
    if (!error) {
      *hash = hash_mix(hash_mix(*hash, text_hash(name)), hash_without(block.root, ignored));
      error = hash_graph_file(p, &block, seen, hash);
    }
    problems_add(&all, error);
  }
  return problems_take(&all);
}

static uint64_t hash_op_uses(const op_use *uses, int count) {
  uint64_t hash = 8;
  for (int i = 0; i < count; i++) hash = hash_mix(hash, operator_hash(uses[i].op));
  return hash;
}

/* A block that stands in for none of the model's is a slip. */
static status check_replaced_blocks(const pipeline *p, const visited *seen) {
  problems all = {0};
  for (int i = 0; p->model_blocks && i < p->model_blocks->count; i++) {
    const tree *key = p->model_blocks->keys[i];
    bool known = false;
    for (int k = 0; k < seen->block_count; k++) known |= strcmp(seen->blocks[k], key->text) == 0;
    if (known) continue;
    const char *near = nearest_name(key->text, seen->blocks, seen->block_count);
    problems_add(&all,
                 error_new(ERROR_PIPELINE, key->at, "The model is made of no block \"%s\"%s%s%s",
                           key->text, near ? "; did you mean \"" : " (see blocks: in its files)",
                           near ? near : "", near ? "\"?" : "."));
  }
  return problems_take(&all);
}

status model_files_hash(pipeline *p, uint64_t *hash) {
  visited seen = {0};
  *hash = 9;
  TRY(hash_graph_file(p, &p->model, &seen, hash));
  return check_replaced_blocks(p, &seen);
}

/* Without what changes only the memory and the time that inference takes. */
static uint64_t hash_evaluate(const tree *evaluate) {
  static const char *const inferer_key[] = {"inferer", NULL};
  static const char *const ignored[] = {"batch", "memory", NULL};
  if (!evaluate) return 0;
  const tree *window = tree_get(tree_get(evaluate, "inferer"), "sliding_window");
  return hash_mix(hash_without(evaluate, inferer_key), window ? hash_without(window, ignored) : 0);
}

static void add_part(pipeline *p, int *capacity, const char *name, uint64_t hash) {
  identity_part part = {name, hash};
  ARENA_PUSH(&p->memory, p->parts, p->part_count, *capacity, part);
}

const char *const *identity_ignored(const char *part) {
  static const char *const of_data[] = {"root",           "dataset", "cache",
                                        "loader_threads", "queue",   NULL};
  static const char *const of_stage[] = {"checkpoint", "memory", NULL};
  static const char *const nothing[] = {NULL};
  return strcmp(part, "data") == 0           ? of_data
         : text_starts_with(part, "stages.") ? of_stage
                                             : nothing;
}

/* The keys that decide results, one by one. */
static void add_parts(pipeline *p, const tree *root) {
  static const char *const elsewhere[] = {"strata",   "name", "doc",   "device",
                                          "threads",  "data", "model", "stages",
                                          "evaluate", "log",  NULL};
  const tree *with = p->model_arguments, *stages = tree_get(root, "stages");
  int capacity = 0;
  for (int i = 0; i < root->count; i++) {
    const char *key = root->keys[i]->text;
    bool is_elsewhere = false;
    for (int k = 0; elsewhere[k]; k++) is_elsewhere |= strcmp(key, elsewhere[k]) == 0;
    if (!is_elsewhere) add_part(p, &capacity, key, tree_hash(root->items[i]));
  }
  add_part(p, &capacity, "data", hash_without(tree_get(root, "data"), identity_ignored("data")));
  add_part(p, &capacity, "model.with", with ? tree_hash(with) : 0);
  add_part(p, &capacity, "evaluate", hash_evaluate(tree_get(root, "evaluate")));
  for (int i = 0; i < stages->count; i++) {
    const tree *item = stages->items[i];
    const char *name = arena_printf(&p->memory, "stages.%s", item->keys[0]->text);
    add_part(p, &capacity, name, hash_without(item->items[0], identity_ignored(name)));
  }
}

void pipeline_identity(pipeline *p, const tree *root, uint64_t model_hash) {
  add_parts(p, root);
  uint64_t keys = 0, hash = 10;
  for (int i = 0; i < p->part_count; i++) {
    uint64_t part = hash_mix(text_hash(p->parts[i].name), p->parts[i].hash);
    bool is_stage = strncmp(p->parts[i].name, "stages.", 7) == 0;
    if (is_stage) /* their order counts */
      hash = hash_mix(hash, part);
    else
      keys += part;
  }
  hash = hash_mix(hash, keys);
  hash = hash_mix(hash, hash_op_uses(p->data.prepare, p->data.prepare_count));
  hash = hash_mix(hash, hash_op_uses(p->data.sample, p->data.sample_count));
  hash = hash_mix(hash, hash_op_uses(p->evaluate.postprocess, p->evaluate.postprocess_count));
  for (int i = 0; i < p->stage_count; i++) {
    const stage_spec *s = &p->stages[i];
    if (s->data != &p->data)
      hash = hash_mix(hash, hash_op_uses(s->data->sample, s->data->sample_count));
    hash = hash_mix(hash, hash_op_uses(&s->optimizer, 1));
    hash = hash_mix(hash, operators_in(s->graph));
    hash = hash_mix(hash, s->init_hash);
  }
  for (int i = 0; i < op_count(); i++)
    if (op_at(i)->traits & OP_INTERNAL) hash = hash_mix(hash, operator_hash(op_at(i)));
  hash = hash_mix(hash, model_hash);
  p->identity_without_scripts = hash;
  const script_ref *script;
  for (int i = 0; (script = pipeline_script(p, i)); i++)
    hash = hash_mix(hash, text_hash(script->source));
  p->identity = hash;
}
