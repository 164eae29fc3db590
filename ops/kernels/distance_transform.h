/* The exact Euclidean distance transform of a volume, separable and linear in its voxels
 * (Felzenszwalb and Huttenlocher, 2012). */
#ifndef STRATA_OPS_DISTANCE_TRANSFORM_H
#define STRATA_OPS_DISTANCE_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of scratch memory for a volume of this extent. */
size_t distance_transform_scratch(const int64_t size[3]);
/* `squared` holds 0 in the voxels that distances are measured to and infinity elsewhere; receives
 * each voxel's squared distance to the nearest of them in the units of `spacing`; stays infinite
 * where there is none. The last axis is contiguous. */
void distance_transform(float *squared, const int64_t size[3], const double spacing[3],
                        void *scratch);

#endif
