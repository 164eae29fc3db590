/* What others use of layer_norm. */
#ifndef STRATA_OPS_LAYER_NORM_H
#define STRATA_OPS_LAYER_NORM_H

#include "ops/arithmetic/chunks.h"

extern const op op_layer_norm;

/* Rows `part` of a call of layer_norm. */
void layer_norm_part(const call *c, span part);

#endif
