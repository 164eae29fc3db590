#include "configure/plans.h"

#include "base/files.h"
#include "base/json.h"
#include "base/refuse.h"
#include "base/text.h"
#include "language/tree.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  PLANS_MAX_BYTES = 16 << 20,
  HEIRS_MAX = 8, /* configurations that inherit from each other */
  LEAST_LEVELS = 2,
  FOLDS_MAX = 10
};

/* A place in a JSON file. */
typedef struct reading {
  arena *memory;
  const char *path;  /* of the file */
  const char *place; /* "configurations.3d_fullres."; "": the whole file */
  const json_t *object;
} reading;

/* ---- values ---- */

/* "[1, 2]", or what fits of it. */
static const char *shown(const json_t *value, char out[96]) {
  char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
  printable(text ? text : "?", out);
  free(text);
  return out;
}

static status wrong(const reading *r, const char *key, const char *wanted) {
  char found[96];
  const json_t *value = json_object_get(r->object, key);
  if (!value)
    return error_new(ERROR_DATA, NOWHERE, "%s: %s%s is missing; it has to be %s", r->path, r->place,
                     key, wanted);
  return error_new(ERROR_DATA, NOWHERE, "%s: %s%s is %s; it has to be %s", r->path, r->place, key,
                   shown(value, found), wanted);
}

static status enter(const reading *r, const char *key, reading *out) {
  *out = *r;
  out->object = json_object_get(r->object, key);
  out->place = arena_printf(r->memory, "%s%s.", r->place, key);
  return json_is_object(out->object) ? OK : wrong(r, key, "a mapping");
}

static bool is_integer(const json_t *value, int64_t low, int64_t high) {
  return json_is_integer(value) && json_integer_value(value) >= low &&
         json_integer_value(value) <= high;
}

static bool is_number(const json_t *value, double low, double high) {
  return json_is_number(value) && json_number_value(value) >= low &&
         json_number_value(value) <= high;
}

/* A number for each of `count`, or one for all. */
static bool take_integers(const json_t *value, int count, int64_t low, int64_t high, int64_t *out) {
  if (!json_is_integer(value) && json_array_size(value) != (size_t)count) return false;
  for (int i = 0; i < count; i++) {
    const json_t *item = json_is_integer(value) ? value : json_array_get(value, (size_t)i);
    if (!is_integer(item, low, high)) return false;
    out[i] = json_integer_value(item);
  }
  return true;
}

static status read_integers(const reading *r, const char *key, int count, int64_t low, int64_t high,
                            int64_t *out) {
  if (take_integers(json_object_get(r->object, key), count, low, high, out)) return OK;
  return wrong(r, key,
               arena_printf(r->memory, "%d whole number%s from %lld to %lld", count,
                            count == 1 ? "" : "s", (long long)low, (long long)high));
}

/* Of every level. */
static status read_levels(const reading *r, const char *key, int levels, int64_t high,
                          int64_t out[][3]) {
  const json_t *list = json_object_get(r->object, key);
  bool fits = json_array_size(list) == (size_t)levels;
  for (int l = 0; l < levels && fits; l++)
    fits = take_integers(json_array_get(list, (size_t)l), 3, 1, high, out[l]);
  if (fits) return OK;
  return wrong(r, key,
               arena_printf(r->memory, "three whole numbers from 1 to %lld for each of %d stages",
                            (long long)high, levels));
}

static status read_numbers(const reading *r, const char *key, double low, double high,
                           double out[3]) {
  const json_t *list = json_object_get(r->object, key);
  for (int a = 0; a < 3; a++) {
    const json_t *item = json_array_get(list, (size_t)a);
    if (json_array_size(list) != 3 || !is_number(item, low, high))
      return wrong(r, key, arena_printf(r->memory, "three numbers from %g to %g", low, high));
    out[a] = json_number_value(item);
  }
  return OK;
}

static status read_number(const reading *r, const char *key, double low, double high, double *out) {
  const json_t *value = json_object_get(r->object, key);
  if (!is_number(value, low, high))
    return wrong(r, key, arena_printf(r->memory, "a number from %g to %g", low, high));
  *out = json_number_value(value);
  return OK;
}

/* Absent and null: the default. */
static status read_flag(const reading *r, const char *key, bool absent, bool *out) {
  const json_t *value = json_object_get(r->object, key);
  *out = absent;
  if (!value || json_is_null(value)) return OK;
  *out = json_is_true(value);
  return json_is_boolean(value) ? OK : wrong(r, key, "true or false");
}

static const char *text_of(const reading *r, const char *key) {
  const char *text = json_string_value(json_object_get(r->object, key));
  return text ? text : "";
}

/* "Conv3d" of "torch.nn.modules.conv.Conv3d". */
static const char *class_of(const reading *r, const char *key) {
  const char *text = text_of(r, key), *dot = strrchr(text, '.');
  return dot ? dot + 1 : text;
}

static bool is_absent(const reading *r, const char *key) {
  const json_t *value = json_object_get(r->object, key);
  return !value || json_is_null(value);
}

static int find_text(const char *text, const char *const *names) {
  for (int i = 0; names[i]; i++)
    if (strcmp(text, names[i]) == 0) return i;
  return -1;
}

/* ---- the network ---- */

static status check_modules(const reading *r, plans *out) {
  static const char *const norms[] = {"InstanceNorm3d", "BatchNorm3d", NULL};
  static const char *const known[] = {"n_stages",
                                      "features_per_stage",
                                      "conv_op",
                                      "kernel_sizes",
                                      "strides",
                                      "n_conv_per_stage",
                                      "n_blocks_per_stage",
                                      "n_conv_per_stage_decoder",
                                      "conv_bias",
                                      "norm_op",
                                      "norm_op_kwargs",
                                      "dropout_op",
                                      "dropout_op_kwargs",
                                      "nonlin",
                                      "nonlin_kwargs",
                                      "deep_supervision",
                                      NULL};
  const char *key;
  json_t *value;
  char name[96];
  json_object_foreach((json_t *)r->object, key, value) {
    if (find_text(key, known) >= 0) continue;
    return error_new(ERROR_DATA, NOWHERE,
                     "%s: %s%s changes the network in a way that is not known here", r->path,
                     r->place, printable(key, name));
  }
  if (strcmp(class_of(r, "conv_op"), "Conv3d") != 0) return wrong(r, "conv_op", "Conv3d");
  int norm = find_text(class_of(r, "norm_op"), norms);
  if (norm < 0) return wrong(r, "norm_op", "InstanceNorm3d or BatchNorm3d");
  out->is_batch_norm = norm == 1;
  reading inside;
  double eps, slope = 0.01;
  bool is_affine;
  TRY(enter(r, "norm_op_kwargs", &inside));
  TRY(read_number(&inside, "eps", 1e-5, 1e-5, &eps));
  TRY(read_flag(&inside, "affine", false, &is_affine));
  if (!is_affine) return wrong(&inside, "affine", "true");
  if (!is_absent(r, "dropout_op")) return wrong(r, "dropout_op", "null");
  if (strcmp(class_of(r, "nonlin"), "LeakyReLU") != 0) return wrong(r, "nonlin", "LeakyReLU");
  if (is_absent(r, "nonlin_kwargs")) return OK;
  TRY(enter(r, "nonlin_kwargs", &inside));
  if (is_absent(&inside, "negative_slope")) return OK;
  return read_number(&inside, "negative_slope", slope, slope, &slope);
}

/* Plans from before nnU-Net 2.4 say the same in other words. */
typedef struct wording {
  const char *strides, *kernels, *convolutions;
} wording;

static status read_stages(const reading *r, const wording *words, plans *out) {
  enum { KERNEL_MAX = 31, STRIDE_MAX = 16, CONVOLUTIONS_MAX = 64 };
  configuration *c = &out->c;
  size_t stages = json_array_size(json_object_get(r->object, words->strides));
  if (stages < LEAST_LEVELS || stages > CONFIGURED_LEVELS_MAX)
    return wrong(
        r, words->strides,
        arena_printf(r->memory, "a list of %d to %d stages", LEAST_LEVELS, CONFIGURED_LEVELS_MAX));
  c->levels = (int)stages;
  TRY(read_levels(r, words->strides, c->levels, STRIDE_MAX, c->strides));
  TRY(read_levels(r, words->kernels, c->levels, KERNEL_MAX, c->kernels));
  TRY(read_integers(r, words->convolutions, c->levels, 1, CONVOLUTIONS_MAX, out->convolutions));
  return read_integers(r, "n_conv_per_stage_decoder", c->levels - 1, 1, CONVOLUTIONS_MAX,
                       out->decoder_convolutions);
}

static status choose_network(const reading *r, const char *key, configuration *c) {
  static const char *const classes[] = {"PlainConvUNet", "ResidualEncoderUNet", NULL};
  int found = find_text(class_of(r, key), classes);
  if (found < 0) return wrong(r, key, "PlainConvUNet or ResidualEncoderUNet");
  c->network = found == 1 ? NETWORK_RESENC_UNET : NETWORK_PLAIN_UNET;
  return OK;
}

enum { FEATURES_MAX = 4096 };

static status read_older_network(const reading *r, plans *out) {
  static const wording words = {"pool_op_kernel_sizes", "conv_kernel_sizes",
                                "n_conv_per_stage_encoder"};
  int64_t first, most;
  TRY(choose_network(r, "UNet_class_name", &out->c));
  TRY(read_stages(r, &words, out));
  TRY(read_integers(r, "UNet_base_num_features", 1, 1, FEATURES_MAX, &first));
  TRY(read_integers(r, "unet_max_num_features", 1, 1, FEATURES_MAX, &most));
  for (int l = 0; l < out->c.levels; l++) out->features[l] = first << l < most ? first << l : most;
  out->has_bias = true;
  return OK;
}

static status read_network(const reading *r, plans *out) {
  reading architecture, arguments;
  if (!json_object_get(r->object, "architecture")) return read_older_network(r, out);
  TRY(enter(r, "architecture", &architecture));
  TRY(enter(&architecture, "arch_kwargs", &arguments));
  TRY(choose_network(&architecture, "network_class_name", &out->c));
  bool is_residual = out->c.network == NETWORK_RESENC_UNET;
  const wording words = {"strides", "kernel_sizes",
                         is_residual ? "n_blocks_per_stage" : "n_conv_per_stage"};
  TRY(check_modules(&arguments, out));
  TRY(read_stages(&arguments, &words, out));
  TRY(read_flag(&arguments, "conv_bias", false, &out->has_bias));
  return read_integers(&arguments, "features_per_stage", out->c.levels, 1, FEATURES_MAX,
                       out->features);
}

/* ---- how images are prepared ---- */

/* nnU-Net sees the array of a file, whose first axis is the file's last, and lets the axis with the thickest
 * slices be the first. */
static status read_axes(const reading *r, plans *out) {
  static const char *const readers[] = {"SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient",
                                        "NibabelIOWithReorient", NULL};
  int64_t order[3];
  int reader = find_text(text_of(r, "image_reader_writer"), readers);
  if (reader < 0)
    return wrong(r, "image_reader_writer",
                 "SimpleITKIO or NibabelIO, with or without reorientation");
  TRY(read_integers(r, "transpose_forward", 3, 0, 2, order));
  if ((1 << order[0] | 1 << order[1] | 1 << order[2]) != 7)
    return wrong(r, "transpose_forward", "0, 1 and 2 in any order");
  for (int a = 0; a < 3; a++) out->axes[a] = (reader < 2 ? "zyx" : "SAR")[order[a]];
  return OK;
}

static status read_values(const reading *r, int channel, channel_values *out) {
  reading all, own;
  static const double largest = 1e30;
  TRY(enter(r, "foreground_intensity_properties_per_channel", &all));
  TRY(enter(&all, arena_printf(r->memory, "%d", channel), &own));
  TRY(read_number(&own, "mean", -largest, largest, &out->mean));
  TRY(read_number(&own, "std", 1e-6, 1e9, &out->deviation));
  TRY(read_number(&own, "percentile_00_5", -largest, largest, &out->percentile_0_5));
  return read_number(&own, "percentile_99_5", out->percentile_0_5, largest, &out->percentile_99_5);
}

/* `whole`: the file, with the intensities of all configurations. */
static status read_scaling(const reading *whole, const reading *r, plans *out) {
  static const char *const schemes[] = {
      [SCALE_CT] = "CTNormalization",       [SCALE_UNIT] = "RescaleTo01Normalization",
      [SCALE_RGB] = "RGBTo01Normalization", [SCALE_NONE] = "NoNormalization",
      [SCALE_OWN] = "ZScoreNormalization",  NULL};
  const json_t *list = json_object_get(r->object, "normalization_schemes"),
               *masks = json_object_get(r->object, "use_mask_for_norm");
  size_t count = json_array_size(list);
  if (count < 1 || count > PLANNED_CHANNELS_MAX)
    return wrong(
        r, "normalization_schemes",
        arena_printf(r->memory, "a list of 1 to %d channels' schemes", PLANNED_CHANNELS_MAX));
  out->channels = (int)count;
  for (int i = 0; i < out->channels; i++) {
    const char *name = json_string_value(json_array_get(list, (size_t)i));
    const json_t *mask = json_array_get(masks, (size_t)i);
    int scheme = find_text(name ? name : "", schemes);
    if (scheme < 0)
      return wrong(r, "normalization_schemes",
                   "a list of CTNormalization, ZScoreNormalization, RescaleTo01Normalization, "
                   "RGBTo01Normalization and NoNormalization");
    if (!json_is_boolean(mask)) return wrong(r, "use_mask_for_norm", "true or false a channel");
    out->scaling[i] = scheme == SCALE_OWN && json_is_true(mask) ? SCALE_BODY : (scaling)scheme;
    if (scheme == SCALE_CT) TRY(read_values(whole, i, &out->values[i]));
  }
  return OK;
}

/* `orders`: which are known; the one that is asked for is *order. */
static status read_resampling(const reading *r, const char *function, const char *arguments,
                              int64_t lowest, int64_t highest, int64_t *order, bool *separates) {
  reading inside;
  int64_t order_z = 0;
  if (strcmp(text_of(r, function), "resample_data_or_seg_to_shape") != 0)
    return wrong(r, function, "resample_data_or_seg_to_shape");
  TRY(enter(r, arguments, &inside));
  TRY(read_integers(&inside, "order", 1, lowest, highest, order));
  if (!is_absent(&inside, "order_z"))
    TRY(read_integers(&inside, "order_z", 1, 0, 0, &order_z)); /* the nearest slice */
  TRY(read_flag(&inside, "force_separate_z", true, separates));
  if (*separates && !is_absent(&inside, "force_separate_z"))
    return wrong(&inside, "force_separate_z", "null or false");
  return OK;
}

static status read_preparation(const reading *r, plans *out) {
  static const char *const orders[] = {"nearest", "linear", NULL, "cubic"};
  enum { SIDE_MAX = 4096 };
  configuration *c = &out->c;
  int64_t order;
  double median[3];
  if (json_object_get(r->object, "previous_stage"))
    return wrong(r, "previous_stage",
                 "absent: a cascade's second network also sees what the first "
                 "has segmented, which is not known here");
  if (json_array_size(json_object_get(r->object, "patch_size")) == 2)
    return wrong(r, "patch_size", "three sides: networks are of volumes here, not of slices");
  if (strcmp(text_of(r, "preprocessor_name"), "DefaultPreprocessor") != 0)
    return wrong(r, "preprocessor_name", "DefaultPreprocessor");
  TRY(read_integers(r, "patch_size", 3, 1, SIDE_MAX, c->crop));
  TRY(read_numbers(r, "spacing", 1e-3, 100, c->spacing_mm));
  TRY(read_integers(r, "batch_size", 1, 1, SIDE_MAX, &c->planned_batch));
  TRY(read_numbers(r, "median_image_size_in_voxels", 1, 1e6, median));
  for (int a = 0; a < 3; a++) c->median_size[a] = (int64_t)round(median[a]);
  TRY(read_flag(r, "batch_dice", false, &out->is_batch_dice));
  TRY(read_resampling(r, "resampling_fn_data", "resampling_fn_data_kwargs", 0, 3, &order,
                      &out->slices_image));
  if (order == 2) return wrong(r, "resampling_fn_data_kwargs", "of order 0, 1 or 3");
  out->interpolation = orders[order];
  return read_resampling(r, "resampling_fn_probabilities", "resampling_fn_probabilities_kwargs", 1,
                         1, &order, &out->slices_output);
}

/* ---- configurations ---- */

/* What a configuration does not say itself, the one it inherits from says. */
static status resolve(const reading *all, const char *name, json_t **out) {
  const json_t *found = json_object_get(all->object, name);
  if (!json_is_object(found))
    return wrong(all, name,
                 "a mapping; it is the end of the folder's name that says which configuration "
                 "was trained");
  *out = json_copy((json_t *)found);
  for (int i = 0;; i++) {
    const char *heir_of = json_string_value(json_object_get(*out, "inherits_from"));
    const json_t *older = heir_of ? json_object_get(all->object, heir_of) : NULL;
    if (!json_object_get(*out, "inherits_from")) return OK;
    if (!json_is_object(older) || i == HEIRS_MAX)
      return error_new(ERROR_DATA, NOWHERE,
                       "%s: %s%s inherits from a configuration that is not there, or in a circle",
                       all->path, all->place, name);
    json_object_del(*out, "inherits_from");
    if (json_object_update_missing(*out, (json_t *)older) != 0) return error_out_of_memory(0);
  }
}

static status read_configuration(const reading *whole, plans *out) {
  reading all, own;
  json_t *resolved = NULL;
  char name[96];
  TRY(enter(whole, "configurations", &all));
  status error = resolve(&all, out->name, &resolved);
  own = all;
  own.object = resolved;
  own.place = arena_printf(whole->memory, "configurations.%s.", printable(out->name, name));
  if (!error) error = read_preparation(&own, out);
  if (!error) error = read_scaling(whole, &own, out);
  if (!error) error = read_network(&own, out);
  json_decref(resolved);
  return error;
}

static status read_plans_json(const char *path, arena *memory, plans *out) {
  json_t *root;
  TRY(json_read(path, PLANS_MAX_BYTES, &root));
  reading whole = {memory, path, "", root};
  out->dataset = arena_strdup(memory, text_of(&whole, "dataset_name"));
  status error = read_axes(&whole, out);
  if (!error) error = read_configuration(&whole, out);
  json_decref(root);
  return error;
}

/* "labels": {"background": 0, "liver": 1}, or with lists for regions. */
static status read_outputs(const reading *r, plans *out) {
  reading labels;
  const char *name;
  json_t *value;
  TRY(enter(r, "labels", &labels));
  json_object_foreach((json_t *)labels.object, name, value) {
    out->has_regions |= json_array_size(value) > 1;
  }
  json_object_foreach((json_t *)labels.object, name, value) {
    const json_t *class = json_array_size(value) == 1 ? json_array_get(value, 0) : value;
    bool is_listed = out->has_regions && json_is_array(value);
    if (strcmp(name, "ignore") == 0) continue;
    if (!is_listed && !is_integer(class, 0, LABEL_CLASSES - 1))
      return wrong(&labels, name, "a class, from 0 to 254, or a list of classes");
    if (out->has_regions && is_integer(value, 0, 0)) continue;
    int64_t at = out->has_regions ? out->output_count : json_integer_value(class) - 1;
    if (at < 0) continue;
    if (at >= LABEL_CLASSES) return wrong(r, "labels", "at most 254 classes or regions");
    out->outputs[at] = arena_strdup(r->memory, name);
    if (at >= out->output_count) out->output_count = (int)at + 1;
  }
  return OK;
}

/* Which class each region writes. */
static status read_written(const reading *r, plans *out) {
  const json_t *order = json_object_get(r->object, "regions_class_order");
  size_t count = json_array_size(order);
  int64_t classes[REGIONS_MAX];
  if (!order) return OK;
  if (count < 1 || count > REGIONS_MAX) return wrong(r, "regions_class_order", "a list of classes");
  TRY(read_integers(r, "regions_class_order", (int)count, 1, LABEL_CLASSES - 1, classes));
  for (size_t i = 0; i < count; i++) out->written[out->written_count++] = (int)classes[i];
  return OK;
}

static status read_dataset_json(const char *path, arena *memory, plans *out) {
  json_t *root;
  TRY(json_read(path, PLANS_MAX_BYTES, &root));
  reading whole = {memory, path, "", root};
  status error = read_outputs(&whole, out);
  if (!error) error = read_written(&whole, out);
  json_decref(root);
  return error;
}

bool plans_segment(const plans *p, const dataset *d) {
  int count = d->region_count > 0 ? d->region_count : d->class_count - 1;
  bool same = p->has_regions == (d->region_count > 0) && p->output_count == count;
  for (int i = 0; i < count && same; i++)
    same = p->outputs[i] && strcmp(p->outputs[i], d->region_count > 0 ? d->regions[i].name
                                                                      : d->class_names[i + 1]) == 0;
  return same;
}

/* ---- the folder ---- */

static const char *join(arena *memory, const char *folder, const char *name) {
  return arena_printf(memory, "%s/%s", folder, name);
}

static status find_checkpoint(arena *memory, plans *out) {
  static const char *const files[] = {"checkpoint_final.pth", "checkpoint_best.pth"};
  for (size_t f = 0; f < sizeof files / sizeof *files; f++)
    for (int i = 0; i <= FOLDS_MAX; i++) {
      const char *fold = i == FOLDS_MAX ? "all" : arena_printf(memory, "%d", i);
      if (!file_exists(arena_printf(memory, "%s/fold_%s/%s", out->folder, fold, files[f])))
        continue;
      out->fold = fold;
      out->checkpoint = files[f];
      return OK;
    }
  return error_new(ERROR_DATA, NOWHERE,
                   "%s has no weights: fold_0/checkpoint_final.pth or that of another fold",
                   out->folder);
}

/* Beside the cases that nnU-Net has prepared, whose folder the training noted. */
static const char *find_splits(arena *memory, const plans *p) {
  json_t *root;
  status error = json_read(arena_printf(memory, "%s/fold_%s/debug.json", p->folder, p->fold),
                           PLANS_MAX_BYTES, &root);
  const char *folder =
      error ? NULL : json_string_value(json_object_get(root, "preprocessed_dataset_folder_base"));
  const char *path = folder ? join(memory, folder, "splits_final.json") : NULL;
  error_free(error);
  json_decref(root);
  return path && text_is_printable(path) && file_exists(path) ? path : NULL;
}

/* nnUNetTrainer__nnUNetPlans__3d_fullres */
static void read_name(const char *folder, arena *memory, plans *out) {
  const char *slash = strrchr(folder, '/'), *trainer = slash ? slash + 1 : folder, *last = NULL;
  for (const char *p = trainer; (p = strstr(p, "__")); p += 2) last = p + 2;
  out->name = arena_strdup(memory, last ? last : "3d_fullres");
  out->mirrored = strstr(trainer, "NoMirroring")    ? ""
                  : strstr(trainer, "onlyMirror01") ? "x, y"
                                                    : "x, y, z";
}

status plans_read(const char *folder, arena *memory, plans *out) {
  char real[PATH_MAX];
  *out = (plans){0};
  if (!realpath(folder, real)) return error_from_errno("open", folder);
  out->folder = arena_strdup(memory, real);
  read_name(real, memory, out);
  const char *path = join(memory, real, "plans.json");
  if (!file_exists(path))
    return error_new(ERROR_DATA, NOWHERE,
                     "%s has no plans.json: a trained model of nnU-Net is a folder such as "
                     "nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres",
                     folder);
  TRY(read_plans_json(path, memory, out));
  TRY(read_dataset_json(join(memory, real, "dataset.json"), memory, out));
  TRY(find_checkpoint(memory, out));
  out->splits = find_splits(memory, out);
  return OK;
}
