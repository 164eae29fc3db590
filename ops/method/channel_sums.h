/* Sums over voxels, channel by channel. */
#ifndef STRATA_OPS_CHANNEL_SUMS_H
#define STRATA_OPS_CHANNEL_SUMS_H

#include "ops/arithmetic/vector_math.h"

/* total[c] += Σ x[v][c] over a run of voxels. */
FOR_EACH_ISA static void add_run(float *restrict total, const float *restrict x, int64_t voxels,
                                 int64_t channels) {
  for (int64_t v = 0; v < voxels; v++)
    for (int64_t c = 0; c < channels; c++) total[c] += x[v * channels + c];
}

#endif
