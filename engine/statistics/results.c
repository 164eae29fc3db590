#include "statistics/results.h"

#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "evaluate/metric.h"
#include "statistics/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LIMIT_BYTES = 256 << 20, METRICS_MAX = 256, NAME_BYTES_MAX = 1024 };

static status bad(const results *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static status bad(const results *r, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_DATA, NOWHERE, format, args);
  va_end(args);
  return error_prefix(error, "%s is not an evaluation of Strata", r->file);
}

/* A name ends up in tables, so it is short and has no control characters. */
static bool is_name(const char *text) {
  size_t length = text ? strlen(text) : 0;
  return length > 0 && length <= NAME_BYTES_MAX && text_is_printable(text);
}

/* ---- metrics and classes ------------------------------------------------------------------- */

static const char *definition_of(results *r, const json_t *root, const json_t *metric) {
  text_buffer text = {0};
  const char *policy = json_string_value(json_object_get(root, "empty_policy"));
  const char *definition = json_string_value(json_object_get(metric, "definition"));
  text_add(&text, "empty: %.40s", policy ? policy : "?");
  if (definition) text_add(&text, ", definition: %.80s", definition);
  size_t i;
  const json_t *tolerance, *tolerances = json_object_get(metric, "tolerance_mm");
  json_array_foreach(tolerances, i, tolerance)
      text_add(&text, "%s%g", i ? " " : ", tolerance in mm: ", json_number_value(tolerance));
  const char *kept = arena_strdup(&r->memory, text.data);
  text_free(&text);
  return kept;
}

static bool has_keys_of(const json_t *object, const json_t *keys) {
  if (!json_is_object(object) || json_object_size(object) != json_object_size(keys)) return false;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)keys, key, value) if (!json_object_get(object, key)) return false;
  return true;
}

/* The metrics are the keys whose value is a summary over cases; the classes are those of the first,
 * and every metric has the same. */
static status read_head(results *r, const json_t *root, const json_t **classes) {
  const char *key;
  json_t *entry;
  int capacity = 0;
  *classes = NULL;
  json_object_foreach((json_t *)root, key, entry) {
    const json_t *per_class = json_object_get(entry, "per_class");
    if (!per_class) continue;
    if (!is_name(key) || r->metric_count == METRICS_MAX)
      return bad(r, "its metrics have no usable names, or are more than %d", METRICS_MAX);
    if (!*classes) *classes = per_class;
    if (!has_keys_of(per_class, *classes))
      return bad(r, "\"%s\" has no values per class, or other classes than the metric before it",
                 key);
    results_metric metric = {arena_strdup(&r->memory, key), definition_of(r, root, entry)};
    ARENA_PUSH(&r->memory, r->metrics, r->metric_count, capacity, metric);
  }
  if (!*classes || json_object_size(*classes) == 0)
    return bad(r, "it has no metric with values per class");
  capacity = 0;
  json_object_foreach((json_t *)*classes, key, entry) {
    if (!is_name(key)) return bad(r, "a class has no usable name");
    const char *name = arena_strdup(&r->memory, key);
    ARENA_PUSH(&r->memory, r->classes, r->class_count, capacity, name);
  }
  return OK;
}

/* ---- cases --------------------------------------------------------------------------------- */

static int by_case_name(const void *a, const void *b) {
  const char *x = json_string_value(json_object_get(*(json_t *const *)a, "name"));
  const char *y = json_string_value(json_object_get(*(json_t *const *)b, "name"));
  return strcmp(x, y);
}

/* Every value stands in the file, so the file's size bounds the table's. */
static status check_case(const results *r, size_t number, const json_t *entry,
                         const json_t *classes) {
  const char *name = json_string_value(json_object_get(entry, "name"));
  if (!is_name(name)) return bad(r, "case %zu has no usable name", number);
  for (int m = 0; m < r->metric_count; m++) {
    const json_t *of_metric = json_object_get(entry, r->metrics[m].key);
    if (!has_keys_of(of_metric, classes))
      return bad(r, "case %s does not have \"%s\" of every class", name, r->metrics[m].key);
    const char *class_name;
    json_t *value;
    json_object_foreach((json_t *)of_metric, class_name, value) {
      if (!json_is_number(value) && !json_is_null(value))
        return bad(r, "case %s: \"%s\" of %s is neither a number nor null", name, r->metrics[m].key,
                   class_name);
    }
  }
  return OK;
}

static void read_case(const results *r, const json_t *entry, double *values) {
  for (int m = 0; m < r->metric_count; m++) {
    const json_t *of_metric = json_object_get(entry, r->metrics[m].key);
    for (int c = 0; c < r->class_count; c++) {
      const json_t *value = json_object_get(of_metric, r->classes[c]);
      *values++ = json_is_number(value) ? json_number_value(value) : (double)NAN;
    }
  }
}

static status read_cases(results *r, const json_t *root, const json_t *classes) {
  const json_t *list = json_object_get(root, "cases");
  size_t count = json_array_size(list);
  if (!json_is_array(list) || count > INT32_MAX) return bad(r, "it has no list of cases");
  for (size_t i = 0; i < count; i++) TRY(check_case(r, i + 1, json_array_get(list, i), classes));
  size_t row = (size_t)r->metric_count * (size_t)r->class_count;
  json_t **sorted = arena_alloc(&r->memory, (count + 1) * sizeof *sorted);
  r->cases = arena_alloc(&r->memory, (count + 1) * sizeof *r->cases);
  r->values = arena_alloc(&r->memory, (count * row + 1) * sizeof *r->values);
  for (size_t i = 0; i < count; i++) sorted[i] = json_array_get(list, i);
  if (count > 1) qsort(sorted, count, sizeof *sorted, by_case_name);
  for (size_t i = 0; i < count; i++) {
    r->cases[i] = arena_strdup(&r->memory, json_string_value(json_object_get(sorted[i], "name")));
    r->case_count++;
    if (i > 0 && strcmp(r->cases[i - 1], r->cases[i]) == 0)
      return bad(r, "case %s stands in it twice", r->cases[i]);
    read_case(r, sorted[i], r->values + i * row);
  }
  return OK;
}

/* ---- the run ------------------------------------------------------------------------------- */

static const char *text_in(results *r, const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return is_name(text) ? arena_strdup(&r->memory, text) : NULL;
}

static status read_description(results *r) {
  char *path = path_join(r->path, "run.json");
  json_t *root = NULL;
  status error = file_exists(path) ? json_read(path, 1 << 20, &root) : OK;
  free(path);
  r->name = text_in(r, root, "name");
  r->data_identity = text_in(r, root, "data_identity");
  r->pipeline_identity = text_in(r, root, "pipeline_identity");
  const json_t *seed = json_object_get(root, "seed");
  r->seed = json_is_integer(seed) ? (int64_t)json_integer_value(seed) : -1;
  json_decref(root);
  return error;
}

static status find_file(results *r) {
  struct stat info;
  if (stat(r->path, &info) != 0) return error_from_errno("open", r->path);
  r->file = r->path;
  if (!S_ISDIR(info.st_mode)) return OK;
  char *joined = path_join(r->path, "evaluation.json");
  r->file = arena_strdup(&r->memory, joined);
  free(joined);
  if (!file_exists(r->file))
    return error_new(ERROR_DATA, NOWHERE,
                     "%s holds no evaluation.json: the run is not finished, its evaluation is "
                     "switched off, or this is no run's folder",
                     r->path);
  return read_description(r);
}

static status read_all(results *r) {
  TRY(find_file(r));
  json_t *root;
  TRY(json_read(r->file, LIMIT_BYTES, &root));
  const json_t *classes;
  status error = read_head(r, root, &classes);
  if (!error) error = read_cases(r, root, classes);
  json_decref(root);
  return error;
}

status results_read(const char *path, results *out) {
  *out = (results){.seed = -1};
  out->path = arena_strdup(&out->memory, path);
  status error = read_all(out);
  if (error) results_free(out);
  return error;
}

void results_free(results *r) {
  arena_free(&r->memory);
  *r = (results){.seed = -1};
}

/* ---- access -------------------------------------------------------------------------------- */

const char *results_metric_key(const char *name) {
  for (int i = 0; i < METRIC_COUNT; i++)
    if (strcmp(metric_table[i].name, name) == 0) return metric_table[i].key;
  return name;
}

int results_metric_index(const results *r, const char *name) {
  name = results_metric_key(name);
  for (int i = 0; i < r->metric_count; i++)
    if (strcmp(r->metrics[i].key, name) == 0) return i;
  return -1;
}

int results_class_index(const results *r, const char *name) {
  for (int i = 0; i < r->class_count; i++)
    if (strcmp(r->classes[i], name) == 0) return i;
  return -1;
}

int results_case_index(const results *r, const char *name) {
  for (int low = 0, high = r->case_count; low < high;) {
    int middle = low + (high - low) / 2, order = strcmp(r->cases[middle], name);
    if (order == 0) return middle;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return -1;
}

double results_value(const results *r, int case_index, int metric, int class_index) {
  return r->values[((int64_t)case_index * r->metric_count + metric) * r->class_count + class_index];
}

double results_case_mean(const results *r, int case_index, int metric) {
  moments all = {0};
  for (int c = 0; c < r->class_count; c++) {
    double value = results_value(r, case_index, metric, c);
    if (!isnan(value)) moments_add(&all, value);
  }
  return moments_mean(&all);
}
