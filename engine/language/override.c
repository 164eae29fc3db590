/* `--set key=value`: a value put into the file's tree before anything is evaluated. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "language/load.h"

enum { MAX_KEY_BYTES = 500, MAX_NAMES = 500 };

const char *const pipeline_keys[] = {"strata", "use",      "name",   "doc",  "seed",
                                     "device", "threads",  "params", "data", "model",
                                     "stages", "evaluate", "log",    NULL};

typedef struct place {
  arena *memory;
  source_pos at;
  const char *whole; /* the complete key, for messages */
} place;

static int key_length(const char *path, const char *key) {
  size_t length = strlen(key);
  if (strncmp(path, key, length) != 0) return -1;
  return path[length] == 0 || path[length] == '.' ? (int)length : -1;
}

/* The entry that a path starts with. Keys may contain dots ("loss.context"): the longest counts. */
static int longest_key(const tree *map, const char *path) {
  int best = -1, best_length = -1;
  for (int i = 0; map && map->kind == TREE_MAP && i < map->count; i++) {
    int length = key_length(path, map->keys[i]->text);
    if (length > best_length) {
      best = i;
      best_length = length;
    }
  }
  return best;
}

static const char *item_name(const tree *item) {
  if (item->kind == TREE_SCALAR) return item->text;
  return item->kind == TREE_MAP && item->count == 1 ? item->keys[0]->text : NULL;
}

static const char *skip(const char *path, const char *key) {
  path += strlen(key);
  return path[0] == '.' ? path + 1 : path;
}

static tree **add_entry(const place *p, tree *map, const char *key, size_t length) {
  tree *grown = tree_new(p->memory, map->at, TREE_MAP, map->count + 1);
  for (int i = 0; i < map->count; i++) {
    grown->keys[i] = map->keys[i];
    grown->items[i] = map->items[i];
  }
  map->keys = grown->keys;
  map->items = grown->items;
  map->keys[map->count] =
      tree_scalar(p->memory, p->at, arena_strndup(p->memory, key, length), false);
  map->items[map->count] = tree_scalar(p->memory, p->at, "", false);
  return &map->items[map->count++];
}

static status no_such(const place *p, const char *word, const char *const *names, int count) {
  char shown[96];
  const char *near = nearest_name(word, names, count);
  printable(word, shown);
  if (near)
    return error_new(ERROR_USAGE, p->at, "there is no \"%s\" to set; did you mean \"%s\"?", shown,
                     near);
  text_buffer all = {0};
  for (int i = 0; i < count && count <= 12; i++) text_add(&all, "%s%s", i ? ", " : "", names[i]);
  status error = error_new(ERROR_USAGE, p->at, "there is no \"%s\" to set%s%s.", shown,
                           all.length ? "; there are " : "", all.length ? all.data : "");
  text_free(&all);
  return error;
}

/* `stages.0.epochs`: an item that has a name is a mapping from it, and `epochs` no key of that. */
static status named_item(const place *p, const tree *list, int index, const char *path) {
  const tree *item = list->items[index];
  bool has_name = item->kind == TREE_MAP && item->count == 1 && item->items[0]->kind == TREE_MAP;
  if (!has_name || !*path || key_length(path, item->keys[0]->text) >= 0) return OK;
  size_t before = strlen(p->whole) - strlen(path);
  while (before > 0 && p->whole[before - 1] == '.') before--;
  while (before > 0 && p->whole[before - 1] != '.') before--;
  text_buffer all = {0};
  for (int i = 0; i < list->count && list->count <= 12; i++)
    if (item_name(list->items[i]))
      text_add(&all, "%s%s", all.length ? ", " : "; there are ", item_name(list->items[i]));
  status error = error_new(ERROR_USAGE, p->at,
                           "the items of this list have names: \"%.*s%s.%s\" is the key of item "
                           "%d%s.",
                           (int)before, p->whole, item->keys[0]->text, path, index,
                           all.length ? all.data : "");
  text_free(&all);
  return error;
}

/* The item of a list that a path starts with: by its key, or by its index from 0. */
static status list_item(const place *p, tree *list, const char **path, tree ***slot) {
  size_t length = strcspn(*path, ".");
  if (length > 0 && length < 6 && strspn(*path, "0123456789") == length) {
    int index = 0;
    for (size_t i = 0; i < length; i++) index = index * 10 + ((*path)[i] - '0');
    if (index >= list->count)
      return error_new(ERROR_USAGE, p->at, "the list has %d items, counted from 0.", list->count);
    *slot = &list->items[index];
    *path += length + ((*path)[length] == '.');
    return named_item(p, list, index, *path);
  }
  const char *names[MAX_NAMES];
  int count = 0, best = -1, best_length = -1, matches = 0;
  for (int i = 0; i < list->count; i++) {
    const char *name = item_name(list->items[i]);
    if (!name) continue;
    if (count < MAX_NAMES) names[count++] = name;
    int found = key_length(*path, name);
    if (found < 0 || found < best_length) continue;
    matches = found == best_length ? matches + 1 : 1;
    best = i;
    best_length = found;
  }
  if (best < 0) return no_such(p, arena_strndup(p->memory, *path, length), names, count);
  tree *item = list->items[best];
  if (matches > 1)
    return error_new(ERROR_USAGE, p->at, "\"%s\" is in the list %d times: name it by its index.",
                     item_name(item), matches);
  *path = skip(*path, item_name(item));
  if (item->kind == TREE_SCALAR) { /* `- name` is short for `- name: {}` */
    tree *map = tree_new(p->memory, item->at, TREE_MAP, 1);
    map->keys[0] = item;
    map->items[0] = tree_scalar(p->memory, item->at, "", false);
    map->count = 1;
    list->items[best] = item = map;
  }
  *slot = &item->items[0];
  return OK;
}

static void remove_entry(tree *map, tree *const *slot) {
  int index = (int)(slot - map->items);
  map->count--;
  for (int i = index; i < map->count; i++) {
    map->keys[i] = map->keys[i + 1];
    map->items[i] = map->items[i + 1];
  }
}

/* Setting a key to nothing takes it away. */
static status set_path(const place *p, tree **slot, const char *path, tree *value) {
  tree *map = NULL;
  for (int depth = 0; *path; depth++) {
    tree *t = *slot;
    if (depth == TREE_MAX_DEPTH)
      return error_new(ERROR_USAGE, p->at, "the key is nested more than %d deep.", TREE_MAX_DEPTH);
    if (tree_is_null(t)) *slot = t = tree_new(p->memory, p->at, TREE_MAP, 0);
    map = t->kind == TREE_MAP ? t : NULL;
    if (t->kind == TREE_LIST) {
      TRY(list_item(p, t, &path, &slot));
    } else if (t->kind == TREE_MAP) {
      int i = longest_key(t, path);
      if (i >= 0) {
        slot = &t->items[i];
        path = skip(path, t->keys[i]->text);
      } else { /* a key the file leaves out; whether there is such a key is checked with the file's
                */
        size_t length = strcspn(path, ".");
        slot = add_entry(p, t, path, length);
        path += length + (path[length] == '.');
      }
    } else {
      char shown[96];
      return error_new(ERROR_USAGE, p->at, "\"%s\" is inside of a plain value, %s.", path,
                       tree_describe(t, shown));
    }
  }
  if (map && tree_is_null(value))
    remove_entry(map, slot);
  else
    *slot = value;
  return OK;
}

static void place_all(tree *t, source_pos at) {
  t->at = at;
  for (int i = 0; i < t->count; i++) {
    place_all(t->items[i], at);
    if (t->kind == TREE_MAP) t->keys[i]->at = at;
  }
}

static status parse_value(const place *p, const char *text, tree **out) {
  if (text[strspn(text, " ")] == 0) {
    *out = tree_scalar(p->memory, p->at, "", false);
    return OK;
  }
  status error = tree_parse(p->memory, text, strlen(text), p->at.file, out);
  if (error) {
    status placed = error_new(ERROR_USAGE, p->at, "the value: %s", error_message(error));
    error_free(error);
    return placed;
  }
  char shown[96];
  const tree *value = *out;
  const char *comment = strstr(text, " #");
  if (value->kind == TREE_SCALAR && !value->quoted && comment)
    return error_new(ERROR_USAGE, p->at,
                     "the value: YAML takes \"%s\" for a comment. Put the value in quotes of its "
                     "own: --set \"%s='…'\".",
                     printable(comment + 1, shown), p->whole);
  place_all(*out, p->at);
  return OK;
}

static status read_override(const place *p, const char *text, tree **value) {
  const char *key = p->whole;
  size_t length = strlen(key);
  char shown[96];
  if (length == 0 || length > MAX_KEY_BYTES || key[0] == '.' || key[length - 1] == '.' ||
      strstr(key, ".."))
    return error_new(ERROR_USAGE, p->at, "\"%s\" is not a key such as data.root or seed.",
                     printable(key, shown));
  return parse_value(p, text, value);
}

static int parameter_names(const tree *params, const char **names, int room) {
  int count = 0;
  for (int i = 0; params && params->kind == TREE_MAP && i < params->count && count < room; i++)
    names[count++] = params->keys[i]->text;
  return count;
}

/* The stage that has the key, as in `epochs` for stages.segment.epochs; of several the last. */
static const char *stage_with(const tree *root, const char *key) {
  const tree *stages = tree_get(root, "stages");
  const char *found = NULL;
  for (int i = 0; stages && stages->kind == TREE_LIST && i < stages->count; i++) {
    const tree *item = stages->items[i];
    bool is_named = item->kind == TREE_MAP && item->count == 1;
    if (is_named && item->items[0]->kind == TREE_MAP && tree_get(item->items[0], key))
      found = item->keys[0]->text;
  }
  return found;
}

static status apply(const place *p, tree *root, const char *text) {
  tree *value, *params = tree_get(root, "params");
  const char *key = p->whole;
  TRY(read_override(p, text, &value));
  bool says_params = text_starts_with(key, "params.");
  const char *in_params = says_params ? key + strlen("params.") : key;
  int param = longest_key(params, in_params);
  if (param >= 0)
    return set_path(p, &params->items[param], skip(in_params, params->keys[param]->text), value);

  const char *names[MAX_NAMES];
  int count = parameter_names(params, names, MAX_NAMES - 20);
  char *first = arena_strndup(p->memory, in_params, strcspn(in_params, "."));
  if (says_params) return no_such(p, first, names, count);
  bool known = false;
  for (int i = 0; pipeline_keys[i]; i++) {
    names[count++] = pipeline_keys[i];
    known = known || strcmp(first, pipeline_keys[i]) == 0;
  }
  const char *stage = known ? NULL : stage_with(root, first);
  if (stage)
    return error_new(ERROR_USAGE, p->at,
                     "\"%s\" is a key of stages: did you mean \"stages.%s.%s\"?", first, stage,
                     key);
  if (!known) return no_such(p, first, names, count);
  if (strcmp(first, "use") == 0 || strcmp(first, "strata") == 0)
    return error_new(ERROR_USAGE, p->at, "\"%s\" can only be set in the file.", first);
  return set_path(p, &root, key, value);
}

static status apply_parameter(const place *p, const tree *root, const char *text) {
  tree *value, *params = tree_get(root, "params");
  const char *names[MAX_NAMES];
  TRY(read_override(p, text, &value));
  int param = longest_key(params, p->whole);
  if (param >= 0)
    return set_path(p, &params->items[param], skip(p->whole, params->keys[param]->text), value);
  return no_such(p, p->whole, names, parameter_names(params, names, MAX_NAMES));
}

static place place_of(arena *memory, const override *set) {
  char key[96], value[96];
  char *name =
      arena_printf(memory, "--set %s=%s", printable(set->key, key), printable(set->value, value));
  return (place){.memory = memory, .at = {intern_file(name), 0, 0}, .whole = set->key};
}

void apply_override(arena *memory, tree *root, const override *set, problems *all) {
  place p = place_of(memory, set);
  problems_add(all, apply(&p, root, set->value));
}

void override_parameter(arena *memory, const tree *root, const override *set, problems *all) {
  place p = place_of(memory, set);
  problems_add(all, apply_parameter(&p, root, set->value));
}

/* ---- reading -------------------------------------------------------------------------------- */

static const tree *value_at(const tree *t, const char *path) {
  while (t && *path) {
    const tree *next = NULL;
    if (t->kind == TREE_MAP) {
      int i = longest_key(t, path);
      if (i < 0) return NULL;
      next = t->items[i];
      path = skip(path, t->keys[i]->text);
    } else if (t->kind == TREE_LIST) {
      size_t length = strcspn(path, ".");
      int best_length = -1;
      const char *rest = path;
      for (int i = 0; i < t->count; i++) {
        const char *name = item_name(t->items[i]);
        int found = name ? key_length(path, name) : -1;
        if (found <= best_length) continue;
        best_length = found;
        next = t->items[i]->kind == TREE_MAP ? t->items[i]->items[0] : NULL;
        rest = skip(path, name);
      }
      if (best_length < 0 && length > 0 && length < 6 && strspn(path, "0123456789") == length) {
        int index = atoi(path);
        next = index < t->count ? t->items[index] : NULL;
        rest = path + length + (path[length] == '.');
      }
      path = rest;
    }
    t = next;
  }
  return t;
}

const tree *pipeline_value(pipeline *p, const char *key) {
  const char *in_params = text_starts_with(key, "params.") ? key + strlen("params.") : key;
  const tree *found = value_at(tree_get(p->resolved, "params"), in_params);
  if (!found) found = value_at(p->resolved, key);
  const scope *names = &p->params;
  for (int i = 0; i < p->stage_count; i++) {
    const char *prefix = arena_printf(&p->memory, "stages.%s.", p->stages[i].name);
    if (text_starts_with(key, prefix)) names = &p->stages[i].params;
  }
  if (!found || !key[0]) return NULL;
  tree *value;
  status error = scope_eval(names, &p->memory, found, &value);
  error_free(error);
  return error ? found : value;
}
