#include "ops/loss/segmentation.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/gemm.h"
#include "ops/loss/segmentation_block.h"

#include <math.h>

enum { CHUNK_VOXELS = 4096 /* of a task */ };

enum { IN_LOGITS, IN_TARGET };

static bool has_sets(const tensor *in) {
  return in[IN_TARGET].dtype == DTYPE_REGIONS;
}

static status check_classes(const segmentation_terms *t, int64_t classes) {
  if (classes < 2 || classes > SEGMENTATION_CLASSES_MAX)
    return shape_error("the logits have %lld classes; 2 to %d are supported (a binary task has 2: "
                       "background and foreground)",
                       (long long)classes, SEGMENTATION_CLASSES_MAX);
  if (t && t->class_weights && t->class_weights->count && t->class_weights->count != classes)
    return shape_error("class_weights has %d numbers, but there are %lld classes",
                       t->class_weights->count, (long long)classes);
  return OK;
}

static status check_sets(const segmentation_terms *t, int64_t channels) {
  if (channels > REGIONS_MAX)
    return shape_error("the logits have %lld channels; with sets of regions as the target, 1 to %d "
                       "are supported, one for each region",
                       (long long)channels, REGIONS_MAX);
  if (t->class_weights && t->class_weights->count && t->class_weights->count != channels)
    return shape_error("class_weights has %d numbers, but the logits have %lld channels, one for "
                       "each region",
                       t->class_weights->count, (long long)channels);
  if ((t->dice && !t->include_background) || (t->focal && !t->focal_background))
    return shape_error("include_background: false leaves out class 0, but the target is sets of "
                       "regions, none of which is the background; take it out");
  if (t->focal && !t->sigmoid)
    return shape_error("sigmoid: false is a softmax over classes, but the target is sets of "
                       "regions, which may overlap: each has a sigmoid of its own");
  if (t->label_smoothing != 0)
    return shape_error(
        "label_smoothing spreads a class over all classes, but the target is sets of "
        "regions; take it out");
  if (t->ignores && t->ignore_index != IGNORE_INDEX_DEFAULT)
    return shape_error("ignore_index is a class, but the target is sets of regions; for voxels "
                       "whose regions are unknown there is data: ignore_label");
  return OK;
}

status segmentation_check(const infer *rule, const segmentation_terms *t) {
  const shape *logits = &rule->in[IN_LOGITS].shape, *target = &rule->in[IN_TARGET].shape;
  char have[96], want[96];
  bool fits =
      logits->rank >= 2 && (target->rank == logits->rank - 1 ||
                            (target->rank == logits->rank && target->dim[target->rank - 1] == 1));
  for (int d = 0; fits && d < logits->rank - 1; d++) fits = logits->dim[d] == target->dim[d];
  if (!fits)
    return shape_error(
        "the target must have the samples and extents of the logits, %s, without the "
        "classes, but is %s",
        shape_format(want, logits), shape_format(have, target));
  int64_t classes = logits->dim[logits->rank - 1];
  return has_sets(rule->in) ? check_sets(t, classes) : check_classes(t, classes);
}

status segmentation_backward_infer(infer *rule) {
  rule->out[0].shape = rule->in[0].shape;
  return OK;
}

status label_error(int label, int64_t classes) {
  return error_new(ERROR_DATA, NOWHERE,
                   "a label is %d, but the network has %lld outputs for classes 0 to %lld; check "
                   "the labels of the data set or the number of outputs",
                   label, (long long)classes, (long long)classes - 1);
}

/* For a set with a region that has no channel. */
static status regions_error(int set, int64_t channels) {
  int number = 1;
  while (set >>= 1) number++;
  return error_new(ERROR_DATA, NOWHERE,
                   "a voxel lies in region %d of data: regions, but the network's outputs end at "
                   "region %lld; give it one output for each region (outputs: \"${regions}\")",
                   number, (long long)channels);
}

typedef struct extents {
  int64_t samples, voxels, classes, chunks;
} extents;

static extents extents_of(const tensor *logits) {
  extents e = {.samples = logits->shape.dim[0], .classes = last_extent(logits)};
  e.voxels = shape_elements(&logits->shape) / e.samples / e.classes;
  e.chunks = divide_up(e.voxels, CHUNK_VOXELS);
  return e;
}

size_t segmentation_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                              int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  extents e = extents_of(&in[IN_LOGITS]);
  return (size_t)(e.samples * e.chunks * (SUM_FIXED + 3 * e.classes)) * sizeof(double);
}

cost segmentation_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return (cost){.flops = 30.0 * (double)shape_elements(&in[IN_LOGITS].shape)};
}

/* ---- one block of voxels --------------------------------------------------------------------- */

typedef struct block {
  float p[SEGMENTATION_CLASSES_MAX * BLOCK]; /* logits, then probabilities, class-major */
  float log_sum[BLOCK];                      /* log Σ e^logit */
} block;

/* The classes of `count` ≤ BLOCK voxels; −1 for those that do not count, and in places beyond. Returns how
 * many count. */
FOR_EACH_ISA static int64_t block_labels(const int32_t *restrict target, int64_t count,
                                         int64_t classes, int32_t ignored,
                                         int32_t *restrict label) {
  int32_t most = (int32_t)classes, counted = 0;
  for (int64_t v = 0; v < count; v++)
    label[v] = target[v] >= 0 && target[v] < most && target[v] != ignored ? target[v] : -1;
  for (int64_t v = count; v < BLOCK; v++) label[v] = -1;
  for (int64_t v = 0; v < BLOCK; v++) counted += label[v] >= 0;
  return counted;
}

static int32_t ignored_label(const segmentation_terms *t) {
  bool is_one = t->ignores && t->ignore_index == (int32_t)t->ignore_index;
  return is_one ? (int32_t)t->ignore_index : TARGET_UNKNOWN;
}

void load_planes(float *planes, const voxels *of) {
  int64_t count = of->count, classes = of->classes;
  gemm_transpose(planes, BLOCK, of->logits, classes, count, classes);
  for (int64_t c = 0; c < classes && count < BLOCK; c++)
    for (int64_t v = count; v < BLOCK; v++) planes[c * BLOCK + v] = 0;
}

/* How many voxels of a block of logits have their largest logit, the first of equal ones, at their label. */
FOR_EACH_ISA static int64_t correct_voxels(const float *restrict logits,
                                           const int32_t *restrict label, int64_t classes) {
  float largest[BLOCK];
  int32_t best[BLOCK] = {0}, correct = 0;
  for (int v = 0; v < BLOCK; v++) largest[v] = logits[v];
  for (int64_t c = 1; c < classes; c++)
    for (int v = 0; v < BLOCK; v++) {
      float x = logits[c * BLOCK + v];
      best[v] = x > largest[v] ? (int32_t)c : best[v];
      largest[v] = x > largest[v] ? x : largest[v];
    }
  for (int v = 0; v < BLOCK; v++) correct += best[v] == label[v];
  return correct;
}

/* Logits become probabilities; those of voxels that do not count are 0. */
FOR_EACH_ISA static void softmax_block(block *restrict b, const int32_t *restrict label,
                                       int64_t classes, const voxels *of) {
  float largest[BLOCK], sum[BLOCK] = {0};
  for (int v = 0; v < BLOCK; v++) largest[v] = b->p[v];
  for (int64_t c = 1; c < classes; c++)
    for (int v = 0; v < BLOCK; v++) {
      float x = b->p[c * BLOCK + v];
      largest[v] = x > largest[v] ? x : largest[v];
    }
  for (int64_t c = 0; c < classes; c++) {
    float *plane = b->p + c * BLOCK;
    ask_ahead(of, c);
    for (int v = 0; v < BLOCK; v++) {
      plane[v] = vector_exp_normal(plane[v] - largest[v]);
      sum[v] += plane[v];
    }
  }
  /* The logarithm is of numbers alone: the difference lets a NaN through. */
  for (int v = 0; v < BLOCK; v++)
    b->log_sum[v] = largest[v] + vector_log(sum[v]) + (sum[v] - sum[v]);
  for (int v = 0; v < BLOCK; v++) sum[v] = label[v] >= 0 ? 1.0f / sum[v] : 0.0f;
  for (int64_t c = 0; c < classes; c++)
    for (int v = 0; v < BLOCK; v++) b->p[c * BLOCK + v] *= sum[v];
}

FOR_EACH_ISA void add_regions(region_lanes *restrict lanes, const float *restrict p,
                              const int32_t *restrict label, int64_t classes, bool squared) {
  for (int64_t c = 0; c < classes; c++)
    for (int k = 0; k < BLOCK; k += SUM_LANES)
      for (int l = 0; l < SUM_LANES; l++) {
        float x = p[c * BLOCK + k + l], hit = label[k + l] == c ? 1.0f : 0.0f;
        lanes[c].overlap[l] += hit * x;
        lanes[c].volume[l] += squared ? x * x : x;
        lanes[c].count[l] += hit;
      }
}

double class_weight(const segmentation_terms *t, int64_t label) {
  return t->class_weights && t->class_weights->count ? t->class_weights->at[label] : 1.0;
}

/* ---- focal loss (Lin et al., arXiv 1708.02002) ------------------------------------------------
 * Of the true class's log-probability l: −(1 − p)^γ l. Its derivative by the logits is that of the
 * cross-entropy times the factor (1 − p)^γ (1 − γ p l / (1 − p)). */

FOR_EACH_ISA static void focal_block(const float *restrict log_p, float gamma, float *restrict loss,
                                     float *restrict factor) {
  for (int v = 0; v < BLOCK; v++) {
    float cost = -log_p[v], p = vector_exp(log_p[v]);
    float rest = cost < 1e-3f ? cost * (1.0f - 0.5f * cost) : 1.0f - p; /* 1 − p, to all digits */
    float least = rest > 1e-37f ? rest : 1e-37f;
    float power = vector_exp(gamma * vector_log(least));
    loss[v] = power * cost;
    factor[v] = power * (1.0f + gamma * p * (rest > 1e-37f ? cost / least : 1.0f));
  }
}

/* Log-probabilities of the true classes; 0 where the voxel does not count. */
static void true_log_p(const block *b, const float *logits, const int32_t *label, int64_t classes,
                       float *log_p) {
  for (int64_t v = 0; v < BLOCK; v++) {
    float l = label[v] >= 0 ? logits[v * classes + label[v]] - b->log_sum[v] : 0.0f;
    log_p[v] = l > 0.0f ? 0.0f : l; /* NaN stays NaN */
  }
}

static double balance(const segmentation_terms *t, bool is_foreground) {
  return t->alpha < 0 ? 1.0 : is_foreground ? t->alpha : 1 - t->alpha;
}

/* Weight of a voxel's focal term under the softmax. */
static double focal_weight(const segmentation_terms *t, int64_t label) {
  if (label < 0 || (label == 0 && !t->focal_background)) return 0;
  return class_weight(t, label) * balance(t, label > 0);
}

/* Each class against the rest: −(1 − q)^γ log q with q = σ(±x), for one class of a block, and the
 * derivatives. */
FOR_EACH_ISA static double sigmoid_focal_class(const float *restrict x,
                                               const int32_t *restrict label, int32_t class,
                                               float gamma, float inside, float outside,
                                               float *restrict slopes) {
  float sums[LANES] = {0};
  for (int k = 0; k < BLOCK; k += LANES)
    for (int l = 0; l < LANES; l++) {
      int v = k + l;
      bool hit = label[v] == class;
      float s = hit ? x[v] : -x[v], weight = hit ? inside : outside;
      weight = label[v] >= 0 ? weight : 0.0f;
      float small = vector_exp(-vector_abs(s));
      float log_term = vector_log(1.0f + small) + (small - small);           /* NaN stays NaN */
      float cost = (s < 0.0f ? -s : 0.0f) + log_term;                        /* −log σ(s) */
      float power = vector_exp(-gamma * ((s > 0.0f ? s : 0.0f) + log_term)); /* (1 − σ(s))^γ */
      float far = 1.0f / (1.0f + small), near = small * far;
      float sigmoid = s < 0.0f ? near : far, rest = s < 0.0f ? far : near;
      sums[l] += weight * power * cost;
      float slope = -weight * power * (gamma * sigmoid * cost + rest);
      slopes[v] = hit ? slope : -slope;
    }
  return lanes_total(sums);
}

double sigmoid_focal(const segmentation_terms *t, const float *x, const int32_t *label,
                     int32_t class, double weight, float *gradient, double scale) {
  float slopes[BLOCK];
  double sum =
      sigmoid_focal_class(x, label, class, (float)t->gamma, (float)(weight * balance(t, true)),
                          (float)(weight * balance(t, false)), slopes);
  for (int v = 0; gradient && v < BLOCK; v++) gradient[v] += (float)scale * slopes[v];
  return sum;
}

static double sigmoid_focal_block(const segmentation_terms *t, const float *logits,
                                  const int32_t *label, int64_t count, int64_t classes,
                                  float *gradient, double scale) {
  double total = 0;
  float x[BLOCK] = {0};
  for (int64_t c = t->focal_background ? 0 : 1; c < classes; c++) {
    for (int64_t v = 0; v < count; v++) x[v] = logits[v * classes + c];
    total += sigmoid_focal(t, x, label, (int32_t)c, class_weight(t, c),
                           gradient ? gradient + c * BLOCK : NULL, scale);
  }
  return total;
}

/* The sum of a block's focal terms. */
static double focal_sum(const segmentation_terms *t, const block *b, const float *logits,
                        const int32_t *label, int64_t count, int64_t classes) {
  if (t->sigmoid) return sigmoid_focal_block(t, logits, label, count, classes, NULL, 0);
  float log_p[BLOCK], loss[BLOCK], factor[BLOCK];
  true_log_p(b, logits, label, classes, log_p);
  focal_block(log_p, (float)t->gamma, loss, factor);
  double total = 0;
  for (int64_t v = 0; v < count; v++) total += focal_weight(t, label[v]) * (double)loss[v];
  return total;
}

/* Does each voxel that counts add −log p of its class, and no more? */
static bool is_plain(const segmentation_terms *t) {
  return t->label_smoothing == 0 && !(t->class_weights && t->class_weights->count);
}

/* −Σ_c a_c log p_c with the smoothed target a. */
static double voxel_cross_entropy(const segmentation_terms *t, const float *logits, float log_sum,
                                  int64_t classes, int32_t label) {
  double one = class_weight(t, label) * ((double)log_sum - (double)logits[label]);
  if (t->label_smoothing == 0) return one;
  double all = 0;
  for (int64_t c = 0; c < classes; c++)
    all += class_weight(t, c) * ((double)log_sum - (double)logits[c]);
  return (1 - t->label_smoothing) * one + t->label_smoothing / (double)classes * all;
}

FOR_EACH_ISA static double block_sum(const float *x) {
  double lanes[SUM_LANES] = {0}, total = 0;
  for (int v = 0; v < BLOCK; v += SUM_LANES)
    for (int l = 0; l < SUM_LANES; l++) lanes[l] += (double)x[v + l];
  for (int l = 0; l < SUM_LANES; l++) total += lanes[l];
  return total;
}

/* Adds a block's cross-entropies and class weights to the sums. */
static void sum_cross_entropy(double *sums, const segmentation_terms *t, const block *b,
                              const float *logits, const int32_t *label, int64_t count,
                              int64_t classes, int64_t counted) {
  if (is_plain(t)) {
    float log_p[BLOCK];
    true_log_p(b, logits, label, classes, log_p);
    sums[SUM_CE] -= block_sum(log_p);
    sums[SUM_WEIGHT] += (double)counted;
    return;
  }
  for (int64_t v = 0; v < count; v++, logits += classes)
    if (label[v] >= 0) {
      sums[SUM_CE] += voxel_cross_entropy(t, logits, b->log_sum[v], classes, label[v]);
      sums[SUM_WEIGHT] += class_weight(t, label[v]);
    }
}

/* Among voxels that do not count: those whose target is no class, nor one that says so. */
static void find_bad_label(double *sums, const int32_t *target, const int32_t *label, int64_t count,
                           int32_t ignored) {
  for (int64_t v = 0; v < count; v++)
    if (label[v] < 0 && target[v] != TARGET_UNKNOWN && target[v] != ignored) {
      sums[SUM_BAD] = 1;
      sums[SUM_BAD_LABEL] = target[v];
    }
}

static void add_classes(double *sums, region_lanes *lanes, const segmentation_terms *t,
                        const voxels *of) {
  int64_t n = of->count, classes = of->classes;
  int32_t ignored = ignored_label(t), label[BLOCK];
  block b;
  int64_t counted = block_labels(of->target, n, classes, ignored, label);
  if (counted < n) find_bad_label(sums, of->target, label, n, ignored);
  load_planes(b.p, of);
  if (t->accuracy) sums[SUM_CORRECT] += (double)correct_voxels(b.p, label, classes);
  softmax_block(&b, label, classes, of);
  if (t->dice) add_regions(lanes, b.p, label, classes, t->squared);
  if (t->focal)
    sums[SUM_CE] += focal_sum(t, &b, of->logits, label, n, classes);
  else if (t->cross_entropy)
    sum_cross_entropy(sums, t, &b, of->logits, label, n, classes, counted);
  sums[SUM_COUNTED] += (double)counted;
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct job {
  const call *c;
  const segmentation_terms *terms;
  extents e;
  bool sets; /* the target: of regions, in place of classes */
  gradient_scale scale;
  const float *slopes;
  float *dlogits; /* NULL: forward */
} job;

/* What a voxel that counts, with the weight 1, adds to what the mean runs over. */
static double terms_of_voxel(const job *j) {
  return j->sets           ? (double)j->e.classes
         : j->terms->focal ? (double)(j->e.classes - !j->terms->focal_background)
                           : 1;
}

static voxels voxels_at(const job *j, int64_t first, int64_t count) {
  int64_t classes = j->e.classes;
  return (voxels){.logits = (const float *)j->c->in[IN_LOGITS].data + first * classes,
                  .target = (const int32_t *)j->c->in[IN_TARGET].data + first,
                  .count = count < BLOCK ? count : BLOCK,
                  .classes = classes,
                  .out = j->dlogits ? j->dlogits + first * classes : NULL};
}

static void forward_task(void *context, int64_t task) {
  const job *j = context;
  const segmentation_terms *t = j->terms;
  int64_t classes = j->e.classes;
  span part = piece_of(j->e.voxels, CHUNK_VOXELS, task % j->e.chunks);
  int64_t start = task / j->e.chunks * j->e.voxels + part.first;
  double *sums = (double *)j->c->workspace + task * (SUM_FIXED + 3 * classes);
  double *overlap = sums + SUM_FIXED, *volume = overlap + classes, *count = volume + classes;
  memset(sums, 0, (size_t)(SUM_FIXED + 3 * classes) * sizeof *sums);
  region_lanes lanes[SEGMENTATION_CLASSES_MAX];
  memset(lanes, 0, (size_t)classes * sizeof *lanes);
  for (int64_t at = 0; at < part.count; at += BLOCK) {
    voxels of = voxels_at(j, start + at, part.count - at);
    if (j->sets)
      add_sets(sums, lanes, t, &of);
    else
      add_classes(sums, lanes, t, &of);
  }
  if (t->focal || j->sets) sums[SUM_WEIGHT] = sums[SUM_COUNTED];
  for (int64_t c = 0; c < classes; c++)
    for (int l = 0; l < SUM_LANES; l++) {
      overlap[c] += (double)lanes[c].overlap[l];
      volume[c] += (double)lanes[c].volume[l];
      count[c] += (double)lanes[c].count[l];
    }
}

typedef struct region {              /* of one class, over a sample or the batch */
  double overlap, predicted, actual; /* Σ p·t, Σ p or Σ p², Σ t */
  double by_overlap, by_predicted;   /* derivatives of the group's loss */
} region;

static double dice_group(const segmentation_terms *t, region *r, int64_t first, int64_t classes) {
  double loss = 0;
  for (int64_t c = first; c < classes; c++) {
    double denominator = r[c].predicted + r[c].actual + t->smooth_denominator;
    double ratio = (2 * r[c].overlap + t->smooth_numerator) / denominator;
    loss += 1 - ratio;
    r[c].by_overlap = -2 / denominator;
    r[c].by_predicted = ratio / denominator;
  }
  return loss / (double)(classes - first);
}

/* Salehi et al., arXiv 1706.05721. */
static double tversky_group(const segmentation_terms *t, region *r, int64_t first,
                            int64_t classes) {
  double loss = 0, alpha = t->false_positive_weight, beta = t->false_negative_weight;
  for (int64_t c = first; c < classes; c++) {
    double kept = 1 - alpha - beta; /* of the overlap in the denominator */
    double denominator =
        kept * r[c].overlap + alpha * r[c].predicted + beta * r[c].actual + t->smooth_denominator;
    double ratio = (r[c].overlap + t->smooth_numerator) / denominator;
    loss += 1 - ratio;
    r[c].by_overlap = (ratio * kept - 1) / denominator;
    r[c].by_predicted = ratio * alpha / denominator;
  }
  return loss / (double)(classes - first);
}

/* Classes weigh the less the larger they are (Sudre et al., arXiv 1707.03237). A class that is
 * absent weighs as much as the heaviest that is there, as in MONAI. */
static double generalized_group(const segmentation_terms *t, region *r, int64_t first,
                                int64_t classes) {
  double weights[SEGMENTATION_CLASSES_MAX], heaviest = 0;
  for (int64_t c = first; c < classes; c++) {
    double volume = r[c].actual;
    weights[c] = t->volume_weights == WEIGHT_SQUARE   ? 1 / (volume * volume)
                 : t->volume_weights == WEIGHT_SIMPLE ? 1 / volume
                                                      : 1;
    if (volume > 0 && weights[c] > heaviest) heaviest = weights[c];
  }
  double numerator = t->smooth_numerator, denominator = t->smooth_denominator;
  for (int64_t c = first; c < classes; c++) {
    if (isinf(weights[c])) weights[c] = heaviest;
    numerator += 2 * weights[c] * r[c].overlap;
    denominator += weights[c] * (r[c].predicted + r[c].actual);
  }
  for (int64_t c = first; c < classes; c++) {
    r[c].by_overlap = -2 * weights[c] / denominator;
    r[c].by_predicted = weights[c] * numerator / (denominator * denominator);
  }
  return 1 - numerator / denominator;
}

/* Does a voxel of these tasks count? */
static bool is_annotated(const double *sums, int64_t stride, int64_t tasks) {
  for (int64_t k = 0; k < tasks; k++)
    if (sums[k * stride + SUM_COUNTED] > 0) return true;
  return false;
}

/* The region term and its slopes from the sums, which lie `stride` doubles apart per task. Groups
 * (samples, or the batch) in which no voxel counts are no part of the mean. */
static double region_term(const job *j, const double *sums, int64_t stride, float *slopes) {
  const segmentation_terms *t = j->terms;
  const extents *e = &j->e;
  int64_t first = t->include_background ? 0 : 1, groups = t->batch ? 1 : e->samples;
  int64_t tasks = t->batch ? e->samples * e->chunks : e->chunks;
  int64_t counted = 0;
  for (int64_t g = 0; g < groups; g++)
    counted += is_annotated(sums + g * e->chunks * stride, stride, tasks);
  memset(slopes, 0, (size_t)(e->samples * e->classes * 2) * sizeof *slopes);
  if (counted == 0) return 0;
  double loss = 0, share = 1.0 / (double)counted;
  if (t->form != REGION_GENERALIZED_DICE) share /= (double)(e->classes - first);
  for (int64_t g = 0; g < groups; g++) {
    region r[SEGMENTATION_CLASSES_MAX];
    if (!is_annotated(sums + g * e->chunks * stride, stride, tasks)) continue;
    memset(r, 0, (size_t)e->classes * sizeof *r);
    for (int64_t k = g * e->chunks; k < g * e->chunks + tasks; k++)
      for (int64_t c = 0; c < e->classes; c++) {
        const double *s = sums + k * stride + SUM_FIXED + c;
        r[c].overlap += s[0];
        r[c].predicted += s[e->classes];
        r[c].actual += s[2 * e->classes];
      }
    loss += t->form == REGION_TVERSKY            ? tversky_group(t, r, first, e->classes)
            : t->form == REGION_GENERALIZED_DICE ? generalized_group(t, r, first, e->classes)
                                                 : dice_group(t, r, first, e->classes);
    for (int64_t n = t->batch ? 0 : g; n < (t->batch ? e->samples : g + 1); n++)
      for (int64_t c = 0; c < e->classes; c++) {
        slopes[(n * e->classes + c) * 2] = (float)(share * r[c].by_overlap);
        slopes[(n * e->classes + c) * 2 + 1] = (float)(share * r[c].by_predicted);
      }
  }
  return loss / (double)counted;
}

status segmentation_forward(const call *c, const segmentation_terms *terms, float *slopes,
                            segmentation_result *result) {
  job j = {.c = c, .terms = terms, .e = extents_of(&c->in[IN_LOGITS]), .sets = has_sets(c->in)};
  int64_t tasks = j.e.samples * j.e.chunks, stride = SUM_FIXED + 3 * j.e.classes;
  parallel_for(c->pool, tasks, forward_task, &j);
  const double *sums = c->workspace;
  double total[SUM_FIXED] = {0};
  for (int64_t k = 0; k < tasks; k++) {
    const double *s = sums + k * stride;
    if (s[SUM_BAD] != 0)
      return (j.sets ? regions_error : label_error)((int)s[SUM_BAD_LABEL], j.e.classes);
    for (int i = 0; i < SUM_FIXED; i++) total[i] += s[i];
  }
  *result = (segmentation_result){.weight = total[SUM_WEIGHT]};
  if (terms->cross_entropy && total[SUM_WEIGHT] > 0)
    result->cross_entropy = total[SUM_CE] / (total[SUM_WEIGHT] * terms_of_voxel(&j));
  if (total[SUM_COUNTED] > 0) result->accuracy = total[SUM_CORRECT] / total[SUM_COUNTED];
  if (terms->dice) result->dice = region_term(&j, sums, stride, slopes);
  return OK;
}

/* ---- gradient --------------------------------------------------------------------------------
 * Cross-entropy: p_k Σa − a_k. Dice, with g_c its derivative by p_c: p_k (g_k − Σ g_c p_c). */

FOR_EACH_ISA void dice_gradient(const float *restrict p, float *restrict gradient,
                                const int32_t *restrict label, const float *restrict slopes,
                                int64_t classes, float factor, bool squared) {
  float dot[BLOCK] = {0};
  for (int64_t c = 0; c < classes; c++) {
    float hit = slopes[2 * c] * factor, slope = slopes[2 * c + 1] * factor;
    for (int v = 0; v < BLOCK; v++) {
      float g = (label[v] == c ? hit : 0.0f) + (squared ? 2.0f * slope * p[c * BLOCK + v] : slope);
      gradient[c * BLOCK + v] = g;
      dot[v] += g * p[c * BLOCK + v];
    }
  }
  for (int64_t c = 0; c < classes; c++)
    for (int v = 0; v < BLOCK; v++)
      gradient[c * BLOCK + v] = p[c * BLOCK + v] * (gradient[c * BLOCK + v] - dot[v]);
}

FOR_EACH_ISA void add_cross_entropy(float *restrict gradient, const float *restrict p,
                                    const int32_t *restrict label, int64_t classes,
                                    const float *restrict factor) {
  for (int64_t c = 0; c < classes; c++)
    for (int v = 0; v < BLOCK; v++) {
      float d = p[c * BLOCK + v] - (label[v] == c ? 1.0f : 0.0f);
      gradient[c * BLOCK + v] += factor[v] * d;
    }
}

static void add_focal(float *gradient, const block *b, const float *logits, const int32_t *label,
                      int64_t count, int64_t classes, const segmentation_terms *t, double scale) {
  if (t->sigmoid) {
    sigmoid_focal_block(t, logits, label, count, classes, gradient, scale);
    return;
  }
  float log_p[BLOCK], loss[BLOCK], factor[BLOCK];
  true_log_p(b, logits, label, classes, log_p);
  focal_block(log_p, (float)t->gamma, loss, factor);
  for (int v = 0; v < BLOCK; v++) factor[v] *= (float)(scale * focal_weight(t, label[v]));
  add_cross_entropy(gradient, b->p, label, classes, factor);
}

static void add_weighted_cross_entropy(float *restrict gradient, const float *restrict p,
                                       const int32_t *label, int64_t classes,
                                       const segmentation_terms *t, double factor) {
  double everywhere = t->label_smoothing / (double)classes, weights = 0;
  for (int64_t c = 0; c < classes; c++) weights += class_weight(t, c);
  for (int v = 0; v < BLOCK; v++) {
    if (label[v] < 0) continue;
    double hit = (1 - t->label_smoothing) * class_weight(t, label[v]);
    double all = hit + everywhere * weights;
    for (int64_t c = 0; c < classes; c++) {
      double a = everywhere * class_weight(t, c) + (c == label[v] ? hit : 0);
      gradient[c * BLOCK + v] += (float)(factor * ((double)p[c * BLOCK + v] * all - a));
    }
  }
}

static void gradient_of_classes(float *gradient, const segmentation_terms *t, const voxels *of,
                                const float *slopes, gradient_scale scale) {
  int64_t n = of->count, classes = of->classes;
  int32_t label[BLOCK];
  block b;
  block_labels(of->target, n, classes, ignored_label(t), label);
  load_planes(b.p, of);
  softmax_block(&b, label, classes, of);
  if (t->dice)
    dice_gradient(b.p, gradient, label, slopes, classes, (float)scale.dice, t->squared);
  else
    memset(gradient, 0, (size_t)(classes * BLOCK) * sizeof *gradient);
  if (t->focal) {
    add_focal(gradient, &b, of->logits, label, n, classes, t, scale.voxels);
  } else if (t->cross_entropy && is_plain(t)) {
    float factor[BLOCK];
    for (int v = 0; v < BLOCK; v++) factor[v] = label[v] >= 0 ? (float)scale.voxels : 0.0f;
    add_cross_entropy(gradient, b.p, label, classes, factor);
  } else if (t->cross_entropy) {
    add_weighted_cross_entropy(gradient, b.p, label, classes, t, scale.voxels);
  }
}

static void backward_task(void *context, int64_t task) {
  const job *j = context;
  int64_t classes = j->e.classes, sample = task / j->e.chunks;
  span part = piece_of(j->e.voxels, CHUNK_VOXELS, task % j->e.chunks);
  int64_t start = sample * j->e.voxels + part.first;
  const float *slopes = j->slopes ? j->slopes + sample * classes * 2 : NULL;
  float gradient[SEGMENTATION_CLASSES_MAX * BLOCK];
  for (int64_t at = 0; at < part.count; at += BLOCK) {
    voxels of = voxels_at(j, start + at, part.count - at);
    if (j->sets)
      gradient_of_sets(gradient, j->terms, &of, slopes, j->scale);
    else
      gradient_of_classes(gradient, j->terms, &of, slopes, j->scale);
    gemm_transpose(of.out, classes, gradient, BLOCK, classes, of.count);
  }
}

void segmentation_backward(const call *c, const segmentation_terms *terms, const float *slopes,
                           double weight, double dy, float *dlogits) {
  job j = {.c = c,
           .terms = terms,
           .e = extents_of(&c->in[IN_LOGITS]),
           .sets = has_sets(c->in),
           .scale.dice = dy * terms->dice_weight,
           .slopes = slopes,
           .dlogits = dlogits};
  if (weight > 0) j.scale.voxels = dy * terms->cross_entropy_weight / (weight * terms_of_voxel(&j));
  parallel_for(c->pool, j.e.samples * j.e.chunks, backward_task, &j);
}

/* ---- losses that are a region term alone ---------------------------------------------------- */

enum { OUT_LOSS, OUT_SLOPES };

status region_infer(infer *rule, const segmentation_terms *t) {
  TRY(segmentation_check(rule, t));
  const shape *logits = &rule->in[IN_LOGITS].shape;
  rule->out[OUT_SLOPES].shape = SHAPE(logits->dim[0], last_extent(&rule->in[IN_LOGITS]), 2);
  return OK;
}

status region_grad(grad *rule, bool squared) {
  dice_attrs attrs;
  op_defaults(op_find("dice_backward"), &attrs);
  attrs.squared = squared;
  value_id in[] = {rule->in[0], rule->in[1], rule->out[OUT_SLOPES], rule->dy[OUT_LOSS]};
  return rule->wanted[0] ? build_node(rule->b, "dice_backward", &attrs, in, 4, &rule->dx[0]) : OK;
}

status region_forward(const call *c, const segmentation_terms *terms) {
  segmentation_result result;
  TRY(segmentation_forward(c, terms, c->out[OUT_SLOPES].data, &result));
  *(float *)c->out[OUT_LOSS].data = (float)result.dice;
  return OK;
}
