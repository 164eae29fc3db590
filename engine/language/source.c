/* Where the files are that a pipeline names, and what they say: on the disk, or in the lock or
 * archive that the pipeline came in. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/text.h"
#include "language/load.h"

enum { MAX_NAMES_COMPARED = 500 };

bool is_override_place(source_pos at) {
  return at.line == 0 && at.file && text_starts_with(at.file, "--set ");
}

static char *folder_of(source_pos at) {
  return at.file && !is_override_place(at) ? path_folder(at.file) : memory_strdup(".");
}

static char *join(arena *memory, const char *folder, const char *name) {
  char *joined = path_join(folder, name);
  char *path = arena_strdup(memory, joined);
  free(joined);
  return path;
}

char *relative_path(pipeline *p, const char *name, source_pos at) {
  /* A file inside an archive names data and weights as if it lay where the archive lies. */
  if (bundle_name(p->inside, at.file)) at.file = p->inside->owner;
  char *folder = folder_of(at);
  char *path = join(&p->memory, folder ? folder : ".", name);
  free(folder);
  return path;
}

/* Where Strata's own files are, nearest first: folders with pipelines and lua in them. Those that were
 * installed with the program go before those of the sources that it was built from, which may have changed
 * since. */
enum { MAX_SHARES = 3, MAX_FOLDERS = MAX_SHARES + 1 };

static int list_shares(arena *memory, char *shares[MAX_SHARES]) {
  int count = 0;
  const char *chosen = getenv("STRATA_SHARE");
  if (chosen && chosen[0]) shares[count++] = arena_strdup(memory, chosen);
  char program[4096];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length > 0) {
    program[length] = 0;
    char *folder = path_folder(program);
    if (folder) shares[count++] = arena_printf(memory, "%s/../share/strata", folder);
    free(folder);
  }
  shares[count++] = STRATA_SOURCE_SHARE;
  return count;
}

/* The folders looked through, nearest first. */
static int list_folders(arena *memory, const char *share, source_pos at,
                        char *folders[MAX_FOLDERS]) {
  char *beside = folder_of(at), *shares[MAX_SHARES];
  folders[0] = arena_strdup(memory, beside ? beside : ".");
  free(beside);
  int count = list_shares(memory, shares);
  for (int i = 0; i < count; i++) folders[1 + i] = join(memory, shares[i], share);
  return 1 + count;
}

/* The name of a file below the folder that Strata's own are in; NULL: it is not there. */
static const char *name_in_share(arena *memory, const char *path) {
  static const char *const own[] = {"pipelines/", "lua/"};
  char *normal = normal_path(memory, path), *shares[MAX_SHARES];
  int count = list_shares(memory, shares);
  for (int i = 0; i < count; i++) {
    const char *share = normal_path(memory, shares[i]);
    size_t length = strlen(share);
    if (!text_starts_with(normal, share) || normal[length] != '/') continue;
    for (int k = 0; k < 2; k++)
      if (text_starts_with(normal + length + 1, own[k])) return normal + length + 1;
  }
  return NULL;
}

/* The name of a file on disk in a bundle: that among Strata's own, or its path. */
static const char *name_on_disk(arena *memory, const char *path) {
  const char *name = name_in_share(memory, path);
  return name ? name : normal_path(memory, path);
}

/* A pipeline of the same letters in a folder, whose name may lack the ending: UNet, models/unet. */
static const char *file_of_letters(arena *memory, const char *name, const char *folder,
                                   const char *prefix) {
  const char *base = strrchr(name, '/'), *found = NULL;
  base = base ? base + 1 : name;
  size_t length = strlen(base) - (text_ends_with(base, ".yaml") ? strlen(".yaml") : 0);
  DIR *files = opendir(join(memory, folder, prefix[0] ? prefix : "."));
  for (struct dirent *entry; files && !found && (entry = readdir(files));) {
    if (!text_ends_with(entry->d_name, ".yaml")) continue;
    char *stem = arena_strndup(memory, entry->d_name, strlen(entry->d_name) - strlen(".yaml"));
    if (text_has_letters(base, length, stem))
      found = arena_printf(memory, "%s%s.yaml", prefix, stem);
  }
  if (files) closedir(files);
  return found;
}

/* The files that could have been meant: those in the same subfolder of each folder, and models. */
static const char *nearest_file(arena *memory, const char *name, char *const *folders, int count) {
  const char *names[MAX_NAMES_COMPARED];
  int found = 0;
  const char *slash = strrchr(name, '/'), *dot = strrchr(name, '.');
  char *prefix = slash ? arena_strndup(memory, name, (size_t)(slash - name + 1)) : "";
  for (int i = 0; i < count; i++) {
    const char *same = file_of_letters(memory, name, folders[i], prefix);
    if (!same && !slash) same = file_of_letters(memory, name, folders[i], "models/");
    if (same) return same;
  }
  for (int i = 0; i < count; i++) {
    char *path = join(memory, folders[i], prefix[0] ? prefix : ".");
    DIR *folder = opendir(path);
    if (!folder) continue;
    for (struct dirent *entry; (entry = readdir(folder)) && found < MAX_NAMES_COMPARED;)
      if (dot && text_ends_with(entry->d_name, dot))
        names[found++] = arena_printf(memory, "%s%s", prefix, entry->d_name);
    closedir(folder);
  }
  return nearest_name(name, names, found);
}

static bool has_any_share(arena *memory) {
  char *shares[MAX_SHARES];
  int count = list_shares(memory, shares);
  for (int i = 0; i < count; i++)
    if (file_exists(join(memory, shares[i], "pipelines"))) return true;
  return false;
}

static status not_found(arena *memory, const char *name, const char *share, const char *near,
                        source_pos at) {
  char shown[96];
  if (!has_any_share(memory))
    return error_new(ERROR_PIPELINE, at,
                     "There is no file %s%s, and what is shipped with this program is not there: "
                     "copy its share/strata beside its bin, or name the folder by STRATA_SHARE.",
                     printable(name, shown), at.file ? " beside this one" : "");
  if (near)
    return error_new(ERROR_PIPELINE, at, "There is no file %s; did you mean \"%s\"?",
                     printable(name, shown), near);
  return error_new(ERROR_PIPELINE, at, "There is no file %s%s, nor among the shipped %s.",
                   printable(name, shown), at.file ? " beside this one" : "",
                   text_starts_with(share, "lua") ? "scripts" : share);
}

status find_file(arena *memory, const char *name, const char *share, source_pos naming,
                 source_pos at, char **path, bool *shipped) {
  char *folders[MAX_FOLDERS];
  int count = list_folders(memory, share, naming, folders);
  for (int i = 0; i < count; i++) {
    *path = join(memory, folders[i], name);
    if (shipped) *shipped = i > 0;
    if (file_exists(*path)) return OK;
    if (name[0] == '/') break;
  }
  *path = NULL;
  return not_found(memory, name, share, nearest_file(memory, name, folders, count), at);
}

/* A pipeline in a bundle is made of the bundle's files alone: what is on this machine's disk would
 * make another pipeline of it. */
static status find_inside(pipeline *p, const char *folder, const char *name, const char *share,
                          source_pos at, source *out) {
  const char *candidates[] = {normal_name(&p->memory, folder, name),
                              normal_name(&p->memory, share, name)};
  char shown[96];
  for (int i = 0; i < 2; i++) {
    const bundle_file *file = bundle_find(p->inside, candidates[i]);
    if (!file || !file->text) continue;
    *out = (source){.path = bundle_path(p->inside, &p->memory, file->name),
                    .name = file->name,
                    .shipped = i > 0};
    return OK;
  }
  return error_new(ERROR_PIPELINE, at, "%s holds no file %s.", p->inside->owner,
                   printable(name, shown));
}

status source_find(pipeline *p, const char *name, const char *share, source_pos naming,
                   source_pos at, source *out) {
  *out = (source){0};
  const char *inside = bundle_name(p->inside, naming.file);
  if (inside) {
    char *folder = path_folder(inside);
    status error = find_inside(p, folder, name, share, at, out);
    free(folder);
    return error;
  }
  char *path;
  bool shipped;
  TRY(find_file(&p->memory, name, share, naming, at, &path, &shipped));
  *out = (source){.path = path, .name = name_on_disk(&p->memory, path), .shipped = shipped};
  return OK;
}

status source_named(pipeline *p, const char *path, source *out) {
  static const char share[] = "pipelines";
  char *found = join(&p->memory, path, LOCK_FILE);
  if (file_exists(found))
    return error_new(
        ERROR_USAGE, NOWHERE,
        "%s is the folder of a run; its pipeline is %s, and --resume goes on with a run: "
        "strata run FILE --out %s --resume",
        path, found, path);
  found = NULL;
  if (!file_exists(path) && path[0] != '/') {
    const char *name =
        text_starts_with(path, share) && path[sizeof share - 1] == '/' ? path + sizeof share : path;
    TRY(find_file(&p->memory, name, share, NOWHERE, NOWHERE, &found, NULL));
  }
  *out = source_at(p, found ? found : path);
  return OK;
}

const char *source_shipped(pipeline *p, const source *s) {
  if (!bundle_name(p->inside, s->path)) return name_in_share(&p->memory, s->path);
  return text_starts_with(s->name, "pipelines/") ? s->name : NULL;
}

source source_at(pipeline *p, const char *path) {
  const char *inside = bundle_name(p->inside, path);
  return (source){.path = path, .name = inside ? inside : name_on_disk(&p->memory, path)};
}

/* ---- reading ------------------------------------------------------------------------------- */

status source_read(pipeline *p, const source *s, bool is_part, size_t limit, const char **text,
                   size_t *length) {
  const char *inside = bundle_name(p->inside, s->path);
  const bundle_file *held = inside ? bundle_find(p->inside, inside) : NULL;
  if (held) {
    *text = held->text;
    *length = held->length;
  } else if (p->text && s->path == p->path) {
    *text = p->text;
    *length = p->text_length;
  } else {
    char *data;
    TRY(file_read(s->path, limit, &data, length));
    *text = arena_copy(&p->memory, data, *length + 1);
    free(data);
  }
  bundle_add(
      &p->sources, &p->memory,
      (bundle_file){
          .name = s->name, .path = s->path, .text = *text, .length = *length, .is_part = is_part});
  return OK;
}

status source_tree(pipeline *p, const source *s, bool is_part, tree **root) {
  const char *text;
  size_t length;
  *root = NULL;
  TRY(source_read(p, s, is_part, TREE_MAX_FILE_BYTES, &text, &length));
  return tree_parse(&p->memory, text, length, s->path, root);
}
