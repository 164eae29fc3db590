/* What others use of gelu. */
#ifndef STRATA_OPS_GELU_H
#define STRATA_OPS_GELU_H

#include "ops/arithmetic/chunks.h"

extern const op op_gelu;

/* Elements `part` of a call of gelu; input and result may be the same memory. */
void gelu_part(const call *c, span part);

#endif
