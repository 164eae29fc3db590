/* What the losses of a label map share: one pass over logits and labels that computes the softmax of
 * each voxel in registers and sums what the losses need; and one pass back that computes it again
 * rather than storing it. A loss has at most one term of each sort: one that adds up voxels
 * (cross-entropy or focal) and one of regions, made of each class's overlap and volumes.
 *
 * A voxel whose target is TARGET_UNKNOWN (or a loss's ignore_index) is left out of every sum, so that
 * neither loss nor gradient depends on its logits, and means run over the voxels that count. A region
 * term per sample is a mean over the samples in which a voxel counts. Where none does, the loss and
 * its gradient are 0.
 *
 * In place of a class a voxel's target may be a set of regions (DTYPE_REGIONS), of which region r is the
 * logits' channel r. The losses are then the same with a sigmoid of each channel in place of the softmax,
 * and the cross-entropy is the binary one, its mean over the voxels that count and the channels. */
#ifndef STRATA_OPS_SEGMENTATION_H
#define STRATA_OPS_SEGMENTATION_H

#include "data/label.h"
#include "graph/graph.h"

enum { SEGMENTATION_CLASSES_MAX = 256 };
enum { IGNORE_INDEX_DEFAULT = -100 }; /* PyTorch's: no class */

typedef enum region_form { REGION_DICE, REGION_TVERSKY, REGION_GENERALIZED_DICE } region_form;
enum { WEIGHT_SQUARE, WEIGHT_SIMPLE, WEIGHT_UNIFORM };

typedef struct segmentation_terms {
  bool cross_entropy, dice; /* which terms there are */
  bool accuracy;            /* the result's is wanted */
  double cross_entropy_weight, dice_weight;
  const float_list *class_weights; /* NULL or empty: all 1 */
  bool ignores;                    /* labels equal to ignore_index do not count */
  int64_t ignore_index;
  double label_smoothing;
  bool squared, include_background, batch;
  double smooth_numerator, smooth_denominator;
  region_form form;             /* of the dice term */
  double false_positive_weight; /* Tversky */
  double false_negative_weight; /* Tversky */
  int volume_weights;           /* generalized Dice */
  bool focal;                   /* the cross-entropy is focal; class_weights holds */
  bool sigmoid;                 /* … and each class is told from the rest by itself */
  bool focal_background;        /* … and class 0 is one of them */
  double gamma;                 /* … and this is its exponent */
  double alpha;                 /* … and this its balance; negative: none */
} segmentation_terms;

typedef struct segmentation_result {
  double cross_entropy, dice, accuracy;
  double weight; /* Σ of the class weights of the voxels that count; focal, sets: of 1 a voxel */
} segmentation_result;

/* Ports 0 and 1 of every operator here: logits (N … C) and target (N …), or (N … 1). NULL: the target is
 * classes, and there are no weights of them. */
status segmentation_check(const infer *rule, const segmentation_terms *terms);
/* Shape rule of their gradients, whose input 0 is the logits too: dlogits. */
status segmentation_backward_infer(infer *rule);
/* For a target that is no class. */
status label_error(int label, int64_t classes);
size_t segmentation_workspace(const void *attrs, const tensor *in, int in_count, const tensor *out,
                              int threads);
cost segmentation_cost(const void *attrs, const tensor *in, int in_count, const tensor *out);

/* `slopes` (N C 2): derivatives of the dice term by a voxel's probability, where it bears the class
 * and by the denominator; may be NULL without a dice term. */
status segmentation_forward(const call *c, const segmentation_terms *terms, float *slopes,
                            segmentation_result *result);
/* dlogits of dy · (weighted terms). `weight` is the result's. */
void segmentation_backward(const call *c, const segmentation_terms *terms, const float *slopes,
                           double weight, double dy, float *dlogits);

/* Attributes of dice. Its backward operator serves every loss that is a region term alone. */
typedef struct dice_attrs {
  bool squared, include_background, batch;
  double smooth_numerator, smooth_denominator;
} dice_attrs;
/* Shape rule and gradient rule of such a loss: outputs loss and slopes. */
status region_infer(infer *rule, const segmentation_terms *terms);
status region_grad(grad *rule, bool squared);
status region_forward(const call *c, const segmentation_terms *terms);

#define REGION_OUTPUTS                                                                             \
  (const port[]) {                                                                                 \
    {"loss", "scalar", DTYPE_F32, 0, "the loss"},                                                  \
        {"slopes", "N C 2", DTYPE_F32, PORT_SAVED,                                                 \
         "derivatives of the loss by overlap and volume"},                                         \
    {                                                                                              \
      0                                                                                            \
    }                                                                                              \
  }

#define SEGMENTATION_LOGITS                                                                        \
  { "logits", "N … C", DTYPE_F32, 0, "one score per class, before softmax" }
#define SEGMENTATION_TARGET                                                                         \
  {                                                                                                 \
    "target", "N …", DTYPE_I32, PORT_OR_REGIONS,                                                    \
        "class numbers, 0 … C − 1; −1 where the class is unknown (data: ignore_label): such " \
        "voxels do not count. Or sets of regions (data: regions), the first being channel 0"        \
  }
/* Of losses that need every voxel's class. */
#define SEGMENTATION_KNOWN_TARGET                                                                  \
  { "target", "N …", DTYPE_I32, 0, "class numbers, 0 … C − 1" }
#define SEGMENTATION_COUNT(flags)                                                                  \
  { "weight", "scalar", DTYPE_F32, flags, "voxels that count" }

#endif
