#include "ops/method/fill.h"

#include "ops/arithmetic/chunks.h"
#include "ops/method/channel_sums.h"

#include "base/text.h"

#include <string.h>

const char *const fill_choices[] = {"zero", "mean", "noise", NULL};

typedef struct job {
  const call *c;
  const fill_attrs *fill;
  const tensor *image, *mask, *out;
  float *means; /* N C */
  float *sums;  /* N X C: of each plane */
} job;

size_t fill_workspace(const fill_attrs *fill, const shape *image) {
  if (fill->kind != FILL_MEAN) return 0;
  return (size_t)(image->dim[0] * (1 + image->dim[1]) * image->dim[4]) * sizeof(float);
}

static void sum_task(void *context, int64_t task) {
  const job *j = context;
  const int64_t *dim = j->image->shape.dim;
  int64_t voxels = dim[2] * dim[3];
  float *sums = j->sums + task * dim[4];
  memset(sums, 0, (size_t)dim[4] * sizeof *sums);
  add_run(sums, (const float *)j->image->data + task * voxels * dim[4], voxels, dim[4]);
}

static void find_means(const job *j) {
  const int64_t *dim = j->image->shape.dim;
  parallel_for(j->c->pool, dim[0] * dim[1], sum_task, (void *)j);
  for (int64_t n = 0; n < dim[0]; n++)
    for (int64_t c = 0; c < dim[4]; c++) {
      double total = 0;
      for (int64_t x = 0; x < dim[1]; x++) total += (double)j->sums[(n * dim[1] + x) * dim[4] + c];
      j->means[n * dim[4] + c] = (float)(total / (double)(dim[1] * dim[2] * dim[3]));
    }
}

static void fill_run(const job *j, float *to, int64_t count, int64_t n, rng *stream) {
  switch (j->fill->kind) {
  case FILL_ZERO:
    memset(to, 0, (size_t)count * sizeof *to);
    break;
  case FILL_MEAN: {
    int64_t channels = j->image->shape.dim[4];
    for (int64_t i = 0; i < count; i++) to[i] = j->means[n * channels + i % channels];
    break;
  }
  case FILL_NOISE: {
    float low = (float)j->fill->noise[0], width = (float)j->fill->noise[1] - low;
    for (int64_t i = 0; i < count; i++) to[i] = low + width * rng_uniform(stream);
    break;
  }
  }
}

/* One (n, x) plane, in runs that are hidden or visible as a whole. */
static void fill_task(void *context, int64_t task) {
  const job *j = context;
  const int64_t *dim = j->image->shape.dim, *grid = j->mask->shape.dim;
  int64_t n = task / dim[1], x = task % dim[1] / (dim[1] / grid[1]);
  int64_t step = dim[3] / grid[3] * dim[4], at = task * dim[2] * dim[3] * dim[4];
  const float *from = (const float *)j->image->data + at;
  float *to = (float *)j->out->data + at;
  rng stream = rng_open(j->c->rng_keys[n], hash_mix(j->c->node_id, 1 + (uint64_t)(task % dim[1])));
  for (int64_t y = 0; y < dim[2]; y++) {
    const float *mask = (const float *)j->mask->data +
                        ((n * grid[1] + x) * grid[2] + y / (dim[2] / grid[2])) * grid[3];
    for (int64_t z = 0, end; z < grid[3]; z = end) {
      bool hidden = mask[z] != 0;
      for (end = z + 1; end < grid[3] && (mask[end] != 0) == hidden;) end++;
      int64_t run = (end - z) * step;
      if (hidden)
        fill_run(j, to, run, n, &stream);
      else if (to != from)
        copy_row(to, from, run);
      from += run;
      to += run;
    }
  }
}

void fill_hidden(const call *c, const fill_attrs *fill, const tensor *image, const tensor *mask,
                 const tensor *out, void *workspace) {
  const int64_t *dim = image->shape.dim;
  float *means = workspace;
  job j = {c, fill, image, mask, out, means, means ? means + dim[0] * dim[4] : NULL};
  if (fill->kind == FILL_MEAN) find_means(&j);
  parallel_for(c->pool, dim[0] * dim[1], fill_task, &j);
}
