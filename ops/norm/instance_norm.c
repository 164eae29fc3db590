/* instance_norm: each channel of each sample to mean 0 and variance 1 over its voxels (Ulyanov et
 * al., arXiv 1607.08022), then optionally a learned scale and shift, a residual, and a leaky ReLU:
 *
 *     out = leaky(x̂ · weight + bias + residual),  x̂ = (x − mean) / √(variance + eps)
 *
 * The compiler's fusion pass turns norm, add and activation into this one operator, which reads x
 * twice and the residual once and writes the result once.
 *
 * Voxels are rows of C channels, and C may be 1. So that vectors are always full, the kernels work
 * on rows of `period` floats, a whole number of voxels, with the per-channel numbers repeated to
 * that length; position j of a row belongs to channel j mod C. */
#include "ops/arithmetic/chunks.h"
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/weight_init.h"

#include "graph/graph.h"

#include <math.h>

typedef struct instance_norm_attrs {
  double eps;
  bool affine;
  double init_weight;
  double slope;
} instance_norm_attrs;

static const attr instance_norm_attr_list[] = {
    {"eps", ATTR_FLOAT, offsetof(instance_norm_attrs, eps), "1e-5", 0, 1, NULL, 0,
     "added to the variance"},
    {"affine", ATTR_BOOL, offsetof(instance_norm_attrs, affine), "false", 0, 0, NULL, 0,
     "learn a scale and a shift per channel"},
    NORM_INIT_ATTR(instance_norm_attrs, init_weight),
    {"slope", ATTR_FLOAT, offsetof(instance_norm_attrs, slope), "1", 0, 1, NULL, 0,
     "factor of negative results: 1 is no activation, 0 a ReLU, 0.01 the usual leaky ReLU"},
    {0},
};

typedef struct backward_attrs {
  double slope;
  bool residual; /* the gradient of the residual is wanted */
} backward_attrs;

static const attr backward_attr_list[] = {
    {"slope", ATTR_FLOAT, offsetof(backward_attrs, slope), "1", 0, 1, NULL, 0,
     "factor of negative results"},
    {"residual", ATTR_BOOL, offsetof(backward_attrs, residual), "false", 0, 0, NULL, 0,
     "compute the gradient of the residual"},
    {0},
};

enum { IN_X, IN_WEIGHT, IN_BIAS, IN_RESIDUAL };
enum { OUT_Y, OUT_MEAN, OUT_RSTD };
enum { BACK_X, BACK_Y, BACK_MEAN, BACK_RSTD, BACK_WEIGHT, BACK_DY };
enum { BACK_DX, BACK_DRESIDUAL, BACK_DWEIGHT, BACK_DBIAS };

/* ---- the cut of the work --------------------------------------------------------------------- */

enum {
  STATISTICS_ELEMENTS = 8192, /* 32 KiB: read from memory once, a second time from the cache */
  PERIOD_MIN = 128,
  TILE_MAX = 256 /* channels, and so elements of a row, handled at a time */
};

typedef struct layout {
  int64_t samples, voxels, channels;
  int64_t repeat;       /* voxels of a row of `period` floats */
  int64_t chunk_voxels; /* voxels of a task, a multiple of `repeat` */
  int64_t chunks;       /* tasks of a sample */
} layout;

static layout layout_of(const tensor *x) {
  layout l = {.samples = x->shape.dim[0], .channels = last_extent(x)};
  l.voxels = shape_elements(&x->shape) / l.samples / l.channels;
  l.repeat = l.channels < PERIOD_MIN ? divide_up(PERIOD_MIN, l.channels) : 1;
  l.chunk_voxels = divide_up(divide_up(STATISTICS_ELEMENTS, l.channels), l.repeat) * l.repeat;
  l.chunks = divide_up(l.voxels, l.chunk_voxels);
  return l;
}

/* A block of memory seen as rows: the channels `first` … `first + tile − 1` of some voxels. Where
 * one tile holds every channel, rows are contiguous and the block is `elements` long; else a row is
 * one voxel's tile. */
typedef struct rows {
  int64_t count, stride; /* full rows and the distance between them */
  int64_t width;         /* floats of a row */
  int64_t tail;          /* floats of a last, shorter row */
} rows;

static rows rows_of(const layout *l, int64_t voxels, int64_t tile) {
  if (tile < l->channels) return (rows){voxels, l->channels, tile, 0};
  int64_t width = l->repeat * l->channels;
  return (rows){voxels / l->repeat, width, width, voxels % l->repeat * l->channels};
}

static int64_t tile_at(const layout *l, int64_t first) {
  int64_t left = l->channels - first;
  return left < TILE_MAX ? left : TILE_MAX;
}

/* Repeats `tile` per-channel numbers over a row. */
VECTOR_INLINE void spread(float *restrict row, const float *restrict channel, int64_t tile,
                          int64_t width) {
  for (int64_t j = 0; j < width; j += tile)
    for (int64_t c = 0; c < tile; c++) row[j + c] = channel[c];
}

/* The other way: adds up the places of a row that belong to each channel. */
VECTOR_INLINE void gather(float *restrict channel, const float *restrict row, int64_t tile,
                          int64_t width) {
  for (int64_t c = 0; c < tile; c++) {
    double total = 0;
    for (int64_t j = c; j < width; j += tile) total += (double)row[j];
    channel[c] = (float)total;
  }
}

/* ---- forward --------------------------------------------------------------------------------- */

static shape sample_channels(const tensor *x) {
  return SHAPE(x->shape.dim[0], last_extent(x));
}

static status instance_norm_infer(infer *rule) {
  const tensor *x = &rule->in[IN_X], *residual = &rule->in[IN_RESIDUAL];
  char have[96], want[96];
  if (x->shape.rank < 3)
    return shape_error("needs samples, space and channels (N X Y Z C), but x is %s",
                       shape_format(have, &x->shape));
  for (int i = IN_WEIGHT; i <= IN_BIAS; i++) {
    const shape *s = &rule->in[i].shape;
    if (s->rank >= 0 && (s->rank != 1 || s->dim[0] != last_extent(x)))
      return shape_error("%s must have one element for each of the %lld channels, but is %s",
                         i == IN_WEIGHT ? "weight" : "bias", (long long)last_extent(x),
                         shape_format(have, s));
  }
  if (residual->shape.rank >= 0 && !shape_equal(&residual->shape, &x->shape))
    return shape_error("the residual must have the shape of x, %s, but is %s",
                       shape_format(want, &x->shape), shape_format(have, &residual->shape));
  if (layout_of(x).voxels < 2)
    return shape_error("x is %s: one voxel per channel has no variance; use a larger image or "
                       "fewer down-samplings",
                       shape_format(have, &x->shape));
  rule->out[OUT_Y].shape = x->shape;
  rule->out[OUT_MEAN].shape = rule->out[OUT_RSTD].shape = sample_channels(x);
  return OK;
}

static status instance_norm_params(const void *attributes, const tensor *in, int in_count,
                                   param_spec *out) {
  (void)in_count;
  const instance_norm_attrs *attrs = attributes;
  norm_init(attrs->affine, attrs->init_weight, last_extent(&in[0]), out);
  return OK;
}

static status instance_norm_grad(grad *rule) {
  const instance_norm_attrs *attrs = rule->attrs;
  bool residual = rule->wanted[IN_RESIDUAL], active = attrs->slope != 1.0;
  backward_attrs back = {.slope = attrs->slope, .residual = residual && active};
  value_id in[] = {rule->in[IN_X],      active ? rule->out[OUT_Y] : VALUE_NONE,
                   rule->out[OUT_MEAN], rule->out[OUT_RSTD],
                   rule->in[IN_WEIGHT], rule->dy[OUT_Y]};
  value_id out[4];
  TRY(build_node(rule->b, "instance_norm_backward", &back, in, 6, out));
  rule->dx[IN_X] = out[BACK_DX];
  rule->dx[IN_WEIGHT] = out[BACK_DWEIGHT];
  rule->dx[IN_BIAS] = out[BACK_DBIAS];
  rule->dx[IN_RESIDUAL] = active ? out[BACK_DRESIDUAL] : rule->dy[OUT_Y];
  return OK;
}

static cost instance_norm_cost(const void *attrs, const tensor *in, int in_count,
                               const tensor *out) {
  (void)attrs, (void)out;
  double elements = (double)shape_elements(&in[IN_X].shape);
  bool residual = in_count > IN_RESIDUAL && in[IN_RESIDUAL].shape.rank >= 0;
  return (cost){.flops = 10 * elements, .bytes = 4 * elements * (residual ? 4 : 3)};
}

/* Per sample and chunk: mean and Σ(x − mean)² of every channel. */
static size_t partial_floats(const layout *l) {
  return (size_t)(l->samples * l->chunks * 2 * l->channels);
}

static size_t instance_norm_workspace(const void *attrs, const tensor *in, int in_count,
                                      const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  layout l = layout_of(&in[IN_X]);
  return partial_floats(&l) * sizeof(float);
}

FOR_EACH_ISA static void chunk_statistics(float *restrict mean, float *restrict squares,
                                          const float *restrict x, rows r, int64_t tile,
                                          int64_t voxels) {
  float sums[TILE_MAX] = {0}, centre[TILE_MAX];
  for (int64_t i = 0; i < r.count; i++)
    for (int64_t j = 0; j < r.width; j++) sums[j] += x[i * r.stride + j];
  for (int64_t j = 0; j < r.tail; j++) sums[j] += x[r.count * r.stride + j];
  gather(mean, sums, tile, r.width);
  for (int64_t c = 0; c < tile; c++) mean[c] /= (float)voxels;
  spread(centre, mean, tile, r.width);
  for (int64_t j = 0; j < r.width; j++) sums[j] = 0;
  for (int64_t i = 0; i < r.count; i++)
    for (int64_t j = 0; j < r.width; j++) {
      float d = x[i * r.stride + j] - centre[j];
      sums[j] += d * d;
    }
  for (int64_t j = 0; j < r.tail; j++) {
    float d = x[r.count * r.stride + j] - centre[j];
    sums[j] += d * d;
  }
  gather(squares, sums, tile, r.width);
}

static void statistics_task(void *context, int64_t task) {
  const call *c = context;
  layout l = layout_of(&c->in[IN_X]);
  span part = piece_of(l.voxels, l.chunk_voxels, task % l.chunks);
  const float *x =
      (const float *)c->in[IN_X].data + (task / l.chunks * l.voxels + part.first) * l.channels;
  float *partial = (float *)c->workspace + task * 2 * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first);
    chunk_statistics(partial + first, partial + l.channels + first, x + first,
                     rows_of(&l, part.count, tile), tile, part.count);
  }
}

/* Chan's combination of the chunks' moments, in index order. */
static void combine_statistics(const call *c, const layout *l, int64_t sample) {
  const instance_norm_attrs *attrs = c->attrs;
  const float *partials = (const float *)c->workspace + sample * l->chunks * 2 * l->channels;
  float *means = (float *)c->out[OUT_MEAN].data + sample * l->channels;
  float *rstds = (float *)c->out[OUT_RSTD].data + sample * l->channels;
  for (int64_t channel = 0; channel < l->channels; channel++) {
    double mean = 0, squares = 0;
    for (int64_t k = 0; k < l->chunks; k++)
      mean += (double)partials[k * 2 * l->channels + channel] *
              (double)piece_of(l->voxels, l->chunk_voxels, k).count;
    mean /= (double)l->voxels;
    for (int64_t k = 0; k < l->chunks; k++) {
      const float *partial = partials + k * 2 * l->channels + channel;
      double offset = (double)partial[0] - mean;
      squares += (double)partial[l->channels] +
                 offset * offset * (double)piece_of(l->voxels, l->chunk_voxels, k).count;
    }
    means[channel] = (float)mean;
    rstds[channel] = (float)(1.0 / sqrt(squares / (double)l->voxels + attrs->eps));
  }
}

/* x and y may be the same memory. */
VECTOR_INLINE void apply_row(float *y, const float *x, const float *residual,
                             const float *restrict mean, const float *restrict factor,
                             const float *restrict offset, float slope, int64_t width) {
  if (residual) {
    ELEMENTWISE
    for (int64_t j = 0; j < width; j++) {
      float v = (x[j] - mean[j]) * factor[j] + offset[j] + residual[j];
      y[j] = v > 0.0f ? v : slope * v;
    }
  } else {
    ELEMENTWISE
    for (int64_t j = 0; j < width; j++) {
      float v = (x[j] - mean[j]) * factor[j] + offset[j];
      y[j] = v > 0.0f ? v : slope * v;
    }
  }
}

FOR_EACH_ISA static void apply_rows(float *y, const float *x, const float *residual, rows r,
                                    const float *mean, const float *rstd, const float *weight,
                                    const float *bias, float slope, int64_t tile) {
  float factor[TILE_MAX], centres[TILE_MAX], factors[TILE_MAX], offsets[TILE_MAX] = {0};
  for (int64_t c = 0; c < tile; c++) factor[c] = weight ? rstd[c] * weight[c] : rstd[c];
  spread(centres, mean, tile, r.width);
  spread(factors, factor, tile, r.width);
  if (bias) spread(offsets, bias, tile, r.width);
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++)
    apply_row(y + i * r.stride, x + i * r.stride, residual ? residual + i * r.stride : NULL,
              centres, factors, offsets, slope, i < r.count ? r.width : r.tail);
}

static const float *channel_at(const tensor *t, int64_t first) {
  return t->data ? (const float *)t->data + first : NULL;
}

static void apply_task(void *context, int64_t task) {
  const call *c = context;
  const instance_norm_attrs *attrs = c->attrs;
  layout l = layout_of(&c->in[IN_X]);
  int64_t sample = task / l.chunks;
  span part = piece_of(l.voxels, l.chunk_voxels, task % l.chunks);
  int64_t start = (sample * l.voxels + part.first) * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = start + first;
    apply_rows((float *)c->out[OUT_Y].data + at, (const float *)c->in[IN_X].data + at,
               channel_at(&c->in[IN_RESIDUAL], at), rows_of(&l, part.count, tile),
               channel_at(&c->out[OUT_MEAN], sample * l.channels + first),
               channel_at(&c->out[OUT_RSTD], sample * l.channels + first),
               channel_at(&c->in[IN_WEIGHT], first), channel_at(&c->in[IN_BIAS], first),
               (float)attrs->slope, tile);
  }
}

static status instance_norm_cpu(const call *c) {
  layout l = layout_of(&c->in[IN_X]);
  parallel_for(c->pool, l.samples * l.chunks, statistics_task, (void *)c);
  for (int64_t n = 0; n < l.samples; n++) combine_statistics(c, &l, n);
  parallel_for(c->pool, l.samples * l.chunks, apply_task, (void *)c);
  return OK;
}

/* ---- gradient --------------------------------------------------------------------------------
 * With g = dy · (1 or slope, by the sign of y), over the V voxels of a channel:
 *     dresidual = g    dbias = Σ g    dweight = Σ g·x̂
 *     dx = weight · rstd · (g − Σg/V − x̂ · Σ(g·x̂)/V) */

static status backward_infer(infer *rule) {
  const backward_attrs *attrs = rule->attrs;
  rule->out[BACK_DX].shape = rule->in[BACK_X].shape;
  /* Gradients that are not wanted are scalars that nobody reads. */
  if (attrs->residual) rule->out[BACK_DRESIDUAL].shape = rule->in[BACK_X].shape;
  if (rule->in[BACK_WEIGHT].shape.rank >= 0)
    rule->out[BACK_DWEIGHT].shape = rule->out[BACK_DBIAS].shape = rule->in[BACK_WEIGHT].shape;
  return OK;
}

static cost backward_cost(const void *attributes, const tensor *in, int in_count,
                          const tensor *out) {
  (void)in_count, (void)out;
  const backward_attrs *attrs = attributes;
  double elements = (double)shape_elements(&in[BACK_X].shape);
  int passes = 5 + (in[BACK_Y].shape.rank >= 0 ? 2 : 0) + attrs->residual;
  return (cost){.flops = 16 * elements, .bytes = 4 * elements * passes};
}

static size_t backward_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  layout l = layout_of(&in[BACK_X]);
  return (partial_floats(&l) + (size_t)(l.samples * 2 * l.channels)) * sizeof(float);
}

/* Σ g and Σ g·x̂ of every channel. `y` NULL: no activation. */
FOR_EACH_ISA static void chunk_sums(float *restrict sum, float *restrict dot,
                                    const float *restrict x, const float *restrict y,
                                    const float *restrict dy, rows r, const float *mean,
                                    const float *rstd, float slope, int64_t tile) {
  float centres[TILE_MAX], factors[TILE_MAX], sums[TILE_MAX] = {0}, dots[TILE_MAX] = {0};
  spread(centres, mean, tile, r.width);
  spread(factors, rstd, tile, r.width);
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride, *dyi = dy + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail;
    if (y) {
      const float *yi = y + i * r.stride;
      for (int64_t j = 0; j < width; j++) {
        float g = yi[j] > 0.0f ? dyi[j] : slope * dyi[j];
        sums[j] += g;
        dots[j] += g * ((xi[j] - centres[j]) * factors[j]);
      }
    } else {
      for (int64_t j = 0; j < width; j++) {
        sums[j] += dyi[j];
        dots[j] += dyi[j] * ((xi[j] - centres[j]) * factors[j]);
      }
    }
  }
  gather(sum, sums, tile, r.width);
  gather(dot, dots, tile, r.width);
}

static void sums_task(void *context, int64_t task) {
  const call *c = context;
  const backward_attrs *attrs = c->attrs;
  layout l = layout_of(&c->in[BACK_X]);
  int64_t sample = task / l.chunks;
  span part = piece_of(l.voxels, l.chunk_voxels, task % l.chunks);
  int64_t start = (sample * l.voxels + part.first) * l.channels;
  float *partial = (float *)c->workspace + task * 2 * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = start + first;
    chunk_sums(
        partial + first, partial + l.channels + first, channel_at(&c->in[BACK_X], at),
        channel_at(&c->in[BACK_Y], at), channel_at(&c->in[BACK_DY], at),
        rows_of(&l, part.count, tile), channel_at(&c->in[BACK_MEAN], sample * l.channels + first),
        channel_at(&c->in[BACK_RSTD], sample * l.channels + first), (float)attrs->slope, tile);
  }
}

/* Adds the chunks' sums; leaves their means over the sample in the workspace for the second pass.
 */
static void combine_sums(const call *c, const layout *l) {
  const float *partials = c->workspace;
  float *means = (float *)c->workspace + partial_floats(l);
  float *dweight = c->out[BACK_DWEIGHT].data, *dbias = c->out[BACK_DBIAS].data;
  bool affine = c->in[BACK_WEIGHT].data != NULL;
  dweight[0] = dbias[0] = 0;
  for (int64_t channel = 0; channel < l->channels; channel++) {
    double all_sums = 0, all_dots = 0;
    for (int64_t n = 0; n < l->samples; n++) {
      double sum = 0, dot = 0;
      for (int64_t k = 0; k < l->chunks; k++) {
        const float *partial = partials + (n * l->chunks + k) * 2 * l->channels + channel;
        sum += (double)partial[0];
        dot += (double)partial[l->channels];
      }
      means[n * 2 * l->channels + channel] = (float)(sum / (double)l->voxels);
      means[(n * 2 + 1) * l->channels + channel] = (float)(dot / (double)l->voxels);
      all_sums += sum;
      all_dots += dot;
    }
    if (affine) {
      dbias[channel] = (float)all_sums;
      dweight[channel] = (float)all_dots;
    }
  }
}

FOR_EACH_ISA static void backward_rows(float *restrict dx, float *restrict dresidual,
                                       const float *restrict x, const float *restrict y,
                                       const float *restrict dy, rows r, const float *mean,
                                       const float *rstd, const float *weight, const float *sum,
                                       const float *dot, float slope, int64_t tile) {
  float factor[TILE_MAX], centres[TILE_MAX], scales[TILE_MAX], factors[TILE_MAX];
  float sums[TILE_MAX], dots[TILE_MAX];
  for (int64_t c = 0; c < tile; c++) factor[c] = weight ? rstd[c] * weight[c] : rstd[c];
  spread(centres, mean, tile, r.width);
  spread(scales, rstd, tile, r.width);
  spread(factors, factor, tile, r.width);
  spread(sums, sum, tile, r.width);
  spread(dots, dot, tile, r.width);
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride, *dyi = dy + i * r.stride;
    float *dxi = dx + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail;
    if (!y) {
      for (int64_t j = 0; j < width; j++)
        dxi[j] = factors[j] * (dyi[j] - sums[j] - (xi[j] - centres[j]) * scales[j] * dots[j]);
      continue;
    }
    const float *yi = y + i * r.stride;
    if (dresidual) {
      float *dri = dresidual + i * r.stride;
      for (int64_t j = 0; j < width; j++) {
        float g = yi[j] > 0.0f ? dyi[j] : slope * dyi[j];
        dri[j] = g;
        dxi[j] = factors[j] * (g - sums[j] - (xi[j] - centres[j]) * scales[j] * dots[j]);
      }
    } else {
      for (int64_t j = 0; j < width; j++) {
        float g = yi[j] > 0.0f ? dyi[j] : slope * dyi[j];
        dxi[j] = factors[j] * (g - sums[j] - (xi[j] - centres[j]) * scales[j] * dots[j]);
      }
    }
  }
}

static void backward_task(void *context, int64_t task) {
  const call *c = context;
  const backward_attrs *attrs = c->attrs;
  layout l = layout_of(&c->in[BACK_X]);
  int64_t sample = task / l.chunks;
  span part = piece_of(l.voxels, l.chunk_voxels, task % l.chunks);
  int64_t start = (sample * l.voxels + part.first) * l.channels;
  const float *means = (const float *)c->workspace + partial_floats(&l) + sample * 2 * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = start + first;
    backward_rows((float *)c->out[BACK_DX].data + at,
                  attrs->residual ? (float *)c->out[BACK_DRESIDUAL].data + at : NULL,
                  channel_at(&c->in[BACK_X], at), channel_at(&c->in[BACK_Y], at),
                  channel_at(&c->in[BACK_DY], at), rows_of(&l, part.count, tile),
                  channel_at(&c->in[BACK_MEAN], sample * l.channels + first),
                  channel_at(&c->in[BACK_RSTD], sample * l.channels + first),
                  channel_at(&c->in[BACK_WEIGHT], first), means + first, means + l.channels + first,
                  (float)attrs->slope, tile);
  }
}

static status instance_norm_backward_cpu(const call *c) {
  const backward_attrs *attrs = c->attrs;
  layout l = layout_of(&c->in[BACK_X]);
  parallel_for(c->pool, l.samples * l.chunks, sums_task, (void *)c);
  combine_sums(c, &l);
  if (!attrs->residual) *(float *)c->out[BACK_DRESIDUAL].data = 0;
  parallel_for(c->pool, l.samples * l.chunks, backward_task, (void *)c);
  return OK;
}

const op op_instance_norm = {
    .name = "instance_norm",
    .family = "norm",
    .summary = "Normalizes each channel of each sample over its voxels; residual and activation "
               "included.",
    .doc = "out = leaky(x̂ · weight + bias + residual) with x̂ = (x − mean) / √(variance + eps), "
           "mean and (biased) variance over the voxels of one channel of one sample (Ulyanov et "
           "al., arXiv 1607.08022), and leaky(v) = v where v > 0, slope · v elsewhere. There are "
           "no running statistics. Written as three operators (instance_norm, add, leaky_relu) a "
           "residual block's end compiles to this one.",
    .torch = "torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(x, weight=weight, "
             "bias=bias, eps=eps) + residual, slope)",
    .version = 1,
    .traits = OP_IN_PLACE,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "feature map"},
                             {"weight", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "scale"},
                             {"bias", "C", DTYPE_F32, PORT_PARAM | PORT_OPTIONAL, "shift"},
                             {"residual", "N X Y Z C", DTYPE_F32, PORT_OPTIONAL,
                              "added before the activation"},
                             {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, 0, "normalized feature map"},
                              {"mean", "N C", DTYPE_F32, PORT_SAVED, "mean of each channel"},
                              {"rstd", "N C", DTYPE_F32, PORT_SAVED, "1 / √(variance + eps)"},
                              {0}},
    .attrs = instance_norm_attr_list,
    .attrs_bytes = sizeof(instance_norm_attrs),
    .infer = instance_norm_infer,
    .params = instance_norm_params,
    .grad = instance_norm_grad,
    .cost = instance_norm_cost,
    .workspace_bytes = instance_norm_workspace,
    .cpu = instance_norm_cpu,
    /* The slope stays near 1 here: across the corner differences measure neither side. */
    .cases = (const op_case[]){{"{}", "[1..2, 2..5, 2..5, 2..5, 1..9]; -", 0},
                               {"{affine: true}", "[2, 3, 4, 5, 16|20]; -", 0},
                               {"{}", "[1, 3, 2, 2, 260]; -", 0},
                               {"{affine: true, slope: 0.95}", "[2, 3, 4, 3, 1|3]; -", 0.02},
                               {"{affine: true, slope: 0.95}",
                                "[n=1..2, x=2..5, y=2..5, 4, 6]; [n, x, y, 4, 6]", 0.02},
                               {0}},
};

const op op_instance_norm_backward = {
    .name = "instance_norm_backward",
    .family = "norm",
    .summary = "Gradients of instance_norm.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "input of instance_norm"},
                             {"y", "N X Y Z C", DTYPE_F32, PORT_OPTIONAL,
                              "its result; absent without activation"},
                             {"mean", "N C", DTYPE_F32, 0, "saved mean"},
                             {"rstd", "N C", DTYPE_F32, 0, "saved 1 / √(variance + eps)"},
                             {"weight", "C", DTYPE_F32, PORT_OPTIONAL, "scale"},
                             {"dy", "N X Y Z C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, 0, "gradient of x"},
                              {"dresidual", "N X Y Z C", DTYPE_F32, 0, "gradient of the residual"},
                              {"dweight", "C", DTYPE_F32, 0, "gradient of weight"},
                              {"dbias", "C", DTYPE_F32, 0, "gradient of bias"},
                              {0}},
    .attrs = backward_attr_list,
    .attrs_bytes = sizeof(backward_attrs),
    .infer = backward_infer,
    .cost = backward_cost,
    .workspace_bytes = backward_workspace,
    .cpu = instance_norm_backward_cpu,
};
