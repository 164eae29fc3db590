/* What cutout's kernels share. */
#ifndef STRATA_OPS_METHOD_CUTOUT_H
#define STRATA_OPS_METHOD_CUTOUT_H

enum { CUTOUT_MOST_BOXES = 1000 }; /* of a sample */

#endif
