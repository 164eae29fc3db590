/* The losses of a label map: cross_entropy, focal, dice, tversky, generalized_dice and their sums.
 * ops/loss/segmentation.h says what they share. One pass over the logits forward, which leaves
 * partial sums per chunk of voxels; one block finishes; one pass back. */
#include "data/label.h"
#include "device/cuda/kernel.cuh"

namespace segmentation_kernels {

enum { IN_LOGITS, IN_TARGET };
enum form { DICE, TVERSKY, GENERALIZED };
enum { WEIGHT_SQUARE, WEIGHT_SIMPLE, WEIGHT_UNIFORM };
constexpr int MOST_WEIGHTS = 256, MOST_CLASSES = 256, CHUNK = 2048; /* voxels of a block */

struct terms {
  bool sets;                                    /* the target: of regions, in place of classes */
  bool cross_entropy, focal, regions;           /* which terms there are */
  scheduled_number voxel_weight, region_weight; /* their factors in the loss */
  int weight_count;                             /* of class_weights; 0: all 1 */
  float class_weights[MOST_WEIGHTS];
  bool ignores;
  int ignore_index;
  double label_smoothing;
  bool squared, include_background, batch;
  double smooth_numerator, smooth_denominator;
  form kind;
  double alpha, beta; /* Tversky: false positives, false negatives */
  int volume_weights;
  bool sigmoid, focal_background;
  float gamma;
  double balance; /* focal's alpha; negative: none */

  /* Is the target one that does not count? Of others, those that are no class are mistakes. */
  __device__ bool leaves_out(int target) const {
    return sets ? target < 0 : target == TARGET_UNKNOWN || (ignores && target == ignore_index);
  }
  __device__ bool counts(int target, int64_t classes) const {
    return target >= 0 && (sets ? (unsigned)target >> classes == 0 : target < classes) &&
           !leaves_out(target);
  }
  /* Does a voxel that counts bear the class, or lie in the region? */
  __device__ bool hits(int target, int64_t c) const {
    return sets ? target >> c & 1 : target == c;
  }
  /* Of a voxel's logits, with log Σ eˣ over the classes. */
  __device__ float probability(float x, float log_sum) const {
    return sets ? 1.0f / (1.0f + expf(-x)) : expf(x - log_sum);
  }
  /* What a voxel that counts, with the weight 1, adds to what the mean runs over. */
  __device__ double of_voxel(int64_t classes) const {
    return sets ? (double)classes : focal ? (double)(classes - (focal_background ? 0 : 1)) : 1;
  }
  __device__ double class_weight(int64_t c) const {
    return weight_count ? (double)class_weights[c] : 1.0;
  }
  __device__ double balance_of(bool is_foreground) const {
    return balance < 0 ? 1.0 : is_foreground ? balance : 1 - balance;
  }
  __device__ double focal_weight(int label) const {
    if (label < 0 || (label == 0 && !focal_background)) return 0;
    return class_weight(label) * balance_of(label > 0);
  }
};

struct extents {
  int64_t samples, voxels, classes;
  int chunks;
};

static extents extents_of(const launch *l) {
  const plugin_shape *s = in_shape(l, IN_LOGITS);
  extents e = {s->dim[0], 0, last_extent(s), 0};
  e.voxels = elements(s) / e.samples / e.classes;
  e.chunks = (int)((e.voxels + CHUNK - 1) / CHUNK);
  return e;
}

/* Partial sums of a chunk: these, then per class Σp·onehot, Σp² or Σp, Σonehot. */
enum { SUM_VOXELS, SUM_WEIGHT, SUM_CORRECT, SUM_COUNTED, SUM_FIXED };

/* ---- one voxel --------------------------------------------------------------------------------- */

/* log Σ eˣ, and the class of the largest. */
static __device__ inline float log_sum_of(const float *x, int64_t classes, int *best) {
  float largest = x[0], sum = 0;
  *best = 0;
  for (int64_t c = 1; c < classes; c++)
    if (x[c] > largest) {
      largest = x[c];
      *best = (int)c;
    }
  for (int64_t c = 0; c < classes; c++) sum += expf(x[c] - largest);
  return largest + logf(sum);
}

/* Σ_c −log of what σ(x_c) gives the truth. */
static __device__ inline double binary_cross_entropy(const terms &t, const float *x,
                                                     int64_t channels, int set) {
  double total = 0;
  for (int64_t c = 0; c < channels; c++) {
    float s = t.hits(set, c) ? x[c] : -x[c];
    total += t.class_weight(c) * (double)((s < 0.0f ? -s : 0.0f) + log1pf(expf(-fabsf(s))));
  }
  return total;
}

static __device__ inline bool is_correct_set(const float *x, int64_t channels, int set) {
  int found = 0;
  for (int64_t c = 0; c < channels; c++) found |= (x[c] > 0) << c;
  return found == set;
}

/* −Σ_c a_c log p_c with the smoothed target a. */
static __device__ inline double voxel_cross_entropy(const terms &t, const float *x, float log_sum,
                                                    int64_t classes, int label) {
  double one = t.class_weight(label) * ((double)log_sum - (double)x[label]);
  if (t.label_smoothing == 0) return one;
  double all = 0;
  for (int64_t c = 0; c < classes; c++) all += t.class_weight(c) * ((double)log_sum - (double)x[c]);
  return (1 - t.label_smoothing) * one + t.label_smoothing / (double)classes * all;
}

/* Of a log-probability l: −(1 − p)^γ l, and the factor of the cross-entropy's gradient. */
static __device__ inline float focal_of(float log_p, float gamma, float *factor) {
  float cost = -(log_p > 0 ? 0.0f : log_p), p = expf(-cost), rest = -expm1f(-cost);
  float least = rest > 1e-37f ? rest : 1e-37f, power = powf(least, gamma);
  *factor = power * (1.0f + gamma * p * (rest > 1e-37f ? cost / least : 1.0f));
  return power * cost;
}

/* −(1 − q)^γ log q with q = σ(s), and its derivative by s. */
static __device__ inline float sigmoid_focal_of(float s, float gamma, float *slope) {
  float small = expf(-fabsf(s)), log_term = log1pf(small);
  float cost = (s < 0.0f ? -s : 0.0f) + log_term;
  float power = expf(-gamma * ((s > 0.0f ? s : 0.0f) + log_term));
  float far = 1.0f / (1.0f + small), near = small * far;
  float sigmoid = s < 0.0f ? near : far, rest = s < 0.0f ? far : near;
  *slope = -power * (gamma * sigmoid * cost + rest);
  return power * cost;
}

static __device__ inline double voxel_focal(const terms &t, const float *x, float log_sum,
                                            int64_t classes, int label) {
  float unused;
  if (!t.sigmoid) {
    double weight = t.focal_weight(label);
    return weight == 0 ? 0 : weight * (double)focal_of(x[label] - log_sum, t.gamma, &unused);
  }
  double total = 0;
  for (int64_t c = t.focal_background ? 0 : 1; c < classes; c++) {
    bool hit = t.hits(label, c);
    total += t.class_weight(c) * t.balance_of(hit) *
             (double)sigmoid_focal_of(hit ? x[c] : -x[c], t.gamma, &unused);
  }
  return total;
}

/* ---- forward ------------------------------------------------------------------------------------- */

static __global__ void chunk_sums(double *partials, const float *logits, const int32_t *target,
                                  extents e, terms t, struct fault *faults) {
  __shared__ float log_sums[CHUNK];
  int64_t first = (int64_t)blockIdx.x * CHUNK;
  int count = (int)(e.voxels - first < CHUNK ? e.voxels - first : CHUNK);
  int64_t start = blockIdx.y * e.voxels + first;
  const float *x = logits + start * e.classes;
  const int32_t *labels = target + start;
  double sums[SUM_FIXED] = {0, 0, 0, 0};
  for (int v = (int)threadIdx.x; v < count; v += (int)blockDim.x) {
    int best = 0, label = labels[v];
    const float *row = x + v * e.classes;
    float log_sum = log_sums[v] = t.sets ? 0.0f : log_sum_of(row, e.classes, &best);
    if (!t.counts(label, e.classes)) {
      if (!t.leaves_out(label))
        note_label(faults, label, e.classes, t.sets ? FAULT_REGIONS : FAULT_LABEL);
      continue;
    }
    sums[SUM_COUNTED] += 1;
    if (t.focal) {
      sums[SUM_VOXELS] += voxel_focal(t, row, log_sum, e.classes, label);
      sums[SUM_WEIGHT] += 1;
    } else if (t.cross_entropy && t.sets) {
      sums[SUM_VOXELS] += binary_cross_entropy(t, row, e.classes, label);
      sums[SUM_WEIGHT] += 1;
      sums[SUM_CORRECT] += is_correct_set(row, e.classes, label);
    } else if (t.cross_entropy) {
      sums[SUM_VOXELS] += voxel_cross_entropy(t, row, log_sum, e.classes, label);
      sums[SUM_WEIGHT] += t.class_weight(label);
      sums[SUM_CORRECT] += best == label;
    }
  }
  double *to =
      partials + ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * (SUM_FIXED + 3 * e.classes);
  for (int k = 0; k < SUM_FIXED; k++) {
    double total = block_sum(sums[k]);
    if (threadIdx.x == 0) to[k] = total;
  }
  if (!t.regions) return;
  __syncthreads();
  int lane = (int)(threadIdx.x % WARP), warps = (int)(blockDim.x / WARP);
  for (int64_t c = threadIdx.x / WARP; c < e.classes; c += warps) {
    double overlap = 0, volume = 0, actual = 0;
    for (int v = lane; v < count; v += WARP) {
      if (!t.counts(labels[v], e.classes)) continue;
      float p = t.probability(x[v * e.classes + c], log_sums[v]);
      bool hit = t.hits(labels[v], c);
      overlap += hit ? (double)p : 0;
      volume += t.squared ? (double)(p * p) : (double)p;
      actual += hit;
    }
    overlap = warp_sum(overlap);
    volume = warp_sum(volume);
    actual = warp_sum(actual);
    if (lane == 0) {
      to[SUM_FIXED + c] = overlap;
      to[SUM_FIXED + e.classes + c] = volume;
      to[SUM_FIXED + 2 * e.classes + c] = actual;
    }
  }
}

struct region {
  double overlap, predicted, actual, by_overlap, by_predicted;
};

/* ops/loss/segmentation.c derives these. */
static __device__ double dice_group(const terms &t, region *r, int64_t first, int64_t classes) {
  double loss = 0;
  for (int64_t c = first; c < classes; c++) {
    double denominator = r[c].predicted + r[c].actual + t.smooth_denominator;
    double ratio = (2 * r[c].overlap + t.smooth_numerator) / denominator;
    loss += 1 - ratio;
    r[c].by_overlap = -2 / denominator;
    r[c].by_predicted = ratio / denominator;
  }
  return loss / (double)(classes - first);
}

static __device__ double tversky_group(const terms &t, region *r, int64_t first, int64_t classes) {
  double loss = 0, kept = 1 - t.alpha - t.beta;
  for (int64_t c = first; c < classes; c++) {
    double denominator = kept * r[c].overlap + t.alpha * r[c].predicted + t.beta * r[c].actual +
                         t.smooth_denominator;
    double ratio = (r[c].overlap + t.smooth_numerator) / denominator;
    loss += 1 - ratio;
    r[c].by_overlap = (ratio * kept - 1) / denominator;
    r[c].by_predicted = ratio * t.alpha / denominator;
  }
  return loss / (double)(classes - first);
}

static __device__ double generalized_group(const terms &t, region *r, int64_t first,
                                           int64_t classes) {
  double heaviest = 0, numerator = t.smooth_numerator, denominator = t.smooth_denominator;
  for (int pass = 0; pass < 3; pass++)
    for (int64_t c = first; c < classes; c++) {
      double volume = r[c].actual;
      double weight = t.volume_weights == WEIGHT_SQUARE   ? 1 / (volume * volume)
                      : t.volume_weights == WEIGHT_SIMPLE ? 1 / volume
                                                          : 1;
      if (pass == 0) {
        if (volume > 0 && weight > heaviest) heaviest = weight;
        continue;
      }
      if (isinf(weight)) weight = heaviest;
      if (pass == 1) {
        numerator += 2 * weight * r[c].overlap;
        denominator += weight * (r[c].predicted + r[c].actual);
      } else {
        r[c].by_overlap = -2 * weight / denominator;
        r[c].by_predicted = weight * numerator / (denominator * denominator);
      }
    }
  return 1 - numerator / denominator;
}

struct losses {
  float *loss, *region, *voxels, *accuracy, *weight; /* each may be NULL */
};

/* Does a voxel of these chunks count? */
static __device__ bool is_annotated(const double *partials, int64_t stride, int64_t first,
                                    int64_t chunks) {
  for (int64_t i = first; i < first + chunks; i++)
    if (partials[i * stride + SUM_COUNTED] > 0) return true;
  return false;
}

/* One block. */
static __global__ void finish(const double *partials, extents e, terms t, float *slopes,
                              losses out) {
  __shared__ region r[MOST_CLASSES];
  __shared__ double fixed[SUM_FIXED];
  int64_t stride = SUM_FIXED + 3 * e.classes, tasks = e.samples * e.chunks;
  for (int k = 0; k < SUM_FIXED; k++) {
    double total = 0;
    for (int64_t i = threadIdx.x; i < tasks; i += blockDim.x) total += partials[i * stride + k];
    total = block_sum(total);
    if (threadIdx.x == 0) fixed[k] = total;
  }
  double region_loss = 0;
  int64_t first = t.include_background ? 0 : 1, groups = t.batch ? 1 : e.samples;
  int64_t of_group = t.batch ? tasks : e.chunks;
  int lane = (int)(threadIdx.x % WARP), warps = (int)(blockDim.x / WARP);
  /* Groups in which no voxel counts are no part of the mean. */
  int64_t annotated = 0;
  for (int64_t g = 0; t.regions && g < groups; g++)
    annotated += is_annotated(partials, stride, g * e.chunks, of_group);
  for (int64_t g = 0; t.regions && g < groups; g++) {
    bool counts = is_annotated(partials, stride, g * e.chunks, of_group);
    __syncthreads();
    for (int64_t c = threadIdx.x / WARP; c < e.classes; c += warps) {
      double sums[3] = {0, 0, 0};
      for (int64_t i = g * e.chunks + lane; i < g * e.chunks + of_group; i += WARP)
        for (int k = 0; k < 3; k++) sums[k] += partials[i * stride + SUM_FIXED + k * e.classes + c];
      for (int k = 0; k < 3; k++) sums[k] = warp_sum(sums[k]);
      if (lane == 0) r[c] = {sums[0], sums[1], sums[2], 0, 0};
    }
    __syncthreads();
    if (threadIdx.x == 0 && counts)
      region_loss += t.kind == TVERSKY       ? tversky_group(t, r, first, e.classes)
                     : t.kind == GENERALIZED ? generalized_group(t, r, first, e.classes)
                                             : dice_group(t, r, first, e.classes);
    __syncthreads();
    double share = counts ? 1.0 / (double)annotated : 0;
    if (t.kind != GENERALIZED) share /= (double)(e.classes - first);
    int64_t begin = t.batch ? 0 : g, end = t.batch ? e.samples : g + 1;
    for (int64_t i = begin * e.classes + threadIdx.x; i < end * e.classes; i += blockDim.x) {
      slopes[i * 2] = (float)(share * r[i % e.classes].by_overlap);
      slopes[i * 2 + 1] = (float)(share * r[i % e.classes].by_predicted);
    }
  }
  if (threadIdx.x != 0) return;
  if (annotated > 0) region_loss /= (double)annotated;
  double mean_over = fixed[SUM_WEIGHT] * t.of_voxel(e.classes);
  double voxel_loss = mean_over > 0 ? fixed[SUM_VOXELS] / mean_over : 0;
  if (out.loss)
    *out.loss = (float)((t.regions ? t.region_weight * region_loss : 0) +
                        (t.cross_entropy || t.focal ? t.voxel_weight * voxel_loss : 0));
  if (out.region) *out.region = (float)region_loss;
  if (out.voxels) *out.voxels = (float)voxel_loss;
  if (out.accuracy)
    *out.accuracy =
        fixed[SUM_COUNTED] > 0 ? (float)(fixed[SUM_CORRECT] / fixed[SUM_COUNTED]) : 0.0f;
  if (out.weight) *out.weight = (float)fixed[SUM_WEIGHT];
}

static size_t forward_scratch(const launch *l) {
  extents e = extents_of(l);
  return (size_t)(e.samples * e.chunks * (SUM_FIXED + 3 * e.classes)) * sizeof(double);
}

static status forward(const launch *l, const terms &t, float *slopes, losses results) {
  extents e = extents_of(l);
  double *partials = (double *)l->scratch;
  status error = LAUNCH(l, chunk_sums, dim3((unsigned)e.chunks, (unsigned)e.samples), THREADS, 0,
                        partials, in(l, IN_LOGITS), in<int32_t>(l, IN_TARGET), e, t, l->faults);
  if (error) return error;
  return LAUNCH(l, finish, 1, THREADS, 0, (const double *)partials, e, t, slopes, results);
}

/* ---- gradient --------------------------------------------------------------------------------------- */

struct gradient_f {
  float *dlogits;
  const float *logits, *slopes, *dy;
  const float *weight; /* NULL without a voxel term */
  const int32_t *target;
  extents e;
  terms t;

  /* One voxel. p_c is made anew from the logits wherever it is needed. */
  __device__ void operator()(int64_t v) const {
    int best = 0, label = target[v];
    int64_t classes = e.classes, sample = v / e.voxels;
    float *to = dlogits + v * classes;
    if (!t.counts(label, classes)) {
      for (int64_t c = 0; c < classes; c++) to[c] = 0;
      return;
    }
    const float *x = logits + v * classes;
    float log_sum = t.sets ? 0.0f : log_sum_of(x, classes, &best);
    double total = weight ? (double)*weight * t.of_voxel(classes) : 0;
    double scale = total > 0 ? (double)*dy * t.voxel_weight / total : 0;
    float region_scale = (float)((double)*dy * t.region_weight), dot = 0;
    const float *s = slopes + sample * classes * 2;
    if (t.regions && !t.sets)
      for (int64_t c = 0; c < classes; c++) {
        float p = expf(x[c] - log_sum);
        dot += p * region_slope(s, c, label, p, region_scale);
      }
    float factor = 0;
    if (t.focal && !t.sigmoid) {
      focal_of(x[label] - log_sum, t.gamma, &factor);
      factor *= (float)(scale * t.focal_weight(label));
    }
    double hit = 0, everywhere = 0, all = 0;
    if (t.cross_entropy && !t.sets) {
      everywhere = t.label_smoothing / (double)classes;
      hit = (1 - t.label_smoothing) * t.class_weight(label);
      double weights = 0;
      for (int64_t c = 0; everywhere > 0 && c < classes; c++) weights += t.class_weight(c);
      all = hit + everywhere * weights;
    }
    for (int64_t c = 0; c < classes; c++) {
      float p = t.probability(x[c], log_sum), g = 0;
      if (t.regions) {
        float slope = region_slope(s, c, label, p, region_scale);
        g = t.sets ? p * (1.0f - p) * slope : p * (slope - dot);
      }
      if (t.cross_entropy && t.sets) {
        g += (float)(scale * t.class_weight(c)) * (p - (t.hits(label, c) ? 1.0f : 0.0f));
      } else if (t.cross_entropy) {
        double a = everywhere * t.class_weight(c) + (c == label ? hit : 0);
        g += (float)(scale * ((double)p * all - a));
      }
      if (t.focal && !t.sigmoid) g += factor * (p - (c == label ? 1.0f : 0.0f));
      if (t.focal && t.sigmoid && c >= (t.focal_background ? 0 : 1)) {
        float slope;
        bool is_hit = t.hits(label, c);
        sigmoid_focal_of(is_hit ? x[c] : -x[c], t.gamma, &slope);
        float weighted = (float)(scale * t.class_weight(c) * t.balance_of(is_hit)) * slope;
        g += is_hit ? weighted : -weighted;
      }
      to[c] = g;
    }
  }

  __device__ float region_slope(const float *s, int64_t c, int label, float p, float scale) const {
    float slope = s[2 * c + 1] * scale;
    return (t.hits(label, c) ? s[2 * c] * scale : 0.0f) + (t.squared ? 2.0f * slope * p : slope);
  }
};

static status backward(const launch *l, const terms &t, const float *slopes, const float *weight,
                       const float *dy) {
  extents e = extents_of(l);
  return for_each_index(
      l, e.samples * e.voxels,
      gradient_f{out(l, 0), in(l, IN_LOGITS), slopes, dy, weight, in<int32_t>(l, IN_TARGET), e, t});
}

/* ---- the operators ----------------------------------------------------------------------------------- */

static terms terms_of_target(const launch *l) {
  terms t = {};
  t.sets = l->call->in[IN_TARGET].dtype == PLUGIN_REGIONS;
  return t;
}

static void read_class_weights(const launch *l, terms *t) {
  t->weight_count = l->host->length(l->call, "class_weights");
  for (int k = 0; k < t->weight_count; k++)
    t->class_weights[k] = (float)l->host->number_at(l->call, "class_weights", k);
}

static void read_region(const launch *l, terms *t) {
  t->regions = true;
  t->region_weight = always(1);
  t->include_background = flag(l, "include_background");
  t->batch = flag(l, "batch");
  t->smooth_numerator = number(l, "smooth_numerator");
  t->smooth_denominator = number(l, "smooth_denominator");
}

static terms cross_entropy_terms(const launch *l) {
  terms t = terms_of_target(l);
  t.cross_entropy = true;
  t.voxel_weight = always(1);
  read_class_weights(l, &t);
  t.ignores = true;
  t.ignore_index = (int)integer(l, "ignore_index");
  t.label_smoothing = number(l, "label_smoothing");
  return t;
}

CUDA_SCRATCH(cross_entropy) {
  return forward_scratch(l);
}
CUDA_OP(cross_entropy) {
  return forward(l, cross_entropy_terms(l), nullptr,
                 {out(l, 0), nullptr, nullptr, out(l, 1), out(l, 2)});
}
CUDA_OP(cross_entropy_backward) {
  return backward(l, cross_entropy_terms(l), nullptr, in(l, 2), in(l, 3));
}

static terms dice_terms(const launch *l) {
  terms t = terms_of_target(l);
  read_region(l, &t);
  t.squared = flag(l, "squared");
  return t;
}

CUDA_SCRATCH(dice) {
  return forward_scratch(l);
}
CUDA_OP(dice) {
  return forward(l, dice_terms(l), out(l, 1), {out(l, 0), nullptr, nullptr, nullptr, nullptr});
}
CUDA_OP(dice_backward) {
  return backward(l, dice_terms(l), in(l, 2), nullptr, in(l, 3));
}

CUDA_SCRATCH(tversky) {
  return forward_scratch(l);
}
CUDA_OP(tversky) {
  terms t = terms_of_target(l);
  read_region(l, &t);
  t.kind = TVERSKY;
  t.alpha = number(l, "alpha");
  t.beta = number(l, "beta");
  return forward(l, t, out(l, 1), {out(l, 0), nullptr, nullptr, nullptr, nullptr});
}

CUDA_SCRATCH(generalized_dice) {
  return forward_scratch(l);
}
CUDA_OP(generalized_dice) {
  terms t = terms_of_target(l);
  read_region(l, &t);
  t.kind = GENERALIZED;
  t.volume_weights = (int)integer(l, "weights");
  return forward(l, t, out(l, 1), {out(l, 0), nullptr, nullptr, nullptr, nullptr});
}

static terms dice_ce_terms(const launch *l) {
  terms t = dice_terms(l);
  t.cross_entropy = true;
  t.region_weight = scheduled(l, "dice_weight");
  t.voxel_weight = scheduled(l, "ce_weight");
  return t;
}

CUDA_SCRATCH(dice_ce) {
  return forward_scratch(l);
}
CUDA_OP(dice_ce) {
  return forward(l, dice_ce_terms(l), out(l, 3),
                 {out(l, 0), out(l, 1), out(l, 2), nullptr, out(l, 4)});
}
CUDA_OP(dice_ce_backward) {
  return backward(l, dice_ce_terms(l), in(l, 2), in(l, 3), in(l, 4));
}

static void read_focal(const launch *l, terms *t) {
  t->focal = true;
  t->voxel_weight = always(1);
  read_class_weights(l, t);
  t->gamma = number_f(l, "gamma");
  t->balance = number(l, "alpha");
  t->sigmoid = flag(l, "sigmoid");
  t->focal_background = flag(l, "include_background");
}

static terms focal_terms(const launch *l) {
  terms t = terms_of_target(l);
  read_focal(l, &t);
  return t;
}

CUDA_SCRATCH(focal) {
  return forward_scratch(l);
}
CUDA_OP(focal) {
  return forward(l, focal_terms(l), nullptr, {out(l, 0), nullptr, nullptr, nullptr, out(l, 1)});
}
CUDA_OP(focal_backward) {
  return backward(l, focal_terms(l), nullptr, in(l, 2), in(l, 3));
}

static terms dice_focal_terms(const launch *l) {
  terms t = dice_terms(l);
  read_focal(l, &t);
  t.region_weight = scheduled(l, "dice_weight");
  t.voxel_weight = scheduled(l, "focal_weight");
  return t;
}

CUDA_SCRATCH(dice_focal) {
  return forward_scratch(l);
}
CUDA_OP(dice_focal) {
  return forward(l, dice_focal_terms(l), out(l, 3),
                 {out(l, 0), out(l, 1), out(l, 2), nullptr, out(l, 4)});
}
CUDA_OP(dice_focal_backward) {
  return backward(l, dice_focal_terms(l), in(l, 2), in(l, 3), in(l, 4));
}

} // namespace segmentation_kernels
