/* Copies of a tensor's z rows for tiles to read where they cannot read the tensor itself. */
#include "ops/kernels/convolution_parts.h"

static void copy_voxels(const conv_copy *c, float *to, const float *from, int64_t voxels) {
  int64_t groups = voxels * c->groups;
  if (c->pairs) {
    bf16_pair_neighbours((bf16_pair *)to, from, c->group, groups, c->group);
    return;
  }
  if (c->group == c->to_group) {
    copy_factors(to, from, groups * c->group, c->rounds);
    return;
  }
  for (int64_t g = 0; g < groups; g++, to += c->to_group, from += c->group) {
    copy_factors(to, from, c->group, c->rounds);
    memset(to + c->group, 0, (size_t)(c->to_group - c->group) * sizeof(float));
  }
}

/* Some voxels, and the zeros around the rows they begin or end. */
static void copy_task(void *context, int64_t task) {
  const conv_copy *c = context;
  int64_t voxels = c->rows * c->z, channels = c->groups * c->group;
  int64_t width = c->groups * c->to_group, high = c->to_z - c->low - c->z;
  int64_t v = copy_rows_begin(voxels, channels, task);
  int64_t end = copy_rows_begin(voxels, channels, task + 1);
  while (v < end) {
    int64_t z = v % c->z, count = smaller(c->z - z, end - v);
    float *row = c->to + v / c->z * c->to_z * width;
    if (z == 0) memset(row, 0, (size_t)(c->low * width) * sizeof *row);
    row += (c->low + z) * width;
    copy_voxels(c, row, c->from + v * channels, count);
    v += count;
    if (v % c->z == 0) memset(row + count * width, 0, (size_t)(high * width) * sizeof *row);
  }
}

void conv_copy_rows(const conv_copy *c, thread_pool *pool) {
  parallel_for(pool, copy_tasks(c->rows * c->z, c->groups * c->group), copy_task, (void *)c);
}
