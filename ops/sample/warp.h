/* What operators that bend or turn a crop share: image and label read at a place for every voxel. */
#ifndef STRATA_OPS_SAMPLE_WARP_H
#define STRATA_OPS_SAMPLE_WARP_H

#include "data/host.h"
#include "ops/sample/warp_rules.h"

#define OUTSIDE_CHOICES ((const char *const[]){"zero", "edge", NULL})

/* Sets `at` to the place, in voxels of the case, whose value voxel `index` of the result has. */
typedef void (*place_of)(const void *context, const int64_t index[3], double at[3]);

/* Image trilinear, label nearest, on a grid of the same extents; the affine is left. */
status warp_case(host_call *call, place_of place, const void *context, int outside);

/* `plane` as [x, y, z] leaves nothing out, two axes are a plane whose slices do not mix. The rule for
 * host_infer, and the axis across the plane (−1: none). */
status plane_check(unsigned plane);
int plane_normal(unsigned plane);

#endif
