/* What a loss of a label map makes of a block of voxels: class by class, so that a loop over its voxels is
 * one over neighbours in memory. ops/loss/segmentation.c has classes as the target,
 * ops/loss/segmentation_sets.c sets of regions. */
#ifndef STRATA_OPS_SEGMENTATION_BLOCK_H
#define STRATA_OPS_SEGMENTATION_BLOCK_H

#include "ops/arithmetic/vector_math.h"
#include "ops/loss/segmentation.h"

enum { BLOCK = 64, SUM_LANES = 16 };

/* Partial sums of a task: these, then per class Σp·onehot, Σp² or Σp, and Σonehot. */
enum { SUM_CE, SUM_WEIGHT, SUM_CORRECT, SUM_COUNTED, SUM_BAD, SUM_BAD_LABEL, SUM_FIXED = 8 };

/* Up to BLOCK voxels of a sample. */
typedef struct voxels {
  const float *logits;
  const int32_t *target;
  int64_t count, classes;
  float *out; /* where their gradient will go; NULL: nowhere */
} voxels;

/* A core asks memory for what comes next while it computes; to wait for it would take as long as to
 * compute. Once for each class of a block. */
VECTOR_INLINE void ask_ahead(const voxels *of, int64_t class) {
  ask_for(of->logits + (of->classes + class) * BLOCK, BLOCK);
  if (of->out) ask_for(of->out + class * BLOCK, BLOCK);
}

/* What a region term needs of a class: lanes of Σp·onehot, Σp² or Σp, and Σonehot. */
typedef struct region_lanes {
  float overlap[SUM_LANES], volume[SUM_LANES], count[SUM_LANES];
} region_lanes;

/* Derivative of the loss by the sum of the voxel terms, and by the Dice term. */
typedef struct gradient_scale {
  double voxels, dice;
} gradient_scale;

/* Add a block to the sums of a task. */
void add_sets(double *sums, region_lanes *lanes, const segmentation_terms *t, const voxels *of);
/* The gradient of a block's logits, class by class. */
void gradient_of_sets(float *gradient, const segmentation_terms *t, const voxels *of,
                      const float *slopes, gradient_scale scale);

/* ---- of planes ---------------------------------------------------------------------------------
 * A plane is BLOCK numbers of one class, one a voxel. `label` is the class of each voxel, −1 where it does
 * not count, in which case p is 0. */

/* The logits of a block as planes; 0 beyond its voxels. */
void load_planes(float *planes, const voxels *of);
void add_regions(region_lanes *restrict lanes, const float *restrict p,
                 const int32_t *restrict label, int64_t classes, bool squared);
/* The gradient of a region term. */
void dice_gradient(const float *restrict p, float *restrict gradient, const int32_t *restrict label,
                   const float *restrict slopes, int64_t classes, float factor, bool squared);
/* Adds that of the cross-entropy; `factor` of a voxel that does not count is 0. */
void add_cross_entropy(float *restrict gradient, const float *restrict p,
                       const int32_t *restrict label, int64_t classes,
                       const float *restrict factor);
/* The focal terms of one class against the rest; with a gradient adds the derivatives times `scale`. */
double sigmoid_focal(const segmentation_terms *t, const float *x, const int32_t *label,
                     int32_t class, double weight, float *gradient, double scale);
double class_weight(const segmentation_terms *t, int64_t label);

#endif
