/* Operators that are called otherwise elsewhere. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "language/elsewhere.h"

typedef struct foreign_operator {
  const char *word, *ours; /* NULL: no operator is needed, or there is none */
  const char *remark;      /* what is other about ours, or what to do in its place; or NULL */
} foreign_operator;

#define RANDOM "drawn for each crop"
#define NO_RESIZE "by `spacing` in mm, not by a number of voxels"
#define DEFORMS "a smooth random field, set by sigma and magnitude"
#define KNOWS_CHANNELS "channels are known from the files"
#define KNOWS_TYPES "an image is f32, a label a number of a class"
#define ALREADY_SEGMENTS "a segmentation is made of the network's output by itself"
#define HAS_CHANCE "each operator of the list has a `probability` of its own"
#define C_FILE "an operator of one's own is a file of C, see CONTRIBUTING.md"
#define RENUMBERS                                                                                  \
  "labels are read as they are; `data: regions` joins classes, `data: ignore_label` skips one"
#define MASKS "`crop_foreground` cuts the outside off, and `scope: nonzero` of `normalize` skips it"

/* What is found by its declaration (`torch`) or has our letters (RandomFlip) needs no line, but for a
 * remark. */
static const foreign_operator foreign_operators[] = {
    /* MONAI: space */
    {"Affine", "random_affine", RANDOM},
    {"Flip", "random_flip", RANDOM},
    {"RandAxisFlip", "random_flip", NULL},
    {"Rotate", "random_affine", RANDOM},
    {"RandRotate", "random_affine", NULL},
    {"Rotate90", "random_rot90", RANDOM},
    {"Zoom", "random_affine", RANDOM},
    {"RandZoom", "random_affine", NULL},
    {"Rand2DElastic", "random_elastic", "plane: [x, y]"},
    {"RandGridDistortion", "random_elastic", DEFORMS},
    {"GridDistortion", "random_elastic", DEFORMS},
    {"RandSmoothDeform", "random_elastic", DEFORMS},
    {"RandSpatialCrop", "random_crop", "positive: 0, negative: 0 takes any place"},
    {"RandSpatialCropSamples", "random_crop", "positive: 0, negative: 0 takes any place"},
    {"RandScaleCrop", "random_crop", "its size is in voxels"},
    {"RandWeightedCrop", "random_crop", "class_ratios in the place of a map of weights"},
    {"CenterSpatialCrop", "centre_crop", NULL},
    {"CenterScaleCrop", "centre_crop", "its size is in voxels"},
    {"SpatialCrop", NULL, "`crop_foreground` finds the box, and `data: sample` takes crops"},
    {"BorderPad", "pad", "its size is the least that comes out"},
    {"Resize", "resample", NO_RESIZE},
    {"SpatialResample", "resample", NULL},
    {"ResampleToMatch", "resample", "to one spacing for all cases"},
    /* MONAI: intensities */
    {"ScaleIntensity", NULL, "`normalize: {mode: minmax}` does it"},
    {"ScaleIntensityRangePercentiles", NULL,
     "`clip_percentile`, then `normalize: {mode: minmax}` do it one after the other"},
    {"ClipIntensityPercentiles", "clip_percentile", NULL},
    {"HistogramNormalize", NULL, "`clip_percentile`, then `normalize` bring cases to one range"},
    {"ThresholdIntensity", "scale_range", "the same range in `from` and `to` clips"},
    {"MaskIntensity", NULL, MASKS},
    {"AdjustContrast", "random_gamma", RANDOM},
    {"GaussianSmooth", "random_blur", RANDOM},
    {"RandGaussianSmooth", "random_blur", NULL},
    {"MedianSmooth", NULL, "there is no median; `random_blur` smooths"},
    {"ShiftIntensity", "random_shift_intensity", RANDOM},
    {"StdShiftIntensity", "random_shift_intensity", "the offset is not multiplied by a deviation"},
    {"RandStdShiftIntensity", "random_shift_intensity",
     "the offset is not multiplied by a deviation"},
    {"RandScaleIntensityFixedMean", "random_contrast",
     "the factor itself, as in [0.9, 1.1]; the result stays in the channel's range"},
    {"RandSmoothFieldAdjustIntensity", "random_bias_field", NULL},
    {"RandSmoothFieldAdjustContrast", "random_gamma", "one exponent for the whole crop"},
    {"RandCoarseDropout", "random_cutout", "a box is a share of the crop"},
    {"CutOut", "random_cutout", "a box is a share of the crop"},
    {"GaussianSharpen", "random_sharpen", RANDOM},
    {"RandGaussianSharpen", "random_sharpen", "of the image itself, and clipped to its range"},
    {"RandGibbsNoise", "random_ringing", "keep is about 1 − alpha"},
    {"GibbsNoise", "random_ringing", "keep is about 1 − alpha"},
    {"RandKSpaceSpikeNoise", "random_spike", "amplitude is a share of the channel's range"},
    {"KSpaceSpikeNoise", "random_spike", "amplitude is a share of the channel's range"},
    {"RandCoarseShuffle", NULL, "`shuffle_voxels` in the graph of a pretext does it"},
    /* MONAI: files, types, labels, what comes after the network */
    {"LoadImage", NULL, "every case is loaded, without being told"},
    {"EnsureChannelFirst", NULL, KNOWS_CHANNELS},
    {"AddChannel", NULL, KNOWS_CHANNELS},
    {"AsChannelFirst", NULL, KNOWS_CHANNELS},
    {"AsChannelLast", NULL, KNOWS_CHANNELS},
    {"SqueezeDim", NULL, KNOWS_CHANNELS},
    {"EnsureType", NULL, KNOWS_TYPES},
    {"CastToType", NULL, KNOWS_TYPES},
    {"ToTensor", NULL, KNOWS_TYPES},
    {"ToNumpy", NULL, KNOWS_TYPES},
    {"ToDevice", NULL, "`device` says where a pipeline runs"},
    {"SelectItems", NULL, "a case is its image and its label"},
    {"DeleteItems", NULL, "a case is its image and its label"},
    {"CopyItems", NULL, "a case is its image and its label"},
    {"ConcatItems", NULL,
     "the channels of an image may be files of their own, see `data: dataset`"},
    {"FgBgToIndices", NULL, "`random_crop` knows where the classes are"},
    {"ClassesToIndices", NULL, "`random_crop` knows where the classes are"},
    {"MapLabelValue", NULL, RENUMBERS},
    {"LabelFilter", NULL, RENUMBERS},
    {"LabelToMask", NULL, RENUMBERS},
    {"ConvertToMultiChannelBasedOnBratsClasses", NULL, "`data: regions` names unions of classes"},
    {"DataStats", NULL, "`strata data check` prints statistics, `strata preview` shows each step"},
    {"Activations", NULL, ALREADY_SEGMENTS},
    {"AsDiscrete", NULL, ALREADY_SEGMENTS},
    {"MeanEnsemble", NULL, "`strata predict run1,run2` takes the mean of several runs"},
    {"VoteEnsemble", NULL, "`strata predict run1,run2` takes the mean of several runs"},
    {"Invert", NULL, "a segmentation goes to the grid of its file by itself"},
    {"SaveImage", NULL, "segmentations are written by themselves"},
    {"Lambda", NULL, C_FILE},
    {"RandLambda", NULL, C_FILE},
    {"OneOf", NULL, HAS_CHANCE},
    {"SomeOf", NULL, HAS_CHANCE},
    {"RandomOrder", NULL, HAS_CHANCE},
    {"Compose", NULL, "a list is done from top to bottom"},
    /* TorchIO */
    {"RandomAffine", "random_affine", "turns and zooms have probabilities of their own"},
    {"RandomElasticDeformation", "random_elastic", DEFORMS},
    {"ElasticDeformation", "random_elastic", DEFORMS},
    {"RandomAnisotropy", "random_low_resolution", "a zoom of 0.5 is a downsampling of 2"},
    {"RandomSpike", "random_spike", "amplitude is a share of the channel's range"},
    {"Spike", "random_spike", "amplitude is a share of the channel's range"},
    {"RandomSwap", NULL, "`shuffle_voxels` in the graph of a pretext does it"},
    {"CropOrPad", "centre_crop", NULL},
    {"EnsureShapeMultiple", "pad", NULL},
    {"ToCanonical", "orient", "axes: RAS"},
    {"ToOrientation", "orient", NULL},
    {"ToReferenceSpace", "resample", "to one spacing for all cases"},
    {"ZNormalization", "normalize", NULL},
    {"RescaleIntensity", "normalize", "mode: minmax; percentiles are `clip_percentile` before it"},
    {"HistogramStandardization", NULL,
     "`clip_percentile`, then `normalize` bring cases to one range"},
    {"Clamp", "scale_range", "the same range in `from` and `to` clips"},
    {"Mask", NULL, MASKS},
    {"KeepLargestComponent", "keep_largest", NULL},
    {"RemapLabels", NULL, RENUMBERS},
    {"RemoveLabels", NULL, RENUMBERS},
    {"SequentialLabels", NULL, RENUMBERS},
    {"OneHot", NULL, KNOWS_TYPES},
    /* batchgenerators and nnU-Net */
    {"MirrorTransform", "random_flip", NULL},
    {"SpatialTransform", "random_affine",
     "its deformation is `random_elastic`, its crop `random_crop`"},
    {"Rot90Transform", "random_rot90", NULL},
    {"TransposeAxesTransform", "random_rot90", "quarter turns"},
    {"CenterCropTransform", "centre_crop", NULL},
    {"ZoomTransform", "random_affine", NULL},
    {"ResizeTransform", "resample", NO_RESIZE},
    {"GaussianNoiseTransform", "random_noise", NULL},
    {"GaussianBlurTransform", "random_blur", NULL},
    {"MultiplicativeBrightnessTransform", "random_brightness", NULL},
    {"BrightnessMultiplicativeTransform", "random_brightness", NULL},
    {"BrightnessAdditiveTransform", "random_shift_intensity",
     "uniform up to `offset`, where sigma is a deviation"},
    {"BrightnessTransform", "random_shift_intensity",
     "uniform up to `offset`, where sigma is a deviation"},
    {"BrightnessGradientAdditiveTransform", "random_bias_field", "a factor, not an addend"},
    {"IlluminationTransform", "random_bias_field", "a factor, not an addend"},
    {"LocalGammaTransform", "random_gamma", "one exponent for the whole crop"},
    {"ContrastTransform", "random_contrast", NULL},
    {"ContrastAugmentationTransform", "random_contrast", NULL},
    {"GammaTransform", "random_gamma", NULL},
    {"SimulateLowResolutionTransform", "random_low_resolution", NULL},
    {"RicianNoiseTransform", "random_rician_noise", NULL},
    {"SharpeningTransform", "random_sharpen", "with sd: [1, 1] twice its strength"},
    {"BlankRectangleTransform", "random_cutout", "a box is a share of the crop"},
    {"MedianFilterTransform", NULL, "there is no median; `random_blur` smooths"},
    {"MaskImageTransform", NULL, MASKS},
    {"NumpyToTensor", NULL, KNOWS_TYPES},
    {"RemoveLabelTransform", NULL, RENUMBERS},
    {"ConvertSegmentationToRegionsTransform", NULL, "`data: regions` names unions of classes"},
    {"DownsampleSegForDSTransform", NULL,
     "the loss `deep_supervision` brings the label to each size"},
    {"RandomTransform", NULL, HAS_CHANCE},
    {"OneOfTransform", NULL, HAS_CHANCE},
    {"ComposeTransforms", NULL, "a list is done from top to bottom"},
    {"CutOffOutliersTransform", "clip_percentile", NULL},
    {"ClipValueRange", "scale_range", "the same range in `from` and `to` clips"},
    {"ZeroMeanUnitVarianceTransform", "normalize", NULL},
    {"MeanStdNormalizationTransform", "standardize", NULL},
    {"RangeTransform", "normalize", "mode: minmax, to [0, 1]"},
    {"ZScoreNormalization", "normalize", "scope: body where nnU-Net has use_mask_for_norm"},
    {"CTNormalization", "standardize", "its numbers come from `data: fingerprint`"},
    {"RescaleTo01Normalization", "normalize", "mode: minmax"},
    {"RGBTo01Normalization", "scale_range", "from: [0, 255]"},
    {"NoNormalization", NULL, "intensities stay as they are unless an operator changes them"},
    /* torch.nn, and losses */
    {"InstanceNorm3d", "instance_norm", NULL},
    {"BatchNorm3d", "batch_norm", NULL},
    {"Dropout3d", "spatial_dropout", NULL},
    {"Swish", "silu", NULL},
    {"MemSwish", "silu", NULL},
    {"MultiheadAttention", "self_attention", NULL},
    {"Upsample", "interpolate", NULL},
    {"CrossEntropyLoss", "cross_entropy", NULL},
    {"RobustCrossEntropyLoss", "cross_entropy", NULL},
    {"MSELoss", "mse", NULL},
    {"L1Loss", "l1", NULL},
    {"SmoothL1Loss", "smooth_l1", NULL},
    {"DC_and_CE_loss", "dice_ce", NULL},
    {"DC_and_BCE_loss", "dice_ce", "with `regions` as its target"},
    {"MemoryEfficientSoftDiceLoss", "dice", NULL},
    {"DeepSupervisionWrapper", "deep_supervision", NULL},
    /* initial distributions */
    {"Xavier", "xavier_uniform", "or xavier_normal"},
    {"Glorot", "xavier_uniform", "or xavier_normal"},
    {"Kaiming", "kaiming_normal", "or kaiming_uniform"},
    {"trunc_normal", "truncated_normal", NULL},
};

/* MONAI's dictionary transforms end in d. */
static bool ends_in_d(const char *word, size_t length) {
  return length > 3 && word[length - 1] == 'd';
}

static const foreign_operator *find_line(const char *word, size_t length) {
  for (size_t i = 0; i < sizeof foreign_operators / sizeof *foreign_operators; i++)
    if (strlen(foreign_operators[i].word) == length &&
        strncasecmp(foreign_operators[i].word, word, length) == 0)
      return &foreign_operators[i];
  return NULL;
}

static bool has_trait(const op *o, unsigned trait) {
  return trait ? o->traits & trait : !(o->traits & OP_NOT_IN_GRAPHS);
}

/* Does the text call a class of this name? */
static bool calls(const char *text, const char *word, size_t length) {
  if (!isupper((unsigned char)word[0])) return false;
  for (const char *at = text; at && (at = strchr(at, word[0])); at++) {
    bool begins = at == text || !isalnum((unsigned char)at[-1]);
    if (begins && strncmp(at, word, length) == 0 && at[length] == '(') return true;
  }
  return false;
}

/* RandomFlip and random_flip, PadTransform and pad, BoundaryLoss and boundary. */
static bool has_letters_of(const char *name, const char *word, size_t length) {
  static const char *const endings[] = {"", "Transform", "Loss"};
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    size_t ending = strlen(endings[i]);
    if (length > ending && strncmp(word + length - ending, endings[i], ending) == 0 &&
        text_has_letters(word, length - ending, name))
      return true;
  }
  return false;
}

/* TorchIO's Blur is its RandomBlur. */
static bool has_name_of(const op *o, const char *word, size_t length) {
  const char prefix[] = "random_";
  return has_letters_of(o->name, word, length) ||
         (text_starts_with(o->name, prefix) &&
          has_letters_of(o->name + strlen(prefix), word, length));
}

static const op *find_operator(const char *word, size_t length, unsigned trait) {
  const foreign_operator *line = find_line(word, length);
  const op *ours = line && line->ours ? op_find(line->ours) : NULL;
  if (line) return ours && has_trait(ours, trait) ? ours : NULL;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (has_trait(o, trait) && (calls(o->torch, word, length) || has_name_of(o, word, length)))
      return o;
  }
  return NULL;
}

const op *elsewhere_operator(const char *word, unsigned trait) {
  size_t length = strlen(word);
  if (length < 3) return NULL;
  const op *found = find_operator(word, length, trait);
  return found || !ends_in_d(word, length) ? found : find_operator(word, length - 1, trait);
}

const char *elsewhere_operator_remark(const char *word) {
  size_t length = strlen(word);
  const foreign_operator *line = find_line(word, length);
  if (!line && ends_in_d(word, length)) line = find_line(word, length - 1);
  return line ? line->remark : NULL;
}
