#include "run/segmented.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BYTES = 64 << 20 };

static char *line_of(const segmented *s, const char *name, const char *hash) {
  json_t *root = json_pack("{s:s, s:o, s:s}", "by", s->by, "case", json_text(name), "file", hash);
  char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
  json_decref(root);
  return text;
}

/* The lines of others, of other weights and of a program that was killed while it wrote are no more. */
static status read_lines(segmented *s, text_buffer *kept) {
  char *text = NULL;
  size_t length = 0;
  if (!file_exists(s->path)) return OK;
  TRY(file_read(s->path, RECORD_BYTES, &text, &length));
  for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
    json_t *root = json_loadb(line, (size_t)(end - line), 0, NULL);
    const char *by = json_string_value(json_object_get(root, "by"));
    const char *name = json_string_value(json_object_get(root, "case"));
    json_t *file = json_object_get(root, "file");
    if (by && name && json_is_string(file) && strcmp(by, s->by) == 0) {
      json_object_set(s->cases, name, file);
      text_append(kept, line, (size_t)(end - line) + 1);
    }
    json_decref(root);
  }
  free(text);
  return OK;
}

status segmented_open(const char *path, const char *by, bool resume, segmented *out) {
  text_buffer kept = {0};
  *out = (segmented){.path = memory_strdup(path), .cases = json_object()};
  snprintf(out->by, sizeof out->by, "%016" PRIx64, text_hash(by));
  status error = out->cases ? OK : error_out_of_memory(4096);
  if (!error && resume) error = read_lines(out, &kept);
  if (!error) error = file_write_atomic(path, kept.data ? kept.data : "", kept.length);
  if (!error && !(out->out = fopen(path, "ab"))) error = error_from_errno("open", path);
  text_free(&kept);
  return error;
}

static status hash_file(const char *path, char out[40]) {
  uint64_t length, low, high;
  TRY(file_hash(path, &length, &low, &high));
  snprintf(out, 40, "%016" PRIx64 "%016" PRIx64, high, low);
  return OK;
}

bool segmented_has(const segmented *s, const char *name, const char *path) {
  const char *was = json_string_value(json_object_get(s->cases, name));
  char is[40];
  if (!was || !file_exists(path)) return false;
  status error = hash_file(path, is);
  bool has = !error && strcmp(was, is) == 0;
  error_free(error);
  return has;
}

status segmented_add(segmented *s, const char *name, const char *path) {
  char hash[40];
  TRY(hash_file(path, hash));
  char *line = line_of(s, name, hash);
  if (!line) return error_out_of_memory(256);
  bool failed = fprintf(s->out, "%s\n", line) < 0 || fflush(s->out) != 0;
  free(line);
  return failed ? error_from_errno("write", s->path) : OK;
}

void segmented_close(segmented *s, bool forget) {
  if (s->out) fclose(s->out);
  if (forget && s->path) unlink(s->path);
  json_decref(s->cases);
  free(s->path);
  *s = (segmented){0};
}
