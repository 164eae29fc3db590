/* Random orthonormal vectors, for initial weights. */
#ifndef STRATA_EXECUTE_ORTHOGONAL_H
#define STRATA_EXECUTE_ORTHOGONAL_H

#include "base/parallel.h"

#include <stdint.h>

/* Makes `count` ≤ `length` linearly independent vectors, one after the other in memory, orthonormal
 * by the modified Gram–Schmidt process. Of normal vectors it makes the uniform distribution, as the
 * QR decomposition with a positive diagonal does which torch.nn.init.orthogonal_ takes. */
void orthonormalize(double *vectors, int64_t count, int64_t length, thread_pool *pool);

#endif
