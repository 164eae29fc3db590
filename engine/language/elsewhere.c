#include "language/elsewhere.h"

#include <ctype.h>
#include <string.h>

/* Is the word in the text, and not a part of a longer one? */
static bool names_word(const char *text, const char *word, size_t length) {
  for (const char *at = text; (at = strchr(at, word[0])); at++) {
    if (strncmp(at, word, length) != 0) continue;
    bool begins = at == text || !isalnum((unsigned char)at[-1]);
    if (begins && !isalnum((unsigned char)at[length])) return true;
  }
  return false;
}

static bool has_trait(const op *o, unsigned trait) {
  return trait ? o->traits & trait : !(o->traits & OP_NOT_IN_GRAPHS);
}

static const op *with_trait(const char *name, unsigned trait) {
  const op *o = op_find(name);
  return o && has_trait(o, trait) ? o : NULL;
}

const op *elsewhere_operator(const char *word, unsigned trait) {
  static const char *const table[][2] = {
      {"RandSpatialCrop", "random_crop"},
      {"CenterSpatialCrop", "centre_crop"},
      {"RandGaussianSmooth", "random_blur"},
      {"ClipIntensityPercentiles", "clip_percentile"},
      /* batchgeneratorsv2 */
      {"MirrorTransform", "random_flip"},
      {"SpatialTransform", "random_affine"},
      {"GaussianNoiseTransform", "random_noise"},
      {"GaussianBlurTransform", "random_blur"},
      {"MultiplicativeBrightnessTransform", "random_brightness"},
      {"ContrastTransform", "random_contrast"},
      {"GammaTransform", "random_gamma"},
      {"SimulateLowResolutionTransform", "random_low_resolution"},
      /* torch.nn, and nnU-Net's loss */
      {"ConvTranspose3d", "conv_transpose3d"},
      {"InstanceNorm3d", "instance_norm"},
      {"BatchNorm3d", "batch_norm"},
      {"GroupNorm", "group_norm"},
      {"LayerNorm", "layer_norm"},
      {"LeakyReLU", "leaky_relu"},
      {"Dropout3d", "spatial_dropout"},
      {"Upsample", "interpolate"},
      {"CrossEntropyLoss", "cross_entropy"},
      {"MSELoss", "mse"},
      {"L1Loss", "l1"},
      {"SmoothL1Loss", "smooth_l1"},
      {"DC_and_CE_loss", "dice_ce"},
  };
  size_t length = strlen(word);
  if (length < 4 || !isupper((unsigned char)word[0]) || strcmp(word, "Compose") == 0) return NULL;
  for (int dictionary = 0; dictionary < 2; dictionary++) {
    if (dictionary && word[--length] != 'd') return NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
      if (strlen(table[i][0]) == length && strncmp(table[i][0], word, length) == 0)
        return with_trait(table[i][1], trait);
    for (int i = 0; i < op_count(); i++) {
      const op *o = op_at(i);
      if (has_trait(o, trait) && o->torch && names_word(o->torch, word, length)) return o;
    }
  }
  return NULL;
}

const char *elsewhere_attribute(const op *o, const char *word) {
  static const struct {
    const char *word, *ours;
  } table[] = {
      {"prob", "probability"},
      {"p_per_sample", "probability"},
      {"p_per_axis", "probability"},
      {"spatial_size", "size"},
      {"roi_size", "size"},
      {"patch_size", "size"},
      {"pos", "positive"},
      {"neg", "negative"},
      {"oversample_foreground_percent", "foreground"},
      {"ratios", "class_ratios"},
      {"spatial_axis", "axes"},
      {"spatial_axes", "plane"},
      {"allowed_axes", "axes"},
      {"axcodes", "axes"},
      {"max_k", "max_turns"},
      {"factors", "factor"},
      {"multiplier_range", "factor"},
      {"contrast_range", "factor"},
      {"offsets", "offset"},
      {"gamma_range", "gamma"},
      {"p_invert_image", "invert"},
      {"invert_image", "invert"},
      {"p_retain_stats", "keep_statistics"},
      {"retain_stats", "keep_statistics"},
      {"rotate_range", "rotation"},
      {"scale_range", "zoom"},
      {"scaling", "zoom"},
      {"zoom_range", "zoom"},
      {"shear_range", "shear"},
      {"p_rotation", "rotate_probability"},
      {"p_scaling", "zoom_probability"},
      {"std", "sd"},
      {"noise_variance", "sd"},
      {"sigma_x", "sd"},
      {"blur_sigma", "sd"},
      {"sigma_range", "sigma"},
      {"magnitude_range", "magnitude"},
      {"padding_mode", "outside"},
      {"pixdim", "spacing"},
      {"a_min", "from"},
      {"a_max", "from"},
      {"b_min", "to"},
      {"b_max", "to"},
      {"lower", "percent"},
      {"upper", "percent"},
      {"nonzero", "scope"},
      {"select_fn", "above"},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(table[i].word, word) != 0) continue;
    for (const attr *a = o->attrs; a && a->name; a++)
      if (strcmp(a->name, table[i].ours) == 0) return a->name;
  }
  return NULL;
}
