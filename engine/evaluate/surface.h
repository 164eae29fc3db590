/* Surfaces of label maps, and distances between them. */
#ifndef STRATA_EVALUATE_SURFACE_H
#define STRATA_EVALUATE_SURFACE_H

#include "data/volume.h"

/* The surface of a class: its voxels with a 6-neighbour of another class or beyond the image. They
 * lie in Morton order, eight to a leaf, and above the leaves stand levels of bounding boxes, eight
 * children to a group: a packed bounding volume hierarchy. */
typedef struct surface {
  uint64_t *codes; /* Morton codes while the voxels are collected */
  int64_t count, capacity;
  struct surface_leaf *leaves;
  struct surface_boxes *levels[20]; /* [0] groups leaves, [1] groups of [0], … */
  int64_t groups[20];
  int level_count;
} surface;

/* Voxels on the surfaces of the classes in `wanted` (class_count entries, as has `out`), from one
 * pass over the map. */
status surfaces_find(const labels *map, int class_count, const bool *wanted, surface *out);
/* Makes a surface ready for surface_distances. */
status surface_index(surface *s);
void surface_free(surface *s);
/* Exact distance in mm from each voxel of `from` to the nearest of `to`, which is not empty. Costs
 * what the surfaces are large, wherever in the volume they lie. */
void surface_distances(const surface *from, const surface *to, const double spacing_mm[3],
                       double *distance_mm);

#endif
