#include "base/json.h"

#include "base/files.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void json_use_memory(void) {
  json_set_alloc_funcs(memory_take, free);
}

status json_read(const char *path, size_t limit_bytes, json_t **root) {
  char *text;
  size_t length;
  *root = NULL;
  TRY(file_read(path, limit_bytes, &text, &length));
  json_error_t problem;
  json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);
  free(text);
  if (!value)
    return error_new(ERROR_DATA, NOWHERE, "%s is damaged: it is not JSON (line %d: %s)", path,
                     problem.line, problem.text);
  if (!json_is_object(value)) {
    json_decref(value);
    return error_new(ERROR_DATA, NOWHERE, "%s is damaged: it holds no JSON object", path);
  }
  *root = value;
  return OK;
}

status json_write(const char *path, const json_t *root, size_t flags, const char *end) {
  char *text = root ? json_dumps(root, flags) : NULL;
  if (!text) return error_prefix(error_out_of_memory(1 << 16), "cannot write %s", path);
  atomic_file file;
  status error = atomic_begin(path, &file);
  if (!error) {
    fprintf(file.stream, "%s%s", text, end);
    error = atomic_commit(&file);
  }
  free(text);
  return error;
}

json_t *json_text(const char *text) {
  json_t *exact = json_string(text);
  if (exact) return exact;
  char *plain = memory_strdup(text);
  for (char *p = plain; *p; p++)
    if ((unsigned char)*p >= 0x80) *p = '?';
  json_t *readable = json_string(plain);
  free(plain);
  return readable;
}

json_t *json_number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}
