#include "data/dataset.h"

#include "base/files.h"
#include "base/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
  JSON_LIMIT_BYTES = 64 << 20,
  CASES_MAX = 1 << 20,
  CLASSES_MAX = 256, /* label maps are uint8 */
  CHANNELS_MAX = 1024
};

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

static bool is_printable(const char *text) {
  for (; *text; text++)
    if ((unsigned char)*text < 32 || *text == 127) return false;
  return true;
}

/* "labels": {"0": "background", "1": "liver"}, or the other way round with numbers as values. */
static status read_classes(const char *path, const json_t *root, dataset *d) {
  const json_t *map = json_object_get(root, "labels");
  if (!json_is_object(map) || json_object_size(map) == 0)
    return bad_json(path, "\"labels\" must be a mapping from class numbers to names, as in "
                          "{\"0\": \"background\", \"1\": \"liver\"}.");
  const char *names[CLASSES_MAX] = {0}, *key;
  json_t *value;
  json_object_foreach((json_t *)map, key, value) {
    int number = 0;
    const char *name = key;
    if (plain_number(key, CLASSES_MAX, &number) && json_is_string(value))
      name = json_string_value(value);
    else if (json_is_integer(value) && json_integer_value(value) >= 0 &&
             json_integer_value(value) < CLASSES_MAX)
      number = (int)json_integer_value(value);
    else
      return bad_json(path,
                      "\"labels\": the entry \"%.60s\" does not pair a class number from 0 to "
                      "255 with a name.",
                      key);
    if (names[number])
      return bad_json(path, "\"labels\": class %d is named twice, \"%.60s\" and \"%.60s\".", number,
                      names[number], name);
    if (!name[0] || strlen(name) > 200 || !is_printable(name))
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
  return OK;
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
  for (size_t i = 0; i < count; i++) {
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    if (!json_object_get(map, key))
      return bad_json(path, "\"modality\" has %zu channels but no channel \"%zu\".", count, i);
  }
  d->channels = (int)count;
  return OK;
}

static bool is_volume_name(const char *path) {
  return text_ends_with(path, ".nii") || text_ends_with(path, ".nii.gz");
}

/* hippocampus_001 of imagesTr/hippocampus_001.nii.gz */
static const char *case_name(arena *memory, const char *path) {
  const char *slash = strrchr(path, '/'), *start = slash ? slash + 1 : path;
  size_t length = strlen(start) - (text_ends_with(start, ".gz") ? 7 : 4);
  return arena_strndup(memory, start, length);
}

static status case_file(const char *json_path, const char *folder, const char *name,
                        const char *what, const char *file, dataset *d, const char **out) {
  char *joined = path_join(folder, file[0] == '.' && file[1] == '/' ? file + 2 : file);
  if (!joined) return error_out_of_memory(strlen(folder));
  *out = arena_strdup(&d->memory, joined);
  free(joined);
  struct stat info;
  if (stat(*out, &info) != 0)
    return error_new(ERROR_DATA, NOWHERE,
                     "case %s: the %s %s is missing. Complete the download, or take the case out "
                     "of %s.",
                     name, what, *out, json_path);
  if (!S_ISREG(info.st_mode))
    return error_new(ERROR_DATA, NOWHERE, "case %s: the %s %s is not a file.", name, what, *out);
  return OK;
}

static status read_case(const char *path, const char *folder, size_t index, const json_t *item,
                        dataset *d, case_entry *out) {
  const json_t *image = json_object_get(item, "image"), *label = json_object_get(item, "label");
  if (json_is_string(item)) image = item;
  if (!json_is_string(image) || (label && !json_is_string(label)))
    return bad_json(path,
                    "\"training\"[%zu] must be {\"image\": \"….nii.gz\", \"label\": "
                    "\"….nii.gz\"}.",
                    index);
  const char *files[2] = {json_string_value(image), label ? json_string_value(label) : NULL};
  for (int i = 0; i < 2; i++)
    if (files[i] &&
        (!is_volume_name(files[i]) || strlen(files[i]) > 4000 || !is_printable(files[i])))
      return bad_json(path,
                      "\"training\"[%zu]: \"%.100s\" is not the path of a .nii or .nii.gz "
                      "file.",
                      index, files[i]);
  out->name = case_name(&d->memory, files[0]);
  out->class_count = d->class_count;
  if (!out->name[0] || out->name[0] == '.')
    return bad_json(path, "\"training\"[%zu]: \"%.100s\" gives the case no name.", index, files[0]);
  TRY(case_file(path, folder, out->name, "image", files[0], d, &out->image));
  if (files[1]) TRY(case_file(path, folder, out->name, "label", files[1], d, &out->label));
  return OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const case_entry *)a)->name, ((const case_entry *)b)->name);
}

static status read_cases(const char *path, const json_t *root, dataset *d) {
  const json_t *list = json_object_get(root, "training");
  size_t count = json_array_size(list);
  if (!json_is_array(list) || count == 0)
    return bad_json(path, "\"training\" must be a list of cases.");
  if (count > CASES_MAX) return bad_json(path, "\"training\" has more than %d cases.", CASES_MAX);
  d->cases = arena_alloc(&d->memory, count * sizeof *d->cases);
  char *folder = path_folder(path);
  if (!folder) return error_out_of_memory(strlen(path));
  problems all = {0};
  for (size_t i = 0; i < count; i++) {
    case_entry *entry = &d->cases[d->case_count];
    status error = read_case(path, folder, i, json_array_get(list, i), d, entry);
    problems_add(&all, error);
    if (!error) d->case_count++;
  }
  free(folder);
  qsort(d->cases, (size_t)d->case_count, sizeof *d->cases, by_name);
  for (int i = 1; i < d->case_count; i++)
    if (strcmp(d->cases[i].name, d->cases[i - 1].name) == 0)
      problems_add(&all, bad_json(path,
                                  "two cases are called %s (%s and %s). A case that is in two "
                                  "roles would leak from training into the test.",
                                  d->cases[i].name, d->cases[i - 1].image, d->cases[i].image));
  return problems_take(&all);
}

static status assign_roles(const data_spec *spec, uint64_t seed, dataset *d) {
  int n = d->case_count, wanted = 0, count[3], end = 0;
  double sum = 0;
  for (int r = 0; r < 3; r++) {
    wanted += spec->split[r] > 0;
    sum += spec->split[r];
    int cut = (int)(sum * n + 0.5);
    if (cut > n || r == 2) cut = n;
    count[r] = cut - end;
    end = cut;
  }
  if (spec->split[2] <= 0) { /* rounding errors of the sum must not fill an empty role */
    count[spec->split[1] > 0 ? 1 : 0] += count[2];
    count[2] = 0;
  }
  if (n < wanted)
    return error_new(ERROR_DATA, spec->split_at,
                     "the split asks for %d roles, but %s has only %d case%s", wanted,
                     spec->dataset, n, n == 1 ? "" : "s");
  for (int r = 0; r < 3; r++)
    while (spec->split[r] > 0 && count[r] == 0) {
      int largest = 0;
      for (int k = 1; k < 3; k++)
        if (count[k] > count[largest]) largest = k;
      count[largest]--;
      count[r]++;
    }
  int32_t *order = malloc((size_t)n * sizeof *order);
  if (!order) return error_out_of_memory((size_t)n * sizeof *order);
  rng random = rng_open(rng_key_of(seed, "split", 0, "", 0), text_hash("split"));
  rng_permutation(&random, order, n);
  for (int i = 0; i < n; i++)
    d->cases[order[i]].role = i < count[0]              ? ROLE_TRAIN
                              : i < count[0] + count[1] ? ROLE_VALIDATION
                                                        : ROLE_TEST;
  free(order);
  return OK;
}

static uint64_t file_bytes(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static status read_dataset(const data_spec *spec, const json_t *root, uint64_t seed, dataset *d) {
  const char *path = spec->dataset;
  if (!json_is_object(root))
    return bad_json(path, "this is not a dataset.json: a mapping is expected.");
  const json_t *name = json_object_get(root, "name");
  bool named = json_is_string(name) && json_string_value(name)[0] &&
               strlen(json_string_value(name)) <= 200 && is_printable(json_string_value(name));
  d->name = arena_strdup(&d->memory, named ? json_string_value(name) : "unnamed");
  TRY(read_classes(path, root, d));
  TRY(read_channels(path, root, d));
  TRY(read_cases(path, root, d));
  TRY(assign_roles(spec, seed, d));
  for (int i = 0; i < d->case_count; i++) {
    const case_entry *c = &d->cases[i];
    d->identity = hash_mix(d->identity, text_hash(c->name));
    d->identity = hash_mix(d->identity, (uint64_t)c->role);
    d->identity = hash_mix(d->identity, file_bytes(c->image));
    d->identity = hash_mix(d->identity, c->label ? file_bytes(c->label) : 0);
  }
  return OK;
}

status dataset_open(const data_spec *spec, uint64_t seed, dataset **out) {
  *out = NULL;
  char *text;
  size_t length;
  status error = file_read(spec->dataset, JSON_LIMIT_BYTES, &text, &length);
  if (error) return error_locate(error, spec->dataset_at);
  json_error_t parse;
  json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &parse);
  free(text);
  if (!root)
    return error_locate(bad_json(spec->dataset, "line %d: %s", parse.line, parse.text),
                        spec->dataset_at);
  dataset *d = calloc(1, sizeof *d);
  error = d ? read_dataset(spec, root, seed, d) : error_out_of_memory(sizeof *d);
  json_decref(root);
  if (error) {
    dataset_free(d);
    return error_locate(error, spec->dataset_at);
  }
  *out = d;
  return OK;
}

void dataset_free(dataset *d) {
  if (!d) return;
  arena_free(&d->memory);
  free(d);
}

int dataset_role(const dataset *d, role r, int *index) {
  int count = 0;
  for (int i = 0; i < d->case_count; i++)
    if (d->cases[i].role == r) index[count++] = i;
  return count;
}

int dataset_role_count(const dataset *d, role r) {
  int count = 0;
  for (int i = 0; i < d->case_count; i++) count += d->cases[i].role == r;
  return count;
}

int64_t dataset_steps(const dataset *d, role r, const data_spec *spec, int64_t a_step) {
  int64_t crops = spec->crops_per_case > 0 ? spec->crops_per_case : 1;
  return (dataset_role_count(d, r) * crops + a_step - 1) / a_step;
}
