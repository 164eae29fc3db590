/* Interpolation by cubic B-splines along one axis, as scipy.ndimage does it with order=3 and
 * mode="nearest": the curve passes through every value, has two continuous derivatives, and goes on
 * behind the ends as if the end values did (Unser, "Splines: a perfect fit for signal and image
 * processing", IEEE Signal Processing Magazine 1999). Applied to one axis after the other it is the
 * tensor product spline of a volume. */
#ifndef STRATA_OPS_KERNELS_CUBIC_SPLINE_H
#define STRATA_OPS_KERNELS_CUBIC_SPLINE_H

#include "base/status.h"

#include <stdint.h>

/* Values of an axis seen as (before, n, after), `after` fastest, at the places at[0] … at[out_n − 1]
 * given as indices of the axis; they may lie up to SPLINE_BEYOND outside [0, n − 1] and are moved
 * there when they lie further. `out` is (before, out_n, after). */
enum { SPLINE_BEYOND = 10 };

status cubic_spline_lines(const float *in, int64_t before, int64_t n, int64_t after,
                          const double *at, int64_t out_n, float *out);

#endif
