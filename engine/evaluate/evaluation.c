/* Summary over cases: evaluation.json, a CSV file and the console table.
 *
 * A mean over a metric is taken in two steps: over the foreground classes of a case whose value
 * counts (is not NaN), then over the cases that have any. Per class it is the mean over the cases
 * in which the class counts. */
#include "base/files.h"
#include "base/json.h"
#include "base/table.h"
#include "evaluate/metrics.h"
#include "language/bind.h"
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is not defined does not count. */
static void add_defined(moments *m, double value) {
  if (!isnan(value)) moments_add(m, value);
}

static moments over_cases(const evaluation *e, int row, int m) {
  moments all = {0};
  for (int i = 0; i < e->case_count; i++) add_defined(&all, e->cases[i].classes[row].value[m]);
  return all;
}

/* Is the class of a row in the group? NULL: of all foreground classes. */
static bool is_in(const evaluation *e, int row, const class_group *g) {
  if (!g) return row > 0;
  int number = e->class_numbers ? e->class_numbers[row] : row;
  for (int i = 0; i < g->count; i++)
    if (g->classes[i] == number) return true;
  return false;
}

static moments over_classes(const evaluation *e, const case_score *s, const class_group *g, int m) {
  moments all = {0};
  for (int c = 1; c < e->class_count; c++)
    if (is_in(e, c, g)) add_defined(&all, s->classes[c].value[m]);
  return all;
}

static moments over_all(const evaluation *e, const class_group *g, int m) {
  moments all = {0};
  for (int i = 0; i < e->case_count; i++) {
    moments of_case = over_classes(e, &e->cases[i], g, m);
    add_defined(&all, moments_mean(&of_case));
  }
  return all;
}

static bool is_wanted(const evaluation *e, int m) {
  return e->spec->metrics & METRIC_BIT(m);
}

static int count_missed(const evaluation *e, int class_number) {
  int count = 0;
  for (int i = 0; i < e->case_count; i++) count += e->cases[i].classes[class_number].missed;
  return count;
}

static int count_hallucinated(const evaluation *e, int class_number) {
  int count = 0;
  for (int i = 0; i < e->case_count; i++) count += e->cases[i].classes[class_number].hallucinated;
  return count;
}

const metric_info *evaluate_metric(const evaluate_spec *spec, int m) {
  return m < METRIC_COUNT ? &metric_table[m] : &spec->custom[m - METRIC_COUNT].info;
}

double evaluation_mean(const evaluation *e, int m) {
  moments all = over_all(e, NULL, m);
  return moments_mean(&all);
}

double evaluation_class_mean(const evaluation *e, int row, int m) {
  moments all = over_cases(e, row, m);
  return moments_mean(&all);
}

static const char *hd95_in_words(const evaluation *e) {
  return e->spec->hd95_pooled
             ? "one 95th percentile over the surface distances of both directions (MedPy)"
             : "the larger of the two directed 95th percentiles (MONAI)";
}

static const char nsd_in_words[] =
    "share of the surface voxels of both masks that are within the tolerance of the other surface "
    "(MONAI, without subvoxels)";

static const char *const policy_names[] = {
    [EMPTY_SKIP] = "skip", [EMPTY_ONE] = "one", [EMPTY_ZERO] = "zero"};
static const char *const policy_words[] = {
    [EMPTY_SKIP] = "is left out of the means",
    [EMPTY_ONE] = "counts as 1 in Dice and its like",
    [EMPTY_ZERO] = "counts as 0 in Dice and its like",
};

/* ---- JSON ---------------------------------------------------------------------------------- */

/* Nine digits: more than any of these values mean, and the same text on every machine. */
enum { JSON_STYLE = JSON_INDENT(2) | JSON_REAL_PRECISION(9) };

/* Names of classes as JSON keys: valid UTF-8, and each used once. */
static json_t *class_keys(const evaluation *e) {
  json_t *keys = json_array(), *used = json_object();
  for (int c = 0; c < e->class_count; c++) {
    json_t *key = json_text(e->class_names[c]);
    if (json_object_get(used, json_string_value(key))) {
      json_t *numbered = json_sprintf("%s (%d)", json_string_value(key), c);
      json_decref(key);
      key = numbered;
    }
    json_object_set_new(used, json_string_value(key), json_true());
    json_array_append_new(keys, key);
  }
  json_decref(used);
  return keys;
}

static const char *key_of(const json_t *keys, int class_number) {
  return json_string_value(json_array_get(keys, (size_t)class_number));
}

static json_t *case_values(const evaluation *e, const json_t *keys, const case_score *s, int m) {
  json_t *values = json_object();
  for (int c = 1; c < e->class_count; c++)
    json_object_set_new(values, key_of(keys, c), json_number(s->classes[c].value[m]));
  return values;
}

static json_t *case_entry(const evaluation *e, const json_t *keys, const case_score *s) {
  json_t *entry = json_object(), *missed = json_array(), *hallucinated = json_array();
  json_object_set_new(entry, "name", json_text(s->name));
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!is_wanted(e, m)) continue;
    char mean_key[64];
    snprintf(mean_key, sizeof mean_key, "%s_mean", evaluate_metric(e->spec, m)->key);
    moments mean = over_classes(e, s, NULL, m);
    json_object_set_new(entry, mean_key, json_number(moments_mean(&mean)));
    json_object_set_new(entry, evaluate_metric(e->spec, m)->key, case_values(e, keys, s, m));
  }
  json_t *voxels = json_object();
  for (int c = 1; c < e->class_count; c++) {
    const class_score *score = &s->classes[c];
    const char *key = key_of(keys, c);
    if (score->missed) json_array_append_new(missed, json_string(key));
    if (score->hallucinated) json_array_append_new(hallucinated, json_string(key));
    json_t *counts = json_object();
    json_object_set_new(counts, "reference", json_integer(score->reference_voxels));
    json_object_set_new(counts, "predicted", json_integer(score->predicted_voxels));
    json_object_set_new(counts, "overlap", json_integer(score->overlap_voxels));
    json_object_set_new(voxels, key, counts);
  }
  json_object_set_new(entry, "missed", missed);
  json_object_set_new(entry, "hallucinated", hallucinated);
  json_object_set_new(entry, "voxels", voxels);
  if (e->spec->ignore_label)
    json_object_set_new(entry, "ignored_voxels", json_integer(s->ignored_voxels));
  return entry;
}

static json_t *summary_entry(const evaluation *e, const json_t *keys, int m) {
  json_t *entry = json_object(), *means = json_object(), *deviations = json_object(),
         *counts = json_object();
  moments all = over_all(e, NULL, m);
  for (int c = 1; c < e->class_count; c++) {
    moments of_class = over_cases(e, c, m);
    json_object_set_new(means, key_of(keys, c), json_number(moments_mean(&of_class)));
    json_object_set_new(deviations, key_of(keys, c), json_number(moments_deviation(&of_class)));
    json_object_set_new(counts, key_of(keys, c), json_integer(of_class.count));
  }
  json_object_set_new(entry, "mean", json_number(moments_mean(&all)));
  json_object_set_new(entry, "standard_deviation", json_number(moments_deviation(&all)));
  json_object_set_new(entry, "per_class", means);
  json_object_set_new(entry, "per_class_standard_deviation", deviations);
  json_object_set_new(entry, "per_class_cases", counts);
  return entry;
}

/* What a metric's numbers mean, beyond its name. */
static void add_definition(const evaluation *e, int m, json_t *entry) {
  if (m == METRIC_HD95) {
    json_object_set_new(entry, "definition", json_string(e->spec->hd95_pooled ? "pooled" : "max"));
    json_object_set_new(entry, "definition_in_words", json_string(hd95_in_words(e)));
  } else if (m == METRIC_NSD) {
    json_t *tolerances = json_array();
    int count = e->spec->tolerance_count;
    for (int c = 1; c <= (count > 0 ? count : 1); c++)
      json_array_append_new(tolerances, json_real(evaluate_tolerance_mm(e->spec, c)));
    json_object_set_new(entry, "tolerance_mm", tolerances);
    json_object_set_new(entry, "definition_in_words", json_string(nsd_in_words));
  }
}

static json_t *groups_entry(const evaluation *e) {
  json_t *groups = json_object();
  for (int i = 0; i < e->spec->group_count; i++) {
    const class_group *g = &e->spec->groups[i];
    json_t *entry = json_object(), *numbers = json_array();
    for (int k = 0; k < g->count; k++) json_array_append_new(numbers, json_integer(g->classes[k]));
    json_object_set_new(entry, "classes", numbers);
    for (int m = 0; m < METRIC_SLOTS; m++) {
      if (!is_wanted(e, m)) continue;
      moments all = over_all(e, g, m);
      json_object_set_new(entry, evaluate_metric(e->spec, m)->key,
                          json_pack("{s:o, s:o}", "mean", json_number(moments_mean(&all)),
                                    "standard_deviation", json_number(moments_deviation(&all))));
    }
    json_object_set_new(groups, g->name, entry);
  }
  return groups;
}

static json_t *regions_entry(const evaluation *e) {
  json_t *regions = json_object();
  for (int i = 0; i < e->spec->region_count; i++) {
    const class_group *g = &e->spec->regions[i];
    json_t *numbers = json_array();
    for (int k = 0; k < g->count; k++) json_array_append_new(numbers, json_integer(g->classes[k]));
    json_object_set_new(regions, g->name, numbers);
  }
  return regions;
}

/* What was done to the segmentations before they were scored. */
static json_t *postprocess_entry(const evaluate_spec *spec) {
  json_t *list = json_array();
  arena memory = {0};
  for (int i = 0; i < spec->postprocess_count; i++) {
    const op_use *use = &spec->postprocess[i];
    json_array_append_new(
        list, json_sprintf("%s: {%s}", use->op->name, attrs_format(use->op, use->attrs, &memory)));
  }
  arena_free(&memory);
  return list;
}

static json_t *to_json(const evaluation *e) {
  json_t *root = json_object(), *keys = class_keys(e);
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!is_wanted(e, m)) continue;
    json_t *entry = summary_entry(e, keys, m);
    add_definition(e, m, entry);
    json_object_set_new(root, evaluate_metric(e->spec, m)->key, entry);
  }
  if (e->spec->group_count > 0) json_object_set_new(root, "groups", groups_entry(e));
  if (e->spec->region_count > 0) json_object_set_new(root, "regions", regions_entry(e));
  json_object_set_new(root, "aggregation",
                      json_sprintf("mean over the %s of a case that count, then over cases; "
                                   "standard deviations over cases",
                                   e->spec->region_count > 0 ? "regions" : "foreground classes"));
  if (e->spec->ignore_label)
    json_object_set_new(root, "ignore_label", json_integer(e->spec->ignore_label));
  if (e->spec->postprocess_count > 0)
    json_object_set_new(root, "postprocess", postprocess_entry(e->spec));
  json_object_set_new(root, "empty_policy", json_string(policy_names[e->spec->empty]));
  json_t *missed = json_object(), *hallucinated = json_object(), *cases = json_array();
  for (int c = 1; c < e->class_count; c++) {
    json_object_set_new(missed, key_of(keys, c), json_integer(count_missed(e, c)));
    json_object_set_new(hallucinated, key_of(keys, c), json_integer(count_hallucinated(e, c)));
  }
  for (int i = 0; i < e->case_count; i++)
    json_array_append_new(cases, case_entry(e, keys, &e->cases[i]));
  json_object_set_new(root, "missed", missed);
  json_object_set_new(root, "hallucinated", hallucinated);
  json_object_set_new(root, "cases", cases);
  json_decref(keys);
  return root;
}

status evaluation_write(const evaluation *e, const char *path) {
  json_t *root = to_json(e);
  status error = json_write(path, root, JSON_STYLE, "\n");
  json_decref(root);
  return error;
}

/* ---- CSV ----------------------------------------------------------------------------------- */

static void csv_row(const evaluation *e, const case_score *s, int row, FILE *out) {
  const class_score *c = &s->classes[row];
  csv_text(out, s->name);
  fputc(',', out);
  csv_text(out, e->class_names[row]);
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!is_wanted(e, m)) continue;
    fputc(',', out);
    if (isfinite(c->value[m])) fprintf(out, "%.9g", c->value[m]);
  }
  fprintf(out, ",%lld,%lld,%lld,%d,%d\n", (long long)c->reference_voxels,
          (long long)c->predicted_voxels, (long long)c->overlap_voxels, c->missed, c->hallucinated);
}

status evaluation_write_csv(const evaluation *e, const char *path) {
  atomic_file file;
  TRY(atomic_begin(path, &file));
  fputs("case,class", file.stream);
  for (int m = 0; m < METRIC_SLOTS; m++)
    if (is_wanted(e, m)) fprintf(file.stream, ",%s", evaluate_metric(e->spec, m)->key);
  fputs(",reference_voxels,predicted_voxels,overlap_voxels,missed,hallucinated\n", file.stream);
  for (int i = 0; i < e->case_count; i++)
    for (int c = 1; c < e->class_count; c++) csv_row(e, &e->cases[i], c, file.stream);
  return atomic_commit(&file);
}

/* ---- table --------------------------------------------------------------------------------- */

static void format_moments(char out[48], const moments *m, int decimals) {
  if (m->count == 0)
    snprintf(out, 48, "–");
  else if (m->count == 1)
    snprintf(out, 48, "%.*f", decimals, m->mean);
  else
    snprintf(out, 48, "%.*f ± %.*f", decimals, m->mean, decimals, moments_deviation(m));
}

enum { COLUMNS = METRIC_SLOTS + 2 }; /* the metrics, then what was missed and hallucinated */

typedef struct table_row {
  const char *name;
  char cell[COLUMNS][48];
} table_row;

static table_row head_row(const evaluation *e) {
  table_row row = {.name = e->spec->region_count > 0 ? "region" : "class"};
  for (int m = 0; m < METRIC_SLOTS; m++)
    if (is_wanted(e, m))
      snprintf(row.cell[m], sizeof row.cell[m], "%s", evaluate_metric(e->spec, m)->heading);
  snprintf(row.cell[METRIC_SLOTS], sizeof *row.cell, "missed");
  snprintf(row.cell[METRIC_SLOTS + 1], sizeof *row.cell, "hallucinated");
  return row;
}

static void set_counts(table_row *row, int missed, int hallucinated) {
  snprintf(row->cell[METRIC_SLOTS], sizeof *row->cell, "%d", missed);
  snprintf(row->cell[METRIC_SLOTS + 1], sizeof *row->cell, "%d", hallucinated);
}

static table_row row_of_class(const evaluation *e, int class_row) {
  table_row row = {.name = e->class_names[class_row]};
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!is_wanted(e, m)) continue;
    moments all = over_cases(e, class_row, m);
    format_moments(row.cell[m], &all, evaluate_metric(e->spec, m)->decimals);
  }
  set_counts(&row, count_missed(e, class_row), count_hallucinated(e, class_row));
  return row;
}

/* Over the classes of a group; NULL: over all. */
static table_row row_of_mean(const evaluation *e, const char *name, const class_group *g) {
  table_row row = {.name = name};
  int missed = 0, hallucinated = 0;
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!is_wanted(e, m)) continue;
    moments all = over_all(e, g, m);
    format_moments(row.cell[m], &all, evaluate_metric(e->spec, m)->decimals);
  }
  for (int c = 1; c < e->class_count; c++) {
    if (!is_in(e, c, g)) continue;
    missed += count_missed(e, c);
    hallucinated += count_hallucinated(e, c);
  }
  set_counts(&row, missed, hallucinated);
  return row;
}

/* Head, classes, groups, mean. */
static table_row table_row_at(const evaluation *e, int i) {
  int classes = e->class_count - 1, groups = e->spec->group_count;
  if (i == 0) return head_row(e);
  if (i <= classes) return row_of_class(e, i);
  if (i > classes + groups) return row_of_mean(e, "mean", NULL);
  const class_group *g = &e->spec->groups[i - classes - 1];
  return row_of_mean(e, g->name, g);
}

static double ignored_share(const evaluation *e) {
  int64_t ignored = 0, voxels = 0;
  for (int i = 0; i < e->case_count; i++) {
    ignored += e->cases[i].ignored_voxels;
    voxels += e->cases[i].voxels;
  }
  return voxels > 0 ? (double)ignored / (double)voxels : 0;
}

void evaluation_print(const evaluation *e, FILE *out) {
  int rows = e->class_count + 1 + e->spec->group_count;
  int name_width = 0, width[COLUMNS] = {0};
  for (int i = 0; i < rows; i++) {
    table_row row = table_row_at(e, i);
    int columns = text_columns(row.name);
    if (columns > name_width) name_width = columns;
    for (int k = 0; k < COLUMNS; k++) {
      columns = text_columns(row.cell[k]);
      if (columns > width[k]) width[k] = columns;
    }
  }
  for (int i = 0; i < rows; i++) {
    table_row row = table_row_at(e, i);
    print_cell(out, row.name, name_width, false);
    for (int k = 0; k < COLUMNS; k++) {
      if (k < METRIC_SLOTS && !is_wanted(e, k)) continue;
      fputs("  ", out);
      print_cell(out, row.cell[k], width[k], true);
    }
    fputc('\n', out);
  }
  fprintf(out, "%d case%s; mean ± standard deviation over cases.\n", e->case_count,
          e->case_count == 1 ? "" : "s");
  const char *what = e->spec->region_count > 0 ? "region" : "class";
  fprintf(out, "A %s in neither the reference nor the prediction %s (empty: %s).\n", what,
          policy_words[e->spec->empty], policy_names[e->spec->empty]);
  if (e->spec->ignore_label)
    fprintf(out, "Voxels with the label %d in the reference are left out, %.3g %% of all.\n",
            e->spec->ignore_label, 100 * ignored_share(e));
  for (int i = 0; i < e->spec->postprocess_count; i++)
    fprintf(out, "%s%s%s", i ? " → " : "Segmentations are scored after ",
            e->spec->postprocess[i].op->name, i + 1 == e->spec->postprocess_count ? ".\n" : "");
  if (is_wanted(e, METRIC_HD95)) fprintf(out, "HD95: %s.\n", hd95_in_words(e));
  if (is_wanted(e, METRIC_NSD)) {
    fputs("NSD: tolerance", out);
    for (int c = 1; c == 1 || c <= e->spec->tolerance_count; c++)
      fprintf(out, "%s %g", c > 1 ? "," : "", evaluate_tolerance_mm(e->spec, c));
    fputs(" mm.\n", out);
  }
  if (e->spec->metrics & METRICS_OF_SURFACES & ~METRIC_BIT(METRIC_NSD))
    fprintf(out, "Distances are not defined where a %s is missed or hallucinated.\n", what);
}
