/* From probabilities on the prepared grid to class numbers on the grid of a file.
 *
 * The two grids are tied by their affines. The usual case (reoriented, cropped) is a signed axis
 * permutation with whole-voxel offsets and copies class numbers; everything else interpolates the
 * probabilities, voxel by voxel, so nothing of the target's size is held but the result. */
#include "infer/infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Grids this close (in prepared voxels, anywhere on the target) are the same grid: headers hold f32
 * and quaternions, so equal geometry comes back with errors near 1e-4. */
static const double SAME_GRID_VOXELS = 1e-3;

enum { CLASSES_LIMIT = 256 };

/* Target voxel → prepared voxel: inverse(prepared affine) × target affine, rows of a 3 × 4 matrix.
 */
static status grid_to_grid(const double prepared[4][4], const double target[4][4],
                           double map[3][4]) {
  double cofactor[3][3], determinant = 0, volume_bound = 1;
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 3; c++) {
      int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
      cofactor[r][c] = prepared[r1][c1] * prepared[r2][c2] - prepared[r1][c2] * prepared[r2][c1];
    }
  for (int c = 0; c < 3; c++) {
    determinant += prepared[0][c] * cofactor[0][c];
    volume_bound *= sqrt(prepared[0][c] * prepared[0][c] + prepared[1][c] * prepared[1][c] +
                         prepared[2][c] * prepared[2][c]);
  }
  if (!(fabs(determinant) > 1e-6 * volume_bound) || !isfinite(determinant))
    return error_new(ERROR_DATA, NOWHERE,
                     "the prepared volume's affine is singular: its voxel axes do not span space");
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++) {
      map[r][c] = 0;
      for (int k = 0; k < 3; k++) {
        double at = target[k][c] - (c == 3 ? prepared[k][3] : 0);
        map[r][c] += cofactor[k][r] / determinant * at;
      }
      if (!isfinite(map[r][c]))
        return error_new(ERROR_DATA, NOWHERE, "the target's affine is not finite");
    }
  return OK;
}

/* A signed axis permutation with whole offsets: prepared[a] = sign[a] · target[axis[a]] +
 * offset[a]. */
typedef struct signed_permutation {
  int axis[3];
  int64_t sign[3], offset[3];
} signed_permutation;

static bool is_signed_permutation(const double map[3][4], const int64_t target_size[3],
                                  signed_permutation *out) {
  bool taken[3] = {false, false, false};
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
    /* A target of one slice says nothing about the step along it: a different one is resampled. */
    if (fabs(fabs(map[r][axis]) - 1) > SAME_GRID_VOXELS) return false;
    out->axis[r] = axis;
    out->sign[r] = (int64_t)sign;
    out->offset[r] = (int64_t)offset;
  }
  return true;
}

static uint8_t *most_probable(const volume *probabilities) {
  int64_t classes = probabilities->channels;
  int64_t voxels = probabilities->size[0] * probabilities->size[1] * probabilities->size[2];
  uint8_t *best = malloc((size_t)voxels);
  for (int64_t v = 0; best && v < voxels; v++) {
    const float *p = probabilities->data + v * classes;
    int64_t top = 0;
    for (int64_t c = 1; c < classes; c++)
      if (p[c] > p[top]) top = c;
    best[v] = (uint8_t)top;
  }
  return best;
}

static void copy_permuted(const int64_t prepared_size[3], const uint8_t *best,
                          const signed_permutation *p, labels *out) {
  const int64_t *size = out->size;
  memset(out->data, 0, (size_t)(size[0] * size[1] * size[2]) * sizeof *out->data);
  /* Each target axis runs along one prepared axis: where it is inside, and its step in memory. */
  int64_t prepared_stride[3] = {prepared_size[1] * prepared_size[2], prepared_size[2], 1};
  int64_t from[3], to[3], step[3], origin = 0;
  for (int r = 0; r < 3; r++) {
    int t = p->axis[r];
    int64_t last = prepared_size[r] - 1, offset = p->offset[r];
    from[t] = p->sign[r] > 0 ? -offset : offset - last;
    to[t] = (p->sign[r] > 0 ? last - offset : offset) + 1;
    if (from[t] < 0) from[t] = 0;
    if (to[t] > size[t]) to[t] = size[t];
    if (from[t] >= to[t]) return;
    step[t] = p->sign[r] * prepared_stride[r];
    origin += offset * prepared_stride[r];
  }
  for (int64_t x = from[0]; x < to[0]; x++)
    for (int64_t y = from[1]; y < to[1]; y++) {
      int32_t *row = out->data + (x * size[1] + y) * size[2];
      int64_t at = origin + x * step[0] + y * step[1];
      for (int64_t z = from[2]; z < to[2]; z++) row[z] = best[at + z * step[2]];
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

static int32_t interpolated_class(const volume *probabilities, const uint8_t *best, const cell *c) {
  /* Where all eight corners agree, so does every weighted mean of them: most voxels end here. */
  bool agree = true;
  for (int k = 1; k < 8; k++) agree = agree && best[c->voxel[k]] == best[c->voxel[0]];
  if (agree) return best[c->voxel[0]];
  int64_t classes = probabilities->channels;
  int32_t top = 0;
  double top_value = -INFINITY;
  for (int64_t class = 0; class < classes; class ++) {
    double value = 0;
    for (int k = 0; k < 8; k++)
      value += c->weight[k] * (double)probabilities->data[c->voxel[k] * classes + class];
    if (value > top_value) {
      top_value = value;
      top = (int32_t) class;
    }
  }
  return top;
}

static void resample(const volume *probabilities, const uint8_t *best, const double map[3][4],
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
  TRY(labels_allocate(out, size));
  memcpy(out->affine, affine, sizeof out->affine);
  uint8_t *best = most_probable(probabilities);
  if (!best) {
    labels_free(out);
    return error_out_of_memory(
        (size_t)(probabilities->size[0] * probabilities->size[1] * probabilities->size[2]));
  }
  signed_permutation p;
  if (is_signed_permutation(map, size, &p))
    copy_permuted(probabilities->size, best, &p, out);
  else
    resample(probabilities, best, map, out);
  free(best);
  return OK;
}
