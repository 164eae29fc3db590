/* Summary over cases: evaluation.json and the console table.
 *
 * A mean over a metric is taken in two steps: over the foreground classes of a case whose value
 * counts (is not NaN), then over the cases that have any. Per class it is the mean over the cases
 * in which the class counts. */
#include "base/files.h"
#include "evaluate/metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef double (*metric_fn)(const class_score *);

static double dice_value(const class_score *c) {
  return c->dice;
}

static double hd95_value(const class_score *c) {
  return c->hd95_mm;
}

/* Mean and sample standard deviation of the values that are not NaN (Welford). */
typedef struct moments {
  int64_t count;
  double mean, squares;
} moments;

static void moments_add(moments *m, double value) {
  if (isnan(value)) return;
  double from_mean = value - m->mean;
  m->count++;
  m->mean += from_mean / (double)m->count;
  m->squares += from_mean * (value - m->mean);
}

static double mean_of(const moments *m) {
  return m->count > 0 ? m->mean : (double)NAN;
}

static double deviation_of(const moments *m) {
  return m->count > 1 ? sqrt(m->squares / (double)(m->count - 1)) : (double)NAN;
}

static moments over_cases(const evaluation *e, int class_number, metric_fn metric) {
  moments m = {0};
  for (int i = 0; i < e->case_count; i++)
    moments_add(&m, metric(&e->cases[i].classes[class_number]));
  return m;
}

static moments over_classes(const evaluation *e, const case_score *s, metric_fn metric) {
  moments m = {0};
  for (int c = 1; c < e->class_count; c++) moments_add(&m, metric(&s->classes[c]));
  return m;
}

static moments over_all(const evaluation *e, metric_fn metric) {
  moments m = {0};
  for (int i = 0; i < e->case_count; i++) {
    moments of_case = over_classes(e, &e->cases[i], metric);
    moments_add(&m, mean_of(&of_case));
  }
  return m;
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

double evaluation_mean_dice(const evaluation *e) {
  moments m = over_all(e, dice_value);
  return mean_of(&m);
}

static bool is_pooled(const evaluation *e) {
  return e->spec->hd95 && strcmp(e->spec->hd95, "pooled") == 0;
}

static const char *hd95_in_words(const evaluation *e) {
  return is_pooled(e) ? "one 95th percentile over the surface distances of both directions (MedPy)"
                      : "the larger of the two directed 95th percentiles (MONAI)";
}

static const char *const policy_names[] = {
    [EMPTY_SKIP] = "skip", [EMPTY_ONE] = "one", [EMPTY_ZERO] = "zero"};
static const char *const policy_words[] = {
    [EMPTY_SKIP] = "is left out of the mean",
    [EMPTY_ONE] = "counts as a Dice of 1",
    [EMPTY_ZERO] = "counts as a Dice of 0",
};

/* ---- JSON ---------------------------------------------------------------------------------- */

/* Nine digits: more than any of these values mean, and the same text on every machine. */
enum { JSON_STYLE = JSON_INDENT(2) | JSON_REAL_PRECISION(9) };

static json_t *number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

/* File names can hold any bytes; JSON holds UTF-8. */
static json_t *string(const char *text) {
  json_t *exact = json_string(text);
  char *plain = exact ? NULL : strdup(text);
  if (!plain) return exact;
  for (char *p = plain; *p; p++)
    if ((unsigned char)*p >= 0x80) *p = '?';
  json_t *readable = json_string(plain);
  free(plain);
  return readable;
}

/* Names of classes as JSON keys: valid UTF-8, and each used once. */
static json_t *class_keys(const evaluation *e) {
  json_t *keys = json_array(), *used = json_object();
  for (int c = 0; c < e->class_count; c++) {
    json_t *key = string(e->class_names[c]);
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

static json_t *case_values(const evaluation *e, const json_t *keys, const case_score *s,
                           metric_fn metric) {
  json_t *values = json_object();
  for (int c = 1; c < e->class_count; c++)
    json_object_set_new(values, key_of(keys, c), number(metric(&s->classes[c])));
  return values;
}

static json_t *case_entry(const evaluation *e, const json_t *keys, const case_score *s) {
  json_t *entry = json_object(), *missed = json_array(), *hallucinated = json_array();
  json_object_set_new(entry, "name", string(s->name));
  if (e->spec->want_dice) {
    moments m = over_classes(e, s, dice_value);
    json_object_set_new(entry, "dice_mean", number(mean_of(&m)));
    json_object_set_new(entry, "dice", case_values(e, keys, s, dice_value));
  }
  if (e->spec->want_hd95) {
    moments m = over_classes(e, s, hd95_value);
    json_object_set_new(entry, "hd95_mm_mean", number(mean_of(&m)));
    json_object_set_new(entry, "hd95_mm", case_values(e, keys, s, hd95_value));
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
  return entry;
}

static json_t *summary_entry(const evaluation *e, const json_t *keys, metric_fn metric) {
  json_t *entry = json_object(), *means = json_object(), *deviations = json_object(),
         *counts = json_object();
  moments all = over_all(e, metric);
  for (int c = 1; c < e->class_count; c++) {
    moments m = over_cases(e, c, metric);
    json_object_set_new(means, key_of(keys, c), number(mean_of(&m)));
    json_object_set_new(deviations, key_of(keys, c), number(deviation_of(&m)));
    json_object_set_new(counts, key_of(keys, c), json_integer(m.count));
  }
  json_object_set_new(entry, "mean", number(mean_of(&all)));
  json_object_set_new(entry, "standard_deviation", number(deviation_of(&all)));
  json_object_set_new(entry, "per_class", means);
  json_object_set_new(entry, "per_class_standard_deviation", deviations);
  json_object_set_new(entry, "per_class_cases", counts);
  return entry;
}

static json_t *to_json(const evaluation *e) {
  json_t *root = json_object(), *keys = class_keys(e);
  if (e->spec->want_dice) json_object_set_new(root, "dice", summary_entry(e, keys, dice_value));
  if (e->spec->want_hd95) {
    json_t *entry = summary_entry(e, keys, hd95_value);
    json_object_set_new(entry, "definition", json_string(is_pooled(e) ? "pooled" : "max"));
    json_object_set_new(entry, "definition_in_words", json_string(hd95_in_words(e)));
    json_object_set_new(root, "hd95_mm", entry);
  }
  json_object_set_new(root, "aggregation",
                      json_string("mean over the foreground classes of a case that count, then "
                                  "over cases; standard deviations over cases"));
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
  char *text = root ? json_dumps(root, JSON_STYLE) : NULL;
  json_decref(root);
  if (!text) return error_prefix(error_out_of_memory(1 << 20), "cannot write %s", path);
  size_t length = strlen(text);
  text[length] = '\n'; /* in place of the terminator */
  status error = file_write_atomic(path, text, length + 1);
  free(text);
  return error;
}

/* ---- table --------------------------------------------------------------------------------- */

/* Next code point of UTF-8 text, at least one byte on; U+FFFD for what is not UTF-8. */
static uint32_t next_code_point(const char **text) {
  const unsigned char *p = (const unsigned char *)*text;
  int length = p[0] < 0x80 ? 1 : p[0] >= 0xF0 && p[0] < 0xF8 ? 4 : p[0] >= 0xE0 ? 3 : 2;
  uint32_t point = length == 1 ? p[0] : p[0] & (0xFFu >> (length + 1));
  bool valid = p[0] < 0x80 || (p[0] >= 0xC2 && p[0] < 0xF8);
  int used = 1;
  for (; valid && used < length && (p[used] & 0xC0) == 0x80; used++)
    point = point << 6 | (p[used] & 0x3F);
  *text += used;
  return valid && used == length ? point : 0xFFFD;
}

/* Columns a terminal gives a character: none to combining marks, two to East Asian wide ones. */
static int columns_of(uint32_t c) {
  if ((c >= 0x300 && c <= 0x36F) || c == 0x200B || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F))
    return 0;
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) ||
      (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
      (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
      (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1FAFF) ||
      (c >= 0x20000 && c <= 0x3FFFD))
    return 2;
  return 1;
}

static int text_columns(const char *text) {
  int columns = 0;
  while (*text) columns += columns_of(next_code_point(&text));
  return columns;
}

static bool is_control(uint32_t c) {
  return c < 32 || (c >= 0x7F && c < 0xA0);
}

/* Text padded to `width` columns. Bytes that would move the cursor are shown as '?'. */
static void print_cell(FILE *out, const char *text, int width, bool right) {
  int padding = width - text_columns(text);
  if (right && padding > 0) fprintf(out, "%*s", padding, "");
  while (*text) {
    const char *start = text;
    uint32_t c = next_code_point(&text);
    if (is_control(c))
      fputc('?', out);
    else if (c == 0xFFFD)
      fputs("\xEF\xBF\xBD", out);
    else
      fwrite(start, 1, (size_t)(text - start), out);
  }
  if (!right && padding > 0) fprintf(out, "%*s", padding, "");
}

static void format_moments(char out[48], const moments *m, int decimals) {
  if (m->count == 0)
    snprintf(out, 48, "–");
  else if (m->count == 1)
    snprintf(out, 48, "%.*f", decimals, m->mean);
  else
    snprintf(out, 48, "%.*f ± %.*f", decimals, m->mean, decimals, deviation_of(m));
}

typedef struct table_row {
  const char *name;
  char dice[48], hd95[48], missed[16], hallucinated[16];
} table_row;

static table_row row_of(const char *name, const moments *dice, const moments *hd95, int missed,
                        int hallucinated) {
  table_row row = {.name = name};
  format_moments(row.dice, dice, 4);
  format_moments(row.hd95, hd95, 2);
  snprintf(row.missed, sizeof row.missed, "%d", missed);
  snprintf(row.hallucinated, sizeof row.hallucinated, "%d", hallucinated);
  return row;
}

static table_row row_of_class(const evaluation *e, int class_number) {
  moments dice = over_cases(e, class_number, dice_value),
          hd95 = over_cases(e, class_number, hd95_value);
  return row_of(e->class_names[class_number], &dice, &hd95, count_missed(e, class_number),
                count_hallucinated(e, class_number));
}

static table_row row_of_mean(const evaluation *e) {
  moments dice = over_all(e, dice_value), hd95 = over_all(e, hd95_value);
  int missed = 0, hallucinated = 0;
  for (int c = 1; c < e->class_count; c++) {
    missed += count_missed(e, c);
    hallucinated += count_hallucinated(e, c);
  }
  return row_of("mean", &dice, &hd95, missed, hallucinated);
}

typedef struct table_widths {
  int name, dice, hd95;
} table_widths;

static void widen(table_widths *w, const table_row *row) {
  int name = text_columns(row->name), dice = text_columns(row->dice),
      hd95 = text_columns(row->hd95);
  if (name > w->name) w->name = name;
  if (dice > w->dice) w->dice = dice;
  if (hd95 > w->hd95) w->hd95 = hd95;
}

static void print_row(const evaluation *e, FILE *out, const table_widths *w, const table_row *row) {
  print_cell(out, row->name, w->name, false);
  if (e->spec->want_dice) {
    fputs("  ", out);
    print_cell(out, row->dice, w->dice, true);
  }
  if (e->spec->want_hd95) {
    fputs("  ", out);
    print_cell(out, row->hd95, w->hd95, true);
  }
  fprintf(out, "  %6s  %12s\n", row->missed, row->hallucinated);
}

void evaluation_print(const evaluation *e, FILE *out) {
  table_row head = {"class", "Dice", "HD95 mm", "missed", "hallucinated"}, mean = row_of_mean(e);
  table_widths widths = {0};
  widen(&widths, &head);
  widen(&widths, &mean);
  for (int c = 1; c < e->class_count; c++) {
    table_row row = row_of_class(e, c);
    widen(&widths, &row);
  }
  print_row(e, out, &widths, &head);
  for (int c = 1; c < e->class_count; c++) {
    table_row row = row_of_class(e, c);
    print_row(e, out, &widths, &row);
  }
  print_row(e, out, &widths, &mean);
  fprintf(out, "%d case%s; mean ± standard deviation over cases.\n", e->case_count,
          e->case_count == 1 ? "" : "s");
  fprintf(out, "Dice: a class in neither the reference nor the prediction %s (empty: %s).\n",
          policy_words[e->spec->empty], policy_names[e->spec->empty]);
  if (e->spec->want_hd95)
    fprintf(out, "HD95: %s; not defined where a class is missed or hallucinated.\n",
            hd95_in_words(e));
}
