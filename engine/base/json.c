#include "base/json.h"

#include "base/files.h"

#include <stdlib.h>

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
