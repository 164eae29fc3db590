/* What host operators (families prepare and sample) see: one case, changed in place. */
#ifndef STRATA_DATA_HOST_H
#define STRATA_DATA_HOST_H

#include "base/rng.h"
#include "data/volume.h"

/* The case's image and, when it has one, its label are transformed together and keep a common grid.
 * An operator that moves voxels updates both affines, so the way back to the file's grid is always
 * known. Errors are prefixed with the case's name by the caller.
 *
 * A case begins as a view of one that others use (a prepared case in memory): `shared` says so. An
 * operator then reads it freely, but calls host_own before it writes a voxel, or gives it new
 * voxels with host_replace or host_regrid. A crop at the front of the sample graph thus copies the
 * crop and nothing else. */
typedef struct host_call {
  const void *attrs;
  medical_case *c;
  rng random; /* sample operators: the stream of (seed, stage, epoch, case, crop, operator) */
  bool shared;
  const medical_case
      *room; /* memory of the caller's for the final result, or NULL; host_regrid makes
                               its result there when it has that size */
} host_call;

/* Makes the voxels the case's own. */
status host_own(host_call *call);
/* Frees the voxels, unless they are shared or in the caller's memory. */
void host_let_go(host_call *call);
/* Gives the case new voxels and lets the old ones go. Both are moved from; a label with
 * no data takes the case's label away. */
void host_replace(host_call *call, volume *image, labels *label);
/* Image and label onto the new grid; image voxels from outside the old one get `fill`. */
status host_regrid(host_call *call, const grid_map *map, float fill);
/* True with the given probability; always draws one number. */
bool host_happens(host_call *call, double probability);

/* Shape rule of the host graphs, run at compile time: −1 = not known before the data is read. It is
 * also where an operator refuses attributes that make no sense together. */
typedef struct host_infer {
  const void *attrs;
  int64_t size[3];
  int64_t channels;
} host_infer;

#endif
