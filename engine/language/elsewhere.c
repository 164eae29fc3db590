#include "language/elsewhere.h"

#include <ctype.h>
#include <string.h>

#include "language/load.h"

/* ---- attributes ---- */

typedef struct foreign_word {
  const char *word, *ours;
  const char *difference; /* what else is other; NULL: the same values mean the same */
  const char *of; /* the one operator it belongs to; NULL: every one that has the attribute */
} foreign_word;

#define WINDOW "evaluate: inferer: sliding_window"

static const foreign_word foreign_words[] = {
    {"prob", "probability", NULL, NULL},
    {"p_per_sample", "probability", NULL, NULL},
    {"p", "probability", NULL, NULL},
    {"flip_probability", "probability", NULL, "random_flip"},
    {"p_per_channel", "channel_probability", NULL, NULL},
    {"prob", "rotate_probability", "there are zoom_probability and shear_probability beside it",
     NULL},
    {"p_rotation", "rotate_probability", NULL, NULL},
    {"p_scaling", "zoom_probability", NULL, NULL},
    {"spatial_size", "size", NULL, NULL},
    {"roi_size", "size", NULL, NULL},
    {"target_shape", "size", NULL, NULL},
    {"patch_size", "size", "[x, y, z], where nnU-Net has z first", NULL},
    {"pos", "positive", NULL, NULL},
    {"neg", "negative", NULL, NULL},
    {"oversample_foreground_percent", "foreground", NULL, NULL},
    {"ratios", "class_ratios", NULL, NULL},
    {"spatial_axis", "axes", "letters, as in [x, y]", "random_flip"},
    {"spatial_axes", "plane", "letters, as in [x, y]", NULL},
    {"allowed_axes", "axes", "letters, as in [x, y], where nnU-Net's 0 is z", NULL},
    {"axcodes", "axes", NULL, "orient"},
    {"max_k", "max_turns", NULL, NULL},
    {"factors", "factor", NULL, "random_scale_intensity"},
    {"multiplier_range", "factor", NULL, "random_brightness"},
    {"contrast_range", "factor", NULL, "random_contrast"},
    {"offsets", "offset", NULL, NULL},
    {"gamma_range", "gamma", NULL, NULL},
    {"invert_image", "invert", NULL, NULL},
    {"p_invert_image", "invert", "true or false, for two random_gamma one after the other", NULL},
    {"retain_stats", "keep_statistics", NULL, NULL},
    {"p_retain_stats", "keep_statistics", "true or false", NULL},
    {"rotate_range", "rotation", "in degrees, where MONAI has radians", NULL},
    {"range_x", "rotation", "[x, y, z] in degrees, where MONAI has radians", NULL},
    {"range_y", "rotation", "[x, y, z] in degrees, where MONAI has radians", NULL},
    {"range_z", "rotation", "[x, y, z] in degrees, where MONAI has radians", NULL},
    {"degrees", "rotation", "the largest angle either way, or [x, y, z]", NULL},
    {"scales", "zoom", "[low, high]", "random_affine"},
    {"scale_range", "zoom", "[low, high] of the magnification: MONAI's 0.1 is [1 / 1.1, 1 / 0.9]",
     "random_affine"},
    {"scaling", "zoom",
     "[low, high] of the magnification: nnU-Net's [0.7, 1.4] is [1 / 1.4, 1 / 0.7]",
     "random_affine"},
    {"min_zoom", "zoom", "[min_zoom, max_zoom]", "random_affine"},
    {"max_zoom", "zoom", "[min_zoom, max_zoom]", "random_affine"},
    {"zoom_range", "zoom", NULL, "random_low_resolution"},
    {"downsampling", "zoom", "[low, high] of one over the downsampling", "random_low_resolution"},
    {"log_gamma", "gamma", "the exponent itself: 0.3 is [0.74, 1.35]", NULL},
    {"shear_range", "shear", "one number for all pairs of axes", NULL},
    {"std", "sd", NULL, NULL},
    {"noise_variance", "sd", "the largest standard deviation", "random_noise"},
    {"sigma_x", "sd", "[low, high] for all three axes", "random_blur"},
    {"blur_sigma", "sd", NULL, "random_blur"},
    {"sigma_range", "sigma", NULL, NULL},
    {"magnitude_range", "magnitude", NULL, NULL},
    {"coeff_range", "coefficients", NULL, NULL},
    {"order", "degree", NULL, "random_bias_field"},
    {"num_control_points", "control_points", NULL, "random_histogram_shift"},
    {"max_holes", "boxes", NULL, "random_cutout"},
    {"holes", "boxes", "the most there are", "random_cutout"},
    {"spatial_size", "extent", "[low, high], as a share of the crop's", NULL},
    {"fill_value", "fill", "zero or mean", NULL},
    {"num_spikes", "spikes", "the most there are", NULL},
    {"intensity", "amplitude", "[low, high], as a share of the channel's range", NULL},
    {"intensity_range", "amplitude", "[low, high], as a share of the channel's range", NULL},
    {"alpha", "keep", "[low, high] of 1 - alpha", "random_ringing"},
    {"alpha", "strength", "[low, high]", "random_sharpen"},
    {"padding_mode", "outside", "zero or edge", NULL},
    {"k", "multiple", NULL, "pad"},
    {"target_multiple", "multiple", NULL, "pad"},
    {"pixdim", "spacing", NULL, NULL},
    {"target", "spacing", "in mm", NULL},
    {"a_min", "from", "[a_min, a_max]", NULL},
    {"a_max", "from", "[a_min, a_max]", NULL},
    {"b_min", "to", "[b_min, b_max]", NULL},
    {"b_max", "to", "[b_min, b_max]", NULL},
    {"lower", "percent", "[lower, upper]", NULL},
    {"upper", "percent", "[lower, upper]", NULL},
    {"nonzero", "scope", "scope: nonzero", NULL},
    {"masking_method", "scope", "scope: nonzero", NULL},
    {"select_fn", "above", "a number", NULL},
    {"mode", "image", "linear, nearest or cubic, and `label` for the label", "resample"},
    {"squared_pred", "squared", NULL, NULL},
    {"smooth_nr", "smooth_numerator", NULL, NULL},
    {"smooth_dr", "smooth_denominator", NULL, NULL},
    {"lambda_dice", "dice_weight", NULL, NULL},
    {"lambda_ce", "ce_weight", NULL, NULL},
    {"lambda_focal", "focal_weight", NULL, NULL},
    {"use_softmax", "sigmoid", "the opposite: use_softmax: true is sigmoid: false", NULL},
    {"betas", "beta1", "there is beta2 beside it", NULL},
    {"sw_batch_size", "batch", NULL, WINDOW},
    {"mode", "blend", "constant or gaussian", WINDOW},
    {"tile_step_size", "step", NULL, WINDOW},
    {"use_mirroring", "mirror", "axes, as in [x, y, z]", WINDOW},
    {"applied_labels", "classes", NULL, NULL},
    {"num_components", "components", NULL, NULL},
    {"independent", "together", "the opposite: independent: false is together: true", NULL},
    {"min_size", "below", "in ml, where MONAI counts voxels unless by_measure is given", NULL},
    {"independent_channels", "together",
     "the opposite: independent_channels: false is together: true", NULL},
};
enum { FOREIGN_WORDS = sizeof foreign_words / sizeof *foreign_words };

static bool belongs(const foreign_word *w, const op *o) {
  return !w->of || strcmp(w->of, o->name) == 0;
}

static const foreign_word *find_word(const op *o, const char *word) {
  for (int i = 0; i < FOREIGN_WORDS; i++) {
    if (strcmp(foreign_words[i].word, word) != 0 || !belongs(&foreign_words[i], o)) continue;
    for (const attr *a = o->attrs; a && a->name; a++)
      if (strcmp(a->name, foreign_words[i].ours) == 0) return &foreign_words[i];
  }
  return NULL;
}

const char *elsewhere_attribute(const op *o, const char *word, const char **difference) {
  const foreign_word *found = find_word(o, word);
  *difference = found ? found->difference : NULL;
  return found ? found->ours : NULL;
}

const char *elsewhere_attribute_remark(const op *o, const char *word) {
  static const struct {
    const char *word, *remark, *of; /* as in foreign_word */
  } table[] = {
      {"keys", "image and label are treated as each needs", NULL},
      {"source_key", "the image says it", NULL},
      {"num_samples", "`data: crops_per_case` says how many", NULL},
      {"to_onehot_y", "the label is class numbers", NULL},
      {"softmax", "the softmax is part of the loss", NULL},
      {"reduction", "the mean is taken", NULL},
      {"translation", "crops lie at random places", "random_affine"},
      {"translate_range", "crops lie at random places", "random_affine"},
      {"isotropic", "one zoom holds for all axes", "random_affine"},
      {"subtrahend", "`standardize` takes numbers", "normalize"},
      {"divisor", "`standardize` takes numbers", "normalize"},
      {"padding_mode", "an image continues with its edge", "resample"},
      {"padding_mode", "0 surrounds a volume that is smaller than the window", WINDOW},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(table[i].word, word) == 0 && (!table[i].of || strcmp(table[i].of, o->name) == 0))
      return table[i].remark;
  return NULL;
}

const char *elsewhere_word(const op *o, const attr *a, int index) {
  if (!(o->traits & (OP_PREPARE | OP_SAMPLE | OP_POSTPROCESS))) return NULL;
  for (int i = 0; i < FOREIGN_WORDS; i++)
    if (strcmp(foreign_words[i].ours, a->name) == 0 && !foreign_words[i].difference &&
        belongs(&foreign_words[i], o) && index-- == 0)
      return foreign_words[i].word;
  return NULL;
}

/* ---- keys and metrics ---- */

typedef struct word_pair {
  const char *word, *ours;
} word_pair;

/* Of capitals and signs between words it makes no difference: maxEpochs, max-epochs. */
static const char *find_pair(const word_pair *table, size_t count, const char *word) {
  for (size_t i = 0; i < count; i++) {
    const char *a = table[i].word, *b = word;
    while (*a && *b) {
      if (*b == '_' || *b == '-' || *b == ' ')
        b++;
      else if (*a != tolower((unsigned char)*b))
        break;
      else
        a++, b++;
    }
    if (!*a && !*b) return table[i].ours;
  }
  return NULL;
}

#define SLIDING(key) "`" key "` of `evaluate: inferer: sliding_window`"

const char *elsewhere_key(const char *word) {
  static const word_pair table[] = {
      {"batchsize", "`batch` of a stage"},
      {"trainbatchsize", "`batch` of a stage"},
      {"maxepochs", "`epochs` of a stage"},
      {"numepochs", "`epochs` of a stage"},
      {"nepochs", "`epochs` of a stage"},
      {"maxsteps", "`steps_per_epoch` times `epochs` of a stage"},
      {"maxiterations", "`steps_per_epoch` times `epochs` of a stage"},
      {"numiterationsperepoch", "`steps_per_epoch` of a stage"},
      {"iterationsperepoch", "`steps_per_epoch` of a stage"},
      {"lr", "`optimizer: {adamw: {lr: 1.0e-4}}` of a stage"},
      {"initiallr", "`optimizer: {sgd: {lr: 1.0e-2}}` of a stage"},
      {"learningrate", "`optimizer: {adamw: {lr: 1.0e-4}}` of a stage"},
      {"weightdecay", "`optimizer: {adamw: {weight_decay: 1.0e-5}}` of a stage"},
      {"momentum", "`optimizer: {sgd: {momentum: 0.99}}` of a stage"},
      {"scheduler", "`schedule: {lua: poly}` of a stage"},
      {"lrscheduler", "`schedule: {lua: poly}` of a stage"},
      {"warmup", "`schedule: {lua: warmup_cosine, warmup: 50}` of a stage"},
      {"warmupepochs", "`schedule: {lua: warmup_cosine, warmup: 50}` of a stage"},
      {"loss", "an item of a stage's graph, `- loss: {dice_ce: [net.out, label]}`"},
      {"lossfunction", "an item of a stage's graph, `- loss: {dice_ce: [net.out, label]}`"},
      {"criterion", "an item of a stage's graph, `- loss: {dice_ce: [net.out, label]}`"},
      {"deepsupervision", "an item of a stage's graph, `- loss: {deep_supervision: [label, …]}`"},
      {"amp", "`precision: bf16` of a stage"},
      {"fp16", "`precision: bf16` of a stage"},
      {"mixedprecision", "`precision: bf16` of a stage"},
      {"valinterval", "`validate: {every: 10}` of a stage"},
      {"valevery", "`validate: {every: 10}` of a stage"},
      {"checkvaleverynepoch", "`validate: {every: 10}` of a stage"},
      {"savebest", "`validate: {every: 10, keep_best: dice}` of a stage"},
      {"earlystopping", "`on_epoch_end: {lua: stop_on_plateau, patience: 10}` of a stage"},
      {"patience", "`on_epoch_end: {lua: stop_on_plateau, patience: 10}` of a stage"},
      {"saveinterval", "`checkpoint: {every: 10m}` of a stage"},
      {"saveevery", "`checkpoint: {every: 10m}` of a stage"},
      {"gradclip", "`clip_norm` of a stage"},
      {"maxgradnorm", "`clip_norm` of a stage"},
      {"gradientclipval", "`clip_norm` of a stage"},
      {"accumulategradbatches", "`accumulate` of a stage"},
      {"gradientaccumulationsteps", "`accumulate` of a stage"},
      {"pretrained", "`init: {from: FILE or stage}` of a stage"},
      {"pretrainedweights", "`init: {from: FILE or stage}` of a stage"},
      {"checkpointpath", "`init: {from: FILE or stage}` of a stage"},
      {"freeze", "`groups: [{match: \"encoder*\", lr_scale: 0}]` of a stage"},
      {"augmentation", "`data: sample`, or `sample` of a stage"},
      {"augmentations", "`data: sample`, or `sample` of a stage"},
      {"transform", "`data: prepare` (once a case) and `data: sample` (every crop)"},
      {"transforms", "`data: prepare` (once a case) and `data: sample` (every crop)"},
      {"traintransforms", "`data: prepare` (once a case) and `data: sample` (every crop)"},
      {"valtransforms", "`data: prepare`, which every case goes through"},
      {"numworkers", "`data: loader_threads`"},
      {"numsamples", "`data: crops_per_case`"},
      {"cacherate", "`data: cache`, a folder; prepared cases stay in memory, too"},
      {"cachenum", "`data: cache`, a folder; prepared cases stay in memory, too"},
      {"cachedir", "`data: cache`"},
      {"datadir", "`data: root`"},
      {"rootdir", "`data: root`"},
      {"datalist", "`data: dataset: {decathlon: FILE}`, with its folds under `data: split`"},
      {"fold", "`data: split: {folds: 5, fold: 0}`"},
      {"folds", "`data: split: {folds: 5, fold: 0}`"},
      {"numfolds", "`data: split: {folds: 5, fold: 0}`"},
      {"valfrac", "`data: split: {train: 0.7, validation: 0.1, test: 0.2}`"},
      {"spacing", "`data: prepare: [resample: {spacing: [x, y, z]}]`"},
      {"pixdim", "`data: prepare: [resample: {spacing: [x, y, z]}]`"},
      {"patchsize", "`size` of `random_crop` in `data: sample`, and of the sliding window"},
      {"roisize", "`size` of `random_crop` in `data: sample`, and of the sliding window"},
      {"cropsize", "`size` of `random_crop` in `data: sample`, and of the sliding window"},
      {"overlap", SLIDING("overlap")},
      {"swbatchsize", SLIDING("batch")},
      {"tta", SLIDING("mirror")},
      {"mirror", SLIDING("mirror")},
      {"usemirroring", SLIDING("mirror")},
      {"network", "`model`"},
      {"net", "`model`"},
      {"randomseed", "`seed`"},
      {"gpu", "`device: cuda`"},
      {"gpus", "`device: cuda`"},
      {"outputdir", "--out of `strata run`"},
      {"logdir", "--out of `strata run`"},
  };
  return find_pair(table, sizeof table / sizeof *table, word);
}

const char *elsewhere_metric(const char *word) {
  static const word_pair table[] = {
      {"dicemetric", "dice"},
      {"dsc", "dice"},
      {"f1", "dice"},
      {"iou", "jaccard"},
      {"miou", "jaccard"},
      {"meaniou", "jaccard"},
      {"sensitivity", "recall"},
      {"tpr", "recall"},
      {"ppv", "precision"},
      {"hausdorff", "hd"},
      {"hausdorffdistance", "hd"},
      {"hausdorffdistancemetric", "hd95"},
      {"hausdorff95", "hd95"},
      {"95hd", "hd95"},
      {"asd", "assd"},
      {"surfacedistancemetric", "assd"},
      {"averagesurfacedistance", "assd"},
      {"surfacedice", "nsd"},
      {"surfacedicemetric", "nsd"},
      {"normalizedsurfacedice", "nsd"},
  };
  return find_pair(table, sizeof table / sizeof *table, word);
}

void elsewhere_translate(const op *o, tree *attributes, arena *memory, problems *all) {
  for (int i = 0; i < attributes->count; i++) {
    const tree *key = attributes->keys[i];
    const foreign_word *found = find_word(o, key->text);
    if (!found || found->difference) continue;
    if (!tree_get(attributes, found->ours)) {
      attributes->keys[i] = tree_scalar(memory, key->at, found->ours, false);
      continue;
    }
    problems_add(all, error_new(ERROR_PIPELINE, key->at,
                                "%s: %s is another word for %s, which is there, too.", o->name,
                                key->text, found->ours));
    remove_key(attributes, key->text); /* so that it is not unknown as well */
    i--;
  }
}
