#include "configure/write.h"

#include "base/files.h"
#include "base/memory.h"
#include "configure/plans.h"
#include "language/scope.h"
#include "language/tree.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char axes[] = "xyz";

typedef struct writing {
  const configure_options *o;
  const dataset_look *look;
  const configuration *c;
  text_buffer *yaml;
} writing;

static void add_integers(text_buffer *t, const int64_t list[3]) {
  if (list[0] == list[1] && list[1] == list[2])
    text_add(t, "%lld", (long long)list[0]);
  else
    text_add(t, "[%lld, %lld, %lld]", (long long)list[0], (long long)list[1], (long long)list[2]);
}

/* A list of the levels from `from` on. */
static void add_levels(text_buffer *t, const char *key, const int64_t (*list)[3], int from,
                       int to) {
  text_add(t, "    %s: [", key);
  for (int l = from; l < to; l++) {
    text_add(t, "%s", l > from ? ", " : "");
    add_integers(t, list[l]);
  }
  text_add(t, "]\n");
}

static bool has_labels(const writing *w) {
  return w->c->labelled > 0;
}

/* Enough to leave some out of training and choose by them. */
static bool has_validation(const writing *w) {
  return w->c->labelled >= 10;
}

static bool has_regions(const writing *w) {
  return w->look->data->region_count > 0;
}

static const plans *trained(const writing *w) {
  return w->o->trained;
}

/* Outputs at full resolution, a half, …: all but those of the two lowest levels, as in nnU-Net. */
static int output_count(const configuration *c) {
  int count = c->levels - 2;
  return count < 1 ? 1 : count > 6 ? 6 : count;
}

static void add_outputs(const writing *w) {
  text_add(w->yaml, "net.out");
  for (int i = 2; i <= output_count(w->c); i++) text_add(w->yaml, ", net.out%d", i);
}

/* ---- data ---- */

static void add_text(const writing *w, const char *text) {
  text_buffer doubled = {0};
  scope_escape(text, &doubled);
  tree_write_key(doubled.data, w->yaml);
  text_free(&doubled);
}

static const char *name_of_folder(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash && slash[1] ? slash + 1 : ".";
}

/* Decathlon's dataset.json has the folder as root. In the other layouts the folder is the data set, and
 * what it is called. */
static void add_place(const writing *w) {
  const data_spec *d = w->o->data;
  char real[PATH_MAX];
  if (!realpath(d->dataset, real)) snprintf(real, sizeof real, "%s", d->dataset);
  char *root = path_folder(real);
  text_add(w->yaml, "data:\n  root: ");
  add_text(w, root);
  text_add(w->yaml, "\n  dataset: {%s: ", dataset_layout_names[d->layout]);
  add_text(w, name_of_folder(real));
  text_add(w->yaml, "}\n");
  free(root);
}

/* Was the model trained on this data set? */
static bool is_own(const writing *w) {
  char real[PATH_MAX];
  const char *path = w->o->data->dataset;
  return trained(w) &&
         strcmp(name_of_folder(realpath(path, real) ? real : path), trained(w)->dataset) == 0;
}

static void add_split(const writing *w) {
  int n = w->c->labelled;
  if (is_own(w) && trained(w)->splits && strcmp(trained(w)->fold, "all") != 0) {
    text_add(w->yaml, "  split: {file: ");
    add_text(w, trained(w)->splits);
    text_add(w->yaml, ", fold: \"${fold}\"%s}   # tests what the model has not seen\n",
             has_validation(w) ? ", validation: 0.1" : "");
    return;
  }
  if (is_own(w))
    text_add(w->yaml,
             "  # Not nnU-Net's folds: cases that test here may have trained the model. With its\n"
             "  # splits_final.json: split: {file: splits_final.json, fold: 0}\n");
  if (n == 0)
    text_add(w->yaml, "  split: {train: 1, validation: 0, test: 0}   # no case has a label\n");
  else if (!has_validation(w))
    text_add(w->yaml, "  split: {folds: %d, fold: 0}   # few cases: none is left to validate on\n",
             n < 5 ? n : 5);
  else
    text_add(w->yaml,
             "  split: {folds: 5, fold: 0, validation: 0.1}   # --set data.split.fold=1 …\n");
}

static int by_inclusion(const void *a, const void *b) {
  const class_group *const *x = a, *const *y = b;
  int less = (*y)->count - (*x)->count;
  return less ? less : (*x > *y) - (*x < *y);
}

/* dataset.json can list them in any order; a pipeline has each before those inside it. A trained network's
 * outputs have the order of dataset.json. */
static void add_regions(const writing *w) {
  const dataset *d = w->look->data;
  const class_group **list = memory_resize(NULL, ((size_t)d->region_count + 1) * sizeof *list);
  for (int i = 0; i < d->region_count; i++) list[i] = &d->regions[i];
  if (!trained(w)) qsort(list, (size_t)d->region_count, sizeof *list, by_inclusion);
  if (has_regions(w)) text_add(w->yaml, "  regions:   # of dataset.json\n");
  for (int i = 0; i < d->region_count; i++) {
    text_add(w->yaml, "    ");
    tree_write_key(list[i]->name, w->yaml);
    text_add(w->yaml, ": [");
    for (int k = 0; k < list[i]->count; k++)
      text_add(w->yaml, "%s%d", k ? ", " : "", list[i]->classes[k]);
    text_add(w->yaml, "]\n");
  }
  free(list);
}

/* Without names: air, and what lies outside of a CT, has some -1000. */
static bool looks_like_ct(const dataset_look *look) {
  int air = 0, count = 0;
  for (int i = 0; i < look->data->case_count; i++) {
    count += look->cases[i].is_good;
    air += look->cases[i].is_good && look->cases[i].min <= -900;
  }
  return look->data->channels == 1 && 2 * air > count;
}

static const channel_values *values_of(const writing *w, int channel) {
  return trained(w) ? &trained(w)->values[channel] : &w->look->channels[channel];
}

/* What a channel's name says, as in nnU-Net. */
static scaling scaling_of(const writing *w, int channel) {
  static const char *const names[] = {"CT", "rescale_to_0_1", "rgb_to_0_1", "noNorm"};
  const dataset *d = w->look->data;
  const channel_values *v = values_of(w, channel);
  int s = 0;
  if (trained(w)) return trained(w)->scaling[channel];
  if (d->channel_names)
    while (s < SCALE_OWN && strcasecmp(d->channel_names[channel], names[s]) != 0) s++;
  else
    s = looks_like_ct(w->look) ? SCALE_CT : SCALE_OWN;
  /* Without a label there is nothing to take the numbers of. */
  bool has_values = v->count > 0 && v->deviation > 0 && v->percentile_0_5 < v->percentile_99_5;
  if (s == SCALE_CT && !has_values) s = SCALE_OWN;
  return s == SCALE_OWN && w->c->has_empty_surround ? SCALE_BODY : (scaling)s;
}

/* ", channels: [0, 2]", where they are not all. */
static void add_channels(const writing *w, scaling wanted) {
  int channels = w->look->data->channels, count = 0;
  for (int i = 0; i < channels; i++) count += scaling_of(w, i) == wanted;
  if (count == channels) return;
  const char *separator = ", channels: [";
  for (int i = 0; i < channels; i++)
    if (scaling_of(w, i) == wanted) {
      text_add(w->yaml, "%s%d", separator, i);
      separator = ", ";
    }
  text_add(w->yaml, "]");
}

/* As a person would write it, or as the network knows it. */
static int digits(const writing *w) {
  return trained(w) ? 9 : 6;
}

static void add_ct(const writing *w) {
  int channels = w->look->data->channels;
  text_add(
      w->yaml,
      "    # CT: Hounsfield units mean the same in every case, so they are scaled by those of the\n"
      "    # labelled voxels of all cases: percentiles 0.5 and 99.5, mean and deviation.\n");
  for (int i = 0; i < channels; i++) {
    const channel_values *v = values_of(w, i);
    if (scaling_of(w, i) != SCALE_CT) continue;
    text_add(w->yaml, "    - standardize: {clip: [%.*g, %.*g], mean: %.*g, sd: %.*g", digits(w),
             v->percentile_0_5, digits(w), v->percentile_99_5, digits(w), v->mean, digits(w),
             v->deviation);
    if (channels > 1) text_add(w->yaml, ", channels: [%d]", i);
    text_add(w->yaml, "}\n");
  }
}

static void add_scaling(const writing *w, scaling s) {
  text_buffer *t = w->yaml;
  switch (s) {
  case SCALE_CT:
    add_ct(w);
    return;
  case SCALE_UNIT:
    text_add(t, "    - normalize: {mode: minmax");
    break;
  case SCALE_RGB:
    text_add(t, "    - scale_range: {from: [0, 255]");
    break;
  case SCALE_OWN:
    text_add(t, "    # Intensities have no unit: each case, and each channel, by its own mean and "
                "deviation.\n    - normalize: {mode: zscore, scope: whole");
    break;
  case SCALE_BODY:
    text_add(
        t,
        "    # What surrounds the body is exactly 0 (before it is interpolated), so it is left out "
        "of mean\n    # and deviation.\n    - normalize: {mode: zscore, scope: %s",
        trained(w) ? "body" : "nonzero");
    break;
  case SCALE_NONE:
  case SCALINGS:
    return;
  }
  add_channels(w, s);
  text_add(t, "}\n");
}

static void add_resample(const writing *w) {
  const configuration *c = w->c;
  const plans *t = trained(w);
  text_add(w->yaml,
           "    - resample: {spacing: [%.*g, %.*g, %.*g], image: %s, label: linear, grid: "
           "extent, separate_axis: %s}\n",
           digits(w), c->spacing_mm[0], digits(w), c->spacing_mm[1], digits(w), c->spacing_mm[2],
           t ? t->interpolation : "cubic", !t || t->slices_image ? "auto" : "none");
}

static void add_scalings(const writing *w) {
  for (int s = 0; s < SCALINGS; s++)
    for (int i = 0; i < w->look->data->channels; i++)
      if (scaling_of(w, i) == (scaling)s) {
        add_scaling(w, (scaling)s);
        break;
      }
}

/* In nnU-Net's order. */
static void add_trained_prepare(const writing *w) {
  text_add(w->yaml,
           "\n  prepare:   # once per case, cached\n"
           "    # The axes of the %s, as the network has learned to see them.\n"
           "    - orient: {axes: %s}\n    - crop_foreground: {nonzero: true}\n",
           trained(w)->axes[0] >= 'a' ? "file" : "body", trained(w)->axes);
  add_scalings(w);
  add_resample(w);
}

static void add_prepare(const writing *w) {
  const configuration *c = w->c;
  text_add(w->yaml, "\n  prepare:   # once per case, cached\n    - orient: {axes: RAS}\n");
  if (c->has_empty_surround) text_add(w->yaml, "    - crop_foreground\n");
  add_scalings(w);
  text_add(w->yaml, "    # The median spacing of the cases");
  if (c->is_coarse)
    text_add(w->yaml, "; along %c, whose slices are thick, that of the finest tenth",
             axes[c->coarse_axis]);
  text_add(w->yaml, ". A median case has %lld × %lld × %lld\n    # voxels then.\n",
           (long long)c->median_size[0], (long long)c->median_size[1],
           (long long)c->median_size[2]);
  add_resample(w);
}

/* The axis along which a crop is so thin that turns out of its plane would bring in mostly nothing. */
static int flat_axis(const configuration *c) {
  int64_t longest = 0;
  int flat = -1;
  for (int a = 0; a < 3; a++) longest = c->crop[a] > longest ? c->crop[a] : longest;
  for (int a = 0; a < 3; a++)
    if (longest > 3 * c->crop[a] && (flat < 0 || c->crop[a] < c->crop[flat])) flat = a;
  return flat;
}

/* The axes other than one: "x, y". −1: all. */
static const char *axes_without(int axis) {
  static const char *const others[] = {"x, y, z", "y, z", "x, z", "x, y"};
  return others[axis + 1];
}

/* nnU-Net wants a third of a batch around voxels of a class, in whole crops of every batch: of two, one. */
static double foreground_share(int64_t batch) {
  double others = round((double)batch * (1 - 0.33));
  return ((double)batch - others) / (double)batch;
}

/* Crops, turned and scaled. `indent`: before the items of the list; `foreground`: the share of crops
 * around voxels of a class; 0: anywhere. */
static void add_crops(const writing *w, const char *indent, double foreground) {
  const configuration *c = w->c;
  int flat = flat_axis(c);
  int64_t field[3]; /* what turns and zooms take the crop from */
  for (int a = 0; a < 3; a++) {
    int64_t wide = (c->crop[a] * 5 / 4 + 1) / 2 * 2;
    int64_t whole = c->crop[a] > c->median_size[a] ? c->crop[a] : c->median_size[a];
    field[a] = a == flat ? c->crop[a] : wide < whole ? wide : whole;
  }
  bool is_wider = memcmp(field, c->crop, sizeof field) != 0;
  text_add(w->yaml, "%s- random_crop: {size: ", indent);
  add_integers(w->yaml, field);
  if (foreground > 0) text_add(w->yaml, ", foreground: %.3g", foreground);
  text_add(w->yaml, "}%s\n", is_wider ? "   # more than the crop, for turns and zooms" : "");
  if (flat >= 0)
    text_add(w->yaml,
             "%s# Thin along %c: slices are turned and scaled in their plane.\n"
             "%s- random_affine: {rotation: [%d, %d, %d], zoom: [0.71, 1.43], plane: [%s]}\n",
             indent, axes[flat], indent, flat == 0 ? 180 : 0, flat == 1 ? 180 : 0,
             flat == 2 ? 180 : 0, axes_without(flat));
  else
    text_add(w->yaml, "%s- random_affine: {rotation: 30, zoom: [0.71, 1.43]}\n", indent);
  text_add(w->yaml, "%s- centre_crop: {size: \"${roi}\"}\n", indent);
}

static void add_pretext_sample(const writing *w, const char *indent) {
  const configuration *c = w->c;
  text_add(w->yaml, "%s# No noise or blur, which nothing could restore.\n", indent);
  add_crops(w, indent, 0);
  text_add(w->yaml,
           "%s- random_brightness: {factor: [0.75, 1.25], probability: 0.15}\n"
           "%s- random_gamma: {gamma: [0.7, 1.5], probability: 0.3, keep_statistics: true}\n",
           indent, indent);
  if (c->slabs)
    text_add(w->yaml, "%s# Not %c, along which it tells the order of slabs.\n", indent,
             axes[c->slab_axis]);
  text_add(w->yaml, "%s- random_flip: {axes: [%s], probability: 0.5}\n", indent,
           axes_without(c->slabs ? c->slab_axis : -1));
}

static void add_sample(const writing *w) {
  static const char indent[] = "    ";
  if (!has_labels(w)) {
    text_add(w->yaml, "\n  sample:\n");
    add_pretext_sample(w, indent);
    return;
  }
  /* Of one channel it makes no difference. */
  const char *apart = w->look->data->channels > 1 ? ", synchronize_channels: false" : "";
  text_add(w->yaml, "\n  # nnU-Net's augmentation.\n  sample:\n");
  add_crops(w, indent, foreground_share(w->o->batch));
  text_add(
      w->yaml,
      "    - random_noise: {sd: 0.1, probability: 0.1}\n"
      "    - random_blur: {sd: [0.5, 1], synchronize_axes: false, probability: 0.2, "
      "channel_probability: 0.5%s}\n"
      "    - random_brightness: {factor: [0.75, 1.25], probability: 0.15}\n"
      "    - random_contrast: {factor: [0.75, 1.25], probability: 0.15%s}\n"
      "    - random_low_resolution: {zoom: [0.5, 1], axes: [%s], probability: 0.25, "
      "channel_probability: 0.5%s}\n"
      "    - random_gamma: {gamma: [0.7, 1.5], balanced: true, invert: true, keep_statistics: true, "
      "probability: 0.1%s}\n"
      "    - random_gamma: {gamma: [0.7, 1.5], balanced: true, keep_statistics: true, probability: "
      "0.3%s}\n",
      apart, apart, axes_without(flat_axis(w->c)), apart, apart, apart);
  const char *mirrored = trained(w) ? trained(w)->mirrored : "x, y, z";
  if (mirrored[0])
    text_add(w->yaml, "    - random_flip: {axes: [%s], probability: 0.5}\n", mirrored);
}

/* ---- model and stages ---- */

static void add_counts(text_buffer *t, const char *key, const int64_t *list, int count) {
  text_add(t, "    %s: [", key);
  for (int i = 0; i < count; i++) text_add(t, "%s%lld", i ? ", " : "", (long long)list[i]);
  text_add(t, "]\n");
}

static void add_trained_model(const writing *w) {
  const configuration *c = w->c;
  const plans *p = trained(w);
  text_buffer *t = w->yaml;
  bool is_resenc = c->network == NETWORK_RESENC_UNET;
  text_add(t, "\nmodel:   # of the plans\n  use: models/%s.yaml\n  with:\n",
           is_resenc ? "resenc_unet" : "plain_unet");
  add_counts(t, "features_per_stage", p->features, c->levels);
  add_levels(t, "kernel_sizes", c->kernels, 0, c->levels);
  add_levels(t, "strides", c->strides, 0, c->levels);
  add_counts(t, is_resenc ? "n_blocks_per_stage" : "n_conv_per_stage", p->convolutions, c->levels);
  add_counts(t, "n_conv_per_stage_decoder", p->decoder_convolutions, c->levels - 1);
  if (!p->has_bias) text_add(t, "    conv_bias: false\n");
  if (p->is_batch_norm) text_add(t, "    norm: batch\n");
}

static void add_model(const writing *w) {
  const configuration *c = w->c;
  bool is_resenc = c->network == NETWORK_RESENC_UNET;
  static const int blocks[] = {1, 3, 4, 6, 6, 6, 6, 6};
  text_buffer *t = w->yaml;
  text_add(
      t,
      "\n# %s of %d levels. An axis is halved while its voxels are less than twice as long as the\n"
      "# shortest; kernels are 1 along axes whose voxels are longer than that.\n"
      "model:\n  use: models/%s.yaml\n  with:\n    %s: [",
      is_resenc ? "nnU-Net's residual encoder U-Net" : "A plain U-Net", c->levels,
      is_resenc ? "resenc_unet" : "dynunet", is_resenc ? "features_per_stage" : "filters");
  for (int l = 0; l < c->levels; l++) text_add(t, "%s%d", l ? ", " : "", l > 3 ? 320 : 32 << l);
  text_add(t, "]\n");
  add_levels(t, is_resenc ? "kernel_sizes" : "kernel_size", c->kernels, 0, c->levels);
  add_levels(t, "strides", c->strides, 0, c->levels);
  if (is_resenc) {
    text_add(t, "    n_blocks_per_stage: [");
    for (int l = 0; l < c->levels; l++) text_add(t, "%s%d", l ? ", " : "", blocks[l]);
    text_add(t, "]\n");
  } else if (output_count(c) > 1) {
    text_add(t, "    deep_supervision: %d\n", output_count(c) - 1);
  }
  if (c->slabs) {
    text_add(t, "    levels: [");
    for (int l = 1; l <= c->tapped; l++) text_add(t, "%s%d", l > 1 ? ", " : "", l);
    text_add(t, "]   # that tell the order of the slabs\n");
  }
}

static void add_pretrain(const writing *w) {
  const configuration *c = w->c;
  text_add(
      w->yaml,
      "  # Step 1, no labels: the network restores what is hidden, and tells the order of the slabs\n"
      "  # (learnable weight initialization, Kunhimon et al. 2024). --set stages.pretrain.enabled=false\n"
      "  # trains without.\n"
      "  - pretrain:\n      batch: %lld\n      epochs: 100\n      steps_per_epoch: 250\n",
      (long long)w->o->batch);
  if (has_labels(w)) {
    text_add(w->yaml, "      sample:   # in place of that of the data\n");
    add_pretext_sample(w, "        ");
  }
  text_add(w->yaml, "      graph:\n");
  if (c->slabs)
    text_add(w->yaml, "        - shuffled: {shuffle_slabs: image, slabs: %d, axis: %c}\n", c->slabs,
             axes[c->slab_axis]);
  text_add(w->yaml, "        - masked: {mask_patches: %s, size: ", c->slabs ? "shuffled" : "image");
  add_integers(w->yaml, c->patch);
  text_add(w->yaml,
           ", ratio: 0.4}\n        - net: {model: masked, outputs: \"${channels}\"}\n"
           "        - loss.context: {mse: [net.out, %s]}\n",
           c->slabs ? "shuffled" : "image");
  if (c->slabs)
    text_add(
        w->yaml,
        "        - loss.structure: {slab_order_loss: [shuffled.order, net.levels], slabs: %d, axis: "
        "%c}\n",
        c->slabs, axes[c->slab_axis]);
  text_add(w->yaml, "      optimizer: {adamw: {lr: 3.0e-4, weight_decay: 1.0e-5}}\n"
                    "      schedule: {lua: warmup_cosine, warmup: 5}\n");
}

/* From step 1. */
static void add_segment_start(const writing *w) {
  text_add(
      w->yaml,
      "\n  # Step 2: every weight but the heads' is kept. Dice and cross-entropy, SGD and schedule are\n"
      "  # nnU-Net's, whose 1000 epochs are for networks that start from nothing.\n"
      "  - segment:\n      init: {from: pretrain, reset: [");
  add_outputs(w);
  text_add(w->yaml, "]}\n");
}

static void add_trained_start(const writing *w) {
  const plans *p = trained(w);
  text_buffer path = {0};
  scope_escape(p->folder, &path);
  text_add(&path, "/fold_${fold}/%s", p->checkpoint);
  bool is_same = plans_segment(p, w->look->data);
  text_add(w->yaml,
           "  # From nnU-Net's weights, with its loss and a tenth of its learning rate. %s.\n"
           "  - segment:\n      init: {from: ",
           is_same ? "For the network as\n  # it is: --set stages.segment.epochs=0"
                   : "The model's\n  # classes are others, so the heads start fresh");
  tree_write_key(path.data, w->yaml);
  if (!is_same) {
    text_add(w->yaml, ", reset: [");
    add_outputs(w);
    text_add(w->yaml, "]");
  }
  text_add(w->yaml, "}\n");
  text_free(&path);
}

static void add_segment(const writing *w) {
  const char *target = has_regions(w) ? "regions" : "label";
  bool is_deep = output_count(w->c) > 1;
  (trained(w) ? add_trained_start : add_segment_start)(w);
  text_add(w->yaml,
           "      batch: %lld\n      epochs: %d\n      steps_per_epoch: 250\n      clip_norm: 12\n"
           "      graph:\n        - net: {model: image, outputs: \"${%s}\"}\n        - loss:\n"
           "            %s: [",
           (long long)w->o->batch, trained(w) ? 100 : 400, has_regions(w) ? "regions" : "classes",
           is_deep ? "deep_supervision" : "dice_ce");
  if (is_deep) text_add(w->yaml, "%s, ", target);
  add_outputs(w);
  if (!is_deep) text_add(w->yaml, ", %s", target);
  text_add(w->yaml, "]\n            squared: false\n");
  if (!has_regions(w)) text_add(w->yaml, "            include_background: false\n");
  if (trained(w) && trained(w)->is_batch_dice) text_add(w->yaml, "            batch: true\n");
  text_add(w->yaml,
           "            smooth_numerator: 1.0e-5\n            smooth_denominator: 1.0e-5\n"
           "      optimizer: {sgd: {lr: 1.0e-%d, momentum: 0.99, nesterov: true, weight_decay: "
           "3.0e-5}}\n"
           "      schedule: {lua: poly, power: 0.9}\n",
           trained(w) ? 3 : 2);
  if (has_validation(w)) text_add(w->yaml, "      validate: {every: 50, output: net.out}\n");
}

/* ---- the whole ---- */

static void write_by_rules(const writing *w) {
  const configuration *c = w->c;
  char may[24];
  text_add(
      w->yaml,
      "# Made by `strata new` from what the files of the data set say, by the rules of nnU-Net's planning\n"
      "# (Isensee et al., Nature Methods 2021). A start: every line is there to be changed.\n\n"
      "strata: 1\nseed: 1\n\nparams:\n"
      "  # Voxels along x, y, z that the network sees at once: of a median case, what a training step\n"
      "  # within %s has room for.\n  roi: [%lld, %lld, %lld]\n\n",
      format_bytes(may, (double)w->o->memory_bytes), (long long)c->crop[0], (long long)c->crop[1],
      (long long)c->crop[2]);
  add_place(w);
  add_split(w);
  add_regions(w);
  add_prepare(w);
  add_sample(w);
  add_model(w);
  text_add(w->yaml, "\nstages:\n");
  add_pretrain(w);
  if (!has_labels(w)) return;
  add_segment(w);
  text_add(
      w->yaml,
      "\nevaluate:\n  # nnU-Net also averages mirrored windows, in 8 times the time: mirror: [x, y, z].\n"
      "  inferer: {sliding_window: {size: \"${roi}\", step: 0.5, blend: gaussian_nnunet}}\n"
      "  metrics: [dice, hd95]\n");
}

static void write_trained(const writing *w) {
  const configuration *c = w->c;
  const plans *p = trained(w);
  char name[96];
  text_add(
      w->yaml,
      "# Made by `strata new` from a trained model of nnU-Net, configuration %s. x, y and z are the\n"
      "# network's axes, in the order of its plans. Every line is there to be changed.\n\n"
      "strata: 1\nseed: 1\n\nparams:\n  fold: %s   # whose weights: --set fold=1 …\n"
      "  roi: [%lld, %lld, %lld]   # voxels along x, y, z that the network sees at once\n\n",
      printable(p->name, name), p->fold, (long long)c->crop[0], (long long)c->crop[1],
      (long long)c->crop[2]);
  add_place(w);
  add_split(w);
  add_regions(w);
  add_trained_prepare(w);
  add_sample(w);
  add_trained_model(w);
  text_add(w->yaml, "\nstages:\n");
  add_segment(w);
  text_add(w->yaml,
           "\nevaluate:\n  inferer:\n    sliding_window:\n      size: \"${roi}\"\n"
           "      step: 0.5\n      blend: gaussian_nnunet\n      resample: logits\n"
           "      separate_axis: %s\n",
           p->slices_output ? "auto" : "none");
  if (p->mirrored[0])
    text_add(w->yaml,
             "      mirror: [%s]   # as the training did; without, a run takes %s of the time\n",
             p->mirrored, strlen(p->mirrored) > 4 ? "an eighth" : "a fourth");
  text_add(w->yaml, "  metrics: [dice, hd95]\n");
}

void configure_write(const configure_options *o, const dataset_look *look, const configuration *c,
                     text_buffer *yaml) {
  writing w = {o, look, c, yaml};
  (o->trained ? write_trained : write_by_rules)(&w);
}
