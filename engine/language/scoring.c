/* The parts of `evaluate:` that say what is measured; the command line gives them too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "data/label.h"
#include "language/elsewhere.h"
#include "language/load.h"

enum { GROUPS_MAX = 64 };
static const double TOLERANCE_MAX_MM = 1000;

static int metric_named(const char *name) {
  for (int m = 0; m < METRIC_COUNT; m++)
    if (strcmp(metric_table[m].name, name) == 0) return m;
  return -1;
}

static void unknown_metric(const tree *t, problems *all) {
  const char *names[METRIC_COUNT];
  char found[96];
  text_buffer list = {0};
  for (int m = 0; m < METRIC_COUNT; m++) {
    names[m] = metric_table[m].name;
    text_add(&list, "%s%s", m == 0 ? "" : m + 1 < METRIC_COUNT ? ", " : " or ", names[m]);
  }
  const char *near = NULL;
  if (t->kind == TREE_SCALAR) near = elsewhere_metric(t->text);
  if (t->kind == TREE_SCALAR && !near) near = nearest_name(t->text, names, METRIC_COUNT);
  tree_describe(t, found);
  if (near)
    problems_report(all, t->at, "there is no metric %s; did you mean \"%s\"?", found, near);
  else
    problems_report(all, t->at, "a metric must be %s, not %s.", list.data, found);
  text_free(&list);
}

void scoring_metrics(const tree *t, evaluate_spec *e, problems *all) {
  char found[96];
  e->metrics = t ? 0 : METRICS_DEFAULT;
  if (!t || t == &unreadable) return;
  if (t->kind == TREE_SCALAR && strcmp(t->text, "all") == 0) {
    e->metrics = METRIC_BIT(METRIC_COUNT) - 1;
    return;
  }
  if (t->kind != TREE_LIST || t->count == 0) {
    problems_report(all, t->at, "metrics must be a list such as [dice, hd95], or all, not %s.",
                    tree_describe(t, found));
    return;
  }
  for (int i = 0; i < t->count; i++) {
    const tree *item = t->items[i];
    if (item == &unreadable) continue;
    int m = item->kind == TREE_SCALAR ? metric_named(item->text) : -1;
    if (m >= 0)
      e->metrics |= METRIC_BIT(m);
    else
      unknown_metric(item, all);
  }
}

void scoring_tolerance(arena *memory, const tree *t, evaluate_spec *e, problems *all) {
  char found[96];
  if (!t || t == &unreadable) return;
  bool is_list = t->kind == TREE_LIST;
  int count = is_list ? t->count : 1;
  if (t->kind == TREE_MAP || count == 0 || count > LABEL_VALUES) {
    problems_report(
        all, t->at,
        "evaluate: tolerance must be a number of mm, or a list of them by class, not %s.",
        tree_describe(t, found));
    return;
  }
  e->tolerance_mm = arena_alloc(memory, (size_t)count * sizeof *e->tolerance_mm);
  for (int i = 0; i < count; i++) {
    const tree *item = is_list ? t->items[i] : t;
    if (item == &unreadable) continue;
    status error = error_prefix(tree_float(item, &e->tolerance_mm[i]), "evaluate: tolerance");
    if (!error && !(e->tolerance_mm[i] >= 0 && e->tolerance_mm[i] <= TOLERANCE_MAX_MM))
      error = error_new(ERROR_PIPELINE, item->at,
                        "evaluate: tolerance must be from 0 to %g mm, not %.10g.", TOLERANCE_MAX_MM,
                        e->tolerance_mm[i]);
    problems_add(all, error);
  }
  e->tolerance_count = count;
}

/* `key`: of what, "evaluate: groups". Classes are below `limit`. */
static void read_group(arena *memory, const char *key, int limit, const tree *name,
                       const tree *list, class_group *g, problems *all) {
  char found[96];
  *g = (class_group){.name = name->text, .at = list->at};
  if (!name->text[0] || !text_is_printable(name->text))
    problems_report(all, name->at, "%s: a name must be printable text, not \"%s\".", key,
                    printable(name->text, found));
  if (list == &unreadable) return;
  if (list->kind != TREE_LIST || list->count == 0 || list->count > limit) {
    problems_report(all, list->at, "%s: %s must be a list of class numbers, not %s.", key,
                    printable(name->text, (char[96]){0}), tree_describe(list, found));
    return;
  }
  g->classes = arena_alloc(memory, (size_t)list->count * sizeof *g->classes);
  for (int i = 0; i < list->count; i++) {
    int64_t number = 0;
    if (list->items[i] == &unreadable) continue;
    status error = tree_int(list->items[i], &number);
    bool again = false;
    for (int k = 0; k < g->count; k++) again |= g->classes[k] == number;
    if (error)
      problems_add(all, error_prefix(error, "%s: %s", key, name->text));
    else if (number < 1 || number >= limit)
      problems_report(all, list->items[i]->at, "%s: a class is a number from 1 to %d, not %lld.",
                      key, limit - 1, (long long)number);
    else if (again)
      problems_report(all, list->items[i]->at, "%s: class %lld is in %s twice.", key,
                      (long long)number, printable(name->text, found));
    else
      g->classes[g->count++] = (int)number;
  }
}

/* At most `most` names with lists of classes; `example` is one. */
static void read_groups(arena *memory, const tree *t, const char *key, int limit, int most,
                        const char *example, class_group **out, int *count, problems *all) {
  char found[96];
  if (!t || t == &unreadable || tree_is_null(t)) return;
  if (t->kind != TREE_MAP) {
    problems_report(
        all, t->at,
        "%s must be a mapping of at most %d names to lists of classes, such as {%s}, not %s.", key,
        most, example, tree_describe(t, found));
    return;
  }
  if (t->count > most) {
    problems_report(all, t->at, "%s: there are %d, but at most %d are supported.", key, t->count,
                    most);
    return;
  }
  *out = arena_alloc(memory, (size_t)t->count * sizeof **out);
  for (int i = 0; i < t->count; i++)
    read_group(memory, key, limit, t->keys[i], t->items[i], &(*out)[(*count)++], all);
}

static const char region_example[] = "whole tumour: [1, 2, 3], tumour core: [2, 3]";

int classes_in_both(const class_group *a, const class_group *b) {
  int both = 0;
  for (int i = 0; i < a->count; i++)
    for (int k = 0; k < b->count; k++) both += a->classes[i] == b->classes[k];
  return both;
}

/* A label map says of each voxel one class, and thereby in which regions it lies. So the regions of a voxel
 * have to lie one within the other, and each has to have a class of its own: the lowest that no later
 * region has. */
static void check_region(data_spec *d, int at, problems *all) {
  class_group *r = &d->regions[at];
  bool inner[LABEL_CLASSES] = {false};
  for (int i = 0; i < at; i++) {
    const class_group *outer = &d->regions[i];
    int both = classes_in_both(outer, r);
    if (both > 0 && both < r->count)
      problems_report(
          all, r->at,
          "data: regions: %s shares classes with %s, but does not lie within it. List the outer "
          "region first; two that merely overlap do not fit into one label map.",
          r->name, outer->name);
  }
  for (int i = at + 1; i < d->region_count; i++)
    for (int k = 0; k < d->regions[i].count; k++) inner[d->regions[i].classes[k]] = true;
  r->label = LABEL_CLASSES;
  for (int k = 0; k < r->count; k++)
    if (!inner[r->classes[k]] && r->classes[k] < r->label) r->label = r->classes[k];
  if (r->label == LABEL_CLASSES && r->count > 0)
    problems_report(
        all, r->at,
        "data: regions: every class of %s is in a later region too, so that no voxel would be "
        "labelled as %s alone.",
        r->name, r->name);
}

void data_regions(arena *memory, const tree *t, data_spec *d, problems *all) {
  read_groups(memory, t, "data: regions", LABEL_CLASSES, REGIONS_MAX, region_example, &d->regions,
              &d->region_count, all);
  for (int i = 0; i < d->region_count; i++) check_region(d, i, all);
}

/* `strata evaluate` scores every value of a label file, such as the 255 of a mask. */
void scoring_groups(arena *memory, const tree *groups, const tree *regions, evaluate_spec *e,
                    problems *all) {
  read_groups(memory, groups, "evaluate: groups", LABEL_VALUES, GROUPS_MAX,
              "abdomen8: [1, 2, 3, 4, 6, 7, 8, 11]", &e->groups, &e->group_count, all);
  read_groups(memory, regions, "evaluate: regions", LABEL_VALUES, GROUPS_MAX, region_example,
              &e->regions, &e->region_count, all);
  if (e->group_count > 0 && e->region_count > 0)
    problems_report(
        all, groups->at,
        "evaluate: groups are means over classes, and with regions, regions are scored in place "
        "of the classes. Take one of the two keys away.");
}
