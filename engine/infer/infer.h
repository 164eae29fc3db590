/* Sliding-window inference on a prepared case, and export to the grid of the input file. */
#ifndef STRATA_INFER_INFER_H
#define STRATA_INFER_INFER_H

#include "data/volume.h"
#include "language/pipeline.h"

/* Runs the network on one window: `image` is (X, Y, Z, C) of the window's size, `logits` receives
 * (X, Y, Z, classes). */
typedef status (*window_fn)(void *context, const float *image, float *logits);

typedef struct inferer {
  int64_t window[3];
  int64_t classes;
  double overlap;
  blend blend;
  window_fn run;
  void *context;
} inferer;

/* Window positions along one axis as MONAI's dense_patch_slices places them: step = int(window ×
 * (1 − overlap)), at least 1, the last one flush with the end. Returns the count; the first `limit`
 * are written to `start`, which may be NULL when limit is 0. A size below the window counts as the
 * window: such volumes are padded symmetrically with zeros. */
int window_positions(int64_t size, int64_t window, double overlap, int64_t *start, int limit);
/* Importance of a window voxel: 1, or MONAI's Gaussian (sigma = 0.125 × window, clamped from below
 * at the larger of its smallest value and 0.001). `weight` has X·Y·Z entries. */
void window_importance(const int64_t window[3], blend kind, float *weight);

/* Blended probabilities (softmax of blended logits): (X, Y, Z, classes) on the prepared grid.
 * A network output that is not finite is an error that names the voxel. */
status sliding_window(const inferer *i, const volume *image, volume *probabilities);
/* Probabilities on the prepared grid → class numbers on the target grid (size, affine): exact copy
 * where the two differ by a signed axis permutation and whole voxels (within 0.001 voxel); else
 * trilinear resampling of the probabilities before argmax. Equal probabilities: the lowest class.
 * Outside the prepared grid (beyond its outermost voxels' edges): background. Needs four bytes
 * a prepared voxel besides the result. At most 256 classes. */
status export_labels(const volume *probabilities, const int64_t size[3], const double affine[4][4],
                     labels *out);

#endif
