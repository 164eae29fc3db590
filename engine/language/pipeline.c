/* A pipeline file from text to specs: include bases, apply overrides, evaluate parameters, fill in
 * every expression outside of graphs, then read and check each part. Problems are collected, so
 * that one run shows them all; a value that could not be evaluated becomes `unreadable`, about
 * which nothing more is said. */
#include "language/pipeline.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/device_name.h"
#include "base/files.h"
#include "base/text.h"
#include "data/label.h"
#include "language/bind.h"
#include "language/load.h"

enum { MAX_PARAMS = 1000, MAX_STAGES = 100, MAX_SIDE = 4096, MAX_GROUPS = 100 };
static const int64_t REQUIRED = INT64_MIN;
static const size_t MAX_WEIGHT_FILE_BYTES = (size_t)8 << 30;
static const char the_pipeline[] = "the pipeline";
static const char fingerprint_key[] = "fingerprint";
static const char fingerprint_file[] = "fingerprint.json"; /* its name in a bundle */

typedef struct path_fix { /* a name that `resolved` writes as an absolute path */
  tree *node;
  const char *text;
} path_fix;

/* What a pipeline is loaded for. */
typedef enum purpose {
  TO_RUN,
  TO_PREDICT, /* neither data set nor initial weights have to exist any more */
  TO_LOOK     /* at its data: the fingerprint may not exist yet */
} purpose;

typedef struct loader {
  pipeline *p;
  purpose purpose;
  arena *memory;
  problems all;
  const scope *names;  /* in which expressions are evaluated: the file's, or a stage's */
  int64_t nodes;       /* made by evaluation so far */
  const char **failed; /* parameters without a value: what mentions them stays unread, silently */
  int failed_count, failed_capacity;
  uint64_t model_hash;
  path_fix *fixes;
  int fix_count, fix_capacity;
  path_fix *placed; /* paths of the data set with no root to begin at */
  int placed_count, placed_capacity;
  const char *data_root; /* that `resolved` gives them */
  const char *root_name; /* of the pipeline file, in a bundle */
} loader;

/* ---- reading helpers ----------------------------------------------------------------------- */

static void report(loader *l, source_pos at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void report(loader *l, source_pos at, const char *format, ...) {
  va_list args;
  va_start(args, format);
  problems_add(&l->all, error_newv(ERROR_PIPELINE, at, format, args));
  va_end(args);
}

/* Present and readable? A missing key is NULL, one that was already complained about unreadable. */
static bool is_there(const tree *t) {
  return t && t != &unreadable;
}

/* `like`: an example. */
static bool is_map_like(loader *l, const tree *t, const char *what, const char *like) {
  char found[96];
  if (!is_there(t)) return false;
  if (t->kind == TREE_MAP) return true;
  report(l, t->at, "%s must be a mapping%s%s, not %s.", what, like[0] ? " such as " : "", like,
         tree_describe(t, found));
  return false;
}

static bool is_map(loader *l, const tree *t, const char *what) {
  return is_map_like(l, t, what, "");
}

/* "stage x: epochs"; keys of the file itself stand alone. */
static const char *label(loader *l, const char *what, const char *key) {
  return what == the_pipeline ? key : arena_printf(l->memory, "%s: %s", what, key);
}

static const tree *need(loader *l, const tree *map, const char *what, const char *key,
                        source_pos at) {
  const tree *t = tree_get(map, key);
  if (!t) report(l, at, "%s needs \"%s\".", what, key);
  return t;
}

static int64_t read_int(loader *l, const tree *map, const char *what, const char *key,
                        int64_t fallback, int64_t min, int64_t max, source_pos at) {
  const tree *t = fallback == REQUIRED ? need(l, map, what, key, at) : tree_get(map, key);
  int64_t value;
  int64_t instead = fallback == REQUIRED ? min : fallback;
  if (!is_there(t)) return instead;
  status error = error_prefix(tree_int(t, &value), "%s", label(l, what, key));
  if (!error && (value < min || value > max)) {
    if (max == INT64_MAX)
      report(l, t->at, "%s must be at least %lld, not %lld.", label(l, what, key), (long long)min,
             (long long)value);
    else
      report(l, t->at, "%s must be from %lld to %lld, not %lld.", label(l, what, key),
             (long long)min, (long long)max, (long long)value);
    return instead;
  }
  problems_add(&l->all, error);
  return error ? instead : value;
}

static double read_float(loader *l, const tree *map, const char *what, const char *key,
                         double fallback, double min, double max) {
  const tree *t = tree_get(map, key);
  double value;
  if (!is_there(t)) return fallback;
  status error = error_prefix(tree_float(t, &value), "%s", label(l, what, key));
  problems_add(&l->all, error);
  if (error) return fallback;
  if (value >= min && value <= max) return value;
  if (isinf(max))
    report(l, t->at, "%s must be at least %.10g, not %.10g.", label(l, what, key), min, value);
  else
    report(l, t->at, "%s must be from %.10g to %.10g, not %.10g.", label(l, what, key), min, max,
           value);
  return fallback;
}

static bool read_bool(loader *l, const tree *map, const char *what, const char *key,
                      bool fallback) {
  const tree *t = tree_get(map, key);
  bool value = fallback;
  if (is_there(t))
    problems_add(&l->all, error_prefix(tree_bool(t, &value), "%s", label(l, what, key)));
  return value;
}

static const char *read_text(loader *l, const tree *map, const char *what, const char *key,
                             const char *fallback) {
  const tree *t = tree_get(map, key);
  const char *value = fallback;
  if (is_there(t))
    problems_add(&l->all, error_prefix(tree_string(t, &value), "%s", label(l, what, key)));
  return value;
}

/* Index of the chosen name. `choices` is NULL-terminated. */
static int read_choice(loader *l, const tree *map, const char *what, const char *key,
                       const char *const *choices, int fallback) {
  const tree *t = tree_get(map, key);
  char found[96];
  if (!is_there(t)) return fallback;
  for (int i = 0; choices[i] && t->kind == TREE_SCALAR; i++)
    if (strcmp(t->text, choices[i]) == 0) return i;
  text_buffer names = {0};
  for (int i = 0; choices[i]; i++)
    text_add(&names, "%s%s", i == 0 ? "" : choices[i + 1] ? ", " : " or ", choices[i]);
  report(l, t->at, "%s must be %s, not %s.", label(l, what, key), names.data,
         tree_describe(t, found));
  text_free(&names);
  return fallback;
}

/* Seconds: a number, or "90s", "10m", "2h". */
/* `least`: 0 where no waiting is a meaningful answer. */
static double read_seconds(loader *l, const tree *map, const char *what, const char *key,
                           double least, double fallback) {
  const tree *t = tree_get(map, key);
  char found[96];
  if (!is_there(t)) return fallback;
  double seconds = -1, unit = 1;
  size_t length = t->kind == TREE_SCALAR ? strlen(t->text) : 0;
  if (length > 0) {
    char last = t->text[length - 1];
    unit = last == 's' ? 1 : last == 'm' ? 60 : last == 'h' ? 3600 : 0;
    char *number = arena_strndup(l->memory, t->text, length - (unit > 0));
    tree *digits = tree_scalar(l->memory, t->at, number, false);
    status error = tree_float(digits, &seconds);
    if (error) seconds = -1;
    error_free(error);
    if (unit == 0) unit = 1;
  }
  seconds *= unit;
  if (seconds >= least && seconds <= 1e9) return seconds;
  report(l, t->at, "%s must be a time such as 90 (seconds), 90s, 10m or 2h, not %s.",
         label(l, what, key), tree_describe(t, found));
  return fallback;
}

/* Names of files and folders come from these. */
static bool is_file_word(const char *text) {
  size_t length = strlen(text);
  return length > 0 && length <= 100 && text[0] != '.' && text[0] != '-' &&
         strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             length;
}

/* `resolved` calls a file as a bundle does (bundle.h). */
static void fix_name(loader *l, const tree *node, const char *name) {
  path_fix fix = {(tree *)node, name};
  ARENA_PUSH(l->memory, l->fixes, l->fix_count, l->fix_capacity, fix);
}

static const char *absolute_path(loader *l, const char *path) {
  char real[PATH_MAX];
  return realpath(path, real) ? arena_strdup(l->memory, real) : normal_path(l->memory, path);
}

static void fix_path(loader *l, const tree *node, const char *path) {
  fix_name(l, node, absolute_path(l, path));
}

/* ---- data ---------------------------------------------------------------------------------- */

/* Where a data set's path starts: data.root, or the file that names it. */
typedef struct data_root {
  const tree *node;
  const char *folder; /* NULL: not given */
  bool failed;
} data_root;

static data_root read_root(loader *l, const tree *data) {
  data_root root = {.node = tree_get(data, "root")};
  root.failed = root.node == &unreadable;
  if (!is_there(root.node)) return root;
  const char *text = read_text(l, data, "data", "root", NULL);
  root.failed = !text;
  if (!text) return root;
  root.folder = relative_path(l->p, text, root.node->at);
  fix_path(l, root.node, root.folder);
  return root;
}

static void place(loader *l, const tree *node, const char *path) {
  path_fix placed = {(tree *)node, absolute_path(l, path)};
  ARENA_PUSH(l->memory, l->placed, l->placed_count, l->placed_capacity, placed);
}

/* The resolved file names a data set by a root and paths below it, whatever the file did: then
 * data.root is all that differs on another machine. */
static void place_below_root(loader *l, const data_root *root) {
  if (l->placed_count == 0) return;
  char *common = arena_strdup(l->memory, l->placed[0].text);
  for (int i = 0; i < l->placed_count; i++) {
    const char *path = l->placed[i].text;
    size_t same = 0, end = 0;
    while (path[same] && path[same] == common[same] && !strchr("*?", path[same])) same++;
    for (size_t k = 0; k < same; k++)
      if (path[k] == '/') end = k + 1;
    common[end] = 0;
  }
  size_t length = strlen(common);
  for (int i = 0; i < l->placed_count; i++)
    fix_name(l, l->placed[i].node, l->placed[i].text + length);
  if (length > 1) common[length - 1] = 0;
  l->data_root = common;
  if (root->node) fix_name(l, root->node, common);
}

/* A path below the root; NULL when it could not be read. */
static const char *below_root(loader *l, const data_root *root, const tree *t, const char *what) {
  const char *name;
  if (!is_there(t) || root->failed) return NULL;
  status error = error_prefix(tree_string(t, &name), "%s", what);
  problems_add(&l->all, error);
  if (error) return NULL;
  bool is_below = root->folder && name[0] != '/';
  if (root->folder) {
    char *joined = path_join(root->folder, name);
    name = arena_strdup(l->memory, joined);
    free(joined);
  } else {
    name = relative_path(l->p, name, t->at);
  }
  if (!is_below) place(l, t, name);
  return name;
}

static void check_dataset_there(loader *l, const data_root *root, const tree *t) {
  const char *path = l->p->data.dataset;
  if (l->purpose == TO_PREDICT || file_exists(path)) return;
  report(l, root->folder && !file_exists(root->folder) ? root->node->at : t->at,
         "There is no data set %s. Say where it is with --set data.root=DIR, or make a synthetic "
         "one with `strata phantom DIR`.",
         path);
}

/* [liver, tumour], from 1 on, or {1: liver, 2: tumour}. Images without labels need none. */
static void read_classes(loader *l, const tree *files, const char *what) {
  static const char *only_background[] = {"background"};
  data_spec *d = &l->p->data;
  const tree *t = is_there(tree_get(files, "labels")) ? need(l, files, what, "classes", files->at)
                                                      : tree_get(files, "classes");
  char found[96];
  d->class_names = only_background;
  d->class_count = 1;
  if (!is_there(t)) return;
  if (t->kind == TREE_SCALAR || t->count == 0 || t->count >= LABEL_CLASSES) {
    report(l, t->at, "%s: classes must be a list of names, [liver, tumour], or {1: liver}, not %s.",
           what, tree_describe(t, found));
    return;
  }
  d->class_names = arena_alloc(l->memory, LABEL_CLASSES * sizeof *d->class_names);
  d->class_names[0] = "background";
  d->class_count = 1;
  for (int i = 0; i < t->count; i++) {
    int64_t number = i + 1;
    const char *name;
    if (t->items[i] == &unreadable) continue;
    status error = t->kind == TREE_MAP ? tree_int(t->keys[i], &number) : OK;
    if (!error) error = tree_string(t->items[i], &name);
    if (!error && (number < 0 || number >= LABEL_CLASSES))
      error =
          error_new(ERROR_PIPELINE, t->keys[i]->at, "a class is a number from 1 to %d, not %lld.",
                    LABEL_CLASSES - 1, (long long)number);
    problems_add(&l->all, error_prefix(error, "%s: classes", what));
    if (error) continue;
    d->class_names[number] = name;
    if (number >= d->class_count) d->class_count = (int)number + 1;
  }
  for (int c = 1; c < d->class_count; c++)
    if (!d->class_names[c]) d->class_names[c] = arena_printf(l->memory, "class %d", c);
}

/* Patterns stay as they are below a root: its folder's name may hold any character. */
static const char *read_pattern(loader *l, const data_root *root, const tree *t, const char *what) {
  const char *pattern;
  if (!is_there(t) || root->failed) return NULL;
  status error = error_prefix(tree_string(t, &pattern), "%s", what);
  problems_add(&l->all, error);
  if (error) return NULL;
  if (root->folder) return pattern;
  pattern = relative_path(l->p, pattern, t->at);
  place(l, t, pattern);
  return pattern;
}

/* {images: pattern or one a channel, labels: pattern, classes: …}; labels or both may be missing. */
static void read_files(loader *l, const data_root *root, const tree *files) {
  static const char *const keys[] = {"images", "labels", "classes", NULL};
  static const char what[] = "data: dataset: files";
  data_spec *d = &l->p->data;
  char found[96];
  if (!is_map_like(l, files, what,
                   "{images: \"img/*.nii.gz\", labels: \"seg/*.nii.gz\", classes: [liver]}"))
    return;
  tree_check_keys(files, what, keys, &l->all);
  read_classes(l, files, what);
  const tree *images = need(l, files, what, "images", files->at);
  if (!is_there(images)) return;
  if (images->kind == TREE_MAP || (images->kind == TREE_LIST && images->count == 0)) {
    report(l, images->at,
           "%s: images must be a pattern such as \"img/*.nii.gz\", or a list of them, one a "
           "channel, not %s.",
           what, tree_describe(images, found));
    return;
  }
  int count = images->kind == TREE_LIST ? images->count : 1;
  d->image_patterns = arena_alloc(l->memory, (size_t)count * sizeof *d->image_patterns);
  for (int i = 0; i < count; i++) {
    const tree *item = images->kind == TREE_LIST ? images->items[i] : images;
    const char *pattern = read_pattern(l, root, item, "data: dataset: files: images");
    if (pattern) d->image_patterns[d->image_pattern_count++] = pattern;
  }
  const tree *labels = tree_get(files, "labels");
  if (labels) d->label_pattern = read_pattern(l, root, labels, "data: dataset: files: labels");
  d->dataset = root->folder ? root->folder : ".";
}

/* Mappings merge, so that one of two may be a base's. */
static void report_two_layouts(loader *l, const tree *a, const char *name, const tree *b,
                               const char *other) {
  const char *of_base = a->at.file == b->at.file ? NULL : a->at.file == l->p->path ? other : name;
  report(l, a->at, "data: dataset has one layout, not %s and %s%s%s%s.", other, name,
         of_base ? "; `" : "", of_base ? of_base : "",
         of_base ? ": ~` takes away the one of the base" : "");
}

const char *const dataset_layout_names[] = {"decathlon", "btcv", "nnunet", "files", NULL};

static void read_dataset(loader *l, const tree *data, source_pos at) {
  data_spec *d = &l->p->data;
  const tree *dataset = need(l, data, "data", "dataset", at);
  data_root root = read_root(l, data);
  if (!is_map_like(l, dataset, "data: dataset", "{decathlon: dataset.json}")) return;
  d->dataset_at = dataset->at;
  tree_check_keys(dataset, "data: dataset", dataset_layout_names, &l->all);
  const tree *given = NULL;
  for (int i = 0; dataset_layout_names[i]; i++) {
    const tree *t = tree_get(dataset, dataset_layout_names[i]);
    if (!t) continue;
    if (given) {
      report_two_layouts(l, t, dataset_layout_names[i], given, dataset_layout_names[d->layout]);
      return;
    }
    given = t;
    d->layout = (dataset_layout)i;
  }
  if (!given) {
    if (dataset->count == 0)
      report(l, dataset->at, "data: dataset needs one of decathlon, btcv, nnunet and files.");
    return;
  }
  d->dataset_at = given->at;
  if (d->layout == DATASET_FILES) {
    read_files(l, &root, given);
    place_below_root(l, &root);
    return;
  }
  const char *path =
      below_root(l, &root, given,
                 arena_printf(l->memory, "data: dataset: %s", dataset_layout_names[d->layout]));
  if (!path) return;
  d->dataset = path;
  place_below_root(l, &root);
  check_dataset_there(l, &root, given);
}

/* ---- split --------------------------------------------------------------------------------- */

static const char *const role_keys[] = {"train", "validation", "test", NULL};
enum { VALIDATION = 1 };                  /* among them */
static const double MAX_VALIDATION = 0.9; /* of the cases that do not test */

static void read_fractions(loader *l, const tree *split) {
  /* The last three would have made another kind of split. */
  static const char *const keys[] = {"train", "validation", "test", "folds", "fold", "file", NULL};
  data_spec *d = &l->p->data;
  int before = l->all.count;
  tree_check_keys(split, "data: split", keys, &l->all);
  for (int i = 0; i < 3; i++)
    d->split[i] = read_float(l, split, "data: split", role_keys[i], 0, 0, 1);
  double sum = d->split[0] + d->split[1] + d->split[2];
  if (l->all.count > before || any_unreadable(split)) return;
  if (fabs(sum - 1) > 1e-6)
    report(l, split->at, "data: split: the fractions add up to %.6g, not to 1.", sum);
  else if (d->split[0] <= 0)
    report(l, split->at, "data: split: train must be more than 0.");
}

static void read_folds(loader *l, const tree *split) {
  static const char *const keys[] = {"folds", "fold", "validation", NULL};
  data_spec *d = &l->p->data;
  d->split_kind = SPLIT_FOLDS;
  for (int r = 0; r < 3; r += 2)
    if (tree_get(split, role_keys[r])) {
      report(
          l, tree_get(split, role_keys[r])->at,
          "data: split: folds or fractions, not both; `folds: ~, fold: ~` takes away those that a "
          "base has.");
      return;
    }
  tree_check_keys(split, "data: split", keys, &l->all);
  d->folds = read_int(l, split, "data: split", "folds", REQUIRED, 2, 1000, split->at);
  d->fold = read_int(l, split, "data: split", "fold", REQUIRED, 0, d->folds - 1, split->at);
  d->split[VALIDATION] = read_float(l, split, "data: split", "validation", 0, 0, MAX_VALIDATION);
}

static void read_case_lists(loader *l, const tree *split) {
  data_spec *d = &l->p->data;
  char found[96];
  tree_check_keys(split, "data: split", role_keys, &l->all);
  d->split_kind = SPLIT_NAMES;
  int before = l->all.count;
  for (int r = 0; r < 3; r++) {
    const tree *list = tree_get(split, role_keys[r]);
    if (!is_there(list)) continue;
    if (r == VALIDATION && list->kind == TREE_SCALAR) {
      d->split[r] = read_float(l, split, "data: split", role_keys[r], 0, 0, MAX_VALIDATION);
      continue;
    }
    if (list->kind != TREE_LIST) {
      report(l, list->at, "data: split: %s must be a list of cases like the others, not %s.",
             role_keys[r], tree_describe(list, found));
      continue;
    }
    listed_case *names = arena_alloc(l->memory, (size_t)(list->count + 1) * sizeof *names);
    for (int i = 0; i < list->count; i++) {
      if (list->items[i] == &unreadable) continue;
      listed_case *item = &names[d->split_name_count[r]];
      item->at = list->items[i]->at;
      status error =
          error_prefix(tree_string(list->items[i], &item->name), "data: split: %s", role_keys[r]);
      if (!error) d->split_name_count[r]++;
      problems_add(&l->all, error);
    }
    d->split_names[r] = names;
  }
  if (d->split_name_count[0] == 0 && l->all.count == before)
    report(l, split->at, "data: split: train names no case.");
}

/* An entry of a list of cases, as the name of the case: "img0001", "imagesTr/img0001.nii.gz", or
 * MONAI's {"image": "imagesTr/img0001.nii.gz", …}, whose image may be a list of channels. */
static tree *listed_name(loader *l, const tree *item, const char *list) {
  const tree *image = item->kind == TREE_MAP ? tree_get(item, "image") : item;
  if (image && image != item && image->kind == TREE_LIST && image->count > 0)
    image = image->items[0];
  char found[96];
  if (!image || image->kind != TREE_SCALAR || tree_is_null(image)) {
    report(l, item->at, "data: split: file: %s: an entry is a name or {image: file}, not %s.", list,
           tree_describe(item, found));
    return &unreadable;
  }
  const char *slash = strrchr(image->text, '/'), *name = slash ? slash + 1 : image->text;
  size_t length = strlen(name), ending = text_ends_with(name, ".nii.gz") ? 7
                                         : text_ends_with(name, ".nii")  ? 4
                                                                         : 0;
  return tree_scalar(l->memory, item->at, arena_strndup(l->memory, name, length - ending), true);
}

/* nnU-Net's splits_final.json is a list of folds, {"train": [case, …], "val": [case, …]}. Of the fold
 * that `fold:` names; NULL: there is no such, which has been reported. */
static const tree *chosen_fold(loader *l, const tree *split, const tree *file, const tree *folds) {
  static const char *const keys[] = {"train", "val", NULL};
  const tree *number = tree_get(split, "fold");
  int64_t fold;
  char found[96];
  if (folds->count == 0) {
    report(l, folds->at, "This split file is a list without any fold.");
    return NULL;
  }
  if (!number)
    report(l, file->at,
           "data: split needs \"fold\": %s is a list of folds, and fold: 0 to %d says which.",
           printable(file->text, found), folds->count - 1);
  if (!is_there(number)) return NULL;
  status error = error_prefix(tree_int(number, &fold), "data: split: fold");
  if (!error && (fold < 0 || fold >= folds->count))
    error = error_new(ERROR_PIPELINE, number->at, "data: split: fold is %lld, but %s has %s%d.",
                      (long long)fold, printable(file->text, found),
                      folds->count > 1 ? "folds 0 to " : "only fold ", folds->count - 1);
  problems_add(&l->all, error);
  if (error) return NULL;
  const tree *chosen = folds->items[fold];
  int before = l->all.count;
  if (chosen->kind == TREE_MAP) tree_check_keys(chosen, "A fold", keys, &l->all);
  if (l->all.count > before) return NULL;
  if (tree_get(chosen, "train") && tree_get(chosen, "val")) return chosen;
  report(l, chosen->at, "A fold must be {\"train\": [case, …], \"val\": [case, …]}, not %s.",
         chosen->kind == TREE_MAP ? "a mapping without one of them" : tree_describe(chosen, found));
  return NULL;
}

static const tree *training_list(const tree *root) {
  const tree *list = tree_get(root, "train");
  if (!list) list = tree_get(root, "training");
  return list && list->kind == TREE_LIST ? list : NULL;
}

static bool has_fold_numbers(const tree *root) {
  const tree *list = training_list(root);
  for (int i = 0; list && i < list->count; i++)
    if (tree_get(list->items[i], "fold")) return true;
  return false;
}

/* MONAI's lists may say the fold of each training case: {"image": …, "label": …, "fold": 2}. Made into
 * what chosen_fold returns. */
static const tree *numbered_fold(loader *l, const tree *split, const tree *root) {
  const tree *list = training_list(root), *number = tree_get(split, "fold");
  int64_t fold, last = 0;
  status error = error_prefix(tree_int(number, &fold), "data: split: fold");
  tree *parts[2], *chosen = tree_new(l->memory, list->at, TREE_MAP, 2);
  static const char *const names[] = {"train", "val"};
  for (int k = 0; k < 2; k++) {
    parts[k] = tree_new(l->memory, list->at, TREE_LIST, list->count);
    chosen->keys[k] = tree_scalar(l->memory, list->at, names[k], false);
    chosen->items[k] = parts[k];
  }
  chosen->count = 2;
  for (int i = 0; i < list->count && !error; i++) {
    const tree *own = tree_get(list->items[i], "fold");
    int64_t n = 0;
    error = own ? error_prefix(tree_int(own, &n), "fold")
                : error_new(ERROR_PIPELINE, list->items[i]->at,
                            "This case has no \"fold\", but others have.");
    if (error) break;
    tree *part = parts[n == fold];
    part->items[part->count++] = list->items[i];
    if (n > last) last = n;
  }
  if (!error && parts[1]->count == 0)
    error = error_new(ERROR_PIPELINE, number->at,
                      "data: split: no case is in fold %lld; they are numbered up to %lld.",
                      (long long)fold, (long long)last);
  problems_add(&l->all, error);
  return error ? NULL : chosen;
}

/* The mapping with lists that the file is, or the fold of it that is asked for; NULL: an error, which
 * has been reported. */
static const tree *read_split_file(loader *l, const tree *split, bool *has_folds) {
  static const char *const keys[] = {"file", "fold", "validation", NULL};
  const tree *file = tree_get(split, "file"), *share = tree_get(split, "validation");
  const char *name;
  source found;
  tree *read = NULL;
  char what[96];
  tree_check_keys(split, "data: split", keys, &l->all);
  status error = error_prefix(tree_string(file, &name), "data: split: file");
  if (!error) error = source_find(l->p, name, "pipelines", file->at, file->at, &found);
  if (!error) error = source_tree(l->p, &found, false, &read);
  if (!error && read->kind == TREE_SCALAR)
    error = error_new(ERROR_PIPELINE, read->at,
                      "A split file is a mapping with the lists train, validation and test, or a "
                      "list of folds, not %s.",
                      tree_describe(read, what));
  bool is_numbered = !error && read->kind == TREE_MAP && has_fold_numbers(read);
  if (!error && read->kind == TREE_MAP && !is_numbered && tree_get(split, "fold"))
    error = error_new(ERROR_PIPELINE, tree_get(split, "fold")->at,
                      "data: split: %s has one split, no folds.", printable(name, what));
  if (!error && share && share->kind != TREE_SCALAR)
    error = error_new(ERROR_PIPELINE, share->at,
                      "data: split: beside a file validation is a share of the cases that train "
                      "there, such as 0.1, not %s.",
                      tree_describe(share, what));
  problems_add(&l->all, error);
  if (error) return NULL;
  is_numbered = is_numbered && is_there(tree_get(split, "fold"));
  *has_folds = read->kind == TREE_LIST || is_numbered;
  if (is_numbered) return numbered_fold(l, split, read);
  return *has_folds ? chosen_fold(l, split, file, read) : read;
}

/* Puts the lists of the file in place of its name: what they say is part of the run's identity and
 * of its resolved file. The cases that a fold of nnU-Net's or MONAI's holds out are those that its
 * results are reported on: they test, as with `folds:`. */
static bool take_split_file(loader *l, tree *split) {
  static const char *const of_mapping[3][3] = {
      {"train", "training"}, {"validation", "val"}, {"test", "testing"}};
  static const char *const of_fold[3][3] = {{"train"}, {NULL}, {"val"}};
  const tree *share = tree_get(split, "validation");
  bool has_folds;
  char what[96];
  const tree *root = read_split_file(l, split, &has_folds);
  if (!root) return false;
  tree *lists = tree_new(l->memory, split->at, TREE_MAP, 3);
  for (int r = 0; r < 3; r++) {
    const char *const *names = has_folds ? of_fold[r] : of_mapping[r];
    const tree *list = NULL;
    for (int i = 0; names[i] && !list; i++) list = tree_get(root, names[i]);
    if (!list) continue;
    if (list->kind != TREE_LIST) {
      report(l, list->at, "data: split: file: %s must be a list of cases, not %s.",
             has_folds ? names[0] : role_keys[r], tree_describe(list, what));
      return false;
    }
    if (r == VALIDATION && share) {
      report(l, share->at, "data: split: validation: %s lists the cases that validate itself.",
             printable(tree_get(split, "file")->text, what));
      return false;
    }
    tree *cases = tree_new(l->memory, list->at, TREE_LIST, list->count);
    for (int i = 0; i < list->count; i++)
      cases->items[cases->count++] =
          listed_name(l, list->items[i], has_folds ? names[0] : role_keys[r]);
    lists->keys[lists->count] = tree_scalar(l->memory, list->at, role_keys[r], false);
    lists->items[lists->count++] = cases;
  }
  if (lists->count == 0) {
    report(l, root->at, "This split file has none of the lists train, validation and test.");
    return false;
  }
  if (share) {
    lists->keys[lists->count] = tree_key(split, "validation");
    lists->items[lists->count++] = (tree *)share;
  }
  *split = *lists;
  return true;
}

static void read_split(loader *l, const tree *data, source_pos at) {
  data_spec *d = &l->p->data;
  const tree *split = need(l, data, "data", "split", at);
  if (!is_there(split)) return;
  d->split_at = split->at;
  if (split->kind == TREE_SCALAR && strcmp(split->text, "listed") == 0) {
    d->split_kind = SPLIT_LISTED;
    if (d->layout != DATASET_DECATHLON)
      report(l, split->at, "data: split: only a dataset.json (decathlon) lists roles itself.");
    return;
  }
  if (!is_map_like(l, split, "data: split", "{train: 0.7, validation: 0.1, test: 0.2}, or listed"))
    return;
  if (tree_get(split, "val")) {
    report(
        l, tree_key(split, "val")->at,
        "data: split has no key \"val\": Strata's words are validation, for the cases that choose "
        "among epochs, and test, for those that are reported on.");
    return;
  }
  if (tree_get(split, "file") &&
      (tree_get(split, "file") == &unreadable || !take_split_file(l, (tree *)split)))
    return;
  bool has_list = false;
  for (int i = 0; i < split->count; i++) has_list |= split->items[i]->kind == TREE_LIST;
  if (tree_get(split, "folds") || tree_get(split, "fold"))
    read_folds(l, split);
  else if (has_list)
    read_case_lists(l, split);
  else
    read_fractions(l, split);
}

/* One pair of parentheses with something between. */
static bool is_patient_pattern(const char *text) {
  size_t open = strcspn(text, "()"), inside = text[open] ? strcspn(text + open + 1, "()") : 0;
  if (text[open] != '(' || inside == 0 || text[open + 1 + inside] != ')') return false;
  return strpbrk(text + open + inside + 2, "()") == NULL;
}

static void read_patient(loader *l, const tree *data) {
  const tree *t = tree_get(data, "patient");
  char found[96];
  if (!is_there(t)) return;
  if (t->kind == TREE_SCALAR && is_patient_pattern(t->text))
    l->p->data.patient = t->text;
  else
    report(l, t->at,
           "data: patient is a pattern of the cases' names with the patient in parentheses, such "
           "as \"(*)_*\", not %s.",
           tree_describe(t, found));
}

static void read_ignore_label(loader *l, const tree *data) {
  data_spec *d = &l->p->data;
  d->ignore_label =
      (int)read_int(l, data, "data", "ignore_label", 0, 1, LABEL_VALUES - 1, data->at);
  if (d->layout == DATASET_FILES && d->ignore_label > 0 && d->ignore_label < d->class_count)
    report(l, tree_get(data, "ignore_label")->at,
           "data: ignore_label must be above all classes, but class %d (%s) is not below %d.",
           d->class_count - 1, d->class_names[d->class_count - 1], d->ignore_label);
}

static void read_data(loader *l, const tree *data) {
  static const char *const keys[] = {
      "root",    "dataset",        "split",          "split_seed",
      "patient", "ignore_label",   "label_fraction", "regions",
      "prepare", "sample",         "cache",          "crops_per_case",
      "queue",   "loader_threads", fingerprint_key,  NULL};
  data_spec *d = &l->p->data;
  if (!is_map(l, data, "data")) return;
  tree_check_keys(data, "data", keys, &l->all);
  read_dataset(l, data, data->at);
  read_split(l, data, data->at);
  d->has_split_seed = is_there(tree_get(data, "split_seed"));
  d->split_seed = (uint64_t)read_int(l, data, "data", "split_seed", 0, 0, INT64_MAX, data->at);
  read_patient(l, data);
  read_ignore_label(l, data);
  data_regions(l->memory, tree_get(data, "regions"), d, &l->all);
  d->label_fraction = read_float(l, data, "data", "label_fraction", 1, 0, 1);
  if (d->label_fraction <= 0)
    report(l, tree_get(data, "label_fraction")->at, "data: label_fraction must be more than 0.");
  d->prepare = operators_read(l->memory, tree_get(data, "prepare"), "data: prepare", OP_PREPARE,
                              "a prepare", &d->prepare_count, &l->all);
  d->sample = operators_read(l->memory, tree_get(data, "sample"), "data: sample", OP_SAMPLE,
                             "a sample", &d->sample_count, &l->all);
  d->crops_per_case = read_int(l, data, "data", "crops_per_case", 1, 1, 100000, data->at);
  d->loader_threads = read_int(l, data, "data", "loader_threads", 2, 1, 1024, data->at);
  d->queue = read_int(l, data, "data", "queue", 4, 1, 1024, data->at);
  const tree *cache_at = tree_get(data, "cache");
  const char *cache = read_text(l, data, "data", "cache", NULL);
  d->no_cache = cache && strcmp(cache, "none") == 0;
  if (cache && !d->no_cache) {
    d->cache = relative_path(l->p, cache, cache_at->at);
    fix_path(l, cache_at, d->cache);
  }
}

/* ---- model --------------------------------------------------------------------------------- */

/* `use`: of the model; NULL: it stands in the file. */
static void check_arguments(loader *l, const tree *use) {
  const tree *with = l->p->model_arguments, *params = tree_get(l->p->model.root, "params");
  const char *names[MAX_PARAMS];
  int count = 0;
  char shown[96];
  for (int i = 0; params && i < params->count && count < MAX_PARAMS; i++)
    names[count++] = params->keys[i]->text;
  for (int i = 0; with && i < with->count; i++) {
    const tree *key = with->keys[i];
    if (tree_get(params, key->text)) continue;
    const char *near = nearest_name(key->text, names, count);
    printable(key->text, shown);
    if (near)
      report(l, key->at, "The model has no parameter \"%s\"; did you mean \"%s\"?", shown, near);
    else if (use && use->at.file != key->at.file)
      report(
          l, key->at,
          "The model has no parameter \"%s\" (see params: in %s). If it was given to another model, "
          "take it away: \"%s: ~\" under model: with:.",
          shown, l->p->model.path, shown);
    else
      report(l, key->at, "The model has no parameter \"%s\" (see params: in %s).", shown,
             l->p->model.path);
  }
}

/* Block files that the pipeline itself names. */
static void fix_blocks(loader *l, const tree *blocks) {
  for (int i = 0; blocks && i < blocks->count; i++) {
    const tree *name = blocks->items[i];
    source found;
    status error = source_find(l->p, name->text, "pipelines", name->at, name->at, &found);
    if (!error && !found.shipped) fix_name(l, name, found.name);
    error_free(error); /* reported when the file is loaded */
  }
}

/* `blocks:` beside `use:`. */
static bool read_model_blocks(loader *l, const tree *blocks) {
  if (!blocks || tree_is_null(blocks)) return true;
  if (!is_map(l, blocks, "model: blocks")) return false;
  int before = l->all.count;
  for (int i = 0; i < blocks->count; i++) {
    const char *file;
    problems_add(&l->all, error_prefix(tree_string(blocks->items[i], &file), "model: blocks: %s",
                                       blocks->keys[i]->text));
  }
  if (l->all.count > before) return false;
  l->p->model_blocks = blocks;
  fix_blocks(l, blocks);
  return true;
}

static void read_model(loader *l, const tree *model) {
  static const char *const keys[] = {"use", "with", "blocks", NULL};
  pipeline *p = l->p;
  if (!is_map_like(l, model, "model", "{use: models/unetr.yaml}")) return;
  p->model_at = model->at;
  const tree *use = tree_get(model, "use"), *with = tree_get(model, "with");
  if (with && with != &unreadable && !tree_is_null(with) && is_map(l, with, "model: with"))
    p->model_arguments = with;
  if (use && use != &unreadable && tree_get(model, "graph")) {
    report(l, use->at, "model has \"use\" and \"graph\": it is a file or stands here, not both.");
    return;
  }
  if (!use && tree_get(model, "graph")) {
    int before = l->all.count;
    check_graph_file(model, "model", true, &l->all);
    if (l->all.count > before) return;
    p->model = (graph_file){.path = model->at.line > 0 ? model->at.file : p->path, .root = model};
    fix_blocks(l, tree_get(model, "blocks"));
  } else {
    const char *name;
    tree_check_keys(model, "model", keys, &l->all);
    if (!use)
      report(l, model->at, "model needs \"use\": the model's file, such as models/unetr.yaml.");
    if (!is_there(use)) return;
    status error = error_prefix(tree_string(use, &name), "model: use");
    if (!error && is_override_place(use->at))
      error = graph_file_load(p, name, NULL, use->at, &p->model);
    else if (!error)
      error = graph_file_load(p, name, use->at.file, use->at, &p->model);
    problems_add(&l->all, error);
    if (error) return;
    source found;
    error = source_find(p, name, "pipelines", use->at, use->at, &found);
    if (!error && !found.shipped) fix_name(l, use, found.name);
    error_free(error); /* it was loaded */
    if (!read_model_blocks(l, tree_get(model, "blocks"))) return;
  }
  check_arguments(l, use);
  problems_add(&l->all, model_files_hash(p, &l->model_hash));
}

static bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* ---- scripts -------------------------------------------------------------------------------- */

const char *const stage_hook_keys[HOOK_COUNT] = {[HOOK_VALIDATION] = "on_validation",
                                                 [HOOK_EPOCH_END] = "on_epoch_end",
                                                 [HOOK_STAGE_END] = "on_stage_end"};

/* Every key but `lua` is the script's. */
static const tree *script_arguments(loader *l, const tree *t) {
  tree *arguments = tree_new(l->memory, t->at, TREE_MAP, t->count);
  for (int i = 0; i < t->count; i++) {
    if (strcmp(t->keys[i]->text, "lua") == 0) continue;
    arguments->keys[arguments->count] = t->keys[i];
    arguments->items[arguments->count++] = t->items[i];
  }
  return arguments;
}

/* `lua: name` and its arguments. Returns false when there is none or it could not be read. */
static bool read_script(loader *l, const tree *map, const char *what, script_ref *out) {
  char found_instead[96];
  if (!is_there(map)) return false;
  if (map->kind != TREE_MAP) {
    report(l, map->at, "%s must be a mapping such as {lua: %s}, not %s.", what,
           map->kind == TREE_SCALAR ? map->text : "NAME", tree_describe(map, found_instead));
    return false;
  }
  const tree *lua = need(l, map, what, "lua", map->at);
  const char *name;
  if (!is_there(lua)) return false;
  source found;
  status error = error_prefix(tree_string(lua, &name), "%s: lua", what);
  if (!error) error = load_script(l->p, name, lua->at, out, &found);
  problems_add(&l->all, error);
  out->arguments = script_arguments(l, map);
  if (!error && !found.shipped) fix_name(l, lua, found.name);
  return !error;
}

/* The name of the file without folder and ending. */
static const char *script_name(loader *l, const char *path) {
  const char *slash = strrchr(path, '/'), *start = slash ? slash + 1 : path;
  const char *dot = strrchr(start, '.');
  return arena_strndup(l->memory, start, dot ? (size_t)(dot - start) : strlen(start));
}

/* Names that stand for something else beside metrics in evaluation.json and the log. */
static bool is_metric_name_taken(const char *name, const evaluate_spec *e) {
  static const char *const taken[] = {"name",   "cases",       "missed", "hallucinated",
                                      "groups", "regions",     "voxels", "empty_policy",
                                      "loss",   "aggregation", "number"};
  bool is_taken = false;
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) is_taken |= strcmp(taken[i], name) == 0;
  for (int m = 0; m < METRIC_COUNT; m++)
    is_taken |= strcmp(metric_table[m].name, name) == 0 || strcmp(metric_table[m].key, name) == 0;
  for (int i = 0; i < e->custom_count; i++) is_taken |= strcmp(e->custom[i].info.name, name) == 0;
  return is_taken;
}

/* `{lua: fbeta, beta: 2, name: f2}`; `name` is not the script's. */
static void read_custom_metric(loader *l, const tree *t, const char *what, evaluate_spec *e) {
  const char *inside = arena_printf(l->memory, "%s: metrics", what), *name;
  custom_metric *m = &e->custom[e->custom_count];
  char shown[96];
  if (e->custom_count == CUSTOM_METRICS_MAX) {
    report(l, t->at, "%s: at most %d metrics can be Lua's.", inside, CUSTOM_METRICS_MAX);
    return;
  }
  if (!read_script(l, t, inside, &m->script)) return;
  tree *arguments = tree_new(l->memory, t->at, TREE_MAP, m->script.arguments->count);
  for (int i = 0; i < m->script.arguments->count; i++) {
    const tree *key = m->script.arguments->keys[i];
    if (strcmp(key->text, "name") == 0) continue;
    arguments->keys[arguments->count] = (tree *)key;
    arguments->items[arguments->count++] = m->script.arguments->items[i];
  }
  m->script.arguments = arguments;
  name = read_text(l, t, inside, "name", script_name(l, m->script.path));
  for (const char *p = name; *p; p++)
    if (!is_word_byte(*p)) {
      report(l, t->at, "%s: \"%s\" is not a name: use letters, digits and _ in `name`.", inside,
             printable(name, shown));
      return;
    }
  if (is_metric_name_taken(name, e)) {
    report(l, t->at, "%s: \"%s\" has a meaning already; give the metric another `name`.", inside,
           printable(name, shown));
    return;
  }
  m->info = (metric_info){.name = name,
                          .key = name,
                          .heading = name,
                          .decimals = 4,
                          .better = BETTER_UNKNOWN,
                          .doc = "computed by a Lua script"};
  e->metrics |= METRIC_BIT(METRIC_COUNT + e->custom_count);
  e->custom_count++;
}

/* Names, and scripts among them. */
static void read_metrics(loader *l, const tree *t, const char *what, evaluate_spec *e) {
  if (!t || t->kind != TREE_LIST) {
    scoring_metrics(t, e, &l->all);
    return;
  }
  tree *named = tree_new(l->memory, t->at, TREE_LIST, t->count);
  for (int i = 0; i < t->count; i++)
    if (t->items[i]->kind != TREE_MAP || !tree_get(t->items[i], "lua"))
      named->items[named->count++] = t->items[i];
  if (named->count > 0 || t->count == 0) scoring_metrics(named, e, &l->all);
  e->custom = arena_alloc(l->memory, (CUSTOM_METRICS_MAX + 1) * sizeof *e->custom);
  for (int i = 0; i < t->count; i++)
    if (t->items[i]->kind == TREE_MAP && tree_get(t->items[i], "lua"))
      read_custom_metric(l, t->items[i], what, e);
}

static bool is_script_at(const script_ref *script, int *i) {
  return script->path && (*i)-- == 0;
}

const script_ref *pipeline_script(const pipeline *p, int i) {
  for (int k = 0; k < p->stage_count; k++) {
    const stage_spec *s = &p->stages[k];
    for (int n = 0; n < s->schedule_count; n++)
      if (is_script_at(&s->schedules[n].script, &i)) return &s->schedules[n].script;
    for (int n = 0; n < HOOK_COUNT; n++)
      if (is_script_at(&s->hooks[n], &i)) return &s->hooks[n];
    if (is_script_at(&s->case_weights, &i)) return &s->case_weights;
    for (int n = 0; n < s->validate_custom_count; n++)
      if (is_script_at(&s->validate_custom[n].script, &i)) return &s->validate_custom[n].script;
  }
  for (int n = 0; n < p->evaluate.custom_count; n++)
    if (is_script_at(&p->evaluate.custom[n].script, &i)) return &p->evaluate.custom[n].script;
  return NULL;
}

/* ---- stages -------------------------------------------------------------------------------- */

static const char *stage_what(loader *l, const stage_spec *s) {
  return arena_printf(l->memory, "stage %s", s->name);
}

/* `validate: metrics`, besides Dice, which is always measured. */
static void read_validated(loader *l, stage_spec *s, const tree *validate, const char *what) {
  evaluate_spec read = {0};
  const tree *metrics = tree_get(validate, "metrics");
  if (!is_there(metrics)) return;
  read_metrics(l, metrics, what, &read);
  s->validate_metrics = read.metrics;
  s->validate_custom = read.custom;
  s->validate_custom_count = read.custom_count;
  if (!s->output)
    report(
        l, metrics->at,
        "%s: metrics of a segmentation need \"output\", such as net.out: no single value is compared with label.",
        what);
}

/* `validate: keep_best`: something that is validated, and that has a better. */
static void read_best(loader *l, stage_spec *s, const tree *validate, const char *what) {
  const tree *t = tree_get(validate, "keep_best");
  const char *text = read_text(l, validate, what, "keep_best", NULL), *names = "";
  const metric_info *found = NULL;
  if (!text) return;
  s->best_at = t->at;
  if (s->validate_every == 0)
    report(l, t->at,
           "%s: keep_best chooses among validations, but there is one, after the last epoch: say "
           "\"every\".",
           what);
  if (!s->output) {
    s->best = "validation.loss";
    s->best_is_lowest = true;
    if (strcmp(text, "loss") != 0)
      report(l, t->at, "%s: keep_best can be \"loss\", for only losses are validated here.", what);
    return;
  }
  for (int m = 0; m < METRIC_COUNT + s->validate_custom_count; m++) {
    bool is_own = m >= METRIC_COUNT;
    if (!is_own && m != METRIC_DICE && !(s->validate_metrics & METRIC_BIT(m))) continue;
    const metric_info *info =
        is_own ? &s->validate_custom[m - METRIC_COUNT].info : &metric_table[m];
    if (!is_own && info->better != BETTER_HIGHER && info->better != BETTER_LOWER) continue;
    names = arena_printf(l->memory, "%s%s%s", names, names[0] ? ", " : "", info->name);
    if (strcmp(text, info->name) == 0) found = info;
  }
  if (found) {
    s->best = arena_printf(l->memory, "validation.%s", found->key);
    s->best_is_lowest = found->better == BETTER_LOWER;
    return;
  }
  char shown[96];
  report(l, t->at, "%s: keep_best is one of what is validated and has a better: %s; not \"%s\".",
         what, names, printable(text, shown));
}

static void check_schedule_target(loader *l, const stage_spec *s, const char *target,
                                  source_pos at) {
  const char *names[64];
  int count = 0;
  char shown[96];
  if (strchr(target, '.') || !s->optimizer.op) return; /* a graph item's attribute: known later */
  for (const attr *a = s->optimizer.op->attrs; a && a->name && count < 64; a++) {
    if (!(a->flags & ATTR_SCHEDULABLE)) continue;
    if (strcmp(a->name, target) == 0) return;
    names[count++] = a->name;
  }
  const char *near = nearest_name(target, names, count);
  report(l, at, "%s has no schedulable attribute \"%s\"%s%s%s", s->optimizer.op->name,
         printable(target, shown), near ? "; did you mean \"" : ".", near ? near : "",
         near ? "\"?" : "");
}

static void read_schedule(loader *l, stage_spec *s, const char *target, const tree *t,
                          source_pos at) {
  const char *what = arena_printf(l->memory, "%s: schedule of %s", stage_what(l, s), target);
  schedule_spec *schedule = &s->schedules[s->schedule_count];
  check_schedule_target(l, s, target, at);
  for (int i = 0; i < s->schedule_count; i++)
    if (strcmp(s->schedules[i].target, target) == 0)
      report(l, at, "%s is given twice: in \"schedule\" and in \"schedules\".", what);
  *schedule = (schedule_spec){.target = target, .at = at};
  if (read_script(l, t, what, &schedule->script)) s->schedule_count++;
}

static void read_schedules(loader *l, stage_spec *s, const tree *t) {
  const tree *one = tree_get(t, "schedule"), *several = tree_get(t, "schedules");
  bool has_several = several && is_map_like(l, several, "schedules", "{weight_decay: {lua: NAME}}");
  s->schedules = arena_alloc(l->memory, sizeof *s->schedules *
                                            (size_t)(1 + (has_several ? several->count : 0)));
  if (one) read_schedule(l, s, "lr", one, tree_key(t, "schedule")->at);
  for (int i = 0; has_several && i < several->count; i++)
    read_schedule(l, s, several->keys[i]->text, several->items[i], several->keys[i]->at);
}

static void read_optimizer(loader *l, stage_spec *s, const tree *t) {
  const tree *optimizer = need(l, t, stage_what(l, s), "optimizer", s->at);
  char found[96], other[96];
  if (!is_there(optimizer)) return;
  if (optimizer->kind == TREE_MAP && optimizer->count == 1)
    s->optimizer = operator_read(l->memory, optimizer->keys[0], optimizer->items[0], OP_OPTIMIZER,
                                 "an optimizer", &l->all);
  else if (optimizer->kind == TREE_MAP && optimizer->count > 1)
    report(
        l, optimizer->keys[1]->at,
        "%s: there are two optimizers, %s and %s. If one comes from the pipeline that this one is "
        "built on, take it away: {%s: ~, %s: …}.",
        stage_what(l, s), printable(optimizer->keys[0]->text, found),
        printable(optimizer->keys[1]->text, other), found, other);
  else
    report(l, optimizer->at,
           "%s: optimizer must be one operator with its attributes, such as {adamw: {lr: 1.0e-4}}, "
           "not %s.",
           stage_what(l, s), tree_describe(optimizer, found));
}

/* ---- parameter groups ---- */

/* The attributes that a group can set, beside the factor of lr. NULL-terminated. */
static int group_attrs(const op *o, const attr *out[GROUP_NUMBERS_MAX]) {
  int count = 0;
  for (const attr *a = o->attrs; a && a->name && count < GROUP_NUMBERS_MAX; a++)
    if (a->kind == ATTR_FLOAT && a->flags & ATTR_SCHEDULABLE && strcmp(a->name, "lr") != 0)
      out[count++] = a;
  return count;
}

/* norm, bias or a list of them. */
static unsigned read_sorts(loader *l, const tree *t, const char *what) {
  static const char *const names[] = {"norm", "bias", NULL};
  unsigned sorts = 0;
  if (!is_there(t)) return 0;
  bool is_list = t->kind == TREE_LIST;
  for (int i = 0; i < (is_list ? t->count : 1); i++) {
    const tree *item = is_list ? t->items[i] : t;
    char found[96];
    int k = 0;
    while (names[k] && (item->kind != TREE_SCALAR || strcmp(item->text, names[k]) != 0)) k++;
    if (item == &unreadable) continue;
    if (names[k])
      sorts |= 1u << k;
    else
      report(l, item->at, "%s must be norm, bias or a list of them, not %s.", what,
             tree_describe(item, found));
  }
  return sorts;
}

static void read_match(loader *l, group_spec *g, const tree *t, const char *what) {
  if (!is_there(t)) return;
  bool is_list = t->kind == TREE_LIST;
  int count = is_list ? t->count : 1;
  g->match = arena_alloc(l->memory, sizeof *g->match * (size_t)(count + 1));
  g->match_at = arena_alloc(l->memory, sizeof *g->match_at * (size_t)(count + 1));
  for (int i = 0; i < count; i++) {
    const tree *item = is_list ? t->items[i] : t;
    if (item == &unreadable) continue;
    status error = tree_string(item, &g->match[g->match_count]);
    g->match_at[g->match_count] = item->at;
    if (!error) g->match_count++;
    problems_add(&l->all, error_prefix(error, "%s: match", what));
  }
}

static void read_group_number(loader *l, const stage_spec *s, group_spec *g, const tree *t,
                              const attr *a) {
  const tree *value = tree_get(t, a->name);
  if (!is_there(value)) return;
  attr list[2] = {*a, {0}};
  op one = *s->optimizer.op;
  one.attrs = list;
  tree *map = tree_new(l->memory, t->at, TREE_MAP, 1);
  map->keys[0] = tree_key(t, a->name);
  map->items[0] = (tree *)value;
  map->count = 1;
  void *attrs = arena_alloc(l->memory, one.attrs_bytes);
  int before = l->all.count;
  bind_attrs(&one, map, NULL, t->at, l->memory, attrs, &l->all);
  if (l->all.count > before) return;
  g->numbers[g->number_count].name = a->name;
  g->numbers[g->number_count++].value = *attr_number(&one, attrs, a->name);
}

static void read_group(loader *l, stage_spec *s, const tree *t, const char *what) {
  if (t == &unreadable || !s->optimizer.op || !is_map(l, t, what)) return;
  const attr *settable[GROUP_NUMBERS_MAX];
  const char *keys[GROUP_NUMBERS_MAX + 5] = {"match", "of", "lr_scale"};
  int count = group_attrs(s->optimizer.op, settable);
  for (int i = 0; i < count; i++) keys[3 + i] = settable[i]->name;
  const tree *lr = tree_key(t, "lr");
  if (lr)
    report(l, lr->at,
           "%s: the learning rate follows the stage's schedule; give its factor here with "
           "\"lr_scale\".",
           what);
  if (lr) keys[3 + count] = "lr";
  tree_check_keys(t, what, keys, &l->all);
  group_spec *g = &s->groups[s->group_count++];
  *g = (group_spec){.at = t->at};
  const tree *match = tree_get(t, "match"), *of = tree_get(t, "of");
  if (!match && !of)
    report(l, t->at, "%s needs \"match\" (names of parameters) or \"of\" (norm, bias).", what);
  read_match(l, g, match, what);
  g->of = read_sorts(l, of, label(l, what, "of"));
  g->lr_scale = read_float(l, t, what, "lr_scale", 1, 0, LR_SCALE_MAX);
  for (int i = 0; i < count; i++) read_group_number(l, s, g, t, settable[i]);
}

/* `groups`, then `no_decay` as the last of them. */
static void read_groups(loader *l, stage_spec *s, const tree *t) {
  const tree *groups = tree_get(t, "groups"), *no_decay = tree_get(t, "no_decay");
  char found[96];
  const char *what = arena_printf(l->memory, "%s: groups", stage_what(l, s));
  int count = is_there(groups) && groups->kind == TREE_LIST ? groups->count : 0;
  if (is_there(groups) && (groups->kind != TREE_LIST || count > MAX_GROUPS)) {
    report(l, groups->at,
           "%s must be a list of at most %d groups such as {match: \"*.norm*.weight\", "
           "weight_decay: 0}, not %s.",
           what, MAX_GROUPS, tree_describe(groups, found));
    count = 0;
  }
  s->groups = arena_alloc(l->memory, sizeof *s->groups * (size_t)(count + 1));
  for (int i = 0; i < count; i++)
    read_group(l, s, groups->items[i], arena_printf(l->memory, "%s: %d", what, i));
  if (!is_there(no_decay) || !s->optimizer.op) return;
  group_spec *g = &s->groups[s->group_count];
  *g = (group_spec){.at = no_decay->at, .lr_scale = 1, .is_no_decay = true, .number_count = 1};
  g->of = read_sorts(l, no_decay, label(l, stage_what(l, s), "no_decay"));
  g->numbers[0].name = "weight_decay";
  if (attr_number(s->optimizer.op, s->optimizer.attrs, "weight_decay"))
    s->group_count += g->of != 0;
  else
    report(l, no_decay->at, "%s: %s has no weight_decay.", label(l, stage_what(l, s), "no_decay"),
           s->optimizer.op->name);
}

static void read_ema(loader *l, stage_spec *s, const tree *t) {
  static const char *const keys[] = {"decay", "warmup", NULL};
  const tree *ema = tree_get(t, "ema");
  const char *what = arena_printf(l->memory, "%s: ema", stage_what(l, s));
  if (!ema || !is_map_like(l, ema, what, "{decay: 0.999}")) return;
  tree_check_keys(ema, what, keys, &l->all);
  need(l, ema, what, "decay", ema->at);
  s->ema_decay = read_float(l, ema, what, "decay", 0, 0, 0.9999999);
  s->ema_warmup = read_bool(l, ema, what, "warmup", false);
}

/* An initializer: its name, or {name: {attributes}}. */
static void read_initialize(loader *l, stage_spec *s, const tree *t) {
  const tree *initialize = tree_get(t, "initialize");
  char found[96];
  if (!is_there(initialize) || tree_is_null(initialize)) return;
  if (initialize->kind == TREE_SCALAR)
    s->initialize =
        operator_read(l->memory, initialize, NULL, OP_INITIALIZER, "an initializer", &l->all);
  else if (initialize->kind == TREE_MAP && initialize->count == 1)
    s->initialize = operator_read(l->memory, initialize->keys[0], initialize->items[0],
                                  OP_INITIALIZER, "an initializer", &l->all);
  else
    report(l, initialize->at,
           "%s: initialize must be one initializer, such as kaiming_normal or {lsuv: {tolerance: "
           "0.05}}, not %s.",
           stage_what(l, s), tree_describe(initialize, found));
}

static void read_reset(loader *l, stage_spec *s, const tree *reset) {
  if (!is_there(reset)) return;
  bool is_list = reset->kind == TREE_LIST;
  int count = is_list ? reset->count : 1;
  s->reset = arena_alloc(l->memory, sizeof *s->reset * (size_t)(count + 1));
  s->reset_at = arena_alloc(l->memory, sizeof *s->reset_at * (size_t)(count + 1));
  for (int i = 0; i < count; i++) {
    const tree *item = is_list ? reset->items[i] : reset;
    if (item == &unreadable) continue;
    status error = tree_string(item, &s->reset[s->reset_count]);
    if (!error) s->reset_at[s->reset_count++] = item->at;
    problems_add(&l->all, error_prefix(error, "%s: init: reset", stage_what(l, s)));
  }
}

unsigned pipeline_precisions(const pipeline *p) {
  unsigned used = 0;
  for (int i = 0; i < p->stage_count; i++)
    if (p->stages[i].enabled) used |= 1u << p->stages[i].precision;
  return used;
}

const stage_spec *pipeline_stage(const pipeline *p, const char *name) {
  for (int i = 0; name && i < p->stage_count; i++)
    if (strcmp(p->stages[i].name, name) == 0) return &p->stages[i];
  return NULL;
}

/* `count`: the stages that could have been meant. */
static void no_stage(loader *l, const char *what, const tree *at, int count) {
  const char *names[MAX_STAGES];
  char shown[96];
  for (int i = 0; i < count; i++) names[i] = l->p->stages[i].name;
  const char *near = nearest_name(at->text, names, count);
  report(l, at->at, "%s: there is no stage \"%s\"%s%s%s", what, printable(at->text, shown),
         near ? "; did you mean \"" : ".", near ? near : "", near ? "\"?" : "");
}

/* The content of a weight file is part of the run's identity. */
static status hash_weight_file(const char *path, uint64_t *out) {
  char *data;
  size_t length;
  TRY(file_read(path, MAX_WEIGHT_FILE_BYTES, &data, &length));
  *out = bytes_hash(data, length);
  free(data);
  return OK;
}

static bool is_weight_file(const char *name) {
  static const char *const endings[] = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar"};
  bool is = false;
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
    is |= text_ends_with(name, endings[i]);
  return is;
}

/* A file that `init` names: its path, and what it holds as a part of the run's identity. */
static void read_init_file(loader *l, stage_spec *s, const char *what, const tree *t,
                           const char *name, const char *sort, const char **path) {
  const char *packed =
      is_override_place(t->at) ? NULL : archive_init_file(l->p, l->memory, s->name, name);
  *path = packed ? packed : relative_path(l->p, name, t->at);
  fix_path(l, t, *path);
  if (l->purpose == TO_PREDICT) return;
  if (!packed && !file_exists(*path)) {
    report(l, t->at, "%s: there is no %s %s.", what, sort, *path);
    return;
  }
  uint64_t hash;
  status error = hash_weight_file(*path, &hash);
  if (error)
    problems_add(&l->all, error_locate(error_prefix(error, "%s", what), t->at));
  else
    s->init_hash = s->init_hash ? hash_mix(s->init_hash, hash) : hash;
}

/* `key` and `map`: how a file of another program is read. */
static void read_import(loader *l, stage_spec *s, const char *what, const tree *init) {
  const tree *key = tree_get(init, "key"), *map = tree_get(init, "map");
  const tree *either = is_there(key) ? key : map;
  const char *name = NULL;
  if (is_there(either) && !s->init_is_file) {
    report(l, either->at, "%s: %s goes with a weight file, not with a stage.", what,
           either == key ? "key" : "map");
    return;
  }
  if (is_there(key))
    problems_add(&l->all, error_prefix(tree_string(key, &s->init_key), "%s: key", what));
  if (is_there(map)) problems_add(&l->all, error_prefix(tree_string(map, &name), "%s: map", what));
  if (name) read_init_file(l, s, what, map, name, "file of name rules", &s->init_map);
}

/* After every stage is known. */
static void read_init(loader *l, stage_spec *s, const tree *t) {
  static const char *const keys[] = {"from", "key", "map", "reset", "missing", NULL};
  static const char *const missing[] = {"error", "fresh", NULL};
  const tree *init = tree_get(t, "init");
  const char *what = arena_printf(l->memory, "%s: init", stage_what(l, s)), *name;
  if (!init || !is_map_like(l, init, what, "{from: pretrain}")) return;
  s->init_at = init->at;
  tree_check_keys(init, what, keys, &l->all);
  const tree *from = need(l, init, what, "from", init->at);
  read_reset(l, s, tree_get(init, "reset"));
  s->missing_fresh = read_choice(l, init, what, "missing", missing, 0) == 1;
  if (!is_there(from)) return;
  s->init_at = from->at;
  status error = error_prefix(tree_string(from, &name), "%s: from", what);
  problems_add(&l->all, error);
  if (error) return;
  s->init_is_file = is_weight_file(name);
  if (s->init_is_file) read_init_file(l, s, what, from, name, "weight file", &s->init_from);
  read_import(l, s, what, init);
  if (s->init_is_file) return;
  const stage_spec *source = pipeline_stage(l->p, name);
  if (!source && strchr(name, '/'))
    report(
        l, from->at,
        "%s: %s is no weight file (.safetensors, .pt, .pth, .ckpt, .bin, .tar); in a run's folder they are "
        "weights/<stage>.safetensors.",
        what, name);
  else if (!source)
    no_stage(l, what, from, (int)(s - l->p->stages));
  else if (source >= s)
    report(l, from->at, "%s: stage %s does not come before stage %s.", what, name, s->name);
  else if (source->enabled)
    s->init_from = source->name;
  else
    s->init_skipped = source->name;
}

/* The values are known by now; the graph will ask for them. */
static void read_names(loader *l, stage_spec *s, const tree *params) {
  s->params.parent = &l->p->params;
  for (int i = 0; is_there(params) && i < params->count; i++)
    if (params->items[i] != &unreadable)
      scope_set(&s->params, l->memory, params->keys[i]->text, params->items[i]);
}

static void read_memory(loader *l, stage_spec *s, const tree *stage, const char *what) {
  const tree *t = tree_get(stage, "memory");
  char found[96];
  if (!is_there(t)) return;
  s->memory_at = t->at;
  if (t->kind == TREE_SCALAR && parse_bytes(t->text, &s->memory_bytes) && s->memory_bytes > 0)
    return;
  s->memory_bytes = 0;
  report(l, t->at, "%s must be a size such as 2GiB or 512MiB, not %s.", label(l, what, "memory"),
         tree_describe(t, found));
}

static void read_precision(loader *l, stage_spec *s, const tree *t) {
  s->precision = PRECISION_F32 + read_choice(l, t, stage_what(l, s), "precision",
                                             precision_choices + PRECISION_F32, 0);
}

/* Operators whose numbers change by themselves. */
static op_use *copy_operators(arena *memory, const op_use *from, int count) {
  op_use *out = arena_alloc(memory, sizeof *out * (size_t)(count + 1));
  for (int i = 0; i < count; i++) {
    out[i] = from[i];
    out[i].attrs = arena_alloc(memory, from[i].op->attrs_bytes);
    memcpy(out[i].attrs, from[i].attrs, from[i].op->attrs_bytes);
  }
  return out;
}

/* Of a stage that changes crops in a way of its own: by its list, or by a schedule. */
static void read_sample(loader *l, stage_spec *s, tree *list) {
  bool is_scheduled = false;
  for (int i = 0; i < s->schedule_count; i++)
    is_scheduled |= text_starts_with(s->schedules[i].target, "sample.");
  if (!is_there(list) && !is_scheduled) return;
  data_spec *own = arena_alloc(l->memory, sizeof *own);
  *own = l->p->data;
  if (is_there(list))
    own->sample = operators_read(l->memory, list, label(l, stage_what(l, s), "sample"), OP_SAMPLE,
                                 "a sample", &own->sample_count, &l->all);
  else
    own->sample = copy_operators(l->memory, own->sample, own->sample_count);
  s->data = own;
}

static void read_stage(loader *l, stage_spec *s, const tree *t, source_pos at) {
  static const char *const keys[] = {
      "use",       "params",     "graph",         "optimizer",    "clip_norm",       "schedule",
      "schedules", "init",       "on_validation", "on_epoch_end", "on_stage_end",    "case_weights",
      "epochs",    "batch",      "enabled",       "doc",          "steps_per_epoch", "time_limit",
      "validate",  "checkpoint", "use_labels",    "groups",       "no_decay",        "initialize",
      "ema",       "clip_value", "accumulate",    "precision",    "memory",          "sample",
      NULL};
  static const char *const validate_keys[] = {"every", "output", "metrics", "keep_best", NULL};
  static const char *const checkpoint_keys[] = {"every", "final", NULL};
  const char *what = stage_what(l, s);
  s->enabled = true;
  s->data = &l->p->data;
  if (!is_map(l, t, what)) return;
  tree_check_keys(t, what, keys, &l->all);
  const tree *use = tree_get(t, "use"); /* the file's have been followed */
  if (use) report(l, use->at, "%s: \"use\" can only be set in the file.", what);
  s->enabled = read_bool(l, t, what, "enabled", true);
  read_names(l, s, tree_get(t, "params"));
  s->graph = need(l, t, what, "graph", at);
  if (s->graph) check_graph(s->graph, NULL, true, &l->all);
  read_optimizer(l, s, t);
  read_schedules(l, s, t);
  read_sample(l, s, tree_get(t, "sample"));
  read_groups(l, s, t);
  read_initialize(l, s, t);
  read_ema(l, s, t);
  s->clip_norm = read_float(l, t, what, "clip_norm", 0, 0, INFINITY);
  s->clip_value = read_float(l, t, what, "clip_value", 0, 0, INFINITY);
  s->accumulate = read_int(l, t, what, "accumulate", 1, 1, BATCH_MAX, at);
  read_precision(l, s, t);
  s->epochs = read_int(l, t, what, "epochs", REQUIRED, 0, 10000000, at);
  s->batch = read_int(l, t, what, "batch", 1, 1, BATCH_MAX, at);
  s->steps_per_epoch = read_int(l, t, what, "steps_per_epoch", 0, 0, 10000000, at);
  s->use_labels = read_bool(l, t, what, "use_labels", false);
  read_memory(l, s, t, what);
  s->time_limit_s = read_seconds(l, t, what, "time_limit", 1e-3, 0);
  s->checkpoint_every_s = 600;
  s->checkpoint_final = true;
  const tree *validate = tree_get(t, "validate"), *checkpoint = tree_get(t, "checkpoint");
  const char *inside = arena_printf(l->memory, "%s: validate", what);
  if (validate && is_map_like(l, validate, inside, "{every: 10}")) {
    tree_check_keys(validate, inside, validate_keys, &l->all);
    s->validate_every = read_int(l, validate, inside, "every", 0, 0, 10000000, at);
    const tree *output = tree_get(validate, "output");
    s->output_is_found = !output;
    if (!output)
      s->output = segmented_value(s->graph, l->p->data.region_count > 0 ? "regions" : "label");
    if (output && !tree_is_null(output)) { /* `output: ~`: only losses */
      s->output = read_text(l, validate, inside, "output", NULL);
      s->output_at = output->at;
    }
    read_validated(l, s, validate, inside);
    read_best(l, s, validate, inside);
  }
  inside = arena_printf(l->memory, "%s: checkpoint", what);
  if (checkpoint && is_map_like(l, checkpoint, inside, "{every: 10m}")) {
    tree_check_keys(checkpoint, inside, checkpoint_keys, &l->all);
    s->checkpoint_every_s = (int64_t)ceil(read_seconds(l, checkpoint, inside, "every", 0, 600));
    s->checkpoint_final = read_bool(l, checkpoint, inside, "final", true);
  }
  const tree *weights = tree_get(t, "case_weights");
  inside = arena_printf(l->memory, "%s: case_weights", what);
  if (weights) read_script(l, weights, inside, &s->case_weights);
  for (int i = 0; i < HOOK_COUNT; i++) {
    const tree *hook = tree_get(t, stage_hook_keys[i]);
    inside = arena_printf(l->memory, "%s: %s", what, stage_hook_keys[i]);
    if (hook) read_script(l, hook, inside, &s->hooks[i]);
  }
}

static void read_stages(loader *l, const tree *stages) {
  pipeline *p = l->p;
  char found[96];
  if (!is_there(stages)) return;
  if (stages->kind != TREE_LIST || stages->count == 0 || stages->count > MAX_STAGES) {
    report(l, stages->at, "stages must be a list of 1 to %d stages (`- name: {…}`), not %s.",
           MAX_STAGES, tree_describe(stages, found));
    return;
  }
  p->stages = arena_alloc(l->memory, sizeof *p->stages * (size_t)stages->count);
  const tree *contents[MAX_STAGES];
  for (int i = 0; i < stages->count; i++) {
    const tree *item = stages->items[i];
    if (item == &unreadable) continue;
    if (item->kind != TREE_MAP || item->count != 1) {
      report(l, item->at, "stages: an item is `- name: {…}`, not %s%s.", tree_describe(item, found),
             item->kind == TREE_MAP ? " of several keys (is it indented?)" : "");
      continue;
    }
    const tree *key = item->keys[0];
    if (!is_file_word(key->text) || strchr(key->text, '.'))
      report(l, key->at, "\"%s\" cannot name a stage: use letters, digits, - and _.",
             printable(key->text, found));
    if (pipeline_stage(p, key->text))
      report(l, key->at, "Two stages have the name \"%s\".", printable(key->text, found));
    stage_spec *s = &p->stages[p->stage_count];
    s->name = key->text;
    s->at = key->at;
    read_stage(l, s, item->items[0], key->at);
    contents[p->stage_count++] = item->items[0];
  }
  bool any_enabled = false;
  for (int i = 0; i < p->stage_count; i++) {
    read_init(l, &p->stages[i], contents[i]);
    any_enabled |= p->stages[i].enabled;
  }
  if (p->stage_count > 0 && !any_enabled) report(l, stages->at, "Every stage is disabled.");
}

/* ---- evaluate ------------------------------------------------------------------------------ */

static void read_window(loader *l, const tree *evaluate, source_pos at) {
  static const char *const keys[] = {"sliding_window", NULL};
  const tree *inferer = need(l, evaluate, "evaluate", "inferer", at);
  if (!is_map_like(l, inferer, "evaluate: inferer", "{sliding_window: {size: [96, 96, 96]}}"))
    return;
  tree_check_keys(inferer, "evaluate: inferer", keys, &l->all);
  const tree *window = need(l, inferer, "evaluate: inferer", "sliding_window", inferer->at);
  if (!is_map_like(l, window, "evaluate: inferer: sliding_window", "{size: [96, 96, 96]}") ||
      any_unreadable(window))
    return;
  inference_window(l->memory, window, &l->p->evaluate, &l->all);
}

static void read_evaluated_stage(loader *l, const tree *evaluate) {
  pipeline *p = l->p;
  evaluate_spec *e = &p->evaluate;
  const tree *name = tree_get(evaluate, "stage");
  const stage_spec *stage = NULL;
  for (int i = 0; i < p->stage_count && !name; i++)
    if (p->stages[i].enabled) stage = &p->stages[i];
  if (is_there(name) && read_text(l, evaluate, "evaluate", "stage", NULL)) {
    stage = pipeline_stage(p, name->text);
    if (!stage)
      no_stage(l, "evaluate", name, p->stage_count);
    else if (!stage->enabled)
      report(l, name->at, "evaluate: stage %s is disabled.", stage->name);
  }
  e->stage = stage ? stage->name : NULL;
  const tree *output = tree_get(evaluate, "output");
  if (output) e->output_at = output->at;
  e->output = read_text(l, evaluate, "evaluate", "output",
                        stage && stage->output ? stage->output : "net.out");
}

/* An operator that stands where its list should. */
static void check_evaluate_keys(loader *l, const tree *evaluate) {
  static const char *const keys[] = {"inferer", "postprocess", "metrics", "empty",
                                     "hd95",    "tolerance",   "groups",  "regions",
                                     "stage",   "output",      NULL};
  tree *others = tree_new(l->memory, evaluate->at, TREE_MAP, evaluate->count);
  for (int i = 0; i < evaluate->count; i++) {
    const op *o = op_find(evaluate->keys[i]->text);
    if (o && o->traits & OP_POSTPROCESS) {
      report(l, evaluate->keys[i]->at,
             "evaluate: %s is an operator of a list: `postprocess: [%s]`, or with attributes "
             "`postprocess: [%s: {…}]`.",
             o->name, o->name, o->name);
      continue;
    }
    others->keys[others->count] = evaluate->keys[i];
    others->items[others->count++] = evaluate->items[i];
  }
  tree_check_keys(others, "evaluate", keys, &l->all);
}

static void read_evaluate(loader *l, const tree *evaluate) {
  static const char *const policies[] = {"skip", "one", "zero", NULL};
  static const char *const definitions[] = {"max", "pooled", NULL};
  pipeline *p = l->p;
  evaluate_spec *e = &p->evaluate;
  if (!evaluate) {
    for (int i = 0; i < p->stage_count; i++)
      if (p->stages[i].output && p->stages[i].output_is_found && !p->stages[i].validate_metrics &&
          !p->stages[i].best)
        p->stages[i].output = NULL; /* nothing says how it would be segmented: losses only */
      else if (p->stages[i].output)
        report(l, p->stages[i].at,
               "stage %s: validate: output is segmented with a sliding window: say which under "
               "\"evaluate: inferer:\".",
               p->stages[i].name);
    return;
  }
  if (!is_map(l, evaluate, "evaluate")) return;
  e->enabled = true;
  e->at = evaluate->at;
  check_evaluate_keys(l, evaluate);
  read_window(l, evaluate, evaluate->at);
  postprocess_read(l->memory, tree_get(evaluate, "postprocess"), e, &l->all);
  read_metrics(l, tree_get(evaluate, "metrics"), "evaluate", e);
  scoring_tolerance(l->memory, tree_get(evaluate, "tolerance"), e, &l->all);
  scoring_groups(l->memory, tree_get(evaluate, "groups"), tree_get(evaluate, "regions"), e,
                 &l->all);
  e->empty = (empty_policy)read_choice(l, evaluate, "evaluate", "empty", policies, EMPTY_SKIP);
  e->hd95_pooled = read_choice(l, evaluate, "evaluate", "hd95", definitions, 0) == 1;
  read_evaluated_stage(l, evaluate);
}

/* ---- expressions --------------------------------------------------------------------------- */

static bool has_word(const char *text, const char *word) {
  size_t length = strlen(word);
  for (const char *p = text; (p = strstr(p, word)); p++)
    if ((p == text || !is_word_byte(p[-1])) && !is_word_byte(p[length])) return true;
  return false;
}

static bool mentions_failed(const loader *l, const tree *t) {
  for (int i = 0; i < l->failed_count && t->kind == TREE_SCALAR; i++)
    if (strstr(t->text, "${") && has_word(t->text, l->failed[i])) return true;
  for (int i = 0; i < t->count && l->failed_count > 0; i++)
    if (mentions_failed(l, t->items[i])) return true;
  return false;
}

static tree *evaluated(loader *l, const tree *t) {
  tree *out;
  if (mentions_failed(l, t)) return &unreadable;
  status error = scope_eval(l->names, l->memory, t, &out);
  problems_add(&l->all, error);
  if (error || l->nodes > TREE_MAX_NODES) return &unreadable;
  l->nodes += tree_size(out);
  if (l->nodes <= TREE_MAX_NODES) return out;
  report(l, t->at, "The expressions of the file make more than %d values.", TREE_MAX_NODES);
  return &unreadable;
}

/* Evaluates value by value, so that an error spoils nothing beside it. */
static tree *resolve(loader *l, const tree *t) {
  bool has_key_expression = false;
  for (int i = 0; i < t->count && t->kind == TREE_MAP; i++)
    has_key_expression |= strchr(t->keys[i]->text, '$') != NULL;
  if (t->kind == TREE_SCALAR || has_key_expression) return evaluated(l, t);
  tree *out = tree_new(l->memory, t->at, t->kind, t->count);
  for (int i = 0; i < t->count; i++) {
    if (t->kind == TREE_MAP) out->keys[i] = t->keys[i];
    out->items[i] = resolve(l, t->items[i]);
  }
  out->count = t->count;
  return out;
}

static bool is_listed(const char *name, const char *const *names) {
  for (; *names; names++)
    if (strcmp(name, *names) == 0) return true;
  return false;
}

/* What belongs to graphs stays as it is: its names are known only when they are expanded. */
static const char *const graph_keys[] = {"graph",   "inputs", "params", "blocks",
                                         "outputs", "unused", NULL};

static tree *resolve_except_graphs(loader *l, const tree *t) {
  if (t->kind != TREE_MAP) return resolve(l, t);
  tree *out = tree_new(l->memory, t->at, TREE_MAP, t->count);
  for (int i = 0; i < t->count; i++) {
    out->keys[i] = t->keys[i];
    out->items[i] = is_listed(t->keys[i]->text, graph_keys) ? t->items[i] : resolve(l, t->items[i]);
  }
  out->count = t->count;
  return out;
}

static tree *read_params(loader *l, const tree *params, scope *into);

/* A stage sees its own parameters above those of the file. */
static tree *resolve_stage(loader *l, const tree *t) {
  static const char *const keys[] = {"graph", "params", NULL};
  if (t->kind != TREE_MAP) return resolve(l, t);
  tree *out = tree_new(l->memory, t->at, TREE_MAP, t->count);
  const tree *params = tree_get(t, "params");
  int failed = l->failed_count;
  scope own = {.parent = &l->p->params};
  tree *values = params ? read_params(l, params, &own) : NULL;
  l->names = &own;
  for (int i = 0; i < t->count; i++) {
    out->keys[i] = t->keys[i];
    out->items[i] = t->items[i] == params               ? values
                    : is_listed(t->keys[i]->text, keys) ? t->items[i]
                                                        : resolve(l, t->items[i]);
  }
  out->count = t->count;
  l->names = &l->p->params;
  l->failed_count = failed;
  return out;
}

static tree *resolve_stages(loader *l, const tree *stages) {
  if (stages->kind != TREE_LIST) return resolve(l, stages);
  tree *out = tree_new(l->memory, stages->at, TREE_LIST, stages->count);
  for (int i = 0; i < stages->count; i++) {
    const tree *item = stages->items[i];
    tree *copy = tree_new(l->memory, item->at, item->kind, item->count);
    *copy = *item;
    if (item->kind == TREE_MAP && item->count == 1) {
      copy->items = arena_alloc(l->memory, sizeof *copy->items);
      copy->items[0] = resolve_stage(l, item->items[0]);
    }
    out->items[i] = copy;
  }
  out->count = stages->count;
  return out;
}

typedef struct later {
  const tree *params;
  int from;
  bool asked;
} later;

/* Knows no value; notes that a parameter further down was asked for. */
static bool ask_later(void *context, arena *memory, const char *name, source_pos at, tree **out) {
  later *l = context;
  (void)memory, (void)at, (void)out;
  for (int i = l->from; i < l->params->count; i++)
    l->asked |= strcmp(l->params->keys[i]->text, name) == 0;
  return false;
}

static tree *read_params(loader *l, const tree *params, scope *into) {
  char found[96];
  if (tree_is_null(params)) return (tree *)params;
  if (params->kind != TREE_MAP || params->count > MAX_PARAMS) {
    report(l, params->at, "params must be a mapping of at most %d names, not %s.", MAX_PARAMS,
           tree_describe(params, found));
    return &unreadable;
  }
  tree *out = tree_new(l->memory, params->at, TREE_MAP, params->count);
  later below = {0};
  const scope *outer = l->names;
  l->names = into;
  into->lookup = ask_later;
  into->context = &below;
  for (int i = 0; i < params->count; i++) {
    const tree *key = params->keys[i];
    problems_add(&l->all, check_name(key, "params"));
    if (into == &l->p->params && is_listed(key->text, pipeline_keys))
      report(l, key->at, "params: \"%s\" is a key of the file itself; choose another name.",
             key->text);
    below = (later){.params = params, .from = i};
    tree *value = evaluated(l, params->items[i]);
    if (below.asked)
      report(l, key->at, "params: %s may use only parameters that stand above it.", key->text);
    if (value == &unreadable)
      ARENA_PUSH(l->memory, l->failed, l->failed_count, l->failed_capacity, key->text);
    else
      scope_set(into, l->memory, key->text, value);
    out->keys[i] = params->keys[i];
    out->items[i] = value;
  }
  out->count = params->count;
  into->lookup = NULL;
  into->context = NULL;
  l->names = outer;
  return out;
}

/* ---- the resolved file --------------------------------------------------------------------- */

/* Evaluated text that contains a dollar sign would be evaluated again when it is read back. What
 * stands under one of the `unread` keys was not evaluated; NULL: this stands under one. `paths`: what
 * stands for every path; NULL: their fixes. */
static tree *escaped(loader *l, const tree *t, const char *const *unread, const char *paths) {
  tree *copy = tree_new(l->memory, t->at, t->kind, t->count);
  copy->quoted = t->quoted;
  copy->count = t->count;
  copy->text = t->text;
  for (int i = 0; i < l->fix_count; i++)
    if (l->fixes[i].node == t) copy->text = paths ? paths : l->fixes[i].text;
  if (t->kind == TREE_SCALAR && unread && strchr(copy->text, '$')) {
    text_buffer doubled = {0};
    scope_escape(copy->text, &doubled);
    copy->text = arena_strdup(l->memory, doubled.data);
    text_free(&doubled);
  }
  for (int i = 0; i < t->count; i++) {
    bool is_unread = unread && t->kind == TREE_MAP && is_listed(t->keys[i]->text, unread);
    if (t->kind == TREE_MAP) copy->keys[i] = t->keys[i];
    copy->items[i] = escaped(l, t->items[i], is_unread ? NULL : unread, paths);
  }
  return copy;
}

static tree *with_paths(loader *l, const tree *root, const char *paths) {
  static const char *const in_stage[] = {"graph", NULL}, *const nothing[] = {NULL};
  tree *copy = tree_new(l->memory, root->at, TREE_MAP, root->count + 1);
  copy->count = root->count;
  for (int i = 0; i < root->count; i++) {
    copy->keys[i] = root->keys[i];
    const char *key = root->keys[i]->text;
    copy->items[i] = escaped(l, root->items[i],
                             strcmp(key, "stages") == 0  ? in_stage
                             : strcmp(key, "model") == 0 ? graph_keys
                                                         : nothing,
                             paths);
  }
  return copy;
}

/* `map` with a key in front that it lacks; it has room for one more. */
static void prepend(loader *l, tree *map, int at, const char *key, const char *text) {
  for (int i = map->count++; i > at; i--) {
    map->keys[i] = map->keys[i - 1];
    map->items[i] = map->items[i - 1];
  }
  map->keys[at] = tree_scalar(l->memory, map->at, key, false);
  map->items[at] = tree_scalar(l->memory, map->at, text, false);
}

static tree *resolved_file(loader *l, const tree *root) {
  tree *copy = with_paths(l, root, NULL), *data = tree_get(copy, "data");
  if (!tree_get(copy, "name")) prepend(l, copy, 1, "name", l->p->name);
  if (l->data_root && !tree_get(data, "root")) {
    tree *wider = tree_new(l->memory, data->at, TREE_MAP, data->count + 1);
    memcpy(wider->keys, data->keys, (size_t)data->count * sizeof *data->keys);
    memcpy(wider->items, data->items, (size_t)data->count * sizeof *data->items);
    wider->count = data->count;
    prepend(l, wider, 0, "root", l->data_root);
    *data = *wider;
  }
  return copy;
}

/* ---- loading ------------------------------------------------------------------------------- */

static const char *default_name(arena *memory, const char *path) {
  const char *slash = strrchr(path, '/'), *start = slash ? slash + 1 : path;
  const char *dot = strrchr(start, '.');
  char *name =
      arena_strndup(memory, start, dot && dot > start ? (size_t)(dot - start) : strlen(start));
  return is_file_word(name) ? name : "pipeline";
}

static void read_header(loader *l, const tree *root) {
  pipeline *p = l->p;
  device_kind kind;
  char shown[96];
  tree_check_keys(root, the_pipeline, pipeline_keys, &l->all);
  p->name = read_text(l, root, the_pipeline, "name", default_name(l->memory, l->root_name));
  if (!is_file_word(p->name))
    report(l, tree_get(root, "name")->at,
           "\"%s\" cannot name a pipeline: use letters, digits, '.', - and _ (it names folders).",
           printable(p->name, shown));
  p->seed = (uint64_t)read_int(l, root, the_pipeline, "seed", 0, 0, INT64_MAX, root->at);
  p->threads = read_int(l, root, the_pipeline, "threads", 0, 0, 4096, root->at);
  p->device = read_text(l, root, the_pipeline, "device", "auto");
  if (!device_name_read(p->device, &kind, NULL))
    report(l, tree_get(root, "device")->at, "device must be " DEVICE_NAMES ", not \"%s\".",
           printable(p->device, shown));
}

static void read_log(loader *l, const tree *log) {
  static const char *const keys[] = {"tensorboard", NULL};
  if (!log || tree_is_null(log) || !is_map_like(l, log, "log", "{tensorboard: true}")) return;
  tree_check_keys(log, "log", keys, &l->all);
  l->p->tensorboard = read_bool(l, log, "log", "tensorboard", false);
}

/* Where the fingerprint is; NULL when what names it cannot be read, which is reported with the rest of
 * `data`. */
static const char *fingerprint_path(loader *l, const tree *data, const tree *named) {
  if (!is_override_place(named->at) && bundle_find(l->p->inside, fingerprint_file))
    return bundle_path(l->p->inside, l->memory, fingerprint_file);
  tree *t = evaluated(l, named), *root = NULL;
  const char *name;
  if (t == &unreadable) return NULL;
  status error = error_prefix(tree_string(t, &name), "data: fingerprint");
  problems_add(&l->all, error);
  if (error) return NULL;
  if (!tree_get(data, "root") || is_override_place(t->at)) return relative_path(l->p, name, t->at);
  error = scope_eval(l->names, l->memory, tree_get(data, "root"), &root);
  error_free(error);
  if (error || root->kind != TREE_SCALAR) return NULL;
  char *path = path_join(relative_path(l->p, root->text, root->at), name);
  const char *kept = arena_strdup(l->memory, path);
  free(path);
  return kept;
}

/* What `strata data check --json` wrote about the data set is `fingerprint` in expressions. With these
 * evaluated it has been used up: numbers, not the file, enter the identity of a run, the keys of its
 * cache and its resolved file. */
static void read_fingerprint(loader *l, const tree *data) {
  const tree *named = data && data->kind == TREE_MAP ? tree_get(data, fingerprint_key) : NULL;
  tree *content = NULL;
  if (!named || tree_is_null(named)) return;
  const char *path = l->purpose == TO_LOOK ? NULL : fingerprint_path(l, data, named);
  if (scope_get(&l->p->params, fingerprint_key)) {
    report(l, named->at, "data: fingerprint: there is a parameter of that name; rename it.");
  } else if (path && !bundle_name(l->p->inside, path) && !file_exists(path)) {
    report(l, named->at,
           "data: fingerprint: there is no %s. Make it with `strata data check %s --json %s`, and "
           "the --set of this command.",
           path, l->p->path, path);
  } else if (path) {
    const source file = {.path = path, .name = fingerprint_file};
    status error = error_prefix(source_tree(l->p, &file, false, &content), "data: fingerprint");
    if (!error && content->kind != TREE_MAP)
      error = error_new(ERROR_PIPELINE, content->at,
                        "data: fingerprint: this is not what `strata data check --json` writes.");
    problems_add(&l->all, error_locate(error, named->at));
    if (error) content = NULL;
  }
  if (content)
    scope_set(&l->p->params, l->memory, fingerprint_key, content);
  else
    ARENA_PUSH(l->memory, l->failed, l->failed_count, l->failed_capacity, fingerprint_key);
}

static tree *resolve_data(loader *l, const tree *data) {
  tree *out = resolve(l, data);
  if (out->kind != TREE_MAP) return out;
  remove_key(out, fingerprint_key);
  return out;
}

static tree *resolve_root(loader *l, const tree *root) {
  tree *out = tree_new(l->memory, root->at, TREE_MAP, root->count);
  const tree *params = tree_get(root, "params");
  tree *values = params ? read_params(l, params, &l->p->params) : NULL;
  read_fingerprint(l, tree_get(root, "data"));
  for (int i = 0; i < root->count; i++) {
    const char *key = root->keys[i]->text;
    const tree *t = root->items[i];
    out->keys[i] = root->keys[i];
    out->items[i] = t == params                  ? values
                    : strcmp(key, "stages") == 0 ? resolve_stages(l, t)
                    : strcmp(key, "model") == 0  ? resolve_except_graphs(l, t)
                    : strcmp(key, "data") == 0   ? resolve_data(l, t)
                    : strcmp(key, "doc") == 0    ? (tree *)t
                                                 : resolve(l, t);
  }
  out->count = root->count;
  return out;
}

static bool comes_before(status a, status b) {
  source_pos x = error_position(a), y = error_position(b);
  if (x.file != y.file) return false;
  return x.line != y.line ? x.line < y.line : x.column < y.column;
}

/* In the order of the file, as a person corrects it. Problems of different files keep their order.
 */
static void sort_by_place(problems *all) {
  enum { KEPT = 50 }; /* beyond, problems are only counted */
  for (int i = 1; i < all->count && i < KEPT; i++)
    for (int k = i; k > 0 && comes_before(all->list[k], all->list[k - 1]); k--) {
      status swapped = all->list[k];
      all->list[k] = all->list[k - 1];
      all->list[k - 1] = swapped;
    }
}

static status load(loader *l, const char *path, const override *overrides, int override_count) {
  tree *root;
  source file = {0};
  if (l->p->text) {
    file = source_at(l->p, l->p->path);
  } else if (archive_is(path)) {
    TRY(archive_open(l->p, path, &file));
  } else {
    TRY(source_named(l->p, path, &file));
    l->p->path = intern_file(file.path);
  }
  l->root_name = file.name;
  TRY(load_with_bases(l->p, &file, &root));
  for (int i = 0; i < override_count; i++) apply_override(l->memory, root, &overrides[i], &l->all);
  root = resolve_root(l, root);
  read_header(l, root);
  read_data(l, need(l, root, the_pipeline, "data", root->at));
  read_model(l, need(l, root, the_pipeline, "model", root->at));
  read_stages(l, need(l, root, the_pipeline, "stages", root->at));
  read_evaluate(l, tree_get(root, "evaluate"));
  read_log(l, tree_get(root, "log"));
  sort_by_place(&l->all);
  TRY(problems_take(&l->all));
  pipeline_identity(l->p, with_paths(l, root, ""), l->model_hash);
  l->p->resolved = resolved_file(l, root);
  return OK;
}

static status load_pipeline(const char *path, const char *text, size_t length,
                            const override *overrides, int override_count, purpose purpose,
                            pipeline **out) {
  *out = NULL;
  pipeline *p = calloc(1, sizeof *p);
  if (!p) return error_out_of_memory(sizeof *p);
  p->path = intern_file(path);
  p->text = text;
  p->text_length = length;
  loader l = {.p = p, .memory = &p->memory, .names = &p->params, .purpose = purpose};
  status error = load(&l, path, overrides, override_count);
  problems_free(&l.all);
  if (error) {
    pipeline_free(p);
    return error;
  }
  *out = p;
  return OK;
}

status pipeline_load(const char *path, const override *overrides, int override_count,
                     pipeline **out) {
  return load_pipeline(path, NULL, 0, overrides, override_count, TO_RUN, out);
}

status pipeline_load_for_prediction(const char *path, const override *overrides, int override_count,
                                    pipeline **out) {
  return load_pipeline(path, NULL, 0, overrides, override_count, TO_PREDICT, out);
}

status pipeline_load_to_look(const char *path, const override *overrides, int override_count,
                             pipeline **out) {
  return load_pipeline(path, NULL, 0, overrides, override_count, TO_LOOK, out);
}

status pipeline_load_text(const char *path, const char *text, size_t length, pipeline **out) {
  return load_pipeline(path, text, length, NULL, 0, TO_RUN, out);
}

static status load_model(pipeline *p, const char *path, const override *overrides,
                         int override_count) {
  source_pos command_line = {intern_file("--set"), 0, 0};
  TRY(graph_file_load(p, path, NULL, command_line, &p->model));
  problems all = {0};
  for (int i = 0; i < override_count; i++)
    override_parameter(&p->memory, p->model.root, &overrides[i], &all);
  return problems_take(&all);
}

status pipeline_load_model(const char *path, const override *overrides, int override_count,
                           pipeline **out) {
  *out = NULL;
  pipeline *p = calloc(1, sizeof *p);
  if (!p) return error_out_of_memory(sizeof *p);
  p->path = intern_file(path);
  status error = load_model(p, path, overrides, override_count);
  if (error) {
    pipeline_free(p);
    return error;
  }
  *out = p;
  return OK;
}

void pipeline_free(pipeline *p) {
  if (!p) return;
  arena_free(&p->memory);
  free(p);
}
