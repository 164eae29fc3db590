#include "report/record.h"

#include "base/files.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { SERIES_MAX = 512, NOTES_MAX = 40 };

static void add_note(run_record *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_note(run_record *r, const char *format, ...) {
  if (r->note_count == NOTES_MAX) return;
  text_buffer text = {0};
  va_list args;
  va_start(args, format);
  text_addv(&text, format, args);
  va_end(args);
  const char *note = arena_strdup(&r->memory, text.data ? text.data : "");
  ARENA_PUSH(&r->memory, r->notes, r->note_count, r->note_capacity, note);
  text_free(&text);
}

void record_note_error(run_record *r, status error) {
  if (error) add_note(r, "%s", error_message(error));
  error_free(error);
}

const char *json_member(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* ---- metrics.jsonl -------------------------------------------------------------------------- */

static series *series_of(run_record *r, const char *stage, const char *name) {
  for (int i = 0; i < r->series_count; i++)
    if (strcmp(r->series[i].name, name) == 0 && strcmp(r->series[i].stage, stage) == 0)
      return &r->series[i];
  if (r->series_count == SERIES_MAX) return NULL;
  series s = {.stage = arena_strdup(&r->memory, stage), .name = arena_strdup(&r->memory, name)};
  ARENA_PUSH(&r->memory, r->series, r->series_count, r->series_capacity, s);
  return &r->series[r->series_count - 1];
}

const series *record_series(const run_record *r, const char *stage, const char *name) {
  for (int i = 0; i < r->series_count; i++)
    if (strcmp(r->series[i].name, name) == 0 && strcmp(r->series[i].stage, stage) == 0)
      return &r->series[i];
  return NULL;
}

static void add_line(run_record *r, const json_t *line) {
  const char *stage = json_member(line, "stage"), *key;
  double epoch = json_number_value(json_object_get(line, "epoch"));
  json_t *value;
  json_object_foreach((json_t *)line, key, value) {
    if (!json_is_number(value) || strcmp(key, "epoch") == 0) continue;
    series *s = series_of(r, stage, key);
    if (!s) continue;
    int count = s->count;
    ARENA_PUSH(&r->memory, s->epoch, count, s->epoch_capacity, epoch);
    ARENA_PUSH(&r->memory, s->value, s->count, s->value_capacity, json_number_value(value));
  }
}

static void read_metrics(run_record *r, const char *path) {
  char *text = NULL;
  size_t length = 0;
  if (!file_exists(path)) {
    add_note(r, "There is no metrics.jsonl: no epoch has ended yet.");
    return;
  }
  status error = file_read(path, (size_t)1 << 29, &text, &length);
  record_note_error(r, error);
  for (char *line = text, *end; line && *line; line = end + 1) {
    end = strchr(line, '\n');
    if (!end) break; /* a run in progress is writing it */
    json_t *root = json_loadb(line, (size_t)(end - line), 0, NULL);
    if (root) add_line(r, root);
    json_decref(root);
  }
  free(text);
}

/* ---- the folder ----------------------------------------------------------------------------- */

static void read_pipeline(run_record *r, const char *path) {
  size_t length;
  status error = file_read(path, (size_t)4 << 20, &r->resolved, &length);
  if (!error) error = pipeline_load_for_prediction(path, NULL, 0, &r->p);
  record_note_error(r, error);
  if (error) return;
  problems found = {0};
  problems_add(&found, dataset_inspect(&r->p->data, r->p->seed, &found, &r->data));
  if (found.count > 0)
    add_note(r,
             "Some files of the data set are not where they were; pictures of those cases are "
             "missing below. The first: %s",
             error_message(found.list[0]));
  problems_free(&found);
}

static void read_evaluation(run_record *r, const char *path) {
  if (!file_exists(path))
    add_note(r, "There is no evaluation.json: the test cases have not been scored.");
  else
    record_note_error(r, json_read(path, (size_t)256 << 20, &r->evaluation));
}

static void note_progress(run_record *r, const char *state_path) {
  if (!file_exists(state_path) || r->series_count == 0) return;
  const series *last = &r->series[r->series_count - 1];
  add_note(r, "The run is not finished: stage %s, %.0f epochs done.", last->stage,
           last->count ? last->epoch[last->count - 1] : 0.0);
}

status record_open(const char *folder, run_record *out) {
  *out = (run_record){0};
  out->folder = arena_strdup(&out->memory, folder);
  char *path = path_join(folder, "run.json");
  status error =
      error_prefix(json_read(path, 1 << 20, &out->description), "%s is not a run folder", folder);
  free(path);
  if (error) return error;
  out->name = json_member(out->description, "name");
  static const struct {
    const char *file;
    void (*read)(run_record *, const char *);
  } parts[] = {{"pipeline.lock.yaml", read_pipeline},
               {"metrics.jsonl", read_metrics},
               {"evaluation.json", read_evaluation},
               {"state.safetensors", note_progress}};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    path = path_join(folder, parts[i].file);
    if (path) parts[i].read(out, path);
    free(path);
  }
  return OK;
}

void record_close(run_record *r) {
  json_decref(r->description);
  json_decref(r->evaluation);
  free(r->resolved);
  dataset_free(r->data);
  pipeline_free(r->p);
  arena_free(&r->memory);
}

const case_entry *record_case(const run_record *r, const char *name) {
  for (int i = 0; r->data && i < r->data->case_count; i++)
    if (strcmp(r->data->cases[i].name, name) == 0) return &r->data->cases[i];
  return NULL;
}
