/* What crop_volume and pad_volume share: each is the gradient of the other. */
#ifndef STRATA_OPS_BOX_H
#define STRATA_OPS_BOX_H

#include "graph/graph.h"
#include "ops/arithmetic/chunks.h"

typedef struct crop_attrs {
  int64_t size[3], start[3];
} crop_attrs;

enum { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE, PAD_CIRCULAR };

typedef struct pad_volume_attrs {
  int64_t before[3], after[3];
  int mode;
  double value;
} pad_volume_attrs;

static inline status check_volume(const shape *x) {
  char have[96];
  if (x->rank == 5) return OK;
  return shape_error("x must be a volume (N × X × Y × Z × C), but is %s", shape_format(have, x));
}

static inline int64_t crop_start(const crop_attrs *attrs, const shape *x, int axis) {
  return attrs->start[axis] >= 0 ? attrs->start[axis] : (x->dim[1 + axis] - attrs->size[axis]) / 2;
}

static inline cost box_cost(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

#endif
