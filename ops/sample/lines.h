/* A one-dimensional filter along an axis of an image: how separable sample operators are written.
 */
#ifndef STRATA_OPS_SAMPLE_LINES_H
#define STRATA_OPS_SAMPLE_LINES_H

#include "data/volume.h"

/* `out` and `in` are lines of n voxels of one channel. */
typedef void (*line_filter)(const void *context, const float *in, float *out, int64_t n);

/* Filters every line of every channel along the axis, in place. */
status filter_lines(volume *v, int axis, line_filter filter, const void *context);

#endif
