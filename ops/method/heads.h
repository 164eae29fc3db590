/* Heads of the pretext tasks: small layers that read the network's feature maps and belong to the
 * loss, so that the next stage leaves them behind. */
#ifndef STRATA_OPS_HEADS_H
#define STRATA_OPS_HEADS_H

#include "ops/method/cells.h"

enum { LEVELS_MAX = 16 };

/* A linear layer whose parameters are called <name>.weight and <name>.bias. */
status build_linear(builder *b, const char *name, value_id x, int64_t features, value_id *out);

/* For every level (input `first` and those after it): mean feature vector of each cell, a linear
 * layer of its own to `classes` logits (heads.<level>), and cross-entropy against `target`
 * (N × cells). Sets output 0, the sum of the losses, and output 1, the accuracy at each level. */
status classify_cells(lower *rule, const cell_attrs *cells, int64_t classes, value_id target,
                      int first);

#define LEVELS_PORT                                                                                \
  { "levels", "N X Y Z C", DTYPE_F32, PORT_VARIADIC, "feature maps of the network, any sizes" }

#endif
