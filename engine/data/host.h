/* What host operators (families prepare and sample) see: one case, changed in place. */
#ifndef STRATA_DATA_HOST_H
#define STRATA_DATA_HOST_H

#include "base/rng.h"
#include "data/volume.h"

/* The case's image and, when it has one, its label are transformed together and keep a common grid.
 * An operator that moves voxels updates both affines, so the way back to the file's grid is always
 * known. Errors are prefixed with the case's name by the caller. */
typedef struct host_call {
  const void *attrs;
  medical_case *c;
  rng random; /* sample operators: the stream of (seed, stage, epoch, case, crop, operator) */
} host_call;

/* Shape rule of the host graphs, run at compile time: −1 = not known before the data is read. */
typedef struct host_infer {
  const void *attrs;
  int64_t size[3];
  int64_t channels;
} host_infer;

#endif
