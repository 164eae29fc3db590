/* Files a pipeline names: base pipelines, models, blocks and Lua scripts. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "language/elsewhere.h"
#include "language/load.h"

enum { MAX_BASES = 16, MAX_LOADED = 64, MAX_SCRIPT_BYTES = 1 << 20, MAX_NAMES_COMPARED = 500 };

tree unreadable = {.kind = TREE_SCALAR, .text = ""};

/* ---- other pipelines ----------------------------------------------------------------------- */

/* The one merge rule: mappings merge key by key; everything else of `over` replaces `base`, and
 * nothing (`key: ~`) takes the base's key away. */
static tree *merge(arena *memory, const tree *base, tree *over) {
  if (base->kind != TREE_MAP || over->kind != TREE_MAP) return over;
  tree *merged = tree_new(memory, over->at, TREE_MAP, base->count + over->count);
  for (int i = 0; i < base->count; i++) {
    const char *key = base->keys[i]->text;
    tree *ours = tree_get(over, key);
    if (ours && tree_is_null(ours)) continue;
    merged->keys[merged->count] = ours ? tree_key(over, key) : base->keys[i];
    merged->items[merged->count++] = ours ? merge(memory, base->items[i], ours) : base->items[i];
  }
  for (int i = 0; i < over->count; i++) {
    if (tree_get(base, over->keys[i]->text)) continue;
    merged->keys[merged->count] = over->keys[i];
    merged->items[merged->count++] = over->items[i];
  }
  return merged;
}

void remove_key(tree *map, const char *key) {
  int kept = 0;
  for (int i = 0; i < map->count; i++) {
    if (strcmp(map->keys[i]->text, key) == 0) continue;
    map->keys[kept] = map->keys[i];
    map->items[kept++] = map->items[i];
  }
  map->count = kept;
}

static status check_version(const tree *root, const char *path) {
  char shown[96];
  int64_t version;
  if (root->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, root->at,
                     "The file must be a mapping that starts with "
                     "\"strata: 1\", not %s.",
                     tree_describe(root, shown));
  const tree *t = tree_get(root, "strata");
  if (!t)
    return error_new(ERROR_PIPELINE, (source_pos){intern_file(path), 1, 1},
                     "The version is missing: start the file with \"strata: 1\".");
  TRY(error_prefix(tree_int(t, &version), "strata"));
  if (version != 1)
    return error_new(ERROR_PIPELINE, t->at,
                     "The file is of version %lld; this program reads version 1.",
                     (long long)version);
  return OK;
}

static char *real_path(const source *s) {
  char real[PATH_MAX];
  return memory_strdup(realpath(s->path, real) ? real : s->path); /* the latter in a bundle */
}

/* Pipelines that take from each other while one is loaded. */
typedef struct family {
  pipeline *p;
  arena *memory;
  char *chain[MAX_BASES]; /* each takes from the next */
  int loaded;
} family;

static status load_whole(family *f, const source *s, int depth, tree **root);

/* The pipeline that the text `use`, in the file chain[depth], names. */
static status load_used(family *f, const tree *use, int depth,
                        status (*load)(family *, const source *, int, tree **), tree **root) {
  const char *name;
  char shown[96];
  source file;
  TRY(error_prefix(tree_string(use, &name), "use"));
  TRY(source_find(f->p, name, "pipelines", use->at, use->at, &file));
  char *real = real_path(&file);
  for (int i = 0; real && i <= depth; i++)
    if (strcmp(f->chain[i], real) == 0) {
      free(real);
      return error_new(ERROR_PIPELINE, use->at, "%s includes itself%s.", printable(name, shown),
                       i < depth ? " through other files" : "");
    }
  free(real);
  if (depth + 1 == MAX_BASES || f->loaded == MAX_LOADED)
    return error_new(ERROR_PIPELINE, use->at, "More than %d files include each other.",
                     depth + 1 == MAX_BASES ? MAX_BASES : MAX_LOADED);
  return error_locate(load(f, &file, depth + 1, root), use->at);
}

static status check_size(const tree *root, source_pos at) {
  if (tree_size(root) > TREE_MAX_NODES)
    return error_new(ERROR_PIPELINE, at, "With this file there are more than %d values.",
                     TREE_MAX_NODES);
  return OK;
}

/* A lock brings the files that its pipeline names. */
static status take_lock(family *f, const source *s, int depth, tree *root) {
  tree *lock = tree_get(root, lock_key);
  if (!lock) return OK;
  if (depth > 0 || tree_get(root, "use"))
    return error_new(ERROR_PIPELINE, tree_key(root, lock_key)->at,
                     "A locked pipeline is run as it is: it is no base for others and has none.");
  f->p->lock = lock;
  remove_key(root, lock_key);
  f->p->locked = tree_copy(f->memory, root);
  return lock_open_files(f->p, s, lock);
}

/* A pipeline over its bases, stages as they stand there. */
static status load_chain(family *f, const source *s, int depth, tree **root) {
  char *real = real_path(s);
  f->chain[depth] = arena_strdup(f->memory, real ? real : s->path);
  free(real);
  f->loaded++;
  TRY(source_tree(f->p, s, false, root));
  TRY(check_version(*root, s->path));
  TRY(take_lock(f, s, depth, *root));
  const tree *use = tree_get(*root, "use");
  if (!use) return OK;
  tree *base;
  TRY(load_used(f, use, depth, load_chain, &base));
  *root = merge(f->memory, base, *root);
  remove_key(*root, "use");
  return check_size(*root, use->at);
}

static bool is_stage_item(const tree *item) {
  return item->kind == TREE_MAP && item->count == 1 && item->items[0]->kind == TREE_MAP;
}

static status find_stage(const tree *root, const char *file, const char *name, source_pos at,
                         const tree **out) {
  const tree *stages = tree_get(root, "stages");
  const char *names[MAX_NAMES_COMPARED];
  int count = 0;
  char shown[96], shown_file[96];
  for (int i = 0; stages && stages->kind == TREE_LIST && i < stages->count; i++) {
    if (!is_stage_item(stages->items[i])) continue;
    *out = stages->items[i]->items[0];
    const char *known = stages->items[i]->keys[0]->text;
    if (strcmp(known, name) == 0) return OK;
    if (count < MAX_NAMES_COMPARED) names[count++] = known;
  }
  text_buffer list = {0};
  for (int i = 0; i < count; i++)
    text_add(&list, "%s%s", i == 0 ? "" : ", ", printable(names[i], shown));
  status error = error_new(
      ERROR_PIPELINE, at,
      "%s has no stage \"%s\"; it has %s. `use: {pipeline: file, stage: name}` takes another one.",
      printable(file, shown_file), printable(name, shown), count ? list.data : "none");
  text_free(&list);
  return error;
}

/* `- name: {use: file, …}` takes the stage of that name from another pipeline and changes what
 * stands beside `use`; `use: {pipeline: file, stage: name}` takes one of another name. */
static status take_stage(family *f, tree *item, int depth) {
  static const char *const keys[] = {"pipeline", "stage", NULL};
  const tree *use = tree_get(item->items[0], "use"), *file = use, *stage, *found = NULL;
  const char *name = item->keys[0]->text;
  tree *root;
  if (use->kind == TREE_MAP) {
    problems all = {0};
    tree_check_keys(use, "use", keys, &all);
    file = tree_get(use, "pipeline");
    stage = tree_get(use, "stage");
    if (!file) problems_add(&all, error_new(ERROR_PIPELINE, use->at, "use needs \"pipeline\"."));
    if (stage) problems_add(&all, error_prefix(tree_string(stage, &name), "use: stage"));
    TRY(problems_take(&all));
  }
  TRY(load_used(f, file, depth, load_whole, &root));
  TRY(find_stage(root, file->text, name, use->at, &found));
  item->items[0] = merge(f->memory, found, item->items[0]);
  remove_key(item->items[0], "use");
  return OK;
}

/* A pipeline over its bases, with the stages it takes from others. */
static status load_whole(family *f, const source *s, int depth, tree **root) {
  TRY(load_chain(f, s, depth, root));
  tree *stages = tree_get(*root, "stages");
  problems all = {0};
  for (int i = 0; stages && stages->kind == TREE_LIST && i < stages->count; i++)
    if (is_stage_item(stages->items[i]) && tree_get(stages->items[i]->items[0], "use")) {
      problems_add(&all, take_stage(f, stages->items[i], depth));
      problems_add(&all, check_size(*root, stages->items[i]->at));
    }
  return problems_take(&all);
}

status load_with_bases(pipeline *p, const source *file, tree **root) {
  family f = {.p = p, .memory = &p->memory};
  return load_whole(&f, file, 0, root);
}

/* ---- scripts ------------------------------------------------------------------------------- */

status load_script(pipeline *p, const char *name, source_pos at, script_ref *out, source *from) {
  arena *memory = &p->memory;
  char *file = text_ends_with(name, ".lua") ? arena_strdup(memory, name)
                                            : arena_printf(memory, "%s.lua", name);
  size_t length;
  *out = (script_ref){.at = at};
  TRY(source_find(p, file, "lua", at, at, from));
  TRY(error_locate(source_read(p, from, true, MAX_SCRIPT_BYTES, &out->source, &length), at));
  if (strlen(out->source) != length || !text_is_utf8(out->source))
    return error_new(ERROR_PIPELINE, at, "%s is not a text file in UTF-8.", from->path);
  out->path = intern_file(from->path);
  return OK;
}

/* ---- graphs -------------------------------------------------------------------------------- */

static bool is_word(const char *text) {
  const char *p = text;
  if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_')) return false;
  while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' ||
         (*p >= '0' && *p <= '9'))
    p++;
  return *p == 0;
}

status check_name(const tree *key, const char *what) {
  static const char *const taken[] = {"and", "or",  "not",     "true",     "false",  "min",
                                      "max", "len", "classes", "channels", "regions"};
  char shown[96];
  if (key->kind != TREE_SCALAR || !is_word(key->text))
    return error_new(ERROR_PIPELINE, key->at,
                     "%s: %s is not a name: use letters, digits and _, a letter first.", what,
                     tree_describe(key, shown));
  for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
    if (strcmp(key->text, taken[i]) == 0)
      return error_new(ERROR_PIPELINE, key->at,
                       "%s: the name \"%s\" has a meaning of its own in expressions; choose "
                       "another.",
                       what, key->text);
  return OK;
}

static bool is_step_operator(const op *o) {
  return o && !(o->traits & OP_NOT_IN_GRAPHS);
}

static bool is_known_operator(const char *name, const tree *blocks, bool in_stage) {
  if (in_stage && strcmp(name, "model") == 0) return true;
  if (tree_get(blocks, name)) return true;
  return is_step_operator(op_find(name));
}

static status unknown_operator(const tree *key, const tree *blocks, bool in_stage) {
  const char *names[MAX_NAMES_COMPARED];
  int count = 0;
  char shown[96];
  printable(key->text, shown);
  for (int i = 0; i < op_count() && count < MAX_NAMES_COMPARED; i++)
    if (is_step_operator(op_at(i))) names[count++] = op_at(i)->name;
  for (int i = 0; blocks && i < blocks->count && count < MAX_NAMES_COMPARED; i++)
    names[count++] = blocks->keys[i]->text;
  if (in_stage && count < MAX_NAMES_COMPARED) names[count++] = "model";
  const op *elsewhere = op_find(key->text);
  if (elsewhere) {
    const char *place = operator_place(elsewhere);
    return error_new(ERROR_PIPELINE, key->at, "%s cannot stand in a graph: it belongs %s%s%s.",
                     shown, place ? "in `" : "to the compiler", place ? place : "",
                     place ? "`" : "");
  }
  const op *ours;
  text_buffer answer = {0};
  if (elsewhere_answer(key->text, 0, &ours, &answer)) {
    status error = error_new(ERROR_PIPELINE, key->at, "There is no operator or block \"%s\"%s",
                             shown, answer.data);
    text_free(&answer);
    return error;
  }
  const char *near = nearest_name(key->text, names, count);
  if (near)
    return error_new(ERROR_PIPELINE, key->at,
                     "There is no operator or block \"%s\"; did you mean \"%s\"?", shown, near);
  return error_new(ERROR_PIPELINE, key->at,
                   "There is no operator or block \"%s\"; `strata ops` lists the operators%s.",
                   shown, in_stage ? "" : ", and \"blocks:\" names the blocks");
}

static void check_repeat(const tree *item, const tree *blocks, bool in_stage, problems *all) {
  static const char *const keys[] = {"repeat", "as", "carry", "graph", "next", "when", NULL};
  tree_check_keys(item, "repeat", keys, all);
  const tree *as = tree_get(item, "as"), *graph = tree_get(item, "graph");
  const tree *maps[] = {tree_get(item, "carry"), tree_get(item, "next")};
  static const char *const map_names[] = {"carry", "next"};
  char shown[96];
  if (as) problems_add(all, check_name(as, "as"));
  for (int i = 0; i < 2; i++)
    if (maps[i] && maps[i]->kind != TREE_MAP)
      problems_add(all, error_new(ERROR_PIPELINE, maps[i]->at, "%s must be a mapping, not %s.",
                                  map_names[i], tree_describe(maps[i], shown)));
  if (graph)
    check_graph(graph, blocks, in_stage, all);
  else
    problems_add(all, error_new(ERROR_PIPELINE, item->at, "repeat needs \"graph\"."));
}

static bool is_reference_text(const char *text) {
  if (strchr(text, '$')) return true; /* known only after evaluation */
  size_t length = strlen(text);
  for (const char *p = text; *p; p++) {
    bool is_fine = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' ||
                   (*p >= '0' && *p <= '9') || (*p == '.' && p > text && p[-1] != '.');
    if (!is_fine) return false;
  }
  return length > 0 && text[length - 1] != '.';
}

static void check_item(const tree *item, const tree *blocks, bool in_stage, problems *all) {
  char shown[96];
  if (item->kind == TREE_MAP && tree_get(item, "repeat")) {
    check_repeat(item, blocks, in_stage, all);
    return;
  }
  if (item->kind != TREE_MAP || item->count != 1) {
    problems_add(all,
                 error_new(ERROR_PIPELINE, item->at,
                           "A graph item is `- name: {operator: input, attributes}`, not %s%s.",
                           tree_describe(item, shown),
                           item->kind == TREE_MAP ? " of several keys (is it indented?)" : ""));
    return;
  }
  const tree *name = item->keys[0], *content = item->items[0];
  if (!is_reference_text(name->text))
    problems_add(all, error_new(ERROR_PIPELINE, name->at,
                                "\"%s\" is not a name: use letters, digits, _ and dots between.",
                                printable(name->text, shown)));
  if (content->kind != TREE_MAP || content->count == 0) {
    problems_add(all, error_new(ERROR_PIPELINE, content->at,
                                "%s: expected {operator: input, attributes}, not %s.", name->text,
                                tree_describe(content, shown)));
    return;
  }
  const tree *first = content->keys[0];
  if (strcmp(first->text, "when") == 0 && content->count > 1) first = content->keys[1];
  if (is_known_operator(first->text, blocks, in_stage) || strchr(first->text, '$')) return;
  /* An attribute may share an operator's name (softmax), so the place decides which key is the operator. */
  bool is_foreign = elsewhere_operator(first->text, 0);
  for (int i = 0; i < content->count && !is_foreign; i++)
    if (is_known_operator(content->keys[i]->text, blocks, in_stage)) {
      problems_add(all, error_new(ERROR_PIPELINE, content->keys[i]->at,
                                  "The operator comes first: {%s: input, %s: …}.",
                                  content->keys[i]->text, printable(first->text, shown)));
      return;
    }
  problems_add(all, unknown_operator(first, blocks, in_stage));
}

void check_graph(const tree *list, const tree *blocks, bool in_stage, problems *all) {
  char shown[96];
  if (list == &unreadable) return;
  if (list->kind != TREE_LIST || list->count == 0) {
    problems_add(all, error_new(ERROR_PIPELINE, list->at, "graph must be a list of items, not %s.",
                                tree_describe(list, shown)));
    return;
  }
  for (int i = 0; i < list->count; i++) check_item(list->items[i], blocks, in_stage, all);
}

static void check_outputs(const tree *outputs, problems *all) {
  char shown[96];
  if (outputs->kind != TREE_MAP || outputs->count == 0) {
    problems_add(all, error_new(ERROR_PIPELINE, outputs->at,
                                "outputs must be a mapping of names to values, not %s.",
                                tree_describe(outputs, shown)));
    return;
  }
  static const char *const conditional[] = {"value", "when", NULL};
  for (int i = 0; i < outputs->count; i++) {
    const tree *value = outputs->items[i];
    if (value->kind == TREE_MAP && tree_get(value, "value") && tree_get(value, "when")) {
      tree_check_keys(value, outputs->keys[i]->text, conditional, all);
      value = tree_get(value, "value");
    }
    bool is_fine = value->kind == TREE_SCALAR ? !tree_is_null(value) : value->kind == TREE_LIST;
    for (int k = 0; value->kind == TREE_LIST && k < value->count; k++)
      is_fine = is_fine && value->items[k]->kind == TREE_SCALAR;
    if (!is_fine)
      problems_add(
          all,
          error_new(ERROR_PIPELINE, value->at,
                    "outputs: %s must name a value or a list of values, or be {value: …, when: …}, "
                    "not %s.",
                    outputs->keys[i]->text, tree_describe(value, shown)));
  }
}

static void check_unused(const tree *unused, problems *all) {
  const char *pattern;
  if (!unused || tree_is_null(unused)) return;
  if (unused->kind != TREE_LIST)
    problems_report(all, unused->at, "unused must be a list of patterns of tensors' names.");
  for (int i = 0; unused->kind == TREE_LIST && i < unused->count; i++)
    problems_add(all, error_prefix(tree_string(unused->items[i], &pattern), "unused"));
}

void check_graph_file(const tree *root, const char *what, bool is_inline, problems *all) {
  static const char *const file_keys[] = {"strata", "doc",     "inputs", "params", "blocks",
                                          "graph",  "outputs", "unused", NULL};
  static const char *const inline_keys[] = {"with",  "doc",     "inputs", "params", "blocks",
                                            "graph", "outputs", "unused", NULL};
  char shown[96];
  tree_check_keys(root, what, is_inline ? inline_keys : file_keys, all);
  const tree *inputs = tree_get(root, "inputs"), *params = tree_get(root, "params");
  const tree *blocks = tree_get(root, "blocks"), *graph = tree_get(root, "graph");
  const tree *outputs = tree_get(root, "outputs");
  if (inputs && inputs->kind == TREE_LIST && inputs->count > 0) {
    for (int i = 0; i < inputs->count; i++) {
      const tree *name = inputs->items[i];
      problems_add(all, check_name(name, "inputs"));
      for (int k = 0; k < i; k++)
        if (name->kind == TREE_SCALAR && inputs->items[k]->kind == TREE_SCALAR &&
            strcmp(name->text, inputs->items[k]->text) == 0)
          problems_add(all, error_new(ERROR_PIPELINE, name->at, "inputs: \"%s\" is here twice.",
                                      printable(name->text, shown)));
    }
  } else {
    problems_add(all, error_new(ERROR_PIPELINE, inputs ? inputs->at : root->at,
                                "%s needs \"inputs\": a list of names, such as [image].", what));
  }
  if (params && params->kind != TREE_MAP && !tree_is_null(params))
    problems_add(all, error_new(ERROR_PIPELINE, params->at, "params must be a mapping, not %s.",
                                tree_describe(params, shown)));
  for (int i = 0; params && i < params->count && params->kind == TREE_MAP; i++)
    problems_add(all, check_name(params->keys[i], "params"));
  if (blocks && blocks->kind != TREE_MAP && !tree_is_null(blocks))
    problems_add(all, error_new(ERROR_PIPELINE, blocks->at,
                                "blocks must be a mapping of names to files, not %s.",
                                tree_describe(blocks, shown)));
  for (int i = 0; blocks && i < blocks->count && blocks->kind == TREE_MAP; i++) {
    const char *file;
    problems_add(all, check_name(blocks->keys[i], "blocks"));
    problems_add(all, error_prefix(tree_string(blocks->items[i], &file), "blocks: %s",
                                   blocks->keys[i]->text));
  }
  if (graph)
    check_graph(graph, blocks, false, all);
  else
    problems_add(all, error_new(ERROR_PIPELINE, root->at, "%s needs \"graph\".", what));
  if (outputs)
    check_outputs(outputs, all);
  else
    problems_add(all, error_new(ERROR_PIPELINE, root->at, "%s needs \"outputs\".", what));
  check_unused(tree_get(root, "unused"), all);
}

struct graph_cache {
  struct graph_cache *next;
  graph_file file;
};

status graph_file_load(pipeline *p, const char *name, const char *relative_to, source_pos at,
                       graph_file *out) {
  *out = (graph_file){0};
  source file;
  source_pos naming = relative_to ? (source_pos){relative_to, 1, 1} : at;
  TRY(source_find(p, name, "pipelines", naming, at, &file));
  const char *key = intern_file(file.path);
  for (const struct graph_cache *c = p->files; c; c = c->next)
    if (c->file.path == key) {
      *out = c->file;
      return OK;
    }
  tree *root;
  TRY(error_locate(source_tree(p, &file, true, &root), at));
  TRY(check_version(root, file.path));
  problems all = {0};
  check_graph_file(root, "a model or block", false, &all);
  TRY(problems_take(&all));
  struct graph_cache *entry = arena_alloc(&p->memory, sizeof *entry);
  entry->file = (graph_file){.path = key, .root = root, .shipped_as = source_shipped(p, &file)};
  entry->next = p->files;
  p->files = entry;
  *out = entry->file;
  return OK;
}

const char *graph_file_shipped(const pipeline *p, const char *path) {
  const struct graph_cache *c = p->files;
  while (c && c->file.path != path) c = c->next;
  return c ? c->file.shipped_as : NULL;
}

status block_file_load(pipeline *p, const graph_file *user, const char *name, const tree *listed,
                       graph_file *out) {
  const tree *other = p->model_blocks ? tree_get(p->model_blocks, name) : NULL;
  if (!other) return graph_file_load(p, listed->text, user->path, listed->at, out);
  const char *beside = is_override_place(other->at) ? NULL : other->at.file;
  return graph_file_load(p, other->text, beside, other->at, out);
}
