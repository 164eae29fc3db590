/* Sums of the windows' outputs, for as many planes of the prepared grid as windows can still reach.
 *
 * Windows come in slabs across one axis of the grid, the band's. A plane across it that no further
 * window reaches is finished: its scores are read, and its memory is taken for planes to come. So
 * what is held grows with a window and two extents of the volume, not with the volume. */
#ifndef STRATA_INFER_BAND_H
#define STRATA_INFER_BAND_H

#include "base/parallel.h"
#include "base/spill.h"

#include <stdatomic.h>

enum { BAND_CLASSES_MAX = 256 };

/* What becomes of a voxel's sums once it has all its scores. */
typedef enum band_scores {
  BAND_SUMS,         /* nothing: `best` alone is wanted, which sums have as means do */
  BAND_MEANS,        /* of probabilities */
  BAND_LOGITS,       /* means of logits */
  BAND_PROBABILITIES /* of the means of logits */
} band_scores;

typedef struct score_band {
  int64_t size[3]; /* of the whole grid */
  int64_t classes; /* channels of the scores */
  /* By channel, where they are regions, each by itself, and not classes, of which one holds: what `best` says
   * of a voxel whose last probable region it is (data_spec.regions). Whoever opens the band may set it;
   * borrowed. NULL: classes. */
  const uint8_t *region_labels;
  band_scores kind;
  int axis;
  int64_t depth; /* planes that are held: plane p lies where plane p − depth did */
  float *scores; /* (X, Y, Z, classes), with `depth` for the axis' extent. Until a voxel has all its
                      scores: sums of score × importance */
  float *weights; /* (X, Y, Z): sums of importance; NULL for BAND_SUMS */
  uint8_t *best;  /* (X, Y, Z): of voxels that have all their scores the class of the largest, the
                      lowest of equal ones; or the label of the last probable region, 0: none */
  atomic_bool diverged; /* a score of such a voxel was not finite; its first one is NaN now */
  spill memory;         /* of scores and weights */
} score_band;

/* The axis along which a band of windows of that size holds the fewest voxels. */
int band_axis(const int64_t size[3], const int64_t window[3]);
/* Room for `depth` planes across `axis`, which become what `kind` says. At most `budget` bytes of the sums are in memory, the rest in
 * a file: see spill. On error *out needs no close. */
status band_open(const int64_t size[3], int64_t classes, band_scores kind, int axis, int64_t depth,
                 size_t budget, score_band *out);
void band_close(score_band *b);

/* Index in `weights` and `best` of a voxel that is held. */
static inline int64_t band_voxel(const score_band *b, int64_t x, int64_t y, int64_t z) {
  int64_t at[3] = {x, y, z};
  at[b->axis] %= b->depth;
  int64_t ny = b->axis == 1 ? b->depth : b->size[1], nz = b->axis == 2 ? b->depth : b->size[2];
  return (at[0] * ny + at[1]) * nz + at[2];
}

/* How many of the voxels z … end − 1 of a row lie one behind the other from z on. */
static inline int64_t band_run(const score_band *b, int64_t z, int64_t end) {
  int64_t left = b->axis == 2 ? b->depth - z % b->depth : end - z;
  return left < end - z ? left : end - z;
}

/* To be called before rows y0 … y1 − 1, voxels z0 … z1 − 1, of `planes` planes across x are read or
 * written; not while other threads are at work. */
void band_touch(score_band *b, int64_t planes, int64_t y0, int64_t y1, int64_t z0, int64_t z1);

/* What a window's voxel (x, y, z) counts: along[0][x] · along[1][y] · along[2][z], or `lowest` where
 * that is larger. */
typedef struct importance {
  float *along[3]; /* one allocation, that of along[0] */
  float *by_class; /* along[2], every value once for each class */
  float lowest;
} importance;

/* Some planes of a window's scores, on their way into the sums. */
typedef struct band_window {
  const int64_t *size;
  int64_t from, to;    /* planes of the scores, along x */
  int64_t start[3];    /* first voxel, on the grid; what lies outside the grid is left out */
  int64_t fresh[3];    /* a voxel at or behind all three has no score yet */
  int64_t last[3];     /* a voxel before all three will not get another */
  bool mirror[3];      /* the scores are those of the window mirrored along these axes */
  bool probabilities;  /* they are logits, of which the probabilities are added */
  const float *scores; /* (X, Y, Z, classes) of these planes */
  const importance *importance;
} band_window;

void band_add(score_band *b, thread_pool *pool, const band_window *w);

/* Planes from … to − 1 have all their scores. One that is not finite is an error with the first such
 * voxel of these planes. */
status band_check(score_band *b, int64_t from, int64_t to);

#endif
