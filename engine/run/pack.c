#include "run/pack.h"

#include "base/files.h"
#include "base/map.h"
#include "base/text.h"
#include "base/zip.h"
#include "language/load.h"
#include "run/reproduce.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct packing {
  const pack_options *o;
  zip_output zip;
  arena memory;
  uint64_t identity; /* of the pipeline that was packed */
} packing;

static status add_text(packing *k, const char *name, const char *text, size_t length) {
  return zip_add_stored(&k->zip, name, text, length);
}

static status add_file(packing *k, const char *name, const char *path) {
  file_map map;
  TRY(error_prefix(file_map_open(path, &map), "%s", path));
  status error = zip_add_stored(&k->zip, name, map.data, map.bytes);
  file_map_close(&map);
  return error;
}

static status add_manifest(packing *k, const char *pipeline) {
  text_buffer t = {0};
  text_add(&t, "# A pipeline packed by `strata pack`; `strata run` runs it as it is.\nstrata: 1\n");
  text_add(&t, "pipeline: ");
  tree_write_key(pipeline, &t);
  text_add(&t, "\n");
  status error = add_text(k, pack_file, t.data, t.length);
  text_free(&t);
  return error;
}

/* ---- a pipeline and its files --------------------------------------------------------------- */

/* Length of the folder in which all files of the user lie, with its '/'. */
static size_t common_folder(const bundle *sources) {
  const char *first = NULL;
  size_t same = 0;
  for (int i = 0; i < sources->count; i++) {
    const char *name = sources->files[i].name;
    if (name[0] != '/') continue;
    size_t n = 0;
    if (!first) {
      first = name;
      same = strlen(name);
    }
    while (n < same && name[n] == first[n]) n++;
    while (n > 0 && first[n - 1] != '/') n--;
    same = n;
  }
  return same;
}

static const char *name_in_pack(packing *k, const char *name, size_t folder) {
  return name[0] == '/' ? arena_printf(&k->memory, "project/%s", name + folder) : name;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const bundle_file *)a)->name, ((const bundle_file *)b)->name);
}

static status add_sources(packing *k, const bundle *sources) {
  size_t folder = common_folder(sources), count = (size_t)sources->count;
  bundle_file *sorted = arena_alloc(&k->memory, (count + 1) * sizeof *sorted);
  for (size_t i = 0; i < count; i++) {
    sorted[i] = sources->files[i];
    sorted[i].name = name_in_pack(k, sorted[i].name, folder);
  }
  TRY(add_manifest(k, sorted[0].name)); /* the pipeline is the first that is read */
  qsort(sorted, count, sizeof *sorted, by_name);
  for (size_t i = 0; i < count; i++)
    TRY(add_text(k, sorted[i].name, sorted[i].text, sorted[i].length));
  return OK;
}

static status add_init_file(packing *k, const stage_spec *s, const char *path) {
  const char *slash = strrchr(path, '/');
  return add_file(k, arena_printf(&k->memory, "init/%s/%s", s->name, slash ? slash + 1 : path),
                  path);
}

static status add_init_files(packing *k, const pipeline *p) {
  for (int i = 0; i < p->stage_count; i++) {
    const stage_spec *s = &p->stages[i];
    if (!s->init_is_file) continue;
    if (s->init_map) TRY(add_init_file(k, s, s->init_map));
    if (k->o->weights)
      TRY(add_init_file(k, s, s->init_from));
    else
      report_line(&k->o->report, "not packed: %s, with which stage %s begins; --weights packs it",
                  s->init_from, s->name);
  }
  return OK;
}

static status add_pipeline(packing *k) {
  pipeline *p;
  if (archive_is(k->o->from))
    return error_new(ERROR_USAGE, NOWHERE, "%s is a pack already", k->o->from);
  TRY(pipeline_load_for_prediction(k->o->from, NULL, 0, &p));
  status error = OK;
  k->identity = p->identity;
  if (p->lock) {
    error = add_manifest(k, LOCK_FILE);
    if (!error)
      error = add_text(k, LOCK_FILE, p->sources.files[0].text, p->sources.files[0].length);
  } else {
    error = add_sources(k, &p->sources);
  }
  if (!error) error = add_init_files(k, p);
  pipeline_free(p);
  return error;
}

/* ---- a run --------------------------------------------------------------------------------- */

static status add_run_weights(packing *k, const pipeline *p) {
  int added = 0;
  for (int i = 0; i < p->stage_count; i++) {
    const char *name = arena_printf(&k->memory, "weights/%s.safetensors", p->stages[i].name);
    const char *path = arena_printf(&k->memory, "%s/%s", k->o->from, name);
    if (!file_exists(path)) continue;
    TRY(add_file(k, name, path));
    added++;
  }
  if (added > 0) return OK;
  return error_new(ERROR_DATA, NOWHERE, "%s has no weights yet: none of its stages is finished",
                   k->o->from);
}

static status add_run(packing *k) {
  const char *path = arena_printf(&k->memory, "%s/" LOCK_FILE, k->o->from);
  pipeline *p;
  if (!file_exists(path))
    return error_new(ERROR_USAGE, NOWHERE, "%s is neither a pipeline file nor a run: it has no %s",
                     k->o->from, LOCK_FILE);
  TRY(pipeline_load_for_prediction(path, NULL, 0, &p));
  k->identity = p->identity;
  status error = add_manifest(k, LOCK_FILE);
  if (!error) error = add_file(k, LOCK_FILE, path);
  if (!error) error = add_file(k, "run.json", arena_printf(&k->memory, "%s/run.json", k->o->from));
  if (!error) error = add_init_files(k, p);
  if (!error && k->o->weights) error = add_run_weights(k, p);
  pipeline_free(p);
  return error;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* The pack says what its source says, on its own. */
static status check_packed(const packing *k, const char *path) {
  pipeline *p;
  status error = pipeline_load_for_prediction(path, NULL, 0, &p);
  if (!error && p->identity != k->identity)
    error = error_new(ERROR_DATA, NOWHERE, "what was packed is another pipeline");
  if (!error) pipeline_free(p);
  return error_prefix(
      error,
      "%s cannot be packed: a file of yours is named relative to the file that names "
      "it, and a shipped one without the folder that it lies in, as in quickstart.yaml",
      k->o->from);
}

static char *default_out(packing *k) {
  size_t length = strlen(k->o->from);
  while (length > 1 && k->o->from[length - 1] == '/') length--;
  const char *path = arena_strndup(&k->memory, k->o->from, length), *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  length = strlen(name);
  for (const char *const *e = (const char *const[]){".yaml", ".yml", NULL}; *e; e++)
    if (text_ends_with(name, *e)) length -= strlen(*e);
  return arena_printf(&k->memory, "%.*s.strata", (int)length, name);
}

static status write_pack(packing *k, const char *out) {
  struct stat info;
  atomic_file file;
  TRY(atomic_begin(out, &file));
  k->zip.stream = file.stream;
  bool is_folder = stat(k->o->from, &info) == 0 && S_ISDIR(info.st_mode);
  status error = is_folder ? add_run(k) : add_pipeline(k);
  if (!error) zip_finish(&k->zip);
  if (!error) error = stream_flush(file.stream, out);
  if (!error) error = check_packed(k, file.now);
  if (!error) return atomic_commit(&file);
  atomic_abandon(&file);
  return error;
}

status pack_write(const pack_options *o) {
  packing k = {.o = o};
  const char *out = o->out ? o->out : default_out(&k);
  status error = OK;
  if (file_exists(out))
    error = error_new(ERROR_USAGE, NOWHERE, "%s is there already; choose another -o", out);
  if (!error) error = write_pack(&k, out);
  if (!error) {
    char size[24];
    report_line(&o->report, "%s: %d files, %s", out, k.zip.count,
                format_bytes(size, (double)k.zip.at));
  }
  zip_output_free(&k.zip);
  arena_free(&k.memory);
  return error;
}

/* ---- reading ------------------------------------------------------------------------------- */

static status open_pack(const char *path, zip_archive *z) {
  status error = zip_open(path, z);
  if (error) {
    zip_close(z);
    return error_prefix(error, "%s is not a usable pack", path);
  }
  return OK;
}

status pack_list(const char *path, const reporter *report) {
  zip_archive z;
  TRY(open_pack(path, &z));
  for (int i = 0; i < z.count; i++)
    report_line(report, "%12llu  %s", (unsigned long long)z.entries[i].bytes, z.entries[i].name);
  zip_close(&z);
  return OK;
}

static status unpack_entry(zip_archive *z, zip_entry *entry, const char *folder) {
  const void *data;
  TRY(zip_data(z, entry, &data));
  char *path = path_join(folder, entry->name), *inside = path_folder(path);
  status error = folder_create(inside);
  if (!error) error = file_write_atomic(path, data, (size_t)entry->bytes);
  free(inside);
  free(path);
  return error;
}

/* The folder gets its name when everything is in it: half a pack must not pass for a whole one. */
static status unpack_all(zip_archive *z, const char *folder) {
  text_buffer part = {0};
  size_t length = strlen(folder);
  while (length > 1 && folder[length - 1] == '/') length--;
  text_add(&part, "%.*s.part-%ld", (int)length, folder, (long)getpid());
  folder_remove(part.data); /* of a program that was killed and had our number */
  status error = folder_create(part.data);
  for (int i = 0; i < z->count && !error; i++) error = unpack_entry(z, &z->entries[i], part.data);
  if (!error && rename(part.data, folder) != 0) error = error_from_errno("create folder", folder);
  if (error) folder_remove(part.data);
  text_free(&part);
  return error;
}

status pack_unpack(const char *path, const char *folder, const reporter *report) {
  zip_archive z;
  if (file_exists(folder))
    return error_new(ERROR_USAGE, NOWHERE, "%s is there already; choose a new folder", folder);
  TRY(open_pack(path, &z));
  status error = error_prefix(unpack_all(&z, folder), "%s", path);
  if (!error) report_line(report, "%s: %d files in %s", path, z.count, folder);
  zip_close(&z);
  return error;
}
