/* Sliding-window inference on a prepared case, and export to the grid of the input file. */
#ifndef STRATA_INFER_INFER_H
#define STRATA_INFER_INFER_H

#include "base/parallel.h"
#include "data/grid.h"
#include "data/volume.h"
#include "infer/band.h"
#include "language/pipeline.h"

/* Takes the scores of planes from … to − 1 along x of window n of the batch: (X, Y, Z, classes) of the
 * windows' size, wherever the network has them; they are valid during the call. */
typedef status (*scores_fn)(void *context, int64_t n, int64_t from, int64_t to,
                            const float *scores);
/* Runs the network on the windows.batch windows that lie at inferer.image and hands over all their
 * planes, in the order of n and x. The last windows of a batch may be zeros, whose scores are not
 * looked at. */
typedef status (*window_fn)(void *context, scores_fn take, void *taker);
/* Puts the weights of member `member` of an ensemble into the network. */
typedef status (*member_fn)(void *context, int member);

typedef struct inferer {
  window_spec windows;
  int64_t classes;              /* channels of the scores */
  const uint8_t *region_labels; /* where they are regions (band.h); NULL: classes */
  float *image;                 /* (N, X, Y, Z, C): where windows are put for `run` */
  window_fn run;
  void *context;
  int members; /* of an ensemble; 0: one network, and no `choose` */
  member_fn choose;
  thread_pool *pool; /* NULL: one thread. Results do not depend on it */
  /* Told after every batch how many of how many windows, mirrored copies and members of an ensemble
   * are done; an error ends the call. NULL: nobody asks. */
  status (*after)(void *context, int64_t done, int64_t windows);
  void *after_context;
} inferer;

/* Window positions along one axis as MONAI's dense_patch_slices places them: step = int(window ×
 * (1 − overlap)), at least 1, the last one flush with the end. Returns the count; the first `limit`
 * are written to `start`, which may be NULL when limit is 0. A size below the window counts as the
 * window: such volumes are padded symmetrically with zeros. */
int64_t window_positions(int64_t size, int64_t window, double overlap, int64_t *start,
                         int64_t limit);
/* The same as nnU-Net places them: as few windows as keep their distance at or below `step` voxels, at
 * least 1, spread evenly from end to end. */
int64_t window_positions_evenly(int64_t size, int64_t window, double step, int64_t *start,
                                int64_t limit);
/* Importance of the window's voxels, sigma = sigma_scale × window: 1; or MONAI's Gaussian, clamped from
 * below at the larger of its smallest value and 0.001; or nnU-Net's, which is SciPy's gaussian_filter
 * of the voxel at window / 2: cut off at 4 sigma, with its smallest value beyond. */
status importance_open(const window_spec *windows, int64_t classes, importance *out);
void importance_close(importance *i);

/* Bytes that the sums may have in memory. */
static inline size_t window_budget(const window_spec *w) {
  return w->memory_bytes > 0 ? (size_t)w->memory_bytes : SIZE_MAX;
}

/* Who reads the blended scores, a few planes at a time: planes from … to − 1 across the band's axis
 * are finished, and those before `from` were in earlier calls. Plane from − 1 is still held. */
typedef struct score_reader {
  bool probabilities; /* are the scores wanted? Else only what they say: band.best */
  bool logits;        /* as logits, unless the windows average probabilities */
  status (*planes)(void *context, score_band *band, int64_t from, int64_t to);
  void *context;
} score_reader;

/* Blended scores on the prepared grid: the mean over members, mirrored copies and windows (these by
 * their importance) of the logits, then softmax (regions: sigmoid); or of the probabilities. Held at a time is one
 * window's extent along one axis: see band.h. A network output that is not finite is an error that
 * names the voxel. */
status sliding_window(const inferer *i, const volume *image, const score_reader *reader);

/* ---- export ---- */

/* Probabilities on the prepared grid → class numbers on the target grid: exact copy where the two
 * differ by a signed axis permutation and whole voxels (within 0.001 voxel); else trilinear resampling
 * of the probabilities, or as export_like says, before argmax. Equal probabilities: the lowest class. Of regions the last one whose
 * probability is above a half counts. Outside the prepared grid (beyond its outermost voxels' edges): background. */
typedef struct label_export {
  double map[3][4]; /* target voxel → prepared voxel */
  bool is_copy;
  grid_map copy; /* prepared voxel of each target voxel, where it is one */
  bool logits;   /* are resampled, in place of probabilities */
  int whole;     /* axis of the prepared grid whose slices are not interpolated; −1: none */
  labels *out;
  nifti_values *probabilities; /* on the target grid, too; NULL: not kept */
  thread_pool *pool;
} label_export;

/* Takes the memory of the result, whose voxels are background until planes come. `out` and `pool` are
 * borrowed; on error *out is empty. */
status export_open(const volume *prepared, int64_t classes, const int64_t size[3],
                   const double affine[4][4], thread_pool *pool, labels *out, label_export *e);
/* What is resampled, and along which axes, as `windows` say. */
void export_like(label_export *e, const volume *prepared, const window_spec *windows);
/* Keeps the probabilities that the labels come from, a channel for each class or region: *to is on the
 * target grid and fresh, and is borrowed until the last planes have come. Outside the prepared grid it
 * is certainly the first class (background), and no region. */
void export_keep_probabilities(label_export *e, bool are_regions, nifti_values *to);
/* Hands the planes of sliding_window over, as long as *e is at its place. */
score_reader export_reader(label_export *e);

#endif
