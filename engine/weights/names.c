#include "weights/names.h"

#include "base/text.h"
#include "language/tree.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 1000, MAX_STARS = 8 };

typedef struct rule {
  const char *from, *to; /* `to` of rename only */
  source_pos at;
} rule;

typedef struct rule_list {
  rule *rules;
  int count;
} rule_list;

struct name_rules {
  rule_list strip, drop, rename;
};

/* What a star stood for. */
typedef struct piece {
  const char *text;
  size_t length;
} piece;

/* ---- patterns ---------------------------------------------------------------------------------
 */

/* `stars` (may be NULL) receives up to MAX_STARS pieces. Linear: each star takes the least that lets
 * the text after it follow, and the last literal is held against the end. */
static bool matches(const char *pattern, const char *name, piece *stars) {
  const char *star = strchr(pattern, '*');
  if (!star) return strcmp(pattern, name) == 0;
  size_t head = (size_t)(star - pattern);
  if (strncmp(pattern, name, head) != 0) return false;
  const char *at = name + head;
  for (int k = 0;; k++) {
    const char *literal = star + 1;
    star = strchr(literal, '*');
    size_t length = star ? (size_t)(star - literal) : strlen(literal);
    const char *found;
    if (star) {
      found = length ? memmem(at, strlen(at), literal, length) : at;
    } else {
      size_t left = strlen(at);
      found = left >= length ? at + left - length : NULL;
      if (found && memcmp(found, literal, length) != 0) found = NULL;
    }
    if (!found) return false;
    if (stars) stars[k] = (piece){at, (size_t)(found - at)};
    if (!star) return true;
    at = found + length;
  }
}

static int count_stars(const char *pattern) {
  int n = 0;
  for (; *pattern; pattern++) n += *pattern == '*';
  return n;
}

static const char *fill_stars(const char *to, const piece *stars, arena *memory) {
  text_buffer t = {0};
  text_append(&t, "", 0);
  int k = 0;
  for (const char *p = to; *p; p++) {
    if (*p == '*') {
      text_append(&t, stars[k].text, stars[k].length);
      k++;
    } else {
      text_append(&t, p, 1);
    }
  }
  const char *name = arena_strdup(memory, t.data);
  text_free(&t);
  return name;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static void read_pattern(const tree *t, const char *what, const char **out, problems *all) {
  status error = error_prefix(tree_string(t, out), "%s", what);
  if (!error && !**out) problems_report(all, t->at, "%s is empty.", what);
  if (!error && count_stars(*out) > MAX_STARS)
    problems_report(all, t->at, "%s has more than %d stars.", what, MAX_STARS);
  problems_add(all, error);
}

static void read_renaming(const tree *t, rule *out, problems *all) {
  static const char *const keys[] = {"from", "to", NULL};
  const tree *from = tree_get(t, "from"), *to = tree_get(t, "to");
  tree_check_keys(t, "rename", keys, all);
  if (!from || !to) {
    problems_report(all, t->at, "rename: a rule is {from: pattern, to: pattern}.");
    return;
  }
  read_pattern(from, "from", &out->from, all);
  read_pattern(to, "to", &out->to, all);
  if (out->from && out->to && count_stars(out->to) > count_stars(out->from))
    problems_report(all, to->at, "to has more stars than from: each repeats one of from's.");
}

static void read_list(arena *memory, const tree *root, const char *key, rule_list *out,
                      problems *all) {
  const tree *list = tree_get(root, key);
  bool renames = strcmp(key, "rename") == 0;
  if (!list || tree_is_null(list)) return;
  if (list->kind != TREE_LIST || list->count > MAX_RULES) {
    problems_report(all, list->at, "%s is a list of at most %d %s.", key, MAX_RULES,
                    renames ? "rules {from: pattern, to: pattern}" : "texts");
    return;
  }
  out->rules = arena_alloc(memory, ((size_t)list->count + 1) * sizeof *out->rules);
  for (int i = 0; i < list->count; i++) {
    const tree *item = list->items[i];
    rule *r = &out->rules[out->count++];
    r->at = item->at;
    if (!renames)
      read_pattern(item, key, &r->from, all);
    else if (item->kind == TREE_MAP)
      read_renaming(item, r, all);
    else
      problems_report(all, item->at, "rename: a rule is {from: pattern, to: pattern}.");
  }
}

status name_rules_load(arena *memory, const char *path, const name_rules **out) {
  static const char *const keys[] = {"strata", "doc", "strip", "drop", "rename", NULL};
  tree *root;
  int64_t version = 0;
  problems all = {0};
  TRY(tree_load(memory, path, &root));
  if (root->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, root->at,
                     "name rules are a mapping with strip, drop, rename.");
  tree_check_keys(root, "name rules", keys, &all);
  const tree *strata = tree_get(root, "strata");
  status error = strata ? tree_int(strata, &version) : OK;
  if (error || version != 1)
    problems_report(&all, strata ? strata->at : root->at, "name rules begin with strata: 1.");
  error_free(error);
  name_rules *rules = arena_alloc(memory, sizeof *rules);
  read_list(memory, root, "strip", &rules->strip, &all);
  read_list(memory, root, "drop", &rules->drop, &all);
  read_list(memory, root, "rename", &rules->rename, &all);
  *out = rules;
  return problems_take(&all);
}

/* ---- applying ---------------------------------------------------------------------------------
 */

/* The part of `name` with as many dots as `part`, from its front or its end. */
static const char *like_part(const char *name, const char *part, bool at_end, arena *memory) {
  int dots = 0;
  for (const char *p = part; *p; p++) dots += *p == '.';
  bool closes = !at_end && *part && part[strlen(part) - 1] == '.';
  size_t length = strlen(name);
  if (at_end) {
    bool opens = part[0] == '.';
    for (size_t i = length; i-- > 0;)
      if (name[i] == '.' && dots-- == opens) return opens ? name + i : name + i + 1;
    return name;
  }
  for (size_t i = 0; i < length; i++)
    if (name[i] == '.' && dots-- == closes) return arena_strndup(memory, name, i + closes);
  return name;
}

/* The nearest to what a pattern asks for before its first star, or else after its last. */
static const char *suggest(const char *pattern, bool is_prefix, const char *const *names, int count,
                           arena *memory) {
  const char *first = strchr(pattern, '*'), *last = strrchr(pattern, '*');
  const char *head = first ? arena_strndup(memory, pattern, (size_t)(first - pattern)) : pattern;
  const char **parts = arena_alloc(memory, ((size_t)count + 1) * sizeof *parts);
  bool head_fits = false;
  for (int i = 0; i < count; i++) head_fits |= first && text_starts_with(names[i], head);
  const char *part = head_fits ? last + 1 : head;
  for (int i = 0; i < count; i++)
    parts[i] = first || is_prefix ? like_part(names[i], part, head_fits, memory) : names[i];
  return nearest_name(part, parts, count);
}

static void report_idle(const rule *r, const char *what, const char *const *names, int count,
                        arena *memory, problems *all) {
  char shown[96], near_shown[96];
  const char *near = suggest(r->from, strcmp(what, "strip") == 0, names, count, memory);
  problems_report(all, r->at, "%s: \"%s\" fits none of the %d names%s%s%s", what,
                  printable(r->from, shown), count, near ? "; did you mean \"" : ".",
                  near ? printable(near, near_shown) : "", near ? "\"?" : "");
}

typedef struct outcome {
  const char *becomes, *name;
} outcome;

static int compare_outcomes(const void *a, const void *b) {
  const outcome *x = a, *y = b;
  int order = strcmp(x->becomes, y->becomes);
  return order ? order : strcmp(x->name, y->name);
}

static void check_unique(const char *const *names, const char *const *become, int count,
                         arena *memory, problems *all) {
  outcome *list = arena_alloc(memory, ((size_t)count + 1) * sizeof *list);
  size_t n = 0;
  for (int i = 0; i < count; i++)
    if (become[i]) list[n++] = (outcome){become[i], names[i]};
  qsort(list, n, sizeof *list, compare_outcomes);
  for (size_t i = 1; i < n; i++)
    if (strcmp(list[i - 1].becomes, list[i].becomes) == 0)
      problems_report(all, NOWHERE, "%s and %s would both be called %s.", list[i - 1].name,
                      list[i].name, list[i].becomes);
}

static int first_match(const rule_list *list, const char *name, piece *stars) {
  for (int i = 0; i < list->count; i++)
    if (matches(list->rules[i].from, name, stars)) return i;
  return -1;
}

status name_rules_apply(const name_rules *rules, const char *const *names, int count, arena *memory,
                        const char **out) {
  const rule_list *strip = &rules->strip, *drop = &rules->drop, *rename = &rules->rename;
  const char **bare = arena_alloc(memory, ((size_t)count + 1) * sizeof *bare);
  bool *dropped = arena_alloc(memory, (size_t)drop->count + 1);
  bool *renamed = arena_alloc(memory, (size_t)rename->count + 1), stripped = false;
  problems all = {0};
  for (int i = 0; i < count; i++) {
    bare[i] = names[i];
    for (int k = 0; k < strip->count; k++)
      if (text_starts_with(names[i], strip->rules[k].from)) {
        bare[i] = names[i] + strlen(strip->rules[k].from);
        stripped = true;
        break;
      }
    out[i] = bare[i];
    bool is_dropped = false;
    for (int k = 0; k < drop->count; k++)
      if (matches(drop->rules[k].from, bare[i], NULL)) dropped[k] = is_dropped = true;
    if (is_dropped) out[i] = NULL;
    piece stars[MAX_STARS];
    int k = is_dropped ? -1 : first_match(rename, bare[i], stars);
    if (k < 0) continue;
    renamed[k] = true;
    out[i] = fill_stars(rename->rules[k].to, stars, memory);
  }
  if (strip->count && !stripped) report_idle(strip->rules, "strip", names, count, memory, &all);
  for (int k = 0; k < drop->count; k++)
    if (!dropped[k]) report_idle(&drop->rules[k], "drop", bare, count, memory, &all);
  for (int k = 0; k < rename->count; k++)
    if (!renamed[k]) report_idle(&rename->rules[k], "rename", bare, count, memory, &all);
  check_unique(names, out, count, memory, &all);
  return problems_take(&all);
}

/* MONAI's UNet has its layers, which have numbers, in a part of its own called model. */
static bool is_wrapped(const char *name, const char *wrapper) {
  size_t length = strlen(wrapper);
  bool is_part = strcmp(wrapper, "model.") == 0 && text_starts_with(name, wrapper) &&
                 isdigit((unsigned char)name[length]);
  return text_starts_with(name, wrapper) && !is_part;
}

size_t names_common_wrapper(const char *const *names, int count) {
  static const char *const wrappers[] = {"module.", "_orig_mod.", "model.",   "_model.",
                                         "net.",    "network.",   "backbone."};
  size_t length = 0;
  for (size_t k = 0; count > 0 && k < sizeof wrappers / sizeof *wrappers;) {
    bool all = true;
    for (int i = 0; i < count && all; i++) all = is_wrapped(names[i] + length, wrappers[k]);
    if (all) length += strlen(wrappers[k]);
    k = all ? 0 : k + 1; /* wrappers are wrapped */
  }
  return length;
}
