#include "graph/expand.h"

#include "base/memory.h"
#include "base/text.h"
#include "graph/instance.h"
#include "graph/passes.h"
#include "language/bind.h"
#include "language/elsewhere.h"

#include <stdlib.h>
#include <string.h>

enum {
  MAX_BLOCK_DEPTH = 32,
  MAX_REPEAT = 4096,
  MAX_GRAPH_NODES = 20000,
  MAX_GRAPH_VALUES = 1 << 16, /* of all items, over the rounds and blocks that they stand in */
  MAX_ITEM_INPUTS = 64,
  POISONED = -1 /* count of a name whose item had an error: what reads it is skipped in silence */
};

static status expand_items(instance *in, const tree *list);

/* Rounds in rounds and blocks in blocks multiply, with or without nodes in them. */
static status count_values(expander *x, int64_t more, source_pos at) {
  x->values += more;
  if (x->values <= MAX_GRAPH_VALUES) return OK;
  return error_new(ERROR_PIPELINE, at,
                   "the graph's items have more than %d values once every repeat and block is "
                   "expanded",
                   MAX_GRAPH_VALUES);
}

/* ---- names ------------------------------------------------------------------------------- */

static graph_name *find_name(const graph_names *n, const char *name) {
  int i = index_find(&n->index, name);
  return i < 0 ? NULL : &n->list[i];
}

static void add_name(arena *memory, graph_names *to, graph_name entry) {
  index_add(memory, &to->index, entry.name, to->count);
  ARENA_PUSH(memory, to->list, to->count, to->capacity, entry);
}

static void set_name(instance *in, const char *name, value_id *values, int count) {
  arena *memory = in->x->memory;
  graph_name *known = find_name(&in->names, name);
  if (known) {
    known->values = values;
    known->count = count;
  } else {
    add_name(memory, &in->names, (graph_name){arena_strdup(memory, name), values, count});
  }
}

static void set_one(instance *in, const char *name, value_id v) {
  set_name(in, name, arena_copy(in->x->memory, &v, sizeof v), 1);
}

static status unknown_name(const instance *in, const char *name, source_pos at) {
  const char **known = memory_take((size_t)in->names.count * sizeof *known);
  for (int i = 0; i < in->names.count; i++) known[i] = in->names.list[i].name;
  const char *near = nearest_name(name, known, in->names.count);
  status error = error_new(ERROR_PIPELINE, at, "nothing above is called \"%s\"%s%s%s", name,
                           near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
  free(known);
  return error;
}

static tree *number_value(arena *memory, source_pos at, int64_t number) {
  return tree_scalar(memory, at, arena_printf(memory, "%lld", (long long)number), false);
}

/* `${x.channels}`, `${x.size}`, `${x.tokens}` of anything already in the graph. */
static tree *shape_list(arena *memory, source_pos at, const int64_t *dims, int count) {
  tree *list = tree_scalar(memory, at, "", false);
  list->kind = TREE_LIST;
  list->count = count;
  list->items = arena_alloc(memory, (size_t)(count + 1) * sizeof *list->items);
  for (int i = 0; i < count; i++) list->items[i] = number_value(memory, at, dims[i]);
  return list;
}

static bool lookup_shape(void *context, arena *memory, const char *name, source_pos at,
                         tree **out) {
  const instance *in = context;
  const expand_options *o = in->x->options;
  if (in->is_stage && strcmp(name, "classes") == 0 && o->classes < 2)
    problems_add_new_places(&in->x->problems,
                            error_new(ERROR_PIPELINE, at,
                                      "${classes}: the data set has no classes. Name them: data: "
                                      "dataset: files: {classes: [liver, tumour]}"));
  if (in->is_stage && strcmp(name, "classes") == 0)
    return *out = number_value(memory, at, o->classes), true;
  if (in->is_stage && strcmp(name, "channels") == 0)
    return *out = number_value(memory, at, o->channels), true;
  if (in->is_stage && strcmp(name, "regions") == 0) {
    int count = in->x->p->data.region_count;
    if (count == 0)
      problems_add_new_places(
          &in->x->problems,
          error_new(ERROR_PIPELINE, at,
                    "${regions}: the data have no regions. Name them: data: regions: {whole "
                    "tumour: [1, 2, 3], tumour core: [2, 3]}"));
    return *out = number_value(memory, at, count > 0 ? count : 1), true;
  }
  const char *dot = strrchr(name, '.');
  if (!dot) return false;
  const graph_name *base = find_name(&in->names, arena_strndup(memory, name, (size_t)(dot - name)));
  if (!base || base->count < 1) return false;
  const shape *s = &value_type(&in->x->b, base->values[0])->shape;
  if (strcmp(dot, ".channels") == 0 && s->rank >= 2)
    *out = number_value(memory, at, s->dim[s->rank - 1]);
  else if (strcmp(dot, ".tokens") == 0 && s->rank == 3)
    *out = number_value(memory, at, s->dim[1]);
  else if (strcmp(dot, ".size") == 0 && s->rank == 5)
    *out = shape_list(memory, at, &s->dim[1], 3);
  else
    return false;
  return true;
}

/* ---- references -------------------------------------------------------------------------- */

typedef struct inputs {
  value_id list[MAX_ITEM_INPUTS];
  int count;
  bool poisoned;
  bool may_lack; /* ~ in a list leaves an optional input of an operator out */
} inputs;

/* "net.out" has no entry of its own when the item `net` had an error. */
static bool belongs_to_poisoned(const instance *in, const char *name) {
  for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
    const graph_name *item =
        find_name(&in->names, arena_strndup(in->x->memory, name, (size_t)(dot - name)));
    if (item && item->count == POISONED) return true;
  }
  return false;
}

static status add_input(inputs *out, value_id v, source_pos at) {
  if (out->count == MAX_ITEM_INPUTS)
    return error_new(ERROR_PIPELINE, at, "more than %d inputs", MAX_ITEM_INPUTS);
  out->list[out->count++] = v;
  return OK;
}

static status collect(instance *in, const tree *ref, inputs *out) {
  if (ref->kind == TREE_LIST) {
    for (int i = 0; i < ref->count; i++) {
      if (!tree_is_null(ref->items[i])) {
        TRY(collect(in, ref->items[i], out));
        continue;
      }
      if (!out->may_lack)
        return error_new(ERROR_PIPELINE, ref->items[i]->at,
                         "only an operator's optional inputs can be left out with ~");
      TRY(add_input(out, VALUE_NONE, ref->items[i]->at));
    }
    return OK;
  }
  if (ref->kind == TREE_MAP)
    return error_new(ERROR_PIPELINE, ref->at,
                     "an input is the name of an earlier item, not a mapping");
  if (tree_is_null(ref)) return OK; /* an operator without inputs */
  const graph_name *name = find_name(&in->names, ref->text);
  if (name ? name->count == POISONED : belongs_to_poisoned(in, ref->text)) {
    out->poisoned = true;
    return OK;
  }
  if (!name) return unknown_name(in, ref->text, ref->at);
  for (int i = 0; i < name->count; i++) TRY(add_input(out, name->values[i], ref->at));
  return OK;
}

/* ---- blocks and the model ---------------------------------------------------------------- */

static const char *joined(arena *memory, const char *prefix, const char *name) {
  if (!prefix[0]) return name;
  if (!name[0]) return prefix;
  return arena_printf(memory, "%s.%s", prefix, name);
}

static bool is_required(const tree *t) {
  return t->kind == TREE_SCALAR && !t->quoted && strcmp(t->text, "required") == 0;
}

/* Parameters of a graph file: its defaults, in order, under the arguments given. */
static status set_arguments(instance *in, const tree *params, const tree *const *arguments,
                            int argument_maps, const char *const *reserved, const char *what) {
  arena *memory = in->x->memory;
  problems all = {0};
  for (int m = 0; m < argument_maps; m++) {
    const tree *map = arguments[m];
    for (int i = 0; map && i < map->count; i++) {
      const char *key = map->keys[i]->text;
      bool skip = false;
      for (int r = 0; reserved && reserved[r]; r++) skip |= strcmp(reserved[r], key) == 0;
      if (skip || (params && tree_get(params, key))) continue;
      int known_count = params ? params->count : 0;
      const char **known = memory_take((size_t)known_count * sizeof *known);
      for (int k = 0; k < known_count; k++) known[k] = params->keys[k]->text;
      const char *near = nearest_name(key, known, known_count);
      problems_add(&all,
                   error_new(ERROR_PIPELINE, map->keys[i]->at, "%s has no parameter \"%s\"%s%s%s",
                             what, key, near ? "; did you mean \"" : "", near ? near : "",
                             near ? "\"?" : ""));
      free(known);
    }
  }
  for (int i = 0; params && i < params->count; i++) {
    const char *key = params->keys[i]->text;
    tree *value = NULL;
    for (int m = 0; m < argument_maps; m++) {
      tree *given = arguments[m] ? tree_get(arguments[m], key) : NULL;
      if (given) value = given;
    }
    if (!value && is_required(params->items[i])) {
      problems_add(
          &all, error_new(ERROR_PIPELINE, in->used_at, "%s needs the parameter \"%s\"", what, key));
      continue;
    }
    if (!value) {
      status error = scope_eval(&in->scope, memory, params->items[i], &value);
      if (error) {
        problems_add(&all, place_for_user(in, error, params->items[i]));
        continue;
      }
    }
    scope_set(&in->scope, memory, key, value);
    problems_add(&all, count_values(in->x, tree_size(value), in->used_at));
  }
  return problems_take(&all);
}

static status check_depth(const instance *in, const char *path, source_pos at) {
  int depth = 0;
  for (const instance *i = in; i; i = i->outer, depth++)
    if (!i->is_stage && i->path && path && strcmp(i->path, path) == 0)
      return error_new(ERROR_PIPELINE, at, "the block %s contains itself", path);
  if (depth > MAX_BLOCK_DEPTH)
    return error_new(ERROR_PIPELINE, at, "blocks are nested more than %d deep", MAX_BLOCK_DEPTH);
  return OK;
}

/* Expands a graph file at one use and names its outputs `<name>` (the first) and `<name>.<output>`.
 */
static status expand_file(instance *outer, const graph_file *file, const char *name,
                          const char *prefix, const char *owner, source_pos at, const tree *use,
                          const tree *const *arguments, int argument_maps,
                          const char *const *reserved, const inputs *given) {
  expander *x = outer->x;
  TRY(check_depth(outer, file->path, at));
  instance in = {.x = x,
                 .outer = outer,
                 .path = file->path,
                 .blocks = tree_get(file->root, "blocks"),
                 .params = tree_get(file->root, "params"),
                 .use = use,
                 .with = file == &x->p->model ? x->p->model_arguments : NULL,
                 .prefix = prefix,
                 .owner = owner,
                 .used_at = at};
  in.scope.lookup = lookup_shape;
  in.scope.context = &in;
  const char *what = file->path;
  const tree *ports = tree_get(file->root, "inputs");
  int port_total = ports ? ports->count : 0;
  if (given->count != port_total)
    return error_new(ERROR_PIPELINE, at, "%s takes %d input%s, but %d %s given", what, port_total,
                     port_total == 1 ? "" : "s", given->count, given->count == 1 ? "is" : "are");
  for (int i = 0; i < port_total; i++) {
    const char *port_name;
    TRY(tree_string(ports->items[i], &port_name));
    set_one(&in, port_name, given->list[i]);
  }
  TRY(set_arguments(&in, tree_get(file->root, "params"), arguments, argument_maps, reserved, what));
  TRY(expand_items(&in, tree_get(file->root, "graph")));
  const tree *outputs = tree_get(file->root, "outputs");
  for (int i = 0; outputs && i < outputs->count; i++) {
    const tree *given_as = outputs->items[i], *when = tree_get(given_as, "when");
    bool wanted = true;
    if (when) {
      TRY(scope_truth(&in.scope, x->memory, when, &wanted));
      given_as = tree_get(given_as, "value");
    }
    if (!wanted) continue;
    tree *ref;
    TRY(scope_eval(&in.scope, x->memory, given_as, &ref));
    inputs results = {0};
    TRY(collect(&in, ref, &results));
    int count = results.poisoned ? POISONED : results.count;
    value_id *values =
        arena_copy(x->memory, results.list, (size_t)results.count * sizeof(value_id));
    if (i == 0) set_name(outer, name, values, count);
    set_name(outer, arena_printf(x->memory, "%s.%s", name, outputs->keys[i]->text), values, count);
  }
  return OK;
}

/* ---- items ------------------------------------------------------------------------------- */

static bool is_loss_name(const char *name) {
  return strcmp(name, "loss") == 0 || text_starts_with(name, "loss.");
}

static bool usable_in_graph(const op *o) {
  return !(o->traits & OP_NOT_IN_GRAPHS);
}

static status unknown_operator(const instance *in, const tree *key) {
  int total = op_count(), blocks = in->blocks ? in->blocks->count : 0;
  const char **known = memory_take((size_t)(total + blocks + 1) * sizeof *known);
  int count = 0;
  for (int i = 0; i < total; i++)
    if (usable_in_graph(op_at(i))) known[count++] = op_at(i)->name;
  for (int i = 0; i < blocks; i++) known[count++] = in->blocks->keys[i]->text;
  if (in->is_stage) known[count++] = "model";
  const char *near = nearest_name(key->text, known, count);
  const op *ours;
  text_buffer answer = {0};
  bool is_answered = elsewhere_answer(key->text, 0, &ours, &answer);
  if (!is_answered && near) text_add(&answer, "; did you mean \"%s\"?", near);
  if (!is_answered && !near) text_add(&answer, " (strata ops lists the operators)");
  status error =
      error_new(ERROR_PIPELINE, key->at, "\"%s\" is neither an operator nor a block of this file%s",
                key->text, answer.data);
  text_free(&answer);
  free(known);
  return error;
}

static status apply_operator(instance *in, const char *name, const char *owner, const op *o,
                             const tree *body, source_pos at, const inputs *given) {
  expander *x = in->x;
  const char *reserved[] = {o->name, "when", "parameters",
                            is_loss_name(name) && in->is_stage ? "weight" : NULL, NULL};
  void *attrs = arena_alloc(x->memory, o->attrs_bytes ? o->attrs_bytes : 1);
  problems found = {0};
  bind_attrs(o, body, reserved, at, &x->p->memory, attrs, &found);
  status error = problems_take(&found);
  if (error) return error;
  int outputs = port_count(o->outputs);
  value_id *out = arena_alloc(x->memory, (size_t)(outputs + 1) * sizeof *out);
  x->b.at = at;
  x->b.prefix = in->prefix;
  x->b.owner = owner;
  TRY(build_apply(&x->b, name, o, attrs, given->list, given->count, out));
  set_one(in, name, out[0]);
  for (int i = 0; i < outputs; i++)
    if (!(o->outputs[i].flags & PORT_SAVED))
      set_one(in, arena_printf(x->memory, "%s.%s", name, o->outputs[i].name), out[i]);
  return OK;
}

static status check_fresh(const instance *in, const char *name, source_pos at) {
  const graph_name *known = find_name(&in->names, name);
  if (known && known->count != POISONED)
    return error_new(ERROR_PIPELINE, at, "\"%s\" is the name of something above; choose another",
                     name);
  return OK;
}

static status expand_named(instance *in, const tree *item, const char *name) {
  expander *x = in->x;
  const tree *body = item->items[0];
  source_pos at = item->keys[0]->at;
  if (body->kind != TREE_MAP || body->count == 0)
    return error_new(ERROR_PIPELINE, body->at.line ? body->at : at,
                     "item \"%s\" needs an operator: {operator: input, attribute: value}", name);
  TRY(check_fresh(in, name, at));
  tree *full;
  TRY(scope_eval(&in->scope, x->memory, body, &full));
  TRY(count_values(x, tree_size(full), at));
  const tree *operator_key = NULL, *input_refs = NULL;
  for (int i = 0; i < full->count && !operator_key; i++) {
    if (strcmp(full->keys[i]->text, "when") == 0 || strcmp(full->keys[i]->text, "parameters") == 0)
      continue;
    operator_key = full->keys[i];
    input_refs = full->items[i];
  }
  if (!operator_key) return error_new(ERROR_PIPELINE, at, "item \"%s\" names no operator", name);
  const char *what = operator_key->text;
  const tree *block = in->blocks ? tree_get(in->blocks, what) : NULL;
  inputs given = {.may_lack = !block && op_find(what)};
  TRY(collect(in, input_refs, &given));
  if (given.poisoned) {
    set_name(in, name, NULL, POISONED);
    return OK;
  }
  const char *reserved[] = {what, "when", "parameters", NULL}, *owner = name;
  const tree *shared = tree_get(full, "parameters");
  if (shared) {
    TRY(tree_string(shared, &owner));
    if (!find_name(&in->names, owner)) return unknown_name(in, owner, shared->at);
  }
  owner = joined(x->memory, in->owner, owner);
  if (in->is_stage && strcmp(what, "model") == 0) {
    const tree *arguments[] = {x->p->model_arguments, full};
    x->b.use = x->model_uses++;
    status error = expand_file(in, &x->p->model, name, "", "", operator_key->at, body, arguments, 2,
                               reserved, &given);
    x->b.use = 0;
    return error;
  }
  if (block) {
    graph_file file, user = {.path = in->path};
    TRY(block_file_load(x->p, &user, what, block, &file));
    const tree *arguments[] = {full};
    return expand_file(in, &file, name, joined(x->memory, in->prefix, name), owner,
                       operator_key->at, body, arguments, 1, reserved, &given);
  }
  const op *o = op_find(what);
  if (!o || !usable_in_graph(o)) return unknown_operator(in, operator_key);
  return apply_operator(in, name, owner, o, full, operator_key->at, &given);
}

/* The names of a round that is not expanded, because one before it had a mistake: whoever reads them
 * stays silent. */
static void poison_round(instance *in, const tree *body, const char *variable, int64_t round) {
  arena *memory = in->x->memory;
  scope_set(&in->scope, memory, variable,
            tree_scalar(memory, body->at, arena_printf(memory, "%lld", (long long)round), false));
  in->x->values += body->count;
  for (int i = 0; i < body->count; i++) {
    const tree *item = body->items[i];
    tree *name;
    if (item->kind != TREE_MAP || item->count != 1)
      continue; /* a repeat in the repeat, or a slip */
    status error = scope_eval(&in->scope, memory, item->keys[0], &name);
    if (!error) set_name(in, name->text, NULL, POISONED);
    error_free(error);
  }
}

static status expand_repeat(instance *in, const tree *item) {
  static const char *const keys[] = {"repeat", "as", "carry", "graph", "next", "when", NULL};
  arena *memory = in->x->memory;
  problems found = {0};
  tree_check_keys(item, "repeat", keys, &found);
  TRY(problems_take(&found));
  tree *times_tree, *carry = NULL;
  TRY(scope_eval(&in->scope, memory, tree_get(item, "repeat"), &times_tree));
  int64_t times;
  TRY(tree_int(times_tree, &times));
  if (times < 0 || times > MAX_REPEAT)
    return error_new(ERROR_PIPELINE, times_tree->at, "repeat must be between 0 and %d", MAX_REPEAT);
  const char *variable = "i";
  if (tree_get(item, "as")) TRY(tree_string(tree_get(item, "as"), &variable));
  const tree *body = tree_get(item, "graph"), *next = tree_get(item, "next");
  if (!body || body->kind != TREE_LIST)
    return error_new(ERROR_PIPELINE, item->at,
                     "repeat needs \"graph:\", the list of items to repeat");
  if (tree_get(item, "carry")) {
    TRY(scope_eval(&in->scope, memory, tree_get(item, "carry"), &carry));
    if (carry->kind != TREE_MAP || !next || next->kind != TREE_MAP || next->count != carry->count)
      return error_new(ERROR_PIPELINE, carry->at,
                       "carry and next are mappings with the same names: carry: {x: first}, "
                       "next: {x: last item of the round}");
    for (int k = 0; k < carry->count; k++) {
      if (!tree_get(next, carry->keys[k]->text))
        return error_new(ERROR_PIPELINE, next->at, "next lacks \"%s\", which carry names",
                         carry->keys[k]->text);
      inputs start = {0};
      TRY(collect(in, carry->items[k], &start));
      set_name(in, carry->keys[k]->text,
               arena_copy(memory, start.list, (size_t)start.count * sizeof(value_id)),
               start.poisoned ? POISONED : start.count);
    }
  }
  for (int64_t i = 0; i < times; i++) {
    int known = in->x->problems.count;
    TRY(count_values(in->x, 1, item->at));
    scope_set(&in->scope, memory, variable,
              tree_scalar(memory, item->at, arena_printf(memory, "%lld", (long long)i), false));
    TRY(expand_items(in, body));
    if (in->x->problems.count > known) { /* the next rounds would only repeat it */
      for (int64_t k = i + 1; k < times && in->x->values <= MAX_GRAPH_VALUES; k++)
        poison_round(in, body, variable, k);
      for (int k = 0; carry && k < carry->count; k++)
        set_name(in, carry->keys[k]->text, NULL, POISONED);
      return OK;
    }
    for (int k = 0; carry && k < carry->count; k++) {
      const char *name = carry->keys[k]->text;
      tree *ref;
      inputs result = {0};
      TRY(scope_eval(&in->scope, memory, tree_get(next, name), &ref));
      TRY(collect(in, ref, &result));
      set_name(in, name, arena_copy(memory, result.list, (size_t)result.count * sizeof(value_id)),
               result.poisoned ? POISONED : result.count);
    }
  }
  return OK;
}

/* Says through which uses a mistake inside a block came about. */
static status add_trail(const instance *in, status error) {
  for (const instance *i = in; i && !i->is_stage; i = i->outer)
    if (i->prefix[0] && i->used_at.file && error_count(error) == 1) {
      source_pos at = error_position(error);
      if (at.file && strcmp(at.file, i->path) != 0) break;
      return error_prefix(error, "in %s (used at %s:%d)", i->prefix, i->used_at.file,
                          i->used_at.line);
    }
  return error;
}

static status expand_item(instance *in, const tree *item, const char **name) {
  *name = NULL;
  if (item->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, item->at,
                     "a graph item is \"- name: {operator: input, attribute: value}\"");
  const tree *when = tree_get(item, "when");
  bool is_repeat = tree_get(item, "repeat") != NULL;
  if (!is_repeat) {
    if (item->count != 1)
      return error_new(
          ERROR_PIPELINE, item->at,
          "a graph item has one key, its name; is the indentation of its contents right?");
    tree *key;
    TRY(scope_eval(&in->scope, in->x->memory, item->keys[0], &key));
    *name = key->text;
    if (item->items[0]->kind == TREE_MAP) when = tree_get(item->items[0], "when");
  }
  if (when) {
    bool wanted;
    TRY(scope_truth(&in->scope, in->x->memory, when, &wanted));
    if (!wanted) return OK;
  }
  return is_repeat ? expand_repeat(in, item) : expand_named(in, item, *name);
}

static status expand_items(instance *in, const tree *list) {
  expander *x = in->x;
  if (!list || list->kind != TREE_LIST)
    return error_new(ERROR_PIPELINE, list ? list->at : in->used_at, "a graph is a list of items");
  for (int i = 0; i < list->count; i++) {
    const char *name;
    if (x->b.g->node_count > MAX_GRAPH_NODES)
      return error_new(ERROR_PIPELINE, list->items[i]->at, "the graph has more than %d nodes",
                       MAX_GRAPH_NODES);
    TRY(count_values(x, 1, list->items[i]->at));
    x->b.bad_input = false;
    status error = expand_item(in, list->items[i], &name);
    if (!error) continue;
    error = place_for_user(in, error_locate(error, list->items[i]->at), list->items[i]);
    problems_add_new_places(&x->problems, add_trail(in, error));
    if (name) set_name(in, name, NULL, POISONED);
  }
  return OK;
}

/* ---- the stage --------------------------------------------------------------------------- */

/* loss = Σ weight · term, over the items called `loss` or `loss.<term>`. */
static status add_losses(instance *in, const tree *items, stage_graph *out) {
  expander *x = in->x;
  int room = items->count + 1;
  out->terms = arena_alloc(x->memory, (size_t)room * sizeof *out->terms);
  out->term_names = arena_alloc(x->memory, (size_t)room * sizeof *out->term_names);
  value_id *weighted = arena_alloc(x->memory, (size_t)room * sizeof *weighted);
  for (int i = 0; i < items->count; i++) {
    const tree *item = items->items[i];
    if (item->kind != TREE_MAP || item->count != 1 || !is_loss_name(item->keys[0]->text)) continue;
    const char *name = item->keys[0]->text;
    const graph_name *term = find_name(&in->names, name);
    if (!term || term->count == POISONED) continue;
    source_pos at = item->keys[0]->at;
    if (term->count != 1 || value_type(&x->b, term->values[0])->shape.rank != 0) {
      problems_add_new_places(
          &x->problems, error_new(ERROR_PIPELINE, at,
                                  "\"%s\" is not a single number, so it cannot be a loss", name));
      continue;
    }
    const op *scale = op_find("scale");
    void *attrs = arena_alloc(x->memory, scale->attrs_bytes);
    op_defaults(scale, attrs);
    double weight = 1;
    const tree *weight_tree = tree_get(item->items[0], "weight");
    if (weight_tree) {
      tree *value;
      status error = scope_eval(&in->scope, x->memory, weight_tree, &value);
      if (!error) error = tree_float(value, &weight);
      if (error) {
        problems_add_new_places(&x->problems, error);
        continue;
      }
    }
    *attr_number(scale, attrs, "factor") = weight;
    int k = out->term_count;
    out->terms[k] = term->values[0];
    out->term_names[k] = strcmp(name, "loss") == 0 ? "loss" : arena_strdup(x->memory, name + 5);
    x->b.at = at;
    x->b.prefix = "";
    TRY(build_apply(&x->b, arena_printf(x->memory, "%s.weight", name), scale, attrs, &out->terms[k],
                    1, &weighted[k]));
    out->term_count++;
  }
  if (out->term_count == 0) return OK;
  x->b.prefix = "loss.total";
  TRY(build_node(&x->b, "add", NULL, weighted, out->term_count, &out->loss));
  return OK;
}

enum { LOGGED_NUMBERS = 16 }; /* of an output that is logged, at most */

/* Further scalar or short outputs of the loss items, to log beside the terms. */
static void add_metrics(instance *in, stage_graph *out) {
  expander *x = in->x;
  int capacity = 0;
  int name_capacity = 0;
  for (int i = 0; i < in->names.count; i++) {
    const graph_name *n = &in->names.list[i];
    const char *dot = strrchr(n->name, '.');
    if (!is_loss_name(n->name) || n->count != 1 || !dot) continue;
    const graph_name *item =
        find_name(&in->names, arena_strndup(x->memory, n->name, (size_t)(dot - n->name)));
    const tensor *t = value_type(&x->b, n->values[0]);
    bool is_term = false;
    for (int k = 0; k < out->term_count; k++) is_term |= out->terms[k] == n->values[0];
    if (!item || !is_loss_name(item->name) || is_term || t->dtype != DTYPE_F32 ||
        shape_elements(&t->shape) > LOGGED_NUMBERS)
      continue;
    /* "loss.structure.accuracy" of item loss.structure is logged as structure.accuracy; what the
     * item called plain `loss` reports keeps the word. */
    const char *name = n->name + (strcmp(item->name, "loss") == 0 ? 0 : strlen("loss."));
    int count = out->metric_count;
    ARENA_PUSH(x->memory, out->metrics, count, capacity, n->values[0]);
    count = out->metric_count;
    ARENA_PUSH(x->memory, out->metric_names, count, name_capacity, arena_strdup(x->memory, name));
    out->metric_count = count;
  }
}

static status finish(expander *x, const stage_spec *stage, stage_graph *out,
                     const expand_options *options) {
  graph *g = out->g;
  int room = out->term_count + out->metric_count + MAX_ITEM_INPUTS + 1, count = 0;
  value_id *keep = arena_alloc(x->memory, (size_t)room * sizeof *keep);
  if (options->only) {
    const graph_name *name = stage_graph_find(out, options->only);
    for (int i = 0; name && i < name->count && i < MAX_ITEM_INPUTS; i++)
      keep[count++] = name->values[i];
    out->loss = VALUE_NONE;
    out->term_count = out->metric_count = 0;
  } else {
    if (out->loss != VALUE_NONE) keep[count++] = out->loss;
    for (int i = 0; i < out->term_count; i++) keep[count++] = out->terms[i];
    for (int i = 0; i < out->metric_count; i++) keep[count++] = out->metrics[i];
  }
  out->keep = keep;
  out->keep_count = count;
  graph_prune(g, keep, count);
  graph_fuse(g, keep, count);
  if (options->training) {
    TRY(graph_differentiate(g, out->loss));
    graph_prune(g, keep, count);
  }
  graph_set_precision(g, stage->precision);
  if (!value_is_read(g, out->label)) out->label = VALUE_NONE;
  if (!value_is_read(g, out->image))
    return error_new(ERROR_PIPELINE, stage->at, "%s of stage \"%s\" does not depend on the image",
                     options->only ? options->only : "the loss", stage->name);
  return graph_verify(g);
}

/* Where the file names the value that is to be computed: `output:` of `validate:` or of `evaluate:`, if it
 * is that one. */
static source_pos output_place(const pipeline *p, const stage_spec *stage, const char *name) {
  const evaluate_spec *e = &p->evaluate;
  if (stage->output && stage->output_at.file && strcmp(stage->output, name) == 0)
    return stage->output_at;
  bool is_evaluated = e->output_at.file && strcmp(e->output, name) == 0;
  return is_evaluated ? e->output_at : stage->at;
}

/* The value `regions`, where the data have some. A graph that does not read it loses it again. */
static status make_regions(instance *in, value_id label) {
  expander *x = in->x;
  const data_spec *data = &x->p->data;
  if (data->region_count == 0) return OK;
  const op *o = op_find("label_regions");
  void *attrs = arena_alloc(x->memory, o->attrs_bytes);
  op_defaults(o, attrs);
  int_list *sets = attr_integers(o, attrs, "sets");
  sets->count = LIST_MAX;
  for (int r = 0; r < data->region_count; r++)
    for (int k = 0; k < data->regions[r].count; k++)
      sets->at[data->regions[r].classes[k]] |= INT64_C(1) << r;
  value_id regions;
  TRY(build_apply(&x->b, "regions", o, attrs, &label, 1, &regions));
  x->b.g->values[regions].classes = data->region_count;
  set_one(in, "regions", regions);
  return OK;
}

expand_options crop_options(const stage_spec *stage, int64_t channels, int64_t classes,
                            int64_t batch, bool training) {
  const int64_t *crop = stage->crop;
  return (expand_options){.batch = batch,
                          .size = {crop[0], crop[1], crop[2]},
                          .channels = channels,
                          .classes = classes,
                          .training = training};
}

status stage_expand(pipeline *p, const stage_spec *stage, const expand_options *options,
                    stage_graph *out) {
  *out = (stage_graph){.loss = VALUE_NONE};
  out->g = graph_new(options->training);
  if (!out->g) return error_out_of_memory(sizeof(graph));
  expander x = {
      .p = p, .b = {.g = out->g, .prefix = ""}, .memory = &out->g->memory, .options = options};
  instance in = {
      .x = &x, .path = p->path, .prefix = "", .owner = "", .used_at = stage->at, .is_stage = true};
  in.scope.parent = &stage->params;
  in.scope.lookup = lookup_shape;
  in.scope.context = &in;
  int64_t n = options->batch;
  const int64_t *s = options->size;
  out->image = build_input(&x.b, "image", DTYPE_F32, SHAPE(n, s[0], s[1], s[2], options->channels));
  out->label = build_input(&x.b, "label", DTYPE_I32, SHAPE(n, s[0], s[1], s[2]));
  out->g->values[out->label].classes = options->classes;
  set_one(&in, "image", out->image);
  set_one(&in, "label", out->label);
  status error = make_regions(&in, out->label);
  if (!error) error = expand_items(&in, stage->graph);
  if (!error) error = add_losses(&in, stage->graph, out);
  if (!error && x.problems.count == 0) {
    if (out->term_count == 0 && options->training)
      error = error_new(
          ERROR_PIPELINE, stage->at,
          "stage \"%s\" has nothing to minimise: name an item \"loss\" or \"loss.<term>\"",
          stage->name);
    add_metrics(&in, out);
    out->names = in.names;
    out->unused = tree_get(p->model.root, "unused");
    if (!error && options->only && !stage_graph_find(out, options->only))
      error = unknown_name(&in, options->only, output_place(p, stage, options->only));
    if (!error) error = error_locate(finish(&x, stage, out, options), stage->at);
  }
  problems_add(&x.problems, error);
  error = problems_take(&x.problems);
  if (error) stage_graph_free(out);
  return error;
}

/* ---- a model alone ----------------------------------------------------------------------- */

/* Single outputs stay under their names; the members of a list get a number each. */
static void name_outputs(instance *in, const tree *outputs, stage_graph *out) {
  arena *memory = in->x->memory;
  for (int i = 0; i < outputs->count; i++) {
    const char *key = outputs->keys[i]->text;
    const tree *value = tree_get(outputs->items[i], "when") ? tree_get(outputs->items[i], "value")
                                                            : outputs->items[i];
    const graph_name *n = find_name(&in->names, arena_printf(memory, "model.%s", key));
    for (int k = 0; n && k < n->count; k++) {
      graph_name one = {.values = &n->values[k], .count = 1};
      one.name =
          n->count == 1 && value->kind != TREE_LIST ? key : arena_printf(memory, "%s.%d", key, k);
      add_name(memory, &out->names, one);
    }
  }
}

/* The gradient of mean(out²) by out is 2 / n · out. */
static status differentiate_square(expander *x, stage_graph *out) {
  const op *scale = op_find("scale");
  void *attrs = arena_alloc(x->memory, scale->attrs_bytes);
  op_defaults(scale, attrs);
  value_id first = out->names.list[0].values[0], seed;
  *attr_number(scale, attrs, "factor") =
      2.0 / (double)shape_elements(&value_type(&x->b, first)->shape);
  x->b.prefix = "seed";
  TRY(build_node(&x->b, "scale", attrs, &first, 1, &seed));
  return graph_differentiate_from(out->g, &first, &seed, 1);
}

static status differentiate_seeds(expander *x, stage_graph *out) {
  value_id outputs[MAX_ITEM_INPUTS], seeds[MAX_ITEM_INPUTS];
  int count = 0, names = out->names.count;
  for (int i = 0; i < names && count < MAX_ITEM_INPUTS; i++) {
    outputs[count] = out->names.list[i].values[0];
    const char *seed = arena_printf(x->memory, "seed.%s", out->names.list[i].name);
    seeds[count] = build_input(&x->b, seed, DTYPE_F32, value_type(&x->b, outputs[count])->shape);
    graph_name fed = {
        .name = seed, .values = arena_copy(x->memory, &seeds[count], sizeof *seeds), .count = 1};
    add_name(x->memory, &out->names, fed);
    count++;
  }
  return graph_differentiate_from(out->g, outputs, seeds, count);
}

static status expand_model(expander *x, instance *in, model_loss loss, stage_graph *out) {
  const expand_options *o = x->options;
  const graph_file *model = &x->p->model;
  const tree *inputs_tree = tree_get(model->root, "inputs");
  if (inputs_tree->count != 1)
    return error_new(ERROR_PIPELINE, inputs_tree->at,
                     "%s has %d inputs; a model that runs alone has one", model->path,
                     inputs_tree->count);
  const int64_t *s = o->size;
  out->image =
      build_input(&x->b, "image", DTYPE_F32, SHAPE(o->batch, s[0], s[1], s[2], o->channels));
  inputs given = {.list = {out->image}, .count = 1};
  status error = expand_file(in, model, "model", "", "", in->used_at, NULL, NULL, 0, NULL, &given);
  problems_add(&x->problems, error);
  TRY(problems_take(&x->problems));
  name_outputs(in, tree_get(model->root, "outputs"), out);
  if (out->names.count == 0)
    return error_new(ERROR_PIPELINE, NOWHERE, "%s has no output", x->p->path);
  out->keep = arena_alloc(x->memory, (size_t)(out->names.count + 1) * sizeof *out->keep);
  for (int i = 0; i < out->names.count; i++)
    out->keep[out->keep_count++] = out->names.list[i].values[0];
  graph_prune(out->g, out->keep, out->keep_count);
  graph_fuse(out->g, out->keep, out->keep_count);
  if (loss == MODEL_LOSS_SQUARE) TRY(differentiate_square(x, out));
  if (loss == MODEL_LOSS_SEEDS) TRY(differentiate_seeds(x, out));
  graph_prune(out->g, out->keep, out->keep_count);
  graph_set_precision(out->g, o->precision);
  return graph_verify(out->g);
}

status model_expand(pipeline *p, const expand_options *options, model_loss loss, stage_graph *out) {
  *out = (stage_graph){.loss = VALUE_NONE, .label = VALUE_NONE};
  out->g = graph_new(options->training);
  if (!out->g) return error_out_of_memory(sizeof(graph));
  expander x = {
      .p = p, .b = {.g = out->g, .prefix = ""}, .memory = &out->g->memory, .options = options};
  instance in = {.x = &x, .prefix = "", .used_at = {p->path, 0, 0}, .is_stage = true};
  status error = expand_model(&x, &in, loss, out);
  if (error) stage_graph_free(out);
  return error;
}

void stage_graph_free(stage_graph *s) {
  graph_free(s->g);
  *s = (stage_graph){0};
}

const graph_name *stage_graph_find(const stage_graph *s, const char *name) {
  return find_name(&s->names, name);
}

/* The node's number that `name` means: "<node>.<attribute>", or a loss weight "<item>.weight". */
static const attr *schedulable(const node *n, const char *name) {
  size_t length = strlen(n->name);
  for (const attr *a = n->op->attrs; a && a->name; a++) {
    if (a->kind != ATTR_FLOAT || !(a->flags & ATTR_SCHEDULABLE)) continue;
    bool whole = strcmp(n->name, name) == 0 && text_ends_with(name, ".weight");
    bool part = strncmp(n->name, name, length) == 0 && name[length] == '.' &&
                strcmp(name + length + 1, a->name) == 0;
    if (whole || part) return a;
  }
  return NULL;
}

static double *number_of(const node *n, const attr *a) {
  return (double *)((char *)n->attrs + a->offset);
}

const attr *stage_graph_attr(const stage_graph *s, const char *name) {
  for (int i = 0; i < s->g->node_count; i++) {
    const attr *a = schedulable(&s->g->nodes[i], name);
    if (a) return a;
  }
  return NULL;
}

int stage_graph_number_names(const stage_graph *s, arena *memory, const char **names, int limit) {
  int count = 0;
  for (int i = 0; i < s->g->node_count; i++) {
    const node *n = &s->g->nodes[i];
    for (const attr *a = n->op->attrs; a && a->name; a++) {
      const char *name = text_ends_with(n->name, ".weight")
                             ? n->name
                             : arena_printf(memory, "%s.%s", n->name, a->name);
      bool is_there = schedulable(n, name) != a; /* or it is none */
      for (int k = 0; k < count && !is_there; k++) is_there = strcmp(names[k], name) == 0;
      if (!is_there && count < limit) names[count++] = name;
    }
  }
  return count;
}

bool stage_graph_get_number(const stage_graph *s, const char *name, double *out) {
  for (int i = 0; i < s->g->node_count; i++) {
    const attr *a = schedulable(&s->g->nodes[i], name);
    if (a) return *out = *number_of(&s->g->nodes[i], a), true;
  }
  return false;
}

bool stage_graph_set_number(stage_graph *s, const char *name, double value) {
  bool found = false;
  for (int i = 0; i < s->g->node_count; i++) {
    const attr *a = schedulable(&s->g->nodes[i], name);
    if (a) *number_of(&s->g->nodes[i], a) = value, found = true;
  }
  return found;
}
