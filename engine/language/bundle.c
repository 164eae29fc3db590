#include "language/bundle.h"

#include "base/files.h"
#include "base/text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *bundle_name(const bundle *b, const char *path) {
  if (!b || !path || !text_starts_with(path, b->owner)) return NULL;
  const char *rest = path + strlen(b->owner);
  if (!rest[0]) return rest;
  return text_starts_with(rest, ": ") ? rest + 2 : NULL;
}

const bundle_file *bundle_find(const bundle *b, const char *name) {
  for (int i = 0; b && i < b->count; i++)
    if (strcmp(b->files[i].name, name) == 0) return &b->files[i];
  return NULL;
}

void bundle_add(bundle *b, arena *memory, bundle_file file) {
  if (!bundle_find(b, file.name)) ARENA_PUSH(memory, b->files, b->count, b->capacity, file);
}

const char *bundle_path(const bundle *b, arena *memory, const char *name) {
  return arena_printf(memory, "%s: %s", b->owner, name);
}

/* Appends the parts of `path` to `out`, which is normal and stays it. */
static void append_parts(char *out, const char *path) {
  for (const char *part = path; *part;) {
    size_t length = strcspn(part, "/"), used = strlen(out);
    const char *next = part + length + (part[length] == '/');
    char *last = strrchr(out, '/');
    const char *last_part = last ? last + 1 : out;
    bool is_up = length == 2 && part[0] == '.' && part[1] == '.';
    bool can_go_up = last_part[0] && strcmp(last_part, "..") != 0;
    if (is_up && can_go_up) {
      out[last ? (last == out ? 1 : last - out) : 0] = 0;
    } else if (length > 0 && !(length == 1 && part[0] == '.') &&
               !(is_up && strcmp(out, "/") == 0)) {
      if (used > 0 && out[used - 1] != '/') out[used++] = '/';
      memcpy(out + used, part, length);
      out[used + length] = 0;
    }
    part = next;
  }
}

char *normal_name(arena *memory, const char *folder, const char *name) {
  char *out = arena_alloc(memory, strlen(folder) + strlen(name) + 3);
  if (name[0] == '/' || folder[0] == '/') strcpy(out, "/");
  if (name[0] != '/') append_parts(out, folder);
  append_parts(out, name);
  return out;
}

char *normal_path(arena *memory, const char *path) {
  char here[PATH_MAX];
  if (path[0] == '/' || !getcwd(here, sizeof here)) here[0] = 0;
  return normal_name(memory, here, path);
}
