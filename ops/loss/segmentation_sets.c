/* Losses whose target is sets of regions: regions may overlap, and each has a channel with a sigmoid of its
 * own. To the sums and gradients of planes a region is a class 0 beside which there is no other: the
 * gradient of a softmax's dice, p (g − Σ g p) over its classes, is then p (1 − p) g, and that of its
 * cross-entropy, p − 1 within the class and p outside, is the one of the binary cross-entropy. */
#include "ops/loss/segmentation_block.h"

/* The sets of a block's voxels; −1 for those that do not count, and in places beyond. Returns how many
 * count. */
FOR_EACH_ISA static int64_t block_sets(const int32_t *restrict target, int64_t count,
                                       int64_t channels, int32_t *restrict set) {
  uint32_t most = 1u << channels;
  int32_t counted = 0;
  for (int64_t v = 0; v < count; v++) set[v] = (uint32_t)target[v] < most ? target[v] : -1;
  for (int64_t v = count; v < BLOCK; v++) set[v] = -1;
  for (int64_t v = 0; v < BLOCK; v++) counted += set[v] >= 0;
  return counted;
}

/* Among voxels that do not count: those whose regions are known. */
static void find_bad_set(double *sums, const int32_t *target, const int32_t *set, int64_t count) {
  for (int64_t v = 0; v < count; v++)
    if (set[v] < 0 && target[v] >= 0) {
      sums[SUM_BAD] = 1;
      sums[SUM_BAD_LABEL] = target[v];
    }
}

/* How many voxels of a block have their logits above 0 in the channels of their regions and nowhere else. */
FOR_EACH_ISA static int64_t correct_sets(const float *restrict logits, const int32_t *restrict set,
                                         int64_t channels) {
  int32_t found[BLOCK] = {0}, correct = 0;
  for (int64_t c = 0; c < channels; c++)
    for (int v = 0; v < BLOCK; v++) found[v] |= (logits[c * BLOCK + v] > 0) << c;
  for (int v = 0; v < BLOCK; v++) correct += found[v] == set[v];
  return correct;
}

/* One channel of a block. */
typedef struct channel {
  int32_t label[BLOCK]; /* 0 within the region, 1 outside, −1 where the voxel does not count */
  float p[BLOCK];       /* σ(x); 0 where the voxel does not count */
  float small[BLOCK];   /* e^−|x| */
} channel;

FOR_EACH_ISA static void sigmoid_channel(channel *restrict to, const float *restrict x,
                                         const int32_t *restrict set, int region) {
  for (int v = 0; v < BLOCK; v++) {
    float small = vector_exp_normal(-vector_abs(x[v])), p = 1.0f / (1.0f + small);
    p = x[v] < 0.0f ? small * p : p;
    to->label[v] = set[v] < 0 ? -1 : 1 - (set[v] >> region & 1);
    to->p[v] = set[v] < 0 ? 0.0f : p;
    to->small[v] = small;
  }
}

/* Σ −log σ(±x). */
FOR_EACH_ISA static double binary_cross_entropy(const channel *restrict of,
                                                const float *restrict x) {
  float sums[LANES] = {0};
  for (int k = 0; k < BLOCK; k += LANES)
    for (int l = 0; l < LANES; l++) {
      int v = k + l;
      float s = of->label[v] == 0 ? x[v] : -x[v], small = of->small[v];
      /* The logarithm is of numbers alone: the difference lets a NaN through. */
      float cost = (s < 0.0f ? -s : 0.0f) + vector_log(1.0f + small) + (small - small);
      sums[l] += of->label[v] < 0 ? 0.0f : cost;
    }
  return lanes_total(sums);
}

void add_sets(double *sums, region_lanes *lanes, const segmentation_terms *t, const voxels *of) {
  float logits[REGIONS_MAX * BLOCK];
  int32_t set[BLOCK];
  int64_t counted = block_sets(of->target, of->count, of->classes, set);
  if (counted < of->count) find_bad_set(sums, of->target, set, of->count);
  load_planes(logits, of);
  if (t->accuracy) sums[SUM_CORRECT] += (double)correct_sets(logits, set, of->classes);
  sums[SUM_COUNTED] += (double)counted;
  for (int c = 0; c < of->classes; c++) {
    const float *x = logits + c * BLOCK;
    channel r;
    ask_ahead(of, c);
    sigmoid_channel(&r, x, set, c);
    if (t->dice) add_regions(&lanes[c], r.p, r.label, 1, t->squared);
    if (t->focal)
      sums[SUM_CE] += sigmoid_focal(t, x, r.label, 0, class_weight(t, c), NULL, 0);
    else if (t->cross_entropy)
      sums[SUM_CE] += class_weight(t, c) * binary_cross_entropy(&r, x);
  }
}

void gradient_of_sets(float *gradient, const segmentation_terms *t, const voxels *of,
                      const float *slopes, gradient_scale scale) {
  float logits[REGIONS_MAX * BLOCK];
  int32_t set[BLOCK];
  block_sets(of->target, of->count, of->classes, set);
  load_planes(logits, of);
  for (int c = 0; c < of->classes; c++) {
    const float *x = logits + c * BLOCK;
    float *plane = gradient + c * BLOCK;
    channel r;
    ask_ahead(of, c);
    sigmoid_channel(&r, x, set, c);
    if (t->dice)
      dice_gradient(r.p, plane, r.label, slopes + 2 * c, 1, (float)scale.dice, t->squared);
    else
      memset(plane, 0, BLOCK * sizeof *plane);
    if (t->focal) {
      sigmoid_focal(t, x, r.label, 0, class_weight(t, c), plane, scale.voxels);
    } else if (t->cross_entropy) {
      float factor[BLOCK], known = (float)(scale.voxels * class_weight(t, c));
      for (int v = 0; v < BLOCK; v++) factor[v] = r.label[v] < 0 ? 0.0f : known;
      add_cross_entropy(plane, r.p, r.label, 1, factor);
    }
  }
}
