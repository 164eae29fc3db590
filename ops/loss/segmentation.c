#include "ops/loss/segmentation.h"

#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"

enum {
  BLOCK = 64,          /* voxels whose logits are turned class-major at a time */
  CHUNK_VOXELS = 4096, /* voxels of a task */
  SUM_LANES = 16
};

enum { IN_LOGITS, IN_TARGET };

/* Partial sums of a task: these, then per class Σp·onehot, Σp² or Σp, and Σonehot. */
enum { SUM_CE, SUM_WEIGHT, SUM_CORRECT, SUM_COUNTED, SUM_BAD, SUM_BAD_LABEL, SUM_FIXED = 8 };

status segmentation_check(const infer *rule, const float_list *class_weights) {
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
  if (classes < 2 || classes > SEGMENTATION_CLASSES_MAX)
    return shape_error("the logits have %lld classes; 2 to %d are supported (a binary task has 2: "
                       "background and foreground)",
                       (long long)classes, SEGMENTATION_CLASSES_MAX);
  if (class_weights && class_weights->count && class_weights->count != classes)
    return shape_error("class_weights has %d numbers, but there are %lld classes",
                       class_weights->count, (long long)classes);
  return OK;
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
  int32_t best[BLOCK];                       /* class of the largest logit */
} block;

/* Softmax of `count` ≤ BLOCK voxels; places beyond hold zeros. */
FOR_EACH_ISA static void softmax_block(block *restrict b, const float *restrict logits,
                                       int64_t count, int64_t classes) {
  float largest[BLOCK], sum[BLOCK] = {0};
  for (int64_t c = 0; c < classes; c++) {
    float *plane = b->p + c * BLOCK;
    for (int64_t v = 0; v < count; v++) plane[v] = logits[v * classes + c];
    for (int64_t v = count; v < BLOCK; v++) plane[v] = 0;
  }
  for (int v = 0; v < BLOCK; v++) largest[v] = b->p[v];
  for (int v = 0; v < BLOCK; v++) b->best[v] = 0;
  for (int64_t c = 1; c < classes; c++) {
    const float *plane = b->p + c * BLOCK;
    for (int v = 0; v < BLOCK; v++) {
      b->best[v] = plane[v] > largest[v] ? (int32_t)c : b->best[v];
      largest[v] = plane[v] > largest[v] ? plane[v] : largest[v];
    }
  }
  for (int64_t c = 0; c < classes; c++) {
    float *plane = b->p + c * BLOCK;
    for (int v = 0; v < BLOCK; v++) {
      plane[v] = vector_exp(plane[v] - largest[v]);
      sum[v] += plane[v];
    }
  }
  for (int v = 0; v < BLOCK; v++) b->log_sum[v] = largest[v] + vector_log(sum[v]);
  for (int v = 0; v < BLOCK; v++) sum[v] = v < count ? 1.0f / sum[v] : 0.0f;
  for (int64_t c = 0; c < classes; c++) {
    float *plane = b->p + c * BLOCK;
    for (int v = 0; v < BLOCK; v++) plane[v] *= sum[v];
  }
}

/* Adds Σp² or Σp of the block to each class's lanes. */
FOR_EACH_ISA static void add_volumes(float *restrict lanes, const float *restrict p,
                                     int64_t classes, bool squared) {
  for (int64_t c = 0; c < classes; c++)
    for (int k = 0; k < BLOCK; k += SUM_LANES)
      for (int l = 0; l < SUM_LANES; l++) {
        float x = p[c * BLOCK + k + l];
        lanes[c * SUM_LANES + l] += squared ? x * x : x;
      }
}

static double class_weight(const segmentation_terms *t, int64_t label) {
  return t->class_weights && t->class_weights->count ? t->class_weights->at[label] : 1.0;
}

/* ---- forward --------------------------------------------------------------------------------- */

typedef struct job {
  const call *c;
  const segmentation_terms *terms;
  extents e;
  const float *slopes;
  double factor; /* backward: dy · weight of the cross-entropy / Σ class weights */
  double dice_factor;
  float *dlogits;
} job;

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

static void forward_task(void *context, int64_t task) {
  const job *j = context;
  const segmentation_terms *t = j->terms;
  int64_t classes = j->e.classes;
  span part = piece_of(j->e.voxels, CHUNK_VOXELS, task % j->e.chunks);
  int64_t start = task / j->e.chunks * j->e.voxels + part.first;
  const float *logits = (const float *)j->c->in[IN_LOGITS].data + start * classes;
  const int32_t *target = (const int32_t *)j->c->in[IN_TARGET].data + start;
  double *sums = (double *)j->c->workspace + task * (SUM_FIXED + 3 * classes);
  double *overlap = sums + SUM_FIXED, *volume = overlap + classes, *count = volume + classes;
  memset(sums, 0, (size_t)(SUM_FIXED + 3 * classes) * sizeof *sums);
  float lanes[SEGMENTATION_CLASSES_MAX * SUM_LANES];
  memset(lanes, 0, (size_t)(classes * SUM_LANES) * sizeof *lanes);
  block b;
  for (int64_t at = 0; at < part.count; at += BLOCK) {
    int64_t n = part.count - at < BLOCK ? part.count - at : BLOCK;
    const float *x = logits + at * classes;
    softmax_block(&b, x, n, classes);
    if (t->dice) add_volumes(lanes, b.p, classes, t->squared);
    for (int64_t v = 0; v < n; v++, x += classes) {
      int32_t label = target[at + v];
      if (t->ignores && label == t->ignore_index) continue;
      if (label < 0 || label >= classes) {
        sums[SUM_BAD] = 1;
        sums[SUM_BAD_LABEL] = label;
        continue;
      }
      if (t->cross_entropy) {
        sums[SUM_CE] += voxel_cross_entropy(t, x, b.log_sum[v], classes, label);
        sums[SUM_WEIGHT] += class_weight(t, label);
        sums[SUM_CORRECT] += b.best[v] == label;
        sums[SUM_COUNTED] += 1;
      }
      overlap[label] += (double)b.p[label * BLOCK + v];
      count[label] += 1;
    }
  }
  for (int64_t c = 0; c < classes; c++)
    for (int l = 0; l < SUM_LANES; l++) volume[c] += (double)lanes[c * SUM_LANES + l];
}

/* The dice term and its slopes from the sums, which lie `stride` doubles apart per task. */
static double dice_term(const job *j, const double *sums, int64_t stride, float *slopes) {
  const segmentation_terms *t = j->terms;
  const extents *e = &j->e;
  int64_t first = t->include_background ? 0 : 1, groups = t->batch ? 1 : e->samples;
  double share = 1.0 / (double)(groups * (e->classes - first)), loss = 0;
  for (int64_t g = 0; g < groups; g++)
    for (int64_t c = 0; c < e->classes; c++) {
      double overlap = 0, volume = 0;
      int64_t tasks = t->batch ? e->samples * e->chunks : e->chunks;
      for (int64_t k = g * e->chunks; k < g * e->chunks + tasks; k++) {
        const double *s = sums + k * stride + SUM_FIXED + c;
        overlap += s[0];
        volume += s[e->classes] + s[2 * e->classes];
      }
      double denominator = volume + t->smooth_denominator;
      double ratio = (2 * overlap + t->smooth_numerator) / denominator;
      double counts = c >= first ? share : 0;
      loss += counts * (1 - ratio);
      for (int64_t n = t->batch ? 0 : g; n < (t->batch ? e->samples : g + 1); n++) {
        slopes[(n * e->classes + c) * 2] = (float)(-2 * counts / denominator);
        slopes[(n * e->classes + c) * 2 + 1] = (float)(counts * ratio / denominator);
      }
    }
  return loss;
}

status segmentation_forward(const call *c, const segmentation_terms *terms, float *slopes,
                            segmentation_result *result) {
  job j = {.c = c, .terms = terms, .e = extents_of(&c->in[IN_LOGITS])};
  int64_t tasks = j.e.samples * j.e.chunks, stride = SUM_FIXED + 3 * j.e.classes;
  parallel_for(c->pool, tasks, forward_task, &j);
  const double *sums = c->workspace;
  double total[SUM_FIXED] = {0};
  for (int64_t k = 0; k < tasks; k++) {
    const double *s = sums + k * stride;
    if (s[SUM_BAD] != 0)
      return error_new(
          ERROR_DATA, NOWHERE,
          "a label is %d, but the network has %lld outputs for classes 0 to %lld; check "
          "the labels of the data set or the number of outputs",
          (int)s[SUM_BAD_LABEL], (long long)j.e.classes, (long long)j.e.classes - 1);
    for (int i = 0; i < SUM_FIXED; i++) total[i] += s[i];
  }
  *result = (segmentation_result){.weight = total[SUM_WEIGHT]};
  if (terms->cross_entropy && total[SUM_WEIGHT] > 0)
    result->cross_entropy = total[SUM_CE] / total[SUM_WEIGHT];
  if (total[SUM_COUNTED] > 0) result->accuracy = total[SUM_CORRECT] / total[SUM_COUNTED];
  if (terms->dice) result->dice = dice_term(&j, sums, stride, slopes);
  return OK;
}

/* ---- gradient --------------------------------------------------------------------------------
 * Cross-entropy: p_k Σa − a_k. Dice, with g_c its derivative by p_c: p_k (g_k − Σ g_c p_c). */

/* Turns the probabilities of a block into gradients, class-major, in place. `hit` is 1 where the
 * voxel bears the class. */
FOR_EACH_ISA static void dice_gradient(float *restrict p, float *restrict gradient,
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

FOR_EACH_ISA static void add_plain_cross_entropy(float *restrict gradient, const float *restrict p,
                                                 const int32_t *restrict label, int64_t classes,
                                                 float factor) {
  for (int64_t c = 0; c < classes; c++)
    for (int v = 0; v < BLOCK; v++) {
      float d = p[c * BLOCK + v] - (label[v] == c ? 1.0f : 0.0f);
      gradient[c * BLOCK + v] += label[v] >= 0 ? factor * d : 0.0f;
    }
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

FOR_EACH_ISA static void store_gradient(float *restrict to, const float *restrict gradient,
                                        int64_t count, int64_t classes) {
  for (int64_t v = 0; v < count; v++)
    for (int64_t c = 0; c < classes; c++) to[v * classes + c] = gradient[c * BLOCK + v];
}

static void backward_task(void *context, int64_t task) {
  const job *j = context;
  const segmentation_terms *t = j->terms;
  int64_t classes = j->e.classes, sample = task / j->e.chunks;
  span part = piece_of(j->e.voxels, CHUNK_VOXELS, task % j->e.chunks);
  int64_t start = sample * j->e.voxels + part.first;
  const float *logits = (const float *)j->c->in[IN_LOGITS].data + start * classes;
  const int32_t *target = (const int32_t *)j->c->in[IN_TARGET].data + start;
  float *out = j->dlogits + start * classes;
  bool plain = t->label_smoothing == 0 && !(t->class_weights && t->class_weights->count);
  block b;
  float gradient[SEGMENTATION_CLASSES_MAX * BLOCK];
  for (int64_t at = 0; at < part.count; at += BLOCK) {
    int64_t n = part.count - at < BLOCK ? part.count - at : BLOCK;
    int32_t label[BLOCK]; /* −1: the voxel does not count */
    for (int64_t v = 0; v < BLOCK; v++) {
      label[v] = v < n ? target[at + v] : -1;
      if (label[v] >= classes || (t->ignores && label[v] == t->ignore_index)) label[v] = -1;
    }
    softmax_block(&b, logits + at * classes, n, classes);
    if (t->dice)
      dice_gradient(b.p, gradient, label, j->slopes + sample * classes * 2, classes,
                    (float)j->dice_factor, t->squared);
    else
      memset(gradient, 0, (size_t)(classes * BLOCK) * sizeof *gradient);
    if (t->cross_entropy && plain)
      add_plain_cross_entropy(gradient, b.p, label, classes, (float)j->factor);
    else if (t->cross_entropy)
      add_weighted_cross_entropy(gradient, b.p, label, classes, t, j->factor);
    store_gradient(out + at * classes, gradient, n, classes);
  }
}

void segmentation_backward(const call *c, const segmentation_terms *terms, const float *slopes,
                           double weight, double dy, float *dlogits) {
  job j = {.c = c,
           .terms = terms,
           .e = extents_of(&c->in[IN_LOGITS]),
           .slopes = slopes,
           .factor = weight > 0 ? dy * terms->cross_entropy_weight / weight : 0,
           .dice_factor = dy * terms->dice_weight,
           .dlogits = dlogits};
  parallel_for(c->pool, j.e.samples * j.e.chunks, backward_task, &j);
}
