/* From probabilities on the prepared grid to class numbers on the grid of a file.
 *
 * The two grids are tied by their affines. The usual case (reoriented, cropped) is a signed axis
 * permutation with whole-voxel offsets and copies class numbers; everything else interpolates the
 * probabilities, voxel by voxel, so nothing of the target's size is held but the result. */
#include "infer/infer.h"

#include <math.h>
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

static status most_probable(const volume *probabilities, labels *out) {
  TRY(labels_allocate(out, probabilities->size));
  memcpy(out->affine, probabilities->affine, sizeof out->affine);
  int64_t classes = probabilities->channels;
  int64_t voxels = out->size[0] * out->size[1] * out->size[2];
  for (int64_t v = 0; v < voxels; v++) {
    const float *p = probabilities->data + v * classes;
    int32_t top = 0;
    for (int32_t c = 1; c < classes; c++)
      if (p[c] > p[top]) top = c;
    out->data[v] = top;
  }
  return OK;
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

static int32_t interpolated_class(const volume *probabilities, const int32_t *best,
                                  const cell *at) {
  /* Where all eight corners agree, so does every weighted mean of them: most voxels end here. */
  bool agree = true;
  for (int k = 1; k < 8; k++) agree = agree && best[at->voxel[k]] == best[at->voxel[0]];
  if (agree) return best[at->voxel[0]];
  int64_t classes = probabilities->channels;
  int32_t top = 0;
  double top_value = -INFINITY;
  for (int32_t c = 0; c < classes; c++) {
    double value = 0;
    for (int k = 0; k < 8; k++)
      value += at->weight[k] * (double)probabilities->data[at->voxel[k] * classes + c];
    if (value > top_value) {
      top_value = value;
      top = c;
    }
  }
  return top;
}

static void resample(const volume *probabilities, const int32_t *best, const double map[3][4],
                     labels *out) {
  int32_t *target = out->data;
  for (int64_t x = 0; x < out->size[0]; x++)
    for (int64_t y = 0; y < out->size[1]; y++)
      for (int64_t z = 0; z < out->size[2]; z++) {
        double point[3];
        for (int a = 0; a < 3; a++)
          point[a] =
              map[a][0] * (double)x + map[a][1] * (double)y + map[a][2] * (double)z + map[a][3];
        cell around;
        *target++ = locate(point, probabilities->size, &around)
                        ? interpolated_class(probabilities, best, &around)
                        : 0;
      }
}

status export_labels(const volume *probabilities, const int64_t size[3], const double affine[4][4],
                     labels *out) {
  *out = (labels){0};
  if (probabilities->channels < 1 || probabilities->channels > CLASSES_LIMIT)
    return error_new(ERROR_DATA, NOWHERE, "cannot export %lld classes: at most %d fit a label map",
                     (long long)probabilities->channels, CLASSES_LIMIT);
  double map[3][4];
  TRY(grid_to_grid(probabilities->affine, affine, map));
  labels best = {0};
  TRY(most_probable(probabilities, &best));
  grid_map regrid;
  status error;
  if (is_regrid(map, size, &regrid)) {
    error = labels_regrid(&best, &regrid, out);
  } else {
    error = labels_allocate(out, size);
    if (!error) resample(probabilities, best.data, map, out);
  }
  labels_free(&best);
  if (!error) memcpy(out->affine, affine, sizeof out->affine);
  return error;
}
