/* A sample as a list of changes of a prepared case, drawn but not made: what a device needs to make
 * it by itself. */
#ifndef STRATA_DATA_RECIPE_H
#define STRATA_DATA_RECIPE_H

#include "data/grid.h"

#include <stddef.h>

struct op; /* graph/op.h */

typedef enum change_sort {
  CHANGES_INTENSITIES, /* of the image, where it lies */
  MOVES_VOXELS         /* of image and label, to other memory */
} change_sort;

typedef struct change {
  const struct op *op; /* by whose name a device has the kernel */
  change_sort sort;
  size_t at;       /* of the parameters, a struct of the operator's, in the recipe's memory */
  int64_t size[3]; /* of the grid after it */
} change;

/* Begins as zeros, and keeps its memory for the next sample. The first change moves voxels: the
 * prepared case is only read. */
typedef struct recipe {
  change *list;
  int count, room;
  unsigned char *memory;
  size_t used, bytes;
} recipe;

/* Crops, flips, turns, factors and offsets are not the change of one operator: what lazy operators
 * have left to be done together is a move_change. No operator of the registry. */
extern const struct op change_move_voxels;
typedef struct move_change {
  grid_map map;
  float fill; /* of voxels from outside; rescaled as the others */
  rescale intensity;
} move_change;

status recipe_add(recipe *r, const struct op *o, change_sort sort, const void *parameters,
                  size_t bytes, const int64_t size[3]);
/* Aligned to 16 bytes; valid until the next recipe_add. */
const void *recipe_parameters(const recipe *r, const change *c);
void recipe_clear(recipe *r);
void recipe_free(recipe *r);

#endif
