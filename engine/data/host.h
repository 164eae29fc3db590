/* What host operators (families prepare and sample) see: one case, changed in place. */
#ifndef STRATA_DATA_HOST_H
#define STRATA_DATA_HOST_H

#include "base/rng.h"
#include "data/grid.h"
#include "data/recipe.h"

/* Changes that operators asked for and nobody made yet: one copy will make them all. */
typedef struct host_delayed {
  bool moves;
  grid_map map;    /* from the voxels in memory to the grid that the case names */
  int64_t size[3]; /* of the voxels in memory */
  float fill;
  rescale intensity;
} host_delayed;

/* The case's image and, when it has one, its label are transformed together and keep a common grid.
 * An operator that moves voxels updates both affines, so the way back to the file's grid is always
 * known. Errors are prefixed with the case's name by the caller.
 *
 * A case begins as a view of one that others use (a prepared case in memory): `shared` says so. An
 * operator then reads it freely, but calls host_own before it writes a voxel, or gives it new
 * voxels with host_replace.
 *
 * host_regrid and host_rescale change the case's sizes and affines at once and its voxels when
 * somebody wants to see them: before an operator that lacks the trait OP_LAZY, in host_own, and at
 * the end. A crop, the flips and turns after it and a change of intensity are thus one pass over the
 * crop, from the prepared case to the batch, with the same results to the bit.
 *
 * With a recipe, changes are noted instead of made, for a device to make them: sizes and affines
 * change, and no voxel does. */
typedef struct host_call {
  const struct op *op;
  const void *attrs;
  medical_case *c;
  rng random; /* sample operators: the stream of (seed, stage, epoch, case, crop, operator) */
  bool shared;
  const medical_case *room; /* memory of the caller's for the final result, or NULL; where voxels of
                               that size are made */
  host_delayed delayed;     /* begin with HOST_NOTHING_DELAYED */
  recipe *recipe;           /* NULL: changes are made */
} host_call;

#define HOST_NOTHING_DELAYED ((host_delayed){.intensity = RESCALE_NONE})

/* Makes the voxels the case's own, with all changes made. */
status host_own(host_call *call);
/* Makes the delayed changes. `last`: nobody reads the voxels again soon. */
status host_settle(host_call *call, bool last);
/* Frees the voxels, unless they are shared or in the caller's memory. */
void host_let_go(host_call *call);
/* Gives the case new voxels and lets the old ones go. Both are moved from; a label with
 * no data takes the case's label away. */
void host_replace(host_call *call, volume *image, labels *label);
/* Image and label onto the new grid; image voxels from outside the old one get `fill`. */
status host_regrid(host_call *call, const grid_map *map, float fill);
/* The image's intensities v become v · scale + shift. */
status host_rescale(host_call *call, rescale change);
/* Does what the operator has decided: by its `apply`, or, with a recipe, later. `change` is a struct
 * of the operator's, copied. */
status host_change(host_call *call, change_sort sort, const void *change, size_t bytes);
/* With a recipe: notes what is delayed, or a plain copy in a recipe without changes. */
status host_note_rest(host_call *call);
/* True with the given probability; always draws one number. */
bool host_happens(host_call *call, double probability);

/* Shape rule of the host graphs, run at compile time: −1 = not known before the data is read. It is
 * also where an operator refuses attributes that make no sense together. With `of_case` size and affine
 * are those of a case, as its file's header has them, and become what the operator makes of it, or, where
 * that depends on voxels, the largest that it can make: then `shrinks` is set. */
typedef struct host_infer {
  const void *attrs;
  int64_t size[3];
  int64_t channels;
  bool of_case, shrinks;
  double affine[4][4];
} host_infer;

#endif
