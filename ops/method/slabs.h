/* Slabs: the equal parts a volume is cut into along one axis. */
#ifndef STRATA_OPS_SLABS_H
#define STRATA_OPS_SLABS_H

#include "graph/graph.h"

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

/* 0, 1 or 2 for x, y or z; −1 unless exactly one axis is named. */
static inline int slab_axis(const slab_attrs *attrs) {
  return attrs->axis == 1 ? 0 : attrs->axis == 2 ? 1 : attrs->axis == 4 ? 2 : -1;
}

#endif
