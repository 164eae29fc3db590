/* Many weights over few voxels, at the bottom of a network. What an output voxel reads becomes a row of
 * channels × taps, the order in which the weights lie, so that the three passes are those of a pointwise layer
 * (convolution_matrix.c, of pairs convolution_taps.c): weights are neither turned nor transformed, which would take longer than the products,
 * and each is read for many voxels at a time. The data gradient has such rows for a result; they are added to
 * the voxels they belong to. */
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/convolution_parts.h"

enum { ROW_TASKS = 32 };

typedef struct patches {
  const conv_shape *s;
  int64_t taps, rows, width; /* of a row */
  int64_t tasks;
  const float *x, *bias;
  float *dx;
  float *row;            /* all rows */
  float *turned, *zeros; /* a row for each task, taps × channels; one voxel */
  void *workspace;       /* of the products */
} patches;

static int64_t rows_of(const conv_shape *s) {
  return s->batch * volume(s->out);
}

static patches patches_of(const conv_shape *s) {
  patches p = {.s = s, .taps = volume(s->kernel), .rows = rows_of(s)};
  p.width = p.taps * s->channels;
  p.tasks = smaller(p.rows, ROW_TASKS);
  return p;
}

/* The products of rows and weights. */
static conv_shape pointwise_of(const conv_shape *s) {
  conv_shape q = *s;
  q.channels *= volume(s->kernel);
  for (int a = 0; a < 3; a++) {
    q.image[a] = s->out[a];
    q.kernel[a] = q.stride[a] = q.dilation[a] = 1;
    q.padding[a] = 0;
  }
  return q;
}

/* Pairs are multiplied by tiles alone. */
static const conv_method *product_method(const conv_shape *q) {
  return conv_pairs(q) ? &conv_taps : &conv_matrix;
}

static size_t patches_pieces(patches *p, void *workspace) {
  pieces w = {workspace, 0};
  p->row = piece(&w, p->rows * p->width);
  p->turned = piece(&w, p->tasks * p->width);
  p->zeros = piece(&w, p->s->channels);
  p->workspace = workspace ? (char *)workspace + w.used : NULL;
  return w.used;
}

/* The tap's place along an axis, of an output voxel there. */
static int64_t place_of(const conv_shape *s, int a, int64_t out, int64_t tap) {
  return out * s->stride[a] + tap * s->dilation[a] - s->padding[a];
}

static void gather_row(const patches *p, int64_t row, float *turned) {
  const conv_shape *s = p->s;
  int64_t z = row % s->out[2], y = row / s->out[2] % s->out[1];
  int64_t x = row / s->out[2] / s->out[1] % s->out[0], n = row / volume(s->out);
  float *to = turned;
  for (int64_t i = 0; i < s->kernel[0]; i++)
    for (int64_t j = 0; j < s->kernel[1]; j++)
      for (int64_t k = 0; k < s->kernel[2]; k++, to += s->channels) {
        int64_t at[3] = {place_of(s, 0, x, i), place_of(s, 1, y, j), place_of(s, 2, z, k)};
        bool inside = true;
        for (int a = 0; a < 3; a++) inside &= at[a] >= 0 && at[a] < s->image[a];
        int64_t voxel = ((n * s->image[0] + at[0]) * s->image[1] + at[1]) * s->image[2] + at[2];
        memcpy(to, inside ? p->x + voxel * s->channels : p->zeros,
               (size_t)s->channels * sizeof(float));
      }
  gemm_transpose(p->row + row * p->width, p->taps, turned, s->channels, p->taps, s->channels);
}

static void gather_task(void *context, int64_t task) {
  const patches *p = context;
  int64_t end = gemm_tile_begin(p->rows, p->tasks, task + 1);
  for (int64_t row = gemm_tile_begin(p->rows, p->tasks, task); row < end; row++)
    gather_row(p, row, p->turned + task * p->width);
}

static void gather(patches *p, const float *x, thread_pool *pool) {
  p->x = x;
  memset(p->zeros, 0, (size_t)p->s->channels * sizeof(float));
  parallel_for(pool, p->tasks, gather_task, p);
}

/* Rows become taps × channels. */
static void turn_task(void *context, int64_t task) {
  const patches *p = context;
  float *turned = p->turned + task * p->width;
  int64_t end = gemm_tile_begin(p->rows, p->tasks, task + 1);
  for (int64_t r = gemm_tile_begin(p->rows, p->tasks, task); r < end; r++) {
    float *row = p->row + r * p->width;
    gemm_transpose(turned, p->s->channels, row, p->taps, p->s->channels, p->taps);
    memcpy(row, turned, (size_t)p->width * sizeof(float));
  }
}

FOR_EACH_ISA static void add_voxel(float *restrict sum, const float *restrict terms,
                                   int64_t channels) {
  for (int64_t c = 0; c < channels; c++) sum[c] += terms[c];
}

/* The output voxel whose tap reads this place along an axis, or −1. */
static int64_t reader_of(const conv_shape *s, int a, int64_t place, int64_t tap) {
  int64_t from = place + s->padding[a] - tap * s->dilation[a];
  if (from < 0 || from % s->stride[a] != 0 || from / s->stride[a] >= s->out[a]) return -1;
  return from / s->stride[a];
}

/* A voxel of dx: the parts of all rows that read it, tap by tap. */
static void scatter_task(void *context, int64_t voxel) {
  const patches *p = context;
  const conv_shape *s = p->s;
  int64_t z = voxel % s->image[2], y = voxel / s->image[2] % s->image[1];
  int64_t x = voxel / s->image[2] / s->image[1] % s->image[0], n = voxel / volume(s->image);
  float *sum = p->dx + voxel * s->channels;
  memcpy(sum, p->bias ? p->bias : p->zeros, (size_t)s->channels * sizeof(float));
  int64_t tap = 0;
  for (int64_t i = 0; i < s->kernel[0]; i++)
    for (int64_t j = 0; j < s->kernel[1]; j++)
      for (int64_t k = 0; k < s->kernel[2]; k++, tap++) {
        int64_t at[3] = {reader_of(s, 0, x, i), reader_of(s, 1, y, j), reader_of(s, 2, z, k)};
        if (at[0] < 0 || at[1] < 0 || at[2] < 0) continue;
        int64_t row = ((n * s->out[0] + at[0]) * s->out[1] + at[1]) * s->out[2] + at[2];
        add_voxel(sum, p->row + row * p->width + tap * s->channels, s->channels);
      }
}

static void scatter(patches *p, const float *bias, float *dx, thread_pool *pool) {
  p->bias = bias;
  p->dx = dx;
  memset(p->zeros, 0, (size_t)p->s->channels * sizeof(float));
  parallel_for(pool, p->tasks, turn_task, p);
  parallel_for(pool, p->s->batch * volume(p->s->image), scatter_task, p);
}

/* The rows are no more than the weights. Filters that step as far as they reach read every voxel once, for which
 * no rows are needed. */
static bool patches_fits(const conv_shape *s) {
  bool overlap = false;
  for (int a = 0; a < 3; a++) overlap |= s->kernel[a] > s->stride[a];
  conv_shape q = pointwise_of(s);
  q.bf16 = false; /* of the matrix, what it asks of extents */
  return s->groups == 1 && overlap && rows_of(s) <= smaller(s->channels, s->features) &&
         conv_matrix.fits(&q) && conv_matrix.fits_weight(&q);
}

static size_t patches_workspace(const conv_shape *s, bool transposed) {
  patches p = patches_of(s);
  conv_shape q = pointwise_of(s);
  return patches_pieces(&p, NULL) + product_method(&q)->workspace(&q, transposed);
}

static void patches_run(const conv_shape *s, bool transposed, const float *input,
                        const float *weight, const float *bias, float *output, float *moments,
                        void *workspace, thread_pool *pool) {
  patches p = patches_of(s);
  conv_shape q = pointwise_of(s);
  patches_pieces(&p, workspace);
  if (transposed) {
    product_method(&q)->run(&q, true, input, weight, NULL, p.row, NULL, p.workspace, pool);
    scatter(&p, bias, output, pool);
  } else {
    gather(&p, input, pool);
    product_method(&q)->run(&q, false, p.row, weight, bias, output, moments, p.workspace, pool);
  }
}

static size_t patches_packed_bytes(const conv_shape *s, bool transposed) {
  conv_shape q = pointwise_of(s);
  return product_method(&q)->packed_bytes(&q, transposed);
}

static void patches_pack(const conv_shape *s, bool transposed, const float *weight, float *to,
                         thread_pool *pool) {
  conv_shape q = pointwise_of(s);
  product_method(&q)->pack(&q, transposed, weight, to, pool);
}

static size_t patches_weight_workspace(const conv_shape *s) {
  patches p = patches_of(s);
  conv_shape q = pointwise_of(s);
  return patches_pieces(&p, NULL) + product_method(&q)->weight_workspace(&q);
}

static void patches_weight_run(const conv_shape *s, const float *x, const float *dy, float *dweight,
                               float *dbias, void *workspace, thread_pool *pool) {
  patches p = patches_of(s);
  conv_shape q = pointwise_of(s);
  patches_pieces(&p, workspace);
  gather(&p, x, pool);
  product_method(&q)->weight_run(&q, p.row, dy, dweight, dbias, p.workspace, pool);
}

const conv_method conv_patches = {.fits = patches_fits,
                                  .workspace = patches_workspace,
                                  .run = patches_run,
                                  .packed_bytes = patches_packed_bytes,
                                  .pack = patches_pack,
                                  .makes_moments = true,
                                  .fits_weight = patches_fits,
                                  .weight_workspace = patches_weight_workspace,
                                  .weight_run = patches_weight_run};
