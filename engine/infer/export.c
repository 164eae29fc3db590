/* From probabilities on the prepared grid to class numbers on the grid of a file.
 *
 * The two grids are tied by their affines. The usual case (reoriented, cropped) is a signed axis
 * permutation with whole-voxel offsets and copies class numbers; everything else interpolates the
 * probabilities, voxel by voxel, so nothing of the target's size is held but the result. */
#include "infer/infer.h"

#include "data/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Grids this close (in prepared voxels, anywhere on the target) are the same grid: headers hold f32
 * and quaternions, so equal geometry comes back with errors near 1e-4. */
static const double SAME_GRID_VOXELS = 1e-3;

enum { CLASSES_LIMIT = 256 };

/* Target voxel → prepared voxel: inverse(prepared affine) × target affine, 3 × 4. */
static status grid_to_grid(const double prepared[4][4], const double target[4][4],
                           double map[3][4]) {
  if (!affine_is_valid(prepared) || !affine_is_valid(target))
    return error_new(ERROR_DATA, NOWHERE,
                     "cannot export labels: the affine of the %s volume is not finite or its axes "
                     "do not span space",
                     affine_is_valid(prepared) ? "target" : "prepared");
  double inverse[4][4];
  affine_inverse(prepared, inverse);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++) {
      map[r][c] = c == 3 ? inverse[r][3] : 0;
      for (int k = 0; k < 3; k++) map[r][c] += inverse[r][k] * target[k][c];
    }
  return OK;
}

/* True when the target's voxels are prepared voxels, up to order and direction. */
static bool is_regrid(const double map[3][4], const int64_t target_size[3], grid_map *out) {
  bool taken[3] = {false, false, false};
  *out = grid_identity(target_size);
  for (int r = 0; r < 3; r++) {
    int axis = 0;
    for (int c = 1; c < 3; c++)
      if (fabs(map[r][c]) > fabs(map[r][axis])) axis = c;
    if (taken[axis] || fabs(map[r][3]) > 1e9) return false;
    taken[axis] = true;
    double sign = map[r][axis] < 0 ? -1 : 1, offset = round(map[r][3]);
    /* The deviation is linear over the target grid, so its extremes are sums of the axes' own. */
    double low = map[r][3] - offset, high = low;
    for (int c = 0; c < 3; c++) {
      double d = (map[r][c] - (c == axis ? sign : 0)) * (double)(target_size[c] - 1);
      *(d < 0 ? &low : &high) += d;
    }
    if (!(low >= -SAME_GRID_VOXELS && high <= SAME_GRID_VOXELS)) return false;
    out->axis[axis] = r;
    out->flip[axis] = sign < 0;
    out->start[axis] = (int64_t)offset;
  }
  return true;
}

/* What one export works with. */
typedef struct exporting {
  const volume *probabilities;
  uint8_t *best; /* class number of each prepared voxel */
  double map[3][4];
  labels *out;
  int order[3]; /* axes of the target: the outermost of the loop first */
  int64_t outer;
} exporting;

static void most_probable_row(void *context, int64_t y) {
  const exporting *e = context;
  const volume *p = e->probabilities;
  int64_t classes = p->channels, first = (e->outer * p->size[1] + y) * p->size[2];
  const float *row = p->data + first * classes;
  for (int64_t v = first; v < first + p->size[2]; v++, row += classes) {
    int top = 0;
    for (int c = 1; c < classes; c++)
      if (row[c] > row[top]) top = c;
    e->best[v] = (uint8_t)top;
  }
}

static size_t plane_bytes(const volume *p) {
  return (size_t)(p->size[1] * p->size[2] * p->channels) * sizeof(float);
}

static status most_probable(exporting *e, spill *memory, thread_pool *pool) {
  const volume *p = e->probabilities;
  size_t voxels = (size_t)(p->size[0] * p->size[1] * p->size[2]);
  e->best = malloc(voxels);
  if (!e->best) return error_out_of_memory(voxels);
  for (e->outer = 0; e->outer < p->size[0]; e->outer++) {
    if (memory) spill_touch(memory, 1, plane_bytes(p));
    parallel_for(pool, p->size[1], most_probable_row, e);
  }
  return OK;
}

/* Voxel by voxel along one axis of the target, with no test but the range of the indices. */
static void copy_classes(const exporting *e, const grid_map *map) {
  const int64_t *from_size = e->probabilities->size, *size = e->out->size;
  int64_t stride[3] = {from_size[1] * from_size[2], from_size[2], 1}, i[3];
  uint8_t *to = e->out->data;
  for (i[0] = 0; i[0] < size[0]; i[0]++)
    for (i[1] = 0; i[1] < size[1]; i[1]++)
      for (i[2] = 0; i[2] < size[2]; i[2]++, to++) {
        int64_t voxel = 0;
        bool inside = true;
        for (int a = 0; a < 3; a++) {
          int axis = map->axis[a];
          int64_t at = map->flip[a] ? map->start[a] - i[a] : map->start[a] + i[a];
          inside = inside && at >= 0 && at < from_size[axis];
          voxel += at * stride[axis];
        }
        *to = inside ? e->best[voxel] : 0;
      }
}

/* The eight prepared voxels around a point, and their trilinear weights. */
typedef struct cell {
  int64_t voxel[8];
  double weight[8];
} cell;

/* False outside the grid. Between the outermost voxel centres and edges the edge value holds. */
static bool locate(const double point[3], const int64_t size[3], cell *out) {
  int64_t low[3], high[3];
  double fraction[3];
  for (int a = 0; a < 3; a++) {
    double last = (double)(size[a] - 1), s = point[a];
    if (!(s >= -0.5 - SAME_GRID_VOXELS && s <= last + 0.5 + SAME_GRID_VOXELS)) return false;
    s = s < 0 ? 0 : s > last ? last : s;
    low[a] = (int64_t)s;
    high[a] = low[a] + 1 < size[a] ? low[a] + 1 : low[a];
    fraction[a] = s - (double)low[a];
  }
  for (int k = 0; k < 8; k++) {
    int64_t x = k & 4 ? high[0] : low[0], y = k & 2 ? high[1] : low[1],
            z = k & 1 ? high[2] : low[2];
    out->voxel[k] = (x * size[1] + y) * size[2] + z;
    out->weight[k] = (k & 4 ? fraction[0] : 1 - fraction[0]) *
                     (k & 2 ? fraction[1] : 1 - fraction[1]) *
                     (k & 1 ? fraction[2] : 1 - fraction[2]);
  }
  return true;
}

static uint8_t interpolated_class(const volume *probabilities, const uint8_t *best,
                                  const cell *at) {
  /* Where all eight corners agree, so does every weighted mean of them: most voxels end here. */
  bool agree = true;
  for (int k = 1; k < 8; k++) agree = agree && best[at->voxel[k]] == best[at->voxel[0]];
  if (agree) return best[at->voxel[0]];
  int64_t classes = probabilities->channels;
  uint8_t top = 0;
  double top_value = -INFINITY;
  for (int64_t c = 0; c < classes; c++) {
    double value = 0;
    for (int k = 0; k < 8; k++)
      value += at->weight[k] * (double)probabilities->data[at->voxel[k] * classes + c];
    if (value > top_value) {
      top_value = value;
      top = (uint8_t)c;
    }
  }
  return top;
}

static void resample_row(void *context, int64_t middle) {
  const exporting *e = context;
  const int64_t *size = e->out->size;
  int64_t at[3];
  at[e->order[0]] = e->outer;
  at[e->order[1]] = middle;
  for (int64_t inner = 0; inner < size[e->order[2]]; inner++) {
    double point[3];
    at[e->order[2]] = inner;
    for (int a = 0; a < 3; a++)
      point[a] = e->map[a][0] * (double)at[0] + e->map[a][1] * (double)at[1] +
                 e->map[a][2] * (double)at[2] + e->map[a][3];
    cell around;
    e->out->data[(at[0] * size[1] + at[1]) * size[2] + at[2]] =
        locate(point, e->probabilities->size, &around)
            ? interpolated_class(e->probabilities, e->best, &around)
            : 0;
  }
}

/* Slab by slab along the target axis that follows the prepared x axis most closely, because that is
 * the one along which the probabilities are contiguous. */
static void resample(exporting *e, spill *memory, thread_pool *pool) {
  const volume *p = e->probabilities;
  const int64_t *size = e->out->size;
  const double *x = e->map[0];
  int outer = 0;
  for (int c = 1; c < 3; c++)
    if (fabs(x[c]) > fabs(x[outer])) outer = c;
  e->order[0] = outer;
  e->order[1] = outer == 0 ? 1 : 0;
  e->order[2] = outer == 2 ? 1 : 2;
  /* How many of the prepared planes one plane of the target reaches. */
  double reach = 2;
  for (int k = 1; k < 3; k++) reach += fabs(x[e->order[k]]) * (double)(size[e->order[k]] - 1);
  if (!(reach < (double)p->size[0])) reach = (double)p->size[0];
  for (e->outer = 0; e->outer < size[outer]; e->outer++) {
    if (memory) spill_touch(memory, (size_t)reach + 1, plane_bytes(p));
    parallel_for(pool, size[e->order[1]], resample_row, e);
  }
}

status export_labels(const volume *probabilities, spill *memory, thread_pool *pool,
                     const int64_t size[3], const double affine[4][4], labels *out) {
  *out = (labels){0};
  if (probabilities->channels < 1 || probabilities->channels > CLASSES_LIMIT)
    return error_new(ERROR_DATA, NOWHERE, "cannot export %lld classes: at most %d fit a label map",
                     (long long)probabilities->channels, CLASSES_LIMIT);
  exporting e = {.probabilities = probabilities, .out = out};
  TRY(grid_to_grid(probabilities->affine, affine, e.map));
  grid_map regrid;
  status error = most_probable(&e, memory, pool);
  if (!error) error = labels_allocate(out, size);
  if (!error) {
    memcpy(out->affine, affine, sizeof out->affine);
    if (is_regrid(e.map, size, &regrid))
      copy_classes(&e, &regrid);
    else
      resample(&e, memory, pool);
  }
  free(e.best);
  return error;
}
