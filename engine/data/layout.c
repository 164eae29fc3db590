/* What lies on disk, as a list of cases: the layouts that data sets come in. */
#include "data/cases.h"

#include "base/files.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHANNELS_MAX = 1024 };

/* ---- dataset.json -------------------------------------------------------------------------- */

static status bad_json(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static status bad_json(const char *path, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_DATA, NOWHERE, format, args);
  va_end(args);
  return error_prefix(error, "%s", path);
}

/* "3" → 3; false for anything but a plain number below `limit`. */
static bool plain_number(const char *text, int limit, int *out) {
  int value = 0;
  if (!text[0] || strlen(text) > 4) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    value = value * 10 + (*text - '0');
  }
  *out = value;
  return value < limit;
}

/* Above all classes, so that these stay 0, 1, … */
static status check_ignore_label(const dataset *d) {
  if (d->ignore_label == 0 || d->ignore_label >= d->class_count) return OK;
  return error_new(ERROR_DATA, NOWHERE,
                   "the ignore label %d must be above all classes, but class %d (%s) is above it",
                   d->ignore_label, d->class_count - 1, d->class_names[d->class_count - 1]);
}

/* "labels": {"0": "background", "1": "liver"}, or the other way round with numbers as values. The
 * ignore label may have a name there, too. */
static status read_classes(const char *path, const json_t *map, dataset *d) {
  if (!json_is_object(map) || json_object_size(map) == 0)
    return bad_json(path, "\"labels\" must be a mapping from class numbers to names, as in "
                          "{\"0\": \"background\", \"1\": \"liver\"}.");
  const char *names[LABEL_CLASSES] = {0}, *key;
  json_t *value;
  json_object_foreach((json_t *)map, key, value) {
    int number = 0;
    const char *name = key;
    bool is_paired = true;
    if (plain_number(key, LABEL_VALUES, &number) && json_is_string(value))
      name = json_string_value(value);
    else if (json_is_integer(value) && json_integer_value(value) >= 0 &&
             json_integer_value(value) < LABEL_VALUES)
      number = (int)json_integer_value(value);
    else
      is_paired = false;
    if (is_paired && number > 0 && number == d->ignore_label) continue;
    if (!is_paired || number >= LABEL_CLASSES)
      return bad_json(path,
                      "\"labels\": the entry \"%.60s\" does not pair a class number from 0 to "
                      "%d with a name.",
                      key, LABEL_CLASSES - 1);
    if (names[number])
      return bad_json(path, "\"labels\": class %d is named twice, \"%.60s\" and \"%.60s\".", number,
                      names[number], name);
    if (!name[0] || strlen(name) > 200 || !text_is_printable(name))
      return bad_json(path, "\"labels\": the name of class %d is empty, too long or not printable.",
                      number);
    names[number] = name;
    if (number + 1 > d->class_count) d->class_count = number + 1;
  }
  if (d->class_count < 2) return bad_json(path, "\"labels\" names no class but the background.");
  d->class_names = arena_alloc(&d->memory, (size_t)d->class_count * sizeof *d->class_names);
  for (int i = 0; i < d->class_count; i++)
    d->class_names[i] = names[i] ? arena_strdup(&d->memory, names[i])
                        : i == 0 ? "background"
                                 : arena_printf(&d->memory, "class %d", i);
  return error_prefix(check_ignore_label(d), "%s", path);
}

static status read_channels(const char *path, const json_t *root, dataset *d) {
  const json_t *map = json_object_get(root, "modality");
  if (!map) map = json_object_get(root, "channel_names");
  if (!map) {
    d->channels = 1;
    return OK;
  }
  size_t count = json_object_size(map);
  if (!json_is_object(map) || count == 0 || count > CHANNELS_MAX)
    return bad_json(path, "\"modality\" must be a mapping from channel numbers to names, as in "
                          "{\"0\": \"CT\"}.");
  d->channel_names = arena_alloc(&d->memory, count * sizeof *d->channel_names);
  for (size_t i = 0; i < count; i++) {
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    const json_t *name = json_object_get(map, key);
    if (!name)
      return bad_json(path, "\"modality\" has %zu channels but no channel \"%zu\".", count, i);
    d->channel_names[i] =
        arena_strdup(&d->memory, json_is_string(name) ? json_string_value(name) : "");
  }
  d->channels = (int)count;
  return OK;
}

static bool is_volume_name(const char *path) {
  return text_ends_with(path, ".nii") || text_ends_with(path, ".nii.gz");
}

const char *volume_base_name(arena *memory, const char *path) {
  const char *slash = strrchr(path, '/'), *start = slash ? slash + 1 : path;
  size_t length = strlen(start);
  if (is_volume_name(start)) length -= text_ends_with(start, ".gz") ? 7 : 4;
  return arena_strndup(memory, start, length);
}

static bool is_usable_path(const char *path) {
  return is_volume_name(path) && strlen(path) <= FILE_NAME_MAX && text_is_printable(path);
}

/* Joins, and checks that the file is there. */
static status case_file(const char *list, const char *folder, const char *name, const char *what,
                        const char *file, dataset *d, const char **out) {
  char *joined = path_join(folder, file[0] == '.' && file[1] == '/' ? file + 2 : file);
  *out = arena_strdup(&d->memory, joined);
  free(joined);
  struct stat info;
  if (stat(*out, &info) != 0)
    return error_new(ERROR_DATA, NOWHERE,
                     "case %s: the %s %s is missing. Complete the download, or take the case out "
                     "of %s.",
                     name, what, *out, list);
  if (!S_ISREG(info.st_mode))
    return error_new(ERROR_DATA, NOWHERE, "case %s: the %s %s is not a file.", name, what, *out);
  return OK;
}

/* The first file of a case, then further channels. */
static status case_images(const char *list, const char *folder, const char *const *files, int count,
                          dataset *d, case_entry *out) {
  TRY(case_file(list, folder, out->name, "image", files[0], d, &out->image));
  if (count == 1) return OK;
  const char **more = arena_alloc(&d->memory, (size_t)(count - 1) * sizeof *more);
  for (int i = 1; i < count; i++)
    TRY(case_file(list, folder, out->name, "image", files[i], d, &more[i - 1]));
  out->more_images = more;
  out->more_image_count = count - 1;
  return OK;
}

/* A case as an entry describes it, at `where` in the json at `path`: its image, or a list of images of
 * which each is a channel, and its label (NULL: none). Without a name it is called as its first file.
 * `like`: what such an entry is to be. */
static status read_case(const char *path, const char *where, const char *like, const json_t *image,
                        const json_t *label, dataset *d, case_entry *out) {
  const char *files[CHANNELS_MAX];
  size_t count = json_is_array(image) ? json_array_size(image) : 1;
  bool is_list = json_is_array(image) && count >= 1 && count <= CHANNELS_MAX;
  for (size_t i = 0; is_list && i < count; i++) {
    files[i] = json_string_value(json_array_get(image, i));
    if (!files[i]) is_list = false;
  }
  if (!is_list) {
    files[0] = json_string_value(image);
    count = 1;
  }
  if (!files[0] || (json_is_array(image) && !is_list) || (label && !json_is_string(label)))
    return bad_json(path, "%s must be %s.", where, like);
  const char *label_file = label ? json_string_value(label) : NULL;
  for (size_t i = 0; i <= count; i++) {
    const char *file = i < count ? files[i] : label_file;
    if (file && !is_usable_path(file))
      return bad_json(path, "%s: \"%.100s\" is not the path of a .nii or .nii.gz file.", where,
                      file);
  }
  if (!out->name) out->name = volume_base_name(&d->memory, files[0]);
  if (!out->name[0] || out->name[0] == '.')
    return bad_json(path, "%s: \"%.100s\" gives the case no name.", where, files[0]);
  out->class_count = d->class_count;
  char *folder = path_folder(path);
  status error = case_images(path, folder, files, (int)count, d, out);
  if (!error && label_file)
    error = case_file(path, folder, out->name, "label", label_file, d, &out->label);
  free(folder);
  return error;
}

/* An entry of a list: {"image": …, "label": …}, or the image alone. MONAI's lists may name several
 * images, one a channel. */
static status read_list_entry(const char *path, const char *list, size_t index, const json_t *item,
                              dataset *d, case_entry *out) {
  char where[40];
  snprintf(where, sizeof where, "\"%s\"[%zu]", list, index);
  return read_case(path, where, "{\"image\": \"….nii.gz\", \"label\": \"….nii.gz\"}",
                   json_is_string(item) ? item : json_object_get(item, "image"),
                   json_object_get(item, "label"), d, out);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const case_entry *)a)->name, ((const case_entry *)b)->name);
}

static void sort_cases(const char *list, dataset *d, problems *found) {
  qsort(d->cases, (size_t)d->case_count, sizeof *d->cases, by_name);
  for (int i = 1; i < d->case_count; i++)
    if (strcmp(d->cases[i].name, d->cases[i - 1].name) == 0)
      problems_add(found, bad_json(list,
                                   "two cases are called %s (%s and %s). A case that is in two "
                                   "roles would leak from training into the test.",
                                   d->cases[i].name, d->cases[i - 1].image, d->cases[i].image));
}

/* "training", and MONAI's "validation". The Decathlon's "test" has images without labels: it is
 * read only where the lists give the roles. */
static status read_lists(const char *path, const json_t *root, bool listed, dataset *d,
                         problems *found) {
  static const char *const lists[] = {"training", "validation", "test"};
  static const char *const other_names[] = {"train", "val", "testing"};
  size_t total = 0;
  const json_t *list[3];
  for (int r = 0; r < 3; r++) {
    list[r] = json_object_get(root, lists[r]);
    if (!list[r]) list[r] = json_object_get(root, other_names[r]);
    if (r == ROLE_TEST && !listed) list[r] = NULL;
    if (list[r] && !json_is_array(list[r]))
      return bad_json(path, "\"%s\" must be a list of cases.", lists[r]);
    total += json_array_size(list[r]);
  }
  if (json_array_size(list[ROLE_TRAIN]) == 0)
    return bad_json(path, "\"training\" must be a list of cases.");
  if (total > CASES_MAX) return bad_json(path, "\"training\" has more than %d cases.", CASES_MAX);
  d->cases = arena_alloc(&d->memory, total * sizeof *d->cases);
  for (int r = 0; r < 3; r++)
    for (size_t i = 0; i < json_array_size(list[r]); i++) {
      case_entry *entry = &d->cases[d->case_count];
      *entry = (case_entry){.role = (role)r};
      status error = read_list_entry(path, lists[r], i, json_array_get(list[r], i), d, entry);
      problems_add(found, error);
      if (!error) d->case_count++;
    }
  return OK;
}

static void read_name(const json_t *root, dataset *d) {
  const json_t *name = json_object_get(root, "name");
  bool named = json_is_string(name) && json_string_value(name)[0] &&
               strlen(json_string_value(name)) <= 200 && text_is_printable(json_string_value(name));
  d->name = arena_strdup(&d->memory, named ? json_string_value(name) : "unnamed");
}

static status load_json(const char *path, json_t **root) {
  char *text;
  size_t length;
  TRY(file_read(path, DATASET_JSON_BYTES, &text, &length));
  json_error_t parse;
  *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &parse);
  free(text);
  if (!*root) return bad_json(path, "line %d: %s", parse.line, parse.text);
  if (json_is_object(*root)) return OK;
  json_decref(*root);
  return bad_json(path, "this is not a dataset.json: a mapping is expected.");
}

/* The file that is named, or dataset.json in the folder that is. */
static const char *dataset_json(const data_spec *spec, dataset *d) {
  struct stat info;
  bool is_folder = stat(spec->dataset, &info) == 0 && S_ISDIR(info.st_mode);
  return is_folder ? arena_printf(&d->memory, "%s/dataset.json", spec->dataset) : spec->dataset;
}

static status read_decathlon(const data_spec *spec, dataset *d, problems *found) {
  const char *path = dataset_json(spec, d);
  json_t *root;
  TRY(load_json(path, &root));
  read_name(root, d);
  status error = OK;
  if (!json_object_get(root, "training") && json_object_get(root, "file_ending"))
    error = bad_json(path, "this is nnU-Net's raw format: say dataset: {nnunet: …}.");
  if (!error) error = read_classes(path, json_object_get(root, "labels"), d);
  if (!error) error = read_channels(path, root, d);
  if (!error) error = read_lists(path, root, spec->split_kind == SPLIT_LISTED, d, found);
  json_decref(root);
  return error;
}

/* ---- patterns ------------------------------------------------------------------------------ */

typedef struct found_file {
  const char *key; /* what the wildcards stand for */
  const char *path;
} found_file;

typedef struct file_list {
  found_file *list;
  int count, capacity;
} file_list;

static int by_key(const void *a, const void *b) {
  return strcmp(((const found_file *)a)->key, ((const found_file *)b)->key);
}

/* "0001" of img/img0001.nii.gz and img/img*.nii.gz; runs that differ are joined with '-'. */
static const char *wildcard_key(arena *memory, const char *pattern, const char *path) {
  size_t length = strlen(path), start = 0;
  int *by = arena_alloc(memory, (length + 1) * sizeof *by);
  if (!wildcard_match(pattern, path, by)) return NULL;
  const char *key = NULL;
  while (start < length) {
    size_t end = start;
    while (end < length && strchr("*?", pattern[by[end]])) end++;
    if (end > start) {
      const char *run = arena_strndup(memory, path + start, end - start);
      if (!key)
        key = run;
      else if (strcmp(key, run) != 0)
        key = arena_printf(memory, "%s-%s", key, run);
    }
    start = end + 1;
  }
  return key ? key : volume_base_name(memory, path);
}

typedef struct pattern_walk {
  arena *memory;
  const char *root, *pattern;
  file_list *out;
} pattern_walk;

static status take_file(const pattern_walk *w, const char *path) {
  if (!is_usable_path(path)) return OK;
  if (w->out->count == CASES_MAX)
    return error_new(ERROR_DATA, NOWHERE, "%s: more than %d files fit %s", w->root, CASES_MAX,
                     w->pattern);
  char *joined = path_join(w->root, path);
  found_file file = {wildcard_key(w->memory, w->pattern, path), arena_strdup(w->memory, joined)};
  free(joined);
  ARENA_PUSH(w->memory, w->out->list, w->out->count, w->out->capacity, file);
  return OK;
}

/* `done` is the part of the path already walked, `rest` the part of the pattern still to come.
 * Folders are listed only where the pattern leaves their names open. */
static status walk(const pattern_walk *w, const char *done, const char *rest) {
  size_t length = strcspn(rest, "/");
  bool is_last = rest[length] == 0, is_open = strcspn(rest, "*?") < length;
  const char *segment = arena_strndup(w->memory, rest, length);
  const char *slash = done[0] ? "/" : "";
  if (!is_open) {
    const char *path = arena_printf(w->memory, "%s%s%s", done, slash, segment);
    return is_last ? take_file(w, path) : walk(w, path, rest + length + 1);
  }
  char *folder = path_join(w->root, done[0] ? done : ".");
  DIR *stream = opendir(folder);
  status error = OK;
  if (!stream && errno != ENOENT && errno != ENOTDIR)
    error = error_from_errno("open folder", folder ? folder : done);
  for (struct dirent *entry; stream && !error && (entry = readdir(stream));) {
    if (entry->d_name[0] == '.' || !wildcard_match(segment, entry->d_name, NULL)) continue;
    const char *path = arena_printf(w->memory, "%s%s%s", done, slash, entry->d_name);
    if (strlen(path) <= FILE_NAME_MAX)
      error = is_last ? take_file(w, path) : walk(w, path, rest + length + 1);
  }
  if (stream) closedir(stream);
  free(folder);
  return error;
}

/* The files that a pattern describes, by key. */
static status find_files(const char *root, const char *pattern, dataset *d, file_list *out) {
  *out = (file_list){0};
  if (pattern[0] == '/') {
    root = "/";
    pattern++;
  }
  pattern_walk w = {.memory = &d->memory, .root = root, .pattern = pattern, .out = out};
  TRY(walk(&w, "", pattern));
  if (out->count == 0)
    return error_new(ERROR_DATA, NOWHERE, "no .nii or .nii.gz file fits %s in %s", pattern, root);
  qsort(out->list, (size_t)out->count, sizeof *out->list, by_key);
  for (int i = 1; i < out->count; i++)
    if (strcmp(out->list[i].key, out->list[i - 1].key) == 0)
      return error_new(ERROR_DATA, NOWHERE,
                       "the wildcards of %s stand for the same in %s and %s, so their cases cannot "
                       "be told apart",
                       pattern, out->list[i - 1].path, out->list[i].path);
  return OK;
}

static const found_file *file_of(const file_list *files, const char *key) {
  found_file wanted = {.key = key};
  return files->count == 0
             ? NULL
             : bsearch(&wanted, files->list, (size_t)files->count, sizeof *files->list, by_key);
}

/* Cases are the files of the first pattern; the other channels and the label of a case are those
 * with the same key. `named_by_file`: BTCV's cases are called img0001, not 0001. */
static status pair_files(const char *root, const char *const *patterns, int channels,
                         const char *label_pattern, bool named_by_file, dataset *d,
                         problems *found) {
  file_list *images = arena_alloc(&d->memory, (size_t)channels * sizeof *images), labels = {0};
  for (int c = 0; c < channels; c++) TRY(find_files(root, patterns[c], d, &images[c]));
  if (label_pattern) TRY(find_files(root, label_pattern, d, &labels));
  for (int c = 1; c < channels; c++)
    for (int i = 0; i < images[c].count; i++)
      if (!file_of(&images[0], images[c].list[i].key))
        problems_add(found,
                     error_new(ERROR_DATA, NOWHERE, "%s: there is no image of this name for %s",
                               images[c].list[i].path, patterns[0]));
  for (int i = 0; i < labels.count; i++)
    if (!file_of(&images[0], labels.list[i].key))
      problems_add(found,
                   error_new(ERROR_DATA, NOWHERE,
                             "%s: there is no image to this label: the wildcards of its pattern "
                             "stand for \"%s\", and for that in no file of %s (in the first, %s, "
                             "for \"%s\")",
                             labels.list[i].path, labels.list[i].key, patterns[0],
                             images[0].list[0].path, images[0].list[0].key));
  d->channels = channels;
  d->cases = arena_alloc(&d->memory, (size_t)images[0].count * sizeof *d->cases);
  const char **files = arena_alloc(&d->memory, (size_t)channels * sizeof *files);
  for (int i = 0; i < images[0].count; i++) {
    const char *key = images[0].list[i].key;
    case_entry *entry = &d->cases[d->case_count];
    *entry = (case_entry){.class_count = d->class_count};
    entry->name = named_by_file ? volume_base_name(&d->memory, images[0].list[i].path) : key;
    status error = OK;
    for (int c = 0; c < channels && !error; c++) {
      const found_file *file = file_of(&images[c], key);
      if (file)
        files[c] = file->path;
      else
        error = error_new(ERROR_DATA, NOWHERE, "case %s: channel %d is missing: no file fits %s",
                          entry->name, c, patterns[c]);
    }
    const found_file *label = file_of(&labels, key);
    if (!error) error = case_images(root, ".", files, channels, d, entry);
    if (!error && label)
      error = case_file(root, ".", entry->name, "label", label->path, d, &entry->label);
    problems_add(found, error);
    if (!error) d->case_count++;
  }
  return OK;
}

static void name_after_folder(const char *path, dataset *d) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  const char *text = arena_strndup(&d->memory, path, length), *slash = strrchr(text, '/');
  d->name = slash && slash[1] ? slash + 1 : text;
}

/* A file may hold several channels itself; the first case tells. Where it cannot be read, whoever
 * opens it says so. */
static void count_channels(const case_entry *first, dataset *d) {
  int64_t channels = 0;
  for (int i = 0; i <= first->more_image_count; i++) {
    volume grid = {.channels = 1};
    error_free(nifti_read_grid(i == 0 ? first->image : first->more_images[i - 1], &grid));
    channels += grid.channels;
  }
  if (channels <= CHANNELS_MAX) d->channels = (int)channels;
}

static status read_patterns(const data_spec *spec, dataset *d, problems *found) {
  name_after_folder(spec->dataset, d);
  d->class_names = arena_copy(&d->memory, spec->class_names,
                              (size_t)spec->class_count * sizeof *spec->class_names);
  d->class_count = spec->class_count;
  TRY(check_ignore_label(d));
  TRY(pair_files(spec->dataset, spec->image_patterns, spec->image_pattern_count,
                 spec->label_pattern, false, d, found));
  if (d->case_count > 0) count_channels(&d->cases[0], d);
  return OK;
}

/* ---- BTCV ---------------------------------------------------------------------------------- */

/* The numbers of the challenge "Multi-Atlas Labeling Beyond the Cranial Vault" (Landman et al.,
 * 2015). */
static const char *const btcv_classes[] = {"background",
                                           "spleen",
                                           "right kidney",
                                           "left kidney",
                                           "gallbladder",
                                           "esophagus",
                                           "liver",
                                           "stomach",
                                           "aorta",
                                           "inferior vena cava",
                                           "portal and splenic vein",
                                           "pancreas",
                                           "right adrenal gland",
                                           "left adrenal gland"};

static status read_btcv(const data_spec *spec, dataset *d, problems *found) {
  static const char *const images[] = {"img/img*.nii.gz"};
  d->name = "BTCV";
  d->class_count = (int)(sizeof btcv_classes / sizeof *btcv_classes);
  d->class_names = arena_copy(&d->memory, btcv_classes, sizeof btcv_classes);
  TRY(check_ignore_label(d));
  return error_prefix(
      pair_files(spec->dataset, images, 1, "label/label*.nii.gz", true, d, found),
      "the BTCV layout is a folder with img/img0001.nii.gz … and label/label0001.nii.gz …");
}

/* ---- nnU-Net ------------------------------------------------------------------------------- */

/* "ignore": 4 among the labels: voxels that nobody annotated. */
static status read_ignore(const char *path, const json_t *labels, dataset *d) {
  const json_t *ignore = json_object_get(labels, "ignore");
  if (!ignore) return OK;
  json_int_t number = json_is_integer(ignore) ? json_integer_value(ignore) : 0;
  if (number < 1 || number >= LABEL_VALUES)
    return bad_json(path,
                    "\"labels\": \"ignore\" must be a number from 1 to %d, above all classes.",
                    LABEL_VALUES - 1);
  if (d->ignore_label && d->ignore_label != number)
    return bad_json(path,
                    "\"labels\": \"ignore\" is %lld, but data: ignore_label says %d. Take that "
                    "key away, or correct one of them.",
                    (long long)number, d->ignore_label);
  d->ignore_label = (int)number;
  return OK;
}

/* The classes that an entry of the labels is made of; 0: of none that there can be. */
static int classes_of(const json_t *value, int out[LABEL_CLASSES]) {
  size_t count = json_is_array(value) ? json_array_size(value) : 1;
  if (count > LABEL_CLASSES) return 0;
  for (size_t i = 0; i < count; i++) {
    const json_t *number = json_is_array(value) ? json_array_get(value, i) : value;
    if (!json_is_integer(number) || json_integer_value(number) < 1 ||
        json_integer_value(number) >= LABEL_CLASSES)
      return 0;
    out[i] = (int)json_integer_value(number);
    for (size_t k = 0; k < i; k++)
      if (out[k] == out[i]) return 0;
  }
  return (int)count;
}

static status read_region(const char *path, const char *name, const json_t *value, dataset *d,
                          bool occurs[LABEL_CLASSES], json_t *classes) {
  int numbers[LABEL_CLASSES], count = classes_of(value, numbers);
  if (count == 0 || !name[0] || strlen(name) > 200 || !text_is_printable(name))
    return bad_json(path,
                    "\"labels\": \"%.60s\" must be a class from 1 to %d, or a list of some, each "
                    "once, under a printable name.",
                    name, LABEL_CLASSES - 1);
  d->regions[d->region_count++] =
      (class_group){.name = arena_strdup(&d->memory, name),
                    .classes = arena_copy(&d->memory, numbers, (size_t)count * sizeof *numbers),
                    .count = count};
  for (int i = 0; i < count; i++) occurs[numbers[i]] = true;
  if (count == 1) json_object_set_new(classes, name, json_integer(numbers[0]));
  return OK;
}

/* "whole tumor": [1, 2, 3] among the labels: then every label but the background is a region, to be
 * scored as a whole. `classes` becomes the labels as classes, named where a region has only one. */
static status read_regions(const char *path, const json_t *labels, dataset *d, json_t *classes) {
  bool has_list = false, occurs[LABEL_CLASSES] = {0};
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)labels, key, value) has_list |= json_is_array(value);
  if (!has_list) return OK;
  if (json_object_size(labels) > LABEL_CLASSES)
    return bad_json(path, "\"labels\" has more than %d entries.", LABEL_CLASSES);
  d->regions = arena_alloc(&d->memory, json_object_size(labels) * sizeof *d->regions);
  json_object_foreach((json_t *)labels, key, value) {
    bool is_background = json_is_integer(value) && json_integer_value(value) == 0;
    if (is_background || strcmp(key, "ignore") == 0)
      json_object_set(classes, key, value);
    else
      TRY(read_region(path, key, value, d, occurs, classes));
  }
  json_object_foreach(classes, key, value) if (json_integer_value(value) < LABEL_CLASSES)
      occurs[json_integer_value(value)] = false;
  for (int c = 1; c < LABEL_CLASSES; c++) {
    char name[24];
    snprintf(name, sizeof name, "class %d", c);
    if (occurs[c]) json_object_set_new(classes, name, json_integer(c));
  }
  return OK;
}

/* Version 2 of the raw format: channels are files of their own, case_0000.nii.gz, case_0001 …. */
static status read_nnunet_json(const char *path, const json_t *root, dataset *d,
                               const char **ending) {
  *ending = json_string_value(json_object_get(root, "file_ending"));
  if (!*ending)
    return bad_json(
        path, "\"file_ending\" is missing: this is not nnU-Net's raw format, version 2.%s",
        json_object_get(root, "training") ? " It is the Decathlon's: say dataset: {decathlon: …}."
                                          : "");
  if (strcmp(*ending, ".nii.gz") != 0 && strcmp(*ending, ".nii") != 0)
    return bad_json(path, "\"file_ending\" is \"%.40s\"; .nii.gz and .nii are read.", *ending);
  if (!json_object_get(root, "channel_names"))
    return bad_json(path, "\"channel_names\" is missing: name the channels, {\"0\": \"CT\"}.");
  const json_t *labels = json_object_get(root, "labels");
  TRY(read_ignore(path, labels, d));
  json_t *classes = json_object();
  status error = read_regions(path, labels, d, classes);
  if (!error) error = read_classes(path, d->region_count > 0 ? classes : labels, d);
  json_decref(classes);
  if (error) return error;
  return read_channels(path, root, d);
}

/* One of "dataset", under the name of its case: {"images": [a file for every channel], "label": …}. */
static status read_placed_case(const char *path, const char *name, const json_t *item, dataset *d,
                               case_entry *out) {
  const json_t *images = json_object_get(item, "images");
  char where[80];
  snprintf(where, sizeof where, "\"dataset\": \"%.60s\"", name);
  if (!name[0] || name[0] == '.' || strchr(name, '/') || strlen(name) > 200 ||
      !text_is_printable(name))
    return bad_json(path, "%s: a case's name is printable, without / and no . in front.", where);
  if (json_is_array(images) && json_array_size(images) != (size_t)d->channels)
    return bad_json(path, "%s has %zu images, but \"channel_names\" names %d channels.", where,
                    json_array_size(images), d->channels);
  *out = (case_entry){.name = arena_strdup(&d->memory, name)};
  return read_case(path, where, "{\"images\": [\"…_0000.nii.gz\", …], \"label\": \"….nii.gz\"}",
                   json_is_array(images) ? images : NULL, json_object_get(item, "label"), d, out);
}

/* "dataset": where the files of every case lie, when they are not to be looked for in imagesTr and
 * labelsTr. */
static status read_placed(const char *path, const json_t *cases, dataset *d, problems *found) {
  size_t count = json_object_size(cases);
  if (count == 0 || count > CASES_MAX)
    return bad_json(path,
                    "\"dataset\" must be a mapping from at most %d cases to their files, as in "
                    "{\"case\": {\"images\": [\"…_0000.nii.gz\", …], \"label\": \"….nii.gz\"}}.",
                    CASES_MAX);
  d->cases = arena_alloc(&d->memory, count * sizeof *d->cases);
  const char *name;
  json_t *item;
  json_object_foreach((json_t *)cases, name, item) {
    status error = read_placed_case(path, name, item, d, &d->cases[d->case_count]);
    problems_add(found, error);
    if (!error) d->case_count++;
  }
  return OK;
}

/* What lies in imagesTr and labelsTr. */
static status find_cases(const char *folder, const char *ending, dataset *d, problems *found) {
  const char **images = arena_alloc(&d->memory, (size_t)d->channels * sizeof *images);
  for (int c = 0; c < d->channels; c++)
    images[c] = arena_printf(&d->memory, "imagesTr/*_%04d%s", c, ending);
  const char *labels = arena_printf(&d->memory, "labelsTr/*%s", ending);
  return pair_files(folder, images, d->channels, labels, false, d, found);
}

static status read_nnunet(const data_spec *spec, dataset *d, problems *found) {
  const char *path = dataset_json(spec, d), *ending;
  json_t *root;
  TRY(load_json(path, &root));
  read_name(root, d);
  char *place = path_folder(path);
  const char *folder = arena_strdup(&d->memory, place);
  free(place);
  if (!json_object_get(root, "name")) name_after_folder(folder, d);
  status error = read_nnunet_json(path, root, d, &ending);
  const json_t *promised = json_object_get(root, "numTraining"),
               *placed = json_object_get(root, "dataset");
  int before = found->count;
  if (!error)
    error = placed ? read_placed(path, placed, d, found) : find_cases(folder, ending, d, found);
  if (!error && found->count == before && json_is_integer(promised) &&
      json_integer_value(promised) != d->case_count)
    problems_add(found, bad_json(path, "\"numTraining\" is %lld, but %s %d cases%s.",
                                 (long long)json_integer_value(promised),
                                 placed ? "\"dataset\" has" : "imagesTr holds", d->case_count,
                                 placed ? "" : ": the download may be incomplete"));
  json_decref(root);
  return error;
}

status layout_read(const data_spec *spec, dataset *d, problems *found) {
  d->ignore_label = spec->ignore_label;
  switch (spec->layout) {
  case DATASET_DECATHLON:
    TRY(read_decathlon(spec, d, found));
    break;
  case DATASET_BTCV:
    TRY(read_btcv(spec, d, found));
    break;
  case DATASET_NNUNET:
    TRY(read_nnunet(spec, d, found));
    break;
  case DATASET_FILES:
    TRY(read_patterns(spec, d, found));
    break;
  }
  for (int i = 0; i < d->case_count; i++) d->cases[i].ignore_label = d->ignore_label;
  sort_cases(spec->dataset, d, found);
  return OK;
}
