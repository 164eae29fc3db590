/* In which keys two resolved pipelines differ, where their identities do. */
#include <string.h>

#include "base/text.h"
#include "language/load.h"

enum { SHOWN_BYTES = 100 };

typedef struct comparison {
  arena *memory;
  key_differences *out;
} comparison;

/* A value on one line, as YAML's flow style writes it; a long one is cut. */
static void write_flow(const tree *t, text_buffer *out) {
  if (t->kind == TREE_SCALAR) {
    if (t->text[0])
      tree_write_key(t->text, out);
    else
      text_add(out, "nothing");
    return;
  }
  text_add(out, t->kind == TREE_LIST ? "[" : "{");
  for (int i = 0; i < t->count && out->length <= SHOWN_BYTES; i++) {
    text_add(out, "%s", i ? ", " : "");
    if (t->kind == TREE_MAP) {
      tree_write_key(t->keys[i]->text, out);
      text_add(out, ": ");
    }
    write_flow(t->items[i], out);
  }
  text_add(out, t->kind == TREE_LIST ? "]" : "}");
}

static const char *shown(const comparison *c, const tree *t) {
  text_buffer flow = {0};
  if (!t) return NULL;
  write_flow(t, &flow);
  size_t length = flow.length;
  if (length > SHOWN_BYTES) {
    length = SHOWN_BYTES;
    while (length > 0 && (flow.data[length] & 0xC0) == 0x80) length--; /* a whole character */
  }
  const char *text = arena_printf(c->memory, "%.*s%s", (int)length, flow.data ? flow.data : "",
                                  length < flow.length ? "…" : "");
  text_free(&flow);
  return text;
}

static void add(const comparison *c, const char *key, const tree *then, const tree *now) {
  key_difference difference = {key, shown(c, then), shown(c, now)};
  ARENA_PUSH(c->memory, c->out->list, c->out->count, c->out->capacity, difference);
}

/* Where files are is no difference: what they say is compared elsewhere. */
static bool are_paths(const tree *a, const tree *b) {
  return a->kind == TREE_SCALAR && b->kind == TREE_SCALAR && a->text[0] == '/' && b->text[0] == '/';
}

static const char *inside(const comparison *c, const char *key, const char *name) {
  return key[0] ? arena_printf(c->memory, "%s.%s", key, name) : name;
}

static bool is_listed(const char *const *names, const char *name) {
  for (int i = 0; names && names[i]; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

static void compare(const comparison *c, const char *key, const tree *then, const tree *now,
                    const char *const *ignored);

static void compare_maps(const comparison *c, const char *key, const tree *then, const tree *now,
                         const char *const *ignored) {
  for (int i = 0; i < now->count; i++) {
    const char *name = now->keys[i]->text;
    const tree *was = tree_get(then, name);
    if (is_listed(ignored, name)) continue;
    if (was)
      compare(c, inside(c, key, name), was, now->items[i], NULL);
    else
      add(c, inside(c, key, name), NULL, now->items[i]);
  }
  for (int i = 0; i < then->count; i++) {
    const char *name = then->keys[i]->text;
    if (!is_listed(ignored, name) && !tree_get(now, name))
      add(c, inside(c, key, name), then->items[i], NULL);
  }
}

/* `- name` and `- name: …`; NULL: something else. */
static const char *item_name(const tree *item) {
  if (item->kind == TREE_SCALAR) return item->text;
  return item->kind == TREE_MAP && item->count == 1 ? item->keys[0]->text : NULL;
}

/* Lists of the same names in the same order are compared item by item, others as a whole. */
static void compare_lists(const comparison *c, const char *key, const tree *then, const tree *now) {
  bool are_alike = then->count == now->count;
  for (int i = 0; are_alike && i < now->count; i++) {
    const char *was = item_name(then->items[i]), *is = item_name(now->items[i]);
    are_alike = was && is && then->items[i]->kind == TREE_MAP && now->items[i]->kind == TREE_MAP &&
                strcmp(was, is) == 0;
  }
  if (!are_alike) {
    add(c, key, then, now);
    return;
  }
  for (int i = 0; i < now->count; i++)
    compare(c, inside(c, key, item_name(now->items[i])), then->items[i]->items[0],
            now->items[i]->items[0], NULL);
}

static void compare(const comparison *c, const char *key, const tree *then, const tree *now,
                    const char *const *ignored) {
  if (tree_hash(then) == tree_hash(now) || are_paths(then, now)) return;
  if (then->kind == TREE_MAP && now->kind == TREE_MAP)
    compare_maps(c, key, then, now, ignored);
  else if (then->kind == TREE_LIST && now->kind == TREE_LIST)
    compare_lists(c, key, then, now);
  else
    add(c, key, then, now);
}

static const tree *part_of(const tree *root, const char *part) {
  if (!root || root->kind != TREE_MAP) return NULL;
  if (strcmp(part, "model.with") == 0) {
    const tree *model = tree_get(root, "model");
    return model && model->kind == TREE_MAP ? tree_get(model, "with") : NULL;
  }
  if (!text_starts_with(part, "stages.")) return tree_get(root, part);
  const tree *stages = tree_get(root, "stages");
  for (int i = 0; stages && stages->kind == TREE_LIST && i < stages->count; i++) {
    const char *name = item_name(stages->items[i]);
    if (name && stages->items[i]->kind == TREE_MAP && strcmp(name, part + strlen("stages.")) == 0)
      return stages->items[i]->items[0];
  }
  return NULL;
}

void pipeline_differences(arena *memory, const char *part, const tree *then, const tree *now,
                          key_differences *out) {
  comparison c = {memory, out};
  if (!then || !now) return;
  const tree *was = part_of(then, part), *is = part_of(now, part);
  if (was && is)
    compare(&c, arena_strdup(memory, part), was, is, identity_ignored(part));
  else if (was || is)
    add(&c, arena_strdup(memory, part), was, is);
}
