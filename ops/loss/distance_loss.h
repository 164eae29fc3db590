/* Losses whose terms are weighted by distances to the boundary: hausdorff_loss and boundary. Both
 * are softmax and then an operator here that makes a map of weights, class by class, sums the terms
 * and keeps the map for the gradient. Distances are constants: no gradient flows through them. */
#ifndef STRATA_OPS_DISTANCE_LOSS_H
#define STRATA_OPS_DISTANCE_LOSS_H

#include "graph/graph.h"

typedef struct distance_loss_attrs {
  bool include_background;
  double alpha;
} distance_loss_attrs;

#define DISTANCE_BACKGROUND_ATTR                                                                   \
  {                                                                                                \
    "include_background", ATTR_BOOL, offsetof(distance_loss_attrs, include_background), "false",   \
        0, 0, NULL, 0, "class 0 counts as one of the classes"                                      \
  }

/* Is it one of them, in a graph that has been expanded? They need the whole structure: labels with
 * voxels whose class is unknown are refused, at the operator's place in the file. */
bool distance_loss_is(const op *o);
status distance_loss_refuse(source_pos at);

/* Builds softmax and `error_op` on the loss's two inputs. */
status distance_loss_lower(lower *rule, const char *error_op);

#endif
