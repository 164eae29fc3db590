/* Marks what an operator makes of a voxel where the host and the CUDA kernels have it from one
 * source. A .cu file defines VOXEL_RULE before it includes such a header. */
#ifndef STRATA_OPS_SAMPLE_VOXEL_RULE_H
#define STRATA_OPS_SAMPLE_VOXEL_RULE_H

#ifndef VOXEL_RULE
#define VOXEL_RULE static inline
#endif

/* In the place of a channel: what is said is said of all. */
enum { ALL_CHANNELS = -1 };

#endif
