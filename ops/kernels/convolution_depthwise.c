/* Depthwise convolution: every channel has a filter of its own, so there is no matrix product, and
 * the vectors run over channels, which lie side by side. A result's sum stays in registers while
 * the taps pass. Three passes: forward, data gradient (the same walk, reading the other way) and
 * weight gradient. */
#include "ops/kernels/convolution_parts.h"

#include "ops/arithmetic/vector_math.h"

enum { MOST_LINES = 64, SLABS = 32 };

static bool depthwise_fits(const conv_shape *s) {
  return s->groups > 1 && s->channels == s->groups && s->features == s->groups;
}

typedef struct depthwise {
  const conv_shape *s;
  bool transposed;         /* data gradient */
  const int64_t *in, *out; /* extents of what is read and of what is made */
  const float *input, *bias;
  float *output;
  float *weight;                /* [tap][channel] */
  gemm_taps *taps;              /* for each z of the result: what it reads along z */
  int64_t voxel_step, tap_step; /* along z, from one of these taps to the next */
} depthwise;

/* The position along an axis that tap `tap` reads for the result at `at`; −1: none. */
static int64_t read_at(const depthwise *p, int a, int64_t at, int64_t tap) {
  const conv_shape *s = p->s;
  int64_t i = p->transposed ? at + s->padding[a] - tap * s->dilation[a]
                            : at * s->stride[a] + tap * s->dilation[a] - s->padding[a];
  if (p->transposed) {
    if (i < 0 || i % s->stride[a]) return -1;
    i /= s->stride[a];
  }
  return i >= 0 && i < p->in[a] ? i : -1;
}

/* The taps that read inside the image lie at even distances, in the filter and in the image. */
static void plan_z(depthwise *p) {
  const conv_shape *s = p->s;
  int64_t stride = s->stride[2], dilation = s->dilation[2], common = stride, rest = dilation;
  while (rest) {
    int64_t next = common % rest;
    common = rest;
    rest = next;
  }
  p->tap_step = p->transposed ? stride / common : 1;
  p->voxel_step = p->transposed ? -dilation / common : dilation;
  for (int64_t z = 0; z < p->out[2]; z++) {
    gemm_taps taps = {0};
    for (int64_t k = 0; k < s->kernel[2]; k++) {
      int64_t from = read_at(p, 2, z, k);
      if (from < 0) continue;
      if (taps.count++ == 0) taps = (gemm_taps){(int32_t)from, (int32_t)k, 1};
    }
    p->taps[z] = taps;
  }
}

/* Rows of the input along z that a row of the result reads, and their weights. */
typedef struct lines {
  const float *input[MOST_LINES], *weight[MOST_LINES];
  int count;
} lines;

static void make_row(const depthwise *p, const lines *l, bool accumulate, float *y) {
  gemm_best()->depthwise(&(gemm_depthwise){.x = l->input,
                                           .w = l->weight,
                                           .lines = l->count,
                                           .taps = p->taps,
                                           .results = p->out[2],
                                           .channels = p->s->channels,
                                           .voxel_step = p->voxel_step,
                                           .tap_step = p->tap_step,
                                           .accumulate = accumulate,
                                           .bias = p->bias,
                                           .y = y});
}

/* A task is one row of the result along z. */
static void row_task(void *context, int64_t task) {
  const depthwise *p = context;
  const int64_t *kernel = p->s->kernel, channels = p->s->channels;
  int64_t y = task % p->out[1], x = task / p->out[1] % p->out[0], n = task / p->out[1] / p->out[0];
  float *row = p->output + task * p->out[2] * channels;
  lines l = {0};
  bool accumulate = false;
  for (int64_t i = 0; i < kernel[0]; i++)
    for (int64_t j = 0; j < kernel[1]; j++) {
      int64_t from_x = read_at(p, 0, x, i), from_y = read_at(p, 1, y, j);
      if (from_x < 0 || from_y < 0) continue;
      if (l.count == MOST_LINES) {
        make_row(p, &l, accumulate, row);
        accumulate = true;
        l.count = 0;
      }
      l.input[l.count] =
          p->input + ((n * p->in[0] + from_x) * p->in[1] + from_y) * p->in[2] * channels;
      l.weight[l.count++] = p->weight + (i * kernel[1] + j) * kernel[2] * channels;
    }
  make_row(p, &l, accumulate, row);
}

static size_t depthwise_pieces(depthwise *p, void *workspace) {
  pieces w = {workspace, 0};
  p->weight = piece(&w, volume(p->s->kernel) * p->s->channels);
  p->taps = (gemm_taps *)piece(&w, p->out[2] * (int64_t)(sizeof *p->taps / sizeof(float)));
  return w.used;
}

static depthwise depthwise_of(const conv_shape *s, bool transposed) {
  return (depthwise){.s = s,
                     .transposed = transposed,
                     .in = transposed ? s->out : s->image,
                     .out = transposed ? s->image : s->out};
}

static size_t depthwise_workspace(const conv_shape *s, bool transposed) {
  depthwise p = depthwise_of(s, transposed);
  return depthwise_pieces(&p, NULL);
}

static void depthwise_run(const conv_shape *s, bool transposed, const float *input,
                          const float *weight, const float *bias, float *output, float *moments,
                          void *workspace, thread_pool *pool) {
  (void)moments;
  depthwise p = depthwise_of(s, transposed);
  depthwise_pieces(&p, workspace);
  p.input = input;
  p.bias = bias;
  p.output = output;
  int64_t taps = volume(s->kernel);
  for (int64_t c = 0; c < s->channels; c++)
    for (int64_t k = 0; k < taps; k++) p.weight[k * s->channels + c] = weight[c * taps + k];
  plan_z(&p);
  parallel_for(pool, s->batch * p.out[0] * p.out[1], row_task, &p);
}

/* ---- weight gradient ---------------------------------------------------------------------------
 *
 * The rows of dy are cut into slabs, whose sums are added in order. */

typedef struct weight_sum {
  const conv_shape *s;
  const float *x, *dy;
  float *dbias;
  float *partial, *partial_bias; /* [slab][tap][channel], [slab][channel] */
  float *ones;
  int64_t slabs;
} weight_sum;

/* The results along an axis whose tap `tap` reads inside the image. */
static void valid_results(const conv_shape *s, int a, int64_t tap, int64_t *first, int64_t *end) {
  int64_t shift = tap * s->dilation[a] - s->padding[a];
  *first = larger(0, -floor_div(shift, s->stride[a]));
  *end = smaller(s->out[a], floor_div(s->image[a] - 1 - shift, s->stride[a]) + 1);
}

static void weight_slab_task(void *context, int64_t slab) {
  const weight_sum *p = context;
  const conv_shape *s = p->s;
  int64_t channels = s->channels, rows = s->batch * s->out[0] * s->out[1];
  float *sums = p->partial + slab * volume(s->kernel) * channels;
  float *bias = p->partial_bias + slab * channels;
  memset(sums, 0, (size_t)(volume(s->kernel) * channels) * sizeof *sums);
  memset(bias, 0, (size_t)channels * sizeof *bias);
  for (int64_t r = rows * slab / p->slabs; r < rows * (slab + 1) / p->slabs; r++) {
    int64_t y = r % s->out[1], x = r / s->out[1] % s->out[0], n = r / s->out[1] / s->out[0];
    const float *dy = p->dy + r * s->out[2] * channels;
    if (p->dbias) conv_sum_voxels(bias, p->ones, dy, s->out[2], channels);
    float *sum = sums;
    for (int64_t i = 0; i < s->kernel[0]; i++)
      for (int64_t j = 0; j < s->kernel[1]; j++)
        for (int64_t k = 0; k < s->kernel[2]; k++, sum += channels) {
          int64_t from[2] = {x * s->stride[0] + i * s->dilation[0] - s->padding[0],
                             y * s->stride[1] + j * s->dilation[1] - s->padding[1]};
          if (from[0] < 0 || from[0] >= s->image[0] || from[1] < 0 || from[1] >= s->image[1])
            continue;
          int64_t first, end;
          valid_results(s, 2, k, &first, &end);
          if (first >= end) continue;
          int64_t z = first * s->stride[2] + k * s->dilation[2] - s->padding[2];
          const float *image =
              p->x +
              (((n * s->image[0] + from[0]) * s->image[1] + from[1]) * s->image[2] + z) * channels;
          gemm_best()->depthwise_sum(sum, image, s->stride[2] * channels, dy + first * channels,
                                     end - first, channels);
        }
  }
}

static weight_sum weight_sum_of(const conv_shape *s) {
  return (weight_sum){.s = s, .slabs = smaller(SLABS, s->batch * s->out[0] * s->out[1])};
}

static size_t weight_sum_pieces(weight_sum *p, void *workspace) {
  pieces w = {workspace, 0};
  p->partial = piece(&w, p->slabs * volume(p->s->kernel) * p->s->channels);
  p->partial_bias = piece(&w, p->slabs * p->s->channels);
  p->ones = conv_ones(&w, p->s->channels);
  return w.used;
}

static size_t depthwise_weight_workspace(const conv_shape *s) {
  weight_sum p = weight_sum_of(s);
  return weight_sum_pieces(&p, NULL);
}

static void depthwise_weight_run(const conv_shape *s, const float *x, const float *dy,
                                 float *dweight, float *dbias, void *workspace, thread_pool *pool) {
  weight_sum p = weight_sum_of(s);
  weight_sum_pieces(&p, workspace);
  p.x = x;
  p.dy = dy;
  p.dbias = dbias;
  parallel_for(pool, p.slabs, weight_slab_task, &p);
  int64_t taps = volume(s->kernel), channels = s->channels;
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t k = 0; k < taps; k++) {
      float sum = 0;
      for (int64_t slab = 0; slab < p.slabs; slab++)
        sum += p.partial[(slab * taps + k) * channels + c];
      dweight[c * taps + k] = sum;
    }
    float sum = 0;
    for (int64_t slab = 0; slab < p.slabs && dbias; slab++)
      sum += p.partial_bias[slab * channels + c];
    if (dbias) dbias[c] = sum;
  }
}

/* Tasks are as many as rows, too many to leave moments. */
const conv_method conv_depthwise = {.fits = depthwise_fits,
                                    .workspace = depthwise_workspace,
                                    .run = depthwise_run,
                                    .fits_weight = depthwise_fits,
                                    .weight_workspace = depthwise_weight_workspace,
                                    .weight_run = depthwise_weight_run};
