/* Keeping the largest connected component of a class, as nnU-Net's and MONAI's postprocessing do. */
#include "infer/infer.h"

#include <stdlib.h>

/* A run of voxels of one class along z. Runs are far fewer than voxels, and memory goes with them. */
typedef struct run {
  int64_t from, to; /* z, without `to` */
  int64_t parent;   /* a run of the same component, not after this one; itself for the first */
  int64_t voxels;   /* of the component, where the run is its first */
  uint8_t class;
} run;

typedef struct runs {
  run *list;
  int64_t count, capacity;
  int64_t *first; /* of each row (x, y), and the end */
} runs;

static int64_t root_of(run *list, int64_t r) {
  while (list[r].parent != r) {
    list[r].parent = list[list[r].parent].parent;
    r = list[r].parent;
  }
  return r;
}

static void join(run *list, int64_t a, int64_t b) {
  a = root_of(list, a);
  b = root_of(list, b);
  if (a == b) return;
  int64_t first = a < b ? a : b, second = a < b ? b : a;
  list[second].parent = first;
  list[first].voxels += list[second].voxels;
}

static status push(runs *all, run r) {
  if (all->count == all->capacity) {
    int64_t capacity = all->capacity ? 2 * all->capacity : 1024;
    run *list = realloc(all->list, (size_t)capacity * sizeof *list);
    if (!list) return error_out_of_memory((size_t)capacity * sizeof *list);
    all->list = list;
    all->capacity = capacity;
  }
  r.parent = all->count;
  r.voxels = r.to - r.from;
  all->list[all->count++] = r;
  return OK;
}

static void join_if_touching(run *list, int64_t a, int64_t b) {
  if (list[a].class == list[b].class && list[a].from <= list[b].to && list[b].from <= list[a].to)
    join(list, a, b);
}

/* Joins the runs of two rows that touch, corners included. Both rows are sorted by z. */
static void join_rows(const runs *all, int64_t row, int64_t other) {
  int64_t a = all->first[row], a_end = all->first[row + 1];
  int64_t b = all->first[other], b_end = all->first[other + 1];
  run *list = all->list;
  while (a < a_end && b < b_end) {
    join_if_touching(list, a, b);
    if (list[a].to > list[b].to) {
      b++;
      continue;
    }
    /* Where both end, each touches the next of the other by a corner. */
    if (list[a].to == list[b].to && b + 1 < b_end) join_if_touching(list, a, b + 1);
    a++;
  }
}

static status find_runs(const labels *l, const bool chosen[256], runs *all) {
  int64_t nx = l->size[0], ny = l->size[1], nz = l->size[2];
  for (int64_t row = 0; row < nx * ny; row++) {
    const uint8_t *z = l->data + row * nz;
    all->first[row] = all->count;
    for (int64_t from = 0, to; from < nz; from = to) {
      for (to = from + 1; to < nz && z[to] == z[from];) to++;
      if (z[from] > 0 && chosen[z[from]])
        TRY(push(all, (run){.from = from, .to = to, .class = z[from]}));
    }
    all->first[row + 1] = all->count;
    int64_t x = row / ny, y = row % ny;
    if (y > 0) join_rows(all, row, row - 1);
    for (int64_t near = y > 0 ? y - 1 : 0; x > 0 && near <= y + 1 && near < ny; near++)
      join_rows(all, row, (x - 1) * ny + near);
  }
  return OK;
}

static void erase_others(labels *l, const runs *all) {
  int64_t largest[256], rows = l->size[0] * l->size[1];
  run *list = all->list;
  for (int c = 0; c < 256; c++) largest[c] = -1;
  for (int64_t r = 0; r < all->count; r++) { /* in the order of first voxels */
    int64_t *best = &largest[list[r].class];
    if (list[r].parent == r && (*best < 0 || list[r].voxels > list[*best].voxels)) *best = r;
  }
  for (int64_t row = 0; row < rows; row++)
    for (int64_t r = all->first[row]; r < all->first[row + 1]; r++)
      if (root_of(list, r) != largest[list[r].class])
        for (int64_t z = list[r].from; z < list[r].to; z++) l->data[row * l->size[2] + z] = 0;
}

status keep_largest_components(labels *l, const bool chosen[256]) {
  bool any = false;
  for (int c = 1; c < 256; c++) any |= chosen[c];
  if (!any) return OK;
  size_t rows = (size_t)(l->size[0] * l->size[1]);
  runs all = {.first = malloc((rows + 1) * sizeof *all.first)};
  if (!all.first) return error_out_of_memory((rows + 1) * sizeof *all.first);
  status error = find_runs(l, chosen, &all);
  if (!error) erase_others(l, &all);
  free(all.first);
  free(all.list);
  return error;
}
