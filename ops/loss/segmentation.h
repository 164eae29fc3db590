/* What cross_entropy, dice and dice_ce share: one pass over logits and labels that computes the
 * softmax of each voxel in registers and sums what the losses need; and one pass back that computes
 * it again rather than storing it. */
#ifndef STRATA_OPS_SEGMENTATION_H
#define STRATA_OPS_SEGMENTATION_H

#include "graph/graph.h"

enum { SEGMENTATION_CLASSES_MAX = 256 };

typedef struct segmentation_terms {
  bool cross_entropy, dice; /* which terms there are */
  double cross_entropy_weight, dice_weight;
  const float_list *class_weights; /* NULL or empty: all 1 */
  bool ignores;                    /* labels equal to ignore_index do not count */
  int64_t ignore_index;
  double label_smoothing;
  bool squared, include_background, batch;
  double smooth_numerator, smooth_denominator;
} segmentation_terms;

typedef struct segmentation_result {
  double cross_entropy, dice, accuracy;
  double weight; /* Σ of the class weights of the voxels that count */
} segmentation_result;

/* Ports 0 and 1 of every operator here: logits (N … C) and target (N …), or (N … 1). */
status segmentation_check(const infer *rule, const float_list *class_weights);
size_t segmentation_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                              int threads);
cost segmentation_cost(const void *attrs, const tensor *in, int in_count, const tensor *out);

/* `slopes` (N C 2): derivatives of the dice term by a voxel's probability, where it bears the class
 * and by the denominator; may be NULL without a dice term. */
status segmentation_forward(const call *c, const segmentation_terms *terms, float *slopes,
                            segmentation_result *result);
/* dlogits of dy · (weighted terms). */
void segmentation_backward(const call *c, const segmentation_terms *terms, const float *slopes,
                           double weight, double dy, float *dlogits);

#define SEGMENTATION_LOGITS                                                                        \
  { "logits", "N … C", DTYPE_F32, 0, "one score per class, before softmax" }
#define SEGMENTATION_TARGET                                                                        \
  { "target", "N …", DTYPE_I32, 0, "class numbers, 0 … C − 1" }

#endif
