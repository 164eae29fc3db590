#include "run/metrics_csv.h"

#include "base/files.h"
#include "base/table.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 4096 };

typedef status (*line_reader)(void *context, const json_t *line);

static status for_each_line(const char *path, const char *text, line_reader read, void *context) {
  int number = 1;
  for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, number++) {
    json_error_t problem;
    json_t *root = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(root)) {
      json_decref(root);
      return error_new(ERROR_DATA, NOWHERE, "%s: line %d is not a JSON object", path, number);
    }
    status error = read(context, root);
    json_decref(root);
    TRY(error_prefix(error, "%s: line %d", path, number));
  }
  return OK;
}

/* The keys of an object, which keeps the order in which they came. */
static status add_columns(void *context, const json_t *line) {
  json_t *columns = context, *value;
  const char *key;
  json_object_foreach((json_t *)line, key, value) {
    if (strcmp(key, "seconds") != 0) json_object_set_new(columns, key, json_true());
  }
  if (json_object_size(columns) > COLUMNS_MAX)
    return error_new(ERROR_DATA, NOWHERE, "there are more than %d keys", COLUMNS_MAX);
  return OK;
}

typedef struct rows {
  json_t *columns;
  FILE *out;
} rows;

static status add_cell(const json_t *value, FILE *out) {
  if (!value || json_is_null(value)) return OK;
  if (json_is_string(value)) {
    csv_text(out, json_string_value(value));
    return OK;
  }
  char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
  if (!text) return error_out_of_memory(64);
  csv_text(out, text);
  free(text);
  return OK;
}

static status add_row(void *context, const json_t *line) {
  const rows *r = context;
  const char *key, *comma = "";
  json_t *value;
  json_object_foreach(r->columns, key, value) {
    fputs(comma, r->out);
    comma = ",";
    TRY(add_cell(json_object_get(line, key), r->out));
  }
  fputc('\n', r->out);
  return OK;
}

static status write_rows(const char *jsonl_path, const char *text, json_t *columns, FILE *out) {
  TRY(for_each_line(jsonl_path, text, add_columns, columns));
  json_object_set_new(columns, "seconds", json_true());
  const char *key, *comma = "";
  json_t *value;
  json_object_foreach(columns, key, value) {
    fputs(comma, out);
    csv_text(out, key);
    comma = ",";
  }
  fputc('\n', out);
  return for_each_line(jsonl_path, text, add_row, &(rows){columns, out});
}

status metrics_csv_write(const char *jsonl_path, const char *csv_path) {
  char *text;
  size_t length;
  TRY(file_read(jsonl_path, (size_t)1 << 30, &text, &length));
  atomic_file file;
  status error = atomic_begin(csv_path, &file);
  if (!error) {
    json_t *columns = json_pack("{s:b, s:b, s:b}", "stage", 1, "epoch", 1, "updates", 1);
    error = columns ? write_rows(jsonl_path, text, columns, file.stream) : error_out_of_memory(256);
    json_decref(columns);
    if (error)
      atomic_abandon(&file);
    else
      error = atomic_commit(&file);
  }
  free(text);
  return error;
}
