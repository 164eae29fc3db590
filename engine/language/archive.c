/* A pipeline in a .strata file: a zip archive with the pipeline, every file it is made of, and
 * pack.yaml, which says which of them is the pipeline. Made by run/pack.c. */
#include "base/zip.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/text.h"
#include "language/load.h"

enum {
  MAX_FILES = 2000,
  MAX_TEXT_BYTES = 64 << 20 /* of all files together */
};

const char pack_file[] = "pack.yaml";

bool archive_is(const char *path) {
  unsigned char beginning[4];
  int fd;
  uint64_t bytes;
  status error = file_open(path, &fd, &bytes);
  if (error) {
    error_free(error); /* said by whoever reads it as a pipeline */
    return false;
  }
  ssize_t got = read(fd, beginning, sizeof beginning);
  close(fd);
  return got > 0 && zip_is_archive(beginning, (size_t)got);
}

static bool is_text_name(const char *name) {
  return text_ends_with(name, ".yaml") || text_ends_with(name, ".yml") ||
         text_ends_with(name, ".lua") || text_ends_with(name, ".json");
}

/* Texts are read now; of other files, such as weights, it is only noted that they are there. */
static status take_file(pipeline *p, zip_archive *z, zip_entry *entry, uint64_t *total) {
  bundle_file file = {.name = arena_strdup(&p->memory, entry->name)};
  if (is_text_name(entry->name)) {
    const void *data;
    if (entry->bytes > TREE_MAX_FILE_BYTES || (*total += entry->bytes) > MAX_TEXT_BYTES)
      return error_new(ERROR_DATA, NOWHERE,
                       "its text files are too large: at %s over %d MiB each or %d MiB together",
                       entry->name, TREE_MAX_FILE_BYTES >> 20, MAX_TEXT_BYTES >> 20);
    TRY(zip_data(z, entry, &data));
    if (memchr(data, 0, (size_t)entry->bytes))
      return error_new(ERROR_DATA, NOWHERE, "%s is not a text file", entry->name);
    file.text = arena_strndup(&p->memory, data, (size_t)entry->bytes);
    file.length = (size_t)entry->bytes;
  }
  bundle_add(p->inside, &p->memory, file);
  return OK;
}

static status take_files(pipeline *p, const char *path) {
  zip_archive z;
  uint64_t total = 0;
  status error = zip_open(path, &z);
  if (!error && z.count > MAX_FILES)
    error = error_new(ERROR_DATA, NOWHERE, "it holds %d files; at most %d are read", z.count,
                      MAX_FILES);
  for (int i = 0; i < z.count && !error; i++) error = take_file(p, &z, &z.entries[i], &total);
  zip_close(&z);
  return error_prefix(error, "%s is not a usable pack", path);
}

/* {strata: 1, pipeline: NAME} */
static status read_entry(pipeline *p, source *entry) {
  static const char *const keys[] = {"strata", "pipeline", "doc", NULL};
  const bundle_file *file = bundle_find(p->inside, pack_file);
  tree *root;
  const char *name;
  problems all = {0};
  if (!file)
    return error_new(ERROR_DATA, NOWHERE,
                     "%s is not a usable pack: it holds no %s. `strata pack` makes packs.",
                     p->inside->owner, pack_file);
  const char *path = bundle_path(p->inside, &p->memory, pack_file);
  TRY(tree_parse(&p->memory, file->text, file->length, path, &root));
  tree_check_keys(root, pack_file, keys, &all);
  TRY(problems_take(&all));
  const tree *t = tree_get(root, "pipeline");
  if (!t) return error_new(ERROR_DATA, root->at, "%s needs \"pipeline\".", pack_file);
  TRY(error_prefix(tree_string(t, &name), "pipeline"));
  file = bundle_find(p->inside, name);
  if (!file || !file->text)
    return error_new(ERROR_DATA, t->at, "the pack holds no pipeline of that name.");
  *entry = (source){.path = bundle_path(p->inside, &p->memory, name), .name = file->name};
  return OK;
}

status archive_open(pipeline *p, const char *path, source *entry) {
  p->inside = arena_alloc(&p->memory, sizeof *p->inside);
  p->inside->owner = intern_file(path);
  TRY(take_files(p, path));
  return read_entry(p, entry);
}

const char *archive_init_file(const pipeline *p, arena *memory, const char *stage,
                              const char *path) {
  const char *slash = strrchr(path, '/');
  const char *name = arena_printf(memory, "init/%s/%s", stage, slash ? slash + 1 : path);
  return bundle_find(p->inside, name) ? bundle_path(p->inside, memory, name) : NULL;
}
