/* Sliding-window inference on a prepared case, and export to the grid of the input file. */
#ifndef STRATA_INFER_INFER_H
#define STRATA_INFER_INFER_H

#include "base/parallel.h"
#include "base/spill.h"
#include "data/volume.h"
#include "language/pipeline.h"

/* Runs the network on windows.batch windows: `image` is (N, X, Y, Z, C) of the windows' size,
 * `logits` receives (N, X, Y, Z, classes). The last call of a volume may have windows of zeros at its
 * end, whose result is not looked at. */
typedef status (*window_fn)(void *context, const float *image, float *logits);
/* Puts the weights of member `member` of an ensemble into the network. */
typedef status (*member_fn)(void *context, int member);

typedef struct inferer {
  window_spec windows;
  int64_t classes;
  window_fn run;
  void *context;
  int members; /* of an ensemble; 0: one network, and no `choose` */
  member_fn choose;
  thread_pool *pool; /* NULL: one thread. Results do not depend on it */
} inferer;

/* Class probabilities (X, Y, Z, classes) of a prepared case. They may lie in a file: see spill. */
typedef struct window_scores {
  volume probabilities; /* its data belong to `memory` */
  spill memory;
} window_scores;

/* Window positions along one axis as MONAI's dense_patch_slices places them: step = int(window ×
 * (1 − overlap)), at least 1, the last one flush with the end. Returns the count; the first `limit`
 * are written to `start`, which may be NULL when limit is 0. A size below the window counts as the
 * window: such volumes are padded symmetrically with zeros. */
int window_positions(int64_t size, int64_t window, double overlap, int64_t *start, int limit);
/* The same as nnU-Net places them: as few windows as keep their distance at or below `step` voxels,
 * spread evenly from end to end. */
int window_positions_evenly(int64_t size, int64_t window, double step, int64_t *start, int limit);
/* Importance of a window voxel; sigma = sigma_scale × window. 1; or MONAI's Gaussian, clamped from
 * below at the larger of its smallest value and 0.001; or nnU-Net's, which is SciPy's gaussian_filter
 * of the voxel at window / 2: cut off at 4 sigma, with its smallest value beyond. `weight` has X·Y·Z
 * entries. */
void window_importance(const window_spec *windows, float *weight);

/* Blended probabilities on the prepared grid: the mean over members, mirrored copies and windows
 * (these by their importance) of the logits, then softmax; or of the probabilities. A network output
 * that is not finite is an error that names the voxel. On error *out needs no free. */
status sliding_window(const inferer *i, const volume *image, window_scores *out);
void window_scores_free(window_scores *s);

/* Probabilities on the prepared grid → class numbers on the target grid (size, affine): exact copy
 * where the two differ by a signed axis permutation and whole voxels (within 0.001 voxel); else
 * trilinear resampling of the probabilities before argmax. Equal probabilities: the lowest class.
 * Outside the prepared grid (beyond its outermost voxels' edges): background. Needs a byte a
 * prepared voxel besides the result. At most 256 classes. `memory`: what holds the probabilities, or
 * NULL. */
status export_labels(const volume *probabilities, spill *memory, thread_pool *pool,
                     const int64_t size[3], const double affine[4][4], labels *out);

/* Of every class c with chosen[c], only the largest connected component is left; the others become
 * background. Voxels that share a face, an edge or a corner are connected. Of equally large
 * components the one with the first voxel in x, y, z order stays. */
status keep_largest_components(labels *l, const bool chosen[256]);

#endif
