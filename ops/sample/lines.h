/* A one-dimensional filter along an axis of an image: how separable sample operators are written.
 */
#ifndef STRATA_OPS_SAMPLE_LINES_H
#define STRATA_OPS_SAMPLE_LINES_H

#include "data/volume.h"

/* `out` and `in` are lines of n voxels of one channel. */
typedef void (*line_filter)(const void *context, const float *in, float *out, int64_t n);

/* Filters every line of every channel along the axis, in place. */
status filter_lines(volume *v, int axis, line_filter filter, const void *context);

/* A Gaussian, cut at 4 standard deviations and normalized to sum 1, as scipy.ndimage has it. */
enum { GAUSSIAN_RADIUS_MAX = 64 };
typedef struct gaussian {
  int64_t radius;
  bool continues_edges; /* beyond the ends: the end values, or 0 */
  float weight[2 * GAUSSIAN_RADIUS_MAX + 1];
} gaussian;

/* `sd` in voxels, more than 0 and at most 16. */
gaussian gaussian_of(double sd, bool continues_edges);
/* A line_filter whose context is a gaussian. */
void smooth_line(const void *context, const float *in, float *out, int64_t n);

#endif
