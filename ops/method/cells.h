/* Cells: the equal boxes that a volume is cut into, so many along each axis, counted with z
 * fastest. Slabs are cells along one axis. */
#ifndef STRATA_OPS_CELLS_H
#define STRATA_OPS_CELLS_H

#include "graph/graph.h"

typedef struct cell_attrs {
  int64_t cells[3];
} cell_attrs;

#define CELL_ATTRS(fallback)                                                                       \
  {                                                                                                \
    "cells", ATTR_INT3, offsetof(cell_attrs, cells), fallback, 1, 256, NULL, 0,                    \
        "number of equal parts along x, y and z"                                                   \
  }

static inline int64_t cell_count(const int64_t cells[3]) {
  return cells[0] * cells[1] * cells[2];
}

typedef struct slab_attrs {
  int64_t slabs;
  unsigned axis; /* bit 1, 2 or 4 */
} slab_attrs;

#define SLAB_ATTRS                                                                                 \
  {                                                                                                \
      "slabs", ATTR_INT, offsetof(slab_attrs, slabs), NULL, 2, 256,                                \
      NULL,    0,        "number of equal parts"},                                                 \
  {                                                                                                \
    "axis", ATTR_AXES, offsetof(slab_attrs, axis), "z", 0, 0, NULL, 0,                             \
        "axis across which the volume is cut"                                                      \
  }

static inline status slab_cells(const slab_attrs *attrs, cell_attrs *out) {
  int axis = attrs->axis == 1 ? 0 : attrs->axis == 2 ? 1 : attrs->axis == 4 ? 2 : -1;
  if (axis < 0) return shape_error("axis must be one of x, y and z");
  for (int a = 0; a < 3; a++) out->cells[a] = a == axis ? attrs->slabs : 1;
  return OK;
}

#endif
