#include "ops/norm/channel_norm.h"

#include <math.h>

typedef struct backward_attrs {
  double slope;
  bool residual;    /* the gradient of the residual is wanted */
  int64_t channels; /* with common statistics */
  bool fixed;
} backward_attrs;

static const attr backward_attr_list[] = {
    {"slope", ATTR_FLOAT, offsetof(backward_attrs, slope), "1", 0, 1, NULL, 0,
     "factor of negative results"},
    {"residual", ATTR_BOOL, offsetof(backward_attrs, residual), "false", 0, 0, NULL, 0,
     "compute the gradient of the residual"},
    {"channels", ATTR_INT, offsetof(backward_attrs, channels), "1", 1, 1e9, NULL, 0,
     "neighbouring channels with common statistics"},
    {"fixed", ATTR_BOOL, offsetof(backward_attrs, fixed), "false", 0, 0, NULL, 0,
     "the statistics do not depend on x"},
    {0},
};

enum { BACK_X, BACK_Y, BACK_MEAN, BACK_RSTD, BACK_WEIGHT, BACK_DY };
enum { BACK_DX, BACK_DRESIDUAL, BACK_DWEIGHT, BACK_DBIAS };

/* ---- rules ----------------------------------------------------------------------------------- */

status channel_norm_infer(infer *rule, int least_rank) {
  const tensor *x = &rule->in[NORM_X], *residual = &rule->in[NORM_RESIDUAL];
  char have[96], want[96];
  if (x->shape.rank < least_rank)
    return shape_error("needs samples, space and channels (N X Y Z C), but x is %s",
                       shape_format(have, &x->shape));
  for (int i = NORM_WEIGHT; i <= NORM_BIAS; i++) {
    const shape *s = &rule->in[i].shape;
    if (s->rank >= 0 && (s->rank != 1 || s->dim[0] != last_extent(x)))
      return shape_error("%s must have one element for each of the %lld channels, but is %s",
                         i == NORM_WEIGHT ? "weight" : "bias", (long long)last_extent(x),
                         shape_format(have, s));
  }
  if (residual->shape.rank >= 0 && !shape_equal(&residual->shape, &x->shape))
    return shape_error("the residual must have the shape of x, %s, but is %s",
                       shape_format(want, &x->shape), shape_format(have, &residual->shape));
  rule->out[0].shape = x->shape;
  return OK;
}

status channel_norm_check_moments(const infer *rule, int input) {
  const shape *x = &rule->in[NORM_X].shape, expected = SHAPE(x->dim[0], 2, x->dim[x->rank - 1]);
  char have[96], want[96];
  if (shape_equal(&rule->in[input].shape, &expected)) return OK;
  return shape_error("the moments must be %s, but are %s", shape_format(want, &expected),
                     shape_format(have, &rule->in[input].shape));
}

status channel_norm_params(const void *attributes, const tensor *in, int in_count,
                           param_spec *out) {
  (void)in_count;
  const channel_norm_attrs *attrs = attributes;
  norm_init(attrs->affine, attrs->init_weight, last_extent(&in[0]), out);
  return OK;
}

cost channel_norm_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)out;
  double elements = (double)shape_elements(&in[NORM_X].shape);
  bool residual = in_count > NORM_RESIDUAL && in[NORM_RESIDUAL].shape.rank >= 0;
  return (cost){.flops = 10 * elements, .bytes = 4 * elements * (residual ? 4 : 3)};
}

cost channel_norm_of_moments_cost(const void *attrs, const tensor *in, int in_count,
                                  const tensor *out) {
  cost c = channel_norm_cost(attrs, in, in_count, out);
  c.bytes -= 4 * (double)shape_elements(&in[NORM_X].shape);
  return c;
}

status channel_norm_grad(grad *rule, value_id mean, value_id rstd, int64_t channels, bool fixed) {
  const channel_norm_attrs *attrs = rule->attrs;
  bool residual = rule->wanted[NORM_RESIDUAL], active = attrs->slope != 1.0;
  backward_attrs back = {
      .slope = attrs->slope, .residual = residual && active, .channels = channels, .fixed = fixed};
  value_id in[] = {
      rule->in[NORM_X], active ? rule->out[0] : VALUE_NONE, mean, rstd, rule->in[NORM_WEIGHT],
      rule->dy[0]};
  value_id out[4];
  TRY(build_node(rule->b, "channel_norm_backward", &back, in, 6, out));
  rule->dx[NORM_X] = out[BACK_DX];
  rule->dx[NORM_WEIGHT] = out[BACK_DWEIGHT];
  rule->dx[NORM_BIAS] = out[BACK_DBIAS];
  rule->dx[NORM_RESIDUAL] = active ? out[BACK_DRESIDUAL] : rule->dy[0];
  return OK;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Per task: mean and Σ(x − mean)² of every channel; backward, Σ g and Σ g·x̂. */
size_t channel_norm_partials(const channel_cut *cut) {
  return (size_t)(cut_tasks(cut) * 2 * cut->channels);
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
  const channel_norm *n = context;
  const channel_cut *l = &n->cut;
  channel_task t = cut_task(l, task);
  const float *x = (const float *)n->call->in[NORM_X].data + t.start;
  float *partial = n->partials + task * 2 * l->channels;
  for (int64_t first = 0; first < l->channels; first += TILE_MAX) {
    int64_t tile = tile_at(l, first);
    chunk_statistics(partial + first, partial + l->channels + first, x + first,
                     rows_of(l, t.voxels, tile), tile, t.voxels);
  }
}

typedef struct moments {
  double mean, squares; /* Σ(x − mean)² */
} moments;

/* Chan's combination of the chunks' moments over some neighbouring channels, in index order. */
static moments combine_chunks(const channel_cut *l, const float *partials, int64_t together,
                              int64_t sample, int64_t first) {
  moments all = {0};
  partials += sample * l->chunks * 2 * l->channels;
  for (int64_t c = first; c < first + together; c++)
    for (int64_t k = 0; k < l->chunks; k++)
      all.mean += (double)partials[k * 2 * l->channels + c] *
                  (double)piece_of(l->voxels, l->chunk_voxels, k).count;
  all.mean /= (double)(l->voxels * together);
  for (int64_t c = first; c < first + together; c++)
    for (int64_t k = 0; k < l->chunks; k++) {
      const float *partial = partials + k * 2 * l->channels + c;
      double offset = (double)partial[0] - all.mean;
      all.squares += (double)partial[l->channels] +
                     offset * offset * (double)piece_of(l->voxels, l->chunk_voxels, k).count;
    }
  return all;
}

void channel_norm_statistics(const channel_norm *n, float *mean, float *rstd, float *variance) {
  channel_cut chunks = n->cut;
  const channel_cut *l = &chunks;
  if (n->moments) { /* those of a sample are a chunk's */
    chunks.chunks = n->call->in[NORM_X].shape.dim[0] / l->samples;
    chunks.chunk_voxels = l->voxels / chunks.chunks;
  } else {
    parallel_for(n->call->pool, cut_tasks(l), statistics_task, (void *)n);
  }
  const float *partials = n->moments ? n->moments : n->partials;
  double count = (double)(l->voxels * n->together);
  for (int64_t sample = 0; sample < l->samples; sample++)
    for (int64_t first = 0; first < l->channels; first += n->together) {
      moments m = combine_chunks(l, partials, n->together, sample, first);
      for (int64_t c = first; c < first + n->together; c++) {
        mean[sample * l->channels + c] = (float)m.mean;
        rstd[sample * l->channels + c] = (float)(1.0 / sqrt(m.squares / count + n->eps));
        if (variance) variance[sample * l->channels + c] = (float)(m.squares / (count - 1));
      }
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
  const channel_norm *n = context;
  const call *c = n->call;
  const channel_cut *l = &n->cut;
  channel_task t = cut_task(l, task);
  for (int64_t first = 0; first < l->channels; first += TILE_MAX) {
    int64_t tile = tile_at(l, first), at = t.start + first;
    apply_rows((float *)c->out[0].data + at, (const float *)c->in[NORM_X].data + at,
               channel_at(&c->in[NORM_RESIDUAL], at), rows_of(l, t.voxels, tile),
               n->mean + t.sample * l->channels + first, n->rstd + t.sample * l->channels + first,
               channel_at(&c->in[NORM_WEIGHT], first), channel_at(&c->in[NORM_BIAS], first),
               n->slope, tile);
  }
}

void channel_norm_apply(const channel_norm *n) {
  parallel_for(n->call->pool, cut_tasks(&n->cut), apply_task, (void *)n);
}

enum { OUT_Y, OUT_MEAN, OUT_RSTD };

size_t channel_norm_sample_workspace(const void *attrs, const tensor *in, int in_count,
                                     const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  channel_cut cut = cut_channels(&in[NORM_X], in[NORM_X].shape.dim[0]);
  return channel_norm_partials(&cut) * sizeof(float);
}

status channel_norm_sample_cpu(const call *c, int64_t together, const float *moments) {
  const channel_norm_attrs *attrs = c->attrs;
  float *mean = c->out[OUT_MEAN].data, *rstd = c->out[OUT_RSTD].data;
  channel_norm n = {.call = c,
                    .cut = cut_channels(&c->in[NORM_X], c->in[NORM_X].shape.dim[0]),
                    .together = together,
                    .eps = attrs->eps,
                    .slope = (float)attrs->slope,
                    .mean = mean,
                    .rstd = rstd,
                    .partials = c->workspace,
                    .moments = moments};
  channel_norm_statistics(&n, mean, rstd, NULL);
  channel_norm_apply(&n);
  return OK;
}

/* ---- gradient --------------------------------------------------------------------------------
 * With g = dy · (1 or slope, by the sign of y), over the M elements that are normalized together:
 *     dresidual = g    dbias = Σ g    dweight = Σ g·x̂    (over samples and voxels of a channel)
 *     dx = rstd · (weight·g − Σ(weight·g)/M − x̂ · Σ(weight·g·x̂)/M)
 * Fixed statistics leave only the first term. Per channel this is a line through x:
 *     dx = weight·rstd · g − shift − (x − mean) · tilt */

static channel_cut backward_cut(const tensor *in) {
  return cut_channels(&in[BACK_X], shape_elements(&in[BACK_MEAN].shape) / last_extent(&in[BACK_X]));
}

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

/* The partial sums, then per sample and channel: shift and tilt. */
static size_t backward_workspace(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out, int threads) {
  (void)attrs, (void)in_count, (void)out, (void)threads;
  channel_cut l = backward_cut(in);
  return (channel_norm_partials(&l) + (size_t)(l.samples * 2 * l.channels)) * sizeof(float);
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
    int64_t width = i < r.count ? r.width : r.tail, ahead = ROWS_AHEAD * r.stride;
    ask_for(xi + ahead, width);
    ask_for(dyi + ahead, width);
    if (y) {
      const float *yi = y + i * r.stride;
      ask_for(yi + ahead, width);
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
  channel_cut l = backward_cut(c->in);
  channel_task t = cut_task(&l, task);
  float *partial = (float *)c->workspace + task * 2 * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = t.start + first;
    int64_t channel = t.sample * l.channels + first;
    chunk_sums(partial + first, partial + l.channels + first, channel_at(&c->in[BACK_X], at),
               channel_at(&c->in[BACK_Y], at), channel_at(&c->in[BACK_DY], at),
               rows_of(&l, t.voxels, tile), channel_at(&c->in[BACK_MEAN], channel),
               channel_at(&c->in[BACK_RSTD], channel), (float)attrs->slope, tile);
  }
}

/* Σ g and Σ g·x̂ over the chunks of a sample, left in the first chunk's place. */
static void combine_sums(const channel_cut *l, float *partials) {
  for (int64_t n = 0; n < l->samples; n++)
    for (int64_t i = 0; i < 2 * l->channels; i++) {
      float *first = partials + n * l->chunks * 2 * l->channels + i;
      double total = 0;
      for (int64_t k = 0; k < l->chunks; k++) total += (double)first[k * 2 * l->channels];
      *first = (float)total;
    }
}

static void affine_gradients(const call *c, const channel_cut *l) {
  const float *partials = c->workspace;
  float *dweight = c->out[BACK_DWEIGHT].data, *dbias = c->out[BACK_DBIAS].data;
  dweight[0] = dbias[0] = 0;
  if (!c->in[BACK_WEIGHT].data) return;
  for (int64_t channel = 0; channel < l->channels; channel++) {
    double sum = 0, dot = 0;
    for (int64_t n = 0; n < l->samples; n++) {
      const float *total = partials + n * l->chunks * 2 * l->channels + channel;
      sum += (double)total[0];
      dot += (double)total[l->channels];
    }
    dbias[channel] = (float)sum;
    dweight[channel] = (float)dot;
  }
}

/* shift = rstd · Σ(weight·g)/M and tilt = rstd² · Σ(weight·g·x̂)/M of every sample and channel. */
static void find_lines(const call *c, const channel_cut *l) {
  const backward_attrs *attrs = c->attrs;
  const float *rstd = c->in[BACK_RSTD].data, *weight = c->in[BACK_WEIGHT].data;
  float *lines = (float *)c->workspace + channel_norm_partials(l);
  double share = attrs->fixed ? 0 : 1 / (double)(l->voxels * attrs->channels);
  for (int64_t n = 0; n < l->samples; n++, lines += 2 * l->channels, rstd += l->channels)
    for (int64_t first = 0; first < l->channels; first += attrs->channels) {
      const float *total = (const float *)c->workspace + n * l->chunks * 2 * l->channels;
      double sum = 0, dot = 0;
      for (int64_t k = first; k < first + attrs->channels; k++) {
        double factor = weight ? (double)weight[k] : 1;
        sum += factor * (double)total[k];
        dot += factor * (double)total[l->channels + k];
      }
      for (int64_t k = first; k < first + attrs->channels; k++) {
        double scale = (double)rstd[k];
        lines[k] = (float)(scale * sum * share);
        lines[l->channels + k] = (float)(scale * scale * dot * share);
      }
    }
}

FOR_EACH_ISA static void backward_rows(float *restrict dx, float *restrict dresidual,
                                       const float *restrict x, const float *restrict y,
                                       const float *restrict dy, rows r, const float *mean,
                                       const float *rstd, const float *weight, const float *shift,
                                       const float *tilt, float slope, int64_t tile) {
  float factor[TILE_MAX], centres[TILE_MAX], factors[TILE_MAX];
  float shifts[TILE_MAX], tilts[TILE_MAX];
  for (int64_t c = 0; c < tile; c++) factor[c] = weight ? rstd[c] * weight[c] : rstd[c];
  spread(centres, mean, tile, r.width);
  spread(factors, factor, tile, r.width);
  spread(shifts, shift, tile, r.width);
  spread(tilts, tilt, tile, r.width);
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride, *dyi = dy + i * r.stride;
    float *dxi = dx + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail, ahead = ROWS_AHEAD * r.stride;
    ask_for(xi + ahead, width);
    ask_for(dyi + ahead, width);
    ask_for(dxi + ahead, width);
    if (!y) {
      for (int64_t j = 0; j < width; j++)
        dxi[j] = factors[j] * dyi[j] - shifts[j] - (xi[j] - centres[j]) * tilts[j];
      continue;
    }
    const float *yi = y + i * r.stride;
    ask_for(yi + ahead, width);
    if (dresidual) {
      float *dri = dresidual + i * r.stride;
      ask_for(dri + ahead, width);
      for (int64_t j = 0; j < width; j++) {
        float g = yi[j] > 0.0f ? dyi[j] : slope * dyi[j];
        dri[j] = g;
        dxi[j] = factors[j] * g - shifts[j] - (xi[j] - centres[j]) * tilts[j];
      }
    } else {
      for (int64_t j = 0; j < width; j++) {
        float g = yi[j] > 0.0f ? dyi[j] : slope * dyi[j];
        dxi[j] = factors[j] * g - shifts[j] - (xi[j] - centres[j]) * tilts[j];
      }
    }
  }
}

/* From the end on, where the sums have left the cache full of what they read last. */
static void backward_task(void *context, int64_t task) {
  const call *c = context;
  const backward_attrs *attrs = c->attrs;
  channel_cut l = backward_cut(c->in);
  channel_task t = cut_task(&l, cut_tasks(&l) - 1 - task);
  const float *lines =
      (const float *)c->workspace + channel_norm_partials(&l) + t.sample * 2 * l.channels;
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = t.start + first;
    int64_t channel = t.sample * l.channels + first;
    backward_rows((float *)c->out[BACK_DX].data + at,
                  attrs->residual ? (float *)c->out[BACK_DRESIDUAL].data + at : NULL,
                  channel_at(&c->in[BACK_X], at), channel_at(&c->in[BACK_Y], at),
                  channel_at(&c->in[BACK_DY], at), rows_of(&l, t.voxels, tile),
                  channel_at(&c->in[BACK_MEAN], channel), channel_at(&c->in[BACK_RSTD], channel),
                  channel_at(&c->in[BACK_WEIGHT], first), lines + first, lines + l.channels + first,
                  (float)attrs->slope, tile);
  }
}

static status channel_norm_backward_cpu(const call *c) {
  const backward_attrs *attrs = c->attrs;
  channel_cut l = backward_cut(c->in);
  parallel_for(c->pool, cut_tasks(&l), sums_task, (void *)c);
  combine_sums(&l, c->workspace);
  affine_gradients(c, &l);
  find_lines(c, &l);
  if (!attrs->residual) *(float *)c->out[BACK_DRESIDUAL].data = 0;
  parallel_for(c->pool, cut_tasks(&l), backward_task, (void *)c);
  return OK;
}

const op op_channel_norm_backward = {
    .name = "channel_norm_backward",
    .family = "norm",
    .summary = "Gradients of instance_norm, group_norm and batch_norm.",
    .version = 1,
    .traits = OP_INTERNAL,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, 0, "input of the norm"},
                             {"y", "N X Y Z C", DTYPE_F32, PORT_OPTIONAL | PORT_SIGN,
                              "its result; absent without activation"},
                             {"mean", "N C or C", DTYPE_F32, 0, "the mean it used"},
                             {"rstd", "N C or C", DTYPE_F32, 0, "its 1 / √(variance + eps)"},
                             {"weight", "C", DTYPE_F32, PORT_OPTIONAL, "scale"},
                             {"dy", "N X Y Z C", DTYPE_F32, 0, "gradient of the result"},
                             {0}},
    .outputs = (const port[]){{"dx", "N X Y Z C", DTYPE_F32, PORT_STORABLE, "gradient of x"},
                              {"dresidual", "N X Y Z C", DTYPE_F32, PORT_STORABLE,
                               "gradient of the residual"},
                              {"dweight", "C", DTYPE_F32, 0, "gradient of weight"},
                              {"dbias", "C", DTYPE_F32, 0, "gradient of bias"},
                              {0}},
    .attrs = backward_attr_list,
    .attrs_bytes = sizeof(backward_attrs),
    .infer = backward_infer,
    .cost = backward_cost,
    .workspace_bytes = backward_workspace,
    .cpu = channel_norm_backward_cpu,
};
